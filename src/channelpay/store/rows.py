"""What stores do alike with rows in memory: orders decided one after the other inside their one
transaction, and transactions put together from what a database joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from channelpay.errors import ChannelNotFound, ChannelPayError, ConfigError, NotFound
from channelpay.protocol.entries import (
    Change,
    Entries,
    EntryKey,
    EntryState,
    encode_state,
)
from channelpay.protocol.rules import (
    NO_ENTRIES,
    Amend,
    ChannelRecord,
    Charge,
    Decision,
    Order,
    Payment,
    Purchase,
    given_back,
    release,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.transactions import Outgoing, Signed, TransactionStatus, with_broadcast
from channelpay.protocol.types import Address, ChannelId
from channelpay.store.base import Accepted, Answer, StoredPayment


@dataclass(frozen=True, slots=True)
class Verdicts:
    """``answers`` in the order of the orders, and the rows that have to be written for them:
    ``entries`` as the books keep them.
    """

    answers: list[Answer] = field(default_factory=list)
    records: dict[ChannelId, ChannelRecord] = field(default_factory=dict)
    added: dict[int, Payment] = field(default_factory=dict)
    updated: dict[int, Payment] = field(default_factory=dict)
    entries: dict[EntryKey, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Released:
    """The rows that have to be written for a release."""

    record: ChannelRecord
    payment: Payment
    entries: dict[EntryKey, str]


def with_unsettled(
    sums: Mapping[Address, int], records: Iterable[ChannelRecord]
) -> dict[Address, int]:
    """The sums by token with what is unsettled of these channels."""
    raised = dict(sums)
    for record in records:
        if record.unsettled:
            token = record.channel.token
            raised[token] = raised.get(token, 0) + record.unsettled
    return raised


class Rows:
    """The channels, payments and entries that some orders are about. ``new_ids`` numbers new
    payments.
    """

    def __init__(
        self,
        new_ids: Iterator[int],
        records: Iterable[ChannelRecord] = (),
        payments: Iterable[StoredPayment] = (),
        entries: Entries = NO_ENTRIES,
    ) -> None:
        self.records: dict[ChannelId, ChannelRecord] = {
            record.channel_id: record for record in records
        }
        self.payments: dict[int, Payment] = {}
        self.entries: dict[EntryKey, EntryState] = dict(entries)
        self._new_ids = new_ids
        self._by_key: dict[tuple[ChannelId, str], int] = {}
        self._by_voucher: dict[tuple[ChannelId, int, str], int] = {}
        for stored in payments:
            self._enter(stored.payment_id, stored.payment)

    def decide(self, orders: Sequence[Order]) -> Verdicts:
        """Each order as if it came alone, after those before it; these rows change with it."""
        verdicts = Verdicts()
        for order in orders:
            try:
                answer: Answer = self._decide_one(order, verdicts)
            except ChannelPayError as refusal:
                answer = refusal
            verdicts.answers.append(answer)
        return verdicts

    def _decide_one(self, order: Order, verdicts: Verdicts) -> Accepted:
        record = self.records.get(order.channel_id)
        if record is None:
            raise ChannelNotFound(channelId=to_hex(order.channel_id))
        payment_id = self._earlier(order)
        earlier = None if payment_id is None else self.payments.get(payment_id)
        entries = NO_ENTRIES if order.terms is None else self._states(order.terms.keys)
        decision = order.decide(record, earlier, entries)
        if decision.entries:
            verdicts.entries.update(_encoded(decision.entries))
            self.entries.update(decision.entries)
        if decision.record is not record:
            self.records[order.channel_id] = verdicts.records[order.channel_id] = decision.record
        number = self._note(decision, payment_id, verdicts)
        return Accepted(
            decision.record,
            number,
            decision.charged,
            decision.payment is not None,
            _attempt(order, decision),
            decision.payment or decision.updated,
            decision.entries or NO_ENTRIES,
        )

    def release(self, payment_id: int, attempt: int) -> Released:
        """See :meth:`channelpay.store.base.Store.release`."""
        payment = self.payments.get(payment_id)
        if payment is None:
            raise NotFound(f"no payment {payment_id}")
        known = self.records[payment.channel_id]
        record, released = release(known, payment, attempt)
        entries = self._states({one.key for one in payment.undo})
        changed = given_back(payment, released, entries)
        texts = _encoded(changed)
        self.records[payment.channel_id] = record
        self.payments[payment_id] = released
        self.entries.update(changed)
        return Released(record, released, texts)

    def change_entries(
        self, keys: Iterable[EntryKey], change: Change
    ) -> tuple[Entries, dict[EntryKey, str]]:
        """See :meth:`channelpay.store.base.Store.change_entries`; also the texts that changed."""
        changed = change(self._states(keys))
        if not set(changed) <= set(keys):
            raise ConfigError("a change is of no other entries than those that it names")
        texts = _encoded(changed)
        self.entries.update(changed)
        return changed, texts

    def _states(self, keys: Iterable[EntryKey]) -> Entries:
        """Copies, so that nobody changes one by chance."""
        return {key: dict(self.entries[key]) for key in keys if key in self.entries}

    def _note(self, decision: Decision, payment_id: int | None, verdicts: Verdicts) -> int | None:
        """Enter the payments that were decided on; the number of the new one, or of the other."""
        number = None
        if decision.updated is not None and payment_id is not None:
            self.payments[payment_id] = decision.updated
            changed = verdicts.added if payment_id in verdicts.added else verdicts.updated
            changed[payment_id] = decision.updated
            number = payment_id
        if decision.payment is not None:
            number = next(self._new_ids)
            self._enter(number, decision.payment)
            verdicts.added[number] = decision.payment
        return number

    def _earlier(self, order: Order) -> int | None:
        """What :func:`channelpay.protocol.rules.decide` calls the earlier payment."""
        if isinstance(order, Purchase):
            key = order.idempotency_key
            if key is None:
                amount = order.voucher.cumulative_amount
                return self._by_voucher.get((order.channel_id, amount, order.resource))
        elif isinstance(order, Amend):
            key = order.idempotency_key
        else:
            return order.payment_id
        return None if key is None else self._by_key.get((order.channel_id, key))

    def _enter(self, payment_id: int, payment: Payment) -> None:
        """The latest of its kind counts, whatever order they come in."""
        self.payments[payment_id] = payment
        channel_id, key = payment.channel_id, payment.idempotency_key
        if key is not None:
            by_key = (channel_id, key)
            self._by_key[by_key] = max(payment_id, self._by_key.get(by_key, 0))
        else:
            by_voucher = (channel_id, payment.cumulative, payment.resource)
            self._by_voucher[by_voucher] = max(payment_id, self._by_voucher.get(by_voucher, 0))


def _attempt(order: Order, decision: Decision) -> int:
    if isinstance(order, Charge):
        return order.attempt
    if decision.payment is not None or decision.updated is None:
        return 1
    return decision.updated.attempts


def _encoded(entries: Entries) -> dict[EntryKey, str]:
    return {key: encode_state(state) for key, state in entries.items()}


def gathered(rows: Iterable[tuple[Any, ...]]) -> list[Outgoing]:
    """Transactions in the order of their first rows. A row is the fields of an :class:`Outgoing`
    without its broadcasts, then those of one :class:`Signed`; the oldest comes first.
    """
    found: dict[int, Outgoing] = {}
    for row in rows:
        outgoing = found.get(row[0]) or _outgoing(row[:_OUTGOING_FIELDS])
        found[row[0]] = with_broadcast(outgoing, Signed(*row[_OUTGOING_FIELDS:]))
    return list(found.values())


_OUTGOING_FIELDS = 14


def _outgoing(row: tuple[Any, ...]) -> Outgoing:
    number, chain_id, sender, nonce, purpose, to, data, value_wei, gas, status, *end = row
    known = (number, chain_id, Address(sender), nonce, purpose, Address(to), data, value_wei, gas)
    return Outgoing(*known, (), TransactionStatus(status), *end)
