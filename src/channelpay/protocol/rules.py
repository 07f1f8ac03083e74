"""The rules of the payee's books: given what is known of a channel, may this voucher buy this?

Pure: the store has an :data:`Order` decide inside its one atomic step and writes what it says. All
amounts are cumulative base units of the channel's token; all times are Unix milliseconds.

    available = accepted - spent

``accepted`` and ``spent`` only grow, except that :func:`release` takes one charge back when the
site did not deliver.

A channel is in doubt when its books were restored from a backup or rebuilt from the chain: charges
may be missing from ``spent``. The first voucher afterwards ends that (:func:`decide`): all that the
payer had promised before counts as charged.

What an order is sold under may depend on entries (:mod:`channelpay.protocol.entries`) and change
them: its :class:`Terms` say so, and what a charge changed is undone when it is given back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

from channelpay.errors import (
    AmountExceedsDeposit,
    ChannelClosing,
    ChannelFinalized,
    ChannelNotFound,
    ConfigError,
    IdempotencyKeyReused,
    InputError,
    InsufficientBalance,
    NotFound,
    PaymentRefused,
    PriceRaised,
    RiskLimitReached,
    VoucherPublic,
)
from channelpay.protocol.entries import (
    TEXT_CHARACTERS_MAX,
    Entries,
    EntryKey,
    EntryState,
    Undo,
    decode_undo,
    encode_undo,
    merged,
    undone,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Channel, ChannelId, ChannelState, ChannelStatus, Voucher

RETRY_WINDOW_MS = 60_000
"""How long the same voucher for the same resource, sent without an Idempotency-Key, still counts as
a retry.
"""
KEYED_RETRY_WINDOW_MS = 86_400_000
"""How long an Idempotency-Key is served again: 24 hours. A client that retries does so within an
outage of its own or of the site; without an end, one payment would buy a changing page for ever.
"""

ATTEMPTS_MAX = 8
"""How many requests one payment serves at most, the first among them: nobody's network is that bad,
and behind the same URL may be something new each time.
"""
ATTEMPTS_COUNTED_MAX = 63
"""How many requests for one payment are told apart, those included that were not served: the bits
of a database's integer.
"""
EARLIER_MAX = 8
"""Vouchers kept from before top-ups, each of which costs its sender gas."""

SALE = "sale"
"""The kind of a plain payment; other models of selling name others."""
REFUND = "refund"
"""The kind of a payment that goes the other way: its price lowers ``spent``. What a sale does not
need to say: a :class:`Refund` is one.
"""
NO_ENTRIES: Entries = MappingProxyType({})
_KIND = re.compile(r"[a-z][a-z-]{0,19}\Z")


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """One channel in the payee's books: the chain's view of it, and what vouchers and requests made
    of it.

    ``signature`` belongs to ``accepted``; it is empty while no voucher is held. ``closes_begun``
    counts the payee's own closes that are not known to have failed: each may still be mined.
    ``unsettled_since`` is when ``accepted`` went above what is settled, or was last settled in
    part; 0 while nothing is unsettled. ``in_doubt``: ``spent`` may be too low. ``earlier`` are the
    best vouchers, as amounts and signatures, from before each of the last top-ups: what is left to
    settle with if the chain takes one back.
    """

    channel_id: ChannelId
    channel: Channel
    chain: ChannelState
    accepted: int = 0
    spent: int = 0
    signature: bytes = b""
    closes_begun: int = 0
    unsettled_since: int = 0
    in_doubt: bool = False
    earlier: tuple[tuple[int, bytes], ...] = ()

    def with_books(self, accepted: int, spent: int, signature: bytes) -> ChannelRecord:
        """The same channel with other books, as every payment needs it: ``dataclasses.replace``
        takes several times as long.
        """
        return ChannelRecord(
            self.channel_id,
            self.channel,
            self.chain,
            accepted,
            spent,
            signature,
            self.closes_begun,
            self.unsettled_since,
            self.in_doubt,
            self.earlier,
        )

    @property
    def available(self) -> int:
        return self.accepted - self.spent

    @property
    def unsettled(self) -> int:
        """What can still be settled; nothing once the channel is finalized."""
        if self.chain.status is ChannelStatus.FINALIZED:
            return 0
        return max(0, self._to_settle[0] - self.chain.settled)

    @property
    def voucher(self) -> Voucher | None:
        """The one to settle with: the best that the deposit covers."""
        return Voucher(self.channel_id, *self._to_settle) if self.signature else None

    @property
    def _to_settle(self) -> tuple[int, bytes]:
        best, deposit = (self.accepted, self.signature), self.chain.deposit
        if self.accepted <= deposit:
            return best
        return next((one for one in reversed(self.earlier) if one[0] <= deposit), best)


class Outcome(StrEnum):
    """What became of a charge."""

    CHARGED = "charged"
    RELEASED = "released"


class Sold(NamedTuple):
    """What a payment was sold under. ``details`` is canonical JSON of it, or empty; ``undo_text``
    is, as the books keep it, what else has to be given back with the payment: few ever are, so it
    is read only then. ``refunded`` is what others, of the kind :data:`REFUND`, gave back of it.
    """

    kind: str = SALE
    details: str = ""
    undo_text: str = ""
    refunded: int = 0


PLAIN = Sold()
"""Sold at the list price. Most payments are: they all share this one."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One row of the payments ledger. ``cumulative`` is the amount of the voucher that came with
    the request; ``attempts`` counts the requests for it, and ``undelivered`` has a bit for each of
    them that was not served, the lowest for the first.

    ``price`` is by how much ``spent`` went up, or down where it was ``sold`` as a :data:`REFUND`.
    """

    channel_id: ChannelId
    cumulative: int
    price: int
    resource: str
    time: int
    idempotency_key: str | None
    outcome: Outcome = Outcome.CHARGED
    attempts: int = 1
    undelivered: int = 0
    sold: Sold = PLAIN

    @property
    def kind(self) -> str:
        return self.sold.kind

    @property
    def details(self) -> str:
        return self.sold.details

    @property
    def undo(self) -> tuple[Undo, ...]:
        return decode_undo(self.sold.undo_text)

    @property
    def served(self) -> int:
        """How many requests were or may still be served for it."""
        return self.attempts - self.undelivered.bit_count()


class Decision(NamedTuple):
    """What the store has to write: the record, ``payment`` as a new row, ``updated`` in the place
    of the earlier one, and the ``entries`` that change, if any. Both payments are None for a bare
    voucher update. ``charged`` is what the payment cost by this.
    """

    record: ChannelRecord
    payment: Payment | None
    updated: Payment | None = None
    charged: int = 0
    entries: Entries | None = None


class Sale(NamedTuple):
    """What :class:`Terms` say: the price in base units, the kind and the details of the payment
    (:class:`Payment`), the entries that change, each in whole, and how to undo that.
    """

    price: int = 0
    kind: str = SALE
    details: str = ""
    entries: Mapping[EntryKey, EntryState] = NO_ENTRIES
    undo: tuple[Undo, ...] = ()


class Terms(Protocol):
    """What an order is sold under, where that depends on entries of the books or changes them.
    ``keys`` are those entries: they follow from what is known before, and no others change.
    """

    @property
    def keys(self) -> tuple[EntryKey, ...]: ...

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        """Pure, and quick: the books stand still meanwhile. ``price`` is the list price of a
        :class:`Purchase`, what a :class:`Charge` adds, 0 for an :class:`Amend`, and what is left of
        the payment for a :class:`Refund`: never more than that is what they say. ``record`` has the
        order's voucher already. ``entries`` are those of ``keys`` that are there.

        Refuses by raising a :class:`~channelpay.errors.ChannelPayError`: nothing is written then.
        It is not asked about a retry of what was sold already.
        """


@dataclass(frozen=True, slots=True)
class Purchase:
    """One request that wants to pay. ``resource`` is the method and URL, ``price`` in base units,
    ``now`` Unix ms.

    Where it is ``metered``, the price is that of one unit: as much has to be available, but nothing
    is charged before a :class:`Charge` says so. With ``risk_max``, ``spent`` does not go further
    above what is settled than that.

    With ``terms``, ``price`` is the list price, and theirs is charged: never a higher one. Then
    there is a payment also of something that costs nothing.

    ``is_proven`` says that the request also came with a proof of the key
    (:mod:`channelpay.protocol.proofs`).
    """

    voucher: Voucher
    price: int
    resource: str
    now: int
    idempotency_key: str | None = None
    metered: bool = False
    risk_max: int | None = None
    terms: Terms | None = None
    is_proven: bool = False

    def __post_init__(self) -> None:
        # PostgreSQL keeps no NUL in a text, and would fail what is written beside it as well.
        if "\0" in self.resource or "\0" in (self.idempotency_key or ""):
            raise InputError("neither a resource nor an Idempotency-Key has a NUL")

    @property
    def channel_id(self) -> ChannelId:
        return self.voucher.channel_id

    def decide(
        self, record: ChannelRecord, earlier: Payment | None, entries: Entries = NO_ENTRIES
    ) -> Decision:
        return decide(record, self, earlier, entries)


@dataclass(frozen=True, slots=True)
class Charge:
    """A metered response goes on: ``total`` base units in all is what it has cost then.
    ``attempt`` says to which of the payment's requests, and ``risk_max`` is that of a
    :class:`Purchase`. ``terms`` book what is charged; they cannot make it less, since the total
    counts.
    """

    channel_id: ChannelId
    payment_id: int
    total: int
    attempt: int = 1
    risk_max: int | None = None
    terms: Terms | None = None

    def decide(
        self, record: ChannelRecord, earlier: Payment | None, entries: Entries = NO_ENTRIES
    ) -> Decision:
        if earlier is None or earlier.channel_id != self.channel_id:
            raise NotFound(f"no payment {self.payment_id} of this channel")
        return decide_charge(record, self, earlier, entries)


@dataclass(frozen=True, slots=True)
class Amend:
    """A payment of a channel for which no voucher comes, and which costs nothing: the use of a
    pass, a tab that is written off. ``resource`` says what it is for, a method and URL or another
    text. A repeated ``idempotency_key`` is a retry, as for a :class:`Purchase`: the two share their
    keys.
    """

    channel_id: ChannelId
    terms: Terms
    resource: str
    now: int
    idempotency_key: str | None = None

    def decide(
        self, record: ChannelRecord, earlier: Payment | None, entries: Entries = NO_ENTRIES
    ) -> Decision:
        return decide_amend(record, self, earlier, entries)


@dataclass(frozen=True, slots=True)
class Refund:
    """Give back what the terms say of an earlier payment; ``resource`` says why. It is a payment of
    the kind :data:`REFUND`. Whether it was done already is for the terms to see in their entries.
    """

    channel_id: ChannelId
    payment_id: int
    terms: Terms
    resource: str
    now: int

    def decide(
        self, record: ChannelRecord, earlier: Payment | None, entries: Entries = NO_ENTRIES
    ) -> Decision:
        if earlier is None or earlier.channel_id != self.channel_id:
            raise NotFound(f"no payment {self.payment_id} of this channel")
        return decide_refund(record, self, earlier, entries)


Order: TypeAlias = Purchase | Charge | Amend | Refund
"""Each has ``channel_id``, ``terms``, and ``decide``, which raises a :class:`PaymentRefused`, a
:class:`RiskLimitReached`, or what its terms raise; then nothing may be written.
"""


def decide(
    record: ChannelRecord,
    purchase: Purchase,
    earlier: Payment | None,
    entries: Entries = NO_ENTRIES,
) -> Decision:
    """Accept the voucher and charge the price, or say why not. The signature was checked before.

    ``earlier`` is the payment of this channel with the same Idempotency-Key; for a purchase without
    a key, the latest one of this channel without a key and with the same cumulative amount and
    resource. Raises a :class:`PaymentRefused` or :class:`RiskLimitReached`; then nothing may be
    written.
    """
    check_live(record)
    raised = _with_voucher(record, purchase.voucher, purchase.now)
    known = earlier if earlier is not None and _is_retry(raised, purchase, earlier) else None
    _check_shown(record, purchase, known)
    sale = None
    price = purchase.price if known is None else 0
    if purchase.terms is not None and known is None:
        sale = _sold_by(purchase.terms, price, raised, entries)
        price = sale.price
    if record.in_doubt:
        raised = _without_doubt(raised, _promised(record), price)
    spent = raised.spent + price
    if spent > raised.accepted:
        behind = purchase.voucher.cumulative_amount < record.accepted
        raise _insufficient(record, raised.spent, price, payer_is_behind=behind)
    if known is not None:
        return Decision(raised, None, replace(known, attempts=known.attempts + 1))
    if price == 0:
        return _free(raised, purchase, sale)
    if not record.in_doubt:
        _check_risk(record, spent, purchase.risk_max)
    if purchase.metered:
        return _sold(raised, purchase, 0, sale)
    return _sold(raised.with_books(raised.accepted, spent, raised.signature), purchase, price, sale)


def decide_charge(
    record: ChannelRecord, charge: Charge, payment: Payment, entries: Entries = NO_ENTRIES
) -> Decision:
    """Charge a metered payment what it does not cover yet. Since the total counts, a response that
    is repeated after a break is not paid for again.

    Raises a :class:`PaymentRefused` or :class:`RiskLimitReached`; then nothing may be written.
    """
    check_live(record)
    if payment.outcome is Outcome.RELEASED or payment.kind == REFUND:
        raise PaymentRefused("the charge of this response was given back")
    more = max(0, charge.total - payment.price)
    if more:
        _check_deposit(record, record.accepted)
    if record.available < more:
        raise _insufficient(record, record.spent, more)
    if more:
        _check_risk(record, record.spent + more, charge.risk_max)
    charged = record.with_books(record.accepted, record.spent + more, record.signature)
    updated = replace(payment, price=payment.price + more)
    if charge.terms is None or more == 0:
        return Decision(charged, None, updated, more)
    sale = _sold_by(charge.terms, more, record, entries)
    if sale.price != more:
        raise ConfigError("the terms of a charge cannot change what it charges")
    undo = _undo_text(merged((*payment.undo, *sale.undo)))
    updated = replace(updated, sold=payment.sold._replace(undo_text=undo))
    return Decision(charged, None, updated, more, sale.entries)


def decide_amend(
    record: ChannelRecord, amend: Amend, earlier: Payment | None, entries: Entries = NO_ENTRIES
) -> Decision:
    """``earlier`` is the payment of this channel with the same key. The channel may be closed."""
    if earlier is not None and _is_keyed_retry(amend, earlier):
        return Decision(record, None, replace(earlier, attempts=earlier.attempts + 1))
    sale = _sold_by(amend.terms, 0, record, entries)
    payment = _booked(amend, sale, amend.idempotency_key)
    return Decision(record, payment, None, 0, sale.entries)


def decide_refund(
    record: ChannelRecord, refund: Refund, payment: Payment, entries: Entries = NO_ENTRIES
) -> Decision:
    """What is given back is available to the payer again. So only a channel that takes vouchers can
    have it, and none in doubt: all of it counts as charged with the next voucher.
    """
    check_live(record)
    if record.in_doubt:
        raise PaymentRefused("nothing is refunded before the payer's next voucher")
    if payment.outcome is Outcome.RELEASED or payment.kind == REFUND:
        raise PaymentRefused("nothing is left of this payment to be refunded")
    sale = _sold_by(refund.terms, payment.price - payment.sold.refunded, record, entries)
    if sale.price == 0:  # The payment would not show it: its release would give back once more.
        raise PaymentRefused("nothing is left of this payment to be refunded")
    lowered = record.with_books(record.accepted, record.spent - sale.price, record.signature)
    refunded = payment.sold.refunded + sale.price
    updated = replace(payment, sold=payment.sold._replace(refunded=refunded))
    given = _booked(refund, sale._replace(kind=REFUND), None)
    return Decision(lowered, given, updated, 0, sale.entries)


def release(record: ChannelRecord, payment: Payment, attempt: int) -> tuple[ChannelRecord, Payment]:
    """The request number ``attempt`` for this charge failed; give the charge back if no other
    request was or may still be served for it. Without that count, a retry beside a request that is
    broken off would be served for nothing. Releasing one attempt again changes nothing; nor is a
    refund taken back, or what was refunded. :func:`given_back` says what becomes of entries.
    """
    if payment.outcome is Outcome.RELEASED or payment.sold.refunded or payment.kind == REFUND:
        return record, payment
    payment = replace(payment, undelivered=payment.undelivered | 1 << (attempt - 1))
    if payment.served > 0:
        return record, payment
    lowered = replace(record, spent=record.spent - payment.price)
    return lowered, replace(payment, outcome=Outcome.RELEASED)


def given_back(before: Payment, after: Payment, entries: Entries) -> Entries:
    """The entries that change when a :func:`release` made ``after`` of ``before``: once for each
    payment, with its charge.
    """
    if after.outcome is before.outcome:
        return NO_ENTRIES
    return undone(before.undo, entries)


def enter_chain(record: ChannelRecord, state: ChannelState, now: int) -> ChannelRecord:
    """The books with what the chain says now, which a reorganisation may have taken back.

    A finalized channel that is there again was closed by a transaction that may be mined again any
    time. So that close counts as begun: no voucher is taken, and what is unsettled is owed at once.
    """
    known = record.chain
    if state.is_forgotten:
        state = replace(state, deposit=known.deposit, settled=known.settled)
    was_closed = known.status is ChannelStatus.FINALIZED
    is_back = was_closed and state.status is not ChannelStatus.FINALIZED
    entered = replace(
        record,
        chain=state,
        closes_begun=max(1, record.closes_begun) if is_back else record.closes_begun,
        earlier=_earlier(record, state),
    )
    since = record.unsettled_since
    if since == 0 or state.settled > known.settled:
        since = now
    return replace(entered, unsettled_since=since if entered.unsettled else 0)


def _earlier(record: ChannelRecord, state: ChannelState) -> tuple[tuple[int, bytes], ...]:
    """The vouchers to keep when the chain says ``state``: also the best one before a top-up."""
    is_topped_up = record.accepted <= record.chain.deposit < state.deposit
    if not (is_topped_up and record.signature):
        return record.earlier
    lower = (one for one in record.earlier if one[0] < record.accepted)
    return (*lower, (record.accepted, record.signature))[-EARLIER_MAX:]


def begin_close(record: ChannelRecord, voucher: Voucher | None, now: int) -> ChannelRecord:
    """The books that a close by the payee starts from: no voucher is taken any more, but for the
    payer's last one, which may come with the close. Its signature was checked before. Where the
    books are in doubt, all that was promised counts as charged.

    A close may be begun beside another one, whose fate nobody knows. Raises
    :class:`ChannelNotFound`, :class:`ChannelFinalized` and :class:`AmountExceedsDeposit`.
    """
    _check_exists(record)
    entered = record if voucher is None else _with_voucher(record, voucher, now)
    if record.in_doubt:
        entered = _without_doubt(entered, entered.accepted, 0)
    return replace(entered, closes_begun=record.closes_begun + 1)


def close_failed(record: ChannelRecord) -> ChannelRecord:
    """One close that was begun will never be mined; vouchers are taken again once that holds for
    all of them.
    """
    return replace(record, closes_begun=max(0, record.closes_begun - 1))


def check_live(record: ChannelRecord) -> None:
    """Refuse a channel on which vouchers are no longer taken."""
    _check_exists(record)
    if record.chain.status is ChannelStatus.CLOSING:
        raise ChannelClosing(channelId=to_hex(record.channel_id))
    if record.closes_begun:
        raise ChannelClosing(
            "the payee is closing the channel",
            hint="Open another channel. A close that was not confirmed may be asked for again.",
            channelId=to_hex(record.channel_id),
        )


def _check_exists(record: ChannelRecord) -> None:
    if record.chain.status is ChannelStatus.ABSENT:
        raise ChannelNotFound(channelId=to_hex(record.channel_id))
    if record.chain.status is ChannelStatus.FINALIZED:
        raise ChannelFinalized(channelId=to_hex(record.channel_id))


def _with_voucher(record: ChannelRecord, voucher: Voucher, now: int) -> ChannelRecord:
    promised = voucher.cumulative_amount
    _check_deposit(record, promised)
    if record.signature and promised <= record.accepted:
        return record
    raised = record.with_books(promised, record.spent, voucher.signature)
    if record.unsettled_since == 0 and raised.unsettled:
        return replace(raised, unsettled_since=now)
    return raised


def _check_shown(record: ChannelRecord, purchase: Purchase, known: Payment | None) -> None:
    """What the best voucher promises has to be there. And whose key was not proven may know its
    voucher from the chain, unless it knows an Idempotency-Key.
    """
    _check_deposit(record, record.accepted)
    is_retried = known is not None and purchase.idempotency_key is not None
    if not (purchase.is_proven or is_retried):
        require_unsettled(record, purchase.voucher)


def require_unsettled(record: ChannelRecord, voucher: Voucher) -> None:
    """Raise :class:`VoucherPublic` for one that may be read on the chain, while it may be worth
    something. It tells of the channel no more than the chain does.
    """
    settled, is_over = record.chain.settled, record.chain.status is ChannelStatus.FINALIZED
    if settled > 0 and voucher.cumulative_amount <= settled and not is_over:
        raise VoucherPublic(
            f"{settled} was settled: a voucher of that or less is known to everybody",
            channelId=to_hex(record.channel_id),
            requiredCumulative=str(settled + 1),
        )


def _check_deposit(record: ChannelRecord, promised: int) -> None:
    """What was promised before may exceed the deposit too, once the chain took a top-up back."""
    deposit = record.chain.deposit
    if promised > deposit:
        raise AmountExceedsDeposit(
            f"{promised} is promised, the channel holds {deposit}",
            channelId=to_hex(record.channel_id),
            deposit=str(deposit),
        )


def _promised(record: ChannelRecord) -> int:
    """What the payer certainly had promised when the books fell in doubt."""
    return max(record.accepted, record.chain.settled)


def _without_doubt(raised: ChannelRecord, promised: int, price: int) -> ChannelRecord:
    """``raised`` has the voucher that is to buy something for ``price``: what it promises beyond
    that was charged before, and so was all that was ``promised`` by others.
    """
    return replace(raised, spent=max(promised, raised.accepted - price), in_doubt=False)


def _check_risk(record: ChannelRecord, spent: int, risk_max: int | None) -> None:
    if risk_max is not None and spent - record.chain.settled > risk_max:
        raise RiskLimitReached(
            f"this channel may not have cost {risk_max} more than was settled",
            channelId=to_hex(record.channel_id),
        )


def _is_retry(record: ChannelRecord, purchase: Purchase, earlier: Payment) -> bool:
    if purchase.idempotency_key is not None:
        return _is_keyed_retry(purchase, earlier)
    if earlier.outcome is Outcome.RELEASED:
        return False
    recent = purchase.now - earlier.time <= RETRY_WINDOW_MS
    return recent and record.available == 0 and _may_serve_again(earlier)


def _is_keyed_retry(order: Purchase | Amend, earlier: Payment) -> bool:
    if earlier.outcome is Outcome.RELEASED:
        return False
    if earlier.resource != order.resource:
        raise IdempotencyKeyReused(f"the key bought {earlier.resource[:200]}")
    if order.now - earlier.time > KEYED_RETRY_WINDOW_MS:
        raise IdempotencyKeyReused("the key bought this more than 24 hours ago")
    if not _may_serve_again(earlier):
        raise IdempotencyKeyReused("the key was served as often as a key is")
    return True


def _may_serve_again(payment: Payment) -> bool:
    return payment.served < ATTEMPTS_MAX and payment.attempts < ATTEMPTS_COUNTED_MAX


def _sold_by(terms: Terms, price: int, record: ChannelRecord, entries: Entries) -> Sale:
    """What the terms say, if the books can hold it: an order that they fail fails alone."""
    sale = terms.sell(price, record, entries)
    if sale.price > price:
        raise PriceRaised(f"the terms ask {sale.price}, and {price} is the most")
    if sale.price < 0:
        raise ConfigError("a price is not negative")
    if sale.kind == REFUND or not _KIND.match(sale.kind):
        raise ConfigError(f"terms name no payment {sale.kind[:40]!r}")
    if not (sale.details.isascii() and sale.details.isprintable()):
        raise ConfigError("details are canonical JSON")
    if not {*sale.entries, *(one.key for one in sale.undo)}.issubset(terms.keys):
        raise ConfigError("terms change no other entries than those that they name")
    return sale


def _sold_under(sale: Sale) -> Sold:
    return Sold(sale.kind, _short(sale.details), _undo_text(sale.undo))


def _undo_text(undo: tuple[Undo, ...]) -> str:
    return _short(encode_undo(undo))


def _short(text: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX:
        raise ConfigError(f"details and undo have {TEXT_CHARACTERS_MAX} characters at most")
    return text


def _free(record: ChannelRecord, purchase: Purchase, sale: Sale | None) -> Decision:
    return Decision(record, None) if sale is None else _sold(record, purchase, 0, sale)


def _sold(record: ChannelRecord, purchase: Purchase, charged: int, sale: Sale | None) -> Decision:
    payment = Payment(
        channel_id=purchase.voucher.channel_id,
        cumulative=purchase.voucher.cumulative_amount,
        price=charged,
        resource=purchase.resource,
        time=purchase.now,
        idempotency_key=purchase.idempotency_key,
        sold=PLAIN if sale is None else _sold_under(sale),
    )
    entries = None if sale is None else sale.entries
    return Decision(record, payment, None, charged, entries)


def _booked(order: Amend | Refund, sale: Sale, key: str | None) -> Payment:
    return Payment(
        channel_id=order.channel_id,
        cumulative=0,
        price=sale.price,
        resource=order.resource,
        time=order.now,
        idempotency_key=key,
        sold=_sold_under(sale),
    )


def _insufficient(
    record: ChannelRecord, spent: int, price: int, *, payer_is_behind: bool = False
) -> InsufficientBalance:
    """A payer that is behind, whose own books are older than the payee's, is shown its best voucher
    and can check that it signed it.
    """
    required = spent + price
    context = {
        "channelId": to_hex(record.channel_id),
        "requiredCumulative": str(required),
        "acceptedCumulative": str(record.accepted),
        "spent": str(spent),
        "deposit": str(record.chain.deposit),
    }
    if payer_is_behind:
        context["acceptedSignature"] = to_hex(record.signature)
    return InsufficientBalance(
        f"{price} asked, and a voucher of {required} is needed to cover it", **context
    )
