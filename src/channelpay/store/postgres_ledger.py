"""The payee's books in PostgreSQL's SQL: what happens inside one transaction. Who opens and commits
it is the business of :mod:`channelpay.store.postgres`.

A transaction loads all that its verbs are about, decides on those rows in memory, and writes what
changed: two round trips, however many verbs there are.

Transactions never wait for each other in a circle: each inserts channels in the order of their ids,
then locks all of its channels in the order of their ids, then inserts and then locks entries in the
order of their keys, then takes the one lock of the journal, then writes cursors in the order of
their names, and waits for nothing else.

An entry that is not there is inserted with an empty state, so that there is something to lock: what
nobody gave a state is deleted again before the commit. Nobody ever sees it.
"""

# ruff: noqa: S608  (the statements are put together from the constants below, at import)

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, LiteralString, TypeAlias, TypeVar

from psycopg import Connection, Cursor, OperationalError

from channelpay.errors import ChannelNotFound
from channelpay.protocol.entries import (
    Change,
    Entries,
    EntryKey,
    EntryState,
    decode_state,
)
from channelpay.protocol.rules import (
    ChannelRecord,
    Charge,
    Order,
    Outcome,
    Payment,
    Purchase,
    Refund,
    Sold,
    begin_close,
    close_failed,
    enter_chain,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Voucher,
)
from channelpay.store.amounts import vouchers, vouchers_blob
from channelpay.store.base import Answer, ChainView, StoredPayment, Totals
from channelpay.store.postgres_journal import Journal
from channelpay.store.rows import Rows, with_unsettled

_NEW_COLUMNS: LiteralString = (
    "channel_id, payer, payee, token, authorized_signer, salt,"
    " status, deposit, settled, close_requested_at, accepted, spent, signature, closes_begun,"
    " unsettled_since, in_doubt"
)
_RECORD_COLUMNS: LiteralString = f"{_NEW_COLUMNS}, earlier"
_PAYMENT_COLUMNS: LiteralString = (
    "payment_id, channel_id, cumulative, price, resource, time, idempotency_key, outcome, attempts,"
    " undelivered, kind, details, undo, refunded"
)
_IS_OWED: LiteralString = "status <> 'finalized' AND (unsettled_since > 0 OR closes_begun > 0)"
_SELECT_RECORD: LiteralString = (
    f"SELECT {_RECORD_COLUMNS} FROM channelpay_channels WHERE channel_id = %s"
)
_SELECT_RECORDS: LiteralString = (
    f"SELECT {_RECORD_COLUMNS} FROM channelpay_channels ORDER BY channel_id"
)
_SELECT_PAYMENTS: LiteralString = (
    f"SELECT {_PAYMENT_COLUMNS} FROM channelpay_payments WHERE channel_id = %s ORDER BY payment_id"
)
_SELECT_PAYMENT: LiteralString = (
    f"SELECT {_PAYMENT_COLUMNS} FROM channelpay_payments WHERE payment_id = %s"
)
_SELECT_BOUGHT: LiteralString = (
    f"SELECT {_PAYMENT_COLUMNS} FROM channelpay_payments"
    " WHERE channel_id = %s AND idempotency_key = %s AND outcome = 'charged'"
)
_SELECT_OWED: LiteralString = (
    f"SELECT {_RECORD_COLUMNS} FROM channelpay_channels WHERE {_IS_OWED} ORDER BY channel_id"
)
_SELECT_SEEN_AFTER: LiteralString = (
    f"SELECT {_RECORD_COLUMNS} FROM channelpay_channels WHERE seen_at_block > %s"
    " ORDER BY channel_id"
)
_SELECT_UNSETTLED: LiteralString = (
    "SELECT token, sum(accepted - settled) FROM channelpay_channels"
    f" WHERE {_IS_OWED} AND accepted > settled AND accepted <= deposit GROUP BY token"
)
_SELECT_UNCOVERED: LiteralString = (
    f"SELECT {_RECORD_COLUMNS} FROM channelpay_channels WHERE {_IS_OWED} AND accepted > deposit"
)
_SELECT_TOTALS: LiteralString = (
    "SELECT token, count(*), sum(deposit), sum(accepted), sum(spent), sum(settled)"
    " FROM channelpay_channels GROUP BY token"
)
# In the order in which every transaction locks channels.
_MARK_IN_DOUBT: LiteralString = (
    "UPDATE channelpay_channels SET in_doubt = true WHERE channel_id IN ("
    "SELECT channel_id FROM channelpay_channels WHERE status <> 'finalized'"
    " ORDER BY channel_id FOR NO KEY UPDATE)"
)
_SELECT_ENTRY: LiteralString = "SELECT state FROM channelpay_entries WHERE kind = %s AND name = %s"
_SELECT_ENTRIES: LiteralString = (
    "SELECT name, state FROM channelpay_entries WHERE kind = %s AND name > %s AND name >= %s"
    " AND substr(name, 1, %s) = %s ORDER BY name LIMIT %s"
)
_SELECT_CURSOR: LiteralString = "SELECT position FROM channelpay_cursors WHERE name = %s"

