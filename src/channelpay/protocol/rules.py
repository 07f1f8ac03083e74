"""The rules of the payee's books: given what is known of a channel, may this voucher buy this?

Pure: the store calls :func:`decide` inside its one atomic step and writes what it says. All amounts
are cumulative base units of the channel's token; all times are Unix milliseconds.

    available = accepted - spent

``accepted`` and ``spent`` only grow, except that :func:`release` takes one charge back when the
site did not deliver.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from channelpay.errors import (
    AmountExceedsDeposit,
    ChannelClosing,
    ChannelFinalized,
    ChannelNotFound,
    IdempotencyKeyReused,
    InsufficientBalance,
    PaymentRefused,
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


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """One channel in the payee's books: the chain's view of it, and what vouchers and requests made
    of it.

    ``signature`` belongs to ``accepted``; it is empty while no voucher is held. ``closes_begun``
    counts the payee's own closes that are not known to have failed: each may still be mined.
    """

    channel_id: ChannelId
    channel: Channel
    chain: ChannelState
    accepted: int = 0
    spent: int = 0
    signature: bytes = b""
    closes_begun: int = 0

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
        )

    @property
    def available(self) -> int:
        return self.accepted - self.spent

    @property
    def voucher(self) -> Voucher | None:
        """The best voucher held, the one to settle with."""
        return Voucher(self.channel_id, self.accepted, self.signature) if self.signature else None


class Outcome(StrEnum):
    """What became of a charge."""

    CHARGED = "charged"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Purchase:
    """One request that wants to pay. ``resource`` is the method and URL, ``price`` in base units,
    ``now`` Unix ms.

    Where it is ``metered``, the price is that of one unit: as much has to be available, but nothing
    is charged before a :class:`Charge` says so.
    """

    voucher: Voucher
    price: int
    resource: str
    now: int
    idempotency_key: str | None = None
    metered: bool = False

    @property
    def channel_id(self) -> ChannelId:
        return self.voucher.channel_id


@dataclass(frozen=True, slots=True)
class Charge:
    """A metered response goes on: ``total`` base units in all is what it has cost then."""

    channel_id: ChannelId
    payment_id: int
    total: int


Order = Purchase | Charge


@dataclass(frozen=True, slots=True)
class Payment:
    """One row of the payments ledger. ``cumulative`` is the amount of the voucher that came with
    the request; ``attempts`` counts the requests that were or may still be served for it.
    """

    channel_id: ChannelId
    cumulative: int
    price: int
    resource: str
    time: int
    idempotency_key: str | None
    outcome: Outcome = Outcome.CHARGED
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Decision:
    """What the store has to write: the record, and ``payment`` as a new row, or ``updated`` in the
    place of the earlier one. Both are None for a bare voucher update.
    """

    record: ChannelRecord
    payment: Payment | None
    updated: Payment | None = None


def decide(record: ChannelRecord, purchase: Purchase, earlier: Payment | None) -> Decision:
    """Accept the voucher and charge the price, or say why not. The signature was checked before.

    ``earlier`` is the payment of this channel with the same Idempotency-Key; for a purchase without
    a key, the latest one of this channel without a key and with the same cumulative amount and
    resource. Raises a :class:`PaymentRefused`; then nothing may be written.
    """
    check_live(record)
    raised = _with_voucher(record, purchase.voucher)
    if earlier is not None and _is_retry(raised, purchase, earlier):
        return Decision(raised, None, replace(earlier, attempts=earlier.attempts + 1))
    if raised.available < purchase.price:
        raise _insufficient(record, purchase.price)
    if purchase.price == 0:
        return Decision(raised, None)
    charged = 0 if purchase.metered else purchase.price
    spent = raised.spent + charged
    record = raised.with_books(raised.accepted, spent, raised.signature) if charged else raised
    return Decision(record, _payment(purchase, charged))


def decide_charge(record: ChannelRecord, charge: Charge, payment: Payment) -> Decision:
    """Charge a metered payment what it does not cover yet. Since the total counts, a response that
    is repeated after a break is not paid for again.

    Raises a :class:`PaymentRefused`; then nothing may be written.
    """
    check_live(record)
    if payment.outcome is Outcome.RELEASED:
        raise PaymentRefused("the charge of this response was given back")
    more = max(0, charge.total - payment.price)
    if record.available < more:
        raise _insufficient(record, more)
    charged = record.with_books(record.accepted, record.spent + more, record.signature)
    return Decision(charged, None, replace(payment, price=payment.price + more))


def release(record: ChannelRecord, payment: Payment) -> tuple[ChannelRecord, Payment]:
    """One request for this charge failed; give the charge back if no other request was or may
    still be served for it. Without that count, a retry beside a request that is broken off would be
    served for nothing. Releasing a released payment changes nothing.
    """
    if payment.outcome is Outcome.RELEASED:
        return record, payment
    if payment.attempts > 1:
        return record, replace(payment, attempts=payment.attempts - 1)
    lowered = replace(record, spent=record.spent - payment.price)
    return lowered, replace(payment, outcome=Outcome.RELEASED, attempts=0)


def begin_close(record: ChannelRecord, voucher: Voucher | None) -> ChannelRecord:
    """The books that a close by the payee starts from: no voucher is taken any more, but for the
    payer's last one, which may come with the close. Its signature was checked before.

    A close may be begun beside another one, whose fate nobody knows. Raises
    :class:`ChannelNotFound`, :class:`ChannelFinalized` and :class:`AmountExceedsDeposit`.
    """
    _check_exists(record)
    entered = record if voucher is None else _with_voucher(record, voucher)
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


def _with_voucher(record: ChannelRecord, voucher: Voucher) -> ChannelRecord:
    promised, deposit = voucher.cumulative_amount, record.chain.deposit
    if promised > deposit:
        raise AmountExceedsDeposit(
            f"the voucher promises {promised}, the channel holds {deposit}",
            channelId=to_hex(record.channel_id),
            deposit=str(deposit),
        )
    if record.signature and voucher.cumulative_amount <= record.accepted:
        return record
    return record.with_books(promised, record.spent, voucher.signature)


def _is_retry(record: ChannelRecord, purchase: Purchase, earlier: Payment) -> bool:
    if earlier.outcome is Outcome.RELEASED:
        return False
    if purchase.idempotency_key is not None:
        if earlier.resource != purchase.resource:
            raise IdempotencyKeyReused(f"the key bought {earlier.resource[:200]}")
        if purchase.now - earlier.time > KEYED_RETRY_WINDOW_MS:
            raise IdempotencyKeyReused("the key bought this more than 24 hours ago")
        if earlier.attempts >= ATTEMPTS_MAX:
            raise IdempotencyKeyReused(f"the key was served {ATTEMPTS_MAX} times")
        return True
    recent = purchase.now - earlier.time <= RETRY_WINDOW_MS
    return recent and record.available == 0 and earlier.attempts < ATTEMPTS_MAX


def _payment(purchase: Purchase, charged: int) -> Payment:
    return Payment(
        channel_id=purchase.voucher.channel_id,
        cumulative=purchase.voucher.cumulative_amount,
        price=charged,
        resource=purchase.resource,
        time=purchase.now,
        idempotency_key=purchase.idempotency_key,
    )


def _insufficient(record: ChannelRecord, price: int) -> InsufficientBalance:
    required = record.spent + price
    return InsufficientBalance(
        f"{price} asked, and a voucher of {required} is needed to cover it",
        channelId=to_hex(record.channel_id),
        requiredCumulative=str(required),
        acceptedCumulative=str(record.accepted),
        spent=str(record.spent),
        deposit=str(record.chain.deposit),
    )
