"""Leases and the journal of transactions in SQLite's SQL. As with
:class:`channelpay.store.ledger.Ledger`, the caller opens and commits the transaction.
"""

# ruff: noqa: S608  (the statements are put together from the constants below, at import)

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from channelpay.errors import NotFound
from channelpay.protocol.transactions import (
    Outgoing,
    Signed,
    TransactionStatus,
    check_is_first,
)
from channelpay.protocol.types import Address
from channelpay.store.amounts import amount, blob
from channelpay.store.rows import gathered

_OUTGOING_COLUMNS = (
    "chain_id, sender, nonce, purpose, recipient, data, value_wei, gas,"
    " status, mined, block_number, block_hash, fee_wei"
)
_SIGNED_COLUMNS = "hash, raw, max_fee_wei, tip_wei, time"
_AMOUNTS = frozenset({7, 13, 16, 17})
"""Where amounts are in the rows of the statements below."""

_INSERT = f"INSERT INTO transactions ({_OUTGOING_COLUMNS}) VALUES ({', '.join('?' * 13)})"
_INSERT_BROADCAST = (
    f"INSERT INTO broadcasts (number, place, {_SIGNED_COLUMNS})"
    " SELECT ?1, (SELECT count(*) FROM broadcasts WHERE number = ?1), ?2, ?3, ?4, ?5, ?6 WHERE true"
    " ON CONFLICT (number, hash) DO NOTHING"
)
_FINISH = (
    "UPDATE transactions SET status = ?, mined = ?, block_number = ?, block_hash = ?, fee_wei = ?"
    " WHERE number = ?"
)
_SELECT = (
    f"SELECT number, {_OUTGOING_COLUMNS}, {_SIGNED_COLUMNS}"
    " FROM {source} JOIN broadcasts USING (number)"
)
_SELECT_ONE = _SELECT.format(source="transactions") + " WHERE number = ? ORDER BY place"
_SELECT_BY_NONCE = (
    _SELECT.format(source="transactions")
    + " WHERE chain_id = ? AND sender = ? AND nonce = ? ORDER BY place"
)
_SELECT_PENDING = (
    _SELECT.format(source="transactions INDEXED BY transactions_pending")
    + " WHERE chain_id = ? AND sender = ? AND status = 'pending' ORDER BY nonce, place"
)
_SELECT_NEWEST = (
    _SELECT.format(source="(SELECT * FROM transactions ORDER BY number DESC LIMIT ?)")
    + " ORDER BY number DESC, place"
)
_TAKE_LEASE = (
    "INSERT INTO leases (name, holder, until) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE"
    " SET holder = ?2, until = ?3 WHERE holder = ?2 OR until <= ?4"
)
_DROP_LEASE = "UPDATE leases SET until = 0 WHERE name = ? AND holder = ?"


class Journal:
    """The statements of one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def take_lease(self, name: str, holder: str, seconds: float, now: float) -> bool:
        row = (name, holder, now + seconds, now)
        return self._connection.execute(_TAKE_LEASE, row).rowcount == 1

    def drop_lease(self, name: str, holder: str) -> None:
        self._connection.execute(_DROP_LEASE, (name, holder))

    def journal(self, outgoing: Outgoing) -> Outgoing:
        nonce = (outgoing.chain_id, outgoing.sender, outgoing.nonce)
        for known in self._gathered(_SELECT_BY_NONCE, nonce):
            check_is_first(known, outgoing)
            return known
        number = self._connection.execute(_INSERT, _outgoing_row(outgoing)).lastrowid
        assert number is not None  # An INSERT has one.
        for signed in outgoing.broadcasts:
            self._connection.execute(_INSERT_BROADCAST, (number, *_signed_row(signed)))
        return self.outgoing(number)

    def add_broadcast(self, number: int, signed: Signed) -> Outgoing:
        self.outgoing(number)
        self._connection.execute(_INSERT_BROADCAST, (number, *_signed_row(signed)))
        return self.outgoing(number)

    def finish(
        self,
        number: int,
        status: TransactionStatus,
        mined: bytes | None,
        block_number: int | None,
        block_hash: bytes | None,
        fee_wei: int | None,
    ) -> Outgoing:
        fee = None if fee_wei is None else blob(fee_wei)
        row = (status.value, mined, block_number, block_hash, fee, number)
        self._connection.execute(_FINISH, row)
        return self.outgoing(number)

    def outgoing(self, number: int) -> Outgoing:
        for known in self._gathered(_SELECT_ONE, (number,)):
            return known
        raise NotFound(f"no transaction {number}")

    def pending(self, chain_id: int, sender: Address) -> list[Outgoing]:
        return self._gathered(_SELECT_PENDING, (chain_id, sender))

    def transactions(self, limit: int) -> list[Outgoing]:
        return self._gathered(_SELECT_NEWEST, (limit,))

    def _gathered(self, statement: str, values: tuple[Any, ...]) -> list[Outgoing]:
        return gathered(_with_amounts(self._connection.execute(statement, values)))


def _with_amounts(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield tuple(
            amount(value) if place in _AMOUNTS and value is not None else value
            for place, value in enumerate(row)
        )


def _outgoing_row(one: Outgoing) -> tuple[Any, ...]:
    call = (one.purpose, one.to, one.data, blob(one.value_wei), one.gas)
    fee = None if one.fee_wei is None else blob(one.fee_wei)
    end = (one.status.value, one.mined, one.block_number, one.block_hash, fee)
    return (one.chain_id, one.sender, one.nonce, *call, *end)


def _signed_row(signed: Signed) -> tuple[Any, ...]:
    return (
        signed.hash,
        signed.raw,
        blob(signed.max_fee_wei),
        blob(signed.tip_wei),
        signed.time,
    )