_BEGIN: LiteralString = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_INSERT_CHANNELS: LiteralString = (
    f"INSERT INTO channelpay_channels ({_NEW_COLUMNS}, seen_at_block)"
    " SELECT * FROM unnest(%s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[], %s::bytea[],"
    " %s::bytea[], %s::text[], %s::text[]::numeric[], %s::text[]::numeric[], %s::bigint[],"
    " %s::text[]::numeric[], %s::text[]::numeric[], %s::bytea[], %s::integer[], %s::bigint[],"
    " %s::boolean[], %s::bigint[])"
    " AS new (channel_id) ORDER BY channel_id ON CONFLICT DO NOTHING RETURNING channel_id"
)
# A payment never changes its channel: so that is known before the channel is locked.
_LOCK_CHANNELS: LiteralString = (
    f"SELECT {_RECORD_COLUMNS}, seen_at_block FROM channelpay_channels"
    " WHERE channel_id = ANY (%s::bytea[] || ARRAY("
    "SELECT channel_id FROM channelpay_payments WHERE payment_id = ANY (%s::bigint[])))"
    " ORDER BY channel_id FOR NO KEY UPDATE"
)
# Drawn while the channels are locked, so that the numbers of one channel's payments grow.
_NEW_PAYMENT_IDS: LiteralString = (
    "SELECT nextval('channelpay_payment_ids') FROM generate_series(1, %s)"
)
# The payments are read by statements of their own, after the one that waits for the locks: a
# statement sees what was committed when it began.
_SELECT_BY_NUMBER: LiteralString = (
    f"SELECT {_PAYMENT_COLUMNS} FROM channelpay_payments WHERE payment_id = ANY (%s::bigint[])"
)
# A released charge with the same key is no earlier payment; so the unique index answers.
_SELECT_BY_KEY: LiteralString = (
    "SELECT found.* FROM unnest(%s::bytea[], %s::text[]) AS wanted (id, key)"
    f" CROSS JOIN LATERAL (SELECT {_PAYMENT_COLUMNS} FROM channelpay_payments"
    " WHERE channel_id = id AND idempotency_key = key AND outcome = 'charged' LIMIT 1) AS found"
)
_SELECT_BY_VOUCHER: LiteralString = (
    "SELECT found.* FROM unnest(%s::bytea[], %s::text[]::numeric[], %s::text[])"
    " AS wanted (id, amount, bought)"
    f" CROSS JOIN LATERAL (SELECT {_PAYMENT_COLUMNS} FROM channelpay_payments"
    " WHERE channel_id = id AND cumulative = amount AND resource = bought"
    " AND idempotency_key IS NULL"
    " AND hashtextextended(resource, 0) = hashtextextended(bought, 0)"
    " ORDER BY payment_id DESC LIMIT 1) AS found"
)
_INSERT_ENTRIES: LiteralString = (
    "INSERT INTO channelpay_entries (kind, name, state)"
    " SELECT kind, name, '' FROM unnest(%s::text[], %s::bytea[]) AS new (kind, name)"
    ' ORDER BY kind COLLATE "C", name ON CONFLICT DO NOTHING'
)
# What a payment has to undo changes under the lock of its channel, which is held by now.
_LOCK_ENTRIES: LiteralString = (
    "WITH wanted (k, n) AS ("
    "SELECT * FROM unnest(%s::text[], %s::bytea[]) UNION"
    " SELECT one ->> 0, decode(one ->> 1, 'hex') FROM channelpay_payments"
    " CROSS JOIN LATERAL json_array_elements(nullif(undo, '')::json) AS one"
    " WHERE payment_id = ANY (%s::bigint[]))"
    " SELECT kind, name, state FROM wanted JOIN channelpay_entries ON kind = k AND name = n"
    " ORDER BY kind, name FOR NO KEY UPDATE OF channelpay_entries"
)

