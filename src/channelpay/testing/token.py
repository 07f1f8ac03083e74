"""The test token of a development chain: minting it, and allowing a contract to take it."""

from __future__ import annotations

from typing import Any

from eth_account import Account

from channelpay.chain.artifacts import test_token
from channelpay.chain.connection import Connection, checksum
from channelpay.chain.contract import encoded_call
from channelpay.chain.types import ContractCall
from channelpay.protocol.types import Address
from channelpay.testing.accounts import DevAccount

UNLIMITED = 2**256 - 1
_PERMIT_FIELDS = {
    "owner": "address",
    "spender": "address",
    "value": "uint256",
    "nonce": "uint256",
    "deadline": "uint256",
}


def mint(connection: Connection, token: Address, to: Address, amount: int) -> ContractCall:
    """A call that gives ``to`` new tokens (base units, 6 decimals). Anyone may send it."""
    contract = connection.contract(token, test_token().abi)
    return encoded_call(contract, "mint", (checksum(to), amount))


def permit_unlimited(
    connection: Connection, token: Address, owner: DevAccount, spender: Address
) -> ContractCall:
    """A call that lets ``spender`` take any amount of ``owner``'s tokens, by ``owner``'s EIP-2612
    signature. Anyone may send it, so the account itself stays as it was.
    """
    contract = connection.contract(token, test_token().abi)
    owner_text, spender_text = checksum(owner.address), checksum(spender)
    nonce = connection.view(contract, "nonces", owner_text)
    values = (owner_text, spender_text, UNLIMITED, nonce, UNLIMITED)
    signed = Account.sign_typed_data(
        owner.private_key,
        domain_data=_domain(connection, token),
        message_types={"Permit": [{"name": n, "type": t} for n, t in _PERMIT_FIELDS.items()]},
        message_data=dict(zip(_PERMIT_FIELDS, values, strict=True)),
    )
    signature = (signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big"))
    permit = (owner_text, spender_text, UNLIMITED, UNLIMITED, *signature)
    return encoded_call(contract, "permit", permit)


def _domain(connection: Connection, token: Address) -> dict[str, Any]:
    return {
        "name": "Test Dollar",
        "version": "1",
        "chainId": connection.chain_id,
        "verifyingContract": checksum(token),
    }
