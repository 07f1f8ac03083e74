"""What a payee offers: who is paid, in which token, through which contract."""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.protocol.text import format_amount, parse_human_amount
from channelpay.protocol.types import NATIVE, Address, Channel, Deployment
from channelpay.protocol.wire import SessionRequest


@dataclass(frozen=True, slots=True)
class Token:
    """The token of all prices; ``address`` is :data:`~channelpay.protocol.types.NATIVE` for the
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
    """The same for every resource of a site. ``suggested_deposit`` is in base units."""

    deployment: Deployment
    payee: Address
    token: Token
    suggested_deposit: int | None = None

    def request(self, amount: int, description: str | None = None) -> SessionRequest:
        """What a challenge for ``amount`` base units asks for."""
        return SessionRequest(
            amount=amount,
            currency=self.token.address,
            recipient=self.payee,
            deployment=self.deployment,
            suggested_deposit=self.suggested_deposit,
            description=description,
        )

    def are_those_of(self, request: SessionRequest) -> bool:
        """Whether a challenge that we once gave still names these terms."""
        asked = (request.deployment, request.recipient, request.currency)
        return asked == (self.deployment, self.payee, self.token.address)

    def channel(self, payer: Address, authorized_signer: Address, salt: bytes) -> Channel:
        """The channel to this payee that has these three facts."""
        return Channel(payer, self.payee, self.token.address, authorized_signer, salt)

    def apply_to(self, channel: Channel) -> bool:
        """Whether the channel pays this payee in this token."""
        return (channel.payee, channel.token) == (self.payee, self.token.address)
