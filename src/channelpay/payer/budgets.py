"""Budgets over many requests: for an origin in a day, for a day, for ever. Days are those of UTC.

What counts is what was promised: by how much vouchers grew. No payee can take more, whatever it
claims, so no order of requests and answers gets past a limit. A request that ended unpaid, or cost
less than it was promised, leaves the rest to the next one on its channel, which then counts as much
less. What receipts said is kept beside that, for people.

Of the origins only today's are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from channelpay.errors import BudgetExceeded, ChannelPayError
from channelpay.payer.origins import origin_of
from channelpay.payer.records import PayerChannel
from channelpay.protocol.types import Address
from channelpay.protocol.wire import SessionRequest


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
    """Limits in base units of a token for what is promised at ``origin``; None: no such limit. With
    ``tab_max`` a request is put on a tab, on which no more may be owed.
    """

    origin: str
    origin_day_max: int | None = None
    day_max: int | None = None
    total_max: int | None = None
    tab_max: int | None = None


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
