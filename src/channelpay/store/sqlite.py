"""The books in one SQLite file: WAL and synchronous=FULL, so that what was committed stays.

A second process may use the same file; each waits for the other's transaction up to
``BUSY_SECONDS``.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import TypeVar

from channelpay.errors import StoreUnavailable
from channelpay.protocol.entries import Change, Entries, EntryKey, EntryState
from channelpay.protocol.rules import ChannelRecord, Order, Payment
from channelpay.protocol.transactions import Outgoing, Signed, TransactionStatus
from channelpay.protocol.types import Address, Channel, ChannelId, Voucher
from channelpay.store.base import (
    Answer,
    ChainView,
    Clock,
    CommitObserver,
    StoredPayment,
    Totals,
)
from channelpay.store.ledger import Ledger
from channelpay.store.schema import migrate
from channelpay.store.writer import Writer

BUSY_SECONDS = 5.0

CHECKPOINT_PAGES = 4_000
"""Pages of 4 kB in the log before they go into the file: a page that many commits change goes there
once, and the file is synchronised less often than with SQLite's 1,000.
"""

T = TypeVar("T")

_log = getLogger(__name__)


class SqliteStore:
    """A :class:`~channelpay.store.base.Store` in one file, made with mode 0600 if it is not there.

    Raises :class:`~channelpay.errors.StoreUnavailable` if the file cannot be opened or read, and
    :class:`~channelpay.errors.ConfigError` for a file of an unknown version.
    """

    def __init__(
        self, path: Path, on_commit: CommitObserver | None = None, clock: Clock = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        with _disk_errors():
            _create_private(path)
            self._writing = _connect(path)
            migrate(self._writing)
            self._reading = _connect(path)
        self._ledger = Ledger(self._writing)
        self._reader = Ledger(self._reading)
        self._reader_lock = Lock()
        self._writer = Writer(self._transaction, self._writing.close, on_commit)

    def accept(self, orders: Sequence[Order]) -> Future[list[Answer]]:
        return self._writer.accept(orders)

    def release(self, payment_id: int, attempt: int) -> Future[Payment]:
        return self._writer.submit(lambda ledger: ledger.release(payment_id, attempt))

    def change_entries(self, keys: Sequence[EntryKey], change: Change) -> Future[Entries]:
        return self._writer.submit(lambda ledger: ledger.change_entries(keys, change))

    def begin_close(self, channel_id: ChannelId, voucher: Voucher | None) -> Future[ChannelRecord]:
        now = self._now_ms()
        return self._writer.submit(lambda ledger: ledger.begin_close(channel_id, voucher, now))

    def close_failed(self, channel_id: ChannelId) -> Future[ChannelRecord]:
        return self._writer.submit(lambda ledger: ledger.close_failed(channel_id))

    def add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView, *, in_doubt: bool = False
    ) -> Future[ChannelRecord]:
        now = self._now_ms()
        record = ChannelRecord(channel_id, channel, view.state, in_doubt=in_doubt)
        return self._writer.submit(lambda ledger: ledger.add_channel(record, view, now))

    def update_chain(
        self, channel_id: ChannelId, view: ChainView, *, rewound: bool = False
    ) -> Future[ChannelRecord]:
        now = self._now_ms()
        return self._writer.submit(
            lambda ledger: ledger.update_chain(channel_id, view, now, rewound=rewound)
        )

    def mark_in_doubt(self) -> Future[int]:
        return self._writer.submit(lambda ledger: ledger.mark_in_doubt())

    def take_lease(self, name: str, holder: str, seconds: float) -> Future[bool]:
        # The clock is read inside the transaction: it may have waited for another one's.
        return self._writer.submit(
            lambda ledger: ledger.journal.take_lease(name, holder, seconds, self._clock())
        )

    def drop_lease(self, name: str, holder: str) -> Future[None]:
        return self._writer.submit(lambda ledger: ledger.journal.drop_lease(name, holder))

    def journal(self, outgoing: Outgoing) -> Future[Outgoing]:
        return self._writer.submit(lambda ledger: ledger.journal.journal(outgoing))

    def add_broadcast(self, number: int, signed: Signed) -> Future[Outgoing]:
        return self._writer.submit(lambda ledger: ledger.journal.add_broadcast(number, signed))

    def finish(
        self,
        number: int,
        status: TransactionStatus,
        mined: bytes | None,
        block_number: int | None,
        block_hash: bytes | None,
        fee_wei: int | None,
    ) -> Future[Outgoing]:
        end = (status, mined, block_number, block_hash, fee_wei)
        return self._writer.submit(lambda ledger: ledger.journal.finish(number, *end))

    def pending(self, chain_id: int, sender: Address) -> list[Outgoing]:
        with self._read() as ledger:
            return ledger.journal.pending(chain_id, sender)

    def transactions(self, limit: int = 100) -> list[Outgoing]:
        with self._read() as ledger:
            return ledger.journal.transactions(limit)

    def save_cursor(self, name: str, position: str) -> Future[None]:
        return self._writer.submit(lambda ledger: ledger.save_cursor(name, position))

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        with self._read() as ledger:
            return ledger.record(channel_id)

    def records(self) -> list[ChannelRecord]:
        return self._read_all(lambda ledger: ledger.records())

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        with self._read() as ledger:
            return ledger.payments(channel_id)

    def payment(self, channel_id: ChannelId, idempotency_key: str) -> StoredPayment | None:
        with self._read() as ledger:
            return ledger.payment(channel_id, idempotency_key)

    def payment_numbered(self, payment_id: int) -> StoredPayment | None:
        with self._read() as ledger:
            return ledger.payment_numbered(payment_id)

    def entry(self, key: EntryKey) -> EntryState | None:
        with self._read() as ledger:
            return ledger.entry(key)

    def entries(
        self, kind: str, prefix: bytes = b"", after: bytes = b"", limit: int = 1_000
    ) -> list[tuple[EntryKey, EntryState]]:
        return self._read_all(lambda ledger: ledger.entries(kind, prefix, after, limit))

    def owed(self) -> list[ChannelRecord]:
        return self._read_all(lambda ledger: ledger.owed())

    def seen_after(self, block: int) -> list[ChannelRecord]:
        return self._read_all(lambda ledger: ledger.seen_after(block))

    def unsettled(self) -> dict[Address, int]:
        return self._read_all(lambda ledger: ledger.unsettled())

    def totals(self) -> dict[Address, Totals]:
        return self._read_all(lambda ledger: ledger.totals())

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    @property
    def remote(self) -> bool:
        return False

    def cursor(self, name: str) -> str | None:
        with self._read() as ledger:
            return ledger.cursor(name)

    def close(self) -> None:
        self._writer.close()
        with self._reader_lock:
            self._reading.close()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    @contextmanager
    def _read(self) -> Iterator[Ledger]:
        with self._reader_lock, _disk_errors():
            yield self._reader

    def _read_all(self, query: Callable[[Ledger], T]) -> T:
        """What takes long: on a connection of its own, so that no request waits for it."""
        with _disk_errors(), closing(_connect(self._path)) as connection:
            return query(Ledger(connection))

    @contextmanager
    def _transaction(
        self, _orders: Sequence[Order], _works: Sequence[Callable[[Ledger], object]]
    ) -> Iterator[Ledger]:
        try:
            self._writing.execute("BEGIN IMMEDIATE")
            self._ledger.begin()
            yield self._ledger
            self._writing.execute("COMMIT")
        except BaseException:
            self._ledger.forget()
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        try:
            if self._writing.in_transaction:
                self._writing.execute("ROLLBACK")
        except sqlite3.Error:
            _log.exception("the transaction could not be rolled back")


def _create_private(path: Path) -> None:
    """SQLite gives the files beside it the mode of this one. A file that is there is not opened: to
    close it again would end the locks of all stores that this process has on it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute("PRAGMA foreign_keys = ON")
    # For the pages that a statement of many rows would have to restore if it failed: else they are
    # written to a file in /var/tmp, as often as to the log.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"the books cannot be read: {error}") from error
