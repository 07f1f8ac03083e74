"""The part of the payer's books that says which payees do not answer, and since when."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from channelpay.errors import InputError
from channelpay.payer.books import Books
from channelpay.payer.origins import origin_of
from channelpay.payer.records import PayerChannel
from channelpay.protocol.types import Address, ChannelId, ChannelStatus


class Silence(Books):
    """Who is waited for, by channel."""

    def begin_asking(self, payer: Address, origin: str) -> list[ChannelId]:
        """A request without a voucher is about to go to ``origin``: the channels that were used
        there, which wait for an answer from now on.
        """
        found = [one.channel_id for one in self.used_at(payer, origin)]
        if found:
            with self._database.write() as connection:
                for channel_id in found:
                    begin_waiting(connection, channel_id, self._now)
        return found

    def record_answer(self, channel_ids: Iterable[ChannelId]) -> None:
        """The payee of these channels is there."""
        with self._database.write() as connection:
            for channel_id in channel_ids:
                end_waiting(connection, channel_id)

    def used_at(self, payer: Address, origin: str) -> list[PayerChannel]:
        """The channels that are not finalized and were used at ``origin`` last."""
        with self._database.read() as connection:
            entries = self._of_payer(connection, payer)
        live = (one for one in entries if one.status is not ChannelStatus.FINALIZED)
        return [one for one in live if one.url is not None and _is_at(one.url, origin)]


# --- inside one step of the books ----------------------------------------------------------------


def begin_waiting(connection: sqlite3.Connection, channel_id: ChannelId, now: int) -> None:
    """A request goes to the payee of a channel at ``now`` (Unix seconds)."""
    connection.execute(
        "UPDATE channels SET unanswered_since ="
        " CASE unanswered WHEN 0 THEN ? ELSE unanswered_since END,"
        " unanswered = unanswered + 1 WHERE channel_id = ?",
        (now, channel_id),
    )


def end_waiting(connection: sqlite3.Connection, channel_id: ChannelId) -> None:
    """The payee answered."""
    connection.execute(
        "UPDATE channels SET unanswered = 0, unanswered_since = 0 WHERE channel_id = ?",
        (channel_id,),
    )


def _is_at(url: str, origin: str) -> bool:
    try:
        return origin_of(url) == origin
    except InputError:
        return False
