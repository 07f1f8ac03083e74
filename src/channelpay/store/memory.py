"""The books in memory, for tests and trials. Gone with the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import count
from operator import itemgetter
from threading import Lock
from typing import TypeVar

from channelpay.errors import ChannelNotFound, NotFound, StoreUnavailable
from channelpay.protocol.entries import Change, Entries, EntryKey, EntryState
from channelpay.protocol.rules import (
    ChannelRecord,
    Order,
    Outcome,
    Payment,
    begin_close,
    close_failed,
    enter_chain,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.transactions import (
    Outgoing,
    Signed,
    TransactionStatus,
    check_is_first,
    with_broadcast,
)
from channelpay.protocol.types import Address, Channel, ChannelId, ChannelStatus, Voucher
from channelpay.store.base import Answer, ChainView, Clock, StoredPayment, Totals
from channelpay.store.rows import Rows, with_unsettled

T = TypeVar("T")


class MemoryStore:
    """A :class:`~channelpay.store.base.Store` that keeps nothing. Its futures are always done."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self._closed = False
        self._rows = Rows(count(1))
        self._blocks: dict[ChannelId, int] = {}
        self._cursors: dict[str, str] = {}
        self._leases: dict[str, tuple[str, float]] = {}
        self._transactions: dict[int, Outgoing] = {}

    def accept(self, orders: Sequence[Order]) -> Future[list[Answer]]:
        return self._done(lambda: self._rows.decide(orders).answers)

    def release(self, payment_id: int, attempt: int) -> Future[Payment]:
        return self._done(lambda: self._rows.release(payment_id, attempt).payment)

    def change_entries(self, keys: Sequence[EntryKey], change: Change) -> Future[Entries]:
        return self._done(lambda: self._rows.change_entries(keys, change)[0])

    def begin_close(self, channel_id: ChannelId, voucher: Voucher | None) -> Future[ChannelRecord]:
        return self._done(
            lambda: self._change(channel_id, lambda old: begin_close(old, voucher, self._now_ms()))
        )

    def close_failed(self, channel_id: ChannelId) -> Future[ChannelRecord]:
        return self._done(lambda: self._change(channel_id, close_failed))

    def add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView, *, in_doubt: bool = False
    ) -> Future[ChannelRecord]:
        return self._done(lambda: self._add_channel(channel_id, channel, view, in_doubt=in_doubt))

    def update_chain(
        self, channel_id: ChannelId, view: ChainView, *, rewound: bool = False
    ) -> Future[ChannelRecord]:
        return self._done(lambda: self._update_chain(channel_id, view, rewound=rewound))

    def mark_in_doubt(self) -> Future[int]:
        return self._done(self._mark_in_doubt)

    def take_lease(self, name: str, holder: str, seconds: float) -> Future[bool]:
        return self._done(lambda: self._take_lease(name, holder, seconds))

    def drop_lease(self, name: str, holder: str) -> Future[None]:
        return self._done(lambda: self._drop_lease(name, holder))

    def journal(self, outgoing: Outgoing) -> Future[Outgoing]:
        return self._done(lambda: self._journal(outgoing))

    def add_broadcast(self, number: int, signed: Signed) -> Future[Outgoing]:
        return self._done(lambda: self._noted(with_broadcast(self._outgoing(number), signed)))

    def finish(
        self,
        number: int,
        status: TransactionStatus,
        mined: bytes | None,
        block_number: int | None,
        block_hash: bytes | None,
        fee_wei: int | None,
    ) -> Future[Outgoing]:
        return self._done(
            lambda: self._noted(
                replace(
                    self._outgoing(number),
                    status=status,
                    mined=mined,
                    block_number=block_number,
                    block_hash=block_hash,
                    fee_wei=fee_wei,
                )
            )
        )

    def pending(self, chain_id: int, sender: Address) -> list[Outgoing]:
        with self._lock:
            waiting = [
                one
                for one in self._transactions.values()
                if (one.chain_id, one.sender) == (chain_id, sender)
                and one.status is TransactionStatus.PENDING
            ]
            return sorted(waiting, key=lambda one: one.nonce)

    def transactions(self, limit: int = 100) -> list[Outgoing]:
        with self._lock:
            return list(reversed(self._transactions.values()))[:limit]

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        with self._lock:
            return self._rows.records.get(channel_id)

    def records(self) -> list[ChannelRecord]:
        with self._lock:
            return [record for _, record in sorted(self._rows.records.items())]

    def entry(self, key: EntryKey) -> EntryState | None:
        with self._lock:
            state = self._rows.entries.get(key)
        return None if state is None else dict(state)

    def entries(
        self, kind: str, prefix: bytes = b"", after: bytes = b"", limit: int = 1_000
    ) -> list[tuple[EntryKey, EntryState]]:
        with self._lock:
            found = sorted(
                key
                for key in self._rows.entries
                if key.kind == kind and key.name.startswith(prefix) and key.name > after
            )
            return [(key, dict(self._rows.entries[key])) for key in found[:limit]]

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        with self._lock:
            stored = [
                StoredPayment(*row)
                for row in sorted(self._rows.payments.items(), key=itemgetter(0))
            ]
            return [one for one in stored if one.payment.channel_id == channel_id]

    def payment(self, channel_id: ChannelId, idempotency_key: str) -> StoredPayment | None:
        found = (
            one
            for one in self.payments(channel_id)
            if one.payment.idempotency_key == idempotency_key
            and one.payment.outcome is Outcome.CHARGED
        )
        return next(found, None)

    def payment_numbered(self, payment_id: int) -> StoredPayment | None:
        with self._lock:
            payment = self._rows.payments.get(payment_id)
            return None if payment is None else StoredPayment(payment_id, payment)

    def owed(self) -> list[ChannelRecord]:
        return [record for record in self.records() if _is_owed(record)]

    def seen_after(self, block: int) -> list[ChannelRecord]:
        with self._lock:
            later = sorted(channel_id for channel_id, seen in self._blocks.items() if seen > block)
            return [self._rows.records[channel_id] for channel_id in later]

    def unsettled(self) -> dict[Address, int]:
        return with_unsettled({}, self.records())

    def totals(self) -> dict[Address, Totals]:
        sums: dict[Address, Totals] = {}
        for record in self.records():
            token = record.channel.token
            sums[token] = sums.get(token, Totals()).plus(record)
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

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _change(
        self, channel_id: ChannelId, change: Callable[[ChannelRecord], ChannelRecord]
    ) -> ChannelRecord:
        return self._written(change(self._known(channel_id)))

    def _add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView, *, in_doubt: bool
    ) -> ChannelRecord:
        if channel_id not in self._rows.records:
            self._written(ChannelRecord(channel_id, channel, view.state, in_doubt=in_doubt))
        return self._update_chain(channel_id, view, rewound=False)

    def _update_chain(
        self, channel_id: ChannelId, view: ChainView, *, rewound: bool
    ) -> ChannelRecord:
        record = self._known(channel_id)
        if view.block < self._blocks.get(channel_id, view.block) and not rewound:
            return record
        self._blocks[channel_id] = view.block
        return self._written(enter_chain(record, view.state, self._now_ms()))

    def _mark_in_doubt(self) -> int:
        live = [
            record
            for record in self._rows.records.values()
            if record.chain.status is not ChannelStatus.FINALIZED
        ]
        for record in live:
            self._written(replace(record, in_doubt=True))
        return len(live)

    def _take_lease(self, name: str, holder: str, seconds: float) -> bool:
        now = self._clock()
        other, until = self._leases.get(name, (holder, now))
        if other != holder and now < until:
            return False
        self._leases[name] = (holder, now + seconds)
        return True

    def _drop_lease(self, name: str, holder: str) -> None:
        if self._leases.get(name, ("", 0.0))[0] == holder:
            del self._leases[name]

    def _journal(self, outgoing: Outgoing) -> Outgoing:
        for known in self._transactions.values():
            if _nonce(known) == _nonce(outgoing):
                check_is_first(known, outgoing)
                return known
        return self._noted(replace(outgoing, number=len(self._transactions) + 1))

    def _outgoing(self, number: int) -> Outgoing:
        outgoing = self._transactions.get(number)
        if outgoing is None:
            raise NotFound(f"no transaction {number}")
        return outgoing

    def _noted(self, outgoing: Outgoing) -> Outgoing:
        self._transactions[outgoing.number] = outgoing
        return outgoing

    def _written(self, record: ChannelRecord) -> ChannelRecord:
        self._rows.records[record.channel_id] = record
        return record

    def _known(self, channel_id: ChannelId) -> ChannelRecord:
        record = self._rows.records.get(channel_id)
        if record is None:
            raise ChannelNotFound(channelId=to_hex(channel_id))
        return record


def _is_owed(record: ChannelRecord) -> bool:
    is_final = record.chain.status is ChannelStatus.FINALIZED
    return not is_final and (record.unsettled > 0 or record.closes_begun > 0)


def _nonce(outgoing: Outgoing) -> tuple[int, Address, int]:
    return outgoing.chain_id, outgoing.sender, outgoing.nonce
