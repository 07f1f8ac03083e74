"""Where a payee looks at passes and hands out what it sells itself (:mod:`.counter`).

A token of a pass that lasts for a time is taken for what it says for a minute, without a look into
the books; an older one, and each use that is counted, is one step in them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from channelpay.errors import (
    ConfigError,
    CouponEnded,
    CouponNotValid,
    InputError,
    PassEnded,
    PassNotCovering,
    PassNotValid,
    PassSuspended,
    PaymentRefused,
    TooManyAttempts,
)
from channelpay.payee.request import Request
from channelpay.payee.selling.counter import (
    BuyGift,
    BuyPass,
    Counter,
    Item,
    Redeem,
    RefundPass,
)
from channelpay.payee.selling.passes import covers
from channelpay.protocol import coupons, passes
from channelpay.protocol.accounts import DAY_MS
from channelpay.protocol.coupons import (
    CODE_HEADER,
    Batch,
    CodeHasher,
    GiftTerms,
    RedeemTerms,
    Worth,
)
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.entries import Entries, EntryKey
from channelpay.protocol.parse import parse_signature
from channelpay.protocol.passes import Pass, RefundTerms, Sealer, Token, UseTerms, proof_place
from channelpay.protocol.rules import Amend, ChannelRecord, Refund, Terms
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, Channel, Deployment, Voucher
from channelpay.protocol.wire import format_time
from channelpay.store import Accepted, Store

if TYPE_CHECKING:
    from channelpay.payee.register import Register

SELLING = b"selling"
"""What the secret of passes and coupons is derived for, from that of a site's challenges."""
KNOWN_PASSES_MAX = 10_000
"""Passes kept in memory, 1 kB each; what is not kept is read from the books again."""
ATTEMPTS_MAX = 10
ATTEMPTS_SECONDS = 3600
"""How often one payer may ask one process in vain in an hour, say with wrong codes."""
PAYERS_WATCHED_MAX = 10_000
_PREFIX = f"{passes.SCHEME} ".lower()

Sells = Callable[[Channel], Awaitable[Terms | None]]
"""What an item is sold under, to the payer of a channel whose voucher was checked."""


class Shown(NamedTuple):
    """A request with a token. ``resource`` says with its body what it is for; ``proof`` is the
    signature that came with it, if one did.
    """

    token: str
    path: str
    host: str
    resource: str
    key: str | None
    is_charged: bool
    proof: str | None


class Covered(NamedTuple):
    """A request that a pass covers; ``header`` is what the answer says of the pass."""

    accepted: Accepted
    header: str


@dataclass(frozen=True, slots=True)
class _Known:
    held: Pass
    record: ChannelRecord
    accepted: Accepted


