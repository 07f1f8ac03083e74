"""The tables of the PostgreSQL store, as the list of steps that led to them.

They hold what the SQLite tables hold (:mod:`channelpay.store.schema`), under the same constraints.
Amounts are ``numeric(39, 0)``, wide enough for a uint128; times are Unix milliseconds. Texts are
compared byte by byte (collation C), so that no index depends on the collations of the host.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from channelpay.errors import ConfigError

if TYPE_CHECKING:
    from psycopg import Connection

MIGRATION_LOCK = 4_907_215_131
"""The advisory lock that a migration holds; any number that other programs do not use would do."""
MIGRATION_SECONDS = 60
"""How long one process waits for another's migration, and a migration may take."""

_UINT128: LiteralString = "< 340282366920938463463374607431768211456"
_AMOUNT: LiteralString = "numeric(39, 0) NOT NULL CHECK ({0} >= 0 AND {0} " + _UINT128 + ")"
_BYTES: LiteralString = "bytea NOT NULL CHECK (length({0}) = {1})"

# A voucher changes its channel's row and no index: with room on its page, the new version of the
# row stays there, and the table does not grow.
_FIRST: tuple[LiteralString, ...] = (
    f"""
    CREATE TABLE channelpay_channels (
        channel_id bytea PRIMARY KEY CHECK (length(channel_id) = 32),
        payer {_BYTES.format("payer", "20")},
        payee {_BYTES.format("payee", "20")},
        token {_BYTES.format("token", "20")},
        authorized_signer {_BYTES.format("authorized_signer", "20")},
        salt {_BYTES.format("salt", "32")},
        status text NOT NULL CHECK (status IN ('absent', 'open', 'closing', 'finalized')),
        deposit {_AMOUNT.format("deposit")},
        settled {_AMOUNT.format("settled")},
        close_requested_at bigint NOT NULL,
        seen_at_block bigint NOT NULL,
        accepted {_AMOUNT.format("accepted")},
        spent {_AMOUNT.format("spent")},
        signature bytea NOT NULL CHECK (length(signature) IN (0, 65)),
        closes_begun integer NOT NULL CHECK (closes_begun >= 0),
        CHECK (spent <= accepted)
    ) WITH (fillfactor = 50)
    """,
    "CREATE SEQUENCE channelpay_payment_ids",
    f"""
    CREATE TABLE channelpay_payments (
        payment_id bigint PRIMARY KEY,
        channel_id bytea NOT NULL REFERENCES channelpay_channels,
        cumulative {_AMOUNT.format("cumulative")},
        price {_AMOUNT.format("price")},
        resource text COLLATE "C" NOT NULL,
        time bigint NOT NULL,
        idempotency_key text COLLATE "C",
        outcome text NOT NULL CHECK (outcome IN ('charged', 'released')),
        attempts integer NOT NULL CHECK (attempts >= 0)
    )
    """,
    """
    CREATE UNIQUE INDEX channelpay_payments_charged_once
        ON channelpay_payments (channel_id, idempotency_key)
        WHERE idempotency_key IS NOT NULL AND outcome = 'charged'
    """,
    # Only purchases without a key are looked up by their voucher. An index has no room for a URL.
    """
    CREATE INDEX channelpay_payments_by_voucher
        ON channelpay_payments (channel_id, cumulative, hashtextextended(resource, 0), payment_id)
        WHERE idempotency_key IS NULL
    """,
    """
    CREATE TABLE channelpay_cursors (
        name text COLLATE "C" PRIMARY KEY,
        position text NOT NULL
    )
    """,
)

