"""Following the contract's events, so that the books know of closes and top-ups that nobody told,
and unlearn what a reorganisation took back.

Events say which channels changed; the contract is then asked what they are, as of the block that
the follower has arrived at. Blocks that it has read are remembered in the books, with their hashes:
its trail. Where the chain has left the trail, all that was entered beyond the last block that is
still on both is asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import getLogger
from typing import NamedTuple

from channelpay.chain.events import (
    BlockCursor,
    ChannelClosed,
    ChannelOpened,
    Event,
    EventFilter,
    EventReader,
    ReorgDetected,
    ShareClaimed,
    ShareKept,
    ToppedUp,
)
from channelpay.chain.types import Block
from channelpay.errors import ChainBehind, NetworkError
from channelpay.observe import Observer
from channelpay.payee.acceptance import Followed
from channelpay.payee.chain_link import ChainLink, ends_in, with_end
from channelpay.payee.daemon import place_of
from channelpay.payee.terms import Terms
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.types import ChannelId, ChannelStatus
from channelpay.store import Store
from channelpay.store.backup import BEGUN

CATCH_UP_BLOCKS_MAX = 50_000
"""After a longer absence every channel is asked for, which is quicker than reading all events."""
DENSE_BLOCKS = 64
"""The trail keeps what it has of so many latest blocks, and of older ones one for each doubling of
the distance.
"""
SWEEPS = 24
"""How often in a grace period every channel that owes something is asked for."""
_VIEWS_MAX = 100
_log = getLogger(__name__)

Trail = tuple[BlockCursor, ...]


class _Start(NamedTuple):
    """Where a step begins: the trail up to its last block that is on the chain, and whether the
    chain has left the trail there. Without a trail, all channels are asked for.
    """

    trail: Trail
    rewound: bool


class Follower:
    """Keeps the chain's view of the payee's channels up to date. ``now`` gives Unix seconds,
    ``clock`` seconds that only grow.

    One is enough for all processes over the same books, contract and payee. All that it knows is in
    the books, so another one may go on between any two steps. How far it is stands in the cursor
    :func:`followed_cursor`, as a :class:`~channelpay.payee.acceptance.Followed`.
    """

    def __init__(
        self,
        terms: Terms,
        link: ChainLink,
        store: Store,
        observer: Observer | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._followed_cursor = followed_cursor(terms)
        self._trail_cursor = f"trail {place_of(terms.deployment, terms.payee)}"
        self._terms = terms
        self._link = link
        self._store = store
        self._observer = observer or Observer()
        self._now = now
        self._clock = clock
        self._sweep_at = clock()
        payees = EventFilter(payees=frozenset({terms.payee}))
        self._reader = EventReader(link.contract, payees)

    def step(self) -> None:
        """Enter what happened since the last step.

        Raises :class:`~channelpay.errors.NetworkError`; among them are
        :class:`~channelpay.errors.ChainBehind` from a node that knows less of the chain than was
        known before, and :class:`~channelpay.errors.StoreUnavailable`. Then the next step begins at
        the same place, so nothing is passed over.
        """
        head = self._link.latest_block()
        known = _parsed(self._store.cursor(self._trail_cursor))
        start = self._start(known, head)
        if start.rewound:
            since = start.trail[-1].block_number if start.trail else "the first"
            _log.warning("the chain reorganised; reading again from block %s", since)
        events = self._events_since(start, head)
        concerned = self._concerned(start, events)
        self._refresh(concerned, ends_in(events), head, rewound=start.rewound)
        self._save_trail(known, _extended(start.trail, [*_blocks(events), _cursor(head)]))
        self._observer.followed(head.number)
        followed = Followed(self._now(), head.timestamp)
        self._store.save_cursor(self._followed_cursor, str(followed)).result()
        self._sweep(head)

    def _sweep(self, head: Block) -> None:
        """Ask for all that is owed, whatever the events say: logs that a node has not indexed yet
        look like none, and a close request that was passed over costs all that is unsettled.
        """
        if self._clock() < self._sweep_at:
            return
        self._refresh(self._ours(self._store.owed()), {}, head, rewound=False)
        self._sweep_at = self._clock() + self._link.grace_seconds / SWEEPS

    def _start(self, known: Trail, head: Block) -> _Start:
        reached = tuple(one for one in known if one.block_number <= head.number)
        kept = len(reached)
        while kept and not self._is_on_chain(reached[kept - 1]):
            kept -= 1
        start = _Start(reached[:kept], rewound=kept < len(reached))
        if not start.rewound and len(reached) < len(known):
            return self._start_below(start, known, head)
        is_long_ago = kept and head.number - reached[kept - 1].block_number > CATCH_UP_BLOCKS_MAX
        return start._replace(trail=()) if is_long_ago else start

    def _start_below(self, start: _Start, known: Trail, head: Block) -> _Start:
        """The head is lower than it was, and on the trail as far as that tells. A node that is late
        looks like this, and what it does not know yet must not be unlearned. But where the trail
        has all blocks with events, another one tells that the chain is not the same.
        """
        last, read = known[-1].block_number, {one.block_hash for one in known}
        for event in self._events(start.trail[-1], head) if start.trail else ():
            is_near = last - event.place.block_number <= DENSE_BLOCKS
            if is_near and event.place.block_hash not in read:
                return start._replace(rewound=True)
        raise ChainBehind(f"the node is at block {head.number}, where block {last} was read")

    def _is_on_chain(self, cursor: BlockCursor) -> bool:
        block = self._link.block(cursor.block_number)
        if block is None:
            raise NetworkError(f"the node does not know its own block {cursor.block_number}")
        return block.hash == cursor.block_hash

    def _events_since(self, start: _Start, head: Block) -> list[Event]:
        """Those of the blocks behind the start, and of the deposits before it that did not count
        there yet.
        """
        if not start.trail or start.trail[-1] == _cursor(head):
            return []
        since, most = start.trail[-1], self._link.confirmations.most
        if most > 1:
            since = self._reader.cursor_at(max(0, since.block_number - most + 1))
        return self._events(since, head)

    def _events(self, since: BlockCursor, head: Block) -> list[Event]:
        """All up to ``head``, in chain order, if it is the chain's still."""
        events: list[Event] = []
        last = since
        for batch in self._reader.read(since, head.number):
            events += batch.events
            last = batch.cursor
        if last != _cursor(head):
            raise ReorgDetected(f"block {head.number} is no longer 0x{head.hash.hex()}")
        return events

    def _concerned(self, start: _Start, events: Sequence[Event]) -> list[ChannelRecord]:
        """The channels to ask for: the changed ones, and those that others than this follower have
        asked for since, from blocks that it did not know.
        """
        if not start.trail:
            everything = self._ours(self._store.records())
            return [one for one in everything if start.rewound or not _is_finalized(one)]
        since = start.trail[-1].block_number
        concerned = {one.channel_id: one for one in self._store.seen_after(since)}
        for channel_id in _changed(events, since) - concerned.keys():
            record = self._store.record(channel_id)
            if record is not None:
                concerned[channel_id] = record
        return self._ours(concerned.values())

    def _refresh(
        self,
        records: Sequence[ChannelRecord],
        ends: Mapping[ChannelId, ChannelClosed],
        at: Block,
        *,
        rewound: bool,
    ) -> None:
        """Ask the contract and enter its answers."""
        for start in range(0, len(records), _VIEWS_MAX):
            some = records[start : start + _VIEWS_MAX]
            views = self._link.views([record.channel for record in some], at)
            entering = [
                self._store.update_chain(
                    record.channel_id,
                    with_end(view, ends.get(record.channel_id)),
                    rewound=rewound,
                )
                for record, view in zip(some, views, strict=True)
            ]
            for entered in entering:
                entered.result()

    def _ours(self, records: Iterable[ChannelRecord]) -> list[ChannelRecord]:
        """Books may hold channels of another contract or payee. A token that is no longer taken
        makes no difference: what was earned in it is still to be settled.
        """
        deployment = self._terms.deployment
        return [
            record
            for record in records
            if record.channel.payee == self._terms.payee
            and record.channel.id(deployment) == record.channel_id
        ]

    def _save_trail(self, known: Trail, trail: Trail) -> None:
        if trail != known:
            self._store.save_cursor(self._trail_cursor, _text(trail)).result()