class Desk:
    """For one event loop. ``secret`` has 32 bytes, the same for all workers and restarts; ``now``
    gives Unix seconds.
    """

    def __init__(
        self,
        secret: bytes,
        register: Register,
        deployment: Deployment,
        now: Callable[[], float],
    ) -> None:
        self._sealer = Sealer(secret)
        # What is genuine once stays so; what it is good for is looked at each time.
        self._open = lru_cache(KNOWN_PASSES_MAX)(self._sealer.open)
        self._codes = CodeHasher(secret)
        self._register = register
        self._deployment = deployment
        self._hasher = VoucherHasher(deployment)
        self._now = now
        self._known: dict[bytes, _Known] = {}
        self._attempts = Attempts("wrong codes")

    # --- passes ------------------------------------------------------------------------------

    async def admit(self, shown: Shown) -> Covered:
        """Whether a token covers a request. Raises :class:`~channelpay.errors.PassNotValid`: then
        nothing was used.
        """
        now = self._now_ms()
        token = self._open(shown.token, shown.host)
        if token.until and now >= token.until:
            raise PassEnded("the time of this pass is over")
        known = self._known.get(token.pass_id) or await self._look_up(token)
        if not covers(known.held.paths, shown.path):
            raise PassNotCovering("this pass is for other paths")
        if known.held.uses and not shown.is_charged:
            raise PassNotCovering("this pass counts requests, and this one costs nothing")
        text = shown.token
        try:
            if shown.proof is not None:
                token = await self._proven(token, known.record, shown.proof, now)
                text = self._sealer.seal(token, shown.host)
            return await self._used(shown, token, text, known, now)
        except PassSuspended as error:
            raise await self._suspended(token, error, now) from error

    def admit_at_once(self, text: str, path: str, host: str) -> Covered | None:
        """Like :meth:`admit`, for a token that needs no look into the books; None for others."""
        now = self._now_ms()
        token = self._open(text, host)
        known = self._known.get(token.pass_id)
        if known is None or known.held.uses or not token.is_fresh(now):
            return None
        if (token.until and now >= token.until) or not covers(known.held.paths, path):
            return None
        return Covered(known.accepted, _header(text, known.held))

    async def _used(
        self, shown: Shown, token: Token, text: str, known: _Known, now: int
    ) -> Covered:
        if known.held.uses:
            amend = Amend(
                known.held.channel_id, UseTerms(token, now), shown.resource, now, shown.key
            )
            accepted = await self._register.accept(amend)
            held = await self._after(accepted, token)
        elif token.is_fresh(now):
            return Covered(known.accepted, _header(text, known.held))
        else:
            accepted = known.accepted
            held = await self._turned(token, now)
        if held.serial == token.serial + 1 and held.turned == now:
            text = self._sealer.seal(held.current(token.pass_id), shown.host)
        return Covered(accepted, _header(text, held))

    async def _after(self, accepted: Accepted, token: Token) -> Pass:
        """The pass after a use; a retry changed nothing, and so it is read."""
        changed = accepted.entries.get(token.key)
        return await self._read(token.pass_id) if changed is None else Pass.from_state(changed)

    async def _turned(self, token: Token, now: int) -> Pass:
        def turn(entries: Entries) -> Entries:
            return {token.key: Pass.from_state(entries.get(token.key)).shown(token, now).to_state()}

        changed = await self._register.change((token.key,), turn)
        return Pass.from_state(changed[token.key])

    async def _suspended(self, token: Token, error: PassSuspended, now: int) -> PassSuspended:
        """Suspend the pass if that token shows a copy; what its owner has to sign."""

        def suspend(entries: Entries) -> Entries:
            held = Pass.from_state(entries.get(token.key))
            return {token.key: held.suspended_by(token, now).to_state()}

        changed = await self._register.change((token.key,), suspend)
        line = Pass.from_state(changed[token.key]).line
        nonce = self._sealer.nonce(token.pass_id, line)
        return PassSuspended(error.detail, nonce=to_hex(nonce))

    async def _proven(self, token: Token, record: ChannelRecord, proof: str, now: int) -> Token:
        """The first token of a new line, for whoever signed the nonce of this one."""
        held = await self._read(token.pass_id)
        place = proof_place(
            held.channel_id, token.pass_id, self._sealer.nonce(token.pass_id, held.line)
        )
        signature = parse_signature(proof, passes.PROOF_HEADER)
        try:
            self._hasher.check(Voucher(place, 0, signature), record.channel.signer)
        except PaymentRefused as error:
            raise PassSuspended("the proof is not one for the nonce of now") from error

        def begin(entries: Entries) -> Entries:
            current = Pass.from_state(entries.get(token.key))
            current.require_live(now)
            if current.line != held.line:
                raise PassSuspended("this nonce was used before")
            return {token.key: current.proven(now).to_state()}

        changed = await self._register.change((token.key,), begin)
        return Pass.from_state(changed[token.key]).current(token.pass_id)

    async def _look_up(self, token: Token) -> _Known:
        held = await self._read(token.pass_id)
        record = await self._register.read(lambda store: store.record(held.channel_id))
        if record is None:
            raise PassNotValid("these books know nothing of the channel of this pass")
        if len(self._known) >= KNOWN_PASSES_MAX:
            self._known.clear()
        known = self._known[token.pass_id] = _Known(held, record, Accepted(record, None))
        return known

    async def _read(self, pass_id: bytes) -> Pass:
        key = passes.pass_key(pass_id)
        return Pass.from_state(await self._register.read(lambda store: store.entry(key)))

    # --- what is sold here -------------------------------------------------------------------

    def sells(
        self, item: Item, counter: Counter, request: Request, host: str, key: str | None
    ) -> Sells:
        """What the item is sold under to whoever pays. Raises
        :class:`~channelpay.errors.InputError` and :class:`~channelpay.errors.CouponNotValid` for a
        request that makes no sense.
        """
        now = self._now_ms()
        if isinstance(item, BuyPass):
            if item.row.refund_days:
                key = _required(key, "what is refunded of it")
            terms = item.row.sold(secrets.token_bytes(passes.ID_BYTES), host, now, key)

            async def buy(_: Channel) -> Terms:
                return terms

            return buy
        if isinstance(item, BuyGift):
            return self._gift(item, _required(key, "its code"), now)
        if isinstance(item, Redeem):
            code = coupons.parse_code(_code(request))
            return self._redemption(code, counter, host, now)
        return _nothing

    def _gift(self, item: BuyGift, key: str, now: int) -> Sells:
        async def buy(channel: Channel) -> Terms:
            code = self._gift_code(channel, key)
            expires = now + item.days * DAY_MS
            return GiftTerms(self._codes.key(code), channel.token, expires, now)

        return buy

    def _gift_code(self, channel: Channel, key: str) -> str:
        return self._codes.gift(channel.id(self._deployment), key)

    def _redemption(self, code: str, counter: Counter, host: str, now: int) -> Sells:
        key = self._codes.key(code)

        async def redeem(channel: Channel) -> Terms:
            payer = channel.payer
            self._attempts.require_room(payer, self._now())
            try:
                batch_id, batch = await self._register.read(lambda store: _batch(store, key))
            except CouponNotValid:
                self._attempts.note(payer, self._now())
                raise
            bought = None
            if batch.worth is Worth.PASS:
                row = counter.plan(batch.plan)
                if row is None:
                    raise CouponEnded("the site does not sell this pass any more")
                bought = row.sold(secrets.token_bytes(passes.ID_BYTES), host, now, None)
            account = coupons.account_of(batch, payer, channel.token)
            return RedeemTerms(key, batch_id, payer, account, now, bought)

        return redeem

    async def told(
        self, item: Item, accepted: Accepted, host: str, key: str | None
    ) -> tuple[ChannelRecord, str | None, dict[str, Any]]:
        """What the payer is told of an item that it has now: the channel, what the answer says of
        a pass, and the members of the answer.
        """
        record = accepted.record
        if isinstance(item, RefundPass):
            return await self._refunded(item.pass_id, record)
        payment = accepted.payment
        if payment is None or not payment.details:
            raise ConfigError("nothing was sold")
        details: dict[str, Any] = json.loads(payment.details)
        if isinstance(item, BuyGift):
            code = self._gift_code(record.channel, _required(key, "its code"))
            expires = format_time(int(details["expires"]) / 1000)
            return record, None, {"code": code, "amount": str(payment.price), "expires": expires}
        if "pass" not in details:
            return record, None, {name: details[name] for name in details if name != "batch"}
        pass_id = bytes.fromhex(details["pass"][2:])
        held = await self._read(pass_id)
        text = self._sealer.seal(held.current(pass_id), host)
        return record, _header(text, held), pass_members(pass_id, held)

    async def _refunded(
        self, pass_id: bytes, record: ChannelRecord
    ) -> tuple[ChannelRecord, str | None, dict[str, Any]]:
        held, now = await self._read(pass_id), self._now_ms()
        if held.channel_id != record.channel_id:
            raise PassNotValid("this channel bought no such pass")
        sold = await self._register.read(lambda store: store.payment(held.channel_id, held.key))
        if sold is None:
            raise PassEnded("nothing of this pass is refunded")
        refund = Refund(
            record.channel_id,
            sold.payment_id,
            RefundTerms(pass_id, now),
            f"refund of the pass {to_hex(pass_id)}",
            now,
        )
        accepted = await self._register.accept(refund)
        record = accepted.record
        refunded = 0 if accepted.payment is None else accepted.payment.price
        settled = min(refunded, max(0, record.chain.settled - record.spent))
        told = {"pass": to_hex(pass_id), "refunded": str(refunded), "settled": str(settled)}
        return record, None, told

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


