"""The part of the payer's books that holds what brings money into channels: opens, and top-ups.

Each is claimed before its transaction is sent, so that no two programs fund the same for one wish,
and each transaction is journaled before it leaves, so that one that was interrupted at any point is
found again. A claim ends with the program that made it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable

from channelpay.payer.books import Books, insert_channel, is_known
from channelpay.payer.database import amount_blob, blob_amount
from channelpay.payer.records import Funding, PayerChannel, TopUp
from channelpay.payer.signed_fundings import end_claim
from channelpay.protocol.types import ChannelId, ChannelStatus

FUNDING_SECONDS_MAX = 300
"""How long others wait for an open or a top-up that another process has begun."""


class Fundings(Books):
    """Opens and top-ups by channel."""

    # --- opens -------------------------------------------------------------------------------

    def begin_open(
        self, planned: PayerChannel, *, unless_usable: Callable[[PayerChannel], bool] | None = None
    ) -> bool:
        """Journal an open before its transaction is sent. False if the very channel is journaled
        already.

        With ``unless_usable``, nothing is journaled and False returned when the same two have a
        usable channel already of which it says that we can sign for it, or another open is under
        way: so parallel requests open one channel.
        """
        channel, deployment = planned.channel, planned.deployment
        with self._database.write() as connection:
            others = self._of_pair(
                connection, deployment, channel.payer, channel.payee, channel.token
            )
            if any(other.channel_id == planned.channel_id for other in others):
                return False
            if unless_usable is not None and any(
                (other.is_usable and unless_usable(other)) or self._is_opening(connection, other)
                for other in others
            ):
                return False
            insert_channel(connection, planned, self._now + FUNDING_SECONDS_MAX)
            self._note_funder(connection, planned.channel_id)
        return True

    def announce_open(self, planned: PayerChannel, until: int) -> bool:
        """Journal an open that somebody else is asked to send, whatever becomes of this process;
        nothing else is opened between the two until then (Unix seconds). False if the very channel
        is journaled already.
        """
        with self._database.write() as connection:
            if is_known(connection, planned.channel_id):
                return False
            insert_channel(connection, planned, until)
        return True

    def abandon_open(self, channel_id: ChannelId) -> None:
        """Forget an open whose transaction certainly had no effect."""
        self._execute(
            "DELETE FROM channels WHERE channel_id = ? AND status = ?",
            channel_id,
            ChannelStatus.ABSENT.value,
        )

    def abandon_unsent(self, channel_id: ChannelId) -> bool:
        """Forget an open whose process ended before it sent anything. Were it to go on after all,
        its transaction could not be journaled, and would not leave. Returns whether it was one.
        """
        now = self._now
        with self._database.write() as connection:
            self._end_claim_of_the_gone(connection, channel_id)
            deleted = connection.execute(
                "DELETE FROM channels WHERE channel_id = ? AND status = ? AND funding_until <= ?"
                " AND open_transaction IS NULL"
                " AND channel_id NOT IN (SELECT channel_id FROM fundings)"
                " AND channel_id NOT IN (SELECT channel_id FROM signed_fundings)"
                " AND channel_id NOT IN (SELECT channel_id FROM reservations WHERE expires_at > ?)",
                (channel_id, ChannelStatus.ABSENT.value, now, now),
            )
            return deleted.rowcount == 1

    def record_open_transaction(self, channel_id: ChannelId, transaction_hash: bytes) -> None:
        self._execute(
            "UPDATE channels SET open_transaction = ? WHERE channel_id = ?",
            transaction_hash,
            channel_id,
        )

    # --- transactions of both ----------------------------------------------------------------

    def is_being_funded(self, channel_id: ChannelId) -> bool:
        """Whether a program that is alive is about to send an open or a top-up, or waits for it."""
        with self._database.write() as connection:
            self._end_claim_of_the_gone(connection, channel_id)
            row = connection.execute(
                "SELECT 1 FROM channels WHERE channel_id = ? AND funding_until > ?",
                (channel_id, self._now),
            ).fetchone()
        return row is not None

    def record_funding(self, funding: Funding) -> None:
        """Journal the transaction of an open or a top-up before it is broadcast. From then on
        nothing else funds the channel until :meth:`end_funding`, however long that takes.
        """
        place = (funding.transaction_hash, funding.channel_id)
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO fundings (transaction_hash, channel_id, nonce, amount)"
                " VALUES (?, ?, ?, ?)",
                (*place, funding.nonce, amount_blob(funding.amount)),
            )
            connection.execute(
                "UPDATE channels SET open_transaction = ? WHERE channel_id = ? AND status = ?",
                (*place, ChannelStatus.ABSENT.value),
            )

    def fundings(self, channel_id: ChannelId) -> list[Funding]:
        """The journaled transactions of which the end is not known yet, oldest first. One of them
        is mined at most.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM fundings WHERE channel_id = ? ORDER BY rowid", (channel_id,)
            ).fetchall()
        return [
            Funding(channel_id, row["transaction_hash"], row["nonce"], blob_amount(row["amount"]))
            for row in rows
        ]

    def drop_funding(self, channel_id: ChannelId, transaction_hash: bytes | None) -> None:
        """A transaction will certainly never be mined, or none was sent (None). Others that are
        journaled for the channel may still be.
        """
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM fundings WHERE channel_id = ? AND transaction_hash IS ?",
                (channel_id, transaction_hash),
            )
            end_claim(connection, channel_id)

    def end_funding(self, channel_id: ChannelId, transaction_hash: bytes) -> None:
        """The open or top-up with this transaction is over, for better or worse; nothing happens if
        that is known.
        """
        with self._database.write() as connection:
            known = connection.execute(
                "SELECT 1 FROM fundings WHERE channel_id = ? AND transaction_hash = ?",
                (channel_id, transaction_hash),
            ).fetchone()
            if known is None:
                return
            connection.execute("DELETE FROM fundings WHERE channel_id = ?", (channel_id,))
            end_claim(connection, channel_id)

    # --- top-ups -----------------------------------------------------------------------------

    def begin_top_up(
        self, channel_id: ChannelId, deposit: int, *, instead_of: Funding | None = None
    ) -> bool:
        """Whether this process may top the channel up now: no other is doing it, none did it since
        the books said ``deposit``, and no earlier transaction but ``instead_of`` may still be
        mined.
        """
        now = self._now
        nonce = None if instead_of is None else instead_of.nonce
        with self._database.write() as connection:
            self._end_claim_of_the_gone(connection, channel_id)
            claimed = connection.execute(
                "UPDATE channels SET funding_until = ? WHERE channel_id = ? AND deposit = ?"
                " AND funding_until <= ? AND channel_id NOT IN"
                " (SELECT channel_id FROM fundings WHERE nonce IS NOT ?)"
                " AND channel_id NOT IN (SELECT channel_id FROM signed_fundings)",
                (now + FUNDING_SECONDS_MAX, channel_id, amount_blob(deposit), now, nonce),
            )
            if claimed.rowcount == 1:
                self._note_funder(connection, channel_id)
            return claimed.rowcount == 1

    def record_top_up(self, top_up: TopUp, deposit: int) -> None:
        """A confirmed top-up to ``deposit`` in all, which also takes a close request back. The
        payee is told with the next request.
        """
        channel_id = top_up.channel_id
        with self._database.write() as connection:
            entry = self._entry(connection, channel_id)
            insert_top_ups(connection, [top_up])
            connection.execute(
                "UPDATE channels SET deposit = ?, status = ?, close_requested_at = 0,"
                " refused = NULL WHERE channel_id = ?",
                (amount_blob(max(deposit, entry.deposit)), ChannelStatus.OPEN.value, channel_id),
            )

    def note_top_ups(self, found: Iterable[TopUp]) -> None:
        """Top-ups that were found on chain, of which the payee is told with the next request; those
        that the books know stay as they are.
        """
        top_ups = list(found)  # The chain is asked before the books are locked.
        with self._database.write() as connection:
            insert_top_ups(connection, top_ups)

    def unpresented_top_ups(self, channel_id: ChannelId) -> list[TopUp]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM top_ups WHERE channel_id = ? AND NOT presented ORDER BY rowid",
                (channel_id,),
            ).fetchall()
        return [
            TopUp(channel_id, row["transaction_hash"], blob_amount(row["amount"])) for row in rows
        ]

    def present_top_ups_again(self, channel_id: ChannelId) -> bool:
        """The payee knows the channel, but not its whole deposit: tell it of all top-ups (once
        more). False if there were none.
        """
        with self._database.write() as connection:
            connection.execute(
                "UPDATE channels SET presented = 1 WHERE channel_id = ?", (channel_id,)
            )
            updated = connection.execute(
                "UPDATE top_ups SET presented = 0 WHERE channel_id = ?", (channel_id,)
            )
            return updated.rowcount > 0

    def record_presented(self, top_up: TopUp) -> None:
        self._execute(
            "UPDATE top_ups SET presented = 1 WHERE transaction_hash = ?", top_up.transaction_hash
        )

    # --- inside one step ---------------------------------------------------------------------

    def _is_opening(self, connection: sqlite3.Connection, entry: PayerChannel) -> bool:
        row = connection.execute(
            "SELECT 1 FROM channels WHERE channel_id = ? AND status = ? AND (funding_until > ?"
            " OR channel_id IN (SELECT channel_id FROM fundings))",
            (entry.channel_id, ChannelStatus.ABSENT.value, self._now),
        ).fetchone()
        return row is not None

    def _note_funder(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        values = (channel_id, self._lease.name)
        connection.execute("INSERT OR REPLACE INTO funders VALUES (?, ?)", values)

    def _end_claim_of_the_gone(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        """Nobody waits for a program that was killed. What it had journaled still counts."""
        row = connection.execute(
            "SELECT owner FROM funders WHERE channel_id = ?", (channel_id,)
        ).fetchone()
        if row is not None and self._lease.is_over(row["owner"]):
            end_claim(connection, channel_id)


def insert_top_ups(
    connection: sqlite3.Connection, top_ups: Iterable[TopUp], *, presented: bool = False
) -> None:
    """Enter those that the books do not know. Inside one step of them."""
    connection.executemany(
        "INSERT OR IGNORE INTO top_ups VALUES (?, ?, ?, ?)",
        [
            (one.transaction_hash, one.channel_id, amount_blob(one.amount), presented)
            for one in top_ups
        ],
    )
