"""What an application knows of the payment of a request, and how it charges a metered one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from channelpay.errors import ConfigError, InsufficientBalance, NetworkError, PaymentRefused
from channelpay.payee.payee import Payee
from channelpay.payee.verifier import Paid
from channelpay.protocol.rules import ChannelRecord, Charge
from channelpay.protocol.sse import NeedVoucher
from channelpay.protocol.types import Address, ChannelId

NEED_VOUCHER_SECONDS = 30.0
"""How long a charge whose credit is used up waits for vouchers, be there one or many."""

AskForVoucher = Callable[[NeedVoucher], Awaitable[bool]]
"""Tells the client what it has to promise; False if it cannot be told now."""


class PaymentFacts:
    """What a payment of one request is. ``price`` is what its unit costs by the list, or the most
    that it may cost, and ``charged`` what it has cost so far, in base units of ``token``.
    """

    def __init__(self, paid: Paid) -> None:
        self.paid: Paid = paid
        self.price: int = paid.price
        self.unit: str = paid.quote.unit
        self.charged: int = _charged(paid)

    @property
    def is_metered(self) -> bool:
        """Whether ``charge`` says what it costs."""
        return self.paid.quote.metered and self.paid.quote.charged

    @property
    def channel_id(self) -> ChannelId:
        return self._record.channel_id

    @property
    def payer(self) -> Address:
        return self._record.channel.payer

    @property
    def token(self) -> Address:
        return self._record.channel.token

    @property
    def accepted(self) -> int:
        """What the payer has promised on this channel in all, as of the last charge."""
        return self._record.accepted

    @property
    def spent(self) -> int:
        """What was charged on this channel in all, as of the last charge."""
        return self._record.spent

    @property
    def _record(self) -> ChannelRecord:
        return self.paid.record


def _charged(paid: Paid) -> int:
    if paid.quote.metered or not paid.quote.charged or paid.covered is not None:
        return 0
    if paid.tab is not None and paid.tab.added:
        return 0
    return paid.price if paid.note is None else paid.note.amount


class Payment(PaymentFacts):
    """The payment of one request, for an application on the payee's event loop."""

    def __init__(self, payee: Payee, paid: Paid, ask: AskForVoucher) -> None:
        super().__init__(paid)
        self._payee = payee
        self._ask = ask
        self._one_at_a_time = asyncio.Lock()
        self.refusal: PaymentRefused | NetworkError | None = None
        self.is_fixed = False
        """What costs up to a ceiling is charged before its response begins, whose head has the
        receipt.
        """

    def end(self) -> None:
        """The response is over: nobody can be asked for a voucher any more. Whom this forgets knows
        the payment: what a request took up is freed now, not when a garbage collector finds it.
        """
        self._ask = _nobody

    async def charge(self, amount: int) -> None:
        """Charge ``amount`` base units more; when this returns, they are ours. Charge first, then
        send what they pay for.

        Where the credit is used up, a stream of events that has begun pauses and asks for a
        voucher. Raises :class:`~channelpay.errors.InsufficientBalance` if none comes, or anywhere
        else; :class:`~channelpay.errors.ChannelClosing` when the channel is being closed; both end
        the response, unless the application catches them. Raises
        :class:`~channelpay.errors.ConfigError` where the price is for the whole request, and
        :class:`~channelpay.errors.NetworkError` for trouble of ours.
        """
        if self.is_fixed:
            raise ConfigError("what it costs was told with the head of the response")
        if not self.is_metered:
            raise ConfigError(
                "this request is not charged by the unit",
                hint="Give the price rule a unit, such as unit = 'token'; HEAD costs nothing.",
            )
        if amount < 0:
            raise ValueError("a charge is not negative")
        if self.paid.quote.up_to and self.charged + amount > self.price:
            raise ConfigError(f"the request may cost {self.price} base units at most")
        async with self._one_at_a_time:
            try:
                await self._charge_up_to(self.charged + amount)
            except (PaymentRefused, NetworkError) as refusal:
                self.refusal = refusal
                raise

    async def _charge_up_to(self, total: int) -> None:
        payment_id, attempt = self.paid.accepted.payment_id, self.paid.accepted.attempt
        assert payment_id is not None  # A metered purchase has one.
        guard = self._payee.guard
        guard.require_followed()
        guard.require_room(self.token, total - self.charged)
        risk_max = guard.acceptance.risk_max_per_channel.get(self.token)
        charge = Charge(self.channel_id, payment_id, total, attempt, risk_max)
        deadline: float | None = None
        while True:
            try:
                accepted = await self._payee.register.accept(charge)
            except InsufficientBalance as refusal:
                deadline = deadline or _clock() + NEED_VOUCHER_SECONDS
                if not await self._refilled(refusal, deadline):
                    raise
            else:
                self.paid: Paid = self.paid._replace(accepted=accepted)
                self.charged = total
                return

    async def _refilled(self, refusal: InsufficientBalance, deadline: float) -> bool:
        """Ask for a voucher and wait for one that is higher, enough or not; False if there is none
        by the deadline.
        """
        if _clock() >= deadline:
            return False
        accepted = int(refusal.context["acceptedCumulative"])
        need = NeedVoucher(
            self.channel_id,
            required=int(refusal.context["requiredCumulative"]),
            accepted=accepted,
            deposit=int(refusal.context["deposit"]),
        )
        if not await self._ask(need):
            return False
        register = self._payee.register
        return await register.voucher_above(self.channel_id, accepted, deadline - _clock())


async def _nobody(_: NeedVoucher) -> bool:
    return False


def _clock() -> float:
    return asyncio.get_running_loop().time()
