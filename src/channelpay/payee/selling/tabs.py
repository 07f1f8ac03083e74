"""Tabs that a site keeps for its readers: the ``[tab]`` table of a price file, and how a request is
sold where there are tabs.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from channelpay.errors import TabDue
from channelpay.payee.selling.settings import Settings
from channelpay.payee.terms import Token
from channelpay.protocol.accounts import DAY_MS
from channelpay.protocol.rules import Purchase
from channelpay.protocol.tabs import (
    ACCEPTED,
    HEADER,
    TAB,
    OnTab,
    PaysTab,
    Tab,
    TabKeys,
    TabNote,
    TabPolicy,
)
from channelpay.protocol.types import Address
from channelpay.store import Accepted

if TYPE_CHECKING:
    from channelpay.payee.register import Register
    from channelpay.payee.request import Request

DAYS_MAX = 365
PAYING = "TAB what is owed"
"""What a tab's payment is for, where others have their method and URL."""
_PER_CENT_OF_HUNDREDTH = 100


class TabPlan:
    """``TabPlan(limit_start="0.01", limit_max="0.5", grows=20, total_max="10", due_days=7)``: the
    keys of ``[tab]`` in a price file. Amounts are in human units of the first token, or by token;
    ``grows`` is percent. What is wrong is said when the prices are made.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings: Mapping[str, Any] = settings


@dataclass(frozen=True, slots=True)
class Credit:
    """The tabs of a site: their bounds in each token that has some, and in words."""

    policies: Mapping[Address, TabPolicy]
    terms: Mapping[Address, str]


def credit_of(plan: TabPlan, tokens: Sequence[Token]) -> Credit:
    """Raises :class:`~channelpay.errors.ConfigError`, which names the key."""
    settings = Settings("tab", plan.settings, tokens)
    starts, most = settings.amounts("limit_start"), settings.amounts("limit_max")
    totals, grows = settings.amounts("total_max"), settings.count("grows", 0)
    days = settings.count("due_days")
    settings.end()
    if days > DAYS_MAX:
        raise settings.wrong("due_days", f"is {DAYS_MAX} at most")
    policies, terms = {}, {}
    for token in tokens:
        limits = [amounts.get(token.address) for amounts in (starts, most, totals)]
        start, limit, total = limits
        if start is None or limit is None or total is None:
            continue
        if not start <= limit <= total:
            raise settings.wrong("limit_max", "is between limit_start and total_max")
        percent = grows * _PER_CENT_OF_HUNDREDTH
        policies[token.address] = TabPolicy(start, limit, percent, total, days * DAY_MS)
        terms[token.address] = _words(token, start, limit, grows, days)
    return Credit(policies, terms)


def _words(token: Token, start: int, limit: int, grows: int, days: int) -> str:
    growth = f", and {grows} % of what you paid on time, {token.format(limit)} at most"
    return (
        f"read first, and pay within {days} day{'' if days == 1 else 's'}: up to"
        f" {token.format(start)}{growth if grows else ''}"
    )


def agrees(request: Request) -> bool:
    """Whether a request may be put on the tab of who pays for it."""
    return [value.strip() for value in request.header_values(HEADER)] == [ACCEPTED]


class Clerk:
    """Sells one request to a payer that may have a tab."""

    def __init__(self, register: Register, policy: TabPolicy, keys: TabKeys) -> None:
        self._register = register
        self._policy = policy
        self._keys = keys

    async def sell(
        self, purchase: Purchase, *, charged: bool, agreed: bool
    ) -> tuple[Accepted, TabNote | None]:
        """Have what is owed paid first by what is available, then sell. What is not ``charged`` (a
        HEAD) brings a voucher, and asks how the tab is. Raises what
        :meth:`channelpay.payee.register.Register.accept` raises.
        """
        if not charged:
            accepted = await self._register.accept(purchase)
            told = await self._collect(purchase) or accepted
            note = await self._note(told)
            # What was paid for is owed for long: nothing of it hangs on what becomes of this HEAD.
            return dataclasses.replace(told, payment_id=None, payment=None), note
        terms = OnTab(self._policy, self._keys, purchase.now, agreed, purchase.terms)
        paid = None
        try:
            accepted = await self._register.accept(_under(purchase, terms))
        except TabDue as due:
            paid = await self._collect(purchase)
            if paid is None:
                raise due from None
            terms = dataclasses.replace(terms, pays_first=False)
            accepted = await self._register.accept(_under(purchase, terms))
        is_told = paid is not None or _is_on_tab(accepted)
        return accepted, await self._note(accepted) if is_told else None

    async def _collect(self, purchase: Purchase) -> Accepted | None:
        """Take what is owed from what is available; None if there is nothing of either. It stays
        taken if the client hangs up: what came before it may rely on it.
        """
        order = Purchase(
            purchase.voucher,
            purchase.voucher.cumulative_amount,
            PAYING,
            purchase.now,
            f"tab {uuid4()}",
            risk_max=purchase.risk_max,
            terms=PaysTab(self._policy, self._keys, purchase.now),
            is_proven=purchase.is_proven,
        )
        try:
            return await asyncio.shield(self._register.accept(order))
        except TabDue:
            return None

    async def _note(self, accepted: Accepted) -> TabNote:
        state = accepted.entries.get(self._keys.tab)
        if state is None:
            state = await self._register.read(lambda store: store.entry(self._keys.tab))
        payment = accepted.payment
        details = payment.details if payment is not None and payment.kind == TAB else ""
        return TabNote.of(Tab.from_state(state), self._policy, details)


def _under(purchase: Purchase, terms: OnTab) -> Purchase:
    return dataclasses.replace(purchase, terms=terms)


def _is_on_tab(accepted: Accepted) -> bool:
    return accepted.payment is not None and accepted.payment.kind == TAB
