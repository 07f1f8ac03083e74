"""The books in memory: the reference for every other store, and the one for tests. Gone with the
process.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Lock
from typing import TypeVar

from channelpay.errors import ChannelNotFound, NotFound, StoreUnavailable
from channelpay.protocol.rules import (
    ChannelRecord,
    Payment,
    Purchase,
    begin_close,
    close_failed,
    decide,
    release,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Channel, ChannelId, Voucher
from channelpay.store.base import Accepted, ChainView, StoredPayment

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Row:
    record: ChannelRecord
    block: int


class MemoryStore:
    """A :class:`~channelpay.store.base.Store` that keeps nothing. Its futures are always done."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._closed = False
        self._rows: dict[ChannelId, _Row] = {}
        self._payments: list[Payment] = []
        self._cursors: dict[str, str] = {}

    def accept(self, purchase: Purchase) -> Future[Accepted]:
        return self._done(lambda: self._accept(purchase))

    def release(self, payment_id: int) -> Future[ChannelRecord]:
        return self._done(lambda: self._release(payment_id))

    def begin_close(self, channel_id: ChannelId, voucher: Voucher | None) -> Future[ChannelRecord]:
        return self._done(lambda: self._change(channel_id, lambda old: begin_close(old, voucher)))

    def close_failed(self, channel_id: ChannelId) -> Future[ChannelRecord]:
        return self._done(lambda: self._change(channel_id, close_failed))

    def add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView
    ) -> Future[ChannelRecord]:
        return self._done(lambda: self._add_channel(channel_id, channel, view))

    def update_chain(self, channel_id: ChannelId, view: ChainView) -> Future[ChannelRecord]:
        return self._done(lambda: self._update_chain(channel_id, view))

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        with self._lock:
            row = self._rows.get(channel_id)
            return None if row is None else row.record

    def records(self) -> list[ChannelRecord]:
        with self._lock:
            return [row.record for _, row in sorted(self._rows.items())]

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        with self._lock:
            return [stored for stored in self._ledger() if stored.payment.channel_id == channel_id]

    def cursor(self, name: str) -> str | None:
        with self._lock:
            return self._cursors.get(name)

    def save_cursor(self, name: str, position: str) -> Future[None]:
        return self._done(lambda: self._cursors.update({name: position}))

    def close(self) -> None:
        self._closed = True

    def _done(self, work: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        try:
            with self._lock:
                if self._closed:
                    raise StoreUnavailable("the books are closed")
                future.set_result(work())
        except Exception as error:  # noqa: BLE001  whatever it is belongs to the caller
            future.set_exception(error)
        return future

    def _accept(self, purchase: Purchase) -> Accepted:
        channel_id = purchase.voucher.channel_id
        row = self._row(channel_id)
        earlier = self._earlier(purchase)
        decision = decide(row.record, purchase, None if earlier is None else earlier.payment)
        self._rows[channel_id] = replace(row, record=decision.record)
        if decision.payment is not None:
            self._payments.append(decision.payment)
            return Accepted(decision.record, len(self._payments))
        if decision.retried is not None and earlier is not None:
            self._payments[earlier.payment_id - 1] = decision.retried
            return Accepted(decision.record, earlier.payment_id)
        return Accepted(decision.record, None)

    def _release(self, payment_id: int) -> ChannelRecord:
        if not 0 < payment_id <= len(self._payments):
            raise NotFound(f"no payment {payment_id}")
        payment = self._payments[payment_id - 1]
        row = self._row(payment.channel_id)
        record, self._payments[payment_id - 1] = release(row.record, payment)
        self._rows[payment.channel_id] = replace(row, record=record)
        return record

    def _change(
        self, channel_id: ChannelId, change: Callable[[ChannelRecord], ChannelRecord]
    ) -> ChannelRecord:
        row = self._row(channel_id)
        record = change(row.record)
        self._rows[channel_id] = replace(row, record=record)
        return record

    def _add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView
    ) -> ChannelRecord:
        if channel_id not in self._rows:
            record = ChannelRecord(channel_id, channel, view.state)
            self._rows[channel_id] = _Row(record, view.block)
        return self._update_chain(channel_id, view)

    def _update_chain(self, channel_id: ChannelId, view: ChainView) -> ChannelRecord:
        row = self._row(channel_id)
        if view.block >= row.block:
            row = _Row(replace(row.record, chain=view.state), view.block)
            self._rows[channel_id] = row
        return row.record

    def _row(self, channel_id: ChannelId) -> _Row:
        row = self._rows.get(channel_id)
        if row is None:
            raise ChannelNotFound(channelId=to_hex(channel_id))
        return row

    def _ledger(self) -> list[StoredPayment]:
        return [StoredPayment(index + 1, payment) for index, payment in enumerate(self._payments)]

    def _earlier(self, purchase: Purchase) -> StoredPayment | None:
        """What :func:`decide` calls the earlier payment."""
        voucher, key = purchase.voucher, purchase.idempotency_key
        for stored in reversed(self._ledger()):
            payment = stored.payment
            same_voucher = payment.cumulative == voucher.cumulative_amount
            same = (
                same_voucher and payment.resource == purchase.resource
                if key is None
                else payment.idempotency_key == key
            )
            if same and payment.channel_id == voucher.channel_id:
                return stored
        return None
