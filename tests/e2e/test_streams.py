"""Words by the word, from a site of two processes to readers that know nothing of payments."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import httpx2
import pytest

from channelpay import ChannelPayAuth, Payer
from channelpay.errors import BudgetExceeded
from channelpay.protocol.text import to_hex
from channelpay.testing import DevAccount
from channelpay.testing.furnished import FurnishedChain
from tests.e2e.killed_listener import LIMITS, WORD
from tests.e2e.programs import ENVIRONMENT, REPOSITORY, Workplace, url_in

pytestmark = pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")

LISTENER = (ENVIRONMENT / "python", "-m", "tests.e2e.killed_listener")
UVICORN = (
    *(ENVIRONMENT / "uvicorn", "--app-dir", REPOSITORY, "tests.e2e.stream_site:app"),
    *("--port", "0", "--workers", "2"),
)
SECONDS = 20.0


@pytest.fixture(scope="module")
def url(whole_chain: FurnishedChain, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    snapshot = whole_chain.chain.snapshot()
    variables = {
        "CHANNELPAY_RPC": whole_chain.chain.rpc_url,
        "PUBLISHER_KEY": to_hex(whole_chain.chain.accounts[2].private_key),
        "CHALLENGE_SECRET": "5a" * 32,
    }
    with Workplace(tmp_path_factory.mktemp("publisher"), variables).serving(*UVICORN) as line:
        yield answering(url_in(line))
    whole_chain.chain.revert(snapshot)


def answering(url: str) -> str:
    """Workers begin to listen after the address was printed."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            httpx2.get(f"{url}/stream/1")
        except httpx2.TransportError:
            assert time.monotonic() < deadline
        else:
            return url


@pytest.fixture(scope="module")
def newcomers(whole_chain: FurnishedChain) -> Iterator[DevAccount]:
    return iter(whole_chain.chain.accounts[3:])


@pytest.fixture
def payer(
    whole_chain: FurnishedChain, newcomers: Iterator[DevAccount], tmp_path: Path
) -> Iterator[Payer]:
    """Somebody else in each test."""
    rpc_url, books = whole_chain.chain.rpc_url, tmp_path / "payer.sqlite3"
    with closing(Payer(next(newcomers).private_key, rpc_url, books, limits=[LIMITS])) as payer:
        yield payer


@pytest.fixture
def client(payer: Payer) -> Iterator[httpx2.Client]:
    with httpx2.Client(auth=ChannelPayAuth(payer), timeout=SECONDS) as client:
        yield client


def words(count: int) -> list[str]:
    return [f"data: word {number}" for number in range(count)]


def test_a_long_stream_is_read_whole_and_costs_its_words(
    client: httpx2.Client, payer: Payer, url: str
) -> None:
    with client.stream("POST", f"{url}/stream/1200", json={"prompt": "words"}) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines == words(1200)
    paid = response.extensions["channelpay"]
    assert (paid.cost, paid.receipt.spent) == (1200 * WORD, 1200 * WORD)
    (entry,) = payer.state.channels(payer.address)
    assert (entry.spent, entry.in_flight, entry.deposit) == (1200 * WORD, 0, 2000 * WORD)


def test_streams_at_the_same_time_share_a_channel(payer: Payer, url: str) -> None:
    read: list[list[str]] = []

    async def reader(client: httpx2.AsyncClient) -> None:
        async with client.stream("GET", f"{url}/stream/300") as response:
            read.append([line async for line in response.aiter_lines() if line])

    async def readers() -> None:
        async with (
            httpx2.AsyncClient(auth=ChannelPayAuth(payer), timeout=SECONDS) as client,
            anyio.create_task_group() as group,
        ):
            for _ in range(5):
                group.start_soon(reader, client)

    anyio.run(readers)
    assert read == [words(300)] * 5
    (entry,) = payer.state.channels(payer.address)
    assert (entry.spent, entry.in_flight) == (5 * 300 * WORD, 0)


def test_a_stream_stops_at_the_limit_and_the_channel_can_be_closed(
    client: httpx2.Client, payer: Payer, url: str
) -> None:
    lines: list[str] = []

    def read() -> None:
        with client.stream("GET", f"{url}/stream/5000") as response:
            lines.extend(line for line in response.iter_lines() if line)

    with pytest.raises(BudgetExceeded, match="the limit is"):
        read()
    assert len(client.get(f"{url}/whole/3").text.split("word")) == 4
    (entry,) = payer.state.channels(payer.address)
    assert entry.spent == 1603 * WORD
    assert payer.close_channel(entry.channel_id).receipt.spent == 1603 * WORD


def test_a_whole_answer_costs_what_was_charged_for_it(
    client: httpx2.Client, payer: Payer, url: str
) -> None:
    costs = [
        client.get(f"{url}/whole/{count}").extensions["channelpay"].cost for count in (5, 900, 40)
    ]
    assert costs == [5 * WORD, 900 * WORD, 40 * WORD]
    with pytest.raises(BudgetExceeded):
        client.get(f"{url}/whole/1601")


def test_a_body_that_cannot_ask_for_more_is_cut_off_and_says_why(
    client: httpx2.Client, payer: Payer, url: str
) -> None:
    assert client.get(f"{url}/body/50").text.count("word") == 50
    with pytest.raises(httpx2.RemoteProtocolError, match="the response was metered"):
        client.get(f"{url}/body/1000")
    assert client.get(f"{url}/whole/1").extensions["channelpay"].cost == WORD


def test_a_reader_that_leaves_a_stream_early_gets_back_what_was_not_used(
    client: httpx2.Client, payer: Payer, url: str
) -> None:
    with client.stream("GET", f"{url}/stream/40") as response:
        for line in response.iter_lines():
            if line == "data: word 39":
                break
    assert response.extensions["channelpay"].receipt is None
    (entry,) = payer.state.channels(payer.address)
    closed = payer.close_channel(entry.channel_id)
    assert closed.receipt.accepted > closed.receipt.spent == 40 * WORD
    (entry,) = payer.channels()
    assert entry.settled == 40 * WORD


def test_a_reader_that_is_killed_midway_pays_once_for_each_part_and_goes_on_from_what_it_signed(
    whole_chain: FurnishedChain, newcomers: Iterator[DevAccount], url: str, tmp_path: Path
) -> None:
    account, books = next(newcomers), tmp_path / "payer.sqlite3"
    variables = {
        "CHANNELPAY_RPC": whole_chain.chain.rpc_url,
        "PYTHONPATH": str(REPOSITORY),
        "READER_KEY": to_hex(account.private_key),
    }
    reader = Workplace(tmp_path, variables)
    stream = ("payer.sqlite3", f"{url}/stream/700", "a key that the program kept")

    with reader.started(*LISTENER, *stream, "300") as program:
        output, _ = program.process.communicate(timeout=60)
        assert program.process.returncode == -signal.SIGKILL
    with closing(Payer(account.private_key, variables["CHANNELPAY_RPC"], books)) as payer:
        (before,) = payer.state.channels(payer.address)
        assert output.splitlines() == words(300)
        assert 300 * WORD <= before.signed < 700 * WORD

        assert reader.run(*LISTENER, *stream, "0").stdout.splitlines() == words(700)
        (after,) = payer.state.channels(payer.address)
        assert (after.spent, after.in_flight) == (700 * WORD, 0)
        assert before.signed <= after.signed <= 1600 * WORD
        assert payer.close_channel(after.channel_id).receipt.spent == 700 * WORD
