"""The test token of a development chain: minting it, and signing for it what a wallet would."""

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
NO_DEADLINE = 2**256 - 1
_PERMIT = {
    "owner": "address",
    "spender": "address",
    "value": "uint256",
    "nonce": "uint256",
    "deadline": "uint256",
}
_RECEIVE_WITH_AUTHORIZATION = {
    "from": "address",
    "to": "address",
    "value": "uint256",
    "validAfter": "uint256",
    "validBefore": "uint256",
    "nonce": "bytes32",
}


def mint(connection: Connection, token: Address, to: Address, amount: int) -> ContractCall:
    """A call that gives ``to`` new tokens (base units, 6 decimals). Anyone may send it."""
    contract = connection.contract(token, test_token().abi)
    return encoded_call(contract, "mint", (checksum(to), amount))


def transfer(connection: Connection, token: Address, to: Address, amount: int) -> ContractCall:
    """A plain transfer of the sender's tokens (base units)."""
    contract = connection.contract(token, test_token().abi)
    return encoded_call(contract, "transfer", (checksum(to), amount))


def permit_unlimited(
    connection: Connection, token: Address, owner: DevAccount, spender: Address
) -> ContractCall:
    """A call that lets ``spender`` take any amount of ``owner``'s tokens, by ``owner``'s EIP-2612
    signature. Anyone may send it, so the account itself stays as it was.
    """
    contract = connection.contract(token, test_token().abi)
    signature = sign_permit(connection, token, owner, spender, UNLIMITED)
    parties = (checksum(owner.address), checksum(spender))
    parts = (signature[64], signature[:32], signature[32:64])
    return encoded_call(contract, "permit", (*parties, UNLIMITED, NO_DEADLINE, *parts))


def sign_permit(
    connection: Connection, token: Address, owner: DevAccount, spender: Address, amount: int
) -> bytes:
    """``owner``'s EIP-2612 permit (65 bytes) for ``amount`` base units, without a deadline."""
    contract = connection.contract(token, test_token().abi)
    nonce = connection.view(contract, "nonces", checksum(owner.address))
    parties = (checksum(owner.address), checksum(spender))
    values = (*parties, amount, nonce, NO_DEADLINE)
    return _sign(connection, token, owner, "Permit", _PERMIT, values)


def sign_authorization(
    connection: Connection,
    token: Address,
    owner: DevAccount,
    to: Address,
    amount: int,
    nonce: bytes,
) -> bytes:
    """``owner``'s EIP-3009 ``ReceiveWithAuthorization`` (65 bytes) of ``amount`` base units, valid
    from the beginning and without an end.
    """
    values = (checksum(owner.address), checksum(to), amount, 0, NO_DEADLINE, nonce)
    fields = _RECEIVE_WITH_AUTHORIZATION
    return _sign(connection, token, owner, "ReceiveWithAuthorization", fields, values)


def _sign(
    connection: Connection,
    token: Address,
    owner: DevAccount,
    name: str,
    fields: dict[str, str],
    values: tuple[object, ...],
) -> bytes:
    signed = Account.sign_typed_data(
        owner.private_key,
        domain_data=_domain(connection, token),
        message_types={name: [{"name": field, "type": kind} for field, kind in fields.items()]},
        message_data=dict(zip(fields, values, strict=True)),
    )
    return bytes(signed.signature)


def _domain(connection: Connection, token: Address) -> dict[str, Any]:
    return {
        "name": "Test Dollar",
        "version": "1",
        "chainId": connection.chain_id,
        "verifyingContract": checksum(token),
    }
