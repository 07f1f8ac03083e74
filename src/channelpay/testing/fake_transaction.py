"""A signed transaction as the fake chain reads it: of type 2, which is what wallets send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import rlp  # type: ignore[import-untyped]
from rlp.exceptions import RLPException  # type: ignore[import-untyped]

from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import Address
from channelpay.testing.execution import CHAIN_ID, GAS_LIMIT, CallMessage, TransactionRejected
from channelpay.testing.fake_world import signer_of

_TYPE = 2
_FIELDS = 12
_INTRINSIC_GAS = 21_000
_GAS_PER_BYTE = 16
_GAS_OF_A_CALL = 60_000
_WORD = 32
_V_OFFSET = 27


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """Amounts in wei, ``sender`` recovered from the signature; ``to`` is empty for a creation."""

    hash: bytes
    chain_id: int
    nonce: int
    tip_wei: int
    max_fee_wei: int
    gas: int
    to: bytes
    value: int
    data: bytes
    parity: int
    r: int
    s: int
    sender: Address

    @property
    def message(self) -> CallMessage:
        return CallMessage(self.sender, self.to, self.data, self.value, self.gas)

    def gas_price_wei(self, base_fee_wei: int) -> int:
        """What one unit of gas costs in a block with this base fee."""
        return min(self.max_fee_wei, base_fee_wei + self.tip_wei)


def parse_transaction(raw: bytes) -> SignedTransaction:
    """Raises :class:`TransactionRejected` for what no block could hold, whatever its state."""
    if raw[:1] != bytes([_TYPE]):
        raise TransactionRejected("the fake chain takes transactions of type 2 only")
    try:
        fields: list[Any] = rlp.decode(raw[1:])
    except RLPException as error:
        raise TransactionRejected(f"invalid transaction: {error}") from error
    if len(fields) != _FIELDS:
        raise TransactionRejected("invalid transaction: it has not twelve fields")
    transaction = _transaction(raw, fields)
    _check(transaction)
    return transaction


def gas_of(message: CallMessage) -> int:
    """What a call costs: a fixed price, and one for each byte. docs/gas.md has the real ones."""
    called = _GAS_OF_A_CALL if message.data else 0
    return _INTRINSIC_GAS + _GAS_PER_BYTE * len(message.data) + called


def _transaction(raw: bytes, fields: list[Any]) -> SignedTransaction:
    to, data = bytes(fields[5]), bytes(fields[7])
    chain_id, nonce, tip, fee, gas, value, parity, r, s = (
        int.from_bytes(fields[place], "big") for place in (0, 1, 2, 3, 4, 6, 9, 10, 11)
    )
    digest = keccak256(bytes([_TYPE]) + rlp.encode(fields[:9]))
    if max(r, s) >= 2 ** (8 * _WORD) or parity > 1:
        raise TransactionRejected("invalid transaction: its signature is too large")
    signature = r.to_bytes(_WORD, "big") + s.to_bytes(_WORD, "big") + bytes([_V_OFFSET + parity])
    sender = signer_of(digest, signature)
    if sender is None:
        raise TransactionRejected("invalid transaction: nobody signed it")
    return SignedTransaction(
        keccak256(raw), chain_id, nonce, tip, fee, gas, to, value, data, parity, r, s, sender
    )


def _check(transaction: SignedTransaction) -> None:
    """In the words that nodes use and clients look for."""
    needed = _INTRINSIC_GAS + _GAS_PER_BYTE * len(transaction.data)
    if transaction.chain_id != CHAIN_ID:
        raise TransactionRejected(f"invalid chain id: have {transaction.chain_id} want {CHAIN_ID}")
    if transaction.gas < needed:
        raise TransactionRejected(f"intrinsic gas too low: have {transaction.gas} want {needed}")
    if transaction.gas > GAS_LIMIT:
        raise TransactionRejected("exceeds block gas limit")
