"""How the payee learns of channels: what a payer claims, checked against the chain.

Every method blocks on the node; on an event loop it belongs into a thread. All raise
:class:`~channelpay.errors.NetworkError` when the node fails.

A deposit counts by its confirmations: what a channel holds is what the contract says at some block,
less the opens and top-ups that are not deep enough there. Both are read from the chain each time,
so what a reorganisation took away is not remembered anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import (
    ChannelClosed,
    ChannelOpened,
    Event,
    EventFilter,
    ToppedUp,
    decode_logs,
    events_in,
)
from channelpay.chain.types import Block, TransactionReceipt
from channelpay.errors import (
    ChainBehind,
    ChainReverted,
    ChannelNotFound,
    ConfigError,
    NetworkError,
    PaymentRefused,
    TooFewConfirmations,
)
from channelpay.payee.acceptance import Confirmations
from channelpay.protocol.rules import ChannelRecord, check_live
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    GRACE_SECONDS_MIN,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
)
from channelpay.store import ChainView

STUCK_SECONDS = 300
"""Where blocks come all the time, a node whose latest one is older does not follow the chain."""
_READ_ATTEMPTS = 8

Deposit = ChannelOpened | ToppedUp


class Opened(NamedTuple):
    """A channel as it is now, and the block of its open."""

    view: ChainView
    block_number: int


@dataclass(frozen=True, slots=True)
class FreshDeposit:
    """An open or top-up that does not count yet: of ``needed`` confirmations some are missing."""

    event: Deposit
    needed: int
    missing: int

    @property
    def amount(self) -> int:
        return amount_of(self.event)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the contract says of some channels at one block."""

    block: Block
    states: Sequence[ChannelState]
    fresh: Mapping[ChannelId, Sequence[FreshDeposit]]

    def views(self, ids: Sequence[ChannelId]) -> list[ChainView]:
        return [
            ChainView(self._confirmed(channel_id, state), self.block.number)
            for channel_id, state in zip(ids, self.states, strict=True)
        ]

    def _confirmed(self, channel_id: ChannelId, state: ChannelState) -> ChannelState:
        fresh = sum(one.amount for one in self.fresh.get(channel_id, ()))
        if not fresh or state.status is ChannelStatus.FINALIZED:
            return state
        return replace(state, deposit=max(0, state.deposit - fresh))


def ends_in(events: Iterable[Event]) -> dict[ChannelId, ChannelClosed]:
    """The channels that these events finalized."""
    return {event.channel_id: event for event in events if isinstance(event, ChannelClosed)}


def with_end(view: ChainView, closed: ChannelClosed | None) -> ChainView:
    """What the contract forgot, from the log."""
    if closed is None or not view.state.is_forgotten:
        return view
    deposit = closed.settled + closed.refund
    return replace(view, state=replace(view.state, deposit=deposit, settled=closed.settled))


