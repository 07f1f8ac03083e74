"""The payee's books in SQLite's SQL: what happens inside one transaction. Who opens and commits it
is the business of :mod:`channelpay.store.sqlite`.

Every statement costs the writer's thread a fight for the interpreter, so orders are loaded and
written many at a time. Such a statement has room for a power of two of rows, unused ones being
NULL: so there are few different ones, and SQLite prepares each once.
"""

# ruff: noqa: S608  (the statements are put together from the constants below, at import)

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, count
from typing import Any

from channelpay.errors import ChannelNotFound, NotFound
from channelpay.protocol.entries import (
    Change,
    Entries,
    EntryKey,
    EntryState,
    decode_state,
)
from channelpay.protocol.rules import (
    PLAIN,
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
from channelpay.store.amounts import amount, blob, vouchers, vouchers_blob
from channelpay.store.base import Answer, ChainView, StoredPayment, Totals
from channelpay.store.journal import Journal
from channelpay.store.rows import Rows, with_unsettled

ROWS_MAX = 256
"""Rows in one statement."""
KEPT_MAX = 20_000
"""Channels kept in memory, about 1 kB each; and entries, mostly smaller."""

_NEW_COLUMNS = (
    "channel_id, payer, payee, token, authorized_signer, salt,"
    " status, deposit, settled, close_requested_at, accepted, spent, signature,"
    " closes_begun, unsettled_since, in_doubt"
)
_RECORD_COLUMNS = f"{_NEW_COLUMNS}, earlier"
_PLAIN_COLUMNS = (
    "payment_id, channel_id, cumulative, price, resource, time, idempotency_key, outcome, attempts,"
    " undelivered"
)
_SOLD_COLUMNS = f"{_PLAIN_COLUMNS}, kind, details, undo"
_PAYMENT_COLUMNS = f"{_SOLD_COLUMNS}, refunded"
_IS_OWED = "status <> 'finalized' AND (unsettled_since > 0 OR closes_begun > 0)"
_SELECT_RECORD = f"SELECT {_RECORD_COLUMNS} FROM channels WHERE channel_id = ?"
_SELECT_RECORDS = f"SELECT {_RECORD_COLUMNS} FROM channels ORDER BY channel_id"
# Without being told, SQLite reads all channels, which are in this order already.
_SELECT_OWED = (
    f"SELECT {_RECORD_COLUMNS} FROM channels INDEXED BY channels_owed WHERE {_IS_OWED}"
    " ORDER BY channel_id"
)
_SELECT_SEEN_AFTER = f"SELECT {_RECORD_COLUMNS} FROM channels WHERE seen_at_block > ?"
_UPDATE_BOOKS = (
    "UPDATE channels SET accepted = ?, spent = ?, signature = ?, closes_begun = ?,"
    " unsettled_since = ?, in_doubt = ? WHERE channel_id = ?"
)
_INSERT_CHANNEL = (
    f"INSERT INTO channels ({_NEW_COLUMNS}, seen_at_block)"
    f" VALUES ({', '.join('?' * 17)}) ON CONFLICT DO NOTHING"
)
_UPDATE_CHAIN = (
    "UPDATE channels SET status = ?, deposit = ?, settled = ?, close_requested_at = ?,"
    " seen_at_block = ?, earlier = ? WHERE channel_id = ?"
)
_SELECT_BLOCK = "SELECT seen_at_block FROM channels WHERE channel_id = ?"
# ROLLBACK: what fails ends the transaction anyway, so no page has to be kept as it was before.
_MARK_IN_DOUBT = "UPDATE OR ROLLBACK channels SET in_doubt = 1 WHERE status <> 'finalized'"
_SELECT_PAYMENT = f"SELECT {_PAYMENT_COLUMNS} FROM payments WHERE payment_id = ?"
_SELECT_PAYMENTS = (
    f"SELECT {_PAYMENT_COLUMNS} FROM payments WHERE channel_id = ? ORDER BY payment_id"
)
_SELECT_BOUGHT = (
    f"SELECT {_PAYMENT_COLUMNS} FROM payments WHERE channel_id = ? AND idempotency_key = ?"
    " AND outcome = 'charged'"
)
_UPDATE_PAYMENT = (
    "UPDATE payments SET price = ?, outcome = ?, attempts = ?, undelivered = ?, undo = ?,"
    " refunded = ? WHERE payment_id = ?"
)
_LAST_PAYMENT = "SELECT max(payment_id) FROM payments"
_SELECT_UNSETTLED = (
    f"SELECT token, accepted, settled FROM channels WHERE {_IS_OWED} AND accepted > settled"
    " AND accepted <= deposit"
)
_SELECT_UNCOVERED = (
    f"SELECT {_RECORD_COLUMNS} FROM channels WHERE {_IS_OWED} AND accepted > deposit"
)
_SELECT_MANY_RECORDS = (
    f"WITH wanted (id) AS (VALUES {{rows}})"
    f" SELECT {_RECORD_COLUMNS} FROM wanted CROSS JOIN channels ON channel_id = id"
)
_SELECT_MANY_PAYMENTS = (
    f"WITH wanted (id) AS (VALUES {{rows}})"
    f" SELECT {_PAYMENT_COLUMNS} FROM wanted CROSS JOIN payments ON payment_id = id"
)
# A released charge with the same key is no earlier payment; so the unique index answers.
_SELECT_BY_KEYS = (
    f"WITH wanted (id, key) AS (VALUES {{rows}})"
    f" SELECT {_PAYMENT_COLUMNS} FROM wanted CROSS JOIN payments"
    " ON channel_id = id AND idempotency_key = key AND outcome = 'charged'"
)
_SELECT_BY_VOUCHERS = (
    f"WITH wanted (id, amount, bought) AS (VALUES {{rows}})"
    f" SELECT {_PAYMENT_COLUMNS} FROM wanted CROSS JOIN payments ON payment_id = ("
    "SELECT payment_id FROM payments WHERE channel_id = id AND cumulative = amount"
    " AND resource = bought AND idempotency_key IS NULL ORDER BY payment_id DESC LIMIT 1)"
)
# Without the columns that an index depends on: they change with the first voucher after a
# settlement, not with each.
_UPDATE_MANY_BOOKS = (
    "WITH new (a, s, g, id) AS (VALUES {rows})"
    " UPDATE channels SET accepted = a, spent = s, signature = g FROM new WHERE channel_id = id"
)
_UPDATE_MANY_MARKS = (
    "WITH new (u, d, id) AS (VALUES {rows})"
    " UPDATE channels SET unsettled_since = u, in_doubt = d FROM new WHERE channel_id = id"
)
# Most payments are plain: what they do not say is the default of its column.
_INSERT_PLAIN = (
    f"WITH new ({_PLAIN_COLUMNS}) AS (VALUES {{rows}})"
    f" INSERT INTO payments ({_PLAIN_COLUMNS}) SELECT * FROM new WHERE payment_id IS NOT NULL"
)
_INSERT_PAYMENTS = (
    f"WITH new ({_SOLD_COLUMNS}) AS (VALUES {{rows}})"
    f" INSERT INTO payments ({_SOLD_COLUMNS}) SELECT * FROM new WHERE payment_id IS NOT NULL"
)
_SELECT_ENTRY = "SELECT state FROM entries WHERE kind = ? AND name = ?"
_SELECT_ENTRIES = (
    "SELECT kind, name, state FROM entries WHERE kind = ?1 AND name > ?2 AND name >= ?3"
    " AND substr(name, 1, length(?3)) = ?3 ORDER BY name LIMIT ?4"
)
_SELECT_MANY_ENTRIES = (
    "WITH wanted (k, n) AS (VALUES {rows})"
    " SELECT kind, name, state FROM wanted CROSS JOIN entries ON kind = k AND name = n"
)
_UPSERT_ENTRIES = (
    "WITH new (k, n, s) AS (VALUES {rows})"
    " INSERT INTO entries (kind, name, state) SELECT * FROM new WHERE k IS NOT NULL"
    " ON CONFLICT (kind, name) DO UPDATE SET state = excluded.state"
)
_UPSERT_CURSOR = (
    "INSERT INTO cursors (name, position) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET position = excluded.position"
)


class Ledger:
    """The statements of one connection. Every method belongs into a transaction of the caller.

    What was read or written once is kept as long as nobody else changes the file: SQLite gives the
    interpreter away for each row that it reads, and a busy event loop is slow to give it back.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._kept: dict[ChannelId, ChannelRecord] = {}
        self._kept_entries: dict[EntryKey, EntryState] = {}
        self._last_payment: int | None = None
        self._version: int | None = None
        self.journal: Journal = Journal(connection)

    def begin(self) -> None:
        """A transaction that writes has begun: from now on nobody else changes the file."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        kept = max(len(self._kept), len(self._kept_entries))
        if version != self._version or kept > KEPT_MAX:
            self.forget()
        self._version = version

    def forget(self) -> None:
        """What was kept may not be so: the transaction was rolled back."""
        self._kept.clear()
        self._kept_entries.clear()
        self._last_payment = None

    def accept(self, orders: Sequence[Order]) -> list[Answer]:
        """See :meth:`channelpay.store.base.Store.accept`."""
        rows = self._rows(orders)
        verdicts = rows.decide(orders)
        self._run_many(_UPDATE_MANY_BOOKS, map(_voucher_books_row, verdicts.records.values()))
        marked = (
            r for r in verdicts.records.values() if _marks(r) != _marks(self._kept[r.channel_id])
        )
        self._run_many(_UPDATE_MANY_MARKS, ((*_marks(r), r.channel_id) for r in marked))
        added = verdicts.added.items()
        plain = (_plain_row(n, p) for n, p in added if p.sold is PLAIN)
        self._run_many(_INSERT_PLAIN, plain)
        others = ((*_plain_row(n, p), *p.sold[:3]) for n, p in added if p.sold is not PLAIN)
        self._run_many(_INSERT_PAYMENTS, others)
        if verdicts.updated:
            updated = ((*_outcome_row(p), number) for number, p in verdicts.updated.items())
            self._connection.executemany(_UPDATE_PAYMENT, updated)
        self._write_entries(verdicts.entries, rows)
        self._kept.update(verdicts.records)
        self._last_payment = max(verdicts.added, default=self._last_payment)
        return verdicts.answers

    def _rows(self, orders: Sequence[Order]) -> Rows:
        """All that the orders may be about."""
        channels = {order.channel_id for order in orders}
        unknown = ((one,) for one in channels if one not in self._kept)
        for row in self._select_many(_SELECT_MANY_RECORDS, unknown):
            record = _record(row)
            self._kept[record.channel_id] = record
        records = (self._kept[one] for one in channels if one in self._kept)
        if self._last_payment is None:
            (last,) = self._connection.execute(_LAST_PAYMENT).fetchone()
            self._last_payment = last or 0
        new_ids = count(self._last_payment + 1)
        keys = {key for order in orders if order.terms is not None for key in order.terms.keys}
        earlier = map(_payment, self._earlier(orders))
        return Rows(new_ids, records, earlier, self._entries(keys))

    def _entries(self, keys: Iterable[EntryKey]) -> Entries:
        """Those that are there."""
        wanted = list(keys)
        unknown = (one for one in wanted if one not in self._kept_entries)
        for kind, name, state in self._select_many(_SELECT_MANY_ENTRIES, unknown):
            self._kept_entries[EntryKey(kind, name)] = decode_state(state)
        return {key: self._kept_entries[key] for key in wanted if key in self._kept_entries}

    def _write_entries(self, texts: Mapping[EntryKey, str], rows: Rows) -> None:
        self._run_many(_UPSERT_ENTRIES, ((*key, text) for key, text in texts.items()))
        self._kept_entries.update((key, rows.entries[key]) for key in texts)

    def _earlier(self, orders: Sequence[Order]) -> Iterator[tuple[Any, ...]]:
        numbers, keys, vouchers = set(), set(), set()
        for order in orders:
            if isinstance(order, Charge) or isinstance(order, Refund):  # noqa: SIM101  twice as fast
                numbers.add((order.payment_id,))
            elif order.idempotency_key is not None:
                keys.add((order.channel_id, order.idempotency_key))
            elif isinstance(order, Purchase):
                vouchers.add(_voucher_row(order))
        yield from self._select_many(_SELECT_MANY_PAYMENTS, numbers)
        yield from self._select_many(_SELECT_BY_KEYS, keys)
        yield from self._select_many(_SELECT_BY_VOUCHERS, vouchers)

    def _select_many(
        self, statement: str, rows: Iterable[tuple[Any, ...]]
    ) -> Iterator[tuple[Any, ...]]:
        for text, values in _filled(statement, rows):
            yield from self._connection.execute(text, values).fetchall()

    def _run_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        for text, values in _filled(statement, rows):
            self._connection.execute(text, values)

    def release(self, payment_id: int, attempt: int) -> Payment:
        stored = self.payment_numbered(payment_id)
        if stored is None:
            raise NotFound(f"no payment {payment_id}")
        record = self._known(stored.payment.channel_id)
        entries = self._entries({one.key for one in stored.payment.undo})
        rows = Rows(count(), [record], [stored], entries)
        released = rows.release(payment_id, attempt)
        self._write_books(released.record)
        outcome = _outcome_row(released.payment)
        self._connection.execute(_UPDATE_PAYMENT, (*outcome, payment_id))
        self._write_entries(released.entries, rows)
        return released.payment

    def change_entries(self, keys: Sequence[EntryKey], change: Change) -> Entries:
        rows = Rows(count(), entries=self._entries(keys))
        changed, texts = rows.change_entries(keys, change)
        self._write_entries(texts, rows)
        return changed

    def begin_close(
        self, channel_id: ChannelId, voucher: Voucher | None, now: int
    ) -> ChannelRecord:
        return self._write_books(begin_close(self._known(channel_id), voucher, now))

    def close_failed(self, channel_id: ChannelId) -> ChannelRecord:
        return self._write_books(close_failed(self._known(channel_id)))

    def add_channel(self, record: ChannelRecord, view: ChainView, now: int) -> ChannelRecord:
        self._connection.execute(_INSERT_CHANNEL, (*_record_row(record), view.block))
        return self.update_chain(record.channel_id, view, now, rewound=False)

    def update_chain(
        self, channel_id: ChannelId, view: ChainView, now: int, *, rewound: bool
    ) -> ChannelRecord:
        record = self._known(channel_id)
        (block,) = self._connection.execute(_SELECT_BLOCK, (channel_id,)).fetchone()
        if view.block < block and not rewound:
            return record
        entered = enter_chain(record, view.state, now)
        state = (*_state_row(entered.chain), view.block, vouchers_blob(entered.earlier))
        self._connection.execute(_UPDATE_CHAIN, (*state, channel_id))
        return self._write_books(entered)

    def mark_in_doubt(self) -> int:
        self.forget()
        return self._connection.execute(_MARK_IN_DOUBT).rowcount

    def save_cursor(self, name: str, position: str) -> None:
        self._connection.execute(_UPSERT_CURSOR, (name, position))

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        row = self._connection.execute(_SELECT_RECORD, (channel_id,)).fetchone()
        return None if row is None else _record(row)

    def records(self) -> list[ChannelRecord]:
        return [_record(row) for row in self._connection.execute(_SELECT_RECORDS)]

    def owed(self) -> list[ChannelRecord]:
        return [_record(row) for row in self._connection.execute(_SELECT_OWED)]

    def seen_after(self, block: int) -> list[ChannelRecord]:
        seen = map(_record, self._connection.execute(_SELECT_SEEN_AFTER, (block,)))
        return sorted(seen, key=lambda record: record.channel_id)

    def totals(self) -> dict[Address, Totals]:
        sums: dict[Address, Totals] = {}
        for row in self._connection.execute(_SELECT_RECORDS):
            record = _record(row)
            token = record.channel.token
            sums[token] = sums.get(token, Totals()).plus(record)
        return sums

    def entry(self, key: EntryKey) -> EntryState | None:
        row = self._connection.execute(_SELECT_ENTRY, (key.kind, key.name)).fetchone()
        return None if row is None else decode_state(row[0])

    def entries(
        self, kind: str, prefix: bytes, after: bytes, limit: int
    ) -> list[tuple[EntryKey, EntryState]]:
        rows = self._connection.execute(_SELECT_ENTRIES, (kind, after, prefix, limit))
        return [(EntryKey(kind, name), decode_state(state)) for kind, name, state in rows]

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        return [_payment(row) for row in self._connection.execute(_SELECT_PAYMENTS, (channel_id,))]

    def payment(self, channel_id: ChannelId, idempotency_key: str) -> StoredPayment | None:
        row = self._connection.execute(_SELECT_BOUGHT, (channel_id, idempotency_key)).fetchone()
        return None if row is None else _payment(row)

    def payment_numbered(self, payment_id: int) -> StoredPayment | None:
        row = self._connection.execute(_SELECT_PAYMENT, (payment_id,)).fetchone()
        return None if row is None else _payment(row)

    def unsettled(self) -> dict[Address, int]:
        sums: dict[Address, int] = {}
        for token, accepted, settled in self._connection.execute(_SELECT_UNSETTLED):
            sums[token] = sums.get(token, 0) + amount(accepted) - amount(settled)
        return with_unsettled(sums, map(_record, self._connection.execute(_SELECT_UNCOVERED)))

    def cursor(self, name: str) -> str | None:
        query = "SELECT position FROM cursors WHERE name = ?"
        row = self._connection.execute(query, (name,)).fetchone()
        return None if row is None else str(row[0])

    def _known(self, channel_id: ChannelId) -> ChannelRecord:
        record = self.record(channel_id)
        if record is None:
            raise ChannelNotFound(channelId=to_hex(channel_id))
        return record

    def _write_books(self, record: ChannelRecord) -> ChannelRecord:
        self._connection.execute(_UPDATE_BOOKS, (*_books_row(record), record.channel_id))
        self._kept[record.channel_id] = record
        return record


@cache
def _with_room(statement: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.format(rows=", ".join([row] * rows))


def _filled(statement: str, rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[str, list[Any]]]:
    """The statement with room for the rows, and its values; several if there are many rows."""
    waiting = list(rows)
    for begin in range(0, len(waiting), ROWS_MAX):
        some = waiting[begin : begin + ROWS_MAX]
        room, columns = 1 << (len(some) - 1).bit_length(), len(some[0])
        values = list(chain.from_iterable(some)) + [None] * (columns * (room - len(some)))
        yield _with_room(statement, room, columns), values


def _state_row(state: ChannelState) -> tuple[Any, ...]:
    amounts = (blob(state.deposit), blob(state.settled))
    return (state.status.value, *amounts, state.close_requested_at)


def _record_row(record: ChannelRecord) -> tuple[Any, ...]:
    channel = record.channel
    accounts = (channel.payer, channel.payee, channel.token, channel.authorized_signer)
    described = (record.channel_id, *accounts, channel.salt)
    return (*described, *_state_row(record.chain), *_books_row(record))


def _books_row(record: ChannelRecord) -> tuple[Any, ...]:
    amounts = (blob(record.accepted), blob(record.spent))
    return (*amounts, record.signature, record.closes_begun, *_marks(record))


def _voucher_books_row(record: ChannelRecord) -> tuple[Any, ...]:
    return (blob(record.accepted), blob(record.spent), record.signature, record.channel_id)


def _marks(record: ChannelRecord) -> tuple[int, bool]:
    """What only few vouchers change."""
    return record.unsettled_since, record.in_doubt


def _plain_row(payment_id: int, payment: Payment) -> tuple[Any, ...]:
    return (
        payment_id,
        payment.channel_id,
        blob(payment.cumulative),
        blob(payment.price),
        payment.resource,
        payment.time,
        payment.idempotency_key,
        payment.outcome.value,
        payment.attempts,
        payment.undelivered,
    )


def _outcome_row(payment: Payment) -> tuple[Any, ...]:
    counted = (payment.attempts, payment.undelivered)
    given_back = (payment.sold.undo_text, blob(payment.sold.refunded))
    return (blob(payment.price), payment.outcome.value, *counted, *given_back)


def _voucher_row(purchase: Purchase) -> tuple[Any, ...]:
    voucher = purchase.voucher
    return (voucher.channel_id, blob(voucher.cumulative_amount), purchase.resource)


def _record(row: tuple[Any, ...]) -> ChannelRecord:
    channel_id, payer, payee, token, signer, salt = row[:6]
    status, deposit, settled, close_requested_at, accepted, spent, *rest = row[6:]
    channel = Channel(Address(payer), Address(payee), Address(token), Address(signer), salt)
    state = ChannelState(
        ChannelStatus(status), amount(deposit), amount(settled), close_requested_at
    )
    signature, closes_begun, unsettled_since, in_doubt, earlier = rest
    return ChannelRecord(
        ChannelId(channel_id),
        channel,
        state,
        amount(accepted),
        amount(spent),
        signature,
        closes_begun,
        unsettled_since,
        bool(in_doubt),
        vouchers(earlier),
    )


def _payment(row: tuple[Any, ...]) -> StoredPayment:
    payment_id, channel_id, cumulative, price, resource, time, key, outcome, *counted = row
    attempts, undelivered, kind, details, undo, refunded = counted
    payment = Payment(
        channel_id=ChannelId(channel_id),
        cumulative=amount(cumulative),
        price=amount(price),
        resource=resource,
        time=time,
        idempotency_key=key,
        outcome=Outcome(outcome),
        attempts=attempts,
        undelivered=undelivered,
        sold=Sold(kind, details, undo, amount(refunded)),
    )
    return StoredPayment(payment_id, payment)
