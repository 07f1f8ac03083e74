"""The payee's books as SQL: what happens inside one transaction. Who opens and commits it is the
business of :mod:`channelpay.store.sqlite`.
"""

# ruff: noqa: S608  (the statements are put together from the constants below, at import)

from __future__ import annotations

import sqlite3
from typing import Any

from channelpay.errors import ChannelNotFound, NotFound
from channelpay.protocol.rules import (
    ChannelRecord,
    Outcome,
    Payment,
    Purchase,
    begin_close,
    close_failed,
    decide,
    release,
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
from channelpay.store.base import Accepted, ChainView, StoredPayment

_RECORD_COLUMNS = (
    "channel_id, payer, payee, token, authorized_signer, salt,"
    " status, deposit, settled, close_requested_at, accepted, spent, signature,"
    " closes_begun"
)
_PAYMENT_COLUMNS = (
    "payment_id, channel_id, cumulative, price, resource, time, idempotency_key, outcome, attempts"
)
_SELECT_RECORD = f"SELECT {_RECORD_COLUMNS} FROM channels WHERE channel_id = ?"
_SELECT_RECORDS = f"SELECT {_RECORD_COLUMNS} FROM channels ORDER BY channel_id"
_UPDATE_BOOKS = (
    "UPDATE channels SET accepted = ?, spent = ?, signature = ?, closes_begun = ?"
    " WHERE channel_id = ?"
)
_INSERT_CHANNEL = (
    f"INSERT INTO channels ({_RECORD_COLUMNS}, seen_at_block)"
    f" VALUES ({', '.join('?' * 15)}) ON CONFLICT DO NOTHING"
)
_UPDATE_CHAIN = (
    "UPDATE channels SET status = ?, deposit = ?, settled = ?, close_requested_at = ?,"
    " seen_at_block = ? WHERE channel_id = ? AND seen_at_block <= ?"
)
_SELECT_PAYMENT = f"SELECT {_PAYMENT_COLUMNS} FROM payments WHERE payment_id = ?"
_SELECT_PAYMENTS = (
    f"SELECT {_PAYMENT_COLUMNS} FROM payments WHERE channel_id = ? ORDER BY payment_id"
)
# A released charge with the same key is no earlier payment; so the unique index answers.
_SELECT_BY_KEY = (
    f"SELECT {_PAYMENT_COLUMNS} FROM payments"
    " WHERE channel_id = ? AND idempotency_key = ? AND outcome = 'charged'"
)
_SELECT_BY_VOUCHER = (
    f"SELECT {_PAYMENT_COLUMNS} FROM payments"
    " WHERE channel_id = ? AND cumulative = ? AND resource = ? ORDER BY payment_id DESC LIMIT 1"
)
_INSERT_PAYMENT = (
    "INSERT INTO payments"
    " (channel_id, cumulative, price, resource, time, idempotency_key, outcome, attempts)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_UPDATE_PAYMENT = "UPDATE payments SET outcome = ?, attempts = ? WHERE payment_id = ?"
_UPSERT_CURSOR = (
    "INSERT INTO cursors (name, position) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET position = excluded.position"
)


class Ledger:
    """The statements of one connection. Every method belongs into a transaction of the caller."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def accept(self, purchase: Purchase) -> Accepted:
        record = self._known(purchase.voucher.channel_id)
        earlier = self._earlier(purchase)
        decision = decide(record, purchase, None if earlier is None else earlier.payment)
        if decision.record != record:
            self._write_books(decision.record)
        if decision.payment is not None:
            return Accepted(decision.record, self._insert_payment(decision.payment))
        if decision.retried is not None and earlier is not None:
            self._write_outcome(earlier.payment_id, decision.retried)
            return Accepted(decision.record, earlier.payment_id)
        return Accepted(decision.record, None)

    def release(self, payment_id: int) -> ChannelRecord:
        row = self._connection.execute(_SELECT_PAYMENT, (payment_id,)).fetchone()
        if row is None:
            raise NotFound(f"no payment {payment_id}")
        payment = _payment(row).payment
        record, released = release(self._known(payment.channel_id), payment)
        self._write_books(record)
        self._write_outcome(payment_id, released)
        return record

    def begin_close(self, channel_id: ChannelId, voucher: Voucher | None) -> ChannelRecord:
        record = begin_close(self._known(channel_id), voucher)
        self._write_books(record)
        return record

    def close_failed(self, channel_id: ChannelId) -> ChannelRecord:
        record = close_failed(self._known(channel_id))
        self._write_books(record)
        return record

    def add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView
    ) -> ChannelRecord:
        record = ChannelRecord(channel_id, channel, view.state)
        self._connection.execute(_INSERT_CHANNEL, (*_record_row(record), view.block))
        return self.update_chain(channel_id, view)

    def update_chain(self, channel_id: ChannelId, view: ChainView) -> ChannelRecord:
        state = (*_state_row(view.state), view.block)
        self._connection.execute(_UPDATE_CHAIN, (*state, channel_id, view.block))
        return self._known(channel_id)

    def save_cursor(self, name: str, position: str) -> None:
        self._connection.execute(_UPSERT_CURSOR, (name, position))

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        row = self._connection.execute(_SELECT_RECORD, (channel_id,)).fetchone()
        return None if row is None else _record(row)

    def records(self) -> list[ChannelRecord]:
        return [_record(row) for row in self._connection.execute(_SELECT_RECORDS)]

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        return [_payment(row) for row in self._connection.execute(_SELECT_PAYMENTS, (channel_id,))]

    def cursor(self, name: str) -> str | None:
        query = "SELECT position FROM cursors WHERE name = ?"
        row = self._connection.execute(query, (name,)).fetchone()
        return None if row is None else str(row[0])

    def _known(self, channel_id: ChannelId) -> ChannelRecord:
        record = self.record(channel_id)
        if record is None:
            raise ChannelNotFound(channelId=to_hex(channel_id))
        return record

    def _earlier(self, purchase: Purchase) -> StoredPayment | None:
        """What :func:`decide` calls the earlier payment."""
        voucher = purchase.voucher
        if purchase.idempotency_key is None:
            amount = _blob(voucher.cumulative_amount)
            values = (voucher.channel_id, amount, purchase.resource)
            row = self._connection.execute(_SELECT_BY_VOUCHER, values).fetchone()
        else:
            key = (voucher.channel_id, purchase.idempotency_key)
            row = self._connection.execute(_SELECT_BY_KEY, key).fetchone()
        return None if row is None else _payment(row)

    def _write_books(self, record: ChannelRecord) -> None:
        self._connection.execute(_UPDATE_BOOKS, (*_books_row(record), record.channel_id))

    def _insert_payment(self, payment: Payment) -> int:
        cursor = self._connection.execute(
            _INSERT_PAYMENT,
            (
                payment.channel_id,
                _blob(payment.cumulative),
                _blob(payment.price),
                payment.resource,
                payment.time,
                payment.idempotency_key,
                payment.outcome.value,
                payment.attempts,
            ),
        )
        if cursor.lastrowid is None:
            raise sqlite3.DatabaseError("an insert gave no row id")
        return cursor.lastrowid

    def _write_outcome(self, payment_id: int, payment: Payment) -> None:
        values = (payment.outcome.value, payment.attempts, payment_id)
        self._connection.execute(_UPDATE_PAYMENT, values)


def _blob(amount: int) -> bytes:
    return amount.to_bytes(16, "big")


def _amount(blob: bytes) -> int:
    return int.from_bytes(blob, "big")


def _state_row(state: ChannelState) -> tuple[Any, ...]:
    amounts = (_blob(state.deposit), _blob(state.settled))
    return (state.status.value, *amounts, state.close_requested_at)


def _record_row(record: ChannelRecord) -> tuple[Any, ...]:
    channel = record.channel
    accounts = (channel.payer, channel.payee, channel.token, channel.authorized_signer)
    described = (record.channel_id, *accounts, channel.salt)
    return (*described, *_state_row(record.chain), *_books_row(record))


def _books_row(record: ChannelRecord) -> tuple[Any, ...]:
    amounts = (_blob(record.accepted), _blob(record.spent))
    return (*amounts, record.signature, record.closes_begun)


def _record(row: tuple[Any, ...]) -> ChannelRecord:
    channel_id, payer, payee, token, signer, salt = row[:6]
    status, deposit, settled, close_requested_at, accepted, spent, *rest = row[6:]
    channel = Channel(Address(payer), Address(payee), Address(token), Address(signer), salt)
    state = ChannelState(
        ChannelStatus(status), _amount(deposit), _amount(settled), close_requested_at
    )
    books = (_amount(accepted), _amount(spent), *rest)
    return ChannelRecord(ChannelId(channel_id), channel, state, *books)


def _payment(row: tuple[Any, ...]) -> StoredPayment:
    payment_id, channel_id, cumulative, price, resource, time, key, outcome, attempts = row
    payment = Payment(
        channel_id=ChannelId(channel_id),
        cumulative=_amount(cumulative),
        price=_amount(price),
        resource=resource,
        time=time,
        idempotency_key=key,
        outcome=Outcome(outcome),
        attempts=attempts,
    )
    return StoredPayment(payment_id, payment)
