"""What one sale costs this payer: the list price, less what the incentives of the site give.

Pure, and the only place where that is decided. The steps come in this order:

1. free: of the first n, or every n-th; it costs nothing then, and nothing else is counted.
2. the time window that takes off most.
3. the volume tier that takes off most, by what was bought in this calendar month (UTC) before.
4. the coupon: its percent, then its value.
5. credit (cash-back and rewards for referrals), as far as it goes; then points, as many as the
   payer chose to spend.

Each percentage leaves a price that is rounded up to the base unit. The price is never below zero
nor above the list price. What is earned (cash-back, points, a referrer's reward) counts on the
price that was paid in the end, and is rounded down.

With everything else alike, the price does not rise with the points to spend. Without any to spend,
it does not rise with the credit or what was bought in the month, nor fall when the list price
rises. (None is spent on less than its worth, so that other parts of the price decide how many.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from channelpay.protocol.accounts import Account, Change, month_of
from channelpay.protocol.types import Address

WHOLE = 10_000
"""A hundred percent. Percentages are in hundredths of one."""
MINUTES_OF_DAY = 1440
_MINUTE_MS = 60_000
_THURSDAY = 3
"""The weekday of 1970-01-01, from Monday as 0."""


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
    """The incentives that apply to one resource, by their kinds: every sale asks for them."""

    free: tuple[FirstFree | NthFree, ...] = ()
    windows: tuple[Window, ...] = ()
    volumes: tuple[Volume, ...] = ()
    earning: tuple[NthFree | CashBack | Points, ...] = ()
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
            tuple(one for one in every if isinstance(one, NthFree | CashBack | Points)),
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


@dataclass(frozen=True, slots=True)
class Facts:
    """One sale. ``rules`` are those that apply to it; ``deposit`` is what its channel holds;
    ``points`` are as many as the payer wants to spend; ``referrer`` is who brought it, and is known
    here. ``given_today`` says how often each :data:`Bounded` incentive was given.
    """

    list_price: int
    deposit: int
    rules: Rules = Rules()
    given_today: Mapping[str, int] = field(default_factory=dict)
    coupon: Coupon | None = None
    points: int = 0
    referrer: Address | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """``delta`` (below zero) is what the incentive ``name`` took off the price."""

    name: str
    label: str
    delta: int


@dataclass(frozen=True, slots=True)
class Priced:
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
    for free in facts.rules.free:
        if _is_due(free, facts, account):
            return _given_away(free, facts, account, month)
    bill = _Bill(facts.list_price)
    _reduce(bill, facts, account, month, now)
    credit = bill.take("credit", "your credit", account.credit) if account.credit > 0 else 0
    points = _spend_points(facts, account, bill)
    return _sold(facts, account, bill, Change(month, credit=-credit, points=-points))


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
    windows = [(one.percent, one) for one in rules.windows if _is_open(one, now)]
    volumes = [(_tier(one, account, month), one) for one in rules.volumes]
    for found in (windows, volumes):
        if found:
            percent, best = max(found, key=_percent_of)
            bill.take_percent(best.name, best.label, percent)
    if coupon is not None:
        bill.take_percent(coupon.name, coupon.label, coupon.percent)
        bill.take(coupon.name, coupon.label, coupon.value)


def _percent_of(found: tuple[int, Window | Volume]) -> int:
    return found[0]


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
    percent = 0
    for least, reduction in one.tiers:
        if reached >= least:
            percent = reduction
    return percent


def _spend_points(facts: Facts, account: Account, bill: _Bill) -> int:
    """Take off what the points are worth that the payer chose to spend; how many were. None is
    spent on less than its worth.
    """
    points = facts.rules.points
    if points is None or not facts.points:
        return 0
    number = min(facts.points, max(0, account.points), bill.left // points.worth)
    bill.take(points.name, points.label, number * points.worth)
    return number


def _sold(facts: Facts, account: Account, bill: _Bill, spent: Change) -> Priced:
    """The sale for what is left on the bill, with what it earns."""
    paid = bill.left
    steps = tuple(bill.steps)
    if not paid:
        return Priced(facts.list_price, 0, steps, spent)
    credit = points = 0
    counters: dict[str, int] = {}
    for one in facts.rules.earning:
        if isinstance(one, CashBack):
            credit = max(credit, paid * one.percent // WHOLE)
        elif isinstance(one, NthFree):
            counters[one.name] = 1
        else:
            before = account.counter(one.name)
            points = max(0, (before + paid) // one.per)
            counters[one.name] = paid - points * one.per
    referral = _referral(facts, account)
    change = Change(spent.month, 1, paid, spent.credit + credit, spent.points + points, counters)
    reward = 0 if referral is None else min(referral.reward, paid)
    given = None if referral is None else referral.name
    return Priced(facts.list_price, paid, steps, change, credit, points, reward, given)


def _referral(facts: Facts, account: Account) -> Referral | None:
    """What rewards the referrer of a payer that pays for the first time."""
    if facts.referrer is None or account.bought:
        return None
    return next((one for one in facts.rules.referrals if _may_give(facts, one)), None)