# What is unsettled in books of version 1 counts as so old as the upgrade. What the indexes depend
# on changes with news from the chain and with the first voucher after a settlement, not with each:
# so new versions of a row still find room on its page.
_SECOND: tuple[LiteralString, ...] = (
    """
    ALTER TABLE channelpay_channels
        ADD COLUMN unsettled_since bigint NOT NULL DEFAULT 0 CHECK (unsettled_since >= 0),
        ADD COLUMN in_doubt boolean NOT NULL DEFAULT false
    """,
    """
    UPDATE channelpay_channels SET unsettled_since = 1000 * extract(epoch FROM now())::bigint
        WHERE status <> 'finalized' AND accepted > settled
    """,
    """
    CREATE INDEX channelpay_channels_owed ON channelpay_channels (channel_id)
        WHERE status <> 'finalized' AND (unsettled_since > 0 OR closes_begun > 0)
    """,
    "CREATE INDEX channelpay_channels_by_block ON channelpay_channels (seen_at_block)",
    """
    ALTER TABLE channelpay_payments
        ADD COLUMN undelivered bigint NOT NULL DEFAULT 0 CHECK (undelivered >= 0)
    """,
    """
    CREATE TABLE channelpay_leases (
        name text COLLATE "C" PRIMARY KEY,
        holder text COLLATE "C" NOT NULL,
        until timestamptz NOT NULL
    )
    """,
    f"""
    CREATE TABLE channelpay_transactions (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        chain_id bigint NOT NULL,
        sender {_BYTES.format("sender", "20")},
        nonce bigint NOT NULL CHECK (nonce >= 0),
        purpose text NOT NULL,
        recipient {_BYTES.format("recipient", "20")},
        data bytea NOT NULL,
        value_wei {_AMOUNT.format("value_wei")},
        gas bigint NOT NULL CHECK (gas >= 0),
        status text NOT NULL CHECK (status IN ('pending', 'confirmed', 'failed')),
        mined bytea CHECK (length(mined) = 32),
        block_number bigint,
        block_hash bytea CHECK (length(block_hash) = 32),
        fee_wei numeric(39, 0) CHECK (fee_wei >= 0 AND fee_wei {_UINT128}),
        UNIQUE (chain_id, sender, nonce)
    )
    """,
    """
    CREATE INDEX channelpay_transactions_pending
        ON channelpay_transactions (chain_id, sender, nonce) WHERE status = 'pending'
    """,
    f"""
    CREATE TABLE channelpay_broadcasts (
        number bigint NOT NULL REFERENCES channelpay_transactions,
        place integer NOT NULL CHECK (place >= 0),
        hash {_BYTES.format("hash", "32")},
        raw bytea NOT NULL,
        max_fee_wei {_AMOUNT.format("max_fee_wei")},
        tip_wei {_AMOUNT.format("tip_wei")},
        time bigint NOT NULL,
        PRIMARY KEY (number, place),
        UNIQUE (number, hash)
    )
    """,
)

# A new state changes no index: with room on its page, the new version of the row stays there.
_THIRD: tuple[LiteralString, ...] = (
    f"""
    ALTER TABLE channelpay_payments
        ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'sale',
        ADD COLUMN details text NOT NULL DEFAULT '',
        ADD COLUMN undo text NOT NULL DEFAULT '',
        ADD COLUMN refunded {_AMOUNT.format("refunded")} DEFAULT 0 CHECK (refunded <= price)
    """,
    """
    CREATE TABLE channelpay_entries (
        kind text COLLATE "C" NOT NULL,
        name bytea NOT NULL,
        state text NOT NULL,
        PRIMARY KEY (kind, name)
    ) WITH (fillfactor = 70)
    """,
)

_FOURTH: tuple[LiteralString, ...] = (
    """
    ALTER TABLE channelpay_channels
        ADD COLUMN earlier bytea NOT NULL DEFAULT '' CHECK (length(earlier) % 81 = 0)
    """,
)

MIGRATIONS: tuple[tuple[LiteralString, ...], ...] = (_FIRST, _SECOND, _THIRD, _FOURTH)
"""Step n brings books of version n to version n + 1 (table ``channelpay_version``, one row)."""

_CREATE_VERSION = """
    CREATE TABLE IF NOT EXISTS channelpay_version (
        is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
        version integer NOT NULL
    )
"""
_INSERT_VERSION = "INSERT INTO channelpay_version (version) VALUES (0) ON CONFLICT DO NOTHING"


def migrate(connection: Connection[Any]) -> None:
    """Bring the tables to the newest version, in one transaction. Of several programs that begin at
    once, one does it and the others wait. Where nothing is to be done, nothing is locked, and the
    right to create tables is not needed.

    Raises :class:`ConfigError` for books of a version that this program does not know, and for a
    database that cannot hold every text.
    """
    _check_encoding(connection)
    if _version(connection) == len(MIGRATIONS):
        return
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{MIGRATION_SECONDS}s'")
        connection.execute(f"SET LOCAL statement_timeout = '{MIGRATION_SECONDS}s'")
        connection.execute("SELECT pg_advisory_xact_lock(%s::bigint)", (MIGRATION_LOCK,))
        connection.execute(_CREATE_VERSION)
        connection.execute(_INSERT_VERSION)
        for statements in MIGRATIONS[_version(connection) :]:
            for statement in statements:
                connection.execute(statement)
        connection.execute("UPDATE channelpay_version SET version = %s", (len(MIGRATIONS),))


def _version(connection: Connection[Any]) -> int:
    """What the tables are at; 0 where there are none."""
    found = connection.execute("SELECT to_regclass('channelpay_version')").fetchone()
    if found is None or found[0] is None:
        return 0
    row = connection.execute("SELECT version FROM channelpay_version").fetchone()
    version = 0 if row is None else int(row[0])
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"the books have version {version}, this program knows {len(MIGRATIONS)}",
            hint="Use the newer channelpay that wrote them.",
        )
    return version


def _check_encoding(connection: Connection[Any]) -> None:
    row = connection.execute("SHOW server_encoding").fetchone()
    if row is None or row[0] != "UTF8":
        raise ConfigError(
            "the database does not hold texts as UTF-8",
            hint="Create it anew: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )
