"""What a transaction offers per unit of gas (EIP-1559), and how an offer is raised. Amounts in wei
per unit of gas.
"""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.errors import BudgetExceeded

GWEI = 10**9


@dataclass(frozen=True, slots=True)
class Fees:
    """``max_fee_wei`` is the most that is paid, base fee and tip together."""

    max_fee_wei: int
    tip_wei: int

    def raised(self) -> Fees:
        """The least that replaces a transaction with this offer: an eighth more in both fields.
        Nodes ask for a tenth, some for an eighth.
        """
        return Fees(_raised(self.max_fee_wei), _raised(self.tip_wei))


@dataclass(frozen=True, slots=True)
class FeeMarket:
    """What the node says: the base fee of the next block, and a usual tip."""

    base_fee_wei: int
    tip_wei: int

    @property
    def price_wei(self) -> int:
        """What a unit of gas costs now."""
        return self.base_fee_wei + self.tip_wei

    @property
    def usual(self) -> Fees:
        """An offer that stays good while the base fee doubles: for six full blocks in a row."""
        return Fees(2 * self.base_fee_wei + self.tip_wei, self.tip_wei)

    def require_within(self, limit_wei: int) -> None:
        """Raise :class:`BudgetExceeded` if a unit of gas costs more than this now."""
        if limit_wei < self.price_wei:
            raise BudgetExceeded(
                f"gas costs {self.price_wei} wei now, over the limit of {limit_wei} wei",
                hint="Wait for a cheaper moment or raise the limit. Nothing was sent.",
            )


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """What may be offered, and when an offer is raised.

    No unit of gas costs more than ``fee_per_gas_wei_max``, whatever happens. With the urgency the
    offer rises from the usual one to that, and the tip to ``tip_per_gas_wei_urgent``; a transaction
    that is replaced again and again may get to a higher tip. One that waits is replaced after
    ``replace_after_seconds``, and sooner when it is urgent. It has ended after ``confirmations``,
    its own block counted.
    """

    fee_per_gas_wei_max: int = 300 * GWEI
    tip_per_gas_wei_urgent: int = 10 * GWEI
    replace_after_seconds: float = 60.0
    confirmations: int = 1

    def offer(self, market: FeeMarket, urgency: float, limit_wei: int) -> Fees:
        """A first offer of at most ``limit_wei``; ``urgency`` is from 0 to 1."""
        usual = market.usual
        max_fee = _between(usual.max_fee_wei, self.fee_per_gas_wei_max, urgency)
        tip = _between(usual.tip_wei, self.tip_per_gas_wei_urgent, urgency)
        return _within(Fees(max_fee, tip), limit_wei)

    def replacement(
        self, last: Fees, market: FeeMarket, urgency: float, limit_wei: int
    ) -> Fees | None:
        """An offer that replaces ``last``; None if the limit leaves no room for one."""
        least = last.raised()
        if least.max_fee_wei > limit_wei:
            return None
        wanted = self.offer(market, urgency, limit_wei)
        max_fee = max(least.max_fee_wei, wanted.max_fee_wei)
        return _within(Fees(max_fee, max(least.tip_wei, wanted.tip_wei)), limit_wei)

    def patience_seconds(self, urgency: float) -> float:
        """How long an offer waits before it is raised."""
        return self.replace_after_seconds * (1 - urgency)


def _raised(fee_wei: int) -> int:
    return max(fee_wei + 1, -(-fee_wei * 9 // 8))


def _between(usual: int, most: int, urgency: float) -> int:
    """In thousandths, since a float is too coarse for amounts in wei."""
    return usual + max(0, most - usual) * round(1000 * urgency) // 1000


def _within(fees: Fees, limit_wei: int) -> Fees:
    """No offer stops between the last two steps under the limit: the limit itself would then be out
    of reach of a replacement.
    """
    beyond = _raised(fees.max_fee_wei) > limit_wei
    max_fee = limit_wei if beyond else fees.max_fee_wei
    return Fees(max_fee, min(fees.tip_wei, max_fee))
