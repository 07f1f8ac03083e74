"""The request with a pass instead of a voucher, as a part of a payment session: see
:mod:`channelpay.payer.steps`.

It follows the tokens that answers bring, gets a pass back that was suspended, and has one bought
again where the payer said so before.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from channelpay.errors import (
    ChannelPayError,
    IdempotencyKeyReused,
    InputError,
    NetworkError,
    NotFound,
    PassEnded,
    PassNotCovering,
    PassNotValid,
    PassSuspended,
)
from channelpay.payer.budgets import never
from channelpay.payer.offers import Terms
from channelpay.payer.origins import check_transport, following_key, origin_of
from channelpay.payer.passes import HeldPass, PassState
from channelpay.payer.proving import signed_for
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.parse import parse_bytes32
from channelpay.protocol.passes import PLACE, PROOF_HEADER, SCHEME, proof_place
from channelpay.protocol.types import ChannelId

TRIES_MAX = 8
"""How often passes are shown for one request: an old token, a proof, one that was renewed."""

Bought = tuple[Answer, ChannelId]
"""The answer to what was paid for, and on which channel."""
Buy = Callable[[Terms, str, str], Generator[Step, Any, Bought | None]]
"""Pays for what is at a URL under some terms, with an Idempotency-Key; None if it was not paid."""
Pause = Callable[[Answer], Generator[Step, Any, bool]]
"""Waits as an answer asks; False if it does not, or for too long."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The answer to a request with a pass, and the pass if it covered the request."""

    answer: Answer
    held: HeldPass | None


class Showing:
    """Shows the passes that the payer holds for ``url``."""

    def __init__(
        self, terms: Terms, state: PayerState, url: str, key: str, buy: Buy, pause: Pause
    ) -> None:
        self._terms = terms
        self._state = state
        self._url = url
        self._key = key
        self._buy = buy
        self._pause = pause
        self._proof: str | None = None
        self._refused: set[str] = set()
        self._counted: set[tuple[bytes, str]] = set()
        self._has_renewed = False

    def run(self) -> Generator[Step, Any, Shown | None]:
        """None if there was none to show. An answer that no pass covered is the one to go on with,
        as if the request had come without one.
        """
        shown = None
        for _ in range(TRIES_MAX):
            held = self._held()
            if held is None:
                return shown
            check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
            self._count(held)
            answer: Answer = yield Send(self._headers(held))
            if answer.shown is not None and answer.shown.pass_id == held.pass_id:
                self._state.passes.record(held, answer.shown)
                is_covered = answer.status < 400
                return Shown(answer, _after(held, answer.shown) if is_covered else None)
            shown = Shown(answer, None)
            if not (yield from self._goes_on(held, answer)):
                return shown
        return shown

    def _held(self) -> HeldPass | None:
        path = unquote(urlsplit(self._url).path) or "/"
        origin, refused = origin_of(self._url), frozenset(self._refused)
        return self._state.passes.to_show(self._terms.payer, origin, path, refused)

    def _count(self, held: HeldPass) -> None:
        """The payee counts a pass once for a key."""
        use = (held.pass_id, self._key)
        if use not in self._counted:
            self._counted.add(use)
            self._state.passes.count(held)

    def _headers(self, held: HeldPass) -> dict[str, str]:
        headers = {"Authorization": f"{SCHEME} {held.token}", "Idempotency-Key": self._key}
        proof, self._proof = self._proof, None
        return headers if proof is None else headers | {PROOF_HEADER: proof}

    def _goes_on(self, held: HeldPass, answer: Answer) -> Generator[Step, Any, bool]:
        """Whether another attempt may be covered."""
        if origin_of(answer.url) != origin_of(self._url):
            return False
        if answer.code == PassSuspended.code:
            self._prove(held, answer)
            return True
        if answer.code == IdempotencyKeyReused.code and answer.url != self._url:
            # What led here was covered with this key.
            self._url, self._key = answer.url, following_key(self._key, answer.url)
            return True
        if answer.status == 503:
            return (yield from self._pause(answer))
        self._refused.add(held.token)
        if answer.code == PassEnded.code and held.renews and self._state.passes.is_over(held):
            if self._has_renewed:
                return True  # One for a request: the next one that needs it has it bought.
            self._has_renewed = True
            yield from self._renew(held)
        if answer.code in {PassEnded.code, PassNotValid.code}:
            self._state.passes.end(held.pass_id, answer.code)
        return answer.code in {PassEnded.code, PassNotValid.code, PassNotCovering.code}

    def _prove(self, held: HeldPass, answer: Answer) -> None:
        """Sign the nonce, unless another program has got the pass back already."""
        current = self._held()
        if current is not None and current.token != held.token:
            return
        try:
            nonce = parse_bytes32(answer.problem.get("nonce"), "nonce")
            entry = self._state.channel(held.channel_id)
        except (InputError, NotFound):
            self._refused.add(held.token)
            return
        place = proof_place(held.channel_id, held.pass_id, nonce)
        self._proof = signed_for(self._terms, entry, place)

    def _renew(self, held: HeldPass) -> Generator[Step, Any, None]:
        """Buy the same once more for what it cost before at most. Whoever tries again, also another
        program, has the same key: it is bought once.
        """
        url = f"{held.origin}{PLACE}passes/{held.plan}"
        key = str(uuid.uuid5(uuid.UUID(bytes=held.pass_id), "renew"))
        try:
            bought = yield from self._buy(self._terms_for(held), url, key)
        except NetworkError:
            raise
        except ChannelPayError:
            return  # Over budget, say: the page itself may still be paid for.
        if bought is None:
            return
        answer, channel_id = bought
        if answer.shown is not None:
            passes = self._state.passes
            passes.add(held.renewed(answer.shown, channel_id, passes.now()))

    def _terms_for(self, held: HeldPass) -> Terms:
        """What was agreed to: its token, and no more than it cost."""
        token = self._state.channel(held.channel_id).channel.token
        limits = self._terms.limits.get(token)
        if limits is not None:
            limits = replace(limits, price_max=held.price, metered_max=None)
        allowed = {} if limits is None else {token: limits}
        return replace(self._terms, limits=allowed, confirm=never)


def _after(held: HeldPass, state: PassState) -> HeldPass:
    return held if state.left is None else replace(held, left=state.left)
