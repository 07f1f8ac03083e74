"""The books in one SQLite file: WAL, synchronous=FULL, one writer thread that commits in groups.

Everything that waits when the writer comes round goes into one transaction and is answered after
its commit: one fsync for many requests. A second process may use the same file; each waits for the
other's transaction up to ``BUSY_SECONDS``.
"""

from __future__ import annotations

import os
import queue
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Generic, TypeVar

from channelpay.errors import ChannelPayError, StoreUnavailable
from channelpay.protocol.rules import ChannelRecord, Purchase
from channelpay.protocol.types import Channel, ChannelId, Voucher
from channelpay.store.base import Accepted, ChainView, StoredPayment
from channelpay.store.ledger import Ledger
from channelpay.store.schema import migrate

BUSY_SECONDS = 5.0
WAITING_MAX = 10_000
"""Jobs that may wait for the writer; more are refused at once."""
COMMIT_JOBS_MAX = 1_000
"""Jobs in one transaction, so that none waits for an endless one."""

T = TypeVar("T")
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Job(Generic[T]):
    """Something to do inside the writer's next transaction."""

    work: Callable[[Ledger], T]
    future: Future[T] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a job came to; told to its caller only after the commit."""

    job: _Job[Any]
    result: Any = None
    refusal: ChannelPayError | None = None

    def tell(self) -> None:
        if self.refusal is None:
            self.job.future.set_result(self.result)
        else:
            self.job.future.set_exception(self.refusal)


class SqliteStore:
    """A :class:`~channelpay.store.base.Store` in one file, made with mode 0600 if it is not there.

    Raises :class:`~channelpay.errors.StoreUnavailable` if the file cannot be opened or read, and
    :class:`~channelpay.errors.ConfigError` for a file of an unknown version.
    """

    def __init__(self, path: Path) -> None:
        with _disk_errors():
            _create_private(path)
            self._writing = _connect(path)
            migrate(self._writing)
            self._reading = _connect(path)
        self._reader = Ledger(self._reading)
        self._reader_lock = Lock()
        self._closing_lock = Lock()
        self._closed = False
        self._jobs: queue.Queue[_Job[Any] | None] = queue.Queue(WAITING_MAX)
        self._writer = Thread(target=self._write, name="channelpay-store", daemon=True)
        self._writer.start()

    def accept(self, purchase: Purchase) -> Future[Accepted]:
        return self._submit(lambda ledger: ledger.accept(purchase))

    def release(self, payment_id: int) -> Future[ChannelRecord]:
        return self._submit(lambda ledger: ledger.release(payment_id))

    def begin_close(self, channel_id: ChannelId, voucher: Voucher | None) -> Future[ChannelRecord]:
        return self._submit(lambda ledger: ledger.begin_close(channel_id, voucher))

    def close_failed(self, channel_id: ChannelId) -> Future[ChannelRecord]:
        return self._submit(lambda ledger: ledger.close_failed(channel_id))

    def add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView
    ) -> Future[ChannelRecord]:
        return self._submit(lambda ledger: ledger.add_channel(channel_id, channel, view))

    def update_chain(self, channel_id: ChannelId, view: ChainView) -> Future[ChannelRecord]:
        return self._submit(lambda ledger: ledger.update_chain(channel_id, view))

    def save_cursor(self, name: str, position: str) -> Future[None]:
        return self._submit(lambda ledger: ledger.save_cursor(name, position))

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        with self._read() as ledger:
            return ledger.record(channel_id)

    def records(self) -> list[ChannelRecord]:
        with self._read() as ledger:
            return ledger.records()

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        with self._read() as ledger:
            return ledger.payments(channel_id)

    def cursor(self, name: str) -> str | None:
        with self._read() as ledger:
            return ledger.cursor(name)

    def close(self) -> None:
        with self._closing_lock:
            if self._closed:
                return
            self._closed = True
        self._jobs.put(None)
        self._writer.join()
        with self._reader_lock:
            self._reading.close()

    def _submit(self, work: Callable[[Ledger], T]) -> Future[T]:
        job = _Job(work)
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

    @contextmanager
    def _read(self) -> Iterator[Ledger]:
        with self._reader_lock, _disk_errors():
            yield self._reader

    def _write(self) -> None:
        """The writer thread: commit whatever waits, until None comes."""
        ledger = Ledger(self._writing)
        while (job := self._jobs.get()) is not None:
            jobs = [job, *self._waiting()]
            self._commit(ledger, [job for job in jobs if job.future.set_running_or_notify_cancel()])
        self._writing.close()

    def _waiting(self) -> Iterator[_Job[Any]]:
        for _ in range(COMMIT_JOBS_MAX - 1):
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is None:
                self._jobs.put(None)
                return
            yield job

    def _commit(self, ledger: Ledger, jobs: list[_Job[Any]]) -> None:
        """One transaction for all jobs. Nobody is answered before its commit, also no refusal:
        what it was decided on might not come to be.
        """
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            outcomes = [_run(job, ledger) for job in jobs]
            self._writing.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  whatever it is, nothing was committed
            self._roll_back()
            _fail(jobs, error)
        else:
            for outcome in outcomes:
                outcome.tell()

    def _roll_back(self) -> None:
        try:
            if self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
        except sqlite3.Error:
            _log.exception("the transaction could not be rolled back")


def _run(job: _Job[T], ledger: Ledger) -> _Outcome:
    try:
        return _Outcome(job, result=job.work(ledger))
    except ChannelPayError as refusal:
        return _Outcome(job, refusal=refusal)


def _fail(jobs: list[_Job[Any]], error: Exception) -> None:
    _log.error("the books could not be written", exc_info=error)
    for job in jobs:
        failure = StoreUnavailable(f"the books could not be written ({type(error).__name__})")
        failure.__cause__ = error
        job.future.set_exception(failure)


def _create_private(path: Path) -> None:
    """SQLite gives the files beside it the mode of this one."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"the books cannot be read: {error}") from error
