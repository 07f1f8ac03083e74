"""The event loop's door to the store: what the requests of a few turns of the loop want is handed
in together, and comes back with one wake-up. The store's thread and the loop share one interpreter,
and small commits cost them more than what is in them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from logging import getLogger
from typing import TypeVar

from channelpay.errors import ChannelPayError, StoreUnavailable
from channelpay.observe import Observer
from channelpay.payee.acceptance import Guard
from channelpay.payee.selling.deliveries import Deliveries
from channelpay.payee.threads import BoundedThreads
from channelpay.protocol.entries import Change, Entries, EntryKey
from channelpay.protocol.rules import Charge, Order, Outcome, Payment
from channelpay.protocol.types import ChannelId
from channelpay.store import Accepted, Answer, Store

READS_WAITING_MAX = 1_000
TOGETHER_MAX = 128
"""Orders that are handed in even if more come."""
POLL_SECONDS = 0.2
"""How often a stream that waits for a voucher looks whether another worker took one."""

T = TypeVar("T")
_Waiting = list[tuple[Order, "asyncio.Future[Accepted]"]]
_log = getLogger(__name__)


class Register:
    """Takes orders on one event loop. ``observer`` and ``guard`` hear of what is charged."""

    def __init__(self, store: Store, observer: Observer, guard: Guard) -> None:
        self._store = store
        self._observer = observer
        self._guard = guard
        self._waiting: _Waiting = []
        self._raised: dict[ChannelId, list[asyncio.Future[None]]] = {}
        # Filled on the store's thread.
        self._owed: deque[Accepted] = deque()
        self._reads = BoundedThreads("channelpay-books", 2, READS_WAITING_MAX)
        self.deliveries: Deliveries = Deliveries()

    async def accept(self, order: Order) -> Accepted:
        """See :meth:`channelpay.store.base.Store.accept`; a refusal is raised.

        If the caller is cancelled and its order was taken nevertheless, it is given back. A charge
        stays: what the response delivered before it was paid for by the same payment.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Accepted] = loop.create_future()
        self._waiting.append((order, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._hand_in, loop, 0)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                self._take_back(order, future.result())
            raise

    async def read(self, work: Callable[[Store], T]) -> T:
        """What the store says, in a thread if it is on another machine."""
        if not self._store.remote:
            return work(self._store)
        return await self._reads.run(lambda: work(self._store))

    async def change(self, keys: Sequence[EntryKey], change: Change) -> Entries:
        """See :meth:`channelpay.store.base.Store.change_entries`."""
        return await asyncio.wrap_future(self._store.change_entries(keys, change))

    def note(self, keys: Sequence[EntryKey], change: Change) -> None:
        """:meth:`change` from any thread, where nobody waits for it and it may be lost."""
        self._store.change_entries(keys, change).add_done_callback(_log_failure)

    def release(self, accepted: Accepted) -> Future[Payment] | None:
        """Give the charge back that a request was not served for; None if there is none. If the
        books cannot be written now, it is given back as soon as they can.
        """
        if accepted.payment_id is None:
            return None
        released = self._store.release(accepted.payment_id, accepted.attempt)
        released.add_done_callback(lambda done: self._released(accepted, done))
        return released

    async def voucher_above(self, channel_id: ChannelId, accepted: int, seconds: float) -> bool:
        """Wait until a higher voucher than ``accepted`` came, to whichever worker; False if none
        came in time, or the channel is gone.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            await self._woken(channel_id)
            record = await self.read(lambda store: store.record(channel_id))
            if record is None:
                return False
            if record.accepted > accepted:
                return True
        return False

    def close(self) -> None:
        self._release_owed()
        self._reads.close()

    async def _woken(self, channel_id: ChannelId) -> None:
        """A voucher was taken here, or it is time to look."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._raised.setdefault(channel_id, [])
        waiting.append(future)
        try:
            await asyncio.wait([future], timeout=POLL_SECONDS)
        finally:
            waiting.remove(future)
            if not waiting:
                self._raised.pop(channel_id, None)

    def _hand_in(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """Not while each turn of the loop brings more than there was ``before``."""
        number = len(self._waiting)
        if before < number < TOGETHER_MAX:
            loop.call_soon(self._hand_in, loop, number)
            return
        waiting, self._waiting = self._waiting, []
        done = self._store.accept([order for order, _ in waiting])
        # A callback that named ``done`` would keep it, and all that waits, for the collector.
        done.add_done_callback(lambda end: loop.call_soon_threadsafe(self._tell, waiting, end))

    def _tell(self, waiting: _Waiting, done: Future[list[Answer]]) -> None:
        error = done.exception()
        answers = [_fresh(error) for _ in waiting] if error is not None else done.result()
        for (order, future), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, Accepted):
                self._tell_accepted(order, future, answer)
            elif not future.cancelled():
                future.set_exception(answer)
        if error is None:
            self._release_owed()

    def _tell_accepted(
        self, order: Order, future: asyncio.Future[Accepted], accepted: Accepted
    ) -> None:
        for waiting in self._raised.get(accepted.record.channel_id, ()):
            if not waiting.done():
                waiting.set_result(None)
        self._observe(accepted)
        if future.cancelled():
            self._take_back(order, accepted)
        else:
            future.set_result(accepted)

    def _observe(self, accepted: Accepted) -> None:
        """The observer may be the site's own: what it raises is no matter of those who wait."""
        token = accepted.record.channel.token
        self._guard.charged(token, accepted.charged)
        try:
            if accepted.is_new:
                self._observer.accepted(token)
            if accepted.charged:
                self._observer.charged(token, accepted.charged)
        except Exception:  # noqa: BLE001
            _log.exception("the observer failed")

    def _take_back(self, order: Order, accepted: Accepted) -> None:
        """Nobody waits for it any more."""
        if not isinstance(order, Charge):
            self.release(accepted)

    def _release_owed(self) -> None:
        """Try again what failed; what fails once more is owed once more."""
        for _ in range(len(self._owed)):
            self.release(self._owed.popleft())

    def _released(self, accepted: Accepted, done: Future[Payment]) -> None:
        error = done.exception()
        if isinstance(error, StoreUnavailable):
            self._owed.append(accepted)
            _log.error("a charge cannot be released yet: %s", error.detail)
        elif error is not None:
            detail = error.detail if isinstance(error, ChannelPayError) else type(error).__name__
            _log.error("a charge could not be released, and stands: %s", detail)
        elif done.result().outcome is Outcome.RELEASED:
            self._observer.released(accepted.record.channel.token, done.result().price)


def _log_failure(done: Future[Entries]) -> None:
    if (error := done.exception()) is not None:
        _log.error("what was to be noted in the books is lost: %s", error)


def _fresh(error: BaseException) -> StoreUnavailable:
    """An exception for each who waits: a traceback belongs to one of them."""
    detail = error.detail if isinstance(error, ChannelPayError) else type(error).__name__
    failure = StoreUnavailable(detail)
    failure.__cause__ = error
    return failure
