"""The one thread through which a store's writes go.

Everything that waits when it comes round goes into one transaction and is answered after its
commit: one sync of the disk for many requests.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby
from logging import getLogger
from threading import Lock, Thread
from typing import Any, Generic, Protocol, TypeVar

from channelpay.errors import ChannelPayError, StoreUnavailable
from channelpay.protocol.rules import Order
from channelpay.store.base import Answer, CommitObserver

WAITING_MAX = 10_000
"""Jobs that may wait for the writer; more are refused at once."""
COMMIT_ORDERS_MAX = 1_000
"""Orders in one transaction, so that none waits for an endless one; a job is never divided."""

_log = getLogger(__name__)


class Ledger(Protocol):
    """What a job may do inside a transaction."""

    def accept(self, orders: Sequence[Order]) -> list[Answer]: ...


L = TypeVar("L", bound=Ledger)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job(Generic[L, T]):
    """``work``, or orders to accept, for the writer's next transaction."""

    work: Callable[[L], T] | None
    orders: Sequence[Order] = ()
    future: Future[T] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a job came to; told to its caller only after the commit."""

    future: Future[Any]
    result: Any = None
    refusal: ChannelPayError | None = None

    def tell(self) -> None:
        if self.refusal is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.refusal)


class Writer(Generic[L]):
    """Runs jobs in transactions of ``transaction``: a context manager that gives the ledger, and
    commits at its end or, after an exception, rolls back. It is told beforehand which orders and
    which work the transaction is for.

    ``finish`` is called at the end, on the writer's thread.
    """

    def __init__(
        self,
        transaction: Callable[
            [Sequence[Order], Sequence[Callable[[L], Any]]], AbstractContextManager[L]
        ],
        finish: Callable[[], None],
        on_commit: CommitObserver | None = None,
    ) -> None:
        self._transaction = transaction
        self._finish = finish
        self._on_commit = on_commit
        self._jobs: queue.Queue[_Job[L, Any] | None] = queue.Queue(WAITING_MAX)
        self._closing_lock = Lock()
        self._closed = False
        self._thread = Thread(target=self._run, name="channelpay-store", daemon=True)
        self._thread.start()

    def accept(self, orders: Sequence[Order]) -> Future[list[Answer]]:
        """See :meth:`channelpay.store.base.Store.accept`."""
        job: _Job[L, list[Answer]] = _Job(None, orders)
        return self._submit(job)

    def submit(self, work: Callable[[L], T]) -> Future[T]:
        """Do ``work`` inside the next transaction; an error of ours that it raises is its caller's
        alone.
        """
        return self._submit(_Job(work))

    @property
    def waiting(self) -> int:
        return self._jobs.qsize()

    def close(self) -> None:
        """Finish what was handed in. Closing twice is fine."""
        with self._closing_lock:
            if self._closed:
                return
            self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _submit(self, job: _Job[L, T]) -> Future[T]:
        # The lock keeps a job from slipping in behind the writer's last one.
        with self._closing_lock:
            if self._closed:
                job.future.set_exception(StoreUnavailable("the books are closed"))
                return job.future
            try:
                self._jobs.put_nowait(job)
            except queue.Full:
                job.future.set_exception(StoreUnavailable("too many payments wait for the disk"))
        return job.future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job, *self._waiting_jobs(len(job.orders))]
            self._commit([job for job in jobs if job.future.set_running_or_notify_cancel()])
        self._finish()

    def _waiting_jobs(self, orders: int) -> Iterator[_Job[L, Any]]:
        while orders < COMMIT_ORDERS_MAX:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            orders += max(1, len(job.orders))
            yield job

    def _commit(self, jobs: list[_Job[L, Any]]) -> None:
        """One transaction for all jobs. Nobody is answered before its commit, also no refusal:
        what it was decided on might not come to be.
        """
        started = time.perf_counter()
        try:
            orders = [order for job in jobs for order in job.orders]
            works = [job.work for job in jobs if job.work is not None]
            with self._transaction(orders, works) as ledger:
                outcomes = list(_outcomes(jobs, ledger))
        except Exception as error:  # noqa: BLE001  whatever it is, nothing was committed
            _fail(jobs, error)
            return
        if self._on_commit is not None:
            self._on_commit(len(orders), time.perf_counter() - started)
        for outcome in outcomes:
            outcome.tell()


def _outcomes(jobs: list[_Job[L, Any]], ledger: L) -> Iterator[_Outcome]:
    """In their order; neighbours that accept orders are one call."""
    for work, group in groupby(jobs, key=lambda job: job.work):
        if work is None:
            yield from _accepted(list(group), ledger)
        else:
            yield from (_worked(job.future, work, ledger) for job in group)


def _accepted(jobs: list[_Job[L, Any]], ledger: L) -> Iterator[_Outcome]:
    answers = ledger.accept([order for job in jobs for order in job.orders])
    begin = 0
    for job in jobs:
        end = begin + len(job.orders)
        yield _Outcome(job.future, answers[begin:end])
        begin = end


def _worked(future: Future[Any], work: Callable[[L], Any], ledger: L) -> _Outcome:
    try:
        return _Outcome(future, work(ledger))
    except ChannelPayError as refusal:
        return _Outcome(future, refusal=refusal)


def _fail(jobs: list[_Job[L, Any]], error: Exception) -> None:
    _log.error("the books could not be written", exc_info=error)
    for job in jobs:
        failure = StoreUnavailable(f"the books could not be written ({type(error).__name__})")
        failure.__cause__ = error
        job.future.set_exception(failure)
