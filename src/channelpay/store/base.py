"""What the payee's books can do. One Protocol, one atomic verb for the hot path, several stores.

Every verb that writes answers with a :class:`concurrent.futures.Future`, so that neither an event
loop nor a thread has to wait where it does not want to: ``store.accept(purchase).result()`` in
sync code, ``await asyncio.wrap_future(store.accept(purchase))`` on an event loop. The result is
there only after the write is durable; an exception means that nothing was written.

Errors: :class:`~channelpay.errors.PaymentRefused` where the rules refuse,
:class:`~channelpay.errors.StoreUnavailable` where the books cannot be read or written now.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from channelpay.protocol.rules import ChannelRecord, Payment, Purchase
from channelpay.protocol.types import Channel, ChannelId, ChannelState, Voucher


@dataclass(frozen=True, slots=True)
class Accepted:
    """The channel after a purchase. ``payment_id`` names the charge that this request was served
    for: the earlier one for a retry, None where nothing was to pay.
    """

    record: ChannelRecord
    payment_id: int | None


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


class Store(Protocol):
    """The payee's books. Safe to use from several threads."""

    def accept(self, purchase: Purchase) -> Future[Accepted]:
        """Take the voucher and charge the price, or refuse both: load, decide
        (:func:`channelpay.protocol.rules.decide`) and write in one transaction.

        Raises :class:`~channelpay.errors.ChannelNotFound` for a channel that was never added.
        """

    def release(self, payment_id: int) -> Future[ChannelRecord]:
        """One request that this charge was made for was not delivered. The charge goes back when
        that holds for all of them (:func:`channelpay.protocol.rules.release`).
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
        self, channel_id: ChannelId, channel: Channel, view: ChainView
    ) -> Future[ChannelRecord]:
        """Enter a channel; for a known one, the same as :meth:`update_chain`."""

    def update_chain(self, channel_id: ChannelId, view: ChainView) -> Future[ChannelRecord]:
        """Enter what the chain says, unless what is known was read at a later block."""

    def record(self, channel_id: ChannelId) -> ChannelRecord | None:
        """One channel, as last committed."""

    def records(self) -> list[ChannelRecord]:
        """Every channel, ordered by id."""

    def payments(self, channel_id: ChannelId) -> list[StoredPayment]:
        """The ledger of one channel, oldest first."""

    def cursor(self, name: str) -> str | None:
        """Where the reader ``name`` had arrived, in its own words; None if it never began."""

    def save_cursor(self, name: str, position: str) -> Future[None]:
        """Remember where the reader ``name`` has arrived."""

    def close(self) -> None:
        """Finish what was handed in, then let go of everything. Closing twice is fine."""
