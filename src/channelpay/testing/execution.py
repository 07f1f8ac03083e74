"""What every chain of this package has in common: its constants, a call, and how a call can end."""

from __future__ import annotations

from dataclasses import dataclass

CHAIN_ID = 31337
GAS_LIMIT = 30_000_000
TIP_WEI = 10**9
"""Priority fee that the chain suggests, per gas."""


@dataclass(frozen=True, slots=True)
class CallMessage:
    """A call without a signature. ``to`` empty means contract creation; ``value`` in wei."""

    sender: bytes = bytes(20)
    to: bytes = b""
    data: bytes = b""
    value: int = 0
    gas: int = GAS_LIMIT


class ExecutionReverted(Exception):
    """A call ended in ``REVERT``; ``data`` is what it returned."""

    def __init__(self, data: bytes) -> None:
        super().__init__("execution reverted")
        self.data = data


class ExecutionFailed(Exception):
    """A call ended neither in a result nor in ``REVERT``: out of gas, invalid opcode, no funds."""


class TransactionRejected(Exception):
    """A raw transaction that no block can contain."""


class UnknownBlock(Exception):
    """No block has this number or hash."""
