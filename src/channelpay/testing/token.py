"""Minting the test token of a development chain."""

from __future__ import annotations

from channelpay.chain.artifacts import test_token
from channelpay.chain.connection import Connection, checksum
from channelpay.chain.contract import encoded_call
from channelpay.chain.types import ContractCall
from channelpay.protocol.types import Address


def mint(connection: Connection, token: Address, to: Address, amount: int) -> ContractCall:
    """A call that gives ``to`` new tokens (base units, 6 decimals). Anyone may send it."""
    contract = connection.contract(token, test_token().abi)
    return encoded_call(contract, "mint", (checksum(to), amount))
