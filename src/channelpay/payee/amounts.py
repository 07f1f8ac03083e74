"""Amounts as a site's people write them: in human units of one token, or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from channelpay.errors import InputError
from channelpay.payee.terms import Token
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE, Address

HumanPrice: TypeAlias = str | Mapping[str, str]
"""An amount in human units of the first token, or one by token: ``eth``, an address, or the symbol
of one of the payee's tokens.
"""


@dataclass(frozen=True, slots=True)
class Price:
    """``amount`` base units of a token."""

    token: Token
    amount: int

    def format(self) -> str:
        """In human units, with the symbol."""
        return self.token.format(self.amount)


def parse_price(price: HumanPrice, tokens: Sequence[Token], field: str) -> tuple[Price, ...]:
    """What the amounts of ``price`` are in base units, in the order of ``tokens``.

    Raises :class:`~channelpay.errors.InputError`, which names ``field`` and the token.
    """
    if not isinstance(price, Mapping):
        return (Price(tokens[0], _amount(price, tokens[0], field)),)
    if not price:
        raise InputError(f"{field} names no token")
    amounts: dict[Address, int] = {}
    for name, text in price.items():
        token = _token(name, tokens, field)
        if token.address in amounts:
            raise InputError(f"{field}.{name} names a token for the second time")
        amounts[token.address] = _amount(text, token, f"{field}.{name}")
    return tuple(Price(one, amounts[one.address]) for one in tokens if one.address in amounts)


def parse_token(name: str, field: str = "token") -> Address:
    """The token that is called ``eth`` or by its address."""
    return NATIVE if name.lower() == "eth" else parse_address(name, field)


def _token(name: str, tokens: Sequence[Token], field: str) -> Token:
    # What calls itself ETH is not ether.
    erc20s = [one for one in tokens if one.address != NATIVE and name.lower() != "eth"]
    called = [one for one in erc20s if one.symbol.lower() == name.lower()]
    if len(called) == 1:
        return called[0]
    address = parse_token(name, f"{field}.{name[:80]}")
    for token in tokens:
        if token.address == address:
            return token
    taken = ", ".join(f"{_name(token)} ({token.symbol})" for token in tokens)
    raise InputError(f"{field}.{name}: the payee does not take this token; it takes {taken}")


def _name(token: Token) -> str:
    return "eth" if token.address == NATIVE else checksum_address(token.address)


def _amount(text: object, token: Token, field: str) -> int:
    # A function of the site's own, or an untyped caller, may give a number.
    if not isinstance(text, str):
        raise InputError(f'{field} must be a string such as "0.01"')
    return token.parse(text, field)
