"""Budgets over many requests: for an origin in a day, for a day, for ever. Days are those of UTC.

What counts is what was promised: by how much vouchers grew. No payee can take more, whatever it
claims, so no order of requests and answers gets past a limit. A request that ended unpaid, or cost
less than it was promised, leaves the rest to the next one on its channel, which then counts as much
less. What receipts said is kept beside that, for people.

Of the origins only today's are kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from channelpay.errors import BudgetExceeded, ChannelPayError
from channelpay.payer.database import amount_blob, blob_amount
from channelpay.payer.origins import origin_of
from channelpay.payer.records import PayerChannel
from channelpay.protocol.types import Address, ChannelStatus
from channelpay.protocol.wire import SessionRequest

SECONDS_OF_DAY = 86_400


class LimitKind(StrEnum):
    """What a limit is for."""

    REQUEST = "request"
    PLACE = "place"
    ORIGIN_DAY = "origin-day"
    DAY = "day"
    TOTAL = "total"


_SCOPES = {
    LimitKind.REQUEST: "for a request",
    LimitKind.PLACE: "for what is promised to this payee elsewhere and not charged yet",
    LimitKind.ORIGIN_DAY: "for this origin today",
    LimitKind.DAY: "for today",
    LimitKind.TOTAL: "in all",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits in base units of a token for what is promised at ``origin``; None: no such limit."""

    origin: str
    origin_day_max: int | None = None
    day_max: int | None = None
    total_max: int | None = None


@dataclass(frozen=True, slots=True)
class Purse:
    """Whose money a budget is about, on which chain and in which token."""

    payer: Address
    chain_id: int
    token: Address

    @classmethod
    def of(cls, entry: PayerChannel) -> Self:
        return cls(entry.channel.payer, entry.deployment.chain_id, entry.channel.token)


@dataclass(frozen=True, slots=True)
class Spending:
    """One origin's day, in base units. ``paid`` is what receipts said; up to ``allowed`` for each
    request, the payer has lifted the limits.
    """

    origin: str
    promised: int = 0
    paid: int = 0
    allowed: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a limit is used, in base units."""

    kind: LimitKind
    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class Question:
    """Whether to pay ``price`` base units of ``token`` at ``url`` to ``payee``, which goes beyond
    ``limit``, of which ``used`` is used. For a metered response, ``price`` is all it may cost.
    """

    url: str
    chain_id: int
    token: Address
    payee: Address
    kind: LimitKind
    price: int
    limit: int
    used: int

    @classmethod
    def about(cls, refusal: ChannelPayError, url: str, request: SessionRequest) -> Self | None:
        """None for a refusal that no answer changes."""
        told = refusal.context
        if "kind" not in told:
            return None
        amounts = (int(told[name]) for name in ("price", "limit", "used"))
        chain_id, kind = request.deployment.chain_id, LimitKind(str(told["kind"]))
        return cls(url, chain_id, request.currency, request.recipient, kind, *amounts)

    @property
    def origin(self) -> str:
        return origin_of(self.url)


Confirm = Callable[[Question], bool]
"""Says whether to pay beyond a limit. It may be called from any thread, and may take its time."""


def never(_: Question) -> bool:
    """What a program says to every question that nobody can answer."""
    return False


def over_limit(kind: LimitKind, price: int, limit: int, used: int = 0) -> BudgetExceeded:
    """The error for ``price`` base units beyond a limit."""
    reserve = f", of which {used} is used" if used else ""
    return BudgetExceeded(
        f"it costs {price}, over the limit of {limit} base units {_SCOPES[kind]}{reserve}",
        kind=kind.value,
        price=str(price),
        limit=str(limit),
        used=str(used),
    )


def day_of(seconds: float) -> int:
    """The day, counted from that of Unix time 0."""
    return int(seconds) // SECONDS_OF_DAY


# --- inside one step of the books ----------------------------------------------------------------


def uses(connection: sqlite3.Connection, purse: Purse, budget: Budget, day: int) -> list[Use]:
    """How much of each limit of a budget is used."""
    found = []
    if budget.origin_day_max is not None:
        used = _promised(spending(connection, purse, day, budget.origin))
        found.append(Use(LimitKind.ORIGIN_DAY, budget.origin_day_max, used))
    if budget.day_max is not None:
        used = _promised(spending(connection, purse, day))
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


def spending(
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
    day: int,
    *,
    promised: int = 0,
    paid: int = 0,
    allowed: int = 0,
) -> None:
    """Enter what was promised or paid, or up to which price limits are lifted."""
    (old,) = spending(connection, purse, day, origin) or [Spending(origin)]
    new = replace(
        old,
        promised=old.promised + promised,
        paid=old.paid + paid,
        allowed=max(old.allowed, allowed),
    )
    amounts = map(amount_blob, (new.promised, new.paid, new.allowed))
    connection.execute("DELETE FROM spending WHERE day < ?", (day,))
    connection.execute(
        "INSERT OR REPLACE INTO spending VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (purse.payer, purse.chain_id, purse.token, origin, day, *amounts),
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
