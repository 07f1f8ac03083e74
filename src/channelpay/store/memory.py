"""The books in memory, for tests and trials. Gone with the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from operator import itemgetter
from threading import Lock
from typing import TypeVar

from channelpay.errors import ChannelNotFound, NotFound, StoreUnavailable
from channelpay.protocol.rules import (
    ChannelRecord,
    Order,
    Payment,
    begin_close,
    close_failed,
    release,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, Channel, ChannelId, ChannelStatus, Voucher
from channelpay.store.base import Answer, ChainView, StoredPayment
from channelpay.store.rows import Rows

T = TypeVar("T")


class MemoryStore:
    """A :class:`~channelpay.store.base.Store` that keeps nothing. Its futures are always done."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._closed = False
        self._rows = Rows(count(1))
        self._blocks: dict[ChannelId, int] = {}
        self._cursors: dict[str, str] = {}

    def accept(self, orders: Sequence[Order]) -> Future[list[Answer]]:
        return self._done(lambda: self._rows.decide(orders).answers)

    def release(self, payment_id: int) -> Future[Payment]:
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
            return self._rows.records.get(channel_id)

    def records(self) -> list[ChannelRecord]:
        with self._lock:
            return [record for _, record in sorted(self._rows.records.items())]

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        with self._lock:
            stored = [
                StoredPayment(*row)
                for row in sorted(self._rows.payments.items(), key=itemgetter(0))
            ]
            return [one for one in stored if one.payment.channel_id == channel_id]

    def unsettled(self) -> dict[Address, int]:
        sums: dict[Address, int] = {}
        for record in self.records():
            more = record.accepted - record.chain.settled
            if more > 0 and record.chain.status is not ChannelStatus.FINALIZED:
                sums[record.channel.token] = sums.get(record.channel.token, 0) + more
        return sums

    @property
    def waiting(self) -> int:
        return 0

    @property
    def remote(self) -> bool:
        return False

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

    def _release(self, payment_id: int) -> Payment:
        payment = self._rows.payments.get(payment_id)
        if payment is None:
            raise NotFound(f"no payment {payment_id}")
        record, released = release(self._known(payment.channel_id), payment)
        self._written(record)
        self._rows.payments[payment_id] = released
        return released

    def _change(
        self, channel_id: ChannelId, change: Callable[[ChannelRecord], ChannelRecord]
    ) -> ChannelRecord:
        return self._written(change(self._known(channel_id)))

    def _add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView
    ) -> ChannelRecord:
        if channel_id not in self._rows.records:
            self._written(ChannelRecord(channel_id, channel, view.state))
        return self._update_chain(channel_id, view)

    def _update_chain(self, channel_id: ChannelId, view: ChainView) -> ChannelRecord:
        record = self._known(channel_id)
        if view.block < self._blocks.get(channel_id, view.block):
            return record
        self._blocks[channel_id] = view.block
        return self._written(replace(record, chain=view.state))

    def _written(self, record: ChannelRecord) -> ChannelRecord:
        self._rows.records[record.channel_id] = record
        return record

    def _known(self, channel_id: ChannelId) -> ChannelRecord:
        record = self._rows.records.get(channel_id)
        if record is None:
            raise ChannelNotFound(channelId=to_hex(channel_id))
        return record
