"""An Ethereum chain in memory, executed by py-evm under the rules of the Prague fork.

Every accepted transaction becomes a block of its own. Block timestamps follow the wall clock plus
whatever the test added, and always grow. The class keeps its own list of blocks, so that going back
to a snapshot is cutting that list: the state of an older block stays in py-evm's database under its
state root.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from eth.abc import (
    BlockAPI,
    BlockHeaderAPI,
    ReceiptAPI,
    SignedTransactionAPI,
    StateAPI,
)
from eth.chains.base import Chain
from eth.db.atomic import AtomicDB
from eth.estimators.gas import binary_gas_search_1000_tolerance
from eth.exceptions import Revert, VMError
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.state import PragueTransactionExecutor
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth.vm.spoof import SpoofTransaction
from eth_typing import Address as EvmAddress
from eth_typing import BlockNumber
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]

from channelpay.testing.accounts import BALANCE_WEI
from channelpay.testing.execution import (
    CHAIN_ID,
    GAS_LIMIT,
    CallMessage,
    ExecutionFailed,
    ExecutionReverted,
    TransactionRejected,
    UnknownBlock,
)


@dataclass(frozen=True, slots=True)
class MinedBlock:
    block: BlockAPI
    receipts: tuple[ReceiptAPI, ...]

    @property
    def header(self) -> BlockHeaderAPI:
        return self.block.header


@dataclass(frozen=True, slots=True)
class Snapshot:
    height: int
    clock_offset_seconds: int


class _PyEvmChain(Chain):
    chain_id = CHAIN_ID
    vm_configuration = ((BlockNumber(0), PragueVM),)


class EmbeddedChain:
    """One chain. Not thread-safe: whoever shares it holds a lock around each call."""

    def __init__(
        self, funded: Iterable[bytes] = (), *, now: Callable[[], float] = time.time
    ) -> None:
        self._now = now
        self._clock_offset_seconds = 0
        self._next_timestamp: int | None = None
        self._snapshots: list[Snapshot] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._chain, genesis = _genesis(funded, int(now()))
        self._blocks = [MinedBlock(genesis, ())]

    @property
    def head(self) -> MinedBlock:
        return self._blocks[-1]

    @property
    def next_base_fee_wei(self) -> int:
        return base_fee_wei(self.pending_header())

    def block_at(self, number: int) -> MinedBlock:
        if not 0 <= number < len(self._blocks):
            raise UnknownBlock(f"no block {number}")
        return self._blocks[number]

    def block_of_hash(self, block_hash: bytes) -> MinedBlock:
        for mined in reversed(self._blocks):
            if mined.block.hash == block_hash:
                return mined
        raise UnknownBlock(f"no block 0x{block_hash.hex()}")

    def place_of(self, transaction_hash: bytes) -> tuple[MinedBlock, int] | None:
        """The block and the index in it of a mined transaction."""
        place = self._places.get(transaction_hash)
        return None if place is None else (self._blocks[place[0]], place[1])

    def state_at(self, header: BlockHeaderAPI) -> StateAPI:
        return self._chain.get_vm(header).state

    def pending_header(self) -> BlockHeaderAPI:
        """The header that the next block starts from."""
        parent = self.head.header
        return self._chain.create_header_from_parent(
            parent, timestamp=self._pending_timestamp(), gas_limit=parent.gas_limit
        )

    def submit(self, raw_transaction: bytes) -> bytes:
        """Mine a signed transaction in a block of its own; returns its hash."""
        transaction = self._decode(raw_transaction)
        header = self.pending_header()
        self._check(transaction, header)
        try:
            self._mine(header, (transaction,))
        except ValidationError as error:
            raise TransactionRejected(str(error)) from error
        return transaction.hash

    def mine_empty_block(self) -> None:
        self._mine(self.pending_header(), ())

    def call(self, message: CallMessage, header: BlockHeaderAPI) -> bytes:
        """The return data of a call on top of ``header``'s state, in its block context."""
        state = self._costless_state(header)
        _check_value(message, state)
        try:
            computation = state.apply_transaction(_unsigned(message, state))
        except ValidationError as error:
            raise ExecutionFailed(str(error)) from error
        _raise_for(computation.error if computation.is_error else None)
        return computation.output

    def estimate_gas(self, message: CallMessage, header: BlockHeaderAPI) -> int:
        """The gas limit that the message needs, at most 1000 too high."""
        state = self._costless_state(header)
        _check_value(message, state)
        transaction = _unsigned(message, state)
        try:
            estimate = binary_gas_search_1000_tolerance(state, transaction)
        except VMError as error:
            _raise_for(error)
            raise
        except ValidationError as error:
            raise ExecutionFailed(str(error)) from error
        return max(int(estimate), _floor_gas(transaction))

    def increase_time(self, seconds: int) -> int:
        """Let the next block come ``seconds`` after the latest, or later; returns what was added in
        total.
        """
        lead = self.head.header.timestamp - self._clock()
        self._clock_offset_seconds += seconds + max(0, lead)
        return self._clock_offset_seconds

    def set_next_timestamp(self, timestamp: int) -> None:
        """Give the next block this timestamp and let the clock go on from there."""
        if timestamp <= self.head.header.timestamp:
            raise ValueError(f"the chain is already at {self.head.header.timestamp}")
        self._next_timestamp = timestamp
        self._clock_offset_seconds += timestamp - self._clock()

    def snapshot(self) -> int:
        """Remember this state; snapshots are numbered from 1."""
        self._snapshots.append(Snapshot(len(self._blocks), self._clock_offset_seconds))
        return len(self._snapshots)

    def revert(self, snapshot_number: int) -> bool:
        """Go back to a snapshot, which uses up it and all later ones; false if it is unknown."""
        if not 1 <= snapshot_number <= len(self._snapshots):
            return False
        snapshot = self._snapshots[snapshot_number - 1]
        del self._snapshots[snapshot_number - 1 :]
        del self._blocks[snapshot.height :]
        self._places = {
            key: place for key, place in self._places.items() if place[0] < snapshot.height
        }
        self._clock_offset_seconds = snapshot.clock_offset_seconds
        self._next_timestamp = None
        return True

    def _pending_timestamp(self) -> int:
        if self._next_timestamp is not None:
            return self._next_timestamp
        return max(self._clock(), self.head.header.timestamp + 1)

    def _clock(self) -> int:
        """Wall clock plus what was added; blocks mined faster than one a second run ahead of it."""
        return int(self._now()) + self._clock_offset_seconds

    def _decode(self, raw_transaction: bytes) -> SignedTransactionAPI:
        try:
            transaction = PragueVM.get_transaction_builder().decode(raw_transaction)
            transaction.validate()
        except (ValidationError, RLPException, ValueError, IndexError) as error:
            raise TransactionRejected(f"invalid transaction: {error}") from error
        return transaction

    def _check(self, transaction: SignedTransactionAPI, header: BlockHeaderAPI) -> None:
        """Refuse what no block may hold, in the words that nodes use and clients look for."""
        if transaction.hash in self._places:
            raise TransactionRejected("already known")
        if transaction.chain_id not in (None, CHAIN_ID):
            raise TransactionRejected(
                f"invalid chain id: have {transaction.chain_id} want {CHAIN_ID}"
            )
        self._check_gas(transaction, header)
        self._check_account(transaction, header)

    def _check_gas(self, transaction: SignedTransactionAPI, header: BlockHeaderAPI) -> None:
        needed = max(transaction.intrinsic_gas, _floor_gas(transaction))
        if transaction.gas < needed:
            raise TransactionRejected(
                f"intrinsic gas too low: have {transaction.gas} want {needed}"
            )
        if transaction.gas > header.gas_limit:
            raise TransactionRejected("exceeds block gas limit")
        base_fee = base_fee_wei(header)
        if transaction.max_fee_per_gas < base_fee:
            raise TransactionRejected(
                f"max fee per gas less than block base fee: have {transaction.max_fee_per_gas} "
                f"want {base_fee}"
            )

    def _check_account(self, transaction: SignedTransactionAPI, header: BlockHeaderAPI) -> None:
        state = self.state_at(header)
        nonce = state.get_nonce(transaction.sender)
        if transaction.nonce != nonce:
            word = "low" if transaction.nonce < nonce else "high"
            raise TransactionRejected(
                f"nonce too {word}: next nonce {nonce}, tx nonce {transaction.nonce}"
            )
        balance = state.get_balance(transaction.sender)
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if balance < cost:
            raise TransactionRejected(
                f"insufficient funds for gas * price + value: have {balance} want {cost}"
            )

    def _mine(self, header: BlockHeaderAPI, transactions: tuple[SignedTransactionAPI, ...]) -> None:
        vm = self._chain.get_vm(header.copy(mix_hash=os.urandom(32)))
        filled_header, receipts, _ = vm.apply_all_transactions(transactions, vm.get_header())
        block = vm.set_block_transactions_and_withdrawals(
            vm.get_block(), filled_header, transactions, receipts
        )
        self._append(MinedBlock(vm.mine_block(block).block, receipts))

    def _append(self, mined: MinedBlock) -> None:
        self._chain.chaindb.persist_header(mined.header)
        for index, transaction in enumerate(mined.block.transactions):
            self._places[transaction.hash] = (len(self._blocks), index)
        self._blocks.append(mined)
        self._next_timestamp = None

    def _costless_state(self, header: BlockHeaderAPI) -> StateAPI:
        return self.state_at(header.copy(base_fee_per_gas=0))


