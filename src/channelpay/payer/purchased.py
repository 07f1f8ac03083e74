"""What the payer asked to keep of its purchases, and the receipts that prove them. Amounts are base
units, times Unix milliseconds.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

from channelpay.errors import NotFound
from channelpay.payer.database import Database, amount_blob, blob_amount
from channelpay.payer.records import PayerChannel
from channelpay.protocol.receipts import SignedReceipt
from channelpay.protocol.rules import SALE
from channelpay.protocol.tabs import PAYMENT, TAB
from channelpay.protocol.types import ChannelId
from channelpay.protocol.wire import Receipt


@dataclass(frozen=True, slots=True)
class Purchased:
    """One that was kept: its kind, as in the payee's ledger, what it cost, and would have cost;
    ``on_tab`` is owed for it. ``receipt`` is the JSON of the payee's signed receipt, if it gave
    one, and ``key`` the Idempotency-Key to ask for it with, if that is known.
    """

    number: int
    channel_id: ChannelId
    time: int
    url: str
    kind: str
    cost: int
    list_price: int
    on_tab: int
    receipt: str | None
    key: str | None


class Purchases:
    """The purchases that are kept in the payer's books."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.are_kept = False

    def of_channel(self, channel_id: ChannelId) -> list[Purchased]:
        """Oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM purchased WHERE channel_id = ? ORDER BY id", (channel_id,)
            ).fetchall()
        return [_purchased(row) for row in rows]

    def one(self, number: int) -> Purchased:
        """Raises :class:`NotFound`."""
        with self._database.read() as connection:
            row = connection.execute("SELECT * FROM purchased WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise NotFound(f"no purchase {number} is kept", hint="See: channelpay receipt list")
        return _purchased(row)

    def prove(self, number: int, receipt: SignedReceipt) -> None:
        """Keep the payee's signed receipt of a purchase."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE purchased SET receipt = ? WHERE id = ?", (receipt.to_json(), number)
            )


class Proof(NamedTuple):
    """The payee's signed receipt of a purchase, if it gave one, and the Idempotency-Key to ask for
    it with.
    """

    receipt: SignedReceipt | None = None
    key: str | None = None


NO_PROOF = Proof()


@dataclass(frozen=True, slots=True)
class Bought:
    """What was just paid for: its ``cost``, and what its answer says. Where there is a tab, what
    was charged beyond the ``price`` has paid of that.
    """

    url: str
    cost: int
    price: int
    receipt: Receipt | None
    proof: Proof


def keep(connection: sqlite3.Connection, entry: PayerChannel, bought: Bought, now: int) -> None:
    """Note a purchase, and a payment of a tab by itself. Inside one step of the books."""
    told = bought.receipt
    tab = None if told is None else told.tab
    paid = 0 if tab is None else max(0, bought.cost - bought.price)
    on_tab, cost = 0 if tab is None else tab.added, bought.cost - paid
    place = (entry.channel_id, now, bought.url)
    if paid:
        _insert(connection, (*place, PAYMENT), (paid, paid, 0))
        if not cost and not on_tab:
            return
    price = None if told is None else told.price
    list_price = cost + on_tab if price is None else max(price.list_price, cost)
    amounts = (cost, list_price, on_tab)
    _insert(connection, (*place, TAB if on_tab else SALE), amounts, bought.proof)


def _insert(
    connection: sqlite3.Connection,
    place: tuple[ChannelId, int, str, str],
    amounts: tuple[int, int, int],
    proof: Proof = NO_PROOF,
) -> None:
    receipt = None if proof.receipt is None else proof.receipt.to_json()
    connection.execute(
        "INSERT INTO purchased"
        " (channel_id, time, url, kind, cost, list_price, on_tab, receipt, key)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*place, *map(amount_blob, amounts), receipt, proof.key),
    )


def _purchased(row: sqlite3.Row) -> Purchased:
    return Purchased(
        row["id"],
        ChannelId(row["channel_id"]),
        row["time"],
        row["url"],
        row["kind"],
        blob_amount(row["cost"]),
        blob_amount(row["list_price"]),
        blob_amount(row["on_tab"]),
        row["receipt"],
        row["key"],
    )
