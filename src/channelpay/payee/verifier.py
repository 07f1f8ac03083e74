"""Whether a credential pays for a request, in the order of cost: parse, challenge, channel,
signature, and then one atomic step in the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from logging import getLogger

from channelpay.errors import (
    ChannelClosing,
    ChannelNotFound,
    ChannelPayError,
    InvalidChallenge,
    MethodUnsupported,
    OtherChain,
    PriceRaised,
)
from channelpay.payee.chain_link import ChainLink, with_deposit
from channelpay.payee.closer import Closer
from channelpay.payee.terms import Terms
from channelpay.payee.threads import BoundedThreads
from channelpay.protocol.eip712 import VoucherChecker, VoucherHasher
from channelpay.protocol.reader import CredentialReader
from channelpay.protocol.rules import ChannelRecord, Purchase
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Channel, ChannelId, ChannelStatus, Voucher
from channelpay.protocol.wire import (
    Challenge,
    ChallengeIssuer,
    ClosePayload,
    OpenPayload,
    Source,
    TopUpPayload,
    VoucherPayload,
)
from channelpay.store import Accepted, Store

KNOWN_CHANNELS_MAX = 100_000
"""Descriptions kept in memory, 0.5 kB each; beyond that all are read from the store again."""
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What a request wants. ``resource`` is its method and URL, ``price`` in base units."""

    resource: str
    price: int
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Paid:
    """The request is paid for: serve it. ``payment_id`` is what to release if that fails; None
    where nothing was charged.
    """

    record: ChannelRecord
    challenge_id: str
    price: int
    payment_id: int | None


