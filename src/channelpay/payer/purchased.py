"""What the payer asked to keep of its purchases, and the receipts that prove them. Amounts are base
units, times Unix milliseconds.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from channelpay.errors import InputError, NotFound, ReceiptNotValid
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
    one.
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


@dataclass(frozen=True, slots=True)
class Bought:
    """What was just paid for: its ``cost``, and what its answer says. Where there is a tab, what
    was charged beyond the ``price`` has paid of that. ``signed_receipt`` is the header.
    """

    url: str
    cost: int
    price: int
    receipt: Receipt | None
    signed_receipt: str | None


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
    signed = bought.signed_receipt
    proof = None if signed is None else _proof(signed, entry)
    _insert(connection, (*place, TAB if on_tab else SALE), (cost, list_price, on_tab), proof)


def _insert(
    connection: sqlite3.Connection,
    place: tuple[ChannelId, int, str, str],
    amounts: tuple[int, int, int],
    proof: str | None = None,
) -> None:
    connection.execute(
        "INSERT INTO purchased (channel_id, time, url, kind, cost, list_price, on_tab, receipt)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*place, *map(amount_blob, amounts), proof),
    )


def _proof(header: str, entry: PayerChannel) -> str | None:
    """The signed receipt as JSON, if it is one of this channel that holds."""
    try:
        receipt = SignedReceipt.from_header(header)
        receipt.check()
    except (InputError, ReceiptNotValid):
        return None
    return receipt.to_json() if receipt.channel_id == entry.channel_id else None


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
    )
