"""What the payee's books can do. One Protocol, one atomic verb for the hot path, several stores.

Every verb that writes answers with a :class:`concurrent.futures.Future`, so that neither an event
loop nor a thread has to wait where it does not want to: ``store.release(number).result()`` in sync
code, ``await asyncio.wrap_future(store.release(number))`` on an event loop. The result is there
only after the write is durable; an exception means that nothing was written.

Errors: :class:`~channelpay.errors.PaymentRefused` where the rules refuse,
:class:`~channelpay.errors.StoreUnavailable` where the books cannot be read or written now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from channelpay.errors import ChannelPayError
from channelpay.protocol.entries import Change, Entries, EntryKey, EntryState
from channelpay.protocol.rules import ChannelRecord, Order, Payment
from channelpay.protocol.transactions import Outbox
from channelpay.protocol.types import Address, Channel, ChannelId, ChannelState, Voucher

CommitObserver = Callable[[int, float], None]
"""Told of each commit, on the writer's thread: the number of orders in it, and its seconds."""
Clock = Callable[[], float]
"""Unix seconds."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The channel after an order. ``payment_id`` names the charge that this request was served
    for: the earlier one for a retry, None where nothing was to pay. ``charged`` is what this order
    added to it, and ``is_new`` whether it began it. ``attempt`` counts the requests for the charge:
    with it, :meth:`Store.release` is told which of them failed. ``payment`` is that charge as it
    is now, and ``entries`` are those that this order changed.
    """

    record: ChannelRecord
    payment_id: int | None
    charged: int = 0
    is_new: bool = False
    attempt: int = 1
    payment: Payment | None = None
    entries: Entries = field(default_factory=dict)


Answer = Accepted | ChannelPayError
"""What became of an order: a refusal is a :class:`~channelpay.errors.PaymentRefused`,
:class:`~channelpay.errors.RiskLimitReached`, :class:`~channelpay.errors.NotFound`, or what the
order's terms raised.
"""


@dataclass(frozen=True, slots=True)
class StoredPayment:
    """One row of the payments ledger with its number in this store."""

    payment_id: int
    payment: Payment


