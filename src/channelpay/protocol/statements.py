"""Statements: what one payer bought from one payee in a period, many small sales in few lines.

Pure. A statement is made of movements, which are rows of a ledger: those of the payee's books, or
what a payer kept of its purchases. It adds up to the base unit: for each channel

    opening + amount = closing,

and without an end of the period, closing is what the books say was spent. So whatever no movement
tells (it was before the period, or is missing from the ledger) is in the opening amount.

Amounts are base units of the token; times are Unix milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from channelpay.protocol.rules import REFUND, Outcome, Payment
from channelpay.protocol.types import Address, ChannelId

_ALL = "*"


class Movement(NamedTuple):
    """By how much a payment raised what is spent: below zero for a refund. ``list_price`` is what
    it would have cost without what was taken off; ``on_tab`` is what was put on a tab instead.
    """

    time: int
    kind: str
    item: str
    amount: int
    list_price: int
    on_tab: int = 0


@dataclass(frozen=True, slots=True)
class Sheet:
    """One channel: all that is known of its movements, and what is spent and settled by now."""

    channel_id: ChannelId
    spent: int
    settled: int
    movements: Sequence[Movement]


@dataclass(frozen=True, slots=True)
class Period:
    """From ``begin`` on, before ``end``; None leaves a side open."""

    begin: int | None = None
    end: int | None = None

    def has(self, time: int) -> bool:
        return not self.is_before(time) and (self.end is None or time < self.end)

    def is_before(self, time: int) -> bool:
        """Whether ``time`` is before the period."""
        return self.begin is not None and time < self.begin


@dataclass(frozen=True, slots=True)
class Line:
    """What was sold of one kind and group: ``list_price - discount - on_tab = amount``."""

    kind: str
    group: str
    count: int
    list_price: int
    discount: int
    on_tab: int
    amount: int


@dataclass(frozen=True, slots=True)
class Balance:
    """One channel in the period: ``opening + amount = closing``. ``settled`` is what the payee has
    taken on chain by now.
    """

    channel_id: ChannelId
    opening: int
    amount: int
    closing: int
    settled: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """A transaction that settled or closed channels of the statement; ``kind`` says which."""

    transaction_hash: bytes
    kind: str
    time: int
    channel_ids: tuple[ChannelId, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """The sum of the amounts of ``lines`` is that of ``balances``, and the ``total``."""

    payer: Address
    payee: Address
    token: Address
    period: Period
    lines: tuple[Line, ...]
    balances: tuple[Balance, ...]
    settlements: tuple[Settlement, ...] = ()

    @property
    def total(self) -> int:
        return sum(line.amount for line in self.lines)


def statement(
    parties: tuple[Address, Address, Address],
    sheets: Iterable[Sheet],
    period: Period,
    settlements: Iterable[Settlement] = (),
) -> Statement:
    """Of payer, payee and token, over the ``sheets`` of their channels. Of the settlements, those
    that are not before the period are named.
    """
    listed = tuple(sheets)
    found = [one for sheet in listed for one in sheet.movements if period.has(one.time)]
    since = (one for one in settlements if not period.is_before(one.time))
    balances = tuple(_balance(sheet, period) for sheet in listed)
    return Statement(*parties, period, _lines(found), balances, tuple(since))


def movement_of(payment: Payment) -> Movement | None:
    """A row of the payee's ledger; None for one that was given back. Its details say what it would
    have cost, where that is not its price.
    """
    if payment.outcome is Outcome.RELEASED:
        return None
    amount = -payment.price if payment.kind == REFUND else payment.price
    told: dict[str, Any] = json.loads(payment.details) if payment.details else {}
    on_tab = _amount(told.get("onTab"), 0)
    list_price = _amount(told.get("list"), amount + on_tab)
    return Movement(payment.time, payment.kind, payment.resource, amount, list_price, on_tab)


def group_of(item: str) -> str:
    """The line that an item belongs to: of a URL, its method, its origin and the first part of its
    path. Whatever is no URL is a group of its own.
    """
    place, found, rest = item.partition("://")
    if not found:
        return item
    target = rest.partition(" ")[0].partition("?")[0].partition("#")[0]
    host, _, path = target.partition("/")
    first, below, _ = path.partition("/")
    return f"{place}://{host}/{first + '/' if below else ''}{_ALL}"


def _balance(sheet: Sheet, period: Period) -> Balance:
    since = sum(one.amount for one in sheet.movements if not period.is_before(one.time))
    amount = sum(one.amount for one in sheet.movements if period.has(one.time))
    opening = sheet.spent - since
    return Balance(sheet.channel_id, opening, amount, opening + amount, sheet.settled)


def _lines(movements: Iterable[Movement]) -> tuple[Line, ...]:
    sums: dict[tuple[str, str], list[int]] = {}
    for one in movements:
        known = sums.setdefault((one.kind, group_of(one.item)), [0, 0, 0, 0])
        for place, more in enumerate((1, one.list_price, one.on_tab, one.amount)):
            known[place] += more
    return tuple(
        Line(kind, group, count, listed, listed - on_tab - amount, on_tab, amount)
        for (kind, group), (count, listed, on_tab, amount) in sorted(sums.items())
    )


def _amount(value: object, otherwise: int) -> int:
    """An amount of a payment's details, if it is there: other ways of selling have others."""
    is_amount = isinstance(value, str) and value.isascii() and value.isdigit()
    return int(value) if isinstance(value, str) and is_amount else otherwise
