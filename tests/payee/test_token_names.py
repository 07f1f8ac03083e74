"""What a payee's tokens are called in its prices."""

from __future__ import annotations

import pytest

from channelpay.errors import InputError
from channelpay.payee.amounts import parse_price
from channelpay.payee.terms import ETHER, Token
from channelpay.protocol.types import Address

DOLLAR = Token(Address(b"\x01" * 20), "USDC", 6)
LIKE_IT = Token(Address(b"\x02" * 20), "USDC", 6)
LIKE_ETHER = Token(Address(b"\x03" * 20), "ETH", 6)


@pytest.mark.parametrize("name", ["usdc", "USDC", "0x" + "01" * 20])
def test_a_token_is_called_by_its_symbol_or_its_address(name: str) -> None:
    (price,) = parse_price({name: "0.5"}, [ETHER, DOLLAR], "price")

    assert (price.token, price.amount) == (DOLLAR, 500_000)


def test_a_symbol_that_two_tokens_have_names_neither() -> None:
    with pytest.raises(InputError):
        parse_price({"usdc": "0.5"}, [DOLLAR, LIKE_IT], "price")


@pytest.mark.parametrize("tokens", [[LIKE_ETHER, ETHER], [ETHER, LIKE_ETHER]])
def test_no_token_can_call_itself_ether(tokens: list[Token]) -> None:
    (price,) = parse_price({"eth": "1"}, tokens, "price")

    assert price.token == ETHER