class Attempts:
    """What payers asked for in vain within the last hour; ``what`` names it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._wrong: dict[Address, tuple[float, int]] = {}

    def require_room(self, payer: Address, now: float) -> None:
        """Raises :class:`TooManyAttempts`."""
        since, number = self._wrong.get(payer, (now, 0))
        if number >= ATTEMPTS_MAX and now - since < ATTEMPTS_SECONDS:
            raise TooManyAttempts(f"{ATTEMPTS_MAX} {self._what} came from this payer")

    def note(self, payer: Address, now: float) -> None:
        """It was in vain."""
        since, number = self._wrong.pop(payer, (now, 0))
        if now - since >= ATTEMPTS_SECONDS:
            since, number = now, 0
        if len(self._wrong) >= PAYERS_WATCHED_MAX:
            del self._wrong[next(iter(self._wrong))]
        self._wrong[payer] = (since, number + 1)


def token_in(authorizations: Sequence[bytes]) -> str | None:
    """The token of the one ``Authorization`` header, if it is one of a pass."""
    text = authorizations[0].decode("latin-1") if authorizations else ""
    return text[len(_PREFIX) :].strip() if text[: len(_PREFIX)].lower() == _PREFIX else None


def host_named(hosts: Sequence[bytes]) -> str:
    """What tokens are for: the host as the client names it."""
    return hosts[0].decode("latin-1").lower() if hosts else ""


def pass_members(pass_id: bytes, held: Pass) -> dict[str, Any]:
    """A pass, for its owner."""
    return {
        "pass": to_hex(pass_id),
        "plan": held.plan,
        "label": held.label,
        "paths": list(held.paths),
        "channelId": to_hex(held.channel_id),
        "price": str(held.price),
        "uses": held.uses or None,
        "left": held.left if held.uses else None,
        "until": format_time(held.until / 1000) if held.until else None,
        "refundUntil": format_time(held.refund_until / 1000) if held.refund_until else None,
    }


def _header(text: str, held: Pass) -> str:
    """See :data:`channelpay.protocol.passes.HEADER`."""
    left = f";left={max(0, held.left)}" if held.uses else ""
    return f"{text}{left};until={held.until // 1000}" if held.until else text + left


def _batch(store: Store, key: EntryKey) -> tuple[bytes, Batch]:
    batch_id = coupons.batch_of(store.entry(key))
    state = store.entry(coupons.batch_key(batch_id))
    if state is None:
        raise CouponNotValid("this site knows no such code")
    return batch_id, Batch.from_state(state)


def _code(request: Request) -> str:
    values = request.header_values(CODE_HEADER)
    if len(values) != 1:
        raise InputError(f"one {CODE_HEADER} header with the code is needed")
    return values[0]


def _required(key: str | None, what: str) -> str:
    if key is None:
        raise InputError(f"this needs an Idempotency-Key, so that {what} can be had again")
    return key


async def _nothing(_: Channel) -> None:
    return None
