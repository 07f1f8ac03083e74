"""The tables of the SQLite store, as the list of steps that led to them.

Amounts are 16 bytes, big-endian: SQLite's integers end at 2**63, and blobs of one length compare
like the numbers they hold. Times are Unix milliseconds; the ends of leases are Unix seconds,
unrounded, so that none ends too early.
"""

from __future__ import annotations

import sqlite3

from channelpay.store.migration import run_migrations

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

# What is unsettled in books of version 2 counts as so old as the upgrade.
_THIRD = (
    """
    ALTER TABLE channels ADD COLUMN
        unsettled_since INTEGER NOT NULL DEFAULT 0 CHECK (unsettled_since >= 0)
    """,
    """
    ALTER TABLE channels ADD COLUMN
        in_doubt INTEGER NOT NULL DEFAULT 0 CHECK (in_doubt IN (0, 1))
    """,
    """
    UPDATE channels SET unsettled_since = 1000 * CAST(strftime('%s', 'now') AS INTEGER)
        WHERE status <> 'finalized' AND accepted > settled
    """,
    """
    CREATE INDEX channels_owed ON channels (channel_id)
        WHERE status <> 'finalized' AND (unsettled_since > 0 OR closes_begun > 0)
    """,
    "CREATE INDEX channels_by_block ON channels (seen_at_block)",
    """
    ALTER TABLE payments ADD COLUMN
        undelivered INTEGER NOT NULL DEFAULT 0 CHECK (undelivered >= 0)
    """,
    """
    CREATE TABLE leases (
        name TEXT PRIMARY KEY,
        holder TEXT NOT NULL,
        until REAL NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE transactions (
        number INTEGER PRIMARY KEY,
        chain_id INTEGER NOT NULL,
        sender BLOB NOT NULL CHECK (length(sender) = 20),
        nonce INTEGER NOT NULL CHECK (nonce >= 0),
        purpose TEXT NOT NULL,
        recipient BLOB NOT NULL CHECK (length(recipient) = 20),
        data BLOB NOT NULL,
        value_wei BLOB NOT NULL CHECK (length(value_wei) = 16),
        gas INTEGER NOT NULL CHECK (gas >= 0),
        status TEXT NOT NULL CHECK (status IN ('pending', 'confirmed', 'failed')),
        mined BLOB CHECK (length(mined) = 32),
        block_number INTEGER,
        block_hash BLOB CHECK (length(block_hash) = 32),
        fee_wei BLOB CHECK (length(fee_wei) = 16),
        UNIQUE (chain_id, sender, nonce)
    ) STRICT
    """,
    """
    CREATE INDEX transactions_pending ON transactions (chain_id, sender, nonce)
        WHERE status = 'pending'
    """,
    """
    CREATE TABLE broadcasts (
        number INTEGER NOT NULL REFERENCES transactions,
        place INTEGER NOT NULL CHECK (place >= 0),
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        raw BLOB NOT NULL,
        max_fee_wei BLOB NOT NULL CHECK (length(max_fee_wei) = 16),
        tip_wei BLOB NOT NULL CHECK (length(tip_wei) = 16),
        time INTEGER NOT NULL,
        PRIMARY KEY (number, place),
        UNIQUE (number, hash)
    ) STRICT, WITHOUT ROWID
    """,
)

# The first voucher after a settlement enters its channel at the end of the index of what is owed,
# instead of somewhere among millions of ids: one page for all of a commit's channels, not one each.
_FOURTH = (
    "DROP INDEX channels_owed",
    """
    CREATE INDEX channels_owed ON channels (unsettled_since)
        WHERE status <> 'finalized' AND (unsettled_since > 0 OR closes_begun > 0)
    """,
    "ALTER TABLE payments ADD COLUMN kind TEXT NOT NULL DEFAULT 'sale'",
    "ALTER TABLE payments ADD COLUMN details TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE payments ADD COLUMN undo TEXT NOT NULL DEFAULT ''",
    """
    ALTER TABLE payments ADD COLUMN
        refunded BLOB NOT NULL DEFAULT x'00000000000000000000000000000000'
        CHECK (length(refunded) = 16 AND refunded <= price)
    """,
    """
    CREATE TABLE entries (
        kind TEXT NOT NULL,
        name BLOB NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID
    """,
)

_FIFTH = (
    """
    ALTER TABLE channels ADD COLUMN
        earlier BLOB NOT NULL DEFAULT x'' CHECK (length(earlier) % 81 = 0)
    """,
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)
"""Step n brings a file of version n to version n + 1 (``PRAGMA user_version``)."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to the newest version, in one transaction.

    Raises :class:`ConfigError` for a file of a version that this program does not know.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        run_migrations(connection, MIGRATIONS)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