def followed_cursor(terms: Terms) -> str:
    """The name of the cursor that says how far the followers of these terms are."""
    return f"followed {place_of(terms.deployment, terms.payee)}"


def begin_books(store: Store, link: ChainLink, terms: Terms, *, anew: bool = False) -> None:
    """Note where the chain is when books are begun, once; ``anew`` if they were restored."""
    name = _begun_cursor(terms)
    if anew or store.cursor(name) is None:
        store.save_cursor(name, str(link.latest_block().number)).result()


def first_block(store: Store, terms: Terms) -> int:
    """Where the chain was when these books were begun: they know nothing of what was before."""
    return int(store.cursor(_begun_cursor(terms)) or 0)


def _begun_cursor(terms: Terms) -> str:
    return f"{BEGUN}{place_of(terms.deployment, terms.payee)}"


def _is_finalized(record: ChannelRecord) -> bool:
    return record.chain.status is ChannelStatus.FINALIZED


def _changed(events: Iterable[Event], since: int) -> set[ChannelId]:
    """The channels that events are about; of blocks up to ``since`` deposits alone matter, which
    may count by now.
    """
    return {
        event.channel_id
        for event in events
        if not isinstance(event, ShareKept | ShareClaimed)
        and (event.place.block_number > since or isinstance(event, ChannelOpened | ToppedUp))
    }


def _blocks(events: Iterable[Event]) -> list[BlockCursor]:
    return [BlockCursor(one.place.block_number, one.place.block_hash) for one in events]


def _cursor(block: Block) -> BlockCursor:
    return BlockCursor(block.number, block.hash)


def _extended(trail: Trail, blocks: Iterable[BlockCursor]) -> Trail:
    """The trail with later blocks, in ascending order; those that are not later are left out."""
    longer = list(trail)
    for block in blocks:
        if not longer or block.block_number > longer[-1].block_number:
            longer.append(block)
    return _thinned(longer)


def _thinned(trail: Sequence[BlockCursor]) -> Trail:
    """Of blocks at about the same distance the oldest stays, and so moves on to larger ones."""
    kept: dict[tuple[bool, int], BlockCursor] = {}
    for block in trail:
        distance = trail[-1].block_number - block.block_number
        is_far = distance > DENSE_BLOCKS
        kept.setdefault((is_far, distance.bit_length() if is_far else distance), block)
    return tuple(kept.values())


def _text(trail: Trail) -> str:
    return " ".join(f"{one.block_number}:{one.block_hash.hex()}" for one in trail)


def _parsed(text: str | None) -> Trail:
    pairs = (one.partition(":") for one in (text or "").split())
    return tuple(BlockCursor(int(number), bytes.fromhex(name)) for number, _, name in pairs)
