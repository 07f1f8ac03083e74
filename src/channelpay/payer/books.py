"""What the sections of the payer's books share: the file, and how a channel is read."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from channelpay.errors import NotFound
from channelpay.payer.database import Database, amount_blob, blob_amount
from channelpay.payer.leases import Lease
from channelpay.payer.records import PayerChannel, Reservation
from channelpay.payer.schema import MIGRATIONS
from channelpay.payer.signed_fundings import presentable_open
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    Address,
    Channel,
    ChannelId,
    ChannelStatus,
    Deployment,
    Voucher,
)


class Books:
    """One SQLite file and this program's place among those that share it. Of the channels that it
    reads, each is as if ``beside`` had not set anything aside.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(path, MIGRATIONS)
        self._lease = Lease(path)
        self._clock = clock

    def close(self) -> None:
        self._database.close()
        self._lease.end()

    @property
    def _now(self) -> int:
        """Unix seconds."""
        return int(self._clock())

    def _execute(self, statement: str, *values: object) -> None:
        with self._database.write() as connection:
            connection.execute(statement, values)

    # --- inside one step ---------------------------------------------------------------------

    def _entry(
        self,
        connection: sqlite3.Connection,
        channel_id: ChannelId,
        beside: Reservation | None = None,
    ) -> PayerChannel:
        row = connection.execute(
            "SELECT * FROM channels WHERE channel_id = ?", (channel_id,)
        ).fetchone()
        if row is None:
            raise NotFound(f"no channel {to_hex(channel_id)} in the payer's books")
        return self._from_row(connection, row, beside)

    def _of_payer(self, connection: sqlite3.Connection, payer: Address) -> list[PayerChannel]:
        rows = connection.execute(
            "SELECT * FROM channels WHERE payer = ? ORDER BY rowid", (payer,)
        ).fetchall()
        return [self._from_row(connection, row) for row in rows]

    def _of_pair(
        self,
        connection: sqlite3.Connection,
        deployment: Deployment,
        payer: Address,
        payee: Address,
        token: Address,
        beside: Reservation | None = None,
    ) -> list[PayerChannel]:
        rows = connection.execute(
            "SELECT * FROM channels WHERE payee = ? AND payer = ? AND token = ?"
            " AND chain_id = ? AND contract = ? ORDER BY rowid",
            (payee, payer, token, deployment.chain_id, deployment.contract),
        ).fetchall()
        return [self._from_row(connection, row, beside) for row in rows]

    def _from_row(
        self, connection: sqlite3.Connection, row: sqlite3.Row, beside: Reservation | None = None
    ) -> PayerChannel:
        reserved = self._reserved(connection, row["channel_id"], beside)
        in_flight = sum(blob_amount(reservation["price"]) for reservation in reserved)
        authorized = presentable_open(connection, row, self._now)
        return replace(_channel_from(row, in_flight), authorized=authorized)

    def _reserved(
        self, connection: sqlite3.Connection, channel_id: ChannelId, beside: Reservation | None
    ) -> list[sqlite3.Row]:
        """What requests that are under way have set aside, but for one of them."""
        return connection.execute(
            "SELECT id, price, ceiling FROM reservations"
            " WHERE channel_id = ? AND expires_at > ? AND id IS NOT ? ORDER BY id",
            (channel_id, self._now, None if beside is None else beside.id),
        ).fetchall()


def is_known(connection: sqlite3.Connection, channel_id: ChannelId) -> bool:
    query = "SELECT 1 FROM channels WHERE channel_id = ?"
    return connection.execute(query, (channel_id,)).fetchone() is not None


def insert_channel(connection: sqlite3.Connection, entry: PayerChannel, funding_until: int) -> None:
    """Enter a channel of which nothing was signed."""
    channel, deployment, zero = entry.channel, entry.deployment, amount_blob(0)
    connection.execute(
        "INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, 0,"
        " NULL, ?, ?, ?, 0, ?, ?, ?, 0, 0, 0)",
        (
            entry.channel_id,
            deployment.chain_id,
            deployment.contract,
            channel.payer,
            channel.payee,
            channel.token,
            channel.authorized_signer,
            channel.salt,
            entry.url,
            entry.status.value,
            amount_blob(entry.deposit),
            amount_blob(entry.settled),
            zero,
            b"",
            zero,
            zero,
            entry.open_transaction,
            entry.first_block,
            funding_until,
            zero,
            zero,
            entry.in_doubt,
        ),
    )


def record_signed(connection: sqlite3.Connection, voucher: Voucher) -> None:
    """The highest voucher of its channel."""
    connection.execute(
        "UPDATE channels SET signed = ?, signature = ? WHERE channel_id = ?",
        (amount_blob(voucher.cumulative_amount), voucher.signature, voucher.channel_id),
    )


def _channel_from(row: sqlite3.Row, in_flight: int) -> PayerChannel:
    return PayerChannel(
        channel_id=ChannelId(row["channel_id"]),
        deployment=Deployment(row["chain_id"], Address(row["contract"])),
        channel=Channel(
            Address(row["payer"]),
            Address(row["payee"]),
            Address(row["token"]),
            Address(row["authorized_signer"]),
            row["salt"],
        ),
        deposit=blob_amount(row["deposit"]),
        url=row["url"],
        status=ChannelStatus(row["status"]),
        settled=blob_amount(row["settled"]),
        close_requested_at=row["close_requested_at"],
        signed=blob_amount(row["signed"]),
        signature=row["signature"],
        spent=blob_amount(row["spent"]),
        credible=blob_amount(row["credible"]),
        unsure=bool(row["unsure"]),
        in_flight=in_flight,
        presented=bool(row["presented"]),
        refused=row["refused"],
        open_transaction=row["open_transaction"],
        first_block=row["first_block"],
        in_doubt=bool(row["in_doubt"]),
        unanswered=row["unanswered"],
        unanswered_since=row["unanswered_since"],
        grace_seconds=row["grace_seconds"],
    )
