"""The contract's events as values, and a reader that goes through the chain in bounded steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from channelpay.chain.artifacts import payment_channels
from channelpay.chain.connection import Connection, NodeRefused
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.types import Block, Log, TransactionReceipt
from channelpay.errors import NetworkError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import Address, Channel, ChannelId

CHUNK_BLOCKS = 2_000
"""Blocks asked for at once; most nodes take as many."""


class ReorgDetected(NetworkError):
    """The cursor's block is no longer part of the chain: what was read from it on may be void."""

    code = "reorg"
    title = "Chain Reorganised"
    hint = "Go back to an older cursor whose block is still there and read again from it."


@dataclass(frozen=True, slots=True)
class EventPlace:
    """Where an event stands; hashes are 32 bytes. (block_hash, log_index) is unique."""

    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    place: EventPlace
    channel_id: ChannelId
    channel: Channel
    deposit: int


@dataclass(frozen=True, slots=True)
class ToppedUp:
    """``deposit`` is the new total."""

    place: EventPlace
    channel_id: ChannelId
    payer: Address
    payee: Address
    amount: int
    deposit: int


@dataclass(frozen=True, slots=True)
class Settled:
    place: EventPlace
    channel_id: ChannelId
    payer: Address
    payee: Address
    cumulative_amount: int


@dataclass(frozen=True, slots=True)
class CloseRequested:
    """``withdrawable_at`` is in Unix seconds."""

    place: EventPlace
    channel_id: ChannelId
    payer: Address
    payee: Address
    withdrawable_at: int


@dataclass(frozen=True, slots=True)
class CloseCancelled:
    place: EventPlace
    channel_id: ChannelId
    payer: Address
    payee: Address


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    place: EventPlace
    channel_id: ChannelId
    payer: Address
    payee: Address
    settled: int
    refund: int


@dataclass(frozen=True, slots=True)
class RowSkipped:
    """A row of a batch changed nothing."""

    place: EventPlace
    channel_id: ChannelId


@dataclass(frozen=True, slots=True)
class ShareKept:
    place: EventPlace
    token: Address
    account: Address
    amount: int


@dataclass(frozen=True, slots=True)
class ShareClaimed:
    place: EventPlace
    token: Address
    account: Address
    receiver: Address
    amount: int


ChannelEvent = ChannelOpened | ToppedUp | Settled | CloseRequested | CloseCancelled | ChannelClosed
Event = ChannelEvent | RowSkipped | ShareKept | ShareClaimed


@dataclass(frozen=True, slots=True)
class BlockCursor:
    """The last block that was read; ``block_hash`` is 32 bytes."""

    block_number: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class EventBatch:
    """The events of some blocks in chain order, and the cursor behind them: store both together."""

    events: tuple[Event, ...]
    cursor: BlockCursor


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which channels' events to read; an empty field is any. The fields are combined with "and".

    Events about kept shares carry no channel and come only without any filter; a skipped row
    names neither payer nor payee.
    """

    channel_ids: frozenset[ChannelId] = frozenset()
    payers: frozenset[Address] = frozenset()
    payees: frozenset[Address] = frozenset()

    def topics(self) -> list[Sequence[bytes] | None]:
        if not (self.channel_ids or self.payers or self.payees):
            return []
        topics: list[Sequence[bytes] | None] = [
            [signature for signature, event in _events().items() if event.is_of_channel],
            sorted(self.channel_ids) or None,
            [bytes(12) + payer for payer in sorted(self.payers)] or None,
            [bytes(12) + payee for payee in sorted(self.payees)] or None,
        ]
        # An open end matches also what has fewer topics: a skipped row names its channel alone.
        while topics[-1] is None:
            topics.pop()
        return topics


class EventReader:
    """Reads one contract's events. Give each batch's cursor back to read on."""

    def __init__(
        self, contract: PaymentChannelsContract, event_filter: EventFilter | None = None
    ) -> None:
        self._connection: Connection = contract.connection
        self._address = contract.deployment.contract
        self._topics = (event_filter or EventFilter()).topics()

    def cursor_at(self, block_number: int) -> BlockCursor:
        """A cursor behind this block: reading from it starts with the next one."""
        block = self._connection.block(block_number)
        if block is None:
            raise NodeRefused(f"the node has no block {block_number}")
        return BlockCursor(block.number, block.hash)

    def is_canonical(self, cursor: BlockCursor) -> bool:
        """Whether the cursor's block is (still) part of the chain."""
        block = self._connection.block(cursor.block_number)
        return block is not None and block.hash == cursor.block_hash

    def read(
        self, cursor: BlockCursor, to_block: int | None = None, chunk_blocks: int = CHUNK_BLOCKS
    ) -> Iterator[EventBatch]:
        """The events after ``cursor`` up to ``to_block`` (or the latest block), batch by batch.

        A chunk that the node refuses is halved. Raises :class:`ReorgDetected` if the block of the
        cursor, or one just read, is gone; nothing of that batch is given out.
        """
        self._require_canonical(cursor)
        latest = self._connection.latest_block().number
        last = latest if to_block is None else min(to_block, latest)
        while cursor.block_number < last:
            chunk_end = min(cursor.block_number + chunk_blocks, last)
            try:
                batch = self._read_chunk(cursor, chunk_end)
            except NodeRefused:
                if chunk_end - cursor.block_number <= 1:
                    raise
                chunk_blocks = (chunk_end - cursor.block_number) // 2
                continue
            yield batch
            cursor = batch.cursor

    def _read_chunk(self, cursor: BlockCursor, last_block: int) -> EventBatch:
        end = self._connection.block(last_block)
        logs = self._connection.logs(
            self._address, self._topics, cursor.block_number + 1, last_block
        )
        # Both ends unmoved after the logs came means that they are of one chain.
        self._require_canonical(cursor)
        new_cursor = self._require_unmoved(end)
        ordered = sorted(logs, key=lambda log: (log.block_number, log.log_index))
        return EventBatch(decode_logs(ordered), new_cursor)

    def _require_canonical(self, cursor: BlockCursor) -> None:
        if not self.is_canonical(cursor):
            raise ReorgDetected(
                f"block {cursor.block_number} is no longer 0x{cursor.block_hash.hex()}"
            )

    def _require_unmoved(self, block: Block | None) -> BlockCursor:
        if block is None:
            raise ReorgDetected("the chain became shorter while it was read")
        cursor = BlockCursor(block.number, block.hash)
        self._require_canonical(cursor)
        return cursor


