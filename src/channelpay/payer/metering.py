"""A response that is paid for while it comes, without I/O: what a payee may take for it, and the
vouchers it gets on its way (draft-evm-session-00, Insufficient Balance During Streaming).

``promised`` is what one response may have cost so far. It begins with what was set aside for the
request, grows with each voucher that the payee asks for, and never exceeds the limit for one
response. A voucher promises more than was asked for, twice as much ahead as the one before up to a
quarter of the limit: so not every event needs one, and little is promised that is not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from channelpay.errors import (
    AmountExceedsDeposit,
    BudgetExceeded,
    ChannelPayError,
    InputError,
    NetworkError,
    PaymentRefused,
)
from channelpay.payer.budgets import Purse
from channelpay.payer.limits import least_promise
from channelpay.payer.offers import Offer, Terms, offer_of, present_top_ups
from channelpay.payer.origins import check_transport
from channelpay.payer.purchased import Proof
from channelpay.payer.receipts import ask_receipt
from channelpay.payer.records import PayerChannel, Reservation
from channelpay.payer.refusals import error_of, not_confirmed
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Add, Answer, Paid, Send, Step, Wait
from channelpay.protocol.receipts import SignedReceipt
from channelpay.protocol.sse import NEED_VOUCHER, RECEIPT, EventReader, NeedVoucher
from channelpay.protocol.wire import Receipt, VoucherPayload, parse_challenges

VOUCHER_SECONDS = 30.0
"""A voucher that could not be delivered within this time comes too late."""
RECEIPT_SECONDS = 5.0
"""A receipt that did not come within this time may be asked for later."""
RETRY_AFTER_SECONDS = 1.0
FUNDING_POLL_SECONDS = 0.1
AHEAD_SHARE_MAX = 4
"""The largest part of its limit that a response is promised ahead."""
_OURS = frozenset({NEED_VOUCHER, RECEIPT})


@dataclass(frozen=True, slots=True)
class Head:
    """What a response began with. ``key`` is its Idempotency-Key, ``reservation`` what it was
    promised; ``receipt`` and ``signed_receipt`` are those in its header that were believed;
    ``is_final`` says that they hold unless another comes. Only an event stream (``has_events``)
    brings one, and can ask for more.
    """

    offer: Offer
    url: str
    key: str
    reservation: Reservation
    receipt: Receipt | None
    signed_receipt: SignedReceipt | None
    has_events: bool
    is_final: bool = True


class MeteredResponse:
    """One response that the books ``state`` pay for while it is read. For one reader.

    ``paid`` says at any time what it has cost at most, and after :meth:`settle` what it did cost.
    """

    def __init__(
        self,
        terms: Terms,
        state: PayerState,
        head: Head,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._state = state
        self._offer = head.offer
        self._limit = head.offer.cost_max
        self._url = head.url
        self._key = head.key
        self._reservation = head.reservation
        self._receipt = head.receipt if head.is_final else None
        self._reader = EventReader() if head.has_events else None
        self._clock = clock
        self._ahead = head.reservation.price
        self._delivered = head.reservation.voucher.cumulative_amount
        self._is_settled = False
        self._signed = head.signed_receipt
        self.paid: Paid = Paid(head.reservation.channel_id, head.reservation.price, head.receipt)

    @property
    def promise(self) -> str:
        """What to say of a body that breaks off."""
        return (
            "the response was metered: it was cut off when it had been promised"
            f" {self.paid.cost} base units, and may have needed more"
        )

    # --- what comes --------------------------------------------------------------------------

    def read(self, chunk: bytes) -> Iterator[bytes | NeedVoucher]:
        """What to hand on, and in its place each need of a voucher, to be answered before the rest
        is taken. Raises :class:`PaymentRefused` for a need that makes no sense.
        """
        if self._reader is None:
            yield chunk
            return
        kept = bytearray()
        for event in self._reader.feed(chunk):
            if event.name not in _OURS:
                kept += event.raw
            elif event.data is not None and event.name == RECEIPT:
                self._note(event.data)
            elif event.data is not None:
                if kept:
                    yield bytes(kept)
                    kept.clear()
                yield self._need(event.data)
        if kept:
            yield bytes(kept)

    def rest(self) -> bytes:
        """What is left to hand on at the end."""
        event = None if self._reader is None else self._reader.close()
        return b"" if event is None or event.name in _OURS else event.raw

    def _note(self, data: str) -> None:
        """The last receipt counts; one that is malformed does not."""
        with suppress(InputError):
            self._receipt = Receipt.from_json(data)

    def _need(self, data: str) -> NeedVoucher:
        try:
            need = NeedVoucher.from_json(data)
        except InputError as error:
            raise _senseless(error.detail) from error
        if need.channel_id != self._reservation.channel_id:
            raise _senseless("it is for another channel")
        if need.required <= need.accepted:
            raise _senseless("it lacks nothing")
        return need

    # --- vouchers ----------------------------------------------------------------------------

    def answer(self, need: NeedVoucher) -> Generator[Step, Any, None]:
        """Yields steps, whose requests a driver sends with HEAD and on another connection, until
        the payee has a voucher that lets it go on.

        Raises :class:`BudgetExceeded` at the limit, :class:`PaymentRefused` or
        :class:`NetworkError` if no voucher gets through, :class:`ConfigError` where a redirect led
        to plain http; then the response is not to be read on.
        """
        if need.required <= self._delivered:
            return  # It was asked before the last voucher came.
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        deadline = self._clock() + VOUCHER_SECONDS
        yield from self._fund(need, deadline)
        while not self._promise(need):
            yield from self._fund(need, deadline)
        yield from self._present(deadline)
        self._delivered = self._reservation.voucher.cumulative_amount

    def _others(self) -> PayerChannel:
        """The channel as if this response had nothing set aside."""
        held = self._reservation
        return self._state.channel(held.channel_id, beside=held)

    def _least(self, others: PayerChannel, need: NeedVoucher) -> int:
        """What the response has to be promised in all. Raises :class:`BudgetExceeded`.

        What others have set aside is theirs, so the payee's lack is added to the own promise, as
        far as the deposit allows.
        """
        if others.in_doubt:
            raise _undelivered(PaymentRefused("the books are older than what was signed"))
        before = others.spent + others.in_flight
        fair = before + self._reservation.price + need.required - need.accepted
        cumulative = max(need.required, min(fair, others.deposit))
        if cumulative > others.signed:
            delta = self._offer.request.min_voucher_delta
            cumulative = max(cumulative, others.signed + delta)
        least = cumulative - before
        if least > self._limit:
            raise self._stopped(f"the limit is {self._limit}")
        return least

    def _promise(self, need: NeedVoucher) -> bool:
        """Sign what is needed and some ahead, as far as limits and deposit allow: so a payee that
        asks for ever comes to the limit soon. False if the books moved on meanwhile.
        """
        others = self._others()
        least = self._least(others, need)
        wanted = min(least + self._next_ahead(), self._limit, others.room)
        try:
            self._reserve(max(least, wanted))
        except (AmountExceedsDeposit, BudgetExceeded):
            self._reserve_least(least)
        return self._reservation.voucher.cumulative_amount >= need.required

    def _next_ahead(self) -> int:
        unit = least_promise(self._offer.request)
        self._ahead = max(unit, min(2 * self._ahead, self._limit // AHEAD_SHARE_MAX))
        return self._ahead

    def _reserve_least(self, least: int) -> None:
        try:
            self._reserve(least)
        except AmountExceedsDeposit:
            return
        except BudgetExceeded as error:
            raise self._stopped(error.detail) from error

    def _reserve(self, price: int) -> None:
        held = self._reservation
        self._reservation = self._state.reserve(
            held.channel_id,
            price,
            self._terms.sign,
            delta=self._offer.request.min_voucher_delta,
            budget=self._offer.limits.budget_at(self._url),
            limit=self._limit,
            instead_of=held,
        )
        self._limit = self._reservation.ceiling
        self.paid = replace(self.paid, cost=price)

    # --- the way to the payee ----------------------------------------------------------------

    def _fund(self, need: NeedVoucher, deadline: float) -> Generator[Step, Any, None]:
        """Have the channel hold what is needed, and the payee know that it does."""
        channel_id = self._reservation.channel_id
        while (shortfall := self._shortfall(need)) > 0:
            if self._clock() >= deadline:
                if fundings := self._state.fundings(channel_id):
                    raise not_confirmed(fundings[-1])
                raise NetworkError("a top-up of the channel was not confirmed in time")
            entry = self._state.channel(channel_id)
            yield Add(channel_id, self._top_up_for(entry, shortfall), entry.deposit)
            if self._shortfall(need) > 0:
                yield Wait(FUNDING_POLL_SECONDS)
        is_known = need.deposit >= self._state.channel(channel_id).deposit
        if not is_known and not self._state.unpresented_top_ups(channel_id):
            self._state.present_top_ups_again(channel_id)

    def _shortfall(self, need: NeedVoucher) -> int:
        others = self._others()
        return self._least(others, need) - others.room

    def _top_up_for(self, entry: PayerChannel, shortfall: int) -> int:
        limits, growth = self._offer.limits, entry.deposit + shortfall - entry.signed
        try:
            self._state.check_budget(Purse.of(entry), limits.budget_at(self._url), growth)
            return limits.top_up_for(entry.deposit, shortfall)
        except BudgetExceeded as error:
            raise self._stopped(error.detail) from error

    def _present(self, deadline: float) -> Generator[Step, Any, None]:
        """Send the voucher, after the top-ups that it needs; wait and repeat while the payee asks
        to, and answer a fresh challenge once.
        """
        has_fresh_challenge = False
        while True:
            answer = yield from self._attempt()
            if answer.status < 300:
                return
            if not has_fresh_challenge and (offer := self._fresh(answer)) is not None:
                has_fresh_challenge, self._offer = True, offer
            elif answer.retry_after is None or answer.status not in {402, 503}:
                raise _undelivered(error_of(answer))
            else:
                seconds = max(answer.retry_after_seconds or 0.0, RETRY_AFTER_SECONDS)
                if self._clock() + seconds > deadline:
                    raise _undelivered(error_of(answer))
                yield Wait(seconds)

    def _attempt(self) -> Generator[Step, Any, Answer]:
        channel_id = self._reservation.channel_id
        refusal = yield from present_top_ups(self._terms, self._state, self._offer, channel_id)
        if refusal is not None:
            return refusal
        payload = VoucherPayload(self._reservation.voucher)
        header = self._offer.credential(self._terms.payer, payload)
        answer: Answer = yield Send({"Authorization": header}, bare=True)
        return answer

    def _fresh(self, answer: Answer) -> Offer | None:
        """A challenge in the place of ours, which may have expired while the response came."""
        entry = self._state.channel(self._reservation.channel_id)
        for challenge in parse_challenges(answer.challenges):
            try:
                offer = offer_of(self._terms, challenge, self._url)
            except ChannelPayError:
                continue
            if offer is not None and offer.is_from_payee_of(entry):
                return offer
        return None

    # --- the end -----------------------------------------------------------------------------

    def prove(self) -> Generator[Step, Any, None]:
        """The response was read to its end: have the payee sign what it cost, where purchases are
        kept. Yields steps like :meth:`answer`. A receipt that fails can be asked for later.
        """
        if self._signed is not None or not self._state.purchases.are_kept:
            return
        with suppress(ChannelPayError):
            entry = self._state.channel(self._reservation.channel_id)
            self._signed = yield from ask_receipt(self._terms, entry, self._url, self._key)

    def settle(self) -> Paid:
        """The response has ended, or is read no more: enter what it cost. Once is enough."""
        if not self._is_settled:
            self._is_settled = True
            receipt, signed = self._believed(), self._signed
            told = receipt or signed
            if told is None:
                self._state.break_off(self._reservation)
                self.paid = replace(self.paid, receipt=None)
            else:
                cost = self._state.settle(
                    self._reservation,
                    told.spent,
                    self._url,
                    metered=self._offer.is_metered,
                    receipt=receipt,
                    proof=Proof(signed, self._key),
                )
                channel_id = self._reservation.channel_id
                self.paid = Paid(channel_id, cost, receipt, signed_receipt=signed)
        return self.paid

    def _believed(self) -> Receipt | None:
        entry = self._state.channel(self._reservation.channel_id)
        return self._receipt if self._receipt and is_genuine(self._receipt, entry) else None

    def _stopped(self, why: str) -> BudgetExceeded:
        """What ends a response that would go on costing."""
        others = self._others().in_flight
        beside = f" (and what others were promised beside it, {others})" if others else ""
        return BudgetExceeded(
            f"the response was stopped when it had cost up to {self.paid.cost} base units{beside}:"
            f" {why}",
            hint="Raise the limit, if more of it is worth that to you.",
            paid=str(self.paid.cost),
            limit=str(self._limit),
        )


def is_genuine(receipt: Receipt, entry: PayerChannel) -> bool:
    """Whether a receipt is of this channel and claims no more than we signed."""
    ours = (entry.channel_id, entry.deployment.chain_id)
    return (receipt.channel_id, receipt.chain_id) == ours and receipt.spent <= entry.signed


def _senseless(why: str) -> PaymentRefused:
    return PaymentRefused(
        f"the site asked for a voucher while it sent its response, but {why}",
        hint="The response is not whole. Tell the site's operator.",
    )


def _undelivered(error: ChannelPayError) -> ChannelPayError:
    return type(error)(
        f"a voucher for the rest of the response was not taken: {error.detail}",
        hint="The response is not whole, and what came of it was paid for.",
    )
