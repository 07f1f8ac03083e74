"""A payee that lost its books, or has an old copy of them: what the chain still knows.

``ChannelOpened`` carries the whole description of a channel, so that logs alone rebuild all of
them. The vouchers are the payers': each client's next request carries one for at least all that it
ever signed. Until that comes, a channel is in doubt (:mod:`channelpay.protocol.rules`).
"""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.chain.events import ChannelOpened, EventFilter, EventReader
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.follower import begin_books
from channelpay.payee.terms import Terms
from channelpay.protocol.types import Address, Channel, ChannelId, ChannelStatus
from channelpay.store import Store

VIEWS_MAX = 100
"""Channels asked for in one call."""
_GONE = frozenset({ChannelStatus.ABSENT, ChannelStatus.FINALIZED})


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The channels that the logs name: those that were entered, and how many the books knew.
    ``marked`` counts the channels that were put in doubt beside those.
    """

    found: tuple[ChannelId, ...]
    known: int
    marked: int


def rebuild(
    link: ChainLink, store: Store, payee: Address, from_block: int = 0, *, restored: bool = False
) -> Rebuilt:
    """Enter the payee's channels that were opened in ``from_block`` or later, as the chain has them
    now, and bring those up to date that the books know. One that is entered is in doubt; where the
    books were ``restored`` from a copy that is not marked by itself, all others are as well.
    """
    marked = 0
    if restored:
        # First: nothing must be sold out of an old copy.
        marked = store.mark_in_doubt().result()
        begin_books(store, link, Terms(link.contract.deployment, payee, ()), anew=True)
    found: list[ChannelId] = []
    known = 0
    opened = list(_opened(link, payee, from_block).items())
    for start in range(0, len(opened), VIEWS_MAX):
        some = opened[start : start + VIEWS_MAX]
        views = link.views([channel for _, channel in some])
        for (channel_id, channel), view in zip(some, views, strict=True):
            if store.record(channel_id) is not None:
                known += 1
                store.update_chain(channel_id, view).result()
            elif view.state.status not in _GONE:
                found.append(channel_id)
                store.add_channel(channel_id, channel, view, in_doubt=True).result()
    return Rebuilt(tuple(found), known, marked)


def _opened(link: ChainLink, payee: Address, from_block: int) -> dict[ChannelId, Channel]:
    reader = EventReader(link.contract, EventFilter(payees=frozenset({payee})))
    # Before the first block there is none to stand behind: it holds no transactions anyway.
    batches = reader.read(reader.cursor_at(max(0, from_block - 1)))
    return {
        event.channel_id: event.channel
        for batch in batches
        for event in batch.events
        if isinstance(event, ChannelOpened)
    }