def base_fee_wei(header: BlockHeaderAPI) -> int:
    """Base fee per gas; every header of this chain has one."""
    return cast(int, header.base_fee_per_gas)


def _genesis(funded: Iterable[bytes], timestamp: int) -> tuple[_PyEvmChain, BlockAPI]:
    state: dict[EvmAddress, Any] = {
        EvmAddress(address): {"balance": BALANCE_WEI, "nonce": 0, "code": b"", "storage": {}}
        for address in funded
    }
    parameters: dict[str, Any] = {
        "difficulty": 0,
        "gas_limit": GAS_LIMIT,
        "timestamp": timestamp,
        "nonce": bytes(8),
        "mix_hash": bytes(32),
        "extra_data": b"",
        "coinbase": bytes(20),
    }
    chain = cast(_PyEvmChain, _PyEvmChain.from_genesis(AtomicDB(), parameters, state))
    return chain, chain.get_block_by_header(chain.get_canonical_head())


def _unsigned(message: CallMessage, state: StateAPI) -> SignedTransactionAPI:
    """``message`` as a transaction that costs nothing, from a sender who signed nothing."""
    builder = cast(type[PragueTransactionBuilder], PragueVM.get_transaction_builder())
    unsigned = builder.new_unsigned_dynamic_fee_transaction(
        chain_id=CHAIN_ID,
        nonce=state.get_nonce(EvmAddress(message.sender)),
        max_priority_fee_per_gas=0,
        max_fee_per_gas=0,
        gas=message.gas,
        to=EvmAddress(message.to),
        value=message.value,
        data=message.data,
        access_list=(),
    )
    return cast(SignedTransactionAPI, SpoofTransaction(unsigned, from_=message.sender))


def _check_value(message: CallMessage, state: StateAPI) -> None:
    if state.get_balance(EvmAddress(message.sender)) < message.value:
        raise ExecutionFailed("insufficient funds for transfer")


def _floor_gas(transaction: SignedTransactionAPI) -> int:
    """What EIP-7623 charges at least for the transaction's data."""
    return 21_000 + PragueTransactionExecutor.calc_data_floor_gas(transaction, 21_000, 0)


def _raise_for(error: VMError | None) -> None:
    if isinstance(error, Revert):
        raise ExecutionReverted(error.args[0] if error.args else b"") from error
    if error is not None:
        raise ExecutionFailed(str(error) or type(error).__name__) from error
