"""What a payee offers: who is paid, in which tokens, through which contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channelpay.protocol.text import format_amount, parse_human_amount
from channelpay.protocol.types import NATIVE, Address, Channel, Deployment
from channelpay.protocol.wire import SessionRequest

if TYPE_CHECKING:
    from channelpay.payee.amounts import Price
    from channelpay.payee.prices import Quote


@dataclass(frozen=True, slots=True)
class Token:
    """A token that prices are in; ``address`` is :data:`~channelpay.protocol.types.NATIVE` for the
    chain's own currency.
    """

    address: Address
    symbol: str
    decimals: int

    def format(self, amount: int) -> str:
        """Base units in human units, with the symbol."""
        return format_amount(amount, self.decimals, self.symbol)

    def parse(self, text: str, field: str) -> int:
        """Base units from human units. Raises :class:`~channelpay.errors.InputError`."""
        return parse_human_amount(text, self.decimals, field)


ETHER = Token(NATIVE, "ETH", 18)


@dataclass(frozen=True, slots=True)
class Terms:
    """The same for every resource of a site. ``tokens`` are those it takes, the one that it prefers
    first; ``suggested_deposits`` are in base units, by token.
    """

    deployment: Deployment
    payee: Address
    tokens: tuple[Token, ...]
    suggested_deposits: Mapping[Address, int] = field(default_factory=dict)

    def token(self, address: Address) -> Token | None:
        """The token at ``address``, or None if the payee does not take it."""
        for token in self.tokens:
            if token.address == address:
                return token
        return None

    def request(self, price: Price, quote: Quote) -> SessionRequest:
        """What a challenge for one price of a quote asks for."""
        return SessionRequest(
            amount=price.amount,
            currency=price.token.address,
            recipient=self.payee,
            deployment=self.deployment,
            unit_type=quote.unit,
            suggested_deposit=self.suggested_deposits.get(price.token.address),
            description=quote.description,
        )

    def are_those_of(self, request: SessionRequest) -> bool:
        """Whether a challenge that we once gave still names these terms."""
        asked = (request.deployment, request.recipient)
        return asked == (self.deployment, self.payee) and self.token(request.currency) is not None

    def channel(
        self, payer: Address, token: Address, authorized_signer: Address, salt: bytes
    ) -> Channel:
        """The channel to this payee that has these four facts."""
        return Channel(payer, self.payee, token, authorized_signer, salt)

    def apply_to(self, channel: Channel) -> bool:
        """Whether the channel pays this payee in a token that it takes."""
        return channel.payee == self.payee and self.token(channel.token) is not None
