"""Having a payee open or top up a channel before anything is bought, without I/O: the payer signs,
and the payee sends it and pays its gas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from channelpay.errors import ConfigError, InputError
from channelpay.payer.offers import Terms
from channelpay.payer.origins import check_transport
from channelpay.payer.records import PayerChannel
from channelpay.payer.session import (
    DEADLINE_SECONDS,
    RETRY_AFTER_SECONDS,
    asks_to_wait,
    payload_of,
)
from channelpay.payer.steps import Answer, Send, Step, Wait
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


class _Carried:
    """Asks the payee of ``url`` to send what is signed."""

    def __init__(
        self, terms: Terms, url: str, token: Address, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terms = terms
        self._url = url
        self._token = token
        self._clock = clock
        self._deadline = clock() + DEADLINE_SECONDS

    def _presented(
        self, challenge: Challenge, request: SessionRequest, payload: Payload
    ) -> Generator[Step, Any, Answer]:
        """Show it until the payee has done it, or refuses; the last answer."""
        source = Source(request.deployment.chain_id, self._terms.payer)
        header = {"Authorization": Credential(challenge, payload, source).to_header()}
        answer: Answer = yield Send(header, bare=True)
        while asks_to_wait(answer) and self._clock() < self._deadline:
            yield Wait(answer.retry_after_seconds or RETRY_AFTER_SECONDS)
            answer = yield Send(header, bare=True)
        return answer

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


class CarriedTopUp(_Carried):
    """Tops up a channel in ``token`` to whom ``url`` has to be paid."""

    def run(self, sign_top_up: SignTopUp) -> Generator[Step, Any, Answer]:
        """Yields steps with bare requests only; returns the last answer. Whether the deposit grew,
        the chain says.
        """
        challenge, request = yield from self._asked()
        return (yield from self._presented(challenge, request, sign_top_up(request)))


class CarriedOpen(_Carried):
    """Opens a channel in ``token`` to whom ``url`` has to be paid."""

    def __init__(
        self,
        terms: Terms,
        url: str,
        token: Address,
        sign_open: SignOpen,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(terms, url, token, clock)
        self._sign_open = sign_open

    def run(self) -> Generator[Step, Any, tuple[PayerChannel, Answer]]:
        """Yields steps with bare requests only; returns the channel that was signed for, and the
        last answer. That one refuses to serve, for the first voucher promises nothing: whether the
        channel is open, the chain says.
        """
        challenge, request = yield from self._asked()
        entry = self._sign_open(request)
        payload = payload_of(entry, self._terms.sign(entry, 0))
        return entry, (yield from self._presented(challenge, request, payload))
