"""A chain in memory with one contract on it, for tests of what follows a chain: blocks can be taken
back and replaced, and a reader can be late or fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar, cast

from eth_abi.abi import encode

from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import _events
from channelpay.chain.types import Block, Log, TransactionReceipt
from channelpay.errors import ChainReverted, NetworkError
from channelpay.protocol import lifecycle
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.lifecycle import LaneState
from channelpay.protocol.types import (
    GRACE_SECONDS_CANONICAL,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    Deployment,
)

DEPLOYMENT = Deployment(31337, Address(b"\xcc" * 20))
BLOCK_SECONDS = 12

T = TypeVar("T")


@dataclass(frozen=True)
class Mined:
    """A block, its logs, and the lanes of all channels after it."""

    block: Block
    logs: tuple[Log, ...]
    lanes: dict[ChannelId, LaneState]


@dataclass(frozen=True)
class Operation:
    """What somebody does with a channel; ``amount`` as it needs one."""

    verb: str
    channel: Channel
    amount: int = 1


@dataclass
class FakeChain:
    """The node and the contract in one. ``lag`` blocks are not known to who asks."""

    lag: int = 0
    mined: list[Mined] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)
    _interrupted: dict[int, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.mine()

    # What happens on it

    def mine(self, operations: Sequence[Operation] = ()) -> None:
        """One more block; what the contract refuses is not in it."""
        number = len(self.mined)
        name = keccak256(b"block %d" % next(self._numbers))
        lanes = dict(self.mined[-1].lanes) if self.mined else {}
        logs: list[Log] = []
        for operation in operations:
            try:
                logs.append(self._done(operation, lanes, number, name, len(logs)))
            except ChainReverted:
                continue
        timestamp = 1_800_000_000 + BLOCK_SECONDS * number
        self.mined.append(Mined(Block(number, name, timestamp), tuple(logs), lanes))

    def reorganise(self, depth: int, blocks: Sequence[Sequence[Operation]]) -> None:
        """Take the last blocks back, never the first, and mine others."""
        del self.mined[max(1, len(self.mined) - depth) :]
        for operations in blocks:
            self.mine(operations)

    def _done(
        self,
        operation: Operation,
        lanes: dict[ChannelId, LaneState],
        number: int,
        block_hash: bytes,
        index: int,
    ) -> Log:
        channel, amount = operation.channel, operation.amount
        channel_id = channel.id(DEPLOYMENT)
        lane, epoch = lanes.get(channel_id), channel.epoch
        values: dict[str, Any] = {
            "channelId": channel_id,
            "payer": channel.payer,
            "payee": channel.payee,
            "token": channel.token,
            "authorizedSigner": channel.authorized_signer,
            "salt": channel.salt,
            "amount": amount,
            "cumulativeAmount": amount,
            "withdrawableAt": GRACE_SECONDS_CANONICAL,
            "refund": 0,
        }
        match operation.verb:
            case "open":
                name, after = "ChannelOpened", lifecycle.open_channel(lane, epoch, amount)
            case "top up":
                name = "ToppedUp"
                after = lifecycle.top_up(lane, epoch, amount, by_payer=True)
            case "settle":
                name, (after, _) = "Settled", lifecycle.settle(lane, epoch, amount)
            case "close":
                name = "ChannelClosed"
                after, _ = lifecycle.close(lane, epoch, amount, by_payee=True)
            case _:
                name = "CloseRequested"
                after = lifecycle.request_close(lane, epoch, 1 + number, by_payer=True)
        lanes[channel_id] = after
        values |= {"deposit": after.deposit, "settled": after.settled}
        topic, event = next((topic, one) for topic, one in _events().items() if one.name == name)
        topics = (topic, *(encode([kind], [values[key]]) for key, kind in event.indexed))
        data = encode([kind for _, kind in event.plain], [values[key] for key, _ in event.plain])
        transaction = keccak256(block_hash + bytes([index]))
        return Log(DEPLOYMENT.contract, topics, data, number, block_hash, transaction, index)

    @contextmanager
    def interrupted(self, calls: int, event: Callable[[], None]) -> Iterator[None]:
        """``event`` happens just before one of the next calls, if there are so many."""
        self._interrupted = {calls: event}
        yield
        self._interrupted = {}

    # What a reader is told

    def block(self, number: int) -> Block | None:
        return self._told(lambda known: known[number].block if number < len(known) else None)

    def latest_block(self) -> Block:
        return self._told(lambda known: known[-1].block)

    def receipt(self, transaction_hash: bytes) -> TransactionReceipt | None:
        def found(known: Sequence[Mined]) -> TransactionReceipt | None:
            for one in known:
                for log in one.logs:
                    if log.transaction_hash == transaction_hash:
                        place = (one.block.number, one.block.hash)
                        return TransactionReceipt(transaction_hash, True, *place, 1, 1, (log,))
            return None

        return self._told(found)

    def logs(
        self, address: Address, topics: Sequence[Sequence[bytes] | None], first: int, last: int
    ) -> tuple[Log, ...]:
        def matching(known: Sequence[Mined]) -> tuple[Log, ...]:
            return tuple(
                log for one in known[first : last + 1] for log in one.logs if _matches(log, topics)
            )

        return self._told(matching)

    def states(self, channels: Sequence[Channel], block: int) -> list[ChannelState]:
        def read(known: Sequence[Mined]) -> list[ChannelState]:
            if block >= len(known):
                raise NetworkError("header not found")
            lanes = known[block].lanes
            return [_state(lanes.get(one.id(DEPLOYMENT)), one) for one in channels]

        return self._told(read)

    def _told(self, answer: Callable[[Sequence[Mined]], T]) -> T:
        self._interrupted = {calls - 1: event for calls, event in self._interrupted.items()}
        self._interrupted.pop(-1, lambda: None)()
        return answer(self.mined[: max(1, len(self.mined) - self.lag)])


def contract_on(chain: FakeChain) -> PaymentChannelsContract:
    """What the payee reads of the contract."""

    class Contract:
        connection = chain
        deployment = DEPLOYMENT
        states = staticmethod(chain.states)

        @staticmethod
        def grace_period_seconds() -> int:
            return GRACE_SECONDS_CANONICAL

    return cast(PaymentChannelsContract, Contract())


def _state(lane: LaneState | None, channel: Channel) -> ChannelState:
    return (lane or LaneState(-1, 0)).view(channel.epoch)


def _matches(log: Log, topics: Sequence[Sequence[bytes] | None]) -> bool:
    return all(
        wanted is None or (place < len(log.topics) and log.topics[place] in wanted)
        for place, wanted in enumerate(topics)
    )
