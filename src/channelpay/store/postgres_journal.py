"""Leases and the journal of transactions in PostgreSQL's SQL, inside a transaction that the caller
opens and commits.

Each of its verbs is a statement or two at once, where :mod:`channelpay.store.postgres_ledger` loads
and writes for all verbs together: there are few. One lock keeps them from waiting for each other in
a circle.
"""

# ruff: noqa: S608  (the statements are put together from the constants below, at import)

from __future__ import annotations

from typing import Any, LiteralString

from psycopg import Connection

from channelpay.errors import NotFound
from channelpay.protocol.transactions import Outgoing, Signed, TransactionStatus, check_is_first
from channelpay.protocol.types import Address
from channelpay.store.rows import gathered

JOURNAL_LOCK = 490_721_514
"""With the schema's name, the advisory lock of whoever writes here; any number would do."""

_LOCK: LiteralString = "SELECT pg_advisory_xact_lock(%s::integer, hashtext(current_schema()))"
_OUTGOING_COLUMNS: LiteralString = (
    "chain_id, sender, nonce, purpose, recipient, data, value_wei, gas,"
    " status, mined, block_number, block_hash, fee_wei"
)
_SIGNED_COLUMNS: LiteralString = "hash, raw, max_fee_wei, tip_wei, time"
_INSERT: LiteralString = (
    f"INSERT INTO channelpay_transactions ({_OUTGOING_COLUMNS})"
    " VALUES (%s, %s, %s, %s, %s, %s, %s::numeric, %s, %s, %s, %s, %s, %s::numeric)"
    " RETURNING number"
)
_INSERT_BROADCAST: LiteralString = (
    f"INSERT INTO channelpay_broadcasts (number, place, {_SIGNED_COLUMNS})"
    " SELECT %(number)s,"
    " (SELECT count(*) FROM channelpay_broadcasts WHERE number = %(number)s),"
    " %(hash)s, %(raw)s, %(max_fee_wei)s::numeric, %(tip_wei)s::numeric, %(time)s"
    " ON CONFLICT (number, hash) DO NOTHING"
)
_FINISH: LiteralString = (
    "UPDATE channelpay_transactions SET status = %s, mined = %s, block_number = %s,"
    " block_hash = %s, fee_wei = %s::numeric WHERE number = %s"
)
_SELECT: LiteralString = f"SELECT number, {_OUTGOING_COLUMNS}, {_SIGNED_COLUMNS}"
_BROADCASTS: LiteralString = "JOIN channelpay_broadcasts USING (number)"
_SELECT_ONE: LiteralString = (
    f"{_SELECT} FROM channelpay_transactions {_BROADCASTS} WHERE number = %s ORDER BY place"
)
_SELECT_BY_NONCE: LiteralString = (
    f"{_SELECT} FROM channelpay_transactions {_BROADCASTS}"
    " WHERE chain_id = %s AND sender = %s AND nonce = %s ORDER BY place"
)
_SELECT_PENDING: LiteralString = (
    f"{_SELECT} FROM channelpay_transactions {_BROADCASTS}"
    " WHERE chain_id = %s AND sender = %s AND status = 'pending' ORDER BY nonce, place"
)
_SELECT_NEWEST: LiteralString = (
    f"{_SELECT} FROM (SELECT * FROM channelpay_transactions ORDER BY number DESC LIMIT %s)"
    f" AS newest {_BROADCASTS} ORDER BY number DESC, place"
)
_TAKE_LEASE: LiteralString = (
    "INSERT INTO channelpay_leases AS known (name, holder, until)"
    " VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s)) ON CONFLICT (name) DO UPDATE"
    " SET holder = excluded.holder, until = excluded.until"
    " WHERE known.holder = excluded.holder OR known.until <= clock_timestamp()"
)
_DROP_LEASE: LiteralString = (
    "UPDATE channelpay_leases SET until = '-infinity' WHERE name = %s AND holder = %s"
)


class Journal:
    """The statements of one transaction. Takes the lock with the first of them; whoever has locked
    channels did so before it, and cursors come after.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._connection.execute(_LOCK, (JOURNAL_LOCK,))

    def take_lease(self, name: str, holder: str, seconds: float) -> bool:
        return self._connection.execute(_TAKE_LEASE, (name, holder, seconds)).rowcount == 1

    def drop_lease(self, name: str, holder: str) -> None:
        self._connection.execute(_DROP_LEASE, (name, holder))

    def journal(self, outgoing: Outgoing) -> Outgoing:
        nonce = (outgoing.chain_id, outgoing.sender, outgoing.nonce)
        for known in _select(self._connection, _SELECT_BY_NONCE, nonce):
            check_is_first(known, outgoing)
            return known
        inserted = self._connection.execute(_INSERT, _outgoing_row(outgoing)).fetchone()
        assert inserted is not None  # Under the lock nobody else took the nonce.
        for signed in outgoing.broadcasts:
            self._insert_broadcast(inserted[0], signed)
        return self._outgoing(inserted[0])

    def add_broadcast(self, number: int, signed: Signed) -> Outgoing:
        self._outgoing(number)
        self._insert_broadcast(number, signed)
        return self._outgoing(number)

    def finish(
        self,
        number: int,
        status: TransactionStatus,
        mined: bytes | None,
        block_number: int | None,
        block_hash: bytes | None,
        fee_wei: int | None,
    ) -> Outgoing:
        row = (status.value, mined, block_number, block_hash, _text(fee_wei), number)
        self._connection.execute(_FINISH, row)
        return self._outgoing(number)

    def _insert_broadcast(self, number: int, signed: Signed) -> None:
        row = {
            "number": number,
            "hash": signed.hash,
            "raw": signed.raw,
            "max_fee_wei": str(signed.max_fee_wei),
            "tip_wei": str(signed.tip_wei),
            "time": signed.time,
        }
        self._connection.execute(_INSERT_BROADCAST, row)

    def _outgoing(self, number: int) -> Outgoing:
        for known in _select(self._connection, _SELECT_ONE, (number,)):
            return known
        raise NotFound(f"no transaction {number}")


def pending(connection: Connection[Any], chain_id: int, sender: Address) -> list[Outgoing]:
    """See :meth:`channelpay.protocol.transactions.Outbox.pending`."""
    return _select(connection, _SELECT_PENDING, (chain_id, sender))


def transactions(connection: Connection[Any], limit: int) -> list[Outgoing]:
    """See :meth:`channelpay.protocol.transactions.Outbox.transactions`."""
    return _select(connection, _SELECT_NEWEST, (limit,))


def _select(
    connection: Connection[Any], statement: LiteralString, values: tuple[Any, ...]
) -> list[Outgoing]:
    return gathered(connection.execute(statement, values))


def _outgoing_row(one: Outgoing) -> tuple[Any, ...]:
    call = (one.purpose, one.to, one.data, _text(one.value_wei), one.gas)
    end = (one.status.value, one.mined, one.block_number, one.block_hash, _text(one.fee_wei))
    return (one.chain_id, one.sender, one.nonce, *call, *end)


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)
