"""What the chain's side hands around: calls to send, logs and receipts that came back."""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.protocol.types import Address


@dataclass(frozen=True, slots=True)
class ContractCall:
    """An unsigned call: where to, ABI-encoded data, wei to send along.

    ``gas_reserve`` is added to the estimate of its gas: what code of others may take that behaves
    in another way once the transaction is mined.
    """

    to: Address
    data: bytes = b""
    value_wei: int = 0
    gas_reserve: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """``hash`` is 32 bytes, ``timestamp`` Unix seconds."""

    number: int
    hash: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class Log:
    """One event log; hashes and topics are 32 bytes each."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class TransactionReceipt:
    """A mined transaction; hashes are 32 bytes, prices wei per gas."""

    transaction_hash: bytes
    succeeded: bool
    block_number: int
    block_hash: bytes
    gas_used: int
    effective_gas_price_wei: int
    logs: tuple[Log, ...]

    @property
    def fee_wei(self) -> int:
        return self.gas_used * self.effective_gas_price_wei
