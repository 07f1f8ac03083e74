"""What stores do alike with rows in memory: orders decided one after the other inside their one
transaction, and transactions put together from what a database joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from channelpay.errors import ChannelNotFound, ChannelPayError, NotFound
from channelpay.protocol.rules import (
    ChannelRecord,
    Charge,
    Decision,
    Order,
    Payment,
    Purchase,
    decide,
    decide_charge,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.transactions import Outgoing, Signed, TransactionStatus, with_broadcast
from channelpay.protocol.types import Address, ChannelId
from channelpay.store.base import Accepted, Answer, StoredPayment


@dataclass(frozen=True, slots=True)
class Verdicts:
    """``answers`` in the order of the orders, and the rows that have to be written for them."""

    answers: list[Answer] = field(default_factory=list)
    records: dict[ChannelId, ChannelRecord] = field(default_factory=dict)
    added: dict[int, Payment] = field(default_factory=dict)
    updated: dict[int, Payment] = field(default_factory=dict)


class Rows:
    """The channels and payments that some orders are about. ``new_ids`` numbers new payments."""

    def __init__(
        self,
        new_ids: Iterator[int],
        records: Iterable[ChannelRecord] = (),
        payments: Iterable[StoredPayment] = (),
    ) -> None:
        self.records = {record.channel_id: record for record in records}
        self.payments: dict[int, Payment] = {}
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
        if isinstance(order, Charge):
            payment_id: int | None = order.payment_id
            decision = decide_charge(record, order, self._payment_of(order))
        else:
            payment_id = self._earlier(order)
            earlier = None if payment_id is None else self.payments[payment_id]
            decision = decide(record, order, earlier)
        if decision.record is not record:
            self.records[order.channel_id] = verdicts.records[order.channel_id] = decision.record
        number = self._note(decision, payment_id, verdicts)
        return Accepted(
            decision.record,
            number,
            decision.charged,
            decision.payment is not None,
            _attempt(order, decision),
        )

    def _note(self, decision: Decision, payment_id: int | None, verdicts: Verdicts) -> int | None:
        """Enter the payment that was decided on; its number."""
        if decision.payment is not None:
            added = next(self._new_ids)
            self._enter(added, decision.payment)
            verdicts.added[added] = decision.payment
            return added
        if decision.updated is not None and payment_id is not None:
            self.payments[payment_id] = decision.updated
            changed = verdicts.added if payment_id in verdicts.added else verdicts.updated
            changed[payment_id] = decision.updated
            return payment_id
        return None

    def _payment_of(self, charge: Charge) -> Payment:
        payment = self.payments.get(charge.payment_id)
        if payment is None or payment.channel_id != charge.channel_id:
            raise NotFound(f"no payment {charge.payment_id} of this channel")
        return payment

    def _earlier(self, purchase: Purchase) -> int | None:
        """What :func:`channelpay.protocol.rules.decide` calls the earlier payment."""
        channel_id, key = purchase.channel_id, purchase.idempotency_key
        if key is not None:
            return self._by_key.get((channel_id, key))
        amount = purchase.voucher.cumulative_amount
        return self._by_voucher.get((channel_id, amount, purchase.resource))

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
    return 1 if decision.updated is None else decision.updated.attempts


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