# In this order: a charge that is given back makes room for another one with the same key.
_UPDATE_PAYMENTS: LiteralString = (
    "UPDATE channelpay_payments AS old"
    " SET price = new.price, outcome = new.outcome, attempts = new.attempts,"
    " undelivered = new.undelivered, undo = new.undo, refunded = new.refunded"
    " FROM unnest(%s::bigint[], %s::text[]::numeric[], %s::text[], %s::integer[], %s::bigint[],"
    " %s::text[], %s::text[]::numeric[])"
    " AS new (payment_id, price, outcome, attempts, undelivered, undo, refunded)"
    " WHERE old.payment_id = new.payment_id"
)
_INSERT_PAYMENTS: LiteralString = (
    f"INSERT INTO channelpay_payments ({_PAYMENT_COLUMNS})"
    " SELECT * FROM unnest(%s::bigint[], %s::bytea[], %s::text[]::numeric[],"
    " %s::text[]::numeric[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::integer[],"
    " %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[]::numeric[])"
)
_UPDATE_ENTRIES: LiteralString = (
    "UPDATE channelpay_entries AS old SET state = new.state"
    " FROM unnest(%s::text[], %s::bytea[], %s::text[]) AS new (kind, name, state)"
    " WHERE old.kind = new.kind AND old.name = new.name"
)
_DELETE_ENTRIES: LiteralString = (
    "DELETE FROM channelpay_entries AS old USING unnest(%s::text[], %s::bytea[])"
    " AS unused (kind, name) WHERE old.kind = unused.kind AND old.name = unused.name"
)
_UPDATE_BOOKS: LiteralString = (
    "UPDATE channelpay_channels AS old SET accepted = new.accepted, spent = new.spent,"
    " signature = new.signature, closes_begun = new.closes_begun,"
    " unsettled_since = new.unsettled_since, in_doubt = new.in_doubt"
    " FROM unnest(%s::bytea[], %s::text[]::numeric[], %s::text[]::numeric[], %s::bytea[],"
    " %s::integer[], %s::bigint[], %s::boolean[])"
    " AS new (channel_id, accepted, spent, signature, closes_begun, unsettled_since, in_doubt)"
    " WHERE old.channel_id = new.channel_id"
)
_UPDATE_CHAIN: LiteralString = (
    "UPDATE channelpay_channels AS old SET status = new.status, deposit = new.deposit,"
    " settled = new.settled, close_requested_at = new.close_requested_at,"
    " seen_at_block = new.seen_at_block, earlier = new.earlier"
    " FROM unnest(%s::bytea[], %s::text[], %s::text[]::numeric[], %s::text[]::numeric[],"
    " %s::bigint[], %s::bigint[], %s::bytea[])"
    " AS new (channel_id, status, deposit, settled, close_requested_at, seen_at_block, earlier)"
    " WHERE old.channel_id = new.channel_id"
)
_UPSERT_CURSORS: LiteralString = (
    "INSERT INTO channelpay_cursors (name, position)"
    " SELECT * FROM unnest(%s::text[], %s::text[]) AS new (name) ORDER BY name"
    " ON CONFLICT (name) DO UPDATE SET position = excluded.position"
)

_Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Release:
    """:meth:`channelpay.store.base.Store.release`, as the verbs below are the others of that name:
    what is to be done, so that it is known what to load before it is done.
    """

    payment_id: int
    attempt: int

    def __call__(self, books: Books) -> Payment:
        return books.release(self.payment_id, self.attempt)


