"""The cooperative close, without I/O: ask the payee to close a channel with a voucher of exactly
what it charged, so that all the rest comes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from channelpay.errors import ChannelPayError, InputError, NetworkError, PaymentRefused
from channelpay.payer.doubt import last_voucher, learn, receipt_in
from channelpay.payer.offers import Terms
from channelpay.payer.origins import check_transport, origin_of
from channelpay.payer.records import PayerChannel
from channelpay.payer.refusals import error_of
from channelpay.payer.session import RETRY_AFTER_SECONDS, asks_to_wait, payload_of
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step, Wait
from channelpay.protocol.wire import (
    Challenge,
    ClosePayload,
    Credential,
    OpenPayload,
    Payload,
    Receipt,
    SessionRequest,
    Source,
    VoucherPayload,
    parse_challenges,
)

DEADLINE_SECONDS = 180.0
_WITHOUT_THE_PAYEE = "To get out without the payee: channelpay channel close --request"
_STALE = frozenset({"invalid-challenge", "payment-expired"})


@dataclass(frozen=True, slots=True)
class Closed:
    """What the payee says of the close. ``transaction_hash`` has 32 bytes."""

    receipt: Receipt
    transaction_hash: bytes


class CloseSession:
    """Closes ``entry`` by a request to ``url``, any paid address of its payee."""

    def __init__(
        self,
        terms: Terms,
        state: PayerState,
        entry: PayerChannel,
        url: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._state = state
        self._entry = entry
        self._url = url
        self._clock = clock
        self._deadline = clock() + DEADLINE_SECONDS

    def run(self) -> Generator[Step, Any, Closed]:
        """Yields steps with bare requests only. Raises the payee's refusal as an error of ours."""
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        challenge = self._known_challenge() or (yield from self._ask())
        answer = yield from self._present_and_close(challenge)
        if answer.status == 402 and answer.code in _STALE:
            answer = yield from self._present_and_close(self._matching(answer))
        return self._conclude(answer)

    def _present_and_close(self, challenge: Challenge) -> Generator[Step, Any, Answer]:
        """The answer to the close. A channel that was never used is unknown to the payee; so its
        open is presented first, and refused for want of payment.
        """
        asked, is_known = self._state.channel(self._entry.channel_id), False
        if asked.unsure or asked.in_doubt:
            is_known = yield from self._learn_spent(challenge, asked)
        entry = self._state.channel(self._entry.channel_id)
        voucher = self._terms.sign(entry, entry.spent)
        opening = payload_of(entry, voucher)
        if isinstance(opening, OpenPayload) and not is_known:
            yield from self._send(challenge, opening)
        return (yield from self._send(challenge, ClosePayload(voucher)))

    def _learn_spent(self, challenge: Challenge, entry: PayerChannel) -> Generator[Step, Any, bool]:
        """Have a receipt for the last voucher: a payee that charged more than the close says takes
        all that was promised. Returns whether the payee knows the channel.
        """
        payload = payload_of(entry, last_voucher(self._terms, entry))
        header = self._credential(challenge, payload)
        answer: Answer = yield Send({"Authorization": header}, bare=True, head=True)
        receipt = receipt_in(answer, entry)
        if receipt is None:
            return False
        if entry.in_doubt and receipt.accepted > entry.signed:
            yield from self._have_it_proven(challenge, entry, receipt)
        elif entry.in_doubt:
            self._state.end_doubt(entry.channel_id, receipt.spent)
        elif receipt.spent <= entry.signed:
            self._state.adopt_spent(entry.channel_id, receipt.spent)
        return True

    def _have_it_proven(
        self, challenge: Challenge, entry: PayerChannel, receipt: Receipt
    ) -> Generator[Step, Any, None]:
        """A payee that holds a higher voucher shows it when it refuses to sell for the last known
        one: so ask for what cannot be paid out of what is left.
        """
        price = SessionRequest.decode(challenge.request).amount
        if receipt.accepted - receipt.spent < price:
            payload = VoucherPayload(last_voucher(self._terms, entry))
            answer = yield from self._send(challenge, payload)
            learn(self._state, entry, answer)

    def _known_challenge(self) -> Challenge | None:
        challenge = self._state.challenge(origin_of(self._url))
        return challenge if challenge is not None and self._is_ours(challenge) else None

    def _ask(self) -> Generator[Step, Any, Challenge]:
        answer: Answer = yield Send({}, bare=True)
        if answer.status != 402:
            raise InputError(
                f"{self._url} asks for no payment (status {answer.status})",
                hint="Name an address of the payee that has to be paid for, with --url. "
                + _WITHOUT_THE_PAYEE,
            )
        return self._matching(answer)

    def _matching(self, answer: Answer) -> Challenge:
        for challenge in parse_challenges(answer.challenges):
            if self._is_ours(challenge):
                return challenge
        raise PaymentRefused(
            f"{self._url} does not belong to the payee of this channel", hint=_WITHOUT_THE_PAYEE
        )

    def _is_ours(self, challenge: Challenge) -> bool:
        """Whether this channel could answer the challenge."""
        try:
            request = SessionRequest.decode(challenge.request)
        except InputError:
            return False
        channel = self._entry.channel
        ours = (self._entry.deployment, channel.payee, channel.token)
        return (request.deployment, request.recipient, request.currency) == ours

    def _send(self, challenge: Challenge, payload: Payload) -> Generator[Step, Any, Answer]:
        """Send a credential; wait and repeat while the payee asks to."""
        header = self._credential(challenge, payload)
        while True:
            answer: Answer = yield Send({"Authorization": header}, bare=True)
            seconds = answer.retry_after_seconds or RETRY_AFTER_SECONDS
            if not asks_to_wait(answer) or self._clock() + seconds > self._deadline:
                return answer
            yield Wait(seconds)

    def _credential(self, challenge: Challenge, payload: Payload) -> str:
        source = Source(self._entry.deployment.chain_id, self._entry.channel.payer)
        return Credential(challenge, payload, source).to_header()

    def _conclude(self, answer: Answer) -> Closed:
        if answer.status >= 300 or answer.receipt is None:
            raise self._refusal(answer)
        try:
            receipt = Receipt.parse(answer.receipt)
        except InputError:
            raise self._refusal(answer) from None
        if receipt.channel_id != self._entry.channel_id or receipt.transaction_hash is None:
            raise self._refusal(answer)
        return Closed(receipt, receipt.transaction_hash)

    def _refusal(self, answer: Answer) -> ChannelPayError:
        if answer.status < 400:
            return PaymentRefused(
                "the payee answered without a receipt of the close", hint=_WITHOUT_THE_PAYEE
            )
        error = error_of(answer)
        if not isinstance(error, NetworkError):
            error.hint = f"{error.hint} {_WITHOUT_THE_PAYEE}".strip()
        return error
