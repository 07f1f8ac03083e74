"""A sale under a site's incentives: what its price depends on, decided inside the one atomic step
of the books, and what the payer is told of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from channelpay.errors import ChannelPayError, ConfigError
from channelpay.payee.selling.incentives import IncentiveRow
from channelpay.protocol.accounts import NOT_YET, Account, Delivered, account_key, day_of
from channelpay.protocol.coupons import coupon_in, with_coupon_used
from channelpay.protocol.entries import Entries, EntryKey, EntryState, Undo
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.pricing import NOTHING_GIVEN, Facts, FirstFree, Priced, Rules, price
from channelpay.protocol.rules import SALE, ChannelRecord, Sale
from channelpay.protocol.types import Address
from channelpay.store import Accepted, Store

GIVEN = "free"
"""The kind of the entries that count what is given away in a day, by the name of its incentive."""
_STEPS = "steps"
_EARNED = ("credit", "points", "reward")


class Wish(NamedTuple):
    """What a request says about its price: how many points to spend, and who brought the payer."""

    points: int = 0
    referrer: Address | None = None


NO_WISH = Wish()


class Uncounted(ChannelPayError):
    """Something is to be given away, and the deal does not count that. Nobody outside sees this."""

    code = "uncounted"


@dataclass(frozen=True, slots=True)
class Selling:
    """How one resource is sold beside its list price, in every token. ``offer_id`` names the list
    price and all that comes with it.
    """

    offer_id: str
    rows: tuple[IncentiveRow, ...]
    rules: Mapping[Address, Rules]
    labels: Mapping[str, str]

    def deal(
        self,
        payer: Address,
        token: Address,
        now: int,
        wish: Wish,
        delivered: Delivered = NOT_YET,
    ) -> Deal:
        """Between this payer and the site, at ``now`` (Unix ms)."""
        rules, account = self.rules[token], account_key(payer, token)
        if wish.referrer is None or wish.referrer == payer or not rules.referrals:
            return Deal(self, rules, now, wish, account, None, (account,), delivered)
        referrer = account_key(wish.referrer, token)
        return Deal(self, rules, now, wish, account, referrer, (account, referrer), delivered)


class Deal(NamedTuple):
    """What a purchase is sold under: the :class:`~channelpay.protocol.rules.Terms` of one payer.
    ``account`` is where its account is, ``referrer`` that of who brought it; both are among
    ``keys``, with what counts the give-aways of the day in a deal that is :meth:`counted`. What is
    known to be ``delivered`` goes into the account with the sale.

    All buyers share that count, and few are given anything: so a deal does without it until it has
    to give something away, and raises :class:`Uncounted` then.
    """

    selling: Selling
    rules: Rules
    now: int
    wish: Wish
    account: EntryKey
    referrer: EntryKey | None
    keys: tuple[EntryKey, ...]
    delivered: Delivered

    def counted(self) -> Deal:
        """The same, with what was given away today."""
        bounded = self.rules.bounded
        names = (one.name for one in bounded if self.referrer or isinstance(one, FirstFree))
        return self._replace(keys=(*self.keys, *map(given_key, names)))

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        account = Account.from_state(entries.get(self.account)).knowing(self.delivered)
        priced = self.priced(price, record, entries, account)
        changed: dict[EntryKey, EntryState] = {
            self.account: account.plus(priced.change, self.now).to_state()
        }
        undo = list(priced.change.undo(self.account))
        if priced.given is not None:
            key = given_key(priced.given)
            if key not in self.keys:
                raise Uncounted(priced.given)
            self._count_given(key, entries, changed, undo)
        if priced.reward and self.referrer is not None:
            theirs = Account.from_state(entries.get(self.referrer))
            changed[self.referrer] = theirs.rewarded(priced.reward, self.now).to_state()
            back = {"credit": -priced.reward, "pending_paid": -priced.reward}
            undo.append(Undo(self.referrer, back))
        return Sale(priced.amount, details=self._details(priced), entries=changed, undo=tuple(undo))

    def note(self, accepted: Accepted) -> PriceNote | None:
        """What the payer is told of its purchase. The balance of its account is told only with what
        changed it: not on a retry.
        """
        payment = accepted.payment
        if payment is None or payment.kind != SALE or not payment.sold.details:
            return None
        details: dict[str, Any] = json.loads(payment.sold.details)
        labels = self.selling.labels
        why = tuple((labels.get(name, name), int(delta)) for name, delta in details[_STEPS])
        state = (accepted.entries or {}).get(self.account)
        return _note(int(details["list"]), payment.price, why, state)

    def preview(self, list_price: int, record: ChannelRecord, entries: Entries) -> PriceNote:
        """What the payer is told of what it would cost now."""
        account = Account.from_state(entries.get(self.account)).knowing(self.delivered)
        priced = self.priced(list_price, record, entries, account)
        why = tuple((step.label, step.delta) for step in priced.steps)
        return _note(list_price, priced.amount, why, account.to_state())

    def priced(
        self, list_price: int, record: ChannelRecord, entries: Entries, account: Account
    ) -> Priced:
        """What it costs, and earns, with these books."""
        facts = Facts(
            list_price,
            record.chain.deposit,
            self.rules,
            self._given_today(entries),
            coupon_in(account, self.now),
            self.wish.points,
            self._known_referrer(entries),
        )
        priced = price(facts, account, self.now)
        return priced if facts.coupon is None else with_coupon_used(priced)

    def _given_today(self, entries: Entries) -> Mapping[str, int]:
        today = day_of(self.now)
        given = [key for key in self.keys if key.kind == GIVEN]
        if not given:
            return NOTHING_GIVEN
        return {key.name.decode(): _given(entries.get(key), today) for key in given}

    def _known_referrer(self, entries: Entries) -> Address | None:
        """Who brought the payer, if it bought here itself."""
        if self.referrer is None or not Account.from_state(entries.get(self.referrer)).bought:
            return None
        return self.wish.referrer

    def _count_given(
        self,
        key: EntryKey,
        entries: Entries,
        changed: dict[EntryKey, EntryState],
        undo: list[Undo],
    ) -> None:
        today = day_of(self.now)
        changed[key] = {"day": today, "given": _given(entries.get(key), today) + 1}
        undo.append(Undo(key, {"given": -1}, {"day": today}))

    def _details(self, priced: Priced) -> str:
        """Canonical JSON, written out since every sale needs it: names are plain words."""
        earned = [f'"{name}":"{number}"' for name in _EARNED if (number := getattr(priced, name))]
        steps = [f'["{step.name}","{step.delta}"]' for step in priced.steps]
        return (
            f'{{"earned":{{{",".join(earned)}}},"list":"{priced.list_price}",'
            f'"offer":"{self.selling.offer_id}","{_STEPS}":[{",".join(steps)}]}}'
        )


def given_key(name: str) -> EntryKey:
    """What was given away under the incentive ``name`` today."""
    return EntryKey(GIVEN, name.encode())


def entries_of(store: Store, keys: Iterable[EntryKey]) -> Entries:
    """Those of these entries that are there, as last committed."""
    states = ((key, store.entry(key)) for key in keys)
    return {key: state for key, state in states if state is not None}


def _given(state: EntryState | None, today: int) -> int:
    if state is None or state.get("day") != today:
        return 0
    given = state.get("given")
    if not isinstance(given, int):
        raise ConfigError("what was given away must be a whole number")
    return given


def _note(
    list_price: int, amount: int, why: tuple[tuple[str, int], ...], account: EntryState | None
) -> PriceNote:
    if account is None:
        return PriceNote(list_price, amount, why)
    credit, points = account["credit"], account["points"]
    assert isinstance(credit, int)
    assert isinstance(points, int)
    return PriceNote(list_price, amount, why, max(0, credit), max(0, points))
