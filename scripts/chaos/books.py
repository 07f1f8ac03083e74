"""The books as an auditor reads them: the tables themselves, with SQL of its own, in one snapshot.

It may look while a site runs, or is dead in the middle of anything.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from channelpay.protocol.types import ChannelId

SQLITE: Final = "sqlite:///"
_CHANNELS: LiteralString = (
    "SELECT channel_id, status, deposit, settled, accepted, spent FROM {0}channels"
)
_PAYMENTS: LiteralString = (
    "SELECT channel_id, idempotency_key, cumulative, price, outcome FROM {0}payments"
    " ORDER BY payment_id"
)
_Rows = list[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """What the books say of a channel; amounts in wei."""

    status: str
    deposit: int
    settled: int
    accepted: int
    spent: int


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """One row of the ledger."""

    channel_id: ChannelId
    key: str
    cumulative: int
    price: int
    outcome: str

    @property
    def is_charged(self) -> bool:
        """Whether it was not given back."""
        return self.outcome == "charged"


@dataclass(frozen=True, slots=True)
class Books:
    """All channels by their ids, and all payments, oldest first."""

    channels: dict[ChannelId, ChannelRow]
    payments: list[PaymentRow]


def read_books(url: str) -> Books:
    """What is committed in the books at this URL, which a site has opened before."""
    channels, payments = _of_sqlite(url) if url.startswith(SQLITE) else _of_postgres(url)
    return Books(
        {ChannelId(row[0]): ChannelRow(row[1], *map(_amount, row[2:])) for row in channels},
        [
            PaymentRow(ChannelId(row[0]), row[1], _amount(row[2]), _amount(row[3]), row[4])
            for row in payments
        ],
    )


def _of_sqlite(url: str) -> tuple[_Rows, _Rows]:
    path = url.removeprefix(SQLITE)
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'payments'").fetchall():
            return [], []
        connection.execute("BEGIN")
        channels = connection.execute(_CHANNELS.format("")).fetchall()
        return channels, connection.execute(_PAYMENTS.format("")).fetchall()


def _of_postgres(url: str) -> tuple[_Rows, _Rows]:
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = connection.execute("SELECT to_regclass('channelpay_payments')").fetchone()
        if found is None or found[0] is None:
            return [], []
        channels = connection.execute(_CHANNELS.format("channelpay_")).fetchall()
        return channels, connection.execute(_PAYMENTS.format("channelpay_")).fetchall()


def _amount(value: Any) -> int:
    return int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)
