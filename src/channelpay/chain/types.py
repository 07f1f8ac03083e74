"""What the chain's side hands around: calls to send, logs and receipts that came back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from channelpay.protocol.types import Address


@dataclass(frozen=True, slots=True)
class ContractCall:
    """An unsigned call: where to, ABI-encoded data, wei to send along.

    ``gas_reserve`` is added to the estimate of its gas: what code of others may take that behaves
    in another way once the transaction is mined. A call that needs more than ``gas_max`` is not
    sent.
    """

    to: Address
    data: bytes = b""
    value_wei: int = 0
    gas_reserve: int = 0
    gas_max: int | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """What a transaction would use and cost now; ``price_wei`` is that of a unit of gas."""

    gas: int
    price_wei: int

    @property
    def cost_wei(self) -> int:
        return self.gas * self.price_wei


@dataclass(frozen=True, slots=True)
class Tried:
    """A transaction that somebody may send: what it is for, and its trial. What was not tried has
    the gas that was measured for its like.
    """

    purpose: str
    trial: Trial
    was_tried: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transaction is that somebody waits for: it has ``depth`` of the ``needed``
    confirmations, 0 before it is mined. ``transaction_hash`` has 32 bytes.
    """

    transaction_hash: bytes
    depth: int
    needed: int


Listener = Callable[[Progress], None]
"""Told of a transaction before it leaves, and whenever it has come further."""


def unheard(_: Progress) -> None:
    """Nobody listens."""


class SignedTransaction(Protocol):
    """``hash`` is 32 bytes, ``raw_transaction`` what a node takes."""

    @property
    def hash(self) -> bytes: ...

    @property
    def raw_transaction(self) -> bytes: ...


class TransactionSigner(Protocol):
    """Whose transactions these are: an account of eth-account, or whatever else has the key, such
    as :class:`~channelpay.chain.ledger.LedgerAccount`.
    """

    @property
    def address(self) -> str:
        """As hex digits after ``0x``."""
        ...

    def sign_transaction(self, transaction_dict: dict[str, Any], /) -> SignedTransaction:
        """Sign a transaction of type 2 (EIP-1559) with the members that JSON-RPC gives it:
        integers, ``to`` as hex digits, ``data`` as bytes.
        """
        ...


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
