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
from channelpay.payer.patience import Patience
from channelpay.payer.proving import proof_for
from channelpay.payer.records import PayerChannel
from channelpay.payer.refusals import error_of
from channelpay.payer.session import payload_of
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step
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

_WITHOUT_THE_PAYEE = "To get out without the payee: channelpay channel close --request"
_STALE = frozenset({"invalid-challenge", "payment-expired"})


@dataclass(frozen=True, slots=True)
class Closed:
    """What the payee says of the close. ``transaction_hash`` has 32 bytes."""

    receipt: Receipt
    transaction_hash: bytes


@dataclass(frozen=True, slots=True)
class ForeseenClose:
    """What a close of ``channel``, by a request to ``url``, would settle (base units)."""

    channel: PayerChannel
    url: str
    settled: int


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
        self._patience = Patience(clock)

    def run(self) -> Generator[Step, Any, Closed]:
        """Yields steps with bare requests only. Raises the payee's refusal as an error of ours."""
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        challenge = self._known_challenge() or (yield from self._ask())
        answer = yield from self._present_and_close(challenge)
        if answer.status == 402 and answer.code in _STALE:
            answer = yield from self._present_and_close(self._matching(answer))
        return self._conclude(answer)

    def foresee(self) -> Generator[Step, Any, ForeseenClose]:
        """Yields requests that change nothing: for a challenge and, where the channel was used
        last, by HEAD and with the last voucher, for what was charged. Elsewhere that voucher could
        be spent by whoever is shown it. Raises what :meth:`run` raises before the close.
        """
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        challenge = yield from self._ask()
        entry, receipt = self._entry, None
        if entry.url and origin_of(entry.url) == origin_of(self._url) and entry.signature:
            voucher = VoucherPayload(last_voucher(self._terms, entry))
            headers = self._headers(challenge, voucher)
            answer: Answer = yield Send(headers, bare=True, head=True)
            receipt = receipt_in(answer, entry)
        settled = entry.spent if receipt is None else _settled(entry, receipt)
        return ForeseenClose(entry, self._url, settled)

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
        headers = self._headers(challenge, payload)
        answer: Answer = yield Send(headers, bare=True, head=True)
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
        return (yield from self._patience.send(self._headers(challenge, payload)))

    def _headers(self, challenge: Challenge, payload: Payload) -> dict[str, str]:
        source = Source(self._entry.deployment.chain_id, self._entry.channel.payer)
        credential = Credential(challenge, payload, source).to_header()
        proof = proof_for(self._terms, self._entry, challenge)
        return {"Authorization": credential, **proof}

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


def _settled(entry: PayerChannel, receipt: Receipt) -> int:
    """What a payee that says this takes: what the close offers, which is what was spent as far as
    that is believed; or all that it has a voucher for, if that is not enough.
    """
    believed_max = entry.signed if entry.in_doubt else entry.credible if entry.unsure else 0
    offered = max(entry.spent, min(receipt.spent, believed_max))
    return offered if receipt.spent <= offered else min(receipt.accepted, entry.deposit)
