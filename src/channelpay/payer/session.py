"""One paid request from its first attempt to its answer, without I/O: see
:mod:`channelpay.payer.steps`.

What this side forbids (a limit, a wrong chain, plain http) is raised before anything is signed.
What the payee refuses for good ends the session: the caller gets the payee's own answer.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from channelpay.errors import (
    AmountExceedsDeposit,
    BudgetExceeded,
    ChannelPayError,
    ConfigError,
    InputError,
    NetworkError,
    WrongChain,
)
from channelpay.payer.limits import Limits
from channelpay.payer.origins import check_transport, origin_of
from channelpay.payer.records import PayerChannel, Reservation
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Add, Answer, Open, Paid, Send, Step, Wait
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE, Address, ChannelId, Deployment, Voucher
from channelpay.protocol.wire import (
    INTENT,
    METHOD,
    Challenge,
    Credential,
    OpenPayload,
    Payload,
    Receipt,
    SessionRequest,
    Source,
    TopUpPayload,
    VoucherPayload,
    parse_challenges,
)

DEADLINE_SECONDS = 180.0
"""After that a session waits no longer: for confirmations, a busy payee, or another open."""
RETRY_AFTER_SECONDS = 1.0
"""How long to wait where the payee does not say."""
FUNDING_POLL_SECONDS = 0.1
UNIT_TYPE = "request"
"""The only unit whose price is known before the request is sent."""

_CHANNEL_IS_GONE = frozenset({"channel-closing", "channel-finalized", "channel-not-found"})
_FRESH_CHALLENGE_HELPS = frozenset(
    {"invalid-challenge", "payment-expired", "payment-insufficient", "payment-required"}
)


@dataclass(frozen=True, slots=True)
class Terms:
    """On whose behalf, and within which limits a session pays.

    ``chain_id`` asks the node; it is called only when no open channel settles the question.
    """

    payer: Address
    contract: Address
    limits: Mapping[Address, Limits]
    sign: Callable[[Deployment, ChannelId, int], Voucher] = field(repr=False)
    chain_id: Callable[[], int]
    allow_plain_http: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A challenge that this payer can and may answer, until ``expires_at`` (Unix seconds)."""

    challenge: Challenge
    request: SessionRequest
    limits: Limits
    expires_at: float | None


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
        self._terms = terms
        self._state = state
        self._url = url
        self._key = idempotency_key or str(uuid.uuid4())
        self._clock = clock
        self._deadline = clock() + DEADLINE_SECONDS
        self._offer: Offer | None = None
        self._reservation: Reservation | None = None
        self._asked_to_open = False
        self._seen: set[tuple[str, ChannelId]] = set()

    def run(self) -> Generator[Step, Any, Paid | None]:
        """Yields steps; returns what was paid, or None if the last answer was not paid for.

        Raises :class:`BudgetExceeded`, :class:`WrongChain` or :class:`ConfigError` before anything
        is signed, :class:`NetworkError` if no channel becomes available, and what its driver throws
        in.
        """
        try:
            answer = yield from self._first_attempt()
            while (offer := (yield from self._next_offer(answer))) is not None:
                answer = yield from self._attempt(offer)
            return self._conclude(answer)
        finally:
            self._release()

    # --- attempts ----------------------------------------------------------------------------

    def _first_attempt(self) -> Generator[Step, Any, Answer]:
        """Ahead of the 402 where the price is known and a channel can pay it; else plainly."""
        offer = self._known_offer()
        if offer is not None:
            return (yield from self._attempt(offer))
        answer: Answer = yield Send({})
        return answer

    def _attempt(self, offer: Offer) -> Generator[Step, Any, Answer]:
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        self._offer = offer
        reservation = yield from self._reserve(offer)
        entry = self._state.channel(reservation.channel_id)
        refusal = yield from self._present_top_ups(offer, entry)
        if refusal is not None:
            return refusal
        credential = self._credential(offer, payload_of(entry, reservation.voucher))
        answer: Answer = yield Send({"Authorization": credential, "Idempotency-Key": self._key})
        return answer

    def _reserve(self, offer: Offer) -> Generator[Step, Any, Reservation]:
        """Set the price aside on a channel that covers it; have one funded if there is none."""
        held = self._reservation
        if held is not None and self._answers(held, offer.request):
            return held
        while True:
            entry = self._channel_for(offer)
            reservation = None if entry is None else self._try_reserve(offer, entry)
            if reservation is not None:
                self._reservation = reservation
                return reservation
            yield from self._fund(offer, entry)

    def _answers(self, held: Reservation, request: SessionRequest) -> bool:
        """Whether a voucher is one for this price and this payee."""
        entry = self._state.channel(held.channel_id)
        ours = (held.price, entry.channel.payee, entry.channel.token, entry.deployment)
        return ours == (request.amount, request.recipient, request.currency, request.deployment)

    def _try_reserve(self, offer: Offer, entry: PayerChannel) -> Reservation | None:
        try:
            return self._state.reserve(
                entry.channel_id,
                offer.request.amount,
                lambda channel_id, amount: self._terms.sign(entry.deployment, channel_id, amount),
                total_max=offer.limits.total_max,
                instead_of=self._reservation,
            )
        except AmountExceedsDeposit:
            return None

    def _fund(self, offer: Offer, entry: PayerChannel | None) -> Generator[Step, Any, None]:
        """Ask for an open or a top-up, or wait for whoever is at it."""
        request, limits = offer.request, offer.limits
        if entry is None:
            deposit = limits.deposit_for(request)
            self._check_chain(request)
            self._asked_to_open = True
            yield Open(request, deposit, self._url)
        else:
            shortfall = entry.next_cumulative(request.amount) - entry.deposit
            if shortfall > 0:
                yield Add(entry.channel_id, limits.top_up_for(entry.deposit, shortfall))
        current = self._channel_for(offer)
        if current is None or not current.covers(request.amount):
            yield from self._wait_for_funding()

    def _wait_for_funding(self) -> Generator[Step, Any, None]:
        if self._clock() >= self._deadline:
            raise NetworkError(
                "no channel that covers the price became available in time",
                hint="Look at your channels with: channelpay channel list",
            )
        yield Wait(FUNDING_POLL_SECONDS)

    def _present_top_ups(
        self, offer: Offer, entry: PayerChannel
    ) -> Generator[Step, Any, Answer | None]:
        """Tell a payee that knows the channel of each top-up; its answer, if it refuses one."""
        if not entry.presented:
            return None
        for top_up in self._state.unpresented_top_ups(entry.channel_id):
            payload = TopUpPayload(entry.channel_id, top_up.transaction_hash, top_up.amount)
            header = {"Authorization": self._credential(offer, payload)}
            answer: Answer = yield Send(header, bare=True)
            if answer.status >= 400:
                return answer
            self._state.record_presented(top_up)
        return None

    def _credential(self, offer: Offer, payload: Payload) -> str:
        source = Source(offer.request.deployment.chain_id, self._terms.payer)
        return Credential(offer.challenge, payload, source).to_header()

    # --- answers -----------------------------------------------------------------------------

    def _next_offer(self, answer: Answer) -> Generator[Step, Any, Offer | None]:
        """The offer to answer next, or None if ``answer`` is final."""
        if answer.url != self._url:
            self._follow(answer)
        if self._reservation is None:
            return self._choose(answer) if answer.status == 402 else None
        if asks_to_wait(answer):
            return (yield from self._pause(answer))
        if answer.status in {402, 410} and self._learn(answer, self._reservation.channel_id):
            return self._choose(answer)
        return None

    def _follow(self, answer: Answer) -> None:
        """A redirect led elsewhere; to be paid there is another purchase, at that place."""
        self._url = answer.url
        if answer.status in {402, 409, 410}:
            self._release()
            self._key = str(uuid.uuid4())

    def _pause(self, answer: Answer) -> Generator[Step, Any, Offer | None]:
        seconds = answer.retry_after_seconds or RETRY_AFTER_SECONDS
        if self._clock() + seconds > self._deadline:
            return None
        yield Wait(seconds)
        return self._choose(answer) if answer.challenges else self._offer

    def _learn(self, answer: Answer, channel_id: ChannelId) -> bool:
        """Take in why the payee refused; False if another attempt cannot help."""
        code = answer.code
        if code in _CHANNEL_IS_GONE:
            return self._present_once_more(code, channel_id) or self._leave(code, channel_id)
        if (code, channel_id) in self._seen:
            return False
        self._seen.add((code, channel_id))
        if code == "insufficient-balance":
            return self._adopt(answer, channel_id)
        if code == "amount-exceeds-deposit":
            return self._state.present_top_ups_again(channel_id)
        return code in _FRESH_CHALLENGE_HELPS

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
        """Believe what the payee charged, as far as we signed before this request, which it did not
        serve; then sign anew.
        """
        spent = answer.amount("spent")
        held = self._reservation
        ahead = 0 if held is None else held.increment
        if spent is None or not self._state.adopt_spent(channel_id, spent, ahead):
            return False
        self._release()
        return True

    def _conclude(self, answer: Answer) -> Paid | None:
        reservation = self._reservation
        if reservation is None or answer.receipt is None or answer.status >= 400:
            return None
        receipt = self._believed(answer.receipt, reservation)
        spent = None if receipt is None else receipt.spent
        cost = self._state.settle(reservation, spent, self._url)
        self._reservation = None
        return Paid(reservation.channel_id, cost, receipt)

    def _believed(self, header: str, reservation: Reservation) -> Receipt | None:
        """The receipt, if it is of our channel and claims no more than we signed."""
        try:
            receipt = Receipt.parse(header)
        except InputError:
            return None
        entry = self._state.channel(reservation.channel_id)
        ours = (entry.channel_id, entry.deployment.chain_id)
        genuine = (receipt.channel_id, receipt.chain_id) == ours and receipt.spent <= entry.signed
        return receipt if genuine else None

    def _release(self) -> None:
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self._state.release(reservation)

    # --- offers ------------------------------------------------------------------------------

    def _known_offer(self) -> Offer | None:
        """What this origin asked for before, if a channel can pay that at once."""
        challenge = self._state.challenge(origin_of(self._url))
        try:
            offer = None if challenge is None else self._offer_of(challenge)
        except ChannelPayError:
            return None
        entry = None if offer is None else self._channel_for(offer)
        covered = offer and entry and entry.covers(offer.request.amount)
        return offer if covered else None

    def _choose(self, answer: Answer) -> Offer | None:
        """The first challenge that we can pay, those with an open channel before others.

        None if the site takes no payments of our kind. If it does, but we may not pay: why not.
        """
        offers, refusals = self._offers(parse_challenges(answer.challenges))
        if not offers:
            if refusals:
                raise refusals[0]
            return None
        offer = self._preferred(offers)
        if offer.challenge.digest is None:
            self._state.remember_challenge(origin_of(self._url), offer.challenge, offer.expires_at)
        return offer

    def _offers(self, challenges: list[Challenge]) -> tuple[list[Offer], list[ChannelPayError]]:
        offers, refusals = [], []
        for challenge in challenges:
            try:
                offer = self._offer_of(challenge)
            except InputError:
                continue
            except ChannelPayError as error:
                refusals.append(error)
                continue
            if offer is not None:
                offers.append(offer)
        return offers, refusals

    def _offer_of(self, challenge: Challenge) -> Offer | None:
        """None for another method, intent or unit. Raises if contract or limits forbid it."""
        if (challenge.method, challenge.intent) != (METHOD, INTENT):
            return None
        request = SessionRequest.decode(challenge.request)
        if request.unit_type != UNIT_TYPE:
            return None
        if request.deployment.contract != self._terms.contract:
            raise ConfigError(
                f"the site takes payments through the contract"
                f" {checksum_address(request.deployment.contract)}, which is not the trusted one",
                hint="Check who runs that contract before you name it with --contract.",
            )
        limits = self._terms.limits.get(request.currency)
        if limits is None:
            raise BudgetExceeded(
                f"the site takes payments in {_token_name(request.currency)}, for which there are"
                " no limits",
                hint="Set limits for this token (--token), if you want to pay in it.",
                token=checksum_address(request.currency),
            )
        limits.check_price(request.amount)
        return Offer(challenge, request, limits, challenge.expires_at)

    def _preferred(self, offers: list[Offer]) -> Offer:
        for offer in offers:
            if self._channel_for(offer) is not None:
                return offer
        chain_id = self._terms.chain_id() if len(offers) > 1 else None
        on_our_chain = (o for o in offers if o.request.deployment.chain_id == chain_id)
        return next(on_our_chain, offers[0])

    def _channel_for(self, offer: Offer) -> PayerChannel | None:
        """A usable channel to this payee, if possible one that covers the price."""
        request = offer.request
        entries = self._state.channels_to(
            request.deployment, self._terms.payer, request.recipient, request.currency
        )
        usable = [entry for entry in entries if entry.is_usable]
        covering = (entry for entry in usable if entry.covers(request.amount))
        return next(covering, usable[0] if usable else None)

    def _check_chain(self, request: SessionRequest) -> None:
        ours, theirs = self._terms.chain_id(), request.deployment.chain_id
        if ours != theirs:
            raise WrongChain(f"the site takes payments on chain {theirs}, the node serves {ours}")


def asks_to_wait(answer: Answer) -> bool:
    if answer.status == 503:
        return answer.retry_after is not None
    return answer.status == 402 and answer.code == "too-few-confirmations"


def payload_of(entry: PayerChannel, voucher: Voucher) -> Payload:
    """The first request on a channel presents its open transaction."""
    if entry.presented or entry.open_transaction is None:
        return VoucherPayload(voucher)
    channel = entry.channel
    return OpenPayload(entry.open_transaction, channel.salt, channel.authorized_signer, voucher)


def _token_name(token: Address) -> str:
    return "the chain's own currency" if token == NATIVE else f"token {checksum_address(token)}"
