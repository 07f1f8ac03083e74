"""The last account of a soak: what the chain paid, what the books say and what the payers got must
be the same, to the base unit.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from channelpay.chain.events import (
    ChannelClosed,
    ChannelOpened,
    CloseCancelled,
    CloseRequested,
    Event,
    ToppedUp,
)
from channelpay.errors import InsufficientBalance
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address, Channel, ChannelId
from scripts.chaos.books import Books, ChannelRow, PaymentRow

Purses = Mapping[tuple[Address, Address], int]
"""Amounts in base units by account and token."""


@dataclass(slots=True)
class Bill:
    """What the chain's logs say of one channel, in base units; ``settled`` and ``refund`` are those
    of its end, None before. ``is_closing``: its payer has requested a close.
    """

    channel: Channel
    deposit: int
    is_closing: bool = False
    settled: int | None = None
    refund: int | None = None


def bills_of(events: Iterable[Event]) -> dict[ChannelId, Bill]:
    """The channels that these events opened."""
    bills: dict[ChannelId, Bill] = {}
    for event in events:
        if isinstance(event, ChannelOpened):
            bills[event.channel_id] = Bill(event.channel, event.deposit)
        elif isinstance(event, ToppedUp):
            bills[event.channel_id].deposit = event.deposit
        elif isinstance(event, CloseRequested | CloseCancelled):
            bills[event.channel_id].is_closing = isinstance(event, CloseRequested)
        elif isinstance(event, ChannelClosed):
            bill = bills[event.channel_id]
            bill.settled, bill.refund = event.settled, event.refund
    return bills


@dataclass(frozen=True, slots=True)
class Page:
    """A page that a payer paid for and got."""

    key: str
    channel_id: ChannelId
    price: int


@dataclass(frozen=True, slots=True)
class Diary:
    """What payers noted. ``answers`` counts by status, with a code where it was a problem;
    ``refusals`` those of them to a request with a credential that were neither a success nor 503,
    and that no death explains.
    """

    pages: list[Page] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    lives: int = 0


def read_diary(files: Iterable[Path]) -> Diary:
    """All that is written now; a last line may be under way."""
    diaries = [
        [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]
        for file in files
        if file.exists()
    ]
    notes = [note for diary in diaries for note in diary]
    ends = ("closed", "requested", "withdrawn")
    return Diary(
        pages=[_page(note) for note in notes if "served" in note],
        answers=Counter(_answer(note) for note in notes if "status" in note),
        refusals=Counter(one for diary in diaries for one in _refusals(diary)),
        troubles=Counter(note["trouble"] for note in notes if "trouble" in note),
        closed=Counter(end for note in notes for end in ends if end in note),
        lives=sum("born" in note for note in notes),
    )


def _page(note: dict[str, Any]) -> Page:
    channel_id = ChannelId(bytes.fromhex(note["channelId"][2:]))
    return Page(note["served"], channel_id, note["price"])


def _answer(note: dict[str, Any]) -> str:
    return f"{note['status']} {note['code']}".strip()


def _refusals(diary: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One payer's. The last request of each life may have been charged without its knowing: the
    payee says so once, in the next life.
    """
    unknown = -1
    for note in diary:
        unknown += "born" in note
        if not _is_refusal(note):
            continue
        if note["code"] == InsufficientBalance.code and unknown > 0:
            unknown -= 1
        else:
            yield _answer(note)


def _is_refusal(note: dict[str, Any]) -> bool:
    return "status" in note and note["presented"] and note["status"] not in (200, 204, 503)


def ledger_violations(books: Books, pages: Sequence[Page]) -> Iterator[str]:
    """What must hold at any moment; ``pages`` were noted before the books were read."""
    charged: defaultdict[str, list[PaymentRow]] = defaultdict(list)
    sums: Counter[ChannelId] = Counter()
    for row in books.payments:
        if row.is_charged:
            charged[row.key].append(row)
            sums[row.channel_id] += row.price
    for channel_id, channel in books.channels.items():
        if not sums[channel_id] == channel.spent <= channel.accepted:
            yield f"{_name(channel_id)}: {channel}, and {sums[channel_id]} charged in all"
    for page in pages:
        rows = charged[page.key]
        if [(row.channel_id, row.price) for row in rows] != [(page.channel_id, page.price)]:
            yield f"{page} was got, and charged is {rows}"


def owed_violations(bills: Mapping[ChannelId, Bill], books: Books) -> Iterator[str]:
    """The channels that do not yet merely wait for the end of their grace period."""
    for channel_id, bill in bills.items():
        row = books.channels.get(channel_id)
        is_owed = row is not None and row.settled < row.accepted
        if bill.settled is None and (is_owed or not bill.is_closing):
            yield f"{_name(channel_id)} is neither closed nor settled: {row}, {bill}"


def end_violations(bills: Mapping[ChannelId, Bill], books: Books) -> Iterator[str]:
    """What must hold between the chain and the books once every channel is closed."""
    for channel_id, bill in bills.items():
        row = books.channels.get(channel_id)
        if bill.settled is None or bill.refund is None:
            yield f"{_name(channel_id)} is not closed: {bill}"
        elif bill.settled + bill.refund != bill.deposit:
            yield f"{_name(channel_id)}: settled and refund are not the deposit: {bill}"
        elif row is not None:
            yield from _unlike(channel_id, bill, bill.settled, row)
        elif bill.settled:
            yield f"{_name(channel_id)}: settled, and not in the books: {bill}"
    for channel_id in books.channels.keys() - bills.keys():
        yield f"{_name(channel_id)} is in the books, and not on the chain"


def _unlike(channel_id: ChannelId, bill: Bill, settled: int, row: ChannelRow) -> Iterator[str]:
    same = (row.status, row.deposit, row.settled) == ("finalized", bill.deposit, settled)
    if not same or not row.spent <= settled <= row.accepted:
        yield f"{_name(channel_id)}: the books say {row}, the chain {bill}"


def purse_violations(
    bills: Iterable[Bill], before: Purses, after: Purses, fees_wei: Mapping[Address, int]
) -> Iterator[str]:
    """Whether every account has what it had, less or more what was settled. ``fees_wei`` is what
    each paid for gas; who is not in it has paid none.
    """
    expected = dict(before)
    for bill in bills:
        channel, settled = bill.channel, bill.settled or 0
        expected[channel.payer, channel.token] -= settled
        expected[channel.payee, channel.token] += settled
    for account, fee_wei in fees_wei.items():
        expected[account, NATIVE] -= fee_wei
    for (owner, token), amount in expected.items():
        has = after[owner, token]
        if has != amount:
            yield f"{to_hex(owner)} has {has} of {to_hex(token)}, and should have {amount}"


def _name(channel_id: ChannelId) -> str:
    return f"channel {channel_id.hex()[:8]}"
