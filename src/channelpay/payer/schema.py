"""The tables of the payer's books. A new version appends a migration and never edits an old one."""

from __future__ import annotations

_ZERO = f"X'{bytes(16).hex()}'"

MIGRATIONS = (
    (
        """CREATE TABLE channels (
            channel_id BLOB PRIMARY KEY CHECK (length(channel_id) = 32),
            chain_id INTEGER NOT NULL,
            contract BLOB NOT NULL CHECK (length(contract) = 20),
            payer BLOB NOT NULL CHECK (length(payer) = 20),
            payee BLOB NOT NULL CHECK (length(payee) = 20),
            token BLOB NOT NULL CHECK (length(token) = 20),
            authorized_signer BLOB NOT NULL CHECK (length(authorized_signer) = 20),
            salt BLOB NOT NULL CHECK (length(salt) = 32),
            url TEXT,
            status TEXT NOT NULL,
            deposit BLOB NOT NULL CHECK (length(deposit) = 16),
            settled BLOB NOT NULL CHECK (length(settled) = 16),
            close_requested_at INTEGER NOT NULL,
            signed BLOB NOT NULL CHECK (length(signed) = 16),
            signature BLOB NOT NULL,
            spent BLOB NOT NULL CHECK (length(spent) = 16 AND spent <= signed),
            claimed BLOB NOT NULL CHECK (length(claimed) = 16),
            presented INTEGER NOT NULL,
            refused TEXT,
            open_transaction BLOB,
            first_block INTEGER NOT NULL,
            funding_until INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX channels_by_payee ON channels (payee, payer, token)",
        """CREATE TABLE reservations (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            channel_id BLOB NOT NULL REFERENCES channels ON DELETE CASCADE,
            price BLOB NOT NULL CHECK (length(price) = 16),
            alone INTEGER NOT NULL,
            expires_at INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX reservations_by_channel ON reservations (channel_id)",
        """CREATE TABLE top_ups (
            transaction_hash BLOB PRIMARY KEY CHECK (length(transaction_hash) = 32),
            channel_id BLOB NOT NULL REFERENCES channels ON DELETE CASCADE,
            amount BLOB NOT NULL CHECK (length(amount) = 16),
            presented INTEGER NOT NULL
        ) STRICT""",
        """CREATE TABLE challenges (
            origin TEXT PRIMARY KEY,
            challenge TEXT NOT NULL,
            expires_at REAL
        ) STRICT""",
        """CREATE TABLE tokens (
            chain_id INTEGER NOT NULL,
            token BLOB NOT NULL CHECK (length(token) = 20),
            symbol TEXT NOT NULL,
            decimals INTEGER NOT NULL,
            PRIMARY KEY (chain_id, token)
        ) STRICT""",
    ),
    (
        """CREATE TABLE fundings (
            channel_id BLOB PRIMARY KEY REFERENCES channels ON DELETE CASCADE,
            transaction_hash BLOB NOT NULL CHECK (length(transaction_hash) = 32),
            nonce INTEGER NOT NULL,
            amount BLOB NOT NULL CHECK (length(amount) = 16)
        ) STRICT""",
    ),
    ("ALTER TABLE channels ADD COLUMN unsure INTEGER NOT NULL DEFAULT 0",),
    (
        f"ALTER TABLE channels ADD COLUMN credible BLOB NOT NULL DEFAULT {_ZERO}",
        "UPDATE channels SET credible = signed",
        f"ALTER TABLE channels ADD COLUMN pooled BLOB NOT NULL DEFAULT {_ZERO}",
        f"ALTER TABLE reservations ADD COLUMN ceiling BLOB NOT NULL DEFAULT {_ZERO}",
        "UPDATE reservations SET ceiling = price",
        "ALTER TABLE reservations ADD COLUMN lapsed BLOB",
    ),
    (
        "ALTER TABLE channels ADD COLUMN in_doubt INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE channels ADD COLUMN unanswered INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE channels ADD COLUMN unanswered_since INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE channels ADD COLUMN grace_seconds INTEGER NOT NULL DEFAULT 0",
        """CREATE TABLE submitted (
            transaction_hash BLOB PRIMARY KEY CHECK (length(transaction_hash) = 32),
            channel_id BLOB NOT NULL REFERENCES channels ON DELETE CASCADE,
            nonce INTEGER NOT NULL,
            amount BLOB NOT NULL CHECK (length(amount) = 16)
        ) STRICT""",
        "INSERT INTO submitted SELECT transaction_hash, channel_id, nonce, amount FROM fundings",
        "DROP TABLE fundings",
        "ALTER TABLE submitted RENAME TO fundings",
        "CREATE INDEX fundings_by_channel ON fundings (channel_id)",
    ),
    (
        """CREATE TABLE spending (
            payer BLOB NOT NULL CHECK (length(payer) = 20),
            chain_id INTEGER NOT NULL,
            token BLOB NOT NULL CHECK (length(token) = 20),
            origin TEXT NOT NULL,
            day INTEGER NOT NULL,
            promised BLOB NOT NULL CHECK (length(promised) = 16),
            paid BLOB NOT NULL CHECK (length(paid) = 16),
            allowed BLOB NOT NULL CHECK (length(allowed) = 16),
            PRIMARY KEY (payer, chain_id, token, day, origin)
        ) STRICT, WITHOUT ROWID""",
        # What channels cost that the books know no more: no identity, for a total needs none.
        """CREATE TABLE forgotten (
            payer BLOB NOT NULL CHECK (length(payer) = 20),
            chain_id INTEGER NOT NULL,
            token BLOB NOT NULL CHECK (length(token) = 20),
            settled BLOB NOT NULL CHECK (length(settled) = 16)
        ) STRICT""",
        """CREATE TRIGGER forget_channel AFTER DELETE ON channels WHEN old.status = 'finalized'
        BEGIN
            INSERT INTO forgotten VALUES (old.payer, old.chain_id, old.token, old.settled);
        END""",
    ),
    # Who holds it: a reservation ends with its program.
    ("ALTER TABLE reservations ADD COLUMN owner TEXT NOT NULL DEFAULT ''",),
    # When the books learned of an end, so that what is older can be forgotten.
    (
        """CREATE TABLE finalized (
            channel_id BLOB PRIMARY KEY REFERENCES channels ON DELETE CASCADE,
            seen_at INTEGER NOT NULL
        ) STRICT""",
        """INSERT INTO finalized SELECT channel_id, CAST(strftime('%s', 'now') AS INTEGER)
            FROM channels WHERE status = 'finalized'""",
        """CREATE TRIGGER note_finalized AFTER UPDATE OF status ON channels
        WHEN new.status = 'finalized' AND old.status <> 'finalized'
        BEGIN
            INSERT OR REPLACE INTO finalized
            VALUES (new.channel_id, CAST(strftime('%s', 'now') AS INTEGER));
        END""",
        """CREATE TRIGGER note_found_finalized AFTER INSERT ON channels
        WHEN new.status = 'finalized'
        BEGIN
            INSERT INTO finalized
            VALUES (new.channel_id, CAST(strftime('%s', 'now') AS INTEGER));
        END""",
    ),
    # Opens and top-ups that a payee may send.
    (
        """CREATE TABLE signed_fundings (
            channel_id BLOB PRIMARY KEY REFERENCES channels ON DELETE CASCADE,
            method TEXT NOT NULL,
            amount BLOB NOT NULL CHECK (length(amount) = 16),
            ends_at INTEGER NOT NULL,
            salt BLOB NOT NULL,
            signature BLOB NOT NULL
        ) STRICT""",
    ),
    # Who is at an open or a top-up: nobody waits for a program that is gone.
    (
        """CREATE TABLE funders (
            channel_id BLOB PRIMARY KEY REFERENCES channels ON DELETE CASCADE,
            owner TEXT NOT NULL
        ) STRICT""",
    ),
    # Purchases that the payer asked to keep, and what it was given before it paid.
    (
        """CREATE TABLE purchased (
            id INTEGER PRIMARY KEY,
            channel_id BLOB NOT NULL REFERENCES channels ON DELETE CASCADE,
            time INTEGER NOT NULL,
            url TEXT NOT NULL,
            kind TEXT NOT NULL,
            cost BLOB NOT NULL CHECK (length(cost) = 16),
            list_price BLOB NOT NULL CHECK (length(list_price) = 16),
            on_tab BLOB NOT NULL CHECK (length(on_tab) = 16),
            receipt TEXT
        ) STRICT""",
        "CREATE INDEX purchased_by_channel ON purchased (channel_id)",
        """CREATE TABLE tabs (
            chain_id INTEGER NOT NULL,
            contract BLOB NOT NULL CHECK (length(contract) = 20),
            payer BLOB NOT NULL CHECK (length(payer) = 20),
            payee BLOB NOT NULL CHECK (length(payee) = 20),
            token BLOB NOT NULL CHECK (length(token) = 20),
            owed BLOB NOT NULL CHECK (length(owed) = 16),
            room BLOB NOT NULL CHECK (length(room) = 16),
            due_at INTEGER NOT NULL,
            PRIMARY KEY (chain_id, contract, payer, payee, token)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TRIGGER forget_tab AFTER DELETE ON channels
        BEGIN
            DELETE FROM tabs WHERE chain_id = old.chain_id AND contract = old.contract
                AND payer = old.payer AND payee = old.payee AND token = old.token
                AND NOT EXISTS (SELECT 1 FROM channels WHERE chain_id = old.chain_id
                    AND contract = old.contract AND payer = old.payer AND payee = old.payee
                    AND token = old.token);
        END""",
    ),
    # Passes, which outlive the channel that bought them.
    (
        """CREATE TABLE passes (
            pass_id BLOB PRIMARY KEY CHECK (length(pass_id) = 16),
            payer BLOB NOT NULL CHECK (length(payer) = 20),
            origin TEXT NOT NULL,
            channel_id BLOB NOT NULL CHECK (length(channel_id) = 32),
            plan TEXT NOT NULL,
            label TEXT NOT NULL,
            paths TEXT NOT NULL,
            price BLOB NOT NULL CHECK (length(price) = 16),
            uses INTEGER NOT NULL,
            left_over INTEGER NOT NULL,
            until INTEGER NOT NULL,
            refund_until INTEGER NOT NULL,
            token TEXT NOT NULL,
            ended TEXT,
            renews INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX passes_by_origin ON passes (origin, payer)",
    ),
    # With what Idempotency-Key it was bought: so its receipt can be asked for later.
    ("ALTER TABLE purchased ADD COLUMN key TEXT",),
    # By what the payer itself knows of the end of a pass.
    (
        "ALTER TABLE passes ADD COLUMN used INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE passes ADD COLUMN lasts INTEGER NOT NULL DEFAULT 0",
        "UPDATE passes SET used = max(0, uses - left_over)",
    ),
)
