"""``--carry-gas``: opens and top-ups whose gas a site pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.settling import GWEI_DECIMALS, amounts_in
from channelpay.errors import ConfigError
from channelpay.protocol.text import parse_human_amount

if TYPE_CHECKING:
    from channelpay.payee.carrier import Carrying
    from channelpay.payee.terms import Token

ETHER_DECIMALS = 18
GAS_PRICE_GWEI = "50"
PAYER_MAX = 3


def _ether(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    return None if text is None else parse_human_amount(text, ETHER_DECIMALS, "carry-gas")


def _gwei(_: click.Context, __: click.Parameter, text: str) -> int:
    return parse_human_amount(text, GWEI_DECIMALS, "carry-gas-price")


_OPTIONS: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
    click.option(
        "--carry-gas",
        metavar="ETHER",
        callback=_ether,
        help="Pay the gas of opens and top-ups that readers sign: so much in 24 hours, at most.",
    ),
    click.option(
        "--carry-gas-price",
        default=GAS_PRICE_GWEI,
        show_default=True,
        metavar="GWEI",
        callback=_gwei,
        help="With --carry-gas: not while a unit of gas costs more.",
    ),
    click.option(
        "--carry-payer",
        type=click.IntRange(min=1),
        default=PAYER_MAX,
        show_default=True,
        help="With --carry-gas: so many for one reader in 24 hours.",
    ),
    click.option(
        "--carry-deposit",
        multiple=True,
        metavar="[TOKEN=]AMOUNT",
        help="With --carry-gas: not for less (default: the suggested deposit).",
    ),
]


@dataclass(frozen=True, slots=True)
class GasOptions:
    """The options, as they were given; amounts of ether are in wei."""

    carry_gas: int | None
    carry_gas_price: int
    carry_payer: int
    carry_deposit: tuple[str, ...]

    def carrying(self, tokens: Sequence[Token]) -> Carrying | None:
        """What the site is told; an amount that names no token is in the first one."""
        from channelpay.payee.carrier import Carrying

        if self.carry_gas is None:
            if self.carry_deposit:
                raise ConfigError(
                    "no gas is carried, so --carry-deposit means nothing",
                    hint="Say how much it may cost in a day: --carry-gas ETHER",
                )
            return None
        return Carrying(
            self.carry_gas,
            self.carry_gas_price,
            self.carry_payer,
            amounts_in(tokens, self.carry_deposit, "carry-deposit"),
        )


def carrying_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options; the command gets them as ``gas``."""

    @wraps(command)
    def with_options(*arguments: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(GasOptions)}
        return command(*arguments, gas=GasOptions(**chosen), **given)

    decorated: Callable[..., Any] = with_options
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
