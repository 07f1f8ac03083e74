"""A payer that is killed goes on where it was: it pays once for one request, and signs no more than
that takes.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from eth_account import Account

from channelpay.payer.state import PayerState
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.store import open_store
from channelpay.testing.furnished import FurnishedChain
from tests.e2e.killed_reader import PAGE_WEI
from tests.e2e.programs import ENVIRONMENT, REPOSITORY, Workplace, url_in

pytestmark = pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")

SITE = (ENVIRONMENT / "uvicorn", "--app-dir", REPOSITORY, "examples.get_paid:app", "--port", "0")
READER = (ENVIRONMENT / "python", "-m", "tests.e2e.killed_reader")
PASSWORD = "for tests only"
at_each_point = pytest.mark.parametrize("point", ["signed", "sent"])


@pytest.fixture(scope="module")
def publisher(whole_chain: FurnishedChain, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    variables = {
        "CHANNELPAY_RPC": whole_chain.chain.rpc_url,
        "PUBLISHER_KEY": to_hex(whole_chain.chain.accounts[2].private_key),
    }
    return Workplace(tmp_path_factory.mktemp("publisher"), variables)


@pytest.fixture(scope="module")
def url(whole_chain: FurnishedChain, publisher: Workplace) -> Iterator[str]:
    snapshot = whole_chain.chain.snapshot()
    with publisher.serving(*SITE) as line:
        yield f"{url_in(line)}/articles"
    whole_chain.chain.revert(snapshot)


@pytest.fixture
def reader(whole_chain: FurnishedChain, tmp_path: Path) -> Workplace:
    """A program without books; a person with a key file and a home."""
    secret = whole_chain.chain.accounts[1].private_key
    keystore = tmp_path / "home" / "keystore"
    keystore.mkdir(mode=0o700, parents=True)
    keystore.parent.chmod(0o700)
    file = keystore / "reader.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(Account.encrypt(secret, PASSWORD, iterations=2)))
    variables = {
        "CHANNELPAY_ACCOUNT": "reader",
        "CHANNELPAY_HOME": str(keystore.parent),
        "CHANNELPAY_PASSWORD": PASSWORD,
        "CHANNELPAY_RPC": whole_chain.chain.rpc_url,
        "PYTHONPATH": str(REPOSITORY),
        "READER_KEY": to_hex(secret),
    }
    return Workplace(tmp_path, variables)


class Books:
    """Both sides' books of the reader's one channel."""

    def __init__(self, payer: Path, payee: Path, chain: FurnishedChain) -> None:
        with closing(PayerState(payer)) as state:
            (self.ours,) = state.channels(chain.chain.accounts[1].address)
        with closing(open_store(f"sqlite:///{payee}")) as store:
            records = {one.channel_id: one for one in store.records()}
        self.theirs: ChannelRecord | None = records.get(self.ours.channel_id)

    @property
    def charged(self) -> int:
        return 0 if self.theirs is None else self.theirs.spent


def killed(reader: Workplace, *arguments: str) -> None:
    with reader.started(*READER, *arguments) as program:
        program.process.communicate(timeout=60)
        assert program.process.returncode == -signal.SIGKILL


@at_each_point
@pytest.mark.parametrize("client", ["httpx", "requests", "get"])
def test_a_program_that_is_killed_pays_once_for_one_key(
    whole_chain: FurnishedChain,
    publisher: Workplace,
    reader: Workplace,
    url: str,
    client: str,
    point: str,
) -> None:
    ours, theirs = reader.folder / "payer.sqlite3", publisher.folder / "books.sqlite3"
    bought = (client, "payer.sqlite3", f"{url}/one", "a key that the program kept")

    killed(reader, point, *bought)
    before = Books(ours, theirs, whole_chain)
    page = reader.run(*READER, "never", *bought)
    after = Books(ours, theirs, whole_chain)

    assert before.charged == (PAGE_WEI if point == "sent" else 0)
    assert page.stdout.startswith("Article one, paid for by 0x")
    assert (after.charged, after.ours.spent) == (PAGE_WEI, PAGE_WEI)
    assert before.ours.signed == after.ours.signed == PAGE_WEI, "one voucher for one request"


@at_each_point
def test_after_a_kill_the_rest_of_the_deposit_buys_other_pages(
    whole_chain: FurnishedChain, publisher: Workplace, reader: Workplace, url: str, point: str
) -> None:
    ours, theirs = reader.folder / "payer.sqlite3", publisher.folder / "books.sqlite3"

    killed(reader, point, "httpx", "payer.sqlite3", f"{url}/one", "first")
    reader.run(*READER, "never", "httpx", "payer.sqlite3", f"{url}/two", "second")
    if point == "signed":
        reader.run(*READER, "never", "httpx", "payer.sqlite3", f"{url}/three", "third")

    books = Books(ours, theirs, whole_chain)
    assert (books.charged, books.ours.spent) == (2 * PAGE_WEI, 2 * PAGE_WEI)
    assert books.ours.signed == books.ours.deposit == 2 * PAGE_WEI


@at_each_point
def test_a_command_that_is_killed_and_run_again_pays_once_and_then_anew(
    whole_chain: FurnishedChain, publisher: Workplace, reader: Workplace, url: str, point: str
) -> None:
    ours, theirs = reader.folder / "home/payer.sqlite3", publisher.folder / "books.sqlite3"
    command = ("command", "pay", f"{url}/one", "--max", "0.001", "--deposit", "0.002")

    killed(reader, point, *command)
    first = reader.run(*READER, "never", *command)
    books = Books(ours, theirs, whole_chain)
    again = reader.run(*READER, "never", *command)

    assert first.stdout == again.stdout != ""
    assert (books.charged, books.ours.spent, books.ours.signed) == (PAGE_WEI,) * 3
    assert Books(ours, theirs, whole_chain).charged == 2 * PAGE_WEI, "another run buys once more"
