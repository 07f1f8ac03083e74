"""Passes: bought once, then shown instead of vouchers for a time, or for a number of requests.

A pass is an entry of the payee's books. What is shown is a token, which only the site can write. It
names the pass and stands at a place in a row: ``serial`` counts up whenever a token that is older
than :data:`TURN_MS` is shown, and the answer has the next one. Whoever shows one that was replaced
more than :data:`GRACE_MS` ago has a copy, or lost an answer: the pass is suspended until its owner
signs a nonce with the key that signs the channel's vouchers. That begins a new ``line`` of
serials, and tokens of older lines are worth nothing. A pass with ``proof`` has a new line whenever
a token is due to be replaced, so a copy is good for :data:`TURN_MS` at most.

Pure. Times are Unix milliseconds, amounts base units; 0 stands for no end.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from struct import Struct
from typing import NamedTuple, Self

from channelpay.errors import ConfigError, InputError, PassEnded, PassNotValid, PassSuspended
from channelpay.protocol.entries import (
    Entries,
    EntryKey,
    EntryState,
    Undo,
    canonical,
)
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.rules import ChannelRecord, Sale
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, ChannelId
from channelpay.protocol.wire import decode_base64url, encode_base64url

KIND = "pass"
SALE = "pass"
USE = "pass-use"
"""The kinds of the payments of its purchase and, where uses are counted, of each of them."""
SCHEME = "PaymentPass"
"""A token is sent as ``Authorization: PaymentPass TOKEN``: clients take that header off when a
redirect leads elsewhere, caches keep no answers to it, and no log shows it.
"""
HEADER = "Payment-Pass"
"""What the answer has: ``TOKEN;left=9`` or ``TOKEN;until=1767225600`` (Unix seconds), or both."""
PROOF_HEADER = "Payment-Pass-Proof"
PLACE = "/.well-known/channelpay/"
"""Where a site sells what is not a page: passes, gifts, and what coupons bring."""
ID_BYTES = 16
TURN_MS = 60_000
"""For so long a token is taken for what it says."""
GRACE_MS = 30_000
"""For so long after its successor was made, for requests that were on their way."""

KEYS_KEPT_MAX = 10_000
"""Keys of passes that are in use: each use needs its own several times."""

_VERSION = "v1."
_BODY = Struct(">16sHI6s6s")
_MAC_BYTES = 16
_TOKEN = re.compile(r"v1\.[A-Za-z0-9_-]{67}\Z")
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Length:
    """How long a pass lasts: so many hours, and then calendar months (UTC), which end on the same
    day of the month, or its last.
    """

    hours: int = 0
    months: int = 0

    def end(self, begin: int) -> int:
        """When a pass ends that is bought at ``begin``; 0 if it does not."""
        if not self.hours and not self.months:
            return 0
        end = begin + self.hours * _HOUR_MS
        return _months_later(end, self.months) if self.months else end


def _months_later(begin: int, months: int) -> int:
    seconds, rest = divmod(begin, 1000)
    at = datetime.fromtimestamp(seconds, UTC)
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    days = monthrange(year, month + 1)[1]
    later = at.replace(year=year, month=month + 1, day=min(at.day, days))
    return int((later - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)) * 1000 + rest


@lru_cache(KEYS_KEPT_MAX)
def pass_key(pass_id: bytes) -> EntryKey:
    """Where a pass is in the books."""
    return EntryKey(KIND, pass_id)


@dataclass(frozen=True, slots=True)
class Token:
    """What is shown of a pass. ``issued`` is when it was written, ``until`` the end of the pass."""

    pass_id: bytes
    line: int
    serial: int
    issued: int
    until: int

    @property
    def key(self) -> EntryKey:
        return pass_key(self.pass_id)

    def is_fresh(self, now: int) -> bool:
        """Whether it needs no look into the books."""
        return now - self.issued < TURN_MS


class Sealer:
    """Writes tokens, and reads those that it wrote for the same host. ``secret`` is at least 32
    random bytes, the same for all workers of a site.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"channelpay pass token", hashlib.sha256)

    def seal(self, token: Token, host: str) -> str:
        """The token as text."""
        body = _BODY.pack(
            token.pass_id,
            token.line,
            token.serial,
            token.issued.to_bytes(6, "big"),
            token.until.to_bytes(6, "big"),
        )
        return _VERSION + encode_base64url(body + self._mac(body, host))

    def open(self, text: str, host: str) -> Token:
        """The reverse of :meth:`seal`. Raises :class:`PassNotValid` for anything else."""
        if not _TOKEN.match(text):
            raise PassNotValid("this is no token of a pass")
        try:
            data = decode_base64url(text[len(_VERSION) :], "token")
        except InputError as error:
            raise PassNotValid("this is no token of a pass") from error
        body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body, host)):
            raise PassNotValid("the token is not one of this site")
        pass_id, line, serial, issued, until = _BODY.unpack(body)
        return Token(
            pass_id, line, serial, int.from_bytes(issued, "big"), int.from_bytes(until, "big")
        )

    def nonce(self, pass_id: bytes, line: int) -> bytes:
        """What the owner signs to begin the line after this one: 32 bytes that work once."""
        return hmac.digest(self._key, b"proof" + pass_id + line.to_bytes(4, "big"), hashlib.sha256)

    def _mac(self, body: bytes, host: str) -> bytes:
        return hmac.digest(self._key, body + host.encode(), hashlib.sha256)[:_MAC_BYTES]


