"""Paying many receivers in one transaction: the Payouts contract (contracts/Payouts.sol)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from channelpay.chain.artifacts import payouts
from channelpay.chain.connection import Connection, NodeRefused, checksum
from channelpay.chain.contract import PUSH_GAS_RESERVE, encoded_call
from channelpay.chain.create2 import payouts_creation
from channelpay.chain.events import CHUNK_BLOCKS
from channelpay.chain.types import ContractCall, Log
from channelpay.errors import NetworkError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import NATIVE, Address, abi_word

ROWS_MAX = 50
"""Of one round: each may take :data:`~channelpay.chain.contract.PUSH_GAS_RESERVE`, and some chains
take no transaction over 16 million gas.
"""
_PAID_OUT = keccak256(b"PaidOut(address,uint256,address,address,uint256,bool)")


@dataclass(frozen=True, slots=True)
class PaidRow:
    """One row of a round as the chain has it: ``paid`` or skipped, ``amount`` in base units."""

    round: int
    receiver: Address
    token: Address
    amount: int
    paid: bool
    transaction_hash: bytes
    block_number: int


class PayoutsContract:
    """The contract at its one address, read through one node."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.address: Address = payouts_creation().address
        self._contract = connection.contract(self.address, payouts().abi)

    def pay(self, token: Address, number: int, rows: Sequence[tuple[Address, int]]) -> ContractCall:
        """The sender's round ``number``: receivers and amounts in base units, in their order. Of a
        token the contract needs an allowance.
        """
        payouts = [(checksum(receiver), amount) for receiver, amount in rows]
        total = sum(amount for _, amount in rows) if token == NATIVE else 0
        arguments = (checksum(token), number, payouts)
        call = encoded_call(self._contract, "pay", arguments, value_wei=total)
        return replace(call, gas_reserve=len(rows) * PUSH_GAS_RESERVE)

    def rounds(self, sender: Address, *, block: int | None = None) -> int:
        """How many rounds ``sender`` has paid at ``block`` (or the latest)."""
        said = self.connection.view(self._contract, "rounds", checksum(sender), block=block)
        return int(said)

    def rows(
        self,
        sender: Address,
        *,
        number: int | None = None,
        receiver: Address | None = None,
        from_block: int = 0,
    ) -> list[PaidRow]:
        """What ``sender`` paid in its round ``number``, or in all, to ``receiver``, or to all, in
        the order of the chain. Raises :class:`~channelpay.errors.NetworkError`.
        """
        topics: list[Sequence[bytes] | None] = [
            [_PAID_OUT],
            [abi_word(sender)],
            None if number is None else [number.to_bytes(32, "big")],
            None if receiver is None else [abi_word(receiver)],
        ]
        head = self.connection.latest_block().number
        logs: list[Log] = []
        step = CHUNK_BLOCKS
        while from_block <= head:
            end = min(from_block + step - 1, head)
            try:
                logs += self.connection.logs(self.address, topics, from_block, end)
            except NodeRefused:
                if step == 1:
                    raise
                step //= 2
                continue
            from_block = end + 1
        return [
            _row(log) for log in sorted(logs, key=lambda one: (one.block_number, one.log_index))
        ]


def _row(log: Log) -> PaidRow:
    try:
        token, amount, paid = decode(["address", "uint256", "bool"], log.data)
    except DecodingError as error:
        raise NetworkError("a node's log is not what the contract writes") from error
    return PaidRow(
        int.from_bytes(log.topics[2], "big"),
        Address(log.topics[3][-20:]),
        Address(bytes.fromhex(token[2:])),
        amount,
        paid,
        log.transaction_hash,
        log.block_number,
    )
