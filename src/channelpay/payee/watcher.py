"""Following the contract's events, so that the books know of closes and top-ups that nobody told.

Events say which channels changed; the contract is then asked what they are. A thread of its own,
since all of it waits for the node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from logging import getLogger
from threading import Event as ThreadEvent
from threading import Thread

from channelpay.chain.events import (
    BlockCursor,
    ChannelOpened,
    EventBatch,
    EventFilter,
    EventReader,
    ReorgDetected,
    ShareClaimed,
    ShareKept,
    ToppedUp,
)
from channelpay.errors import ChainReverted, ChannelPayError
from channelpay.observe import Observer
from channelpay.payee.chain_link import ChainLink, with_deposit
from channelpay.payee.closer import Closer, Taken
from channelpay.payee.terms import Terms
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelId, ChannelStatus
from channelpay.store import Store

INTERVAL_SECONDS = 2.0
REWIND_BLOCKS = 128
"""How far back to read again after a reorganisation; deeper ones do not happen."""
_VIEWS_MAX = 100
_log = getLogger(__name__)


class Watcher:
    """Keeps the chain's view of the payee's channels up to date.

    With a ``closer`` it answers a close request by closing at once with the best voucher, if
    vouchers are unsettled. What happens from its making on is read, also if it starts later.
    """

    def __init__(
        self,
        terms: Terms,
        link: ChainLink,
        store: Store,
        closer: Closer | None,
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer or Observer()
        self.followed_at = time.monotonic()
        """When the chain was followed last, by :func:`time.monotonic`."""
        self._terms = terms
        self._link = link
        self._store = store
        self._closer = closer
        payees = EventFilter(payees=frozenset({terms.payee}))
        self._reader = EventReader(link.contract, payees)
        position = store.cursor(self._cursor_name)
        if position is None:
            # Nothing before the first start is ours to know: channels come by their open.
            self._start_at(link.confirmed_block())
        else:
            self._cursor = _parse_cursor(position)
        self._to_close = {one.channel_id for one in self._ours(store.records()) if _is_owed(one)}
        self._stopped = ThreadEvent()
        self._thread = Thread(target=self._run, name="channelpay-watcher", daemon=True)

    def start(self) -> None:
        """Follow the chain until :meth:`close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that runs, if any."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def step(self) -> None:
        """Read what happened since the last step, and do what is due."""
        try:
            self._follow()
        except ReorgDetected:
            _log.warning("the chain reorganised; reading again")
            self._start_at(self._link.confirmed_block() - REWIND_BLOCKS)
            self._refresh(self._ours(self._store.records()), {})
        if self._closer is not None:
            self._close_owed(self._closer)

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL_SECONDS):
            try:
                self.step()
            except ChannelPayError as error:
                self._observer.follow_failed(error.code)
                _log.warning("the chain could not be followed: %s", error.detail)
            except Exception:  # noqa: BLE001  a bug must not end the watch
                self._observer.follow_failed(ChannelPayError.code)
                _log.exception("the chain could not be followed")

    def _follow(self) -> None:
        confirmed = self._link.confirmed_block()
        for batch in self._reader.read(self._cursor, confirmed):
            self._enter(batch)
            self._save(batch.cursor)
        self.followed_at = time.monotonic()
        latest = confirmed + self._link.confirmations - 1
        self._observer.followed(self._cursor.block_number, latest)

    def _enter(self, batch: EventBatch) -> None:
        deposits: dict[ChannelId, int] = {}
        changed: set[ChannelId] = set()
        for event in batch.events:
            if isinstance(event, ShareKept | ShareClaimed):
                continue
            changed.add(event.channel_id)
            if isinstance(event, ChannelOpened | ToppedUp):
                deposits[event.channel_id] = event.deposit
        known = (self._store.record(channel_id) for channel_id in changed)
        self._refresh(self._ours(record for record in known if record is not None), deposits)

    def _refresh(self, records: list[ChannelRecord], deposits: dict[ChannelId, int]) -> None:
        """Ask the contract and enter its answers; ``deposits`` are confirmed new totals."""
        for start in range(0, len(records), _VIEWS_MAX):
            some = records[start : start + _VIEWS_MAX]
            views = self._link.views([record.channel for record in some])
            for record, view in zip(some, views, strict=True):
                confirmed = max(deposits.get(record.channel_id, 0), record.chain.deposit)
                seen = with_deposit(view, confirmed)
                updated = self._store.update_chain(record.channel_id, seen).result()
                if _is_owed(updated):
                    self._to_close.add(updated.channel_id)

    def _close_owed(self, closer: Closer) -> None:
        for channel_id in list(self._to_close):
            record = self._store.record(channel_id)
            if record is None or not _is_owed(record) or self._closed(closer, record):
                self._to_close.discard(channel_id)

    def _closed(self, closer: Closer, record: ChannelRecord) -> bool:
        """Close one channel; one that fails is tried again with the next step."""
        try:
            taken = closer.close(record)
        except ChannelPayError as error:
            _log.warning(
                "a channel is still open whose payer wants it closed: %s",
                error.detail,
                extra=_facts(record),
            )
            if isinstance(error, ChainReverted):
                self._settle(closer, record)
            return False
        _log.info("closed a channel at its payer's request", extra=_facts(record, taken))
        return True

    def _settle(self, closer: Closer, record: ChannelRecord) -> None:
        """Take what is owed without paying the payer, whose wallet may be what stops the close."""
        try:
            taken = closer.settle(record)
        except ChannelPayError as error:
            _log.warning("it is not settled either: %s", error.detail, extra=_facts(record))
        else:
            _log.info("settled it instead", extra=_facts(record, taken))

    def _ours(self, records: Iterable[ChannelRecord]) -> list[ChannelRecord]:
        """Books may hold channels of an earlier contract, token or payee."""
        return [
            record
            for record in records
            if self._terms.apply_to(record.channel)
            and record.channel.id(self._terms.deployment) == record.channel_id
        ]

    @property
    def _cursor_name(self) -> str:
        deployment = self._terms.deployment
        return f"events of {to_hex(deployment.contract)} on {deployment.chain_id}"

    def _start_at(self, block_number: int) -> None:
        self._save(self._reader.cursor_at(max(0, block_number)))

    def _save(self, cursor: BlockCursor) -> None:
        self._cursor = cursor
        position = f"{cursor.block_number} {cursor.block_hash.hex()}"
        self._store.save_cursor(self._cursor_name, position).result()


def _parse_cursor(text: str) -> BlockCursor:
    number, block_hash = text.split()
    return BlockCursor(int(number), bytes.fromhex(block_hash))


def _is_owed(record: ChannelRecord) -> bool:
    closing = record.chain.status is ChannelStatus.CLOSING
    return closing and record.accepted > record.chain.settled


def _facts(record: ChannelRecord, taken: Taken | None = None) -> dict[str, str]:
    """What a log line is about, in fields of their own."""
    facts = {"channelId": to_hex(record.channel_id)}
    return facts if taken is None else facts | {"txHash": to_hex(taken.transaction_hash)}