def proof_place(channel_id: ChannelId, pass_id: bytes, nonce: bytes) -> ChannelId:
    """Whoever owns the pass signs a voucher of 0 for this id. No channel has it, since ids are
    hashes of something else: the signature proves the key, and is worth nothing.
    """
    return ChannelId(keccak256(b"channelpay pass proof" + channel_id + pass_id + nonce))


class Seen(StrEnum):
    """What a genuine token is, by the books: the current one; the one before, replaced a moment
    ago; one before that; or one of an older line.
    """

    CURRENT = "current"
    BEFORE = "before"
    STALE = "stale"
    OF_OTHER_LINE = "of another line"


class Pass(NamedTuple):
    """One pass in the payee's books: what was bought, and where its tokens are. ``uses`` is 0 where
    only time counts; ``turned`` is when the current serial began. ``suspended`` is since when, or
    0; ``valid`` is 0 once its purchase was given back; ``proof`` is 1 where each turn needs one.
    ``key`` is the Idempotency-Key that it was bought with, or empty.
    """

    plan: str
    label: str
    paths: tuple[str, ...]
    channel_id: ChannelId
    payer: Address
    token: Address
    host: str
    key: str
    price: int
    bought: int
    until: int
    uses: int
    left: int
    refund_until: int
    turned: int
    line: int = 1
    serial: int = 1
    suspended: int = 0
    valid: int = 1
    proof: int = 0

    def current(self, pass_id: bytes) -> Token:
        """Its token."""
        return Token(pass_id, self.line, self.serial, self.turned, self.until)

    def seen(self, token: Token, now: int) -> Seen:
        if token.line != self.line:
            return Seen.OF_OTHER_LINE
        if token.serial == self.serial:
            return Seen.CURRENT
        is_before = token.serial == self.serial - 1 and now - self.turned <= GRACE_MS
        return Seen.BEFORE if is_before else Seen.STALE

    def require_live(self, now: int) -> None:
        """Raise :class:`PassEnded` if there is nothing left of it."""
        if self.valid <= 0:
            raise PassEnded("the purchase of this pass was given back")
        if self.until and now >= self.until:
            raise PassEnded("the time of this pass is over")
        if self.uses and self.left <= 0:
            raise PassEnded("this pass is used up")

    def shown(self, token: Token, now: int) -> Self:
        """The pass once this token was shown: with the next serial, if the token is due to be
        replaced. Raises :class:`PassEnded` and :class:`PassSuspended`.
        """
        self.require_live(now)
        seen = self.seen(token, now)
        if self.suspended or seen not in (Seen.CURRENT, Seen.BEFORE):
            raise PassSuspended("its owner has to prove itself: an old token of it was shown")
        if seen is Seen.BEFORE or now - self.turned < TURN_MS:
            return self
        if self.proof:
            raise PassSuspended("whoever shows this pass signs once a minute")
        return self._replace(serial=self.serial + 1, turned=now)

    def suspended_by(self, token: Token, now: int) -> Self:
        """The pass after a token was shown that must not be any more. One of an older line tells
        nothing new: else a thief could suspend it again and again.
        """
        is_stale = self.seen(token, now) is Seen.STALE
        return self._replace(suspended=now) if is_stale and not self.suspended else self

    def proven(self, now: int) -> Self:
        """The pass with a new line of tokens: only what is written from now on counts."""
        return self._replace(line=self.line + 1, serial=1, turned=now, suspended=0)

    def refundable(self, now: int) -> int:
        """What comes back for the uses that are left: pro rata, rounded down."""
        if not self.uses or self.valid <= 0 or now >= self.refund_until:
            return 0
        return self.price * max(0, self.left) // self.uses

    def to_state(self) -> EntryState:
        """As the books keep it."""
        return {
            "plan": self.plan,
            "label": self.label,
            "paths": list(self.paths),
            "channel": to_hex(self.channel_id),
            "payer": to_hex(self.payer),
            "token": to_hex(self.token),
            "host": self.host,
            "key": self.key,
            **dict(zip(_NUMBERS, self[-len(_NUMBERS) :], strict=True)),
        }

    @classmethod
    def from_state(cls, state: EntryState | None) -> Self:
        """The reverse of :meth:`to_state`. Raises :class:`PassNotValid` where there is none, and
        :class:`ConfigError` for anything that it did not write.
        """
        if state is None:
            raise PassNotValid("these books know no such pass")
        try:
            plan, label, paths, channel, payer, token, *others = _texts_of(state)
            numbers = _numbers_of(state)
            accounts = (bytes.fromhex(text[2:]) for text in (channel, payer, token))
            made = cls._make((plan, label, tuple(paths), *accounts, *others, *numbers))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError("a pass of the books is broken") from error
        if {*map(type, numbers)} != {int}:
            raise ConfigError("a number of a pass of the books is none")
        return made


