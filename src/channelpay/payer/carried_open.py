"""Having a payee open a channel before anything is bought, without I/O: the payer signs, and the
payee sends the open and pays its gas.
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
    SessionRequest,
    Source,
    parse_challenges,
)

SignOpen = Callable[[SessionRequest], PayerChannel]
"""Plans a channel to who asks, and signs its open."""


class CarriedOpen:
    """Opens a channel in ``token`` to whom ``url`` has to be paid."""

    def __init__(
        self,
        terms: Terms,
        url: str,
        token: Address,
        sign_open: SignOpen,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._url = url
        self._token = token
        self._sign_open = sign_open
        self._clock = clock
        self._deadline = clock() + DEADLINE_SECONDS

    def run(self) -> Generator[Step, Any, tuple[PayerChannel, Answer]]:
        """Yields steps with bare requests only; returns the channel that was signed for, and the
        last answer. That one refuses to serve, for the first voucher promises nothing: whether the
        channel is open, the chain says.
        """
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        challenge, request = self._offered((yield Send({}, bare=True)))
        entry = self._sign_open(request)
        payload = payload_of(entry, self._terms.sign(entry, 0))
        source = Source(request.deployment.chain_id, self._terms.payer)
        header = {"Authorization": Credential(challenge, payload, source).to_header()}
        answer: Answer = yield Send(header, bare=True)
        while asks_to_wait(answer) and self._clock() < self._deadline:
            yield Wait(answer.retry_after_seconds or RETRY_AFTER_SECONDS)
            answer = yield Send(header, bare=True)
        return entry, answer

    def _offered(self, answer: Answer) -> tuple[Challenge, SessionRequest]:
        """The first challenge that offers to carry the gas for this token."""
        for challenge in parse_challenges(answer.challenges):
            with suppress(InputError):
                request = SessionRequest.decode(challenge.request)
                place = (request.currency, request.deployment.contract)
                if place == (self._token, self._terms.contract) and request.carried is not None:
                    self._terms.allowed.check(request, self._url)
                    return challenge, request
        raise ConfigError(
            f"{self._url} does not offer to carry the gas for this token and contract",
            hint="Open the channel from your own account, or name another token (--token).",
        )
