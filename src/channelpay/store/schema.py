"""The tables of the SQLite store, as the list of steps that led to them.

Amounts are 16 bytes, big-endian: SQLite's integers end at 2**63, and blobs of one length compare
like the numbers they hold. Times are Unix milliseconds.
"""

from __future__ import annotations

import sqlite3

from channelpay.errors import ConfigError

_FIRST = (
    """
    CREATE TABLE channels (
        channel_id BLOB PRIMARY KEY CHECK (length(channel_id) = 32),
        payer BLOB NOT NULL CHECK (length(payer) = 20),
        payee BLOB NOT NULL CHECK (length(payee) = 20),
        token BLOB NOT NULL CHECK (length(token) = 20),
        authorized_signer BLOB NOT NULL CHECK (length(authorized_signer) = 20),
        salt BLOB NOT NULL CHECK (length(salt) = 32),
        status TEXT NOT NULL CHECK (status IN ('absent', 'open', 'closing', 'finalized')),
        deposit BLOB NOT NULL CHECK (length(deposit) = 16),
        settled BLOB NOT NULL CHECK (length(settled) = 16),
        close_requested_at INTEGER NOT NULL,
        seen_at_block INTEGER NOT NULL,
        accepted BLOB NOT NULL CHECK (length(accepted) = 16),
        spent BLOB NOT NULL CHECK (length(spent) = 16 AND spent <= accepted),
        signature BLOB NOT NULL CHECK (length(signature) IN (0, 65)),
        closes_begun INTEGER NOT NULL CHECK (closes_begun >= 0)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE payments (
        payment_id INTEGER PRIMARY KEY,
        channel_id BLOB NOT NULL REFERENCES channels,
        cumulative BLOB NOT NULL CHECK (length(cumulative) = 16),
        price BLOB NOT NULL CHECK (length(price) = 16),
        resource TEXT NOT NULL,
        time INTEGER NOT NULL,
        idempotency_key TEXT,
        outcome TEXT NOT NULL CHECK (outcome IN ('charged', 'released')),
        attempts INTEGER NOT NULL CHECK (attempts >= 0)
    ) STRICT
    """,
    """
    CREATE UNIQUE INDEX payments_charged_once ON payments (channel_id, idempotency_key)
        WHERE idempotency_key IS NOT NULL AND outcome = 'charged'
    """,
    "CREATE INDEX payments_by_voucher ON payments (channel_id, cumulative, resource)",
    "CREATE TABLE cursors (name TEXT PRIMARY KEY, position TEXT NOT NULL) STRICT, WITHOUT ROWID",
)

# Only purchases without a key are looked up by their voucher, and most requests have one.
_SECOND = (
    "DROP INDEX payments_by_voucher",
    """
    CREATE INDEX payments_by_voucher ON payments (channel_id, cumulative, resource)
        WHERE idempotency_key IS NULL
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND)
"""Step n brings a file of version n to version n + 1 (``PRAGMA user_version``)."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest version, in one transaction.

    Raises :class:`ConfigError` for a file of a version that this program does not know.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise ConfigError(
                f"the books have version {version}, this program knows {len(MIGRATIONS)}",
                hint="Use the newer channelpay that wrote them.",
            )
        for statements in MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
