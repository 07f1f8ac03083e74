"""What a payer is willing to pay. Nothing is paid in a token for which there are no limits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from channelpay.errors import BudgetExceeded
from channelpay.payer.budgets import Budget, LimitKind, over_limit
from channelpay.payer.origins import origin_of
from channelpay.protocol.types import Address
from channelpay.protocol.wire import SessionRequest

UNIT_TYPE = "request"
"""The only unit whose number is known before the request is sent: one."""
AHEAD_SHARE = 16
"""A metered response is promised this part of its limit ahead, unless the limits say how much."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in one token, in its base units.

    ``price_max`` holds for each request; ``metered_max`` (else ``price_max``) for a whole response
    whose price is that of a unit. Such a response is promised ``ahead`` before it begins (else a
    sixteenth of its limit), and more when it asks. ``deposit_max`` holds for each channel that is
    opened or topped up without asking; zero: none is. ``deposit`` is what such a channel is opened
    with (else what the site suggests, capped by ``deposit_max``), ``top_up`` what is added when it
    is used up; zero: nothing is. ``total_max`` limits what all channels of this payer, token and
    chain promise together, as long as its books are kept; ``day_max`` what they promise in a day
    of UTC, and ``origin_day_max`` what they promise in it to one origin.

    Up to ``tab_max`` may be owed to a payee that gives credit; zero: nothing. It is paid with the
    next request when the payee asks for it, or no more of it is allowed.

    A payee that takes a payment and serves nothing gets at most that limit for it, and once more
    for each repeat of a request whose answer was lost. Metered responses that come at the same time
    over one channel have the sum of their limits.
    """

    token: Address
    price_max: int
    deposit_max: int = 0
    deposit: int | None = None
    top_up: int = 0
    total_max: int | None = None
    metered_max: int | None = None
    ahead: int | None = None
    day_max: int | None = None
    origin_day_max: int | None = None
    tab_max: int = 0

    def cost_max(self, request: SessionRequest) -> int:
        """What one response to this offer may cost."""
        if self.metered_max is None or not is_metered(request):
            return self.price_max
        return self.metered_max

    def check_price(self, request: SessionRequest) -> None:
        """Raises :class:`BudgetExceeded` where the least voucher would be over the limit."""
        price, limit = least_promise(request), self.cost_max(request)
        if price > limit:
            raise over_limit(LimitKind.REQUEST, price, limit)

    def budget_at(self, url: str) -> Budget:
        """The limits that hold over all requests, for one to this URL."""
        return Budget(origin_of(url), self.origin_day_max, self.day_max, self.total_max)

    def lifted(self, price: int) -> Self:
        """The same for a request of this price that was confirmed."""
        return replace(
            self,
            price_max=max(self.price_max, price),
            metered_max=None if self.metered_max is None else max(self.metered_max, price),
            day_max=None,
            origin_day_max=None,
            total_max=None,
        )

    def set_aside(self, request: SessionRequest, room: int) -> int:
        """What a response is promised before it begins, on a channel that has ``room`` for it."""
        if not is_metered(request):
            return request.amount
        limit, least = self.cost_max(request), least_promise(request)
        ahead = limit // AHEAD_SHARE if self.ahead is None else min(self.ahead, limit)
        return max(least, min(ahead, room))

    def deposit_for(self, request: SessionRequest) -> int:
        """What to open a channel with for this request. Raises :class:`BudgetExceeded`."""
        wanted = self.deposit if self.deposit is not None else request.suggested_deposit
        if self.deposit_max <= 0 or wanted is None:
            raise BudgetExceeded(
                "there is no channel to this payee that can pay, and opening one is not allowed",
                hint="Open a channel first, or allow a deposit. Nothing was signed.",
            )
        deposit = min(wanted, self.deposit_max)
        if deposit < least_promise(request):
            raise BudgetExceeded(
                f"a deposit of {deposit} base units does not cover the price of"
                f" {least_promise(request)}",
                hint="Allow a larger deposit. Nothing was signed.",
            )
        return deposit

    def top_up_for(self, deposit: int, shortfall: int) -> int:
        """What to add to a channel that holds ``deposit`` and lacks ``shortfall``. Raises
        :class:`BudgetExceeded`.
        """
        amount = min(max(self.top_up, shortfall), self.deposit_max - deposit)
        if self.top_up <= 0 or amount < shortfall:
            raise BudgetExceeded(
                f"the channel is used up: it holds {deposit} base units and lacks {shortfall}",
                hint="Top the channel up, or allow a larger deposit. Nothing was signed.",
            )
        return amount


def is_metered(request: SessionRequest) -> bool:
    """Whether the price is that of a unit, and the number of units not known beforehand."""
    return request.unit_type != UNIT_TYPE


def least_promise(request: SessionRequest) -> int:
    """What the first voucher promises at least."""
    return max(request.amount, request.min_voucher_delta)
