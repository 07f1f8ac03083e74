"""The part of the payer's books that holds signed funding: authorizations that a payee may use, and
that are not known to be used or over. A channel has one at a time.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from channelpay.payer.database import Database, amount_blob, blob_amount
from channelpay.protocol.funding import (
    FundingMethod,
    SignedAuthorization,
    open_authorization,
    top_up_authorization,
)
from channelpay.protocol.types import Channel, ChannelId, ChannelStatus, Deployment

PRESENTED_SECONDS_MIN = 90
"""An authorization that ends sooner is not presented any more: the payee would not send it."""


@dataclass(frozen=True, slots=True)
class SignedFunding:
    """An open, or a top-up, that the payer signed for the payee to send. ``salt`` (32 bytes) tells
    one top-up from another; an open has none.
    """

    signed: SignedAuthorization
    salt: bytes = b""

    @property
    def is_open(self) -> bool:
        return not self.salt

    @property
    def amount(self) -> int:
        """Base units."""
        return self.signed.authorization.amount

    @property
    def ends_at(self) -> int:
        """Unix seconds, by the chain's clock."""
        return self.signed.authorization.ends_at

    @property
    def presented_salt(self) -> bytes:
        """The salt as the payee needs it: Permit2's nonce is in the authorization."""
        by_nonce = self.signed.authorization.method is FundingMethod.EIP3009
        return self.salt if by_nonce else b""


class SignedFundings:
    """Signed funding by channel."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, channel_id: ChannelId, funding: SignedFunding) -> None:
        """Journal what was signed, before it leaves. One that was signed before for the same open
        or top-up has the same nonce, so that one of the two can be used.
        """
        authorization = funding.signed.authorization
        amount = amount_blob(authorization.amount)
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO signed_fundings VALUES (?, ?, ?, ?, ?, ?)",
                (
                    channel_id,
                    authorization.method.value,
                    amount,
                    authorization.ends_at,
                    funding.salt,
                    funding.signed.signature,
                ),
            )
            connection.execute(
                "UPDATE channels SET deposit = ?, refused = NULL"
                " WHERE channel_id = ? AND status = ?",
                (amount, channel_id, ChannelStatus.ABSENT.value),
            )
            end_claim(connection, channel_id)

    def end(self, channel_id: ChannelId) -> None:
        """It was used, or can never be used any more."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM signed_fundings WHERE channel_id = ?", (channel_id,))

    def of(self, channel_id: ChannelId) -> SignedFunding | None:
        """What may still be used for a channel."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT * FROM channels WHERE channel_id = ?", (channel_id,)
            ).fetchone()
            return None if row is None else signed_funding(connection, row)

    def claim_open(self, channel_id: ChannelId, until: int, now: int) -> bool:
        """Whether this process may send the open of a planned channel itself, until then (Unix
        seconds): no other is at it, and no transaction is journaled.
        """
        with self._database.write() as connection:
            claimed = connection.execute(
                "UPDATE channels SET funding_until = ? WHERE channel_id = ? AND status = ?"
                " AND funding_until <= ?"
                " AND channel_id NOT IN (SELECT channel_id FROM fundings)",
                (until, channel_id, ChannelStatus.ABSENT.value, now),
            )
            return claimed.rowcount == 1


def end_claim(connection: sqlite3.Connection, channel_id: ChannelId) -> None:
    """No program is at an open or a top-up of this channel any more."""
    connection.execute("DELETE FROM funders WHERE channel_id = ?", (channel_id,))
    connection.execute("UPDATE channels SET funding_until = 0 WHERE channel_id = ?", (channel_id,))


def presentable_open(
    connection: sqlite3.Connection, row: sqlite3.Row, now: int
) -> SignedFunding | None:
    """What opens the channel of this row once its payee is shown it."""
    if row["status"] != ChannelStatus.ABSENT.value:
        return None
    funding = signed_funding(connection, row)
    if funding is None or not funding.is_open:
        return None
    return funding if now + PRESENTED_SECONDS_MIN < funding.ends_at else None


def signed_funding(connection: sqlite3.Connection, row: sqlite3.Row) -> SignedFunding | None:
    """What is kept for the channel of this row."""
    kept = connection.execute(
        "SELECT * FROM signed_fundings WHERE channel_id = ?", (row["channel_id"],)
    ).fetchone()
    if kept is None:
        return None
    deployment = Deployment(row["chain_id"], row["contract"])
    accounts = (row["payer"], row["payee"], row["token"], row["authorized_signer"])
    channel = Channel(*accounts, row["salt"])
    method, amount = FundingMethod(kept["method"]), blob_amount(kept["amount"])
    facts = (method, deployment, channel, amount, kept["ends_at"])
    salt: bytes = kept["salt"]
    authorization = top_up_authorization(*facts, salt) if salt else open_authorization(*facts)
    return SignedFunding(SignedAuthorization(authorization, kept["signature"]), salt)
