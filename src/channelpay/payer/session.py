"""One paid request from its first attempt to its answer, without I/O: see
:mod:`channelpay.payer.steps`.

What this side forbids (a limit, a wrong chain, plain http) is raised before anything is signed.
What the payee refuses for good ends the session: the caller gets the payee's own answer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from channelpay.errors import (
    AmountExceedsDeposit,
    BudgetExceeded,
    ChainReverted,
    ChannelPayError,
    ConfigError,
    IdempotencyKeyReused,
    InputError,
    NetworkError,
    ReceiptNotValid,
    TabFull,
    VoucherPublic,
    WrongChain,
)
from channelpay.payer.budgets import LimitKind, Purse, Question, over_limit
from channelpay.payer.doubt import ask, learn
from channelpay.payer.gasless import is_carried, present_top_up
from channelpay.payer.limits import is_metered, least_promise
from channelpay.payer.metering import Head, MeteredResponse, is_genuine
from channelpay.payer.offers import Offer, Terms, offer_of, present_top_ups
from channelpay.payer.origins import check_transport, following_key, is_counter, origin_of
from channelpay.payer.patience import Patience, asks_to_wait
from channelpay.payer.proving import proof_for
from channelpay.payer.purchased import Proof
from channelpay.payer.receipts import proof_in
from channelpay.payer.records import PayerChannel, Reservation
from channelpay.payer.refusals import not_confirmed
from channelpay.payer.showing import Bought, Showing
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Add, Answer, Look, Open, Paid, Send, Step, Wait
from channelpay.payer.tab_use import TabUse
from channelpay.protocol.receipts import ASKING_HEADER, SIGNED, SignedReceipt
from channelpay.protocol.sse import MEDIA_TYPE
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import ChannelId, ChannelStatus, Voucher
from channelpay.protocol.wire import (
    Challenge,
    OpenPayload,
    Payload,
    Receipt,
    SessionRequest,
    SignedOpenPayload,
    VoucherPayload,
    parse_challenges,
)

PAUSE_GROWTH = 1.5
"""Each pause is at least so much longer than that before it: a session has few attempts, for HTTP
libraries count them as redirects, and give up after 20.
"""
FUNDING_POLL_SECONDS = 0.1
FUNDING_LOOK_SECONDS = 2.0

_NO_ANSWER = frozenset({502, 503, 504})
_CHANNEL_IS_GONE = frozenset({"channel-closing", "channel-finalized", "channel-not-found"})
_FRESH_CHALLENGE_HELPS = frozenset(
    {"invalid-challenge", "payment-expired", "payment-insufficient", "payment-required"}
)


class PaymentSession:
    """Pays for one request to ``url`` out of the books ``state``.

    ``idempotency_key`` is the request's own, if it has one; ``clock`` gives seconds.
    """

    def __init__(
        self,
        terms: Terms,
        state: PayerState,
        url: str,
        idempotency_key: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = self._terms_of_payer = terms
        self._state = state
        self._url = url
        self._key = idempotency_key or str(uuid.uuid4())
        self._clock = clock
        self._patience = Patience(clock, PAUSE_GROWTH)
        self._offer: Offer | None = None
        self._reservation: Reservation | None = None
        self._asked_to_open = False
        self._is_led_elsewhere = False
        self._is_short = False
        self._is_answered = False
        self._is_asked_for_proof = False
        self._share = 0
        self._seen: set[tuple[str, ChannelId]] = set()
        self._tab_use = TabUse(state)

    def run(self) -> Generator[Step, Any, Paid | MeteredResponse | None]:
        """Yields steps; returns what was paid, or what pays while the last answer is read, or None
        if it was not paid for.

        Raises :class:`BudgetExceeded`, :class:`WrongChain` or :class:`ConfigError` before anything
        is signed, :class:`NetworkError` if no channel becomes available, and what its driver throws
        in.
        """
        try:
            shown = None if is_counter(self._url) else (yield from self._showing.run())
            if shown is not None and shown.held is not None:
                return Paid(shown.held.channel_id, 0, None, shown.held)
            answer = (yield from self._first_attempt()) if shown is None else shown.answer
            while (offer := (yield from self._next_offer(answer))) is not None:
                answer = yield from self._attempt(offer)
            yield from self._look()
            return self._conclude(answer)
        finally:
            self._release()

    @property
    def _showing(self) -> Showing:
        """What shows the passes that the payer holds here."""
        books = (self._terms, self._state)
        return Showing(*books, self._url, self._key, self._buy, self._patience.pause)

    def _buy(self, terms: Terms, url: str, key: str) -> Generator[Step, Any, Bought | None]:
        """Buy what the payee sells at ``url``, on the way, and not where a redirect leads."""
        steps = PaymentSession(terms, self._state, url, key, self._clock).run()
        answer: Answer | None = None
        result = paid = None
        try:
            while True:
                step = steps.send(result)
                result = yield replace(step, bare=True, to=url) if isinstance(step, Send) else step
                if isinstance(result, Answer):
                    answer = result
                    if origin_of(answer.url) != origin_of(url):
                        return None
        except StopIteration as end:
            paid = end.value
        finally:
            steps.close()
        if answer is None or not isinstance(paid, Paid):
            return None
        return answer, paid.channel_id

    # --- attempts ----------------------------------------------------------------------------

    def _first_attempt(self) -> Generator[Step, Any, Answer]:
        """Ahead of the 402 where the price is known and a channel can pay it; else plainly."""
        if is_counter(self._url):  # What is asked there may be as good as money: a coupon.
            check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        offer = self._known_offer()
        if offer is not None:
            return (yield from self._attempt(offer))
        waiting = self._state.begin_asking(self._terms.payer, origin_of(self._url))
        answer: Answer = yield Send({})
        if waiting and is_answered(answer):
            self._state.record_answer(waiting)
        return answer

    def _attempt(self, offer: Offer) -> Generator[Step, Any, Answer]:
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        self._terms.allowed.check(offer.request, self._url)
        if offer.limits is not self._terms.limits.get(offer.request.currency):
            # They were lifted for another URL, which led here.
            offer = self._offer_of(offer.challenge) or offer
        self._offer = offer
        reservation = yield from self._reserve(offer)
        entry = self._state.channel(reservation.channel_id)
        if entry.in_doubt:
            reservation = yield from self._ask(offer, reservation, entry)
            entry = self._state.channel(reservation.channel_id)
        if entry.presented:
            refusal = yield from present_top_ups(self._terms, self._state, offer, entry.channel_id)
            if refusal is not None:
                return refusal
        payload = payload_of(entry, reservation.voucher)
        credential = offer.credential(self._terms.payer, payload)
        headers = {"Authorization": credential, "Idempotency-Key": self._key}
        headers |= self._tab_use.headers(offer, reservation.price)
        if self._is_asked_for_proof:
            headers |= proof_for(self._terms, entry, offer.challenge)
        if self._state.purchases.are_kept:
            headers[ASKING_HEADER] = SIGNED
        if offer.is_metered:  # Its body is looked into, which a compressed one does not allow.
            headers["Accept-Encoding"] = "identity"
        answer: Answer = yield Send(headers)
        self._is_answered = is_answered(answer)
        return answer

    def _ask(
        self, offer: Offer, reservation: Reservation, entry: PayerChannel
    ) -> Generator[Step, Any, Reservation]:
        """Have the payee say what it holds, and set the price aside by that."""
        payload = payload_of(entry, reservation.voucher)

        def headers() -> dict[str, str]:
            proof = proof_for(self._terms, entry, offer.challenge) if self._is_at(entry) else {}
            return {"Authorization": offer.credential(self._terms.payer, payload), **proof}

        yield from ask(self._state, entry, headers)
        self._is_short = not self._state.channel(entry.channel_id).in_doubt
        return (yield from self._reserve(offer))

    def _reserve(self, offer: Offer) -> Generator[Step, Any, Reservation]:
        """Set the price aside, within the budgets or with leave to go beyond them."""
        try:
            return (yield from self._set_aside(offer))
        except BudgetExceeded as refusal:
            self._ask_leave([(refusal, offer.challenge)])
        self._offer = replace(offer, limits=self._terms.limits[offer.request.currency])
        return (yield from self._set_aside(self._offer))

    def _set_aside(self, offer: Offer) -> Generator[Step, Any, Reservation]:
        """Set the price aside on a channel that covers it; have one funded if there is none."""
        held = self._reservation
        if held is not None and not self._is_short and self._answers(held, offer):
            return held
        self._is_short = False
        while True:
            entry = self._channel_for(offer)
            if entry is not None and (at_stake := self._at_stake(offer, entry)):
                yield from self._lower_stake(offer, entry, at_stake)
                continue
            reservation = None if entry is None else self._try_reserve(offer, entry)
            if reservation is not None:
                self._reservation = reservation
                return reservation
            yield from self._fund(offer, entry)

    def _at_stake(self, offer: Offer, entry: PayerChannel) -> int:
        """What this place could buy at the channel's payee for itself, where that is more than one
        request may cost; 0 where it is not. For a voucher is good for whoever holds it, and another
        place than the channel was last used at may name any payee as its own.
        """
        if self._is_at(entry):
            return 0
        at_stake = entry.signed - entry.spent
        return at_stake if at_stake > offer.cost_max else 0

    def _is_at(self, entry: PayerChannel) -> bool:
        """Whether this place is the payee's own, as far as is known."""
        is_trusted = self._terms.allowed.origins is not None or entry.url is None
        return is_trusted or origin_of(entry.url or "") == origin_of(self._url)

    def _lower_stake(
        self, offer: Offer, entry: PayerChannel, at_stake: int
    ) -> Generator[Step, Any, None]:
        """Wait for the channel's other requests; without any, refuse."""
        if entry.in_flight and not self._patience.is_over:
            yield Wait(FUNDING_POLL_SECONDS)
            return
        raise over_limit(LimitKind.PLACE, at_stake, offer.cost_max)

    def _answers(self, held: Reservation, offer: Offer) -> bool:
        """Whether a voucher is one for this price and this payee."""
        if not offer.is_from_payee_of(self._state.channel(held.channel_id)):
            return False
        if offer.is_metered:
            return max(self._share, offer.request.amount) <= held.price <= offer.cost_max
        return held.price == self._price(offer, self._state.channel(held.channel_id, held))

    def _price(self, offer: Offer, entry: PayerChannel) -> int:
        """What to set aside for the request."""
        if is_counter(self._url):
            return offer.request.amount
        if not offer.is_metered:
            return self._tab_use.price(offer, entry, self._reservation)
        room = self._state.room(entry, offer.limits.budget_at(self._url))
        return max(offer.limits.set_aside(offer.request, room), self._share)

    def _try_reserve(self, offer: Offer, entry: PayerChannel) -> Reservation | None:
        price, amount = self._price(offer, entry), offer.request.amount
        budget = offer.limits.budget_at(self._url)
        if price < amount:
            budget = replace(budget, tab_max=offer.limits.tab_max)
        try:
            return self._state.reserve(
                entry.channel_id,
                price,
                self._terms.sign,
                delta=offer.request.min_voucher_delta,
                budget=budget,
                limit=offer.cost_max if offer.is_metered else max(price, amount),
                instead_of=self._reservation,
            )
        except TabFull:  # Another request was faster: now it counts.
            return self._try_reserve(offer, entry)
        except AmountExceedsDeposit:
            return None

    def _fund(self, offer: Offer, entry: PayerChannel | None) -> Generator[Step, Any, None]:
        """Ask for an open or a top-up, or wait for whoever is at it."""
        request, limits, seen = offer.request, offer.limits, self._fundable(offer)
        if request.deployment.contract != self._terms.contract:
            raise ConfigError(
                f"no channel at {checksum_address(request.deployment.contract)} can pay, and it is"
                " not the contract at which deposits are made",
                hint="Name it with --contract to open or top up a channel there.",
            )
        if entry is None:
            deposit = limits.deposit_for(request)
            self._check_chain(request)
            self._check_budget(offer, least_promise(request))
            self._asked_to_open = True
            yield Open(request, deposit, self._url)
        else:
            price = self._price(offer, entry)
            needed = entry.next_cumulative(price, request.min_voucher_delta)
            shortfall = needed - entry.deposit
            if shortfall > 0:
                self._check_budget(offer, needed - entry.signed)
                amount = limits.top_up_for(entry.deposit, shortfall)
                yield Add(entry.channel_id, amount, entry.deposit, request)
                yield from present_top_up(self._terms, self._state, offer, entry, self._patience)
        current = self._channel_for(offer)
        if current is None or not self._is_covered(offer, current):
            yield from self._wait_for_funding(offer, seen)

    def _look(self) -> Generator[Step, Any, None]:
        """Whether a channel was opened is what the chain says, not the payee that was to do it."""
        if self._reservation is not None:
            entry = self._state.channel(self._reservation.channel_id)
            if entry.authorized is not None:
                yield Look(entry.channel.payee)

    def _check_budget(self, offer: Offer, amount: int) -> None:
        """Nothing is deposited for a payment that would then be refused."""
        request = offer.request
        purse = Purse(self._terms.payer, request.deployment.chain_id, request.currency)
        self._state.check_budget(purse, offer.limits.budget_at(self._url), amount)

    def _fundable(self, offer: Offer) -> list[tuple[ChannelId, ChannelStatus, int]]:
        """What another open or top-up changes in the books."""
        return [(one.channel_id, one.status, one.deposit) for one in self._channels_to(offer)]

    def _wait_for_funding(
        self, offer: Offer, seen: list[tuple[ChannelId, ChannelStatus, int]]
    ) -> Generator[Step, Any, None]:
        """Wait for whoever is at it. The books say when it is done; the chain is asked seldom, for
        many may wait for one.
        """
        if self._patience.is_over:
            for entry in self._channels_to(offer):
                if fundings := self._state.fundings(entry.channel_id):
                    raise not_confirmed(fundings[-1])
            raise NetworkError(
                "no channel that covers the price became available in time",
                hint="Look at your channels with: channelpay channel list",
            )
        ask_at = self._clock() + FUNDING_LOOK_SECONDS
        while self._clock() < ask_at and self._fundable(offer) == seen:
            yield Wait(FUNDING_POLL_SECONDS)
            current = self._channel_for(offer)
            if current is not None and self._is_covered(offer, current):
                return

    # --- answers -----------------------------------------------------------------------------

    def _next_offer(self, answer: Answer) -> Generator[Step, Any, Offer | None]:
        """The offer to answer next, or None if ``answer`` is final."""
        if answer.url != self._url:
            self._follow(answer)
        if self._has_other_key(answer):
            return self._offer
        if self._reservation is None:
            return self._choose(answer) if answer.status == 402 else None
        if asks_to_wait(answer):
            if not (yield from self._patience.pause(answer)):
                return None
            return self._choose(answer) if answer.challenges else self._offer
        channel_id = self._reservation.channel_id
        if answer.status in {402, 410} and self._can_help(answer, channel_id):
            return self._choose(answer)
        if answer.code == ChainReverted.code and not self._state.channel(channel_id).presented:
            # Its open failed, maybe after a reorganisation: the next request has another channel.
            self._leave(answer.code, channel_id)
        return None

    def _follow(self, answer: Answer) -> None:
        """A redirect led elsewhere; to be paid there is another purchase, at that place. Its key is
        the same whenever the request is repeated.
        """
        leaves_origin = origin_of(answer.url) != origin_of(self._url)
        self._url = answer.url
        self._is_led_elsewhere = True
        self._terms = self._terms_of_payer
        if answer.status in {402, 409, 410}:
            self._release()
            self._share = 0
        if leaves_origin:
            self._key = following_key(self._key, self._url)

    def _has_other_key(self, answer: Answer) -> bool:
        """Whether another key can help: the redirect itself may have been bought with this one."""
        if answer.code != IdempotencyKeyReused.code or not self._is_led_elsewhere:
            return False
        self._is_led_elsewhere = False
        self._key = following_key(self._key, self._url)
        return True

    def _learn(self, answer: Answer, channel_id: ChannelId) -> bool:
        """Take in why the payee refused; False if another attempt cannot help."""
        code = answer.code
        if code == "insufficient-balance":
            learn(self._state, self._state.channel(channel_id), answer)
        if code in _CHANNEL_IS_GONE:
            return self._present_once_more(code, channel_id) or self._leave(code, channel_id)
        if code == "insufficient-balance" and self._is_metered:
            return self._raise_share(answer, channel_id)
        if (code, channel_id) in self._seen:
            return False
        self._seen.add((code, channel_id))
        if code == "insufficient-balance":
            return self._adopt(answer, channel_id)
        if code == "amount-exceeds-deposit":
            return self._state.present_top_ups_again(channel_id)
        return code in _FRESH_CHALLENGE_HELPS

    def _prove(self, channel_id: ChannelId) -> bool:
        """The voucher was settled: show also that we have its key, once, and only to its payee."""
        is_first = not self._is_asked_for_proof
        self._is_asked_for_proof = self._is_at(self._state.channel(channel_id))
        return is_first and self._is_asked_for_proof

    def _can_help(self, answer: Answer, channel_id: ChannelId) -> bool:
        """Whether another attempt can, after what the payee says."""
        if answer.code == VoucherPublic.code:
            return self._prove(channel_id)
        return self._learn_of_tab(answer, channel_id) or self._learn(answer, channel_id)

    def _learn_of_tab(self, answer: Answer, channel_id: ChannelId) -> bool:
        """Whether to pay what would have been put on the tab, and what is owed on it."""
        held, offer = self._reservation, self._offer
        if held is None or offer is None or offer.is_metered:
            return False
        others = self._state.channel(channel_id, held)
        is_taken_back = self._tab_use.is_taken_back(answer, others, held.price)
        return is_taken_back or self._tab_use.is_to_pay(answer, offer, others, held)

    def _present_once_more(self, code: str, channel_id: ChannelId) -> bool:
        """A payee that lost its books learns of the channel from its open transaction."""
        if code != "channel-not-found" or not self._state.channel(channel_id).presented:
            return False
        self._state.present_open_again(channel_id)
        return True

    def _leave(self, code: str, channel_id: ChannelId) -> bool:
        """Give this channel up; False if the payee does so with one that we just opened for it."""
        self._state.refuse(channel_id, code)
        self._release()
        return not self._asked_to_open

    def _adopt(self, answer: Answer, channel_id: ChannelId) -> bool:
        """Take in what the payee says it charged; False if the same voucher would come of it."""
        held, offer, spent = self._reservation, self._offer, answer.amount("spent")
        if spent is None or held is None or offer is None:
            return False
        others = self._state.adopt_spent(channel_id, spent, held)
        following = others.next_cumulative(held.price, offer.request.min_voucher_delta)
        self._is_short = following > held.voucher.cumulative_amount
        return self._is_short

    def _raise_share(self, answer: Answer, channel_id: ChannelId) -> bool:
        """More was to pay before the response could begin: promise that, and at least twice as much
        as before. Raises :class:`BudgetExceeded`.
        """
        held, offer, required = self._reservation, self._offer, answer.amount("requiredCumulative")
        assert held is not None
        assert offer is not None
        is_in_doubt = self._state.channel(channel_id).in_doubt
        if required is None or is_in_doubt or held.price >= offer.cost_max:
            return False
        others = self._state.adopt_spent(channel_id, answer.amount("spent") or 0, held)
        least = required - others.spent - others.in_flight
        if least > offer.cost_max:
            raise BudgetExceeded(
                f"the response costs {least}, the limit is {offer.cost_max} base units",
                price=str(least),
                limit=str(offer.cost_max),
            )
        self._share = min(max(least, 2 * held.price), offer.cost_max)
        return True

    @property
    def _is_metered(self) -> bool:
        return self._offer is not None and self._offer.is_metered

    def _conclude(self, answer: Answer) -> Paid | MeteredResponse | None:
        paid: Paid | MeteredResponse
        held, offer = self._reservation, self._offer
        if held is None or offer is None or answer.receipt is None or answer.status >= 400:
            return None
        receipt = self._believed(answer.receipt, held)
        signed = self._signed(answer.signed_receipt, held)
        has_events = answer.media_type == MEDIA_TYPE
        if has_events or (offer.is_metered and answer.media_type is not None):
            told = (held, receipt, signed)
            paid = self._begun(Head(offer, self._url, self._key, *told, has_events=has_events))
        else:
            spent = None if receipt is None else receipt.spent
            cost = self._state.settle(
                held,
                spent,
                self._url,
                price=offer.request.amount,
                receipt=receipt,
                proof=Proof(signed, self._key),
            )
            cost = min(cost, held.price or held.ceiling)
            paid = Paid(held.channel_id, cost, receipt, signed_receipt=signed)
        self._reservation = None
        return paid

    def _begun(self, head: Head) -> MeteredResponse:
        """An answer that is paid for while it is read. What its head says is all that is said of
        the cost if the price was for the whole, or if a body without events was charged before.
        """
        if head.offer.is_metered:
            spent = None if head.receipt is None else head.receipt.spent
            before = self._state.begin_metered(head.reservation, spent, self._url)
            is_final = spent is not None and spent > before and not head.has_events
            head = replace(head, is_final=is_final)
        return MeteredResponse(self._terms, self._state, head, self._clock)

    def _believed(self, header: str, reservation: Reservation) -> Receipt | None:
        """The receipt, if it is of our channel and claims no more than we signed."""
        try:
            receipt = Receipt.parse(header)
        except InputError:
            return None
        entry = self._state.channel(reservation.channel_id)
        return receipt if is_genuine(receipt, entry) else None

    def _signed(self, header: str | None, reservation: Reservation) -> SignedReceipt | None:
        """The signed receipt that came with the answer, if it holds."""
        if header is None:
            return None
        with suppress(ReceiptNotValid):
            return proof_in(header, self._state.channel(reservation.channel_id))
        return None

    def _release(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self._state.release(reservation, answered=self._is_answered)

    # --- offers ------------------------------------------------------------------------------

    def _known_offer(self) -> Offer | None:
        """What this origin asked for before, if a channel can pay that at once."""
        if is_counter(self._url):
            return None
        challenge = self._state.challenge(origin_of(self._url))
        try:
            offer = None if challenge is None else self._offer_of(challenge)
        except ChannelPayError:
            return None
        entry = None if offer is None else self._channel_for(offer)
        return offer if offer and entry and offer.is_covered_by(entry) else None

    def _choose(self, answer: Answer) -> Offer | None:
        """The first challenge that we can pay, those with an open channel before others.

        None if the site takes no payments of our kind. If it does, but we may not pay: why not.
        """
        offers, refusals = self._offers(parse_challenges(answer.challenges))
        if not offers:
            if not refusals:
                return None
            self._ask_leave(refusals)
            return self._choose(answer)
        offer = self._preferred(offers)
        if offer.challenge.digest is None and not is_counter(self._url):
            self._state.remember_challenge(origin_of(self._url), offer.challenge, offer.expires_at)
        return offer

    def _offer_of(self, challenge: Challenge) -> Offer | None:
        return offer_of(self._terms, challenge, self._url)

    def _offers(
        self, challenges: list[Challenge]
    ) -> tuple[list[Offer], list[tuple[ChannelPayError, Challenge]]]:
        offers, refusals = [], []
        for challenge in challenges:
            try:
                offer = self._offer_of(challenge)
            except InputError:
                continue
            except ChannelPayError as error:
                refusals.append((error, challenge))
                continue
            if offer is not None:
                offers.append(offer)
        return offers, refusals

    def _ask_leave(self, refusals: list[tuple[ChannelPayError, Challenge]]) -> None:
        """Have the limits lifted for this request; else raise a refusal, if possible one over which
        could be asked.
        """
        refusal, challenge = max(refusals, key=lambda one: "kind" in one[0].context)
        request = SessionRequest.decode(challenge.request)
        question = Question.about(refusal, self._url, request)
        if question is None:
            raise refusal
        if is_metered(request):  # The first promise is not the last: no limit holds after a yes.
            cost_max = self._terms.limits[request.currency].cost_max(request)
            question = replace(question, price=max(question.price, cost_max))
        if not self._terms.confirm(question):
            raise refusal
        self._terms = self._terms.lifted(request.currency, question.price)

    def _preferred(self, offers: list[Offer]) -> Offer:
        for offer in offers:
            if self._channel_for(offer) is not None:
                return offer
        chain_id = self._terms.chain_id() if len(offers) > 1 else None
        on_our_chain = (o for o in offers if o.request.deployment.chain_id == chain_id)
        return next(on_our_chain, offers[0])

    def _channel_for(self, offer: Offer) -> PayerChannel | None:
        """A usable channel to this payee, if possible one that covers the price."""
        usable = [
            entry
            for entry in self._channels_to(offer)
            if entry.is_usable and (entry.authorized is None or is_carried(offer, entry.authorized))
        ]
        covering = (entry for entry in usable if self._is_covered(offer, entry))
        return next(covering, usable[0] if usable else None)

    def _channels_to(self, offer: Offer) -> list[PayerChannel]:
        request = offer.request
        found = self._state.channels_to(
            request.deployment,
            self._terms.payer,
            request.recipient,
            request.currency,
            beside=self._reservation,
        )
        return [entry for entry in found if self._terms.can_sign(entry)]

    def _is_covered(self, offer: Offer, entry: PayerChannel) -> bool:
        return offer.is_covered_by(entry, self._price(offer, entry))

    def _check_chain(self, request: SessionRequest) -> None:
        ours, theirs = self._terms.chain_id(), request.deployment.chain_id
        if ours != theirs:
            raise WrongChain(f"the site takes payments on chain {theirs}, the node serves {ours}")


def is_answered(answer: Answer) -> bool:
    """Whether the payee is there: neither a gateway nor a payee in trouble answered for it."""
    return answer.status not in _NO_ANSWER


def payload_of(entry: PayerChannel, voucher: Voucher) -> Payload:
    """The first request on a channel presents its open transaction, or has it opened."""
    channel = entry.channel
    if entry.authorized is not None:
        signed = entry.authorized.signed
        return SignedOpenPayload(signed, channel.salt, channel.authorized_signer, voucher)
    if entry.presented or entry.open_transaction is None:
        return VoucherPayload(voucher)
    return OpenPayload(entry.open_transaction, channel.salt, channel.authorized_signer, voucher)
