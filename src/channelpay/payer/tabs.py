"""What the payer owes on tabs: what it was given before it paid, by its own books.

A payee's word on what is owed is believed as far as these books explain it: each answer adds no
more than the price of its request, and what was paid beyond that price is owed no more. Amounts are
base units; ``due_at`` is Unix seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from channelpay.payer.database import Database, amount_blob, blob_amount
from channelpay.payer.records import PayerChannel, Reservation
from channelpay.protocol.tabs import TabNote
from channelpay.protocol.types import AMOUNT_MAX

PAY_BEFORE_SECONDS = 3600
"""So long before it is due a tab is paid with the next request."""


@dataclass(frozen=True, slots=True)
class OwnTab:
    """What is owed to one payee, over all channels to it, until when. The payee lets it grow to
    ``room``; zero: it gives no credit.
    """

    owed: int
    room: int
    due_at: int

    def takes(self, price: int, tab_max: int, now: float) -> bool:
        """Whether something of this price may be put on it, if it is to stay within ``tab_max``."""
        is_due = self.owed > 0 and now > self.due_at - PAY_BEFORE_SECONDS
        return not is_due and self.has_room(price, tab_max)

    def has_room(self, amount: int, tab_max: int) -> bool:
        return self.owed + amount <= min(tab_max, self.room)

    def after(self, told: TabNote, price: int, cost: int) -> OwnTab:
        """The tab after an answer that says ``told``, to a request of this ``price`` at most, which
        was charged ``cost``.
        """
        explained = self.owed + min(told.added, price) - max(0, cost - price)
        return OwnTab(max(0, min(explained, told.owed)), told.limit, told.due_at)


NEW_TAB = OwnTab(0, AMOUNT_MAX, 0)
"""At a payee that was never asked for one."""


class Tabs:
    """The tabs in the payer's books. ``now`` gives Unix seconds."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self.now = now

    def tab(self, entry: PayerChannel) -> OwnTab:
        """That of the payee of a channel."""
        with self._database.read() as connection:
            return read(connection, entry)

    def under_way(self, entry: PayerChannel, beside: Reservation | None) -> int:
        """What requests are to put on it that are not answered yet, but for one of them."""
        with self._database.read() as connection:
            return under_way(connection, entry, self.now(), beside)

    def note_none(self, entry: PayerChannel) -> None:
        """The payee gives no credit, or none to this payer."""
        with self._database.write() as connection:
            tab = read(connection, entry)
            write(connection, entry, OwnTab(tab.owed, 0, tab.due_at))


# --- inside one step of the books ----------------------------------------------------------------


def read(connection: sqlite3.Connection, entry: PayerChannel) -> OwnTab:
    row = connection.execute(
        "SELECT owed, room, due_at FROM tabs WHERE chain_id = ? AND contract = ? AND payer = ?"
        " AND payee = ? AND token = ?",
        _place(entry),
    ).fetchone()
    if row is None:
        return NEW_TAB
    return OwnTab(blob_amount(row["owed"]), blob_amount(row["room"]), row["due_at"])


def under_way(
    connection: sqlite3.Connection,
    entry: PayerChannel,
    now: float,
    beside: Reservation | None = None,
) -> int:
    """Such requests have set nothing aside on any channel to the payee."""
    rows = connection.execute(
        "SELECT ceiling FROM reservations JOIN channels USING (channel_id)"
        " WHERE chain_id = ? AND contract = ? AND payer = ? AND payee = ? AND token = ?"
        " AND price = zeroblob(16) AND expires_at > ? AND id IS NOT ?",
        (*_place(entry), int(now), None if beside is None else beside.id),
    ).fetchall()
    return sum(blob_amount(ceiling) for (ceiling,) in rows)


def write(connection: sqlite3.Connection, entry: PayerChannel, tab: OwnTab) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO tabs VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*_place(entry), amount_blob(tab.owed), amount_blob(tab.room), tab.due_at),
    )


def _place(entry: PayerChannel) -> tuple[object, ...]:
    channel, deployment = entry.channel, entry.deployment
    where = (deployment.chain_id, deployment.contract)
    return (*where, channel.payer, channel.payee, channel.token)
