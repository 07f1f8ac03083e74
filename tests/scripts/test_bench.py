"""The benchmark does what it says: its page, its load, its slower disk, its filled books."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from channelpay.protocol.rules import Purchase
from channelpay.protocol.types import NATIVE, Address, Deployment, Voucher
from channelpay.protocol.wire import ChallengeIssuer, Credential, SessionRequest, VoucherPayload
from channelpay.store import Accepted, open_store
from scripts.bench import __main__ as bench
from scripts.bench.books import channel_id, fill
from scripts.bench.database import sqlite_url
from scripts.bench.disk import DELAY_MILLISECONDS, slow_disk
from scripts.bench.figures import Ratio, Target
from scripts.bench.load import drive
from scripts.bench.page import page
from scripts.bench.scene import PLAIN_REQUEST, PRICE, PaidRequests, payers_of
from tests.support.postgres import *  # noqa: F403  (fixtures)

DEPLOYMENT = Deployment(1, Address(b"c" * 20))
PAYEE = Address(b"p" * 20)
SERVED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok"


def test_the_page_shows_the_figures() -> None:
    figures = json.loads(bench.FIGURES.read_text(encoding="utf-8"))
    assert bench.PAGE.read_text(encoding="utf-8") == page(figures)


@pytest.mark.parametrize(("at_most", "met"), [(True, False), (False, True)])
def test_a_target_is_met_by_the_median(*, at_most: bool, met: bool) -> None:
    ratio = Ratio.of([9.0, 0.5, 2.0])
    assert (ratio.low, ratio.median, ratio.high) == (0.5, 2.0, 9.0)
    assert Target("", ratio, 1.9, at_most=at_most).met is met


def test_each_request_pays_its_price_on_one_channel_after_the_other() -> None:
    challenge = ChallengeIssuer(b"s" * 32, "bench").issue(
        SessionRequest(PRICE, NATIVE, PAYEE, DEPLOYMENT), 1e10
    )
    payers = payers_of(DEPLOYMENT, PAYEE, 2)
    taken = [_voucher(raw) for raw in PaidRequests(payers, challenge).take(4)]
    ids = [one.channel_id for one in payers]
    paid = [(voucher.channel_id, voucher.cumulative_amount) for voucher in taken]
    assert paid == [*((one, PRICE) for one in ids), *((one, 2 * PRICE) for one in ids)]


def _voucher(raw: bytes) -> Voucher:
    lines = raw.decode().split("\r\n")
    (header,) = (line for line in lines if line.startswith("Authorization: "))
    payload = Credential.parse(header.removeprefix("Authorization: ")).payload
    assert isinstance(payload, VoucherPayload)
    return payload.voucher


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, int]]:
    """A server that gives this answer to every read of one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while connection.recv(65_536):
                    connection.sendall(answer)

        serving = Thread(target=serve, daemon=True)
        serving.start()
        host, port = listening.getsockname()
        yield host, port
        serving.join(10)


def test_a_load_keeps_every_latency() -> None:
    with answering(SERVED % b"Payment-Receipt: x\r\n") as server:
        sample = drive(server, [iter([PLAIN_REQUEST] * 3)], "Payment-Receipt")
    assert len(sample.latencies) == 3
    assert sample.latency(0.99) == sample.latencies[-1]


@pytest.mark.parametrize(
    "answer", [SERVED % b"", b"HTTP/1.1 402 Payment Required\r\nContent-Length: 0\r\n\r\n"]
)
def test_an_answer_that_is_not_a_paid_one_ends_the_load(answer: bytes) -> None:
    with answering(answer) as server, pytest.raises(RuntimeError, match="answer"):
        drive(server, [iter([PLAIN_REQUEST])], "Payment-Receipt")


@pytest.mark.parametrize("name", ["fsync", "fdatasync"])
def test_the_slower_disk_takes_longer_for_each_sync(name: str, tmp_path: Path) -> None:
    syncs = 50
    program = (
        "import os, time\nfile = os.memfd_create('synced in no time')\n"
        f"began = time.perf_counter()\nfor _ in range({syncs}): os.{name}(file)\n"
        "print(time.perf_counter() - began)"
    )
    environment = os.environ | slow_disk(tmp_path)
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert float(printed) >= syncs * DELAY_MILLISECONDS / 1000


@pytest.fixture(params=["sqlite", "postgres"])
def empty_books(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "books.sqlite3")
    new: Callable[[], str] = request.getfixturevalue("postgres_server").new_books
    return new()


def test_filled_books_take_vouchers_of_each_channel(empty_books: str) -> None:
    fill(empty_books, 300)
    purchases = [
        Purchase(Voucher(channel_id(number), 2 * PRICE, b"\1" * 65), PRICE, "GET /", 0, "key")
        for number in range(300)
    ]
    with closing(open_store(empty_books)) as store:
        assert len(store.records()) == 301
        answers = store.accept(purchases).result()
        assert all(isinstance(answer, Accepted) for answer in answers)
