"""What a payee remembers of one payer in one token: what was bought, and what is due to the payer.

An account is an entry of the payee's books (:mod:`channelpay.protocol.entries`). It only ever
changes by a :class:`Change`, which a sale brings, and which is undone when the sale is given back.
Amounts are base units of the token, times Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

from channelpay.errors import ConfigError
from channelpay.protocol.entries import EntryKey, EntryState, EntryValue, Undo
from channelpay.protocol.types import Address

KIND = "account"
DAY_MS = 86_400_000
_COUNTER = "counter."
_SUMS = ("first_seen", "bought", "paid", "month", "bought_before", "paid_before")
_BALANCES = ("credit", "points")
_NAMES = {*_SUMS, *_BALANCES}


@dataclass(frozen=True, slots=True)
class Change:
    """What one sale makes of an account. ``bought`` is 1 where something was really ``paid``, in
    the ``month`` of the sale; ``credit`` and ``points`` are what was earned less what was spent;
    ``counters`` are differences by the name of an incentive.
    """

    month: int
    bought: int = 0
    paid: int = 0
    credit: int = 0
    points: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)

    def undo(self, key: EntryKey) -> tuple[Undo, ...]:
        """What takes it back from the account at ``key``."""
        sums = {
            "bought": -self.bought,
            "paid": -self.paid,
            "credit": -self.credit,
            "points": -self.points,
        }
        for name, delta in self.counters.items():
            sums[_COUNTER + name] = -delta
        sums = {name: delta for name, delta in sums.items() if delta}
        return (Undo(key, sums),) if sums else ()


@dataclass(frozen=True, slots=True)
class Account:
    """``bought`` counts the sales for which something was ``paid``; ``bought_before`` and
    ``paid_before`` are these sums when the calendar month ``month`` (202601, UTC) of the last sale
    began. ``credit`` (base units) and ``points`` are what the payer may spend; ``counters`` are
    kept by the name of an incentive. All three go below zero when a sale is given back whose
    earnings were spent: they are earned again.
    """

    first_seen: int = 0
    bought: int = 0
    paid: int = 0
    month: int = 0
    bought_before: int = 0
    paid_before: int = 0
    credit: int = 0
    points: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)

    def counter(self, name: str) -> int:
        return self.counters.get(name, 0)

    def in_month(self, month: int) -> tuple[int, int]:
        """How many sales, and for how much, in a month that is not before the last one. One that is
        given back in the month after its own is missing from that.
        """
        if month > self.month:
            return 0, 0
        return max(0, self.bought - self.bought_before), max(0, self.paid - self.paid_before)

    def plus(self, change: Change, now: int) -> Account:
        """The account after a sale at ``now``."""
        begins = change.month > self.month
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
            counters,
        )

    def to_state(self) -> EntryState:
        """As the books keep it."""
        state: dict[str, EntryValue] = {name: getattr(self, name) for name in _SUMS + _BALANCES}
        state |= {_COUNTER + name: count for name, count in self.counters.items()}
        return state

    @classmethod
    def from_state(cls, state: EntryState | None) -> Self:
        """The reverse of :meth:`to_state`; a new account from None. Raises
        :class:`~channelpay.errors.ConfigError` for anything that it did not write.
        """
        if state is None:
            return cls()
        counters: dict[str, int] = {}
        numbers: dict[str, int] = {}
        for name, value in state.items():
            if type(value) is not int:
                raise ConfigError(f"{name[:40]} of an account must be a whole number")
            if name.startswith(_COUNTER):
                counters[name[len(_COUNTER) :]] = value
            else:
                numbers[name] = value
        if numbers.keys() != _NAMES or min(numbers[name] for name in _SUMS) < 0:
            raise ConfigError("an account has other members, or is below zero")
        return cls(**numbers, counters=counters)


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