@dataclass(frozen=True, slots=True)
class ChangeEntries:
    keys: Sequence[EntryKey]
    change: Change

    def __call__(self, books: Books) -> Entries:
        return books.change_entries(self.keys, self.change)


@dataclass(frozen=True, slots=True)
class BeginClose:
    channel_id: ChannelId
    voucher: Voucher | None
    now: int

    def __call__(self, books: Books) -> ChannelRecord:
        return books.change(begin_close(books.known(self.channel_id), self.voucher, self.now))


@dataclass(frozen=True, slots=True)
class CloseFailed:
    channel_id: ChannelId

    def __call__(self, books: Books) -> ChannelRecord:
        return books.change(close_failed(books.known(self.channel_id)))


@dataclass(frozen=True, slots=True)
class AddChannel:
    channel_id: ChannelId
    channel: Channel
    view: ChainView
    now: int
    in_doubt: bool = False

    def __call__(self, books: Books) -> ChannelRecord:
        books.reveal(self.channel_id)
        return books.update_chain(self.channel_id, self.view, self.now, rewound=False)

    def row(self) -> _Row:
        """For :data:`_INSERT_CHANNELS`."""
        channel, state = self.channel, self.view.state
        accounts = (channel.payer, channel.payee, channel.token, channel.authorized_signer)
        described = (self.channel_id, *accounts, channel.salt)
        record = ChannelRecord(self.channel_id, channel, state, in_doubt=self.in_doubt)
        books = _books_row(record)
        return (*described, *_state_row(state), *books, self.view.block)


@dataclass(frozen=True, slots=True)
class UpdateChain:
    channel_id: ChannelId
    view: ChainView
    now: int
    rewound: bool

    def __call__(self, books: Books) -> ChannelRecord:
        return books.update_chain(self.channel_id, self.view, self.now, rewound=self.rewound)


@dataclass(frozen=True, slots=True)
class SaveCursor:
    name: str
    position: str

    def __call__(self, books: Books) -> None:
        books.cursors[self.name] = self.position


@dataclass(frozen=True, slots=True)
class WithJournal(Generic[T]):
    """Leases and transactions: about no channel and no payment."""

    work: Callable[[Journal], T]

    def __call__(self, books: Books) -> T:
        return self.work(books.journal)


