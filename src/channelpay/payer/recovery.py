"""A payer that lost its books, or has an old copy of them: what the chain still knows.

``ChannelOpened`` carries the whole description of a channel, so that logs alone rebuild all of
them. What was signed and spent no chain knows: those channels are in doubt, and the payee is asked
before more is signed (:mod:`channelpay.payer.doubt`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import (
    ChannelClosed,
    ChannelEvent,
    ChannelOpened,
    EventFilter,
    EventReader,
    Settled,
    ToppedUp,
)
from channelpay.payer.records import PayerChannel, TopUp
from channelpay.payer.state import PayerState
from channelpay.protocol.types import Address, ChannelId, ChannelStatus


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The channels that the logs name: those that the books did not know, and how many they did."""

    found: tuple[ChannelId, ...]
    known: int


@dataclass(slots=True)
class _Traces:
    """What the logs say of one channel."""

    entry: PayerChannel
    top_ups: list[TopUp] = field(default_factory=list)


def rebuild(
    contract: PaymentChannelsContract, payer: Address, state: PayerState, from_block: int = 0
) -> Rebuilt:
    """Enter the payer's channels that were opened in ``from_block`` or later. What the books know
    of a channel stays as it is; :meth:`Observer.refresh` brings all up to date afterwards.
    """
    reader = EventReader(contract, EventFilter(payers=frozenset({payer})))
    traces: dict[ChannelId, _Traces] = {}
    # Before the first block there is none to stand behind: it holds no transactions anyway.
    for batch in reader.read(reader.cursor_at(max(0, from_block - 1))):
        for event in batch.events:
            if isinstance(event, ChannelEvent):
                _note(contract, traces, event)
    found = [one for one, trace in traces.items() if state.add_found(trace.entry, trace.top_ups)]
    return Rebuilt(tuple(found), len(traces) - len(found))


def _note(
    contract: PaymentChannelsContract, traces: dict[ChannelId, _Traces], event: ChannelEvent
) -> None:
    if isinstance(event, ChannelOpened):
        entry = PayerChannel(
            event.channel_id,
            contract.deployment,
            event.channel,
            event.deposit,
            status=ChannelStatus.OPEN,
            open_transaction=event.place.transaction_hash,
            first_block=event.place.block_number,
        )
        traces[event.channel_id] = _Traces(entry)
    elif (trace := traces.get(event.channel_id)) is not None:
        _follow(trace, event)


def _follow(trace: _Traces, event: ChannelEvent) -> None:
    if isinstance(event, ToppedUp):
        trace.entry = replace(trace.entry, deposit=event.deposit)
        top_up = TopUp(event.channel_id, event.place.transaction_hash, event.amount)
        trace.top_ups.append(top_up)
    elif isinstance(event, Settled):
        trace.entry = replace(trace.entry, settled=event.cumulative_amount)
    elif isinstance(event, ChannelClosed):
        deposit = event.settled + event.refund
        trace.entry = replace(
            trace.entry, status=ChannelStatus.FINALIZED, settled=event.settled, deposit=deposit
        )