def events_in(receipt: TransactionReceipt, contract: PaymentChannelsContract) -> tuple[Event, ...]:
    """The contract's events in a receipt; logs of other contracts are left out."""
    address = contract.deployment.contract
    return decode_logs([log for log in receipt.logs if log.address == address])


def decode_logs(logs: Sequence[Log]) -> tuple[Event, ...]:
    """Logs of the contract as events; what is not one of its events is left out."""
    decoded = (_decoded(log) for log in logs)
    return tuple(event for event in decoded if event is not None)


@dataclass(frozen=True, slots=True)
class _EventAbi:
    name: str
    indexed: tuple[tuple[str, str], ...]
    plain: tuple[tuple[str, str], ...]

    @property
    def is_of_channel(self) -> bool:
        return self.indexed[0] == ("channelId", "bytes32")

    def values(self, log: Log) -> dict[str, Any]:
        names = [name for name, _ in self.indexed + self.plain]
        topics = b"".join(log.topics[1:])
        from_topics = decode([kind for _, kind in self.indexed], topics)
        from_data = decode([kind for _, kind in self.plain], log.data)
        return {
            name: bytes.fromhex(value[2:]) if isinstance(value, str) else value
            for name, value in zip(names, from_topics + from_data, strict=True)
        }


@cache
def _events() -> dict[bytes, _EventAbi]:
    """The contract's events by their signature topic."""
    entries = [entry for entry in payment_channels().abi if entry["type"] == "event"]
    return {_signature_topic(entry): _event_abi(entry) for entry in entries}


def _signature_topic(entry: dict[str, Any]) -> bytes:
    types = ",".join(item["type"] for item in entry["inputs"])
    return keccak256(f"{entry['name']}({types})".encode())


def _event_abi(entry: dict[str, Any]) -> _EventAbi:
    inputs = [(item["name"], item["type"], item["indexed"]) for item in entry["inputs"]]
    return _EventAbi(
        entry["name"],
        tuple((name, kind) for name, kind, indexed in inputs if indexed),
        tuple((name, kind) for name, kind, indexed in inputs if not indexed),
    )


def _decoded(log: Log) -> Event | None:
    event = _events().get(log.topics[0]) if log.topics else None
    if event is None:
        return None
    try:
        values = event.values(log)
    except DecodingError as error:
        raise NodeRefused(f"the node gave a malformed {event.name} event") from error
    place = EventPlace(log.block_number, log.block_hash, log.transaction_hash, log.log_index)
    return _event_of(event.name, place, values)


def _event_of(name: str, place: EventPlace, values: dict[str, Any]) -> Event:
    if name == "RowSkipped":
        return RowSkipped(place, values["channelId"])
    if name == "ShareKept":
        return ShareKept(place, values["token"], values["account"], values["amount"])
    if name == "ShareClaimed":
        return ShareClaimed(
            place, values["token"], values["account"], values["receiver"], values["amount"]
        )
    return _channel_event_of(name, place, values)


def _channel_event_of(name: str, place: EventPlace, values: dict[str, Any]) -> ChannelEvent:
    channel_id, payer, payee = values["channelId"], values["payer"], values["payee"]
    match name:
        case "ChannelOpened":
            channel = Channel(
                payer, payee, values["token"], values["authorizedSigner"], values["salt"]
            )
            return ChannelOpened(place, channel_id, channel, values["deposit"])
        case "ToppedUp":
            amount, deposit = values["amount"], values["deposit"]
            return ToppedUp(place, channel_id, payer, payee, amount, deposit)
        case "Settled":
            return Settled(place, channel_id, payer, payee, values["cumulativeAmount"])
        case "CloseRequested":
            return CloseRequested(place, channel_id, payer, payee, values["withdrawableAt"])
        case "CloseCancelled":
            return CloseCancelled(place, channel_id, payer, payee)
        case _:
            return ChannelClosed(
                place, channel_id, payer, payee, values["settled"], values["refund"]
            )
