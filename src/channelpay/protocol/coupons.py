"""Coupons: codes that a payee gives away, or sells as gifts, each redeemed once.

A batch and each of its codes are entries of the payee's books, a code by its keyed hash alone. What
it brings (credit, a percentage off the next sales, or a pass) is a change of the payer's account or
a new pass, in the same atomic step that marks the code.

A code has 95 random bits and a character that shows most typing mistakes. Pure. Times are Unix
milliseconds, amounts base units, percentages in hundredths; 0 stands for no end or no limit.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from channelpay.errors import ConfigError, CouponEnded, CouponNotValid, CouponUsed
from channelpay.protocol.accounts import Account, Change, account_key, month_of
from channelpay.protocol.entries import Entries, EntryKey, EntryState, Undo, canonical
from channelpay.protocol.passes import PassTerms
from channelpay.protocol.pricing import Coupon, Priced
from channelpay.protocol.rules import ChannelRecord, Sale
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address

REDEEMED = "coupon"
GIFT = "gift"
"""The kinds of the payments of a redemption, and of a coupon that a payer bought."""
CODE_HEADER = "Payment-Coupon"
"""What a request brings to redeem."""
BATCH_KIND = "batch"
COUPON_KIND = "coupon"
REDEMPTIONS_KIND = "redemption"
"""How often one payer redeemed codes of one batch."""
BATCH_ID_BYTES = 8
RANDOM_BYTES = 12
PERCENT, LEFT, UNTIL = "coupon.percent", "coupon.left", "coupon.until"
"""The counters of an account for a percentage: how much, for how many sales, and until when. No
incentive is called so.
"""
APPLIED = "coupon"
"""The name of the step that such a coupon is of a price."""
LABEL = "your coupon"

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_READ_AS = str.maketrans("ILO", "110")
_DIGITS = 19
_BASE = len(_ALPHABET)
_GROUP = 5


def code_of(random: bytes) -> str:
    """A code of 12 random bytes, in groups: ``7ZQ3M-8X0KD-TB54N-C9WRA``."""
    number = int.from_bytes(random[:RANDOM_BYTES], "big") >> 1
    digits = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_DIGITS)))
    return _grouped(digits + _check_digit(digits))


def parse_code(text: str) -> str:
    """A code as somebody typed it, in the form of :func:`code_of`: capitals, spaces and hyphens do
    not matter, nor I or L for 1 and O for 0. Raises :class:`CouponNotValid` for a mistyped one.
    """
    digits = text.upper().translate(_READ_AS).replace("-", "").replace(" ", "")[: _DIGITS + 2]
    known = len(digits) == _DIGITS + 1 and all(one in _VALUES for one in digits)
    if not known or _check_digit(digits[:-1]) != digits[-1]:
        raise CouponNotValid("the code is mistyped")
    return _grouped(digits)


def _grouped(digits: str) -> str:
    return "-".join(digits[at : at + _GROUP] for at in range(0, len(digits), _GROUP))


def _check_digit(digits: str) -> str:
    """Luhn's, for base 32: any one wrong character shows, and most neighbours that are swapped."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = _VALUES[digit] * (2 if place % 2 == 0 else 1)
        total += value // _BASE + value % _BASE
    return _ALPHABET[-total % _BASE]