_TEXTS = ("plan", "label", "paths", "channel", "payer", "token", "host", "key")
_NUMBERS = Pass._fields[len(_TEXTS) :]
_texts_of, _numbers_of = itemgetter(*_TEXTS), itemgetter(*_NUMBERS)


@dataclass(frozen=True, slots=True)
class PassTerms:
    """What a pass may be bought under: its plan as it is now. Makes ``pass_id``."""

    pass_id: bytes
    plan: str
    label: str
    paths: tuple[str, ...]
    length: Length
    uses: int
    refund_days: int
    host: str
    now: int
    proof: bool = False
    key: str = ""

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return (pass_key(self.pass_id),)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:  # noqa: ARG002
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        (key,) = self.keys
        made = self.made(price, record)
        details = {"label": self.label, "pass": to_hex(self.pass_id), "plan": self.plan}
        return Sale(price, SALE, canonical(details), {key: made.to_state()}, self.undo)

    @property
    def undo(self) -> tuple[Undo, ...]:
        """What ends the pass when what brought it is given back."""
        return (Undo(self.keys[0], {"valid": -1}),)

    def made(self, price: int, record: ChannelRecord) -> Pass:
        """The new pass of the channel's payer."""
        return Pass(
            plan=self.plan,
            label=self.label,
            paths=self.paths,
            channel_id=record.channel_id,
            payer=record.channel.payer,
            token=record.channel.token,
            host=self.host,
            key=self.key,
            price=price,
            bought=self.now,
            until=self.length.end(self.now),
            uses=self.uses,
            left=self.uses,
            refund_until=self.now + self.refund_days * 24 * _HOUR_MS if self.refund_days else 0,
            turned=self.now,
            proof=int(self.proof),
        )


@dataclass(frozen=True, slots=True)
class UseTerms:
    """One use of a pass that counts them."""

    token: Token
    now: int

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return (self.token.key,)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:  # noqa: ARG002
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        key = self.token.key
        shown = Pass.from_state(entries.get(key)).shown(self.token, self.now)
        used = shown._replace(left=shown.left - 1)
        details = f'{{"left":{used.left},"pass":"{to_hex(self.token.pass_id)}"}}'
        return Sale(0, USE, details, {key: used.to_state()}, (Undo(key, {"left": 1}),))


@dataclass(frozen=True, slots=True)
class RefundTerms:
    """Give back what is left of a pass, and end it."""

    pass_id: bytes
    now: int

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return (pass_key(self.pass_id),)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        (key,) = self.keys
        held = Pass.from_state(entries.get(key))
        if held.channel_id != record.channel_id:
            raise PassNotValid("this pass was bought by another channel")
        amount = min(price, held.refundable(self.now))
        if not amount:
            raise PassEnded("nothing of this pass is refunded (any more)")
        details = canonical({"pass": to_hex(self.pass_id), "uses": held.left})
        return Sale(amount, details=details, entries={key: held._replace(left=0).to_state()})
