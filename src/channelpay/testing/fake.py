"""A chain that plays the contract and the test token in Python, behind the JSON-RPC of a node.

It starts at once, needs no extra, and does when told what real chains do rarely: it lets
transactions wait, and takes blocks back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import Address
from channelpay.testing.accounts import BALANCE_WEI, deployer_account, dev_accounts
from channelpay.testing.devchain import DevChain
from channelpay.testing.execution import (
    CHAIN_ID,
    GAS_LIMIT,
    CallMessage,
    ExecutionFailed,
    ExecutionReverted,
    TransactionRejected,
    UnknownBlock,
)
from channelpay.testing.fake_abi import Event
from channelpay.testing.fake_transaction import SignedTransaction, gas_of, parse_transaction
from channelpay.testing.fake_world import World

FIRST_BASE_FEE_WEI = 10**9
REPLACEMENT_PERCENT = 10
"""By how much a transaction must raise both fees to take the place of a waiting one."""
_GAS_TARGET = GAS_LIMIT // 2
_FEE_STEP = 8


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction in a block, with its receipt."""

    transaction: SignedTransaction
    succeeded: bool
    gas_used: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """``world`` is the state after it; hashes are 32 bytes, ``timestamp`` Unix seconds."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    base_fee_wei: int
    mined: tuple[Mined, ...]
    world: World

    @property
    def gas_used(self) -> int:
        return sum(one.gas_used for one in self.mined)

    @property
    def next_base_fee_wei(self) -> int:
        """EIP-1559: up to an eighth more or less, by how full the block is."""
        excess = self.gas_used - _GAS_TARGET
        return self.base_fee_wei + self.base_fee_wei * excess // _GAS_TARGET // _FEE_STEP


@dataclass(frozen=True, slots=True)
class _Snapshot:
    height: int
    offset_seconds: int


class FakeChain:
    """One chain. Not thread-safe by itself: its JSON-RPC server lets one in at a time."""

    def __init__(
        self, funded: Iterable[Address] = (), *, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._offset_seconds = 0
        self._next_timestamp: int | None = None
        self._snapshots: list[_Snapshot] = []
        self._waiting: list[SignedTransaction] = []
        self._holds = False
        self._branch = 0
        world = World(CHAIN_ID, dict.fromkeys(funded, BALANCE_WEI))
        now = int(clock())
        genesis_hash = keccak256(now.to_bytes(8, "big"))
        genesis = Block(0, genesis_hash, bytes(32), now, FIRST_BASE_FEE_WEI, (), world)
        self._blocks = [genesis]

    # --- what a test tells it ----------------------------------------------------------------

    def hold_transactions(self) -> None:
        """Let transactions wait from now on, until a block is mined or they are let go."""
        self._holds = True

    def release_transactions(self) -> None:
        """Mine what waits, and each new transaction at once again."""
        self._holds = False
        if self._waiting:
            self.mine()

    def drop_transactions(self) -> None:
        """Forget what waits, as a node does whose pool is full."""
        self._waiting.clear()

    def reorganize(self, depth: int, *, keep_transactions: bool = True) -> None:
        """Replace the last ``depth`` blocks by as many others. Their transactions come again in the
        first of them, or are gone.
        """
        if not 0 < depth < len(self._blocks):
            raise UnknownBlock(f"there are no {depth} blocks to take back")
        taken = self._blocks[-depth:]
        del self._blocks[-depth:]
        self._branch += 1
        if keep_transactions:
            self._waiting[:0] = [one.transaction for block in taken for one in block.mined]
        for block in taken:
            self.mine(max(block.timestamp, self.head.timestamp + 1))

    # --- what a node tells -------------------------------------------------------------------

    @property
    def head(self) -> Block:
        return self._blocks[-1]

    @property
    def height(self) -> int:
        """The number of the latest block."""
        return self.head.number

    @property
    def waiting(self) -> tuple[SignedTransaction, ...]:
        """What is in no block yet."""
        return tuple(self._waiting)

    def block_at(self, number: int) -> Block:
        if not 0 <= number < len(self._blocks):
            raise UnknownBlock(f"no block {number}")
        return self._blocks[number]

    def block_of_hash(self, block_hash: bytes) -> Block:
        for block in reversed(self._blocks):
            if block.hash == block_hash:
                return block
        raise UnknownBlock(f"no block 0x{block_hash.hex()}")

    def place_of(self, transaction_hash: bytes) -> tuple[Block, int] | None:
        """The block and the index in it of a mined transaction."""
        for block in reversed(self._blocks):
            for index, mined in enumerate(block.mined):
                if mined.transaction.hash == transaction_hash:
                    return block, index
        return None

    def next_nonce(self, account: Address) -> int:
        """With what waits."""
        used = self.head.world.nonces.get(account, 0)
        return used + sum(one.sender == account for one in self._waiting)

    def call(self, message: CallMessage, block: Block) -> bytes:
        """The return data of a call on top of a block's state. Raises :class:`ExecutionReverted`
        and :class:`ExecutionFailed`.
        """
        timestamp = self.next_timestamp() if block is self.head else block.timestamp
        return block.world.copy().execute(message, timestamp)[0]

    def estimate_gas(self, message: CallMessage, block: Block) -> int:
        self.call(message, block)
        return gas_of(message)

    # --- what a client does ------------------------------------------------------------------

    def submit(self, raw_transaction: bytes) -> bytes:
        """Take a signed transaction; returns its hash. Raises :class:`TransactionRejected`."""
        transaction = parse_transaction(raw_transaction)
        self._check(transaction)
        self._waiting = [
            one
            for one in self._waiting
            if (one.sender, one.nonce) != (transaction.sender, transaction.nonce)
        ]
        self._waiting.append(transaction)
        if not self._holds:
            self.mine()
        return transaction.hash

    def mine(self, timestamp: int | None = None) -> None:
        """One block with all that waits and can pay the base fee."""
        parent = self.head
        timestamp = self.next_timestamp() if timestamp is None else timestamp
        base_fee, world, mined = parent.next_base_fee_wei, parent.world.copy(), []
        for transaction in sorted(self._waiting, key=lambda one: one.nonce):
            is_next = transaction.nonce == world.nonces.get(transaction.sender, 0)
            if is_next and transaction.max_fee_wei >= base_fee:
                self._waiting.remove(transaction)
                world, done = _mined(world, transaction, timestamp, base_fee)
                mined.append(done)
        block_hash = self._hash_of(parent, timestamp, mined)
        block = Block(
            parent.number + 1, block_hash, parent.hash, timestamp, base_fee, tuple(mined), world
        )
        self._blocks.append(block)
        self._next_timestamp = None

    def increase_time(self, seconds: int) -> int:
        """Let the next block come ``seconds`` after the latest, or later; returns what was added in
        total.
        """
        lead = self.head.timestamp - self._time()
        self._offset_seconds += seconds + max(0, lead)
        return self._offset_seconds

    def set_next_timestamp(self, timestamp: int) -> None:
        """Give the next block this timestamp and let the clock go on from there."""
        if timestamp <= self.head.timestamp:
            raise ValueError(f"the chain is already at {self.head.timestamp}")
        self._next_timestamp = timestamp
        self._offset_seconds += timestamp - self._time()

    def next_timestamp(self) -> int:
        if self._next_timestamp is not None:
            return self._next_timestamp
        return max(self._time(), self.head.timestamp + 1)

    def snapshot(self) -> int:
        """Remember this state; snapshots are numbered from 1."""
        self._snapshots.append(_Snapshot(len(self._blocks), self._offset_seconds))
        return len(self._snapshots)

    def revert(self, number: int) -> bool:
        """Go back to a snapshot, which uses up it and all later ones; false if it is unknown."""
        if not 1 <= number <= len(self._snapshots):
            return False
        snapshot = self._snapshots[number - 1]
        del self._snapshots[number - 1 :]
        del self._blocks[snapshot.height :]
        self._waiting.clear()
        self._branch += 1
        self._offset_seconds = snapshot.offset_seconds
        self._next_timestamp = None
        return True

    def _time(self) -> int:
        return int(self._clock()) + self._offset_seconds

    def _hash_of(self, parent: Block, timestamp: int, mined: list[Mined]) -> bytes:
        """Blocks with the same content in different branches differ."""
        content = b"".join(one.transaction.hash for one in mined)
        numbers = b"".join(part.to_bytes(8, "big") for part in (timestamp, self._branch))
        return keccak256(parent.hash + numbers + content)

    def _check(self, transaction: SignedTransaction) -> None:
        """What depends on the state; in the words that nodes use and clients look for."""
        rivals = [one for one in self._waiting if one.sender == transaction.sender]
        if transaction.hash in {one.hash for one in rivals} or self.place_of(transaction.hash):
            raise TransactionRejected("already known")
        used = self.head.world.nonces.get(transaction.sender, 0)
        expected = self.next_nonce(transaction.sender)
        if not used <= transaction.nonce <= expected:
            word = "low" if transaction.nonce < used else "high"
            raise TransactionRejected(
                f"nonce too {word}: next nonce {expected}, tx nonce {transaction.nonce}"
            )
        for rival in rivals:
            if rival.nonce == transaction.nonce and not _replaces(transaction, rival):
                raise TransactionRejected("replacement transaction underpriced")
        base_fee = self.head.next_base_fee_wei
        if transaction.max_fee_wei < base_fee:
            raise TransactionRejected(
                f"max fee per gas less than block base fee: have {transaction.max_fee_wei} "
                f"want {base_fee}"
            )
        balance = self.head.world.balance(transaction.sender)
        cost = transaction.gas * transaction.max_fee_wei + transaction.value
        if balance < cost:
            raise TransactionRejected(
                f"insufficient funds for gas * price + value: have {balance} want {cost}"
            )


@dataclass(frozen=True, slots=True)
class FakeDevChain(DevChain):
    """The handle of a fake chain; ``fake`` is the chain itself."""

    fake: FakeChain


@contextmanager
def fake_chain(port: int = 0, *, clock: Callable[[], float] = time.time) -> Iterator[FakeDevChain]:
    """A fake chain in this process, on a loopback port (0: a free one), with the accounts that
    every development chain has. ``clock`` gives Unix seconds.
    """
    from channelpay.testing.fake_rpc import FakeRpcMethods
    from channelpay.testing.http_server import serving
    from channelpay.testing.rpc_server import RpcServer

    accounts = dev_accounts()
    funded = [account.address for account in (*accounts, deployer_account())]
    chain = FakeChain(funded, clock=clock)
    with serving(RpcServer(FakeRpcMethods(chain).table), port) as rpc_url:
        yield FakeDevChain(rpc_url, CHAIN_ID, accounts, chain)


def _mined(
    world: World, transaction: SignedTransaction, timestamp: int, base_fee_wei: int
) -> tuple[World, Mined]:
    """The world after a transaction, which pays for its gas whether it succeeds or not."""
    message, sender = transaction.message, transaction.sender
    gas_used = min(gas_of(message), transaction.gas)
    fee_wei = gas_used * transaction.gas_price_wei(base_fee_wei)
    world.nonces[sender] = transaction.nonce + 1
    world.balances[sender] = world.balance(sender) - fee_wei
    attempt = world.copy()
    try:
        if gas_of(message) > transaction.gas:
            raise ExecutionFailed("out of gas")
        _, events = attempt.execute(message, timestamp)
    except (ExecutionReverted, ExecutionFailed):
        return world, Mined(transaction, succeeded=False, gas_used=gas_used, events=())
    return attempt, Mined(transaction, succeeded=True, gas_used=gas_used, events=tuple(events))


def _replaces(transaction: SignedTransaction, rival: SignedTransaction) -> bool:
    percent = 100 + REPLACEMENT_PERCENT
    return (
        100 * transaction.max_fee_wei >= percent * rival.max_fee_wei
        and 100 * transaction.tip_wei >= percent * rival.tip_wei
    )