@dataclass(frozen=True, slots=True)
class ChainView:
    """The state of a channel as the contract said it at block ``block``."""

    state: ChannelState
    block: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over channels of one token, in base units."""

    channels: int = 0
    deposit: int = 0
    accepted: int = 0
    spent: int = 0
    settled: int = 0

    def plus(self, record: ChannelRecord) -> Totals:
        return Totals(
            self.channels + 1,
            self.deposit + record.chain.deposit,
            self.accepted + record.accepted,
            self.spent + record.spent,
            self.settled + record.chain.settled,
        )


class Store(Outbox, Protocol):
    """The payee's books, and the journal of its transactions. Safe to use from several threads."""

    def accept(self, orders: Sequence[Order]) -> Future[list[Answer]]:
        """The atomic verb: load, decide (:meth:`channelpay.store.rows.Rows.decide`) and write in
        one transaction, together with whatever else waits. The entries that an order's terms name
        are loaded, and changed, in it as well.

        Each order is decided in its turn as if it came alone, and answered in its place; one that
        is refused, say with :class:`~channelpay.errors.ChannelNotFound`, leaves nothing. The
        future's own exception means that none was written.
        """

    def release(self, payment_id: int, attempt: int) -> Future[Payment]:
        """One request that this charge was made for was not delivered. The charge goes back when
        that holds for all of them (:func:`channelpay.protocol.rules.release`): the payment says
        whether it did. What its sale changed in entries is then undone
        (:func:`channelpay.protocol.rules.given_back`). What is not known to have been done may be
        repeated: it counts once.
        """

    def change_entries(self, keys: Sequence[EntryKey], change: Change) -> Future[Entries]:
        """Change entries that no payment is about, say to issue coupons: ``change`` gets those of
        ``keys`` that are there, and says which become what; the result is what it said. It changes
        no others than ``keys``, and what it raises is the caller's: nothing is written then.

        Whoever does not know whether it was committed repeats it: so it has to see in the entries
        what was done already.
        """

    def begin_close(self, channel_id: ChannelId, voucher: Voucher | None) -> Future[ChannelRecord]:
        """Take the payer's last voucher, if there is one, and no voucher after it
        (:func:`channelpay.protocol.rules.begin_close`). Holds for whoever uses these books, and
        until :meth:`close_failed`.
        """

    def close_failed(self, channel_id: ChannelId) -> Future[ChannelRecord]:
        """A close that was begun certainly failed (:func:`channelpay.protocol.rules.close_failed`):
        its transaction was reverted or never sent.
        """

    def add_channel(
        self, channel_id: ChannelId, channel: Channel, view: ChainView, *, in_doubt: bool = False
    ) -> Future[ChannelRecord]:
        """Enter a channel; for a known one, the same as :meth:`update_chain`. ``in_doubt`` where it
        may have been used before.
        """

    def update_chain(
        self, channel_id: ChannelId, view: ChainView, *, rewound: bool = False
    ) -> Future[ChannelRecord]:
        """Enter what the chain says (:func:`channelpay.protocol.rules.enter_chain`), unless what is
        known was read at a later block. ``rewound``: enter it also then, since a reorganisation
        took that block back.
        """

    def mark_in_doubt(self) -> Future[int]:
        """Charges may be missing from these books: every channel that is not finalized is in doubt
        from now on (:mod:`channelpay.protocol.rules`). The number of them.
        """

    def take_lease(self, name: str, holder: str, seconds: float) -> Future[bool]:
        """Be the only one who does ``name``: True where nobody else's lease runs, and then it is
        ``holder``'s. Taking it again renews it.

        By the clock of the books, all have the same: PostgreSQL's server, or the machine of the
        SQLite file. The lease runs for ``seconds`` from some moment after the call; so the holder
        counts from before it, and has stopped by then, or renewed it.
        """

    def drop_lease(self, name: str, holder: str) -> Future[None]:
        """Let another one take it at once. Nothing happens where it is not ``holder``'s."""

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        """One channel, as last committed."""

    def records(self) -> list[ChannelRecord]:
        """Every channel, ordered by id."""

    def entry(self, key: EntryKey) -> EntryState | None:
        """One entry, as last committed."""

    def entries(
        self, kind: str, prefix: bytes = b"", after: bytes = b"", limit: int = 1_000
    ) -> list[tuple[EntryKey, EntryState]]:
        """The first ``limit`` entries of a kind whose names begin with ``prefix`` and come behind
        ``after``, ordered by name.
        """

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        """The ledger of one channel, oldest first."""

    def payment(self, channel_id: ChannelId, idempotency_key: str) -> StoredPayment | None:
        """What a channel bought with this key, unless that was given back."""

    def payment_numbered(self, payment_id: int) -> StoredPayment | None:
        """One row of the ledger."""

    def owed(self) -> list[ChannelRecord]:
        """The channels that bring money, ordered by id: not finalized, and with a voucher that
        promises more than is settled, or with a close that was begun. Reads no others.
        """

    def seen_after(self, block: int) -> list[ChannelRecord]:
        """The channels whose chain state was read at a later block than this, ordered by id: what a
        reorganisation behind that block may have changed. Reads no others.
        """

    def unsettled(self) -> dict[Address, int]:
        """What vouchers promise beyond what is settled, by token, over all channels that are not
        finalized. Reads the channels of :meth:`owed`: for every few seconds, not every request.
        """

    def totals(self) -> dict[Address, Totals]:
        """The sums over all channels that the books know, by token. Reads them all."""

    @property
    def waiting(self) -> int:
        """Jobs that wait for their transaction."""

    @property
    def remote(self) -> bool:
        """Whether a read may take long, since another machine answers it: not for an event loop."""

    def cursor(self, name: str) -> str | None:
        """Where the reader ``name`` had arrived, in its own words; None if it never began."""

    def save_cursor(self, name: str, position: str) -> Future[None]:
        """Remember where the reader ``name`` has arrived."""

    def close(self) -> None:
        """Finish what was handed in, then let go of everything. Closing twice is fine."""
