"""Revert data turned into :class:`ChainReverted` with the contract's error name, its values and a
hint.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import collapse_if_tuple

from channelpay.chain.artifacts import payment_channels, test_token
from channelpay.errors import ChainReverted
from channelpay.protocol.keccak import keccak256

_STRING_SELECTOR = keccak256(b"Error(string)")[:4]
_PANIC_SELECTOR = keccak256(b"Panic(uint256)")[:4]

_HINTS = {
    "AmountExceedsDeposit": "Top the channel up first.",
    "AmountNotIncreasing": "This voucher is settled already; use a newer one.",
    "ChannelAlreadyExists": "Choose another salt, or a greater epoch of a finalized lane.",
    "ChannelFinalized": "This channel is closed for good; open another one.",
    "ChannelNotFound": "Check contract, chain and the channel's description.",
    "CloseNotReady": "Request the close, then wait until the grace period is over.",
    "GasTooLow": "Give the transaction more gas: a push to a receiver may take 200,000.",
    "InvalidAuthorization": "Have the payee sign this amount, for this contract and chain.",
    "InvalidSignature": "Sign with the channel's authorized signer, for this contract and chain.",
    "InvalidToken": "Check the token's address: there is no contract at it.",
    "NonceMismatch": "Sign with the nonce that is made from the channel's parameters.",
    "NotPayee": "Send this from the payee's account.",
    "NotPayer": "Send this from the payer's account.",
    "TimeOverflow": "Let the payee close: after February 2106 no close can be requested.",
    "TokenTransferFailed": "Check the token's balance and its allowance for the contract.",
    "ZeroDeposit": "Deposit more than zero.",
}


def reverted(revert_data: bytes, *, message: str = "") -> ChainReverted:
    """The error for what a contract gave ``REVERT``; ``message`` is the node's own text."""
    selector, values = revert_data[:4], revert_data[4:]
    if selector == _STRING_SELECTOR:
        return ChainReverted(_decoded_string(values) or message)
    if selector == _PANIC_SELECTOR and len(values) == 32:
        return ChainReverted(f"panic 0x{int.from_bytes(values, 'big'):02x}", error="Panic")
    entry = _errors_by_selector().get(selector)
    if entry is None:
        unknown = f"unknown error 0x{revert_data.hex()}"
        return ChainReverted(unknown if revert_data else message)
    return _contract_error(entry, values)


def _contract_error(entry: dict[str, Any], values: bytes) -> ChainReverted:
    name = entry["name"]
    try:
        decoded = decode([collapse_if_tuple(item) for item in entry["inputs"]], values)
    except DecodingError:
        return ChainReverted(f"{name} with malformed values", error=name)
    arguments = {
        item["name"]: _as_json(value) for item, value in zip(entry["inputs"], decoded, strict=True)
    }
    listed = ", ".join(f"{key} {value}" for key, value in arguments.items())
    # Amounts are decimal strings in JSON, as everywhere.
    context = {
        key: value if isinstance(value, bool) else str(value) for key, value in arguments.items()
    }
    detail = f"{name}({listed})" if listed else name
    return ChainReverted(detail, error=name, hint=_HINTS.get(name), **context)


def _decoded_string(values: bytes) -> str:
    try:
        (text,) = decode(["string"], values)
    except (DecodingError, UnicodeDecodeError):
        return ""
    return str(text)


def _as_json(value: Any) -> str | int | bool:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, bool | int | str):
        return value
    return str(value)


@cache
def _errors_by_selector() -> dict[bytes, dict[str, Any]]:
    entries = [*test_token().abi, *payment_channels().abi]
    return {_selector(entry): entry for entry in entries if entry["type"] == "error"}


def _selector(entry: dict[str, Any]) -> bytes:
    types = ",".join(collapse_if_tuple(item) for item in entry["inputs"])
    return keccak256(f"{entry['name']}({types})".encode())[:4]
