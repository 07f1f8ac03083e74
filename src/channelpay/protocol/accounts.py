"""What a payee remembers of one payer in one token: what was bought, and what is due to the payer.

An account is an entry of the payee's books (:mod:`channelpay.protocol.entries`). It only ever
changes by a :class:`Change`, which a sale brings, and which is undone when the sale is given back.
Amounts are base units of the token, times Unix milliseconds.

A sale is pending as long as it may be given back: what it earned is there, and does not count yet.
Else a key could spend it, take its money back, and never be seen again. Who sells learns of each
delivery, and takes that into the books with the next sale; what nobody took there ends by itself,
:data:`PENDING_MS` after the last sale.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple, Self

from channelpay.errors import ConfigError
from channelpay.protocol.entries import NO_NUMBERS, EntryKey, EntryState, EntryValue, Undo
from channelpay.protocol.types import Address

KIND = "account"
DAY_MS = 86_400_000
PENDING_MS = 3_600_000
"""Longer than a request waits for its answer."""
_COUNTER = "counter."
_CHANGED = ("bought", "paid", "credit", "points")


class Change(NamedTuple):
    """What one sale makes of an account. ``bought`` is 1 where something was really ``paid``, in
    the ``month`` of the sale; ``credit`` and ``points`` are what was earned less what was spent;
    ``counters`` are differences by the name of an incentive.
    """

    month: int
    bought: int = 0
    paid: int = 0
    credit: int = 0
    points: int = 0
    counters: Mapping[str, int] = NO_NUMBERS

    def undo(self, key: EntryKey) -> tuple[Undo, ...]:
        """What takes it back from the account at ``key``."""
        sums = {name: -delta for name in _CHANGED if (delta := getattr(self, name))}
        for name, delta in self.counters.items():
            if delta:
                sums[_COUNTER + name] = -delta
        if self.bought:
            sums["pending"], sums["pending_paid"] = -self.bought, -self.paid
        return (Undo(key, sums),) if sums else ()


class Delivered(NamedTuple):
    """Sales that stand, and what was paid for them, or for others that brought a reward. The first
    began at ``since``.
    """

    sales: int = 0
    paid: int = 0
    since: int = 0


NOT_YET = Delivered()


class Account(NamedTuple):
    """``bought`` counts the sales for which something was ``paid``; ``bought_before`` and
    ``paid_before`` are these sums when the calendar month ``month`` (202601, UTC) of the last sale
    began. ``credit`` (base units) and ``points`` are what the payer may spend; ``counters`` are
    kept by the name of an incentive. All three go below zero when a sale is given back whose
    earnings were spent: they are earned again.

    ``pending`` sales are not known here to stand, of which the last began at ``last_sale``;
    ``pending_paid`` was paid for them, or is credit for bringing others.
    """

    first_seen: int = 0
    bought: int = 0
    paid: int = 0
    month: int = 0
    bought_before: int = 0
    paid_before: int = 0
    credit: int = 0
    points: int = 0
    pending: int = 0
    pending_paid: int = 0
    last_sale: int = 0
    counters: Mapping[str, int] = NO_NUMBERS

    def counter(self, name: str) -> int:
        return self.counters.get(name, 0)

    def in_month(self, month: int) -> tuple[int, int]:
        """How many sales, and for how much, in a month that is not before the last one. One that is
        given back in the month after its own is missing from that.
        """
        if month > self.month:
            return 0, 0
        return max(0, self.bought - self.bought_before), max(0, self.paid - self.paid_before)

    def pending_at(self, now: int) -> tuple[int, int]:
        """How many sales may still be given back, and what was paid for them."""
        if now - self.last_sale > PENDING_MS:
            return 0, 0
        return max(0, self.pending), max(0, self.pending_paid)

    def knowing(self, delivered: Delivered) -> Account:
        """The account once it is known that these sales stand."""
        if delivered is NOT_YET:
            return self
        pending, paid = self.pending - delivered.sales, self.pending_paid - delivered.paid
        return self._replace(pending=max(0, pending), pending_paid=max(0, paid))

    def rewarded(self, reward: int, now: int) -> Account:
        """The account with credit for a sale to somebody else."""
        _, paid = self.pending_at(now)
        credit = self.credit + reward
        return self._replace(credit=credit, pending_paid=paid + reward, last_sale=now)

    def plus(self, change: Change, now: int) -> Account:
        """The account after a sale at ``now``."""
        begins = change.month > self.month
        pending, paid, last = self.pending, self.pending_paid, self.last_sale
        if change.bought:
            (pending, paid), last = self.pending_at(now), now
        counters = self.counters
        if change.counters:
            counters = dict(counters)
            for name, delta in change.counters.items():
                counters[name] = counters.get(name, 0) + delta
        return Account(
            self.first_seen or now,
            self.bought + change.bought,
            self.paid + change.paid,
            change.month if begins else self.month,
            self.bought if begins else self.bought_before,
            self.paid if begins else self.paid_before,
            self.credit + change.credit,
            self.points + change.points,
            pending + change.bought,
            paid + change.paid,
            last,
            counters,
        )

    def to_state(self) -> EntryState:
        """As the books keep it."""
        state: dict[str, EntryValue] = dict(zip(_FIELDS, self[:-1], strict=True))
        for name, count in self.counters.items():
            state[_COUNTER + name] = count
        return state

    @classmethod
    def from_state(cls, state: EntryState | None) -> Self:
        """The reverse of :meth:`to_state`; a new account from None. Raises
        :class:`~channelpay.errors.ConfigError` for anything that it did not write.
        """
        if state is None:
            return cls()
        if {*map(type, state.values())} != {int}:
            raise ConfigError("an account has whole numbers alone")
        try:
            numbers = _numbers_of(state)
        except KeyError as error:
            raise ConfigError("an account lacks a number") from error
        counted = state.keys() - _NAMES
        if not all(name.startswith(_COUNTER) for name in counted) or min(numbers[:_SUMS]) < 0:
            raise ConfigError("an account has other members, or is below zero")
        counters = {name[len(_COUNTER) :]: state[name] for name in counted}
        return cls._make((*numbers, counters))


_FIELDS = Account._fields[:-1]
_NAMES = frozenset(_FIELDS)
_SUMS = _FIELDS.index("credit")
"""How many of them are never below zero: those before the balances."""
_numbers_of = itemgetter(*_FIELDS)


def account_key(payer: Address, token: Address) -> EntryKey:
    """Where the account of a payer is, for one token."""
    return EntryKey(KIND, payer + token)


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> int:
    date = datetime.fromtimestamp(day * DAY_MS // 1000, UTC)
    return date.year * 100 + date.month


def month_of(now: int) -> int:
    """The calendar month (UTC) of Unix milliseconds: 202601."""
    return _month_of_day(day_of(now))


def day_of(now: int) -> int:
    """The day (UTC) of Unix milliseconds, counted from 1970-01-01."""
    return now // DAY_MS
