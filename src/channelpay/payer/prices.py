"""The part of the payer's books that holds what it was told: prices, and how tokens are written."""

from __future__ import annotations

import json

from channelpay.payer.books import Books
from channelpay.payer.records import Token
from channelpay.protocol.types import Address
from channelpay.protocol.wire import Challenge


class Prices(Books):
    """Challenges by origin, and tokens by chain."""

    def remember_challenge(
        self, origin: str, challenge: Challenge, expires_at: float | None
    ) -> None:
        """Keep the challenge that is answered ahead of this origin's next 402."""
        self._execute(
            "INSERT OR REPLACE INTO challenges VALUES (?, ?, ?)",
            origin,
            json.dumps(challenge.members()),
            expires_at,
        )

    def challenge(self, origin: str) -> Challenge | None:
        """The kept challenge of an origin, unless it has expired."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT challenge FROM challenges"
                " WHERE origin = ? AND coalesce(expires_at > ?, TRUE)",
                (origin, self._clock()),
            ).fetchone()
        return None if row is None else Challenge.from_members(json.loads(row["challenge"]))

    def remember_token(self, chain_id: int, token: Token) -> None:
        self._execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)",
            chain_id,
            token.address,
            token.symbol,
            token.decimals,
        )

    def token(self, chain_id: int, address: Address) -> Token | None:
        """How the token is written, if the chain was asked before."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT symbol, decimals FROM tokens WHERE chain_id = ? AND token = ?",
                (chain_id, address),
            ).fetchone()
        return None if row is None else Token(address, row["symbol"], row["decimals"])