@dataclass(frozen=True, slots=True)
class ToppedUp:
    """A top-up was entered; there is nothing to serve."""

    record: ChannelRecord
    challenge_id: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The channel was closed on chain; there is nothing to serve."""

    record: ChannelRecord
    challenge_id: str
    transaction_hash: bytes


Verified = Paid | ToppedUp | Closed


class Verifier:
    """Checks the credentials of one payee. For one event loop.

    ``now`` gives Unix seconds. Without a ``closer`` close credentials are refused.
    """

    def __init__(
        self,
        terms: Terms,
        issuer: ChallengeIssuer,
        store: Store,
        link: ChainLink,
        closer: Closer | None,
        now: Callable[[], float],
    ) -> None:
        self._terms = terms
        self._reader = CredentialReader(issuer)
        self._store = store
        self._link = link
        self._closer = closer
        self._now = now
        self._checker = VoucherChecker(VoucherHasher(terms.deployment))
        self._reads = BoundedThreads("channelpay-chain", workers=4, waiting_max=60)
        self._closes = BoundedThreads("channelpay-close", workers=2, waiting_max=30)
        # Safe to keep: a channel's id is the hash of its description, so it never changes.
        self._known: dict[ChannelId, Channel] = {}
        # Spares the gas of a second transaction; what stops vouchers is in the books.
        self._closing: set[ChannelId] = set()

    async def verify(self, header: str, order: Order) -> Verified:
        """What the ``Authorization`` header achieves for this order.

        Raises what the draft lists as problems: :class:`~channelpay.errors.PaymentRefused`,
        :class:`~channelpay.errors.InputError`, :class:`~channelpay.errors.ChainReverted`; and
        :class:`~channelpay.errors.NetworkError` for trouble of ours. Then nothing was charged.
        """
        challenge, request, payload, source = self._reader.read(header, self._now())
        if not self._terms.are_those_of(request):
            raise InvalidChallenge("the challenge is of other terms than today's")
        self._check_chain(source)
        if isinstance(payload, TopUpPayload):
            return await self._top_up(payload, challenge)
        if isinstance(payload, ClosePayload):
            return await self._close(payload.voucher, challenge)
        if order.price > request.amount:
            raise PriceRaised(
                f"the price is {order.price} now; the challenge said {request.amount}"
            )
        if isinstance(payload, VoucherPayload):
            self._check_signature(payload.voucher)
        else:
            await self._open(payload, source)
        return await self._pay(payload.voucher, challenge, order)

    def release(self, payment_id: int) -> Future[ChannelRecord]:
        """Give a charge back whose request was not served."""
        return self._store.release(payment_id)

    def close(self) -> None:
        self._reads.close()
        self._closes.close()

    def _check_chain(self, source: Source | None) -> None:
        """A voucher itself does not tell its chain: its signature would just be a stranger's."""
        expected = self._terms.deployment.chain_id
        if source is not None and source.chain_id != expected:
            raise OtherChain(f"the source is on chain {source.chain_id}, the payee on {expected}")

    def _check_signature(self, voucher: Voucher) -> None:
        self._checker.check(voucher, self._channel(voucher.channel_id).signer)

    def _channel(self, channel_id: ChannelId) -> Channel:
        """The description of a channel that pays us; it may be closed."""
        channel = self._known.get(channel_id)
        return channel or self._remembered(self._record(channel_id))

    def _record(self, channel_id: ChannelId) -> ChannelRecord:
        record = self._store.record(channel_id)
        if record is None or not self._is_ours(channel_id, record.channel):
            raise ChannelNotFound(channelId=to_hex(channel_id))
        return record

    def _is_ours(self, channel_id: ChannelId, channel: Channel) -> bool:
        genuine = channel.id(self._terms.deployment) == channel_id
        return genuine and self._terms.apply_to(channel)

    def _remembered(self, record: ChannelRecord) -> Channel:
        if len(self._known) >= KNOWN_CHANNELS_MAX:
            self._known.clear()
        self._known[record.channel_id] = record.channel
        return record.channel

    async def _pay(self, voucher: Voucher, challenge: Challenge, order: Order) -> Paid:
        """The signature was checked."""
        now_ms = int(self._now() * 1000)
        key = order.idempotency_key
        accepted = await self._accept(Purchase(voucher, order.price, order.resource, now_ms, key))
        return Paid(accepted.record, challenge.id, order.price, accepted.payment_id)

    async def _accept(self, purchase: Purchase) -> Accepted:
        future = self._store.accept(purchase)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # The request is gone, but the writer may have been at it already.
            future.add_done_callback(self._release_unserved)
            raise

    def _release_unserved(self, future: Future[Accepted]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        payment_id = future.result().payment_id
        if payment_id is not None:
            self._store.release(payment_id).add_done_callback(log_failed_release)

    async def _open(self, payload: OpenPayload, source: Source | None) -> None:
        """Enter the channel of an open credential, unless it is known; its voucher was signed."""
        voucher = payload.voucher
        channel_id = voucher.channel_id
        if source is None:
            raise ChannelNotFound("an open names its source", channelId=to_hex(channel_id))
        channel = self._terms.channel(source.payer, payload.authorized_signer, payload.salt)
        if not self._is_ours(channel_id, channel):
            raise ChannelNotFound(
                "source, salt and authorizedSigner do not give this channelId with our payee, "
                "token, contract and chain",
                channelId=to_hex(channel_id),
            )
        self._checker.check(voucher, channel.signer)
        known = self._store.record(channel_id)
        if known is None or known.chain.status is ChannelStatus.ABSENT:
            await self._reads.run(lambda: self._enter(channel_id, channel, payload))

    def _enter(self, channel_id: ChannelId, channel: Channel, payload: OpenPayload) -> None:
        """Check an open on chain and add the channel, or what is known of one that a
        reorganisation took away; for a thread.
        """
        view = self._link.opened(channel_id, channel, payload.transaction_hash)
        known = self._store.record(channel_id)
        record = known or self._store.add_channel(channel_id, channel, view).result()
        # The watch passes over events of unknown channels: one may have come while this was so.
        (now,) = self._link.views([channel])
        now = with_deposit(now, max(record.chain.deposit, view.state.deposit))
        self._store.update_chain(channel_id, now).result()

    async def _top_up(self, payload: TopUpPayload, challenge: Challenge) -> ToppedUp:
        record = self._record(payload.channel_id)
        transaction_hash, amount = payload.transaction_hash, payload.additional_deposit
        view = await self._reads.run(lambda: self._link.topped_up(record, transaction_hash, amount))
        updated = await asyncio.wrap_future(self._store.update_chain(record.channel_id, view))
        return ToppedUp(updated, challenge.id)

    async def _close(self, voucher: Voucher, challenge: Challenge) -> Closed:
        if self._closer is None:
            raise MethodUnsupported(
                "this payee does not close channels on request",
                hint="Request the close on chain; the payee settles within the grace period.",
            )
        closer = self._closer
        self._check_signature(voucher)
        record = self._record(voucher.channel_id)
        if record.channel_id in self._closing:
            raise ChannelClosing("the channel is being closed", channelId=to_hex(record.channel_id))
        self._closing.add(record.channel_id)
        try:
            closing = self._closes.submit(lambda: closer.close(record, voucher))
        except BaseException:
            self._closing.discard(voucher.channel_id)
            raise
        closing.add_done_callback(lambda _: self._closing.discard(voucher.channel_id))
        taken = await asyncio.wrap_future(closing)
        return Closed(taken.record, challenge.id, taken.transaction_hash)


def log_failed_release(future: Future[ChannelRecord]) -> None:
    """The charge of a request that was not served stands: the operator should know."""
    error = future.exception()
    if error is not None:
        detail = error.detail if isinstance(error, ChannelPayError) else type(error).__name__
        _log.error("a charge could not be released: %s", detail)
