"""Calls that block (the chain's node) kept off the event loop, a bounded number of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

from channelpay.errors import NetworkError

T = TypeVar("T")


class BoundedThreads:
    """``workers`` calls run at a time, and ``waiting_max`` more may wait for their turn."""

    def __init__(self, name: str, workers: int, waiting_max: int) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
        self._places = BoundedSemaphore(workers + waiting_max)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Start ``work`` in its turn. Raises :class:`NetworkError` if no place is free."""
        if not self._places.acquire(blocking=False):
            raise NetworkError("too many requests wait for the chain")
        future = self._pool.submit(work)
        future.add_done_callback(lambda _: self._places.release())
        return future

    async def run(self, work: Callable[[], T]) -> T:
        """Wait for what ``work`` returns or raises. A caller that is cancelled does not stop a call
        that runs already.
        """
        return await asyncio.wrap_future(self.submit(work))

    def close(self) -> None:
        """Let running calls finish; those that still wait are dropped."""
        self._pool.shutdown(cancel_futures=True)
