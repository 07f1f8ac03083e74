"""Whether a credential pays for a request, in the order of cost: parse, challenge, channel,
signature, and then one atomic step in the books.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Protocol

from channelpay.errors import (
    AmountExceedsDeposit,
    ChannelClosing,
    ChannelNotFound,
    ChannelPayError,
    InvalidChallenge,
    InvalidSignature,
    MethodUnsupported,
    OtherChain,
    PriceRaised,
    StoreUnavailable,
    TooFewConfirmations,
)
from channelpay.observe import Observer
from channelpay.payee.acceptance import Guard
from channelpay.payee.carrier import Carrier
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.follower import first_block
from channelpay.payee.lookups import Lookups
from channelpay.payee.prices import Quote
from channelpay.payee.register import Register
from channelpay.payee.selling.deal import NO_WISH, Deal, Uncounted, Wish, entries_of
from channelpay.payee.selling.desk import Sells
from channelpay.payee.selling.tabs import Clerk
from channelpay.payee.terms import Terms
from channelpay.payee.threads import BoundedThreads
from channelpay.protocol import rules
from channelpay.protocol.accounts import NOT_YET
from channelpay.protocol.eip712 import VoucherChecker, VoucherHasher
from channelpay.protocol.funding import (
    Authorization,
    SignedAuthorization,
    is_for_open,
    is_for_top_up,
)
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.parse import parse_signature
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.proofs import proof_place
from channelpay.protocol.reader import CredentialReader
from channelpay.protocol.rules import ChannelRecord, Purchase, check_live, require_unsettled
from channelpay.protocol.tabs import TabKeys, TabNote
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, Channel, ChannelId, ChannelStatus, Voucher
from channelpay.protocol.wire import (
    Challenge,
    ChallengeIssuer,
    ClosePayload,
    OpenPayload,
    SessionRequest,
    SignedOpenPayload,
    SignedTopUpPayload,
    Source,
    TopUpPayload,
    VoucherPayload,
)
from channelpay.store import Accepted, ChainView, Store

KNOWN_CHANNELS_MAX = 100_000
"""Descriptions kept in memory, 0.5 kB each; beyond that all are read from the store again."""


ReadBody = Callable[[], Awaitable[str]]
"""Gives what tells the body of a request apart from others; nothing for an empty one."""


class Order(NamedTuple):
    """What a request wants. ``resource`` is its method and URL, to which ``read_body`` adds;
    ``client`` is the address it came from, if that is known; ``wish`` is what it says of its price.
    ``terms`` are what it is sold under, where that is not the quote's incentives; ``sells`` gives
    them for the channel that pays, for what the payee sells itself. ``on_tab`` says that it may be
    put on the payer's tab. ``proof`` is what came as :data:`~channelpay.protocol.proofs.HEADER`.
    """

    resource: str
    quote: Quote
    idempotency_key: str | None = None
    client: str | None = None
    read_body: ReadBody | None = None
    wish: Wish = NO_WISH
    terms: rules.Terms | None = None
    sells: Sells | None = None
    on_tab: bool = False
    proof: str | None = None


class Paid(NamedTuple):
    """The request is paid for: serve it. ``price`` is what one unit costs (base units) by the list,
    and ``note`` what it did cost under incentives, where there are any. What a pass covers costs
    nothing; ``covered`` says what its answer has to say of the pass then. ``tab`` is what the payer
    is told of its tab.
    """

    accepted: Accepted
    challenge_id: str
    price: int
    quote: Quote
    note: PriceNote | None = None
    covered: str | None = None
    tab: TabNote | None = None

    @property
    def record(self) -> ChannelRecord:
        return self.accepted.record


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


class Checks(Protocol):
    """Who checks credentials for a payee: its own :class:`Verifier`, or the network that it sells
    for (:mod:`channelpay.payee.hub.member`).
    """

    @property
    def register(self) -> Register: ...

    @property
    def guard(self) -> Guard: ...

    async def verify(
        self, header: str, order: Order, reader: CredentialReader | None = None
    ) -> Verified: ...

    async def require_followed(self) -> None: ...

    def with_gas(self, request: SessionRequest) -> SessionRequest: ...


class Verifier:
    """Checks the credentials of one payee. For one event loop.

    ``now`` gives Unix seconds. Without a ``closer`` close credentials are refused, without a
    ``carrier`` those whose gas the payee would pay. ``guard`` is started and closed by the caller.
    """

    def __init__(  # noqa: PLR0913, PLR0917  what checks a credential, each part named
        self,
        terms: Terms,
        issuer: ChallengeIssuer,
        store: Store,
        link: ChainLink,
        closer: Closer | None,
        now: Callable[[], float],
        observer: Observer,
        guard: Guard,
        carrier: Carrier | None = None,
    ) -> None:
        self.register: Register = Register(store, observer, guard)
        self._terms = terms
        self._reader = CredentialReader(issuer)
        self._store = store
        self._link = link
        self._closer = closer
        self._carrier = carrier
        self._now = now
        self._observer = observer
        self.guard = guard
        self._risk_max = guard.acceptance.risk_max_per_channel
        self._checker = VoucherChecker(VoucherHasher(terms.deployment))
        self._lookups = Lookups()
        self._closes = BoundedThreads("channelpay-close", workers=2, waiting_max=30)
        # Safe to keep: a channel's id is the hash of its description, so it never changes.
        self._known: dict[ChannelId, Channel] = {}
        # Spares the gas of a second transaction; what stops vouchers is in the books.
        self._closing: set[ChannelId] = set()

    async def verify(
        self, header: str, order: Order, reader: CredentialReader | None = None
    ) -> Verified:
        """What the ``Authorization`` header achieves for this order. ``reader`` knows the
        challenges of another site that this payee is paid for.

        Raises what the draft lists as problems: :class:`~channelpay.errors.PaymentRefused`,
        :class:`~channelpay.errors.InputError`, :class:`~channelpay.errors.ChainReverted`; and
        :class:`~channelpay.errors.NetworkError` for trouble of ours. Then nothing was charged.
        """
        reading = reader or self._reader
        challenge, request, payload, source = reading.read(header, self._now())
        if not self._terms.are_those_of(request):
            raise InvalidChallenge("the challenge is of other terms than today's")
        self._check_chain(source)
        if isinstance(payload, TopUpPayload | SignedTopUpPayload):
            return await self._top_up(payload, challenge, request, order)
        if isinstance(payload, ClosePayload):
            return await self._close(payload.voucher, challenge, order)
        if self.guard.is_behind:
            await self.require_followed()
        price = _price(order.quote, request)
        if isinstance(payload, VoucherPayload):
            channel = await self._channel(payload.voucher.channel_id)
            if channel.token != request.currency:
                raise InvalidChallenge("the challenge is for another token than the channel's")
            self._check_signature(payload.voucher, channel)
        elif isinstance(payload, SignedOpenPayload):
            await self._open_signed(payload, request, order)
        else:
            await self._open(payload, request.currency, source, order)
        return await self._pay(payload.voucher, challenge, request.currency, price, order)

    def with_gas(self, request: SessionRequest) -> SessionRequest:
        """What a challenge asks for, with the offer to carry the gas, if there is one now."""
        offer = None if self._carrier is None else self._carrier.offer(request.currency)
        return request if offer is None else replace(request, carried=offer)

    async def require_followed(self) -> None:
        """Raise :class:`~channelpay.errors.ChainBehind` while nothing is sold for that reason, also
        by what the books say right now.
        """
        if self.guard.is_behind:
            await self.register.read(lambda _: self.guard.read_followed())
            self.guard.require_followed()

    def close(self) -> None:
        self._lookups.close()
        self._closes.close()
        self.register.close()

    def _check_chain(self, source: Source | None) -> None:
        """A voucher itself does not tell its chain: its signature would just be a stranger's."""
        expected = self._terms.deployment.chain_id
        if source is not None and source.chain_id != expected:
            raise OtherChain(f"the source is on chain {source.chain_id}, the payee on {expected}")

    async def _check_proof(self, voucher: Voucher, challenge: Challenge, proof: str) -> None:
        """Raises :class:`~channelpay.errors.InvalidSignature` unless the channel's signer asks."""
        channel = await self._channel(voucher.channel_id)
        place = proof_place(voucher.channel_id, challenge.id)
        self._check_signature(Voucher(place, 0, parse_signature(proof, PROOF)), channel)

    def _check_signature(self, voucher: Voucher, channel: Channel) -> None:
        started = time.perf_counter()
        try:
            self._checker.check(voucher, channel.signer)
        finally:
            self._observer.verified(time.perf_counter() - started)

    async def _channel(self, channel_id: ChannelId) -> Channel:
        """The description of a channel that pays us; it may be closed."""
        channel = self._known.get(channel_id)
        return channel or self._remembered(await self._record(channel_id))

    async def _record(self, channel_id: ChannelId) -> ChannelRecord:
        record = await self.register.read(lambda store: store.record(channel_id))
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

    async def _pay(
        self, voucher: Voucher, challenge: Challenge, token: Address, price: int, order: Order
    ) -> Paid:
        """The signature was checked."""
        quote, resource = order.quote, order.resource
        if order.read_body is not None and (body := await order.read_body()):
            resource = f"{resource} body={body}"
        now = int(self._now() * 1000)
        deal, terms = None, order.terms
        if order.proof is not None:
            await self._check_proof(voucher, challenge, order.proof)
        if order.sells is not None:
            terms = await order.sells(await self._channel(voucher.channel_id))
        self.guard.require_room(token, price if quote.charged else 0)
        if quote.selling is not None:
            payer = (await self._channel(voucher.channel_id)).payer
            known = self.register.deliveries.of(payer + token, now, taken=quote.charged)
            deal = quote.selling.deal(payer, token, now, order.wish, known)
        purchase = Purchase(
            voucher,
            price if quote.charged else 0,
            resource,
            now,
            order.idempotency_key,
            quote.metered and quote.charged,
            self._risk_max.get(token),
            (terms if deal is None else deal) if quote.charged else None,
            is_proven=order.proof is not None,
        )
        if deal is None:
            accepted, tab = await self._accept(purchase, token, order)
            return Paid(accepted, challenge.id, price, quote, tab=tab)
        accepted, tab = await self._accept_under(deal, purchase, token, order)
        note = deal.note(accepted) if quote.charged else await self._preview(deal, price, accepted)
        return Paid(accepted, challenge.id, price, quote, note, tab=tab)

    async def _accept_under(
        self, deal: Deal, purchase: Purchase, token: Address, order: Order
    ) -> tuple[Accepted, TabNote | None]:
        """Have it decided under a deal. What was taken into the deal, and certainly not into the
        books, is kept for the next one.
        """
        kept = deal.delivered if order.quote.charged else NOT_YET
        try:
            try:
                accepted, tab = await self._accept(purchase, token, order)
            except Uncounted:
                counted = replace(purchase, terms=deal.counted())
                accepted, tab = await self._accept(counted, token, order)
        except ChannelPayError as error:
            if not isinstance(error, StoreUnavailable):
                self.register.deliveries.add(deal.account.name, kept)
            raise
        if not accepted.is_new:
            self.register.deliveries.add(deal.account.name, kept)
        return accepted, tab

    async def _accept(
        self, purchase: Purchase, token: Address, order: Order
    ) -> tuple[Accepted, TabNote | None]:
        """Have it decided, where there are tabs after what is owed was paid."""
        credit = order.quote.credit
        policy = None if credit is None else credit.policies.get(token)
        if policy is None:
            return await self.register.accept(purchase), None
        payer = (await self._channel(purchase.channel_id)).payer
        clerk = Clerk(self.register, policy, TabKeys.of(payer, token))
        return await clerk.sell(purchase, charged=order.quote.charged, agreed=order.on_tab)

    async def _preview(self, deal: Deal, list_price: int, accepted: Accepted) -> PriceNote:
        """What it would cost now: a HEAD asks that, and buys nothing."""
        counted = deal.counted()
        entries = await self.register.read(lambda store: entries_of(store, counted.keys))
        return counted.preview(list_price, accepted.record, entries)

    async def _open(
        self, payload: OpenPayload, token: Address, source: Source | None, order: Order
    ) -> None:
        """Enter the channel of an open credential, unless it is known; its voucher was signed."""
        voucher = payload.voucher
        channel_id = voucher.channel_id
        if source is None:
            raise ChannelNotFound("an open names its source", channelId=to_hex(channel_id))
        channel = self._presented(source.payer, token, payload)
        if await self._is_unknown(channel_id):
            about = (channel_id, payload.transaction_hash)
            entering = partial(self._enter, channel_id, channel, payload.transaction_hash)
            await self._lookups.run(order.client, about, entering)

    async def _open_signed(
        self, payload: SignedOpenPayload, request: SessionRequest, order: Order
    ) -> None:
        """Have the channel of an open credential opened, unless it is known, and enter it."""
        channel_id, signed = payload.voucher.channel_id, payload.signed
        authorization = signed.authorization
        carrier = self._require_carrier(request, authorization)
        channel = self._presented(authorization.payer, request.currency, payload)
        if not is_for_open(authorization, self._terms.deployment, channel):
            raise InvalidSignature("the authorization is not one for the open of this channel")
        if payload.voucher.cumulative_amount > authorization.amount:
            raise AmountExceedsDeposit(
                "the voucher promises more than the deposit that is authorized",
                deposit=str(authorization.amount),
            )
        if await self._is_unknown(channel_id):
            about = (channel_id, signed.signature)
            opening = partial(self._enter_carried, carrier, channel_id, channel, signed)
            await self._lookups.run(order.client, about, opening)

    def _presented(
        self, payer: Address, token: Address, payload: OpenPayload | SignedOpenPayload
    ) -> Channel:
        """The channel of an open credential; its voucher was signed."""
        channel_id = payload.voucher.channel_id
        channel = self._terms.channel(payer, token, payload.authorized_signer, payload.salt)
        if not self._is_ours(channel_id, channel):
            raise ChannelNotFound(
                "payer, salt and authorizedSigner do not give this channelId with our payee, "
                "token, contract and chain",
                channelId=to_hex(channel_id),
            )
        self._check_signature(payload.voucher, channel)
        return channel

    async def _is_unknown(self, channel_id: ChannelId) -> bool:
        """Whether the chain has to be asked for a channel that is presented."""
        known = await self.register.read(lambda store: store.record(channel_id))
        return known is None or known.chain.status is ChannelStatus.ABSENT

    def _require_carrier(self, request: SessionRequest, authorization: Authorization) -> Carrier:
        offered = request.carried
        if self._carrier is None or offered is None or authorization.method not in offered.methods:
            raise MethodUnsupported(
                "the challenge offers to carry the gas of no such authorization"
            )
        return self._carrier

    def _enter_carried(
        self,
        carrier: Carrier,
        channel_id: ChannelId,
        channel: Channel,
        signed: SignedAuthorization,
    ) -> None:
        """Have a channel opened, and add it; for a thread."""
        transaction_hash = carrier.open(channel_id, channel, signed)
        if transaction_hash is not None:
            self._enter(channel_id, channel, transaction_hash)
            return
        # Somebody else sent it: nothing here tells whether books that were lost knew the channel.
        (view,) = self._link.views([channel])
        check_live(ChannelRecord(channel_id, channel, view.state))
        if view.state.deposit == 0:
            raise TooFewConfirmations("the open is mined, and has too few confirmations")
        self._store.add_channel(channel_id, channel, view, in_doubt=True).result()
        self._observer.opened(channel.token, view.state.deposit)

    def _enter(self, channel_id: ChannelId, channel: Channel, transaction_hash: bytes) -> None:
        """Check an open on chain and add the channel, or say of a known one that it is there again;
        for a thread.
        """
        view, block_number = self._link.opened(channel_id, channel, transaction_hash)
        if self._store.record(channel_id) is None:
            # Books that began later may be in the place of others, which knew of its charges.
            in_doubt = block_number < first_block(self._store, self._terms)
            self._store.add_channel(channel_id, channel, view, in_doubt=in_doubt).result()
            self._observer.opened(channel.token, view.state.deposit)
        # The follower passes over events of unknown channels: one may have come while this was so.
        (now,) = self._link.views([channel])
        self._store.update_chain(channel_id, now).result()

    async def _top_up(
        self,
        payload: TopUpPayload | SignedTopUpPayload,
        challenge: Challenge,
        request: SessionRequest,
        order: Order,
    ) -> ToppedUp:
        record = await self._record(payload.channel_id)
        about: tuple[object, ...]
        if isinstance(payload, TopUpPayload):
            transaction_hash, amount = payload.transaction_hash, payload.additional_deposit
            about = (payload.channel_id, transaction_hash, amount)
            looking = partial(self._link.topped_up, record, transaction_hash, amount)
        else:
            carrier = self._require_carrier(request, payload.signed.authorization)
            self._check_top_up(record, payload)
            about = (payload.channel_id, payload.signed.signature)
            looking = partial(self._add_carried, carrier, record, payload)
        view = await self._lookups.run(order.client, about, looking)
        updated = await asyncio.wrap_future(self._store.update_chain(record.channel_id, view))
        added = updated.chain.deposit - record.chain.deposit
        if added > 0:
            self._observer.topped_up(record.channel.token, added)
        return ToppedUp(updated, challenge.id)

    def _check_top_up(self, record: ChannelRecord, payload: SignedTopUpPayload) -> None:
        check_live(record)
        authorization, deployment = payload.signed.authorization, self._terms.deployment
        if not is_for_top_up(authorization, deployment, record.channel, payload.salt):
            raise InvalidSignature("the authorization is not one for a top-up of this channel")

    def _add_carried(
        self, carrier: Carrier, record: ChannelRecord, payload: SignedTopUpPayload
    ) -> ChainView:
        """Have a channel topped up: what it holds then; for a thread."""
        signed, salt = payload.signed, payload.salt
        transaction_hash = carrier.top_up(record.channel_id, record.channel, signed, salt)
        if transaction_hash is None:
            return self._link.views([record.channel])[0]
        amount = signed.authorization.amount
        return self._link.topped_up(record, transaction_hash, amount)

    async def _close(self, voucher: Voucher, challenge: Challenge, order: Order) -> Closed:
        if self._closer is None:
            raise MethodUnsupported(
                "this payee does not close channels on request",
                hint="Request the close on chain; the payee settles within the grace period.",
            )
        closer = self._closer
        record = await self._record(voucher.channel_id)
        self._check_signature(voucher, record.channel)
        if order.proof is None:
            require_unsettled(record, voucher)
        else:
            await self._check_proof(voucher, challenge, order.proof)
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


def _price(quote: Quote, request: SessionRequest) -> int:
    """What the quote asks in the currency of the challenge, which was for the same unit."""
    price = quote.price_in(request.currency)
    if price is None:
        raise InvalidChallenge("this is not sold for the token of the challenge")
    if request.unit_type != quote.unit:
        raise InvalidChallenge(
            f"the challenge is per {request.unit_type[:40]}, the price per {quote.unit}"
        )
    if price > request.amount:
        raise PriceRaised(f"the price is {price} now; the challenge said {request.amount}")
    return price
