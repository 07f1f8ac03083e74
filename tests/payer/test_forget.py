"""What is forgotten is gone from the file, and nothing is that may hold money."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from channelpay.payer.budgets import Purse
from channelpay.payer.forget import finished, forget
from channelpay.payer.purchases import folder_beside, purchase_of
from channelpay.payer.records import Funding, PayerChannel, TopUp
from channelpay.payer.state import PayerState
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
)
from channelpay.protocol.wire import ChallengeIssuer, SessionRequest
from tests.payer.site import DEPLOYMENT, KEY, signing

PAYER = VoucherSigner(DEPLOYMENT, KEY).address
DAY = 86_400
GONE = "https://a-private-matter.example:443"
STAYS = "https://daily-paper.example:443"


@dataclass
class Books:
    """The books of one payer."""

    path: Path
    state: PayerState
    opened: int = field(default=0)

    def channel(self, payee: bytes, origin: str, status: ChannelStatus) -> PayerChannel:
        """One over which was paid, which is of that status now."""
        self.opened += 1
        salt = self.opened.to_bytes(28, "big") + bytes(4)
        channel = Channel(PAYER, Address(payee), NATIVE, ZERO_ADDRESS, salt)
        url = f"{origin}/page"
        planned = PayerChannel.planned(DEPLOYMENT, channel, 100, url, 1)
        self.state.begin_open(planned)
        self.state.record_chain_state(
            planned.channel_id, ChannelState(ChannelStatus.OPEN, 100, settled=0)
        )
        self.state.record_top_up(TopUp(planned.channel_id, payee + bytes(12), 5), 105)
        held = self.state.reserve(planned.channel_id, 7, signing(VoucherSigner(DEPLOYMENT, KEY)))
        self.state.settle(held, 7, url)
        ended = ChannelState(status, 105, settled=7)
        self.state.record_chain_state(planned.channel_id, ended)
        request = SessionRequest(7, NATIVE, Address(payee), DEPLOYMENT)
        challenge = ChallengeIssuer(bytes(32), origin).issue(request, int(time.time()) + DAY)
        self.state.remember_challenge(origin, challenge, None)
        return self.state.channel(planned.channel_id)

    def ids(self) -> set[bytes]:
        return {entry.channel_id for entry in self.state.channels(PAYER)}

    def content(self) -> bytes:
        """All that is in the file and beside it."""
        files = (path for path in self.path.parent.rglob("*") if path.is_file())
        return b"".join(path.read_bytes() for path in files)

    def forget(self) -> tuple[bytes, ...]:
        now = time.time()
        return forget(self.path, now, now)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    path = tmp_path / "payer.sqlite3"
    state = PayerState(path)
    yield Books(path, state)
    state.close()


def test_nothing_of_a_forgotten_channel_is_left_in_the_file(books: Books) -> None:
    gone = books.channel(b"\xa1" * 20, GONE, ChannelStatus.FINALIZED)
    stays = books.channel(b"\xb2" * 20, STAYS, ChannelStatus.OPEN)
    traces = (gone.channel_id, gone.channel.payee, gone.signature, b"a-private-matter")
    before = books.content()
    assert [trace in before for trace in traces] == [True] * 4

    assert books.forget() == (gone.channel_id,)

    after = books.content()
    assert [trace in after for trace in traces] == [False] * 4
    assert [one in after for one in (stays.channel_id, b"daily-paper")] == [True] * 2
    assert books.state.channels(PAYER) == [stays]
    assert books.state.challenge(STAYS) is not None


@pytest.mark.parametrize(
    "status", [ChannelStatus.ABSENT, ChannelStatus.OPEN, ChannelStatus.CLOSING]
)
def test_a_channel_that_may_hold_money_is_not_forgotten(
    books: Books, status: ChannelStatus
) -> None:
    entry = books.channel(b"\xa1" * 20, GONE, status)

    assert books.forget() == ()
    assert books.ids() == {entry.channel_id}


def test_a_channel_whose_funding_is_under_way_is_not_forgotten(books: Books) -> None:
    """A reorganisation could undo the end, and mine a top-up."""
    entry = books.channel(b"\xa1" * 20, GONE, ChannelStatus.FINALIZED)
    books.state.record_funding(Funding(entry.channel_id, b"\x77" * 32, 3, 5))

    assert books.forget() == ()


def test_only_what_is_older_than_that_is_forgotten(books: Books) -> None:
    entry = books.channel(b"\xa1" * 20, GONE, ChannelStatus.FINALIZED)
    now = time.time()

    assert finished(books.path, now - 60) == ()
    assert finished(books.path, now + 60) == (entry.channel_id,)


def test_a_limit_for_all_time_is_not_filled_up_again(books: Books) -> None:
    """And what is left of that is one sum, in which no channel can be recognised."""
    entries = [
        books.channel(bytes([number]) * 20, f"{GONE}{number}", ChannelStatus.FINALIZED)
        for number in (1, 2, 3)
    ]
    purse = Purse.of(entries[0])
    before = books.state.promised_ever(purse)

    assert len(books.forget()) == 3
    assert books.state.promised_ever(purse) == before == 21
    with closing(sqlite3.connect(books.path)) as connection:
        assert connection.execute("SELECT count(*) FROM forgotten").fetchone() == (1,)


@pytest.mark.parametrize("status", [ChannelStatus.OPEN, ChannelStatus.FINALIZED])
def test_a_purchase_that_was_begun_is_kept_while_a_channel_could_pay_it_twice(
    books: Books, status: ChannelStatus
) -> None:
    books.channel(b"\xa1" * 20, GONE, status)
    folder = folder_beside(books.path)
    begin(folder, "/old")
    for place in folder.iterdir():
        os.utime(place, (1, 1))
    key = begin(folder, "/page")
    with purchase_of(folder, PAYER, f"{GONE}/under-way"):
        books.forget()
        left = len([*folder.iterdir()])
    assert left == (2 if status is ChannelStatus.OPEN else 1)
    assert (begin(folder, "/page") == key) is (status is ChannelStatus.OPEN)


def begin(folder: Path, path: str) -> str:
    """The key of a purchase that does not end."""
    with purchase_of(folder, PAYER, f"{GONE}{path}") as purchase:
        return purchase.key
