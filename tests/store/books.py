"""What the store's tests share: a channel, vouchers without real signatures, ready purchases."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from channelpay.errors import ChannelPayError
from channelpay.protocol.rules import REFUND, Charge, Order, Outcome, Payment, Purchase, Terms
from channelpay.protocol.types import (
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.store import Accepted, ChainView, Store

DEPLOYMENT = Deployment(31337, Address(b"\xc0" * 20))
NOW_MS = 1_800_000_000_000
DEPOSIT = 1_000


def channel(number: int = 1) -> Channel:
    payer, payee = Address(b"\xa0" * 20), Address(b"\xb0" * 20)
    return Channel(payer, payee, Address(b"\x70" * 20), payer, number.to_bytes(32, "big"))


def channel_id(number: int = 1) -> ChannelId:
    return channel(number).id(DEPLOYMENT)


def view(
    deposit: int = DEPOSIT,
    *,
    block: int = 10,
    status: ChannelStatus = ChannelStatus.OPEN,
    settled: int = 0,
) -> ChainView:
    return ChainView(ChannelState(status, deposit, settled), block)


def add(store: Store, number: int = 1, deposit: int = DEPOSIT) -> ChannelId:
    return store.add_channel(channel_id(number), channel(number), view(deposit)).result().channel_id


def signature(cumulative: int) -> bytes:
    """Stands for a checked signature: the store never looks at it, and must keep it to the byte."""
    return cumulative.to_bytes(64, "big") + b"\x1b"


def purchase(
    cumulative: int,
    price: int,
    *,
    number: int = 1,
    resource: str = "GET https://site.example/page",
    key: str | None = None,
    now: int = NOW_MS,
    metered: bool = False,
    risk_max: int | None = None,
    terms: Terms | None = None,
) -> Purchase:
    voucher = Voucher(channel_id(number), cumulative, signature(cumulative))
    return Purchase(voucher, price, resource, now, key, metered, risk_max, terms)


def charge(
    payment_id: int | None,
    total: int,
    *,
    number: int = 1,
    attempt: int = 1,
    risk_max: int | None = None,
    terms: Terms | None = None,
) -> Charge:
    assert payment_id is not None
    return Charge(channel_id(number), payment_id, total, attempt, risk_max, terms)


def order(store: Store, one: Order) -> Accepted:
    """One order that is waited for; raises its refusal."""
    (answer,) = store.accept([one]).result()
    if isinstance(answer, ChannelPayError):
        raise answer
    return answer


def dump(store: Store) -> object:
    """All that a store holds of channels and payments."""
    records = store.records()
    return records, [store.payments(record.channel_id) for record in records]


def spent_by_payments(store: Store) -> int:
    """What all payments say was spent; the channels say the same."""
    spent = 0
    for record in store.records():
        payments = [stored.payment for stored in store.payments(record.channel_id)]
        charged = sum(map(moved, payments))
        assert record.spent == charged <= record.accepted
        spent += charged
    return spent


def moved(payment: Payment) -> int:
    """By how much it changed what is spent."""
    if payment.outcome is Outcome.RELEASED:
        return 0
    return -payment.price if payment.kind == REFUND else payment.price


def raw_rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
