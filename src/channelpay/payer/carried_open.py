"""Having a payee open or top up a channel before anything is bought, without I/O: the payer signs,
and the payee sends it and pays its gas.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from channelpay.errors import ConfigError, InputError
from channelpay.payer.offers import Terms
from channelpay.payer.origins import check_transport
from channelpay.payer.patience import Patience
from channelpay.payer.records import PayerChannel
from channelpay.payer.session import payload_of
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.types import Address
from channelpay.protocol.wire import (
    Challenge,
    Credential,
    Payload,
    SessionRequest,
    SignedTopUpPayload,
    Source,
    parse_challenges,
)

SignOpen = Callable[[SessionRequest], PayerChannel]
"""Plans a channel to who asks, and signs its open."""

SignTopUp = Callable[[SessionRequest], SignedTopUpPayload]
"""Signs a channel's top-up for who asks."""


class Carried:
    """Asks whom ``url`` has to be paid to fund a channel in ``token``. Its methods yield steps with
    bare requests only; whether anything came of it, the chain says.
    """

    def __init__(self, terms: Terms, url: str, token: Address) -> None:
        self._terms = terms
        self._url = url
        self._token = token

    def open(self, sign_open: SignOpen) -> Generator[Step, Any, tuple[PayerChannel, Answer]]:
        """Returns the channel that was signed for, and the last answer. That one refuses to serve,
        for the first voucher promises nothing.
        """
        challenge, request = yield from self._asked()
        entry = sign_open(request)
        payload = payload_of(entry, self._terms.sign(entry, 0))
        return entry, (yield from self._presented(challenge, request, payload))

    def top_up(self, sign_top_up: SignTopUp) -> Generator[Step, Any, Answer]:
        """Returns the last answer."""
        challenge, request = yield from self._asked()
        return (yield from self._presented(challenge, request, sign_top_up(request)))

    def _asked(self) -> Generator[Step, Any, tuple[Challenge, SessionRequest]]:
        """The first challenge that offers to carry the gas for this token."""
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        answer: Answer = yield Send({}, bare=True)
        for challenge in parse_challenges(answer.challenges):
            with suppress(InputError):
                request = SessionRequest.decode(challenge.request)
                place = (request.currency, request.deployment.contract)
                if place == (self._token, self._terms.contract) and request.carried is not None:
                    self._terms.allowed.check(request, self._url)
                    return challenge, request
        raise ConfigError(
            f"{self._url} does not offer to carry the gas for this token and contract",
            hint="Pay the gas from your own account, or name another token (--token).",
        )

    def _presented(
        self, challenge: Challenge, request: SessionRequest, payload: Payload
    ) -> Generator[Step, Any, Answer]:
        """Show it until the payee has done it, or refuses; the last answer."""
        source = Source(request.deployment.chain_id, self._terms.payer)
        header = Credential(challenge, payload, source).to_header()
        return (yield from Patience().send({"Authorization": header}))
