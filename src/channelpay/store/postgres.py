"""The books in PostgreSQL, for sites of several processes or hosts: any number of stores may use
one database at the same time.

A store has one connection for its writer, whose transactions take two round trips each, and one for
reads. Both are made anew when they are lost; meanwhile there is
:class:`~channelpay.errors.StoreUnavailable`.

Where the connection is lost while a commit is under way, nobody knows whether it happened, and its
callers get StoreUnavailable as well. That is safe. A purchase that was stored is found when the
request is repeated with its Idempotency-Key, and is not charged again; a voucher that was stored
promises no more than its payer signed; a charge of a metered response names its total; and a close
that was begun may be begun once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from logging import getLogger
from threading import Lock
from typing import Any, Final, TypeVar

import psycopg
from psycopg import Connection
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from channelpay.errors import ConfigError, StoreUnavailable
from channelpay.protocol.entries import Change, Entries, EntryKey, EntryState
from channelpay.protocol.rules import ChannelRecord, Order, Payment
from channelpay.protocol.transactions import Outgoing, Signed, TransactionStatus
from channelpay.protocol.types import Address, Channel, ChannelId, Voucher
from channelpay.store import postgres_journal
from channelpay.store.base import Answer, ChainView, CommitObserver, StoredPayment, Totals
from channelpay.store.postgres_journal import Journal
from channelpay.store.postgres_ledger import (
    AddChannel,
    BeginClose,
    Books,
    ChangeEntries,
    CloseFailed,
    Reader,
    Release,
    SaveCursor,
    UpdateChain,
    WithJournal,
    load,
    mark_in_doubt,
    write,
)
from channelpay.store.postgres_schema import migrate
from channelpay.store.writer import Writer

LOCK_SECONDS: Final = 5
"""How long a transaction waits for the channels that another one holds."""
STATEMENT_SECONDS: Final = 10
"""How long a statement of the writer takes at most, and how long the server keeps the locks of a
transaction whose client has gone silent.
"""
READ_SECONDS: Final = 60
"""How long a read takes at most: some read every channel."""

_CONNECTION: Final = {
    "application_name": "channelpay",
    "connect_timeout": "5",
    "client_encoding": "UTF8",
    # A server that vanished is noticed within about ten seconds.
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
    # After a failover the old primary may still answer, and only read.
    "target_session_attrs": "read-write",
}
"""What a URL may say otherwise."""

_SESSION: Final = (
    f"SET lock_timeout = '{LOCK_SECONDS}s'",
    f"SET idle_in_transaction_session_timeout = '{STATEMENT_SECONDS}s'",
    # Waiting for a standby to have applied a commit, too, is more than is needed, and fine.
    (
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') <> 'remote_apply'"
    ),
)
_WRITING: Final = (
    f"SET statement_timeout = '{STATEMENT_SECONDS}s'",
    # Each statement of the writer looks rows up by an index, and is planned once. A plan that was
    # made while a table was small must not read all of it once it is large.
    "SET plan_cache_mode = 'force_generic_plan'",
    "SET random_page_cost = 0",
)
_READING: Final = (
    f"SET statement_timeout = '{READ_SECONDS}s'",
    # Which plan is right depends on the block that is asked for.
    "SET plan_cache_mode = 'force_custom_plan'",
)

T = TypeVar("T")
_log = getLogger(__name__)


class PostgresStore:
    """A :class:`~channelpay.store.base.Store` in the database at a URL of libpq's form,
    ``postgresql://user@host:port/database?setting=value``. Its tables are named ``channelpay_…``,
    in the first schema of the connection's search path, and made if they are not there.

    Raises :class:`~channelpay.errors.StoreUnavailable` if the database cannot be reached, and
    :class:`~channelpay.errors.ConfigError` for a malformed URL and for books of an unknown version.
    """

    def __init__(self, url: str, on_commit: CommitObserver | None = None) -> None:
        self._conninfo = _conninfo(url)
        try:
            self._writing, self._reading = self._opened()
        except psycopg.Error as error:
            raise StoreUnavailable(f"the books cannot be opened: {_one_line(error)}") from error
        self._reader_lock = Lock()
        self._closed = False
        self._writer = Writer(self._transaction, self._finish, on_commit)

    def accept(self, orders: Sequence[Order]) -> Future[list[Answer]]:
        return self._writer.accept(orders)

    def release(self, payment_id: int, attempt: int) -> Future[Payment]:
        return self._writer.submit(Release(payment_id, attempt))

    def change_entries(self, keys: Sequence[EntryKey], change: Change) -> Future[Entries]:
        return self._writer.submit(ChangeEntries(keys, change))

    def begin_close(self, channel_id: ChannelId, voucher: Voucher | None) -> Future[ChannelRecord]:
        return self._writer.submit(BeginClose(channel_id, voucher, _now_ms()))

    def close_failed(self, channel_id: ChannelId) -> Future[ChannelRecord]:
        return self._writer.submit(CloseFailed(channel_id))

    def add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView, *, in_doubt: bool = False
    ) -> Future[ChannelRecord]:
        return self._writer.submit(AddChannel(channel_id, channel, view, _now_ms(), in_doubt))

    def update_chain(
        self, channel_id: ChannelId, view: ChainView, *, rewound: bool = False
    ) -> Future[ChannelRecord]:
        return self._writer.submit(UpdateChain(channel_id, view, _now_ms(), rewound))

    def mark_in_doubt(self) -> Future[int]:
        marked: Future[int] = Future()
        try:
            with _read_errors(), closing(self._connect(_READING)) as connection:
                marked.set_result(mark_in_doubt(connection))
        except StoreUnavailable as error:
            marked.set_exception(error)
        return marked

    def take_lease(self, name: str, holder: str, seconds: float) -> Future[bool]:
        return self._journal(lambda journal: journal.take_lease(name, holder, seconds))

    def drop_lease(self, name: str, holder: str) -> Future[None]:
        return self._journal(lambda journal: journal.drop_lease(name, holder))

    def journal(self, outgoing: Outgoing) -> Future[Outgoing]:
        return self._journal(lambda journal: journal.journal(outgoing))

    def add_broadcast(self, number: int, signed: Signed) -> Future[Outgoing]:
        return self._journal(lambda journal: journal.add_broadcast(number, signed))

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
        return self._journal(lambda journal: journal.finish(number, *end))

    def pending(self, chain_id: int, sender: Address) -> list[Outgoing]:
        return self._read(
            lambda reader: postgres_journal.pending(reader.connection, chain_id, sender)
        )

    def transactions(self, limit: int = 100) -> list[Outgoing]:
        return self._read(lambda reader: postgres_journal.transactions(reader.connection, limit))

    def save_cursor(self, name: str, position: str) -> Future[None]:
        return self._writer.submit(SaveCursor(name, position))

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        return self._read(lambda reader: reader.record(channel_id))

    def records(self) -> list[ChannelRecord]:
        return self._read(lambda reader: reader.records())

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        return self._read(lambda reader: reader.payments(channel_id))

    def payment(self, channel_id: ChannelId, idempotency_key: str) -> StoredPayment | None:
        return self._read(lambda reader: reader.payment(channel_id, idempotency_key))

    def payment_numbered(self, payment_id: int) -> StoredPayment | None:
        return self._read(lambda reader: reader.payment_numbered(payment_id))

    def entry(self, key: EntryKey) -> EntryState | None:
        return self._read(lambda reader: reader.entry(key))

    def entries(
        self, kind: str, prefix: bytes = b"", after: bytes = b"", limit: int = 1_000
    ) -> list[tuple[EntryKey, EntryState]]:
        return self._read(lambda reader: reader.entries(kind, prefix, after, limit))

    def owed(self) -> list[ChannelRecord]:
        return self._read_all(lambda reader: reader.owed())

    def seen_after(self, block: int) -> list[ChannelRecord]:
        return self._read(lambda reader: reader.seen_after(block))

    def unsettled(self) -> dict[Address, int]:
        return self._read_all(lambda reader: reader.unsettled())

    def totals(self) -> dict[Address, Totals]:
        return self._read_all(lambda reader: reader.totals())

    @property
    def waiting(self) -> int:
        return self._writer.waiting

    @property
    def remote(self) -> bool:
        return True

    def cursor(self, name: str) -> str | None:
        return self._read(lambda reader: reader.cursor(name))

    def close(self) -> None:
        self._writer.close()
        with self._reader_lock:
            self._closed = True
            self._reading.close()

    def _opened(self) -> tuple[Connection[Any], Connection[Any]]:
        with ExitStack() as after_failure:
            writing = after_failure.enter_context(closing(self._connect(_WRITING)))
            migrate(writing)
            reading = self._connect(_READING)
            after_failure.pop_all()
        return writing, reading

    def _read(self, query: Callable[[Reader], T]) -> T:
        with self._reader_lock, _read_errors():
            if self._closed:
                raise StoreUnavailable("the books are closed")
            try:
                return query(Reader(self._reading))
            except psycopg.Error:
                if not self._reading.closed:
                    raise
            # The server was restarted since the last read.
            self._reading = self._connect(_READING)
            return query(Reader(self._reading))

    def _read_all(self, query: Callable[[Reader], T]) -> T:
        """What takes long: on a connection of its own, so that no request waits for it."""
        with _read_errors(), closing(self._connect(_READING)) as connection:
            return query(Reader(connection))

    def _journal(self, work: Callable[[Journal], T]) -> Future[T]:
        return self._writer.submit(WithJournal(work))

    @contextmanager
    def _transaction(
        self, orders: Sequence[Order], works: Sequence[Callable[[Books], Any]]
    ) -> Iterator[Books]:
        """Whatever goes wrong, the connection goes, and with it the transaction; the next one
        begins on another connection.
        """
        try:
            books = self._load(orders, works)
            yield books
            write(self._writing, books)
        except BaseException:
            self._writing.close()
            raise

    def _load(self, orders: Sequence[Order], works: Sequence[Callable[[Books], Any]]) -> Books:
        if not self._writing.closed:
            try:
                return load(self._writing, orders, works)
            except psycopg.Error:
                if not self._writing.closed:
                    raise
        # It was closed after a failure, or the server was restarted since the last transaction.
        self._writing = self._connect(_WRITING)
        return load(self._writing, orders, works)

    def _finish(self) -> None:
        self._writing.close()

    def _connect(self, settings: Sequence[str]) -> Connection[Any]:
        connection = psycopg.connect(self._conninfo, autocommit=True)
        try:
            connection.adapters.register_loader("numeric", _IntegerLoader)
            with connection.pipeline():
                for setting in (*_SESSION, *settings):
                    connection.execute(setting)
        except BaseException:
            connection.close()
            raise
        return connection


def _now_ms() -> int:
    return int(time.time() * 1000)


class _IntegerLoader(Loader):
    """All numbers of the books are whole."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


def _conninfo(url: str) -> str:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Not the driver's words: they repeat the URL, and with it its password.
        raise ConfigError(
            "the URL of the database is malformed",
            hint="Use postgresql://user@host:port/database.",
        ) from None
    known = {name: str(value) for name, value in given.items() if value is not None}
    return make_conninfo(**{**_CONNECTION, **known})


@contextmanager
def _read_errors() -> Iterator[None]:
    """Whoever sends a request sees the message, so that it does not name the server."""
    try:
        yield
    except psycopg.Error as error:
        _log.error("the books could not be read", exc_info=error)
        kind = type(error).__name__
        raise StoreUnavailable(f"the books could not be read ({kind})") from error


def _one_line(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
