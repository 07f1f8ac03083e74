"""The part of the payer's books that holds what was spent on each day, within which budgets.

The books' day is that of the clock (UTC), but never one before a day on which something was booked:
a clock that ran ahead and was set back gives no fresh room. What was promised meanwhile counts
until the clock has passed that day. Leave beyond limits is for the day of the clock alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from channelpay.payer.books import Books
from channelpay.payer.budgets import Budget, LimitKind, Purse, Question, Spending, Use, over_limit
from channelpay.payer.database import amount_blob, blob_amount
from channelpay.payer.records import PayerChannel
from channelpay.protocol.types import Address, ChannelStatus

SECONDS_OF_DAY = 86_400


class Budgets(Books):
    """What was promised and paid, and what that leaves of budgets."""

    def check_budget(self, purse: Purse, budget: Budget, amount: int) -> None:
        """Raises :class:`BudgetExceeded` if so much more were to be promised."""
        with self._database.read() as connection:
            check(uses(connection, purse, budget, self._now), amount)

    def room(self, entry: PayerChannel, budget: Budget) -> int:
        """What can be set aside on a channel within its deposit and a budget."""
        with self._database.read() as connection:
            found = uses(connection, Purse.of(entry), budget, self._now)
        ahead = max(0, entry.signed - entry.spent - entry.in_flight)
        return min([entry.room, *(max(0, one.limit - one.used) + ahead for one in found)])

    def spending_today(self, purse: Purse) -> list[Spending]:
        """What was promised and paid today, by origin."""
        with self._database.read() as connection:
            return on_day(connection, purse, books_day(connection, self._now))

    def promised_ever(self, purse: Purse) -> int:
        """What payees can take at most of all that was ever promised."""
        with self._database.read() as connection:
            return promised_ever(connection, purse)

    def allow_today(self, payer: Address, question: Question) -> None:
        """No limit stops requests to this origin today that cost no more than this one."""
        purse = Purse(payer, question.chain_id, question.token)
        with self._database.write() as connection:
            allow(connection, purse, question.origin, self._now, question.price)

    def is_allowed_today(self, payer: Address, question: Question) -> bool:
        """Whether :meth:`allow_today` answers the question."""
        purse = Purse(payer, question.chain_id, question.token)
        with self._database.read() as connection:
            found = on_day(connection, purse, clock_day(self._now), question.origin)
        return any(question.price <= one.allowed for one in found)


# --- inside one step of the books ----------------------------------------------------------------


def clock_day(seconds: float) -> int:
    """The day of Unix ``seconds``, counted from that of 0."""
    return int(seconds) // SECONDS_OF_DAY


def books_day(connection: sqlite3.Connection, now: int) -> int:
    """The day of the books when the clock says ``now`` (Unix seconds), as are those below."""
    (latest,) = connection.execute("SELECT max(day) FROM spending").fetchone()
    return max(clock_day(now), latest or 0)


def count(
    connection: sqlite3.Connection, entry: PayerChannel, growth: int, budget: Budget, now: int
) -> None:
    """Promise so much more on a channel. Raises :class:`BudgetExceeded`."""
    purse = Purse.of(entry)
    check(uses(connection, purse, budget, now), growth)
    add(connection, purse, budget.origin, now, promised=growth)


def uses(connection: sqlite3.Connection, purse: Purse, budget: Budget, now: int) -> list[Use]:
    """How much of each limit of a budget is used."""
    found, day = [], books_day(connection, now)
    if budget.origin_day_max is not None:
        used = _promised(on_day(connection, purse, day, budget.origin))
        found.append(Use(LimitKind.ORIGIN_DAY, budget.origin_day_max, used))
    if budget.day_max is not None:
        used = _promised(on_day(connection, purse, day))
        found.append(Use(LimitKind.DAY, budget.day_max, used))
    if budget.total_max is not None:
        found.append(Use(LimitKind.TOTAL, budget.total_max, promised_ever(connection, purse)))
    return found


def _promised(rows: Sequence[Spending]) -> int:
    return sum(one.promised for one in rows)


def check(found: Sequence[Use], amount: int) -> None:
    """Raises :class:`BudgetExceeded` if so much more goes beyond a limit."""
    for use in found:
        if use.used + amount > use.limit:
            raise over_limit(use.kind, amount, use.limit, use.used)


def on_day(
    connection: sqlite3.Connection, purse: Purse, day: int, origin: str | None = None
) -> list[Spending]:
    """What was promised and paid in a day, by origin; at one of them only, if it is named."""
    rows = connection.execute(
        "SELECT origin, promised, paid, allowed FROM spending"
        " WHERE payer = ? AND chain_id = ? AND token = ? AND day = ?"
        " AND coalesce(origin = ?, TRUE) ORDER BY origin",
        (purse.payer, purse.chain_id, purse.token, day, origin),
    ).fetchall()
    return [Spending(row["origin"], *map(blob_amount, tuple(row)[1:])) for row in rows]


def add(
    connection: sqlite3.Connection,
    purse: Purse,
    origin: str,
    now: int,
    *,
    promised: int = 0,
    paid: int = 0,
) -> None:
    """Enter what was promised or paid."""
    day = books_day(connection, now)
    old = _at(connection, purse, day, origin)
    new = replace(old, promised=old.promised + promised, paid=old.paid + paid)
    _enter(connection, purse, day, new, now)


def allow(connection: sqlite3.Connection, purse: Purse, origin: str, now: int, price: int) -> None:
    """Enter up to which price limits are lifted."""
    day = clock_day(now)
    old = _at(connection, purse, day, origin)
    _enter(connection, purse, day, replace(old, allowed=max(old.allowed, price)), now)


def _at(connection: sqlite3.Connection, purse: Purse, day: int, origin: str) -> Spending:
    (found,) = on_day(connection, purse, day, origin) or [Spending(origin)]
    return found


def _enter(connection: sqlite3.Connection, purse: Purse, day: int, one: Spending, now: int) -> None:
    """Days before that of the clock are forgotten."""
    connection.execute("DELETE FROM spending WHERE day < ?", (clock_day(now),))
    connection.execute(
        "INSERT OR REPLACE INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            purse.payer,
            purse.chain_id,
            purse.token,
            one.origin,
            day,
            *map(amount_blob, (one.promised, one.paid, one.allowed)),
        ),
    )


def promised_ever(connection: sqlite3.Connection, purse: Purse) -> int:
    """What payees can take at most of all that was ever promised: after a channel's end only what
    was taken counts.
    """
    rows = connection.execute(
        "SELECT CASE status WHEN :ended THEN settled ELSE signed END FROM channels"
        " WHERE payer = :payer AND chain_id = :chain AND token = :token"
        " UNION ALL SELECT settled FROM forgotten"
        " WHERE payer = :payer AND chain_id = :chain AND token = :token",
        {
            "ended": ChannelStatus.FINALIZED.value,
            "payer": purse.payer,
            "chain": purse.chain_id,
            "token": purse.token,
        },
    ).fetchall()
    return sum(blob_amount(amount) for (amount,) in rows)
