"""What one sale costs this payer: the list price, less what the incentives of the site give.

Pure, and the only place where that is decided. The steps come in this order:

1. free: of the first n, or every n-th; it costs nothing then, and nothing else is counted.
2. the time window that takes off most.
3. the volume tier that takes off most, by what was bought in this calendar month (UTC) before.
4. the coupon: its percent, then its value.
5. credit (cash-back and rewards for referrals), as far as it goes; then points, as many as the
   payer chose to spend.

What was earned, and what was bought, counts from sales that stand
(:mod:`channelpay.protocol.accounts`).

Each percentage leaves a price that is rounded up to the base unit. The price is never below zero
nor above the list price. What is earned (cash-back, points, a referrer's reward) counts on the
price that was paid in the end, and is rounded down.

With everything else alike, the price does not rise with the points to spend. Without any to spend,
it does not rise with the credit or what was bought in the month, nor fall when the list price
rises. (None is spent on less than its worth, so that other parts of the price decide how many.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple, Self

from channelpay.protocol.accounts import Account, Change, month_of
from channelpay.protocol.types import Address

WHOLE = 10_000
"""A hundred percent. Percentages are in hundredths of one."""
MINUTES_OF_DAY = 1440
_MINUTE_MS = 60_000
_PERCENT = attrgetter("percent")
_THURSDAY = 3
"""The weekday of 1970-01-01, from Monday as 0."""
NOTHING_GIVEN: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FirstFree:
    """The first ``count`` sales to a payer, on a channel that holds ``deposit_min`` at least; no
    more than ``day_max`` a day to all payers together. Nothing that costs over ``value_max``.
    """

    name: str
    label: str
    count: int
    deposit_min: int
    day_max: int
    value_max: int | None = None


@dataclass(frozen=True, slots=True)
class NthFree:
    """After ``every - 1`` paid sales one is free, if it does not cost over ``value_max``."""

    name: str
    label: str
    every: int
    value_max: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """``percent`` off between two minutes of the day, on ``weekdays`` (Monday is 0), in the time of
    ``utc_offset`` minutes east of UTC. One that ends before it begins goes on past midnight, and
    belongs to the day on which it began.
    """

    name: str
    label: str
    percent: int
    begin: int
    end: int
    utc_offset: int
    weekdays: frozenset[int]


class Measure(StrEnum):
    """What a volume is counted in."""

    COUNT = "count"
    AMOUNT = "amount"


@dataclass(frozen=True, slots=True)
class Volume:
    """Percent off by what was bought in this month: ``tiers`` are pairs of what has to be reached
    and percent, both rising.
    """

    name: str
    label: str
    measure: Measure
    tiers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class CashBack:
    """``percent`` of what was paid becomes credit."""

    name: str
    label: str
    percent: int


@dataclass(frozen=True, slots=True)
class Points:
    """A point for each ``per`` base units that were paid in all; one is ``worth`` so many."""

    name: str
    label: str
    per: int
    worth: int


@dataclass(frozen=True, slots=True)
class Referral:
    """Whoever bought here and brings a new payer gets ``reward`` as credit with the first paid sale
    to it, but no more than was paid. The new payer's channel holds ``deposit_min`` at least; no
    more than ``day_max`` rewards a day.
    """

    name: str
    label: str
    reward: int
    deposit_min: int
    day_max: int


Incentive = FirstFree | NthFree | Window | Volume | CashBack | Points | Referral
Bounded = FirstFree | Referral
"""What gives something to keys that are new, and is limited for each day."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The incentives that apply to one resource, by their kinds: every sale asks for them.
    ``cash_back`` is the highest percentage of any.
    """

    free: tuple[FirstFree | NthFree, ...] = ()
    windows: tuple[Window, ...] = ()
    volumes: tuple[Volume, ...] = ()
    cash_back: int = 0
    points: Points | None = None
    referrals: tuple[Referral, ...] = ()

    @classmethod
    def of(cls, incentives: Iterable[Incentive]) -> Self:
        """In their order. Of several kinds of points, the first counts."""
        every = tuple(incentives)
        return cls(
            tuple(one for one in every if isinstance(one, FirstFree | NthFree)),
            tuple(one for one in every if isinstance(one, Window)),
            tuple(one for one in every if isinstance(one, Volume)),
            max((one.percent for one in every if isinstance(one, CashBack)), default=0),
            next((one for one in every if isinstance(one, Points)), None),
            tuple(one for one in every if isinstance(one, Referral)),
        )

    @property
    def bounded(self) -> tuple[Bounded, ...]:
        """What is limited for each day."""
        return (*(one for one in self.free if isinstance(one, FirstFree)), *self.referrals)


@dataclass(frozen=True, slots=True)
class Coupon:
    """What a coupon takes off: ``percent`` of the price, then ``value`` base units."""

    name: str
    label: str
    percent: int = 0
    value: int = 0


class Facts(NamedTuple):
    """One sale. ``rules`` are those that apply to it; ``deposit`` is what its channel holds;
    ``points`` are as many as the payer wants to spend; ``referrer`` is who brought it, and is known
    here. ``given_today`` says how often each :data:`Bounded` incentive was given.
    """

    list_price: int
    deposit: int
    rules: Rules = Rules()
    given_today: Mapping[str, int] = NOTHING_GIVEN
    coupon: Coupon | None = None
    points: int = 0
    referrer: Address | None = None


class Step(NamedTuple):
    """``delta`` (below zero) is what the incentive ``name`` took off the price."""

    name: str
    label: str
    delta: int


class Priced(NamedTuple):
    """``amount`` is the list price with all steps. ``change`` is what the sale makes of the
    account; ``credit`` and ``points`` are the part of it that it earned. ``given`` names what has
    to be counted for the day, and ``reward`` goes to the referrer.
    """

    list_price: int
    amount: int
    steps: tuple[Step, ...]
    change: Change
    credit: int = 0
    points: int = 0
    reward: int = 0
    given: str | None = None


def price(facts: Facts, account: Account, now: int) -> Priced:
    """What a sale at ``now`` (Unix ms) costs the payer with this account, and what it earns."""
    month = month_of(now)
    sure = _sure(facts.rules, account, now) if account.pending_paid else account
    for free in facts.rules.free:
        if _is_due(free, facts, sure):
            return _given_away(free, facts, sure, month)
    bill = _Bill(facts.list_price)
    _reduce(bill, facts, sure, month, now)
    credit = bill.take("credit", "your credit", sure.credit) if sure.credit > 0 else 0
    points = _spend_points(facts, sure, bill) if facts.points else 0
    return _sold(facts, account, bill, month, (credit, points))


def _sure(rules: Rules, account: Account, now: int) -> Account:
    """The account without what pending sales may have brought: no more credit than was paid for
    them, no more points than that is worth, and a step each towards a free one.
    """
    number, paid = account.pending_at(now)
    counters, points = dict(account.counters), account.points
    for one in rules.free:
        if type(one) is NthFree:
            counters[one.name] = account.counter(one.name) - number
    if rules.points is not None:
        points += min(0, (account.counter(rules.points.name) - paid) // rules.points.per)
    return account._replace(
        bought=max(0, account.bought - number),
        paid=max(0, account.paid - paid),
        credit=account.credit - paid,
        points=points,
        counters=counters,
    )


class _Bill:
    """A price on its way down."""

    def __init__(self, list_price: int) -> None:
        self.left = list_price
        self.steps: list[Step] = []

    def take(self, name: str, label: str, amount: int) -> int:
        """Take ``amount`` off, or what is left; how much that was."""
        taken = min(self.left, amount)
        if taken:
            self.steps.append(Step(name, label, -taken))
            self.left -= taken
        return taken

    def take_percent(self, name: str, label: str, percent: int) -> None:
        self.take(name, label, self.left * percent // WHOLE)


def _is_due(free: FirstFree | NthFree, facts: Facts, account: Account) -> bool:
    if free.value_max is not None and facts.list_price > free.value_max:
        return False
    had = account.counter(free.name)
    if isinstance(free, NthFree):
        return had >= free.every - 1
    return had < free.count and _may_give(facts, free)


def _given_away(free: FirstFree | NthFree, facts: Facts, account: Account, month: int) -> Priced:
    step = Step(free.name, free.label, -facts.list_price)
    is_first = isinstance(free, FirstFree)
    delta = 1 if is_first else -account.counter(free.name)
    change = Change(month, counters={free.name: delta})
    return Priced(facts.list_price, 0, (step,), change, given=free.name if is_first else None)


def _may_give(facts: Facts, one: Bounded) -> bool:
    is_backed = facts.deposit >= one.deposit_min
    return is_backed and facts.given_today.get(one.name, 0) < one.day_max


def _reduce(bill: _Bill, facts: Facts, account: Account, month: int, now: int) -> None:
    """Take off what the window, the volume and the coupon give."""
    rules, coupon = facts.rules, facts.coupon
    open_windows = [one for one in rules.windows if _is_open(one, now)]
    if open_windows:
        window = max(open_windows, key=_PERCENT)
        bill.take_percent(window.name, window.label, window.percent)
    if rules.volumes:
        tiers = [_tier(one, account, month) for one in rules.volumes]
        percent = max(tiers)
        volume = rules.volumes[tiers.index(percent)]
        bill.take_percent(volume.name, volume.label, percent)
    if coupon is not None:
        bill.take_percent(coupon.name, coupon.label, coupon.percent)
        bill.take(coupon.name, coupon.label, coupon.value)


def _is_open(one: Window, now: int) -> bool:
    minute = now // _MINUTE_MS + one.utc_offset
    day, minute_of_day = divmod(minute, MINUTES_OF_DAY)
    if one.begin < one.end:
        is_within = one.begin <= minute_of_day < one.end
    else:
        is_within = minute_of_day >= one.begin or minute_of_day < one.end
        day -= minute_of_day < one.end
    return is_within and (day + _THURSDAY) % 7 in one.weekdays


def _tier(one: Volume, account: Account, month: int) -> int:
    """The percent of the highest tier that was reached."""
    count, paid = account.in_month(month)
    reached = count if one.measure is Measure.COUNT else paid
    for least, percent in reversed(one.tiers):
        if reached >= least:
            return percent
    return 0


def _spend_points(facts: Facts, account: Account, bill: _Bill) -> int:
    """Take off what the points are worth that the payer chose to spend; how many were. None is
    spent on less than its worth.
    """
    points = facts.rules.points
    if points is None:
        return 0
    number = min(facts.points, max(0, account.points), bill.left // points.worth)
    bill.take(points.name, points.label, number * points.worth)
    return number


def _sold(
    facts: Facts, account: Account, bill: _Bill, month: int, spent: tuple[int, int]
) -> Priced:
    """The sale for what is left on the bill, with what it earns; ``spent`` are credit and points
    that paid for the rest.
    """
    paid, rules = bill.left, facts.rules
    steps, (credit_spent, points_spent) = tuple(bill.steps), spent
    if not paid:
        change = Change(month, credit=-credit_spent, points=-points_spent)
        return Priced(facts.list_price, 0, steps, change)
    credit, points = paid * rules.cash_back // WHOLE, 0
    counters = {one.name: 1 for one in rules.free if type(one) is NthFree}
    if (kind := rules.points) is not None:
        points = max(0, (account.counter(kind.name) + paid) // kind.per)
        counters[kind.name] = paid - points * kind.per
    change = Change(month, 1, paid, credit - credit_spent, points - points_spent, counters)
    if facts.referrer is None or account.bought:
        return Priced(facts.list_price, paid, steps, change, credit, points)
    referral = _referral(facts)
    reward = 0 if referral is None else min(referral.reward, paid)
    given = None if referral is None else referral.name
    return Priced(facts.list_price, paid, steps, change, credit, points, reward, given)


def _referral(facts: Facts) -> Referral | None:
    """What rewards the referrer of a payer that pays for the first time."""
    return next((one for one in facts.rules.referrals if _may_give(facts, one)), None)
