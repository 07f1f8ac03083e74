"""What a payer is willing to pay. Nothing is paid in a token for which there are no limits."""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.errors import BudgetExceeded
from channelpay.protocol.types import Address
from channelpay.protocol.wire import SessionRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits in one token, in its base units.

    ``price_max`` holds for each request. ``deposit_max`` holds for each channel that is opened or
    topped up without asking; zero: none is. ``deposit`` is what such a channel is opened with (else
    what the site suggests, capped by ``deposit_max``), ``top_up`` what is added when it is used up;
    zero: nothing is. ``total_max`` limits what all channels of this payer, token and chain promise
    together, as long as its books are kept.

    A payee that takes a payment and serves nothing gets at most ``price_max`` for it, and once more
    for each repeat of a request whose answer was lost.
    """

    token: Address
    price_max: int
    deposit_max: int = 0
    deposit: int | None = None
    top_up: int = 0
    total_max: int | None = None

    def check_price(self, price: int) -> None:
        """Raises :class:`BudgetExceeded`."""
        if price > self.price_max:
            raise BudgetExceeded(
                f"the request costs {price}, the limit is {self.price_max} base units",
                price=str(price),
                limit=str(self.price_max),
            )

    def deposit_for(self, request: SessionRequest) -> int:
        """What to open a channel with for this request. Raises :class:`BudgetExceeded`."""
        wanted = self.deposit if self.deposit is not None else request.suggested_deposit
        if self.deposit_max <= 0 or wanted is None:
            raise BudgetExceeded(
                "there is no channel to this payee that can pay, and opening one is not allowed",
                hint="Open a channel first, or allow a deposit. Nothing was signed.",
            )
        deposit = min(wanted, self.deposit_max)
        if deposit < request.amount:
            raise BudgetExceeded(
                f"a deposit of {deposit} base units does not cover the price of {request.amount}",
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
