"""Waiting for a payee that asks for time, without I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from channelpay.payer.steps import Answer, Send, Step, Wait

DEADLINE_SECONDS = 180.0
"""After that nobody waits longer: for confirmations, a busy payee, or another open."""
RETRY_AFTER_SECONDS = 1.0
"""How long to wait where the payee does not say."""


class Patience:
    """That of one exchange, which begins now. Each pause is at least ``growth`` times as long as
    the one before it; ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, growth: float = 1.0) -> None:
        self._clock = clock
        self._deadline = clock() + DEADLINE_SECONDS
        self._pause_seconds_min = RETRY_AFTER_SECONDS
        self._growth = growth

    @property
    def is_over(self) -> bool:
        return self._clock() >= self._deadline

    def pause(self, answer: Answer) -> Generator[Step, Any, bool]:
        """Wait as the answer asks; False if it does not, or for too long."""
        asked = answer.retry_after_seconds or RETRY_AFTER_SECONDS
        seconds = max(asked, self._pause_seconds_min)
        if not asks_to_wait(answer) or self._clock() + seconds > self._deadline:
            return False
        self._pause_seconds_min *= self._growth
        yield Wait(seconds)
        return True

    def send(self, headers: dict[str, str]) -> Generator[Step, Any, Answer]:
        """Show the payee a credential, which buys nothing, until it asks to wait no longer; the
        last answer.
        """
        answer: Answer = yield Send(headers, bare=True)
        while (yield from self.pause(answer)):
            answer = yield Send(headers, bare=True)
        return answer


def asks_to_wait(answer: Answer) -> bool:
    if answer.status == 503:
        return answer.retry_after is not None
    return answer.status == 402 and answer.code == "too-few-confirmations"
