"""``--carry-gas`` and what belongs to it, as a site is told."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from channelpay.cli.carrying import GasOptions, carrying_options
from channelpay.errors import ConfigError, InputError
from channelpay.payee.carrier import GWEI, Carrying
from channelpay.payee.terms import ETHER, Token
from channelpay.protocol.types import Address

TOKEN = Token(Address(b"\x01" * 20), "TUSD", 6)
TOKENS = [TOKEN, ETHER]


def parsed(*arguments: str) -> GasOptions:
    found: list[GasOptions] = []

    @click.command()
    @carrying_options
    def command(gas: GasOptions) -> None:
        found.append(gas)

    CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    return found[0]


def test_amounts_are_in_ether_gwei_and_the_first_token() -> None:
    options = parsed(
        "--carry-gas",
        "0.05",
        "--carry-gas-price",
        "2.5",
        "--carry-payer",
        "7",
        "--carry-deposit",
        "1.5",
    )

    expected = Carrying(5 * 10**16, 25 * GWEI // 10, 7, {TOKEN.address: 1_500_000})
    assert options.carrying(TOKENS) == expected


def test_nothing_is_carried_without_a_budget() -> None:
    assert parsed().carrying(TOKENS) is None
    with pytest.raises(ConfigError, match="carry-deposit"):
        parsed("--carry-deposit", "1").carrying(TOKENS)


def test_a_budget_that_is_no_amount_is_refused() -> None:
    with pytest.raises(InputError):
        parsed("--carry-gas", "much")