class ChainLink:
    """One contract, read for one payee.

    Raises :class:`~channelpay.errors.ConfigError` for a contract whose grace period is shorter than
    ten minutes (draft-evm-session-00, Forced Close).
    """

    def __init__(
        self, contract: PaymentChannelsContract, confirmations: Confirmations | None = None
    ) -> None:
        grace_seconds = contract.grace_period_seconds()
        if grace_seconds < GRACE_SECONDS_MIN:
            raise ConfigError(f"the contract's grace period of {grace_seconds} s is too short")
        self.contract = contract
        self.confirmations: Confirmations = confirmations or Confirmations()
        self.grace_seconds = grace_seconds

    def opened(self, channel_id: ChannelId, channel: Channel, transaction_hash: bytes) -> Opened:
        """The state of a channel that this transaction opened.

        Raises :class:`ChainReverted`, :class:`TooFewConfirmations`, :class:`ChannelNotFound` if the
        transaction opened another channel or none, and what :func:`check_live` raises.
        """
        receipt = self._succeeded(transaction_hash)
        for event in events_in(receipt, self.contract):
            if isinstance(event, ChannelOpened) and event.channel_id == channel_id:
                break
        else:
            raise ChannelNotFound(
                "the transaction did not open this channel", channelId=to_hex(channel_id)
            )
        reading = self._read([channel])
        (view,) = reading.views([channel_id])
        check_live(ChannelRecord(channel_id, channel, view.state))
        _require_counted(reading, event, view)
        return Opened(view, event.place.block_number)

    def topped_up(self, record: ChannelRecord, transaction_hash: bytes, amount: int) -> ChainView:
        """The state of a channel to which this transaction added exactly ``amount``."""
        receipt = self._succeeded(transaction_hash)
        for event in events_in(receipt, self.contract):
            if isinstance(event, ToppedUp) and event.channel_id == record.channel_id:
                break
        else:
            raise PaymentRefused("the transaction did not top this channel up")
        if event.amount != amount:
            raise PaymentRefused(f"the transaction added {event.amount}, not {amount}")
        reading = self._read([record.channel])
        (view,) = reading.views([record.channel_id])
        _require_counted(reading, event, view)
        return view

    def views(self, channels: Sequence[Channel], at: Block | None = None) -> list[ChainView]:
        """The states of many channels, all as of one block, which the chain may leave behind
        meanwhile: block ``at``, or the latest. Only deposits with enough confirmations there are in
        them. Raises :class:`NetworkError` if ``at`` is not on the chain any more.
        """
        ids = [channel.id(self.contract.deployment) for channel in channels]
        return self._read(channels, at).views(ids)

    def latest_block(self) -> Block:
        """The head of the chain."""
        return self.contract.connection.latest_block()

    def block(self, number: int) -> Block | None:
        """A block by number, or nothing if the node does not have it."""
        return self.contract.connection.block(number)

    def _read(self, channels: Sequence[Channel], at: Block | None = None) -> _Reading:
        for _ in range(_READ_ATTEMPTS if at is None else 1):
            block = self.latest_block() if at is None else at
            states = self.contract.states(channels, block=block.number)
            fresh = self._fresh(channels, states, block.number)
            # Block unmoved after all was read means that it is of one chain.
            if self.block(block.number) == block:
                return _Reading(block, states, fresh)
        raise NetworkError("the chain reorganised while it was read")

    def _fresh(
        self, channels: Sequence[Channel], states: Sequence[ChannelState], block: int
    ) -> dict[ChannelId, list[FreshDeposit]]:
        """What does not count at this block, by channel."""
        most = self.confirmations.most
        if most <= 1:
            return {}
        deployment = self.contract.deployment
        known = {
            channel.id(deployment): (channel.token, state.settled)
            for channel, state in zip(channels, states, strict=True)
        }
        logs = self.contract.connection.logs(
            deployment.contract,
            EventFilter(channel_ids=frozenset(known)).topics(),
            max(0, block - most + 2),
            block,
        )
        deposits: dict[ChannelId, list[Deposit]] = {}
        for event in decode_logs(sorted(logs, key=lambda log: (log.block_number, log.log_index))):
            if isinstance(event, ChannelOpened | ToppedUp):
                deposits.setdefault(event.channel_id, []).append(event)
        return {
            channel_id: fresh_of(self.confirmations, *known[channel_id], events, block)
            for channel_id, events in deposits.items()
        }

    def _succeeded(self, transaction_hash: bytes) -> TransactionReceipt:
        receipt = self.contract.connection.receipt(transaction_hash)
        if receipt is None:
            _require_fresh(self.latest_block())
            raise TooFewConfirmations("the transaction is not mined yet")
        if not receipt.succeeded:
            raise ChainReverted("the transaction was mined, but it failed")
        return receipt


def fresh_of(
    confirmations: Confirmations,
    token: Address,
    settled: int,
    deposits: Sequence[Deposit],
    block: int,
) -> list[FreshDeposit]:
    """Which of a channel's latest deposits, oldest first, do not count at ``block``.

    Each needs what the rule says of all that is at stake with it: the contract refuses a voucher
    that one base unit is missing for, so the smallest top-up that vanishes takes with it all that
    is not ``settled``. And all that is not as deep as the strictest rule asks for is taken
    together: otherwise a large amount could come as many small ones.
    """
    together, fresh = 0, []
    for event in deposits:
        together += amount_of(event)
        needed = confirmations.needed(token, max(together, event.deposit - settled))
        missing = needed - (block - event.place.block_number + 1)
        if missing > 0:
            fresh.append(FreshDeposit(event, needed, missing))
    return fresh


def amount_of(event: Deposit) -> int:
    """What an open or top-up added."""
    return event.amount if isinstance(event, ToppedUp) else event.deposit


def _require_counted(reading: _Reading, event: Deposit, view: ChainView) -> None:
    """As of the block that the state was read at."""
    state = view.state
    if state.deposit >= event.deposit or state.status is ChannelStatus.FINALIZED:
        return
    _require_fresh(reading.block)
    for fresh in reading.fresh.get(event.channel_id, ()):
        if fresh.event.place.transaction_hash == event.place.transaction_hash:
            raise TooFewConfirmations(
                f"{fresh.needed} confirmations are needed, {fresh.missing} are missing"
            )
    raise TooFewConfirmations("the chain reorganised; the transaction is not mined again yet")


def _require_fresh(head: Block) -> None:
    """What is missing in a node that is stuck is no fault of the payer's."""
    if time.time() - head.timestamp > STUCK_SECONDS:
        raise ChainBehind(f"the node's latest block is of {head.timestamp}")
