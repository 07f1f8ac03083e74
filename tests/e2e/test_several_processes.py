"""Many requests from several processes on one channel, to a site in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from channelpay.payer.state import PayerState
from channelpay.protocol.text import to_hex
from channelpay.store import open_store
from channelpay.testing.furnished import FurnishedChain
from tests.e2e.parallel_reader import PAGE_WEI
from tests.e2e.programs import ENVIRONMENT, REPOSITORY, Workplace, url_in

pytestmark = pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")

PROCESSES = 4
REQUESTS_EACH = 16
SITE = (ENVIRONMENT / "uvicorn", "--app-dir", REPOSITORY, "examples.get_paid:app", "--port", "0")
READER = (ENVIRONMENT / "python", "-m", "tests.e2e.parallel_reader")


def place(furnished: FurnishedChain, folder: Path, name: str, number: int) -> Workplace:
    folder = folder / name
    folder.mkdir()
    key = to_hex(furnished.chain.accounts[number].private_key)
    variables = {"CHANNELPAY_RPC": furnished.chain.rpc_url, f"{name.upper()}_KEY": key}
    return Workplace(folder, variables | {"PYTHONPATH": str(REPOSITORY)})


@pytest.fixture
def publisher(furnished: FurnishedChain, tmp_path: Path) -> Workplace:
    return place(furnished, tmp_path, "publisher", 2)


@pytest.fixture
def reader(furnished: FurnishedChain, tmp_path: Path) -> Workplace:
    return place(furnished, tmp_path, "reader", 1)


@pytest.fixture
def url(publisher: Workplace) -> Iterator[str]:
    with publisher.serving(*SITE) as line:
        yield f"{url_in(line)}/articles"


def test_64_requests_from_4_processes_are_all_served_and_both_books_agree(
    furnished: FurnishedChain, publisher: Workplace, reader: Workplace, url: str
) -> None:
    statuses, costs = read_at_once(reader, url)

    count = PROCESSES * REQUESTS_EACH
    assert statuses == [200] * count
    with closing(PayerState(reader.folder / "payer.sqlite3")) as state:
        (ours,) = state.channels(furnished.chain.accounts[1].address)
    with closing(open_store(f"sqlite:///{publisher.folder / 'books.sqlite3'}")) as store:
        (theirs,) = store.records()
    assert (ours.spent, ours.in_flight) == (count * PAGE_WEI, 0)
    assert (theirs.spent, theirs.accepted) == (ours.spent, ours.signed)
    assert theirs.available == 0, "nothing was promised that was not used"
    assert sum(costs) == ours.spent


def read_at_once(reader: Workplace, url: str) -> tuple[list[int], list[int]]:
    """Status and cost of all answers, to processes that begin when all of them are ready."""
    with ExitStack() as stack:
        readers = [
            stack.enter_context(reader.started(*READER, "payer.sqlite3", url, str(REQUESTS_EACH)))
            for _ in range(PROCESSES)
        ]
        for one in readers:
            assert one.line() == "ready\n"
        for one in readers:
            one.type("\n")
        answers = [json.loads(one.rest()) for one in readers]
    return [s for one in answers for s in one[0]], [c for one in answers for c in one[1]]
