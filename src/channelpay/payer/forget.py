"""Removing what the payer's books keep about channels that are over.

Nothing that is still of use goes: a channel that may hold money stays, and of each forgotten one
what it cost still counts in the limits for all time, summed up without saying whom it was paid. A
purchase that was begun is kept as long as its key is of use, while any channel could pay it again.
"""

from __future__ import annotations

import math
import sqlite3
from itertools import groupby
from pathlib import Path

from channelpay.errors import InputError
from channelpay.payer.database import Database, amount_blob, blob_amount
from channelpay.payer.origins import origin_of
from channelpay.payer.purchases import KEY_SECONDS_MAX, folder_beside, forget_purchases
from channelpay.payer.schema import MIGRATIONS
from channelpay.payer.spending import clock_day
from channelpay.protocol.types import ChannelId

_FINISHED = (
    "SELECT channel_id FROM channels JOIN finalized USING (channel_id)"
    " WHERE status = 'finalized' AND seen_at <= ?"
    " AND channel_id NOT IN (SELECT channel_id FROM fundings)"
)
_FORGET_PASSES = "DELETE FROM passes WHERE ended IS NOT NULL OR until BETWEEN 1 AND ?"
_FORGET_PRICES = "DELETE FROM challenges WHERE origin = ?"
# The amount stays: a limit for a day is about all origins.
_FORGET_PLACES = "UPDATE spending SET origin = 'forgotten ' || hex(randomblob(8)) WHERE origin = ?"


def finished(books: Path, seen_until: float) -> tuple[ChannelId, ...]:
    """The channels, of all accounts, whose end the books learned of by ``seen_until`` (Unix
    seconds).
    """
    database = Database(books, MIGRATIONS)
    try:
        with database.read() as connection:
            return _finished(connection, seen_until)
    finally:
        database.close()


def forget(books: Path, seen_until: float, now: float) -> tuple[ChannelId, ...]:
    """Remove those channels, passes that are over, and the origins that no other channel was used
    at; what was spent there on the day of ``now`` (Unix seconds) is kept without them, for that
    day's limits. Returns the channels; the bytes of all that are gone from the file then.

    Raises :class:`StoreUnavailable` while another program uses the books: then they are removed,
    but their bytes may be left until this is done again.
    """
    database = Database(books, MIGRATIONS)
    try:
        with database.write() as connection:
            done = _forget(connection, seen_until, now)
            is_empty = connection.execute("SELECT 1 FROM channels").fetchone() is None
        begun_before = math.inf if is_empty else now - KEY_SECONDS_MAX
        forget_purchases(folder_beside(books), begun_before)
        database.erase_deleted()
    finally:
        database.close()
    return done


def _forget(connection: sqlite3.Connection, seen_until: float, now: float) -> tuple[ChannelId, ...]:
    channels = _finished(connection, seen_until)
    connection.executemany(
        "DELETE FROM channels WHERE channel_id = ?", [(one,) for one in channels]
    )
    _sum_up(connection)
    connection.execute(_FORGET_PASSES, (int(seen_until),))
    connection.execute("DELETE FROM spending WHERE day < ?", (clock_day(now),))
    for statement, table in ((_FORGET_PRICES, "challenges"), (_FORGET_PLACES, "spending")):
        stale = _stale_origins(connection, table)
        connection.executemany(statement, [(one,) for one in stale])
    return channels


def _finished(connection: sqlite3.Connection, seen_until: float) -> tuple[ChannelId, ...]:
    rows = connection.execute(_FINISHED, (int(seen_until),)).fetchall()
    return tuple(ChannelId(row["channel_id"]) for row in rows)


def _stale_origins(connection: sqlite3.Connection, table: str) -> list[str]:
    """Where no channel is used any more."""
    urls = connection.execute("SELECT url FROM channels WHERE url IS NOT NULL").fetchall()
    used = {_origin(url) for (url,) in urls}
    rows = connection.execute(f"SELECT DISTINCT origin FROM {table}").fetchall()  # noqa: S608
    return [row["origin"] for row in rows if row["origin"] not in used]


def _origin(url: str) -> str:
    try:
        return origin_of(url)
    except InputError:
        return ""


def _sum_up(connection: sqlite3.Connection) -> None:
    """One row for each token: amounts of single channels could be found on chain."""
    rows = connection.execute(
        "DELETE FROM forgotten RETURNING payer, chain_id, token, settled"
    ).fetchall()
    rows.sort(key=_purse)
    sums = [
        (*purse, amount_blob(sum(blob_amount(row["settled"]) for row in group)))
        for purse, group in groupby(rows, key=_purse)
    ]
    connection.executemany("INSERT INTO forgotten VALUES (?, ?, ?, ?)", sums)


def _purse(row: sqlite3.Row) -> tuple[bytes, int, bytes]:
    return row["payer"], row["chain_id"], row["token"]
