"""What the store's tests share: a channel, vouchers without real signatures, ready purchases."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from channelpay.protocol.rules import Purchase
from channelpay.protocol.types import (
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.store import ChainView, Store

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
) -> Purchase:
    voucher = Voucher(channel_id(number), cumulative, signature(cumulative))
    return Purchase(voucher, price, resource, now, key)


def dump(store: Store) -> object:
    """All that a store holds of channels and payments."""
    records = store.records()
    return records, [store.payments(record.channel_id) for record in records]


def raw_rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