class Books:
    """The rows that one transaction is about, and which of them have to be written."""

    def __init__(self, connection: Connection[Any], loaded: _Loaded) -> None:
        self._connection = connection
        inserted = {row[0] for row in loaded.inserted}
        records = {row[0]: _record(row[:-1]) for row in loaded.channels}
        self._hidden = {channel_id: records.pop(channel_id) for channel_id in inserted}
        self._blocks = {row[0]: row[-1] for row in loaded.channels}
        new_ids = (payment_id for (payment_id,) in loaded.new_payment_ids)
        texts = {EntryKey(kind, name): state for kind, name, state in loaded.entries}
        there = {key: decode_state(text) for key, text in texts.items() if text}
        self._unused = texts.keys() - there.keys()
        self._rows = Rows(new_ids, records.values(), map(_payment, loaded.payments), there)
        self.records: dict[ChannelId, ChannelRecord] = {}
        self.added: dict[int, Payment] = {}
        self.updated: dict[int, Payment] = {}
        self.entries: dict[EntryKey, str] = {}
        self.seen: dict[ChannelId, int] = {}
        self.cursors: dict[str, str] = {}

    def accept(self, orders: Sequence[Order]) -> list[Answer]:
        """See :meth:`channelpay.store.base.Store.accept`."""
        verdicts = self._rows.decide(orders)
        self.records.update(verdicts.records)
        self.added.update(verdicts.added)
        for payment_id, payment in verdicts.updated.items():
            self._note(payment_id, payment)
        self.entries.update(verdicts.entries)
        return verdicts.answers

    @property
    def unused(self) -> set[EntryKey]:
        """The entries that were inserted for nothing."""
        return self._unused - self.entries.keys()

    @cached_property
    def journal(self) -> Journal:
        return Journal(self._connection)

    def release(self, payment_id: int, attempt: int) -> Payment:
        released = self._rows.release(payment_id, attempt)
        self._note(payment_id, released.payment)
        self.entries.update(released.entries)
        self.change(released.record)
        return released.payment

    def change_entries(self, keys: Sequence[EntryKey], change: Change) -> Entries:
        changed, texts = self._rows.change_entries(keys, change)
        self.entries.update(texts)
        return changed

    def known(self, channel_id: ChannelId) -> ChannelRecord:
        record = self._rows.records.get(channel_id)
        if record is None:
            raise ChannelNotFound(channelId=to_hex(channel_id))
        return record

    def change(self, record: ChannelRecord) -> ChannelRecord:
        self._rows.records[record.channel_id] = self.records[record.channel_id] = record
        return record

    def reveal(self, channel_id: ChannelId) -> None:
        """A channel that this transaction inserted is known from its verb on, not before."""
        record = self._hidden.pop(channel_id, None)
        if record is not None:
            self._rows.records[channel_id] = record

    def update_chain(
        self, channel_id: ChannelId, view: ChainView, now: int, *, rewound: bool
    ) -> ChannelRecord:
        record = self.known(channel_id)
        if view.block < self._blocks[channel_id] and not rewound:
            return record
        entered = enter_chain(record, view.state, now)
        self._blocks[channel_id] = view.block
        self.seen[channel_id] = view.block
        return self.change(entered)

    def _note(self, payment_id: int, payment: Payment) -> None:
        (self.added if payment_id in self.added else self.updated)[payment_id] = payment


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The rows of one transaction, as the statements gave them."""

    inserted: list[_Row]
    channels: list[_Row]
    new_payment_ids: list[_Row]
    payments: list[_Row]
    entries: list[_Row]


@dataclass(slots=True)
class _Wanted:
    """What a transaction's orders and verbs are about."""

    channel_ids: set[ChannelId] = field(default_factory=set)
    payment_ids: set[int] = field(default_factory=set)
    keys: set[tuple[ChannelId, str]] = field(default_factory=set)
    vouchers: set[tuple[ChannelId, str, str]] = field(default_factory=set)
    channels: dict[ChannelId, _Row] = field(default_factory=dict)
    entries: set[EntryKey] = field(default_factory=set)
    releases: list[int] = field(default_factory=list)
    new_payments_max: int = 0

    def add_order(self, order: Order) -> None:
        self.channel_ids.add(order.channel_id)
        if order.terms is not None:
            self.entries.update(order.terms.keys)
        self.new_payments_max += not isinstance(order, Charge)
        if isinstance(order, Charge | Refund):
            self.payment_ids.add(order.payment_id)
            return
        if order.idempotency_key is not None:
            self.keys.add((order.channel_id, order.idempotency_key))
        elif isinstance(order, Purchase):
            amount = str(order.voucher.cumulative_amount)
            self.vouchers.add((order.channel_id, amount, order.resource))

    def add_verb(self, verb: Callable[[Books], Any]) -> None:
        match verb:
            case Release(payment_id):
                self.payment_ids.add(payment_id)
                self.releases.append(payment_id)
            case ChangeEntries(keys):
                self.entries.update(keys)
            case BeginClose(channel_id) | CloseFailed(channel_id) | UpdateChain(channel_id):
                self.channel_ids.add(channel_id)
            case AddChannel(channel_id):
                self.channel_ids.add(channel_id)
                self.channels.setdefault(channel_id, verb.row())
            case SaveCursor() | WithJournal():
                pass
            case _:
                raise TypeError(f"nobody knows what {verb!r} is about")


