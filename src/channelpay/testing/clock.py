"""A clock that stands until a test moves it."""

from __future__ import annotations

START = 1_800_000_000.0
"""In January 2027: any time that is the same in every run."""


class FakeClock:
    """Unix seconds, wherever a ``clock`` such as :func:`time.time` is taken. Never goes back."""

    def __init__(self, now: float = START) -> None:
        self._now = float(now)

    def __call__(self) -> float:
        return self._now

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the new time. Raises :class:`ValueError` for less than zero."""
        if seconds < 0:
            raise ValueError("a clock never goes back")
        self._now += seconds
        return self._now

    def __repr__(self) -> str:
        return f"FakeClock({self._now})"
