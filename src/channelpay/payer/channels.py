"""The part of the payer's books that holds its channels: what the chain says of each, whether the
payee takes it, and whether the books may be too old.

The chain alone decides ``status`` and ``deposit``. A payee's word that a channel is gone only sets
``refused``: no more vouchers go there, but the channel stays listed, since money may be in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from channelpay.payer.books import Books, insert_channel, is_known, record_signed
from channelpay.payer.database import amount_blob
from channelpay.payer.fundings import insert_top_ups
from channelpay.payer.records import PayerChannel, Reservation, TopUp
from channelpay.protocol.types import (
    Address,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)

MARKING = (
    # Those requests are of who made the copy, not of who uses it.
    "DELETE FROM reservations",
    "UPDATE channels SET in_doubt = 1 WHERE status <> 'finalized'",
)
"""The statements that put books in doubt."""


class Channels(Books):
    """The channels of all payers that share the books."""

    def channels(self, payer: Address) -> list[PayerChannel]:
        """All channels of one payer, in the order in which they were opened."""
        with self._database.read() as connection:
            return self._of_payer(connection, payer)

    def channel(self, channel_id: ChannelId, beside: Reservation | None = None) -> PayerChannel:
        """One channel; as if ``beside`` had not set anything aside. Raises :class:`NotFound`."""
        with self._database.read() as connection:
            return self._entry(connection, channel_id, beside)

    def channels_to(
        self,
        deployment: Deployment,
        payer: Address,
        payee: Address,
        token: Address,
        beside: Reservation | None = None,
    ) -> list[PayerChannel]:
        """The channels between two in one token, in the order in which to use them: where most is
        signed first, so that few stay open; among equals, those in doubt last. Each as if
        ``beside`` had not set anything aside.
        """
        with self._database.read() as connection:
            found = self._of_pair(connection, deployment, payer, payee, token, beside)
        return sorted(found, key=lambda entry: (-entry.signed, entry.in_doubt))

    def record_chain_state(
        self, channel_id: ChannelId, state: ChannelState, seen: PayerChannel | None = None
    ) -> None:
        """What the chain says. Where it has no numbers (any more), the old ones stay.

        ``seen`` is what the books said when the chain was asked: if they moved on since, the answer
        is out of date and not recorded. While a top-up is journaled, the deposit waits for its end:
        the payee has to be told of it with the first voucher that needs it.
        """
        with self._database.write() as connection:
            entry = self._entry(connection, channel_id)
            if seen is not None and _chain_part(seen) != _chain_part(entry):
                return
            known = state.deposit > 0
            is_early = state.deposit > entry.deposit and _is_topped_up(connection, entry)
            connection.execute(
                "UPDATE channels SET status = ?, close_requested_at = ?, deposit = ?, settled = ?"
                " WHERE channel_id = ?",
                (
                    state.status.value,
                    state.close_requested_at,
                    amount_blob(state.deposit if known and not is_early else entry.deposit),
                    amount_blob(state.settled if known else entry.settled),
                    channel_id,
                ),
            )

    def refuse(self, channel_id: ChannelId, code: str) -> None:
        """The payee takes no more vouchers of this channel, for the reason ``code``."""
        self._execute("UPDATE channels SET refused = ? WHERE channel_id = ?", code, channel_id)

    def record_grace(self, deployment: Deployment, seconds: int) -> None:
        """The grace period of a contract, which never changes."""
        self._execute(
            "UPDATE channels SET grace_seconds = ? WHERE chain_id = ? AND contract = ?",
            seconds,
            deployment.chain_id,
            deployment.contract,
        )

    def present_open_again(self, channel_id: ChannelId) -> None:
        """Tell the payee of the open once more, with the next request."""
        self._execute("UPDATE channels SET presented = 0 WHERE channel_id = ?", channel_id)

    # --- doubt -------------------------------------------------------------------------------

    def add_found(self, found: PayerChannel, top_ups: Iterable[TopUp] = ()) -> bool:
        """Enter a channel that was found on chain, with what added to its deposit; it is in doubt.
        False for one that the books know: what they say of it stays.
        """
        with self._database.write() as connection:
            if is_known(connection, found.channel_id):
                return False
            insert_channel(connection, replace(found, in_doubt=True), 0)
            insert_top_ups(connection, top_ups, presented=True)
        return True

    def mark_in_doubt(self) -> int:
        """These books are a copy: more may have been signed on every channel that is not finalized.
        Returns how many those are.
        """
        with self._database.write() as connection:
            return [connection.execute(statement).rowcount for statement in MARKING][-1]

    def end_doubt(self, channel_id: ChannelId, spent: int, last: Voucher | None = None) -> None:
        """The payee told what it holds and that it charged ``spent``. ``last`` is a voucher of ours
        that it showed, whose signature was checked; None if it holds none above what the books say.

        It is believed what our own signatures prove, and only while the books are in doubt, or are
        proven to be too old.
        """
        with self._database.write() as connection:
            entry = self._entry(connection, channel_id)
            is_news = last is not None and last.cumulative_amount > entry.signed
            if not (entry.in_doubt or is_news):
                return
            if last is not None and is_news:
                record_signed(connection, last)
                entry = self._entry(connection, channel_id)
            believed = max(entry.spent, min(spent, entry.signed))
            credible = max(believed, entry.credible)
            connection.execute(
                "UPDATE channels SET spent = ?, credible = ?, in_doubt = 0, presented = 1"
                " WHERE channel_id = ?",
                (amount_blob(believed), amount_blob(credible), channel_id),
            )


def _chain_part(entry: PayerChannel) -> tuple[ChannelStatus, int, int, int]:
    return entry.status, entry.deposit, entry.settled, entry.close_requested_at


def _is_topped_up(connection: sqlite3.Connection, entry: PayerChannel) -> bool:
    """Whether a top-up is journaled whose end is not known yet."""
    query = "SELECT 1 FROM fundings WHERE channel_id = ?"
    journaled = connection.execute(query, (entry.channel_id,)).fetchone()
    return journaled is not None and entry.status is not ChannelStatus.ABSENT