def load(
    connection: Connection[Any], orders: Iterable[Order], verbs: Iterable[Callable[[Books], Any]]
) -> Books:
    """Begin a transaction, and lock and load all that it is about: one round trip."""
    wanted = _Wanted()
    for order in orders:
        wanted.add_order(order)
    for verb in verbs:
        wanted.add_verb(verb)
    with connection.pipeline():
        connection.execute(_BEGIN)
        inserted = _execute(connection, _INSERT_CHANNELS, wanted.channels.values())
        locked = _lock(connection, wanted)
        new_payment_ids = _new_payment_ids(connection, wanted)
        payments = [
            _execute(connection, _SELECT_BY_NUMBER, ((one,) for one in wanted.payment_ids)),
            _execute(connection, _SELECT_BY_KEY, wanted.keys),
            _execute(connection, _SELECT_BY_VOUCHER, wanted.vouchers),
        ]
        entries = _lock_entries(connection, wanted)
    found = {row[0]: row for cursor in payments for row in _rows(cursor)}
    loaded = (_rows(inserted), _rows(locked), _rows(new_payment_ids), list(found.values()))
    return Books(connection, _Loaded(*loaded, _rows(entries)))


def write(connection: Connection[Any], books: Books) -> None:
    """Write what changed and commit: one round trip. What fails before the commit is not
    committed: the server skips the rest of a pipeline after an error.
    """
    with connection.pipeline():
        updated = ((number, *_outcome_row(one)) for number, one in books.updated.items())
        _execute(connection, _UPDATE_PAYMENTS, updated)
        added = (_payment_row(number, one) for number, one in books.added.items())
        _execute(connection, _INSERT_PAYMENTS, added)
        records = ((r.channel_id, *_books_row(r)) for r in books.records.values())
        _execute(connection, _UPDATE_BOOKS, records)
        seen = ((books.records[one], block) for one, block in books.seen.items())
        _execute(connection, _UPDATE_CHAIN, (_chain_row(*one) for one in seen))
        entries = ((key.kind, key.name, text) for key, text in books.entries.items())
        _execute(connection, _UPDATE_ENTRIES, entries)
        _execute(connection, _DELETE_ENTRIES, ((key.kind, key.name) for key in books.unused))
        _execute(connection, _UPSERT_CURSORS, books.cursors.items())
        committed = connection.execute("COMMIT")
    if committed.statusmessage != "COMMIT":
        raise OperationalError("the server rolled the transaction back")


def mark_in_doubt(connection: Connection[Any]) -> int:
    """See :meth:`channelpay.store.base.Store.mark_in_doubt`; a transaction of its own."""
    return connection.execute(_MARK_IN_DOUBT).rowcount


class Reader:
    """What is read outside of the writer's transactions."""

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        row = self.connection.execute(_SELECT_RECORD, (channel_id,)).fetchone()
        return None if row is None else _record(row)

    def records(self) -> list[ChannelRecord]:
        return [_record(row) for row in self.connection.execute(_SELECT_RECORDS)]

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        return [_payment(row) for row in self.connection.execute(_SELECT_PAYMENTS, (channel_id,))]

    def payment(self, channel_id: ChannelId, idempotency_key: str) -> StoredPayment | None:
        values = (channel_id, idempotency_key)
        row = self.connection.execute(_SELECT_BOUGHT, values).fetchone()
        return None if row is None else _payment(row)

    def payment_numbered(self, payment_id: int) -> StoredPayment | None:
        row = self.connection.execute(_SELECT_PAYMENT, (payment_id,)).fetchone()
        return None if row is None else _payment(row)

    def unsettled(self) -> dict[Address, int]:
        rows = self.connection.execute(_SELECT_UNSETTLED)
        sums = {Address(token): int(amount) for token, amount in rows}
        return with_unsettled(sums, map(_record, self.connection.execute(_SELECT_UNCOVERED)))

    def owed(self) -> list[ChannelRecord]:
        return [_record(row) for row in self.connection.execute(_SELECT_OWED)]

    def seen_after(self, block: int) -> list[ChannelRecord]:
        return [_record(row) for row in self.connection.execute(_SELECT_SEEN_AFTER, (block,))]

    def totals(self) -> dict[Address, Totals]:
        sums = self.connection.execute(_SELECT_TOTALS)
        return {Address(token): Totals(*amounts) for token, *amounts in sums}

    def entry(self, key: EntryKey) -> EntryState | None:
        row = self.connection.execute(_SELECT_ENTRY, (key.kind, key.name)).fetchone()
        return None if row is None else decode_state(row[0])

    def entries(
        self, kind: str, prefix: bytes, after: bytes, limit: int
    ) -> list[tuple[EntryKey, EntryState]]:
        values = (kind, after, prefix, len(prefix), prefix, limit)
        rows = self.connection.execute(_SELECT_ENTRIES, values)
        return [(EntryKey(kind, name), decode_state(state)) for name, state in rows]

    def cursor(self, name: str) -> str | None:
        row = self.connection.execute(_SELECT_CURSOR, (name,)).fetchone()
        return None if row is None else str(row[0])


