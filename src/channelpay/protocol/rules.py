"""The rules of the payee's books: given what is known of a channel, may this voucher buy this?

Pure: the store calls :func:`decide` inside its one atomic step and writes what it says. All amounts
are cumulative base units of the channel's token; all times are Unix milliseconds.

    available = accepted - spent

``accepted`` and ``spent`` only grow, except that :func:`release` takes one charge back when the
site did not deliver.

A channel is in doubt when its books were restored from a backup or rebuilt from the chain: charges
may be missing from ``spent``. The first voucher afterwards ends that (:func:`decide`): all that the
payer had promised before counts as charged.
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
    RiskLimitReached,
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


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """One channel in the payee's books: the chain's view of it, and what vouchers and requests made
    of it.

    ``signature`` belongs to ``accepted``; it is empty while no voucher is held. ``closes_begun``
    counts the payee's own closes that are not known to have failed: each may still be mined.
    ``unsettled_since`` is when ``accepted`` went above what is settled, or was last settled in
    part; 0 while nothing is unsettled. ``in_doubt``: ``spent`` may be too low.
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
        )

    @property
    def available(self) -> int:
        return self.accepted - self.spent

    @property
    def unsettled(self) -> int:
        """What the best voucher would still bring; nothing once the channel is finalized."""
        if self.chain.status is ChannelStatus.FINALIZED:
            return 0
        return max(0, self.accepted - self.chain.settled)

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
    is charged before a :class:`Charge` says so. With ``risk_max``, ``spent`` does not go further
    above what is settled than that.
    """

    voucher: Voucher
    price: int
    resource: str
    now: int
    idempotency_key: str | None = None
    metered: bool = False
    risk_max: int | None = None

    @property
    def channel_id(self) -> ChannelId:
        return self.voucher.channel_id


@dataclass(frozen=True, slots=True)
class Charge:
    """A metered response goes on: ``total`` base units in all is what it has cost then.
    ``attempt`` says to which of the payment's requests, and ``risk_max`` is that of a
    :class:`Purchase`.
    """

    channel_id: ChannelId
    payment_id: int
    total: int
    attempt: int = 1
    risk_max: int | None = None


Order = Purchase | Charge


@dataclass(frozen=True, slots=True)
class Payment:
    """One row of the payments ledger. ``cumulative`` is the amount of the voucher that came with
    the request; ``attempts`` counts the requests for it, and ``undelivered`` has a bit for each of
    them that was not served, the lowest for the first.
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

    @property
    def served(self) -> int:
        """How many requests were or may still be served for it."""
        return self.attempts - self.undelivered.bit_count()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the store has to write: the record, and ``payment`` as a new row, or ``updated`` in the
    place of the earlier one. Both are None for a bare voucher update. ``charged`` is what the
    payment cost by this.
    """

    record: ChannelRecord
    payment: Payment | None
    updated: Payment | None = None
    charged: int = 0


def decide(record: ChannelRecord, purchase: Purchase, earlier: Payment | None) -> Decision:
    """Accept the voucher and charge the price, or say why not. The signature was checked before.

    ``earlier`` is the payment of this channel with the same Idempotency-Key; for a purchase without
    a key, the latest one of this channel without a key and with the same cumulative amount and
    resource. Raises a :class:`PaymentRefused` or :class:`RiskLimitReached`; then nothing may be
    written.
    """
    check_live(record)
    raised = _with_voucher(record, purchase.voucher, purchase.now)
    known = earlier if earlier is not None and _is_retry(raised, purchase, earlier) else None
    price = purchase.price if known is None else 0
    if record.in_doubt:
        raised = _without_doubt(raised, _promised(record), price)
    spent = raised.spent + price
    if spent > raised.accepted:
        behind = purchase.voucher.cumulative_amount < record.accepted
        raise _insufficient(record, raised.spent, price, payer_is_behind=behind)
    if known is not None:
        return Decision(raised, None, replace(known, attempts=known.attempts + 1))
    if price == 0:
        return Decision(raised, None)
    if not record.in_doubt:
        _check_risk(record, spent, purchase.risk_max)
    if purchase.metered:
        return Decision(raised, _payment(purchase, 0))
    charged = raised.with_books(raised.accepted, spent, raised.signature)
    return Decision(charged, _payment(purchase, price), None, price)


def decide_charge(record: ChannelRecord, charge: Charge, payment: Payment) -> Decision:
    """Charge a metered payment what it does not cover yet. Since the total counts, a response that
    is repeated after a break is not paid for again.

    Raises a :class:`PaymentRefused` or :class:`RiskLimitReached`; then nothing may be written.
    """
    check_live(record)
    if payment.outcome is Outcome.RELEASED:
        raise PaymentRefused("the charge of this response was given back")
    more = max(0, charge.total - payment.price)
    if record.available < more:
        raise _insufficient(record, record.spent, more)
    if more:
        _check_risk(record, record.spent + more, charge.risk_max)
    charged = record.with_books(record.accepted, record.spent + more, record.signature)
    return Decision(charged, None, replace(payment, price=payment.price + more), more)


def release(record: ChannelRecord, payment: Payment, attempt: int) -> tuple[ChannelRecord, Payment]:
    """The request number ``attempt`` for this charge failed; give the charge back if no other
    request was or may still be served for it. Without that count, a retry beside a request that is
    broken off would be served for nothing. Releasing one attempt again changes nothing.
    """
    if payment.outcome is Outcome.RELEASED:
        return record, payment
    payment = replace(payment, undelivered=payment.undelivered | 1 << (attempt - 1))
    if payment.served > 0:
        return record, payment
    lowered = replace(record, spent=record.spent - payment.price)
    return lowered, replace(payment, outcome=Outcome.RELEASED)


def enter_chain(record: ChannelRecord, state: ChannelState, now: int) -> ChannelRecord:
    """The books with what the chain says now, which a reorganisation may have taken back.

    A finalized channel that is there again was closed by a transaction that may be mined again any
    time. So that close counts as begun: no voucher is taken, and what is unsettled is owed at once.
    """
    known = record.chain
    if state.status is ChannelStatus.FINALIZED and state.deposit == 0:
        # The contract forgot its amounts with the next channel in its slot.
        state = replace(state, deposit=known.deposit, settled=known.settled)
    was_closed = known.status is ChannelStatus.FINALIZED
    is_back = was_closed and state.status is not ChannelStatus.FINALIZED
    entered = replace(
        record,
        chain=state,
        closes_begun=max(1, record.closes_begun) if is_back else record.closes_begun,
    )
    since = record.unsettled_since
    if since == 0 or state.settled > known.settled:
        since = now
    return replace(entered, unsettled_since=since if entered.unsettled else 0)


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
    promised, deposit = voucher.cumulative_amount, record.chain.deposit
    if promised > deposit:
        raise AmountExceedsDeposit(
            f"the voucher promises {promised}, the channel holds {deposit}",
            channelId=to_hex(record.channel_id),
            deposit=str(deposit),
        )
    if record.signature and voucher.cumulative_amount <= record.accepted:
        return record
    raised = record.with_books(promised, record.spent, voucher.signature)
    if record.unsettled_since == 0 and raised.unsettled:
        return replace(raised, unsettled_since=now)
    return raised


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
    if earlier.outcome is Outcome.RELEASED:
        return False
    if purchase.idempotency_key is not None:
        if earlier.resource != purchase.resource:
            raise IdempotencyKeyReused(f"the key bought {earlier.resource[:200]}")
        if purchase.now - earlier.time > KEYED_RETRY_WINDOW_MS:
            raise IdempotencyKeyReused("the key bought this more than 24 hours ago")
        if not _may_serve_again(earlier):
            raise IdempotencyKeyReused("the key was served as often as a key is")
        return True
    recent = purchase.now - earlier.time <= RETRY_WINDOW_MS
    return recent and record.available == 0 and _may_serve_again(earlier)


def _may_serve_again(payment: Payment) -> bool:
    return payment.served < ATTEMPTS_MAX and payment.attempts < ATTEMPTS_COUNTED_MAX


def _payment(purchase: Purchase, charged: int) -> Payment:
    return Payment(
        channel_id=purchase.voucher.channel_id,
        cumulative=purchase.voucher.cumulative_amount,
        price=charged,
        resource=purchase.resource,
        time=purchase.now,
        idempotency_key=purchase.idempotency_key,
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
