"""What an application yields, run beside its reader, so that something of ours can get out while
the application waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextvars import copy_context
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Generic, NamedTuple, TypeVar

PARTS_AHEAD = 2
"""How far the producer may be ahead of the reader: what it charges for is soon sent."""

T = TypeVar("T")


class _Failure(NamedTuple):
    error: BaseException


class _End:
    """The producer is done."""


class Ahead(Generic[T]):
    """What ``parts`` yields, in a thread of its own; :meth:`put` adds something from any thread.
    For one reader, who closes it: then the producer is closed in its thread, and waited for.
    """

    def __init__(self, parts: Generator[T, None, None]) -> None:
        self._parts = parts
        self._room = Semaphore(PARTS_AHEAD)
        self._ready: SimpleQueue[T | _Failure | _End] = SimpleQueue()
        self._is_closed = False
        context = copy_context()
        self._thread = Thread(
            target=context.run, args=(self._produce,), name="channelpay-stream", daemon=True
        )

    def put(self, part: T) -> bool:
        """Add a part behind those that are there; False if the reader is gone."""
        if not self._is_closed:
            self._ready.put(part)
        return not self._is_closed

    def __iter__(self) -> Iterator[T]:
        self._thread.start()
        while not isinstance(part := self._ready.get(), _End):
            if isinstance(part, _Failure):
                raise part.error
            self._room.release()
            yield part

    def close(self) -> None:
        """The reader takes no more."""
        self._is_closed = True
        self._room.release()
        if self._thread.ident is not None:
            self._thread.join()

    def _produce(self) -> None:
        last: _Failure | _End = _End()
        try:
            for part in self._parts:
                self._room.acquire()
                if not self.put(part):
                    break
            self._parts.close()
        except BaseException as error:  # noqa: BLE001  it is raised to the reader
            last = _Failure(error)
        self._ready.put(last)


class AsyncAhead(Generic[T]):
    """:class:`Ahead` in a task of its own. Made and read on one event loop."""

    def __init__(self, parts: AsyncGenerator[T, None]) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(PARTS_AHEAD)
        self._ready: asyncio.Queue[T | _End] = asyncio.Queue()
        self._is_closed = False

    def put(self, part: T) -> bool:
        """Add a part behind those that are there; False if the reader is gone."""
        if not self._is_closed:
            self._loop.call_soon_threadsafe(self._ready.put_nowait, part)
        return not self._is_closed

    async def __aiter__(self) -> AsyncIterator[T]:
        producing = asyncio.create_task(self._produce())
        try:
            while not isinstance(part := await self._ready.get(), _End):
                self._room.release()
                yield part
            await producing
        finally:
            self._is_closed = True
            producing.cancel()
            await asyncio.wait([producing])

    async def _produce(self) -> None:
        try:
            async for part in self._parts:
                await self._room.acquire()
                self.put(part)
        finally:
            await self._parts.aclose()
            self._loop.call_soon(self._ready.put_nowait, _End())