def _lock(connection: Connection[Any], wanted: _Wanted) -> Cursor[Any] | None:
    if not wanted.channel_ids and not wanted.payment_ids:
        return None
    values = (list(wanted.channel_ids), list(wanted.payment_ids))
    return connection.execute(_LOCK_CHANNELS, values)


def _lock_entries(connection: Connection[Any], wanted: _Wanted) -> Cursor[Any] | None:
    if not wanted.entries and not wanted.releases:
        return None
    keys = [(key.kind, key.name) for key in wanted.entries]
    _execute(connection, _INSERT_ENTRIES, keys)
    kinds, names = [kind for kind, _ in keys], [name for _, name in keys]
    return connection.execute(_LOCK_ENTRIES, (kinds, names, wanted.releases))


def _new_payment_ids(connection: Connection[Any], wanted: _Wanted) -> Cursor[Any] | None:
    if not wanted.new_payments_max:
        return None
    return connection.execute(_NEW_PAYMENT_IDS, (wanted.new_payments_max,))


def _execute(
    connection: Connection[Any], statement: LiteralString, rows: Iterable[_Row]
) -> Cursor[Any] | None:
    """The statement with one array for each column; not at all if there are no rows."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return connection.execute(statement, columns) if columns else None


def _rows(cursor: Cursor[Any] | None) -> list[_Row]:
    return [] if cursor is None else cursor.fetchall()


def _state_row(state: ChannelState) -> _Row:
    amounts = (str(state.deposit), str(state.settled))
    return (state.status.value, *amounts, state.close_requested_at)


def _chain_row(record: ChannelRecord, block: int) -> _Row:
    state = _state_row(record.chain)
    return (record.channel_id, *state, block, vouchers_blob(record.earlier))


def _books_row(record: ChannelRecord) -> _Row:
    amounts = (str(record.accepted), str(record.spent))
    marks = (record.closes_begun, record.unsettled_since, record.in_doubt)
    return (*amounts, record.signature, *marks)


def _payment_row(payment_id: int, payment: Payment) -> _Row:
    return (
        payment_id,
        payment.channel_id,
        str(payment.cumulative),
        str(payment.price),
        payment.resource,
        payment.time,
        payment.idempotency_key,
        payment.outcome.value,
        payment.attempts,
        payment.undelivered,
        payment.sold.kind,
        payment.sold.details,
        payment.sold.undo_text,
        str(payment.sold.refunded),
    )


def _outcome_row(payment: Payment) -> _Row:
    counted = (payment.attempts, payment.undelivered)
    given_back = (payment.sold.undo_text, str(payment.sold.refunded))
    return (str(payment.price), payment.outcome.value, *counted, *given_back)


def _record(row: _Row) -> ChannelRecord:
    channel_id, payer, payee, token, signer, salt, status, deposit, settled, *rest = row
    close_requested_at, *books, earlier = rest
    channel = Channel(Address(payer), Address(payee), Address(token), Address(signer), salt)
    state = ChannelState(ChannelStatus(status), deposit, settled, close_requested_at)
    read = (*books, vouchers(earlier))
    return ChannelRecord(ChannelId(channel_id), channel, state, *read)


def _payment(row: _Row) -> StoredPayment:
    payment_id, channel_id, cumulative, price, resource, time, key, outcome, *counted = row
    attempts, undelivered, kind, details, undo, refunded = counted
    payment = Payment(
        channel_id=ChannelId(channel_id),
        cumulative=cumulative,
        price=price,
        resource=resource,
        time=time,
        idempotency_key=key,
        outcome=Outcome(outcome),
        attempts=attempts,
        undelivered=undelivered,
        sold=Sold(kind, details, undo, refunded),
    )
    return StoredPayment(payment_id, payment)
