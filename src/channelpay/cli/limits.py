"""What the settings file allows to be spent, and what is allowed where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channelpay.cli.common import parse_amount_of
from channelpay.cli.networks import Network
from channelpay.errors import ConfigError
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address

if TYPE_CHECKING:
    from channelpay.payer.records import Token


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Limits in units of one token, as text, for its decimals are read from the chain. Those that
    are None are not set.
    """

    request: str
    origin_day: str
    day: str
    total: str | None = None
    metered: str | None = None
    deposit: str | None = None
    channel: str | None = None

    def amount(self, name: str, token: Token) -> int | None:
        """One limit in base units. Raises :class:`InputError` or :class:`ConfigError` for one that
        is not an amount of this token.
        """
        text = getattr(self, name)
        if text is None:
            return None
        number, _, symbol = text.partition(" ")
        if symbol and symbol.lower() != token.symbol.lower():
            raise ConfigError(
                f"the budget's {name} is in {symbol}, and the token is {token.symbol}"
            )
        return parse_amount_of(number, token, f"the budget's {name}")


DEFAULTS: Mapping[str, TokenBudget] = {
    "eth": TokenBudget(request="0.00002", origin_day="0.0002", day="0.001"),
    "usdc": TokenBudget(request="0.05", origin_day="0.5", day="2"),
}
"""A few cents for a request, a dollar or so for a day."""


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """The section ``[budget]``: limits by token, and who may be paid at all (None: anyone)."""

    tokens: Mapping[str, TokenBudget] = field(default_factory=dict)
    contracts: frozenset[Address] = frozenset()
    payees: frozenset[Address] | None = None
    origins: frozenset[str] | None = None

    def of(self, token: Address, network: Network | None) -> TokenBudget | None:
        """What the file says of a token: by its address, or its name in the network."""
        return _named(self.tokens, token, network)


def default_budget(token: Address, network: Network | None) -> TokenBudget | None:
    """What holds for a token where neither file nor options say anything of it."""
    return _named(DEFAULTS, token, network)


def _named(
    budgets: Mapping[str, TokenBudget], token: Address, network: Network | None
) -> TokenBudget | None:
    known = {} if network is None else network.tokens
    names = [name for name, address in known.items() if parse_address(address, name) == token]
    names += ["eth"] if token == NATIVE else [to_hex(token)]
    return next((budgets[name] for name in names if name in budgets), None)