class CodeHasher:
    """Hashes codes by the secret of a site (at least 32 random bytes): who reads its books learns
    no code.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"channelpay coupon", hashlib.sha256)

    def key(self, code: str) -> EntryKey:
        """Where the code is in the books."""
        return EntryKey(COUPON_KIND, hmac.digest(self._key, code.encode(), hashlib.sha256))

    def gift(self, channel_id: bytes, idempotency_key: str) -> str:
        """The code that a purchase brings: the same for its retries, for the books do not know
        it.
        """
        named = b"gift" + channel_id + idempotency_key.encode()
        return code_of(hmac.digest(self._key, named, hashlib.sha256))


def gift_batch(coupon: EntryKey) -> bytes:
    """The id of the batch that has one gift alone."""
    return hashlib.sha256(coupon.name).digest()[:BATCH_ID_BYTES]


class Worth(StrEnum):
    """What a code of a batch brings."""

    VALUE = "value"
    PERCENT = "percent"
    PASS = "pass"  # noqa: S105  no password


@dataclass(frozen=True, slots=True)
class Batch:
    """Codes that were issued together. ``amount`` is that of a value in ``token`` (else of no
    meaning), ``percent`` is taken off the next ``sales`` of a payer, ``plan`` is the id of a pass.
    ``revoked`` is since when, or 0. ``steps`` say what was done when, and ``redeemed`` counts.
    """

    worth: Worth
    token: Address
    amount: int = 0
    percent: int = 0
    sales: int = 0
    plan: str = ""
    label: str = ""
    count: int = 0
    expires: int = 0
    per_payer: int = 0
    revoked: int = 0
    redeemed: int = 0
    steps: tuple[tuple[int, str], ...] = ()

    def require_open(self, now: int) -> None:
        """Raises :class:`CouponEnded`."""
        if self.revoked:
            raise CouponEnded("the coupon was revoked")
        if self.expires and now >= self.expires:
            raise CouponEnded("the coupon has expired")

    def to_state(self) -> EntryState:
        """As the books keep it."""
        return {
            "worth": self.worth.value,
            "token": to_hex(self.token),
            "plan": self.plan,
            "label": self.label,
            **{name: getattr(self, name) for name in _BATCH_NUMBERS},
            "steps": [[at, what] for at, what in self.steps],
        }

    @classmethod
    def from_state(cls, state: EntryState) -> Self:
        """The reverse of :meth:`to_state`. Raises :class:`ConfigError` for anything else."""
        try:
            members: dict[str, Any] = dict(state)
            return cls(
                Worth(members["worth"]),
                Address(bytes.fromhex(members["token"][2:])),
                plan=str(members["plan"]),
                label=str(members["label"]),
                steps=tuple((int(at), str(what)) for at, what in members["steps"]),
                **{name: int(members[name]) for name in _BATCH_NUMBERS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError("a batch of coupons in the books is broken") from error


_BATCH_NUMBERS = (
    "amount",
    "percent",
    "sales",
    "count",
    "expires",
    "per_payer",
    "revoked",
    "redeemed",
)


def batch_key(batch_id: bytes) -> EntryKey:
    """Where a batch is in the books."""
    return EntryKey(BATCH_KIND, batch_id)


def new_coupon(batch_id: bytes) -> EntryState:
    """A code that nobody redeemed."""
    return {"batch": to_hex(batch_id), "redeemed": 0, "valid": 1}


def batch_of(coupon: EntryState | None) -> bytes:
    """The batch that a code is of. Raises :class:`CouponNotValid` where there is no such code."""
    if coupon is None:
        raise CouponNotValid("this site knows no such code")
    return bytes.fromhex(str(coupon["batch"])[2:])


@dataclass(frozen=True, slots=True)
class RedeemTerms:
    """One code, redeemed by ``payer``; ``account`` is that of its batch's token, or the channel's
    where it is worth a percentage. ``bought`` is the pass that it brings, if it does.
    """

    coupon: EntryKey
    batch_id: bytes
    payer: Address
    account: EntryKey
    now: int
    bought: PassTerms | None = None

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        mine = (self.coupon, batch_key(self.batch_id), self._count, self.account)
        return mine if self.bought is None else (*mine, *self.bought.keys)

    @property
    def _count(self) -> EntryKey:
        return EntryKey(REDEMPTIONS_KIND, self.batch_id + self.payer)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        coupon, batch = self._open(entries)
        had = _number(entries.get(self._count, {}), "n")
        if batch.per_payer and had >= batch.per_payer:
            raise CouponUsed(f"one payer may redeem {batch.per_payer} of these coupons at most")
        given, undo = self._given(batch, record, entries)
        key, of_batch = batch_key(self.batch_id), entries[batch_key(self.batch_id)]
        changed: dict[EntryKey, EntryState] = {
            self.coupon: {**coupon, "redeemed": 1},
            key: {**of_batch, "redeemed": batch.redeemed + 1},
            self._count: {"n": had + 1},
            **given,
        }
        counted = (
            Undo(self.coupon, {"redeemed": -1}),
            Undo(key, {"redeemed": -1}),
            Undo(self._count, {"n": -1}),
        )
        return Sale(price, REDEEMED, self._details(batch), changed, (*counted, *undo))

    def _open(self, entries: Entries) -> tuple[EntryState, Batch]:
        coupon = entries.get(self.coupon)
        if coupon is None or batch_of(coupon) != self.batch_id or _number(coupon, "valid") <= 0:
            raise CouponNotValid("this site knows no such code")
        batch = Batch.from_state(entries[batch_key(self.batch_id)])
        if _number(coupon, "redeemed") > 0:
            raise CouponUsed("the code was redeemed before")
        batch.require_open(self.now)
        return coupon, batch

    def _given(
        self, batch: Batch, record: ChannelRecord, entries: Entries
    ) -> tuple[Mapping[EntryKey, EntryState], tuple[Undo, ...]]:
        """The entries that change for what the code brings, and what takes it back."""
        if batch.worth is Worth.PASS:
            assert self.bought is not None  # Whoever made these terms knew the batch.
            made = self.bought.made(0, record)
            return {self.bought.keys[0]: made.to_state()}, self.bought.undo
        account = Account.from_state(entries.get(self.account))
        month = month_of(self.now)
        if batch.worth is Worth.VALUE:
            change = Change(month, credit=batch.amount)
        else:
            change = Change(month, counters=self._percentage(batch, account))
        given = {self.account: account.plus(change, self.now).to_state()}
        return given, change.undo(self.account)

    def _percentage(self, batch: Batch, account: Account) -> Mapping[str, int]:
        """Differences to the counters of the account."""
        if coupon_in(account, self.now) is not None:
            raise CouponUsed("another percentage is to be used up first")
        wanted = {PERCENT: batch.percent, LEFT: batch.sales, UNTIL: batch.expires}
        return {name: number - account.counter(name) for name, number in wanted.items()}

    def _details(self, batch: Batch) -> str:
        details = {"batch": to_hex(self.batch_id), "worth": batch.worth.value}
        if batch.worth is Worth.VALUE:
            details |= {"amount": str(batch.amount), "token": to_hex(batch.token)}
        elif batch.worth is Worth.PERCENT:
            details |= {"percent": str(batch.percent), "sales": str(batch.sales)}
        elif self.bought is not None:
            bought = self.bought
            details |= {"label": bought.label, "pass": to_hex(bought.pass_id), "plan": bought.plan}
        return canonical(details)


@dataclass(frozen=True, slots=True)
class GiftTerms:
    """A coupon that is worth what it costs, in a batch of its own."""

    coupon: EntryKey
    token: Address
    expires: int
    now: int

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return self.coupon, batch_key(gift_batch(self.coupon))

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        """See :meth:`channelpay.protocol.rules.Terms.sell`. What was given back after its code was
        redeemed is not sold again: the same key brings the same code.
        """
        if _number(entries.get(self.coupon, {}), "redeemed") > 0:
            raise CouponUsed("the code of this purchase was redeemed before")
        batch_id = gift_batch(self.coupon)
        batch = Batch(
            Worth.VALUE,
            self.token,
            amount=price,
            label="gift",
            count=1,
            expires=self.expires,
            steps=((self.now, f"bought by {to_hex(record.channel.payer)}"),),
        )
        changed = {self.coupon: new_coupon(batch_id), batch_key(batch_id): batch.to_state()}
        details = {"batch": to_hex(batch_id), "expires": str(self.expires)}
        undo = (Undo(self.coupon, {"valid": -1}),)
        return Sale(price, GIFT, canonical(details), changed, undo)


def coupon_in(account: Account, now: int) -> Coupon | None:
    """The percentage that comes off the next sale, if there is one."""
    if account.counter(LEFT) <= 0:
        return None
    until = account.counter(UNTIL)
    if until and now >= until:
        return None
    return Coupon(APPLIED, LABEL, account.counter(PERCENT))


def with_coupon_used(priced: Priced) -> Priced:
    """The sale with one use less of the percentage, if it took anything off."""
    if not any(step.name == APPLIED for step in priced.steps):
        return priced
    change = priced.change
    counters = {**change.counters, LEFT: change.counters.get(LEFT, 0) - 1}
    return priced._replace(change=change._replace(counters=counters))


def account_of(batch: Batch, payer: Address, token: Address) -> EntryKey:
    """The account that a code of the batch is for, when a channel of ``token`` redeems it."""
    return account_key(payer, batch.token if batch.worth is Worth.VALUE else token)


def _number(state: EntryState, name: str) -> int:
    value = state.get(name, 0)
    if not isinstance(value, int):
        raise ConfigError("a coupon of the books is broken")
    return value
