"""What one sale costs: the order of the steps, their sum, the bounds, and what is monotone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import ConfigError
from channelpay.protocol.accounts import (
    PENDING_MS,
    Account,
    Delivered,
    account_key,
    month_of,
)
from channelpay.protocol.entries import decode_state, encode_state, undone
from channelpay.protocol.pricing import (
    WHOLE,
    CashBack,
    Coupon,
    Facts,
    FirstFree,
    Incentive,
    Measure,
    NthFree,
    Points,
    Priced,
    Referral,
    Rules,
    Step,
    Volume,
    Window,
    price,
)
from channelpay.protocol.types import Address

NOON = 1_767_614_400_000
"""Monday, 2026-01-05, 12:00 UTC."""
HOUR = 3_600_000
EVERY_DAY = frozenset(range(7))
READER, FRIEND = Address(b"\x01" * 20), Address(b"\x02" * 20)

WELCOME = FirstFree("welcome", "the first 3 are free", 3, 100, 1000)
TENTH = NthFree("tenth", "every 10th is free", 10)
NIGHT = Window("night", "at night", 5000, 22 * 60, 6 * 60, 0, EVERY_DAY)
HALF = Window("half", "half price", 5000, 0, 1440, 0, EVERY_DAY)
MANY = Volume("many", "many", Measure.COUNT, ((10, 1000), (50, 2000)))
BACK = CashBack("back", "5 % back", 500)
POINTS = Points("points", "your points", 10, 2)
FRIENDS = Referral("friends", "brings a friend", 40, 100, 10)

percents = st.integers(1, WHOLE)
counts = st.integers(0, 60)
sums = st.integers(0, 5000)
names = st.sampled_from(["a", "b", "c", "d", "e", "f"])
incentives: st.SearchStrategy[Incentive] = st.one_of(
    st.builds(
        FirstFree, names, names, counts, sums, st.integers(0, 3), st.none() | st.integers(0, 5000)
    ),
    st.builds(NthFree, names, names, st.integers(2, 60), st.none() | st.integers(0, 5000)),
    st.builds(
        Window,
        names,
        names,
        percents,
        st.integers(0, 1439),
        st.integers(1, 1440),
        st.integers(-720, 840),
        st.frozensets(st.integers(0, 6), min_size=1),
    ),
    st.builds(
        Volume,
        names,
        names,
        st.sampled_from(Measure),
        st.tuples(st.tuples(counts, st.integers(1, 3000))),
    ),
    st.builds(CashBack, names, names, percents),
    st.builds(Points, names, names, st.integers(1, 50), st.integers(1, 50)),
    st.builds(Referral, names, names, sums, sums, st.integers(0, 3)),
)
facts = st.builds(
    Facts,
    list_price=sums,
    deposit=sums,
    rules=st.lists(incentives, max_size=6, unique_by=lambda one: one.name).map(Rules.of),
    given_today=st.dictionaries(names, st.integers(0, 4)),
    coupon=st.none() | st.builds(Coupon, st.just("COUPON"), names, st.integers(0, WHOLE), sums),
    points=st.integers(0, 300),
    referrer=st.none() | st.just(FRIEND),
)
moments = st.integers(NOON - 40 * 24 * HOUR, NOON + 40 * 24 * HOUR)
accounts = st.builds(
    Account,
    first_seen=st.just(NOON),
    bought=counts,
    paid=sums,
    month=st.sampled_from([202512, 202601]),
    bought_before=counts,
    paid_before=sums,
    credit=st.integers(-50, 5000),
    points=st.integers(-50, 300),
    pending=st.integers(-1, 5),
    pending_paid=st.integers(-50, 5000),
    last_sale=st.integers(NOON - 2 * HOUR, NOON),
    counters=st.dictionaries(names, st.integers(-5, 60).filter(bool)),
)


def priced(*incentives: Incentive, account: Account | None = None, **more: Any) -> Priced:
    now = more.pop("now", NOON)
    told: dict[str, Any] = {"list_price": 1000, "deposit": 1000, "rules": Rules.of(incentives)}
    return price(Facts(**(told | more)), account or Account(), now)


@given(facts, accounts, moments)
def test_the_price_is_the_list_price_with_all_steps_and_within_it(
    facts: Facts, account: Account, now: int
) -> None:
    found = price(facts, account, now)

    assert found.amount == facts.list_price + sum(step.delta for step in found.steps)
    assert 0 <= found.amount <= found.list_price == facts.list_price
    assert all(step.delta < 0 for step in found.steps) or facts.list_price == 0
    assert found.change.paid == found.amount


@given(facts, accounts, moments)
def test_the_steps_come_in_the_stated_order(facts: Facts, account: Account, now: int) -> None:
    found = price(facts, account, now)

    rules = facts.rules
    points = () if rules.points is None else (rules.points,)
    every = (*rules.free, *rules.windows, *rules.volumes, *points)
    kinds = {one.name: type(one).__name__ for one in every}
    steps = [kinds.get(step.name, step.name) for step in found.steps]
    if steps and steps[0] in ("FirstFree", "NthFree"):
        assert len(steps) == 1
        assert found.amount == 0
    else:
        order = ["Window", "Volume", "COUPON", "credit", "Points"]
        places = [order.index(name) for name in steps]
        assert places == sorted(places)


@given(facts, accounts, moments)
def test_nothing_is_spent_that_is_not_there_nor_asked_for(
    facts: Facts, account: Account, now: int
) -> None:
    found = price(facts, account, now)

    credit_spent = found.credit - found.change.credit
    points_spent = found.points - found.change.points
    assert 0 <= credit_spent <= max(0, account.credit)
    assert 0 <= points_spent <= min(facts.points, max(0, account.points))
    assert 0 <= found.reward <= found.amount


@given(facts, accounts, moments, sums)
def test_more_credit_points_or_purchases_never_raise_the_price(
    facts: Facts, account: Account, now: int, more: int
) -> None:
    before = price(facts, account, now).amount

    assert price(facts._replace(points=facts.points + more), account, now).amount <= before
    facts = facts._replace(points=0)
    before = price(facts, account, now).amount
    richer = account._replace(credit=account.credit + more)
    assert price(facts, richer, now).amount <= before
    month = month_of(now)
    count, paid = account.in_month(month)
    for field, sofar in (("bought_before", count), ("paid_before", paid)):
        total = {"bought_before": "bought", "paid_before": "paid"}[field]
        here = account._replace(month=month, **{field: getattr(account, total) - sofar - more})
        assert price(facts, here, now).amount <= before


@given(facts, accounts, moments, sums)
def test_a_higher_list_price_never_costs_less(
    facts: Facts, account: Account, now: int, more: int
) -> None:
    facts = facts._replace(points=0)
    dearer = facts._replace(list_price=facts.list_price + more)

    assert price(dearer, account, now).amount >= price(facts, account, now).amount


@given(facts, accounts, moments, facts)
def test_a_sale_that_is_given_back_leaves_the_account_as_if_it_never_was(
    facts: Facts, account: Account, now: int, later: Facts
) -> None:
    key = account_key(READER, FRIEND)
    first = price(facts, account, now).change
    after = account.plus(first, now)
    other = price(later, after, now + 1).change
    entries = {key: after.plus(other, now + 1).to_state()}

    restored = Account.from_state({**entries, **undone(first.undo(key), entries)}[key])

    expected = account.plus(other, now + 1)
    assert _numbers(restored) == _numbers(expected)


@given(accounts)
def test_an_account_is_read_as_it_was_written(account: Account) -> None:
    assert Account.from_state(decode_state(encode_state(account.to_state()))) == account


@pytest.mark.parametrize(
    "broken",
    [{"paid": "5"}, {"bought": -1}, {"bought": True}, {"counter.a": "1"}, {"debt": 1}],
)
def test_an_account_that_nobody_wrote_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Account.from_state({**Account().to_state(), **broken})


def test_the_first_are_free_and_the_next_is_not() -> None:
    account = Account()
    amounts = []
    for _ in range(5):
        found = priced(WELCOME, account=account)
        amounts.append(found.amount)
        account = account.plus(found.change, NOON)

    assert amounts == [0, 0, 0, 1000, 1000]
    assert account.bought == 2


@pytest.mark.parametrize(
    "more",
    [{"deposit": 99}, {"given_today": {"welcome": 1000}}],
    ids=["too small a deposit", "enough was given today"],
)
def test_what_is_given_away_is_bounded(more: dict[str, Any]) -> None:
    assert priced(WELCOME, **more).amount == 1000
    assert priced(WELCOME).given == "welcome"


def test_what_is_worth_too_much_is_not_given_away() -> None:
    cheap_only = replace(WELCOME, value_max=999)
    tenth = replace(TENTH, value_max=999)

    assert priced(cheap_only).amount == 1000
    assert priced(cheap_only, list_price=999).amount == 0
    assert priced(tenth, account=Account(counters={"tenth": 9})).amount == 1000


def test_every_tenth_is_free_by_what_was_paid() -> None:
    account = Account()
    amounts = []
    for _ in range(21):
        found = priced(TENTH, account=account)
        amounts.append(found.amount)
        sold = account.plus(found.change, NOON)
        account = sold.knowing(Delivered(found.change.bought, found.amount))

    assert [n for n, amount in enumerate(amounts, 1) if amount == 0] == [10, 20]


@pytest.mark.parametrize(
    ("window", "now", "is_open"),
    [
        (NIGHT, NOON, False),
        (NIGHT, NOON + 10 * HOUR, True),
        (NIGHT, NOON + 18 * HOUR - 1, True),
        (NIGHT, NOON + 18 * HOUR, False),
        (replace(NIGHT, utc_offset=600), NOON, True),
        (replace(NIGHT, weekdays=frozenset({0})), NOON + 17 * HOUR, True),
        (replace(NIGHT, weekdays=frozenset({1})), NOON + 17 * HOUR, False),
        (replace(HALF, weekdays=frozenset({0})), NOON, True),
        (replace(HALF, weekdays=frozenset({1})), NOON, False),
        (replace(HALF, weekdays=frozenset({6}), utc_offset=-721), NOON, True),
    ],
)
def test_a_window_is_open_by_its_own_clock(window: Window, now: int, *, is_open: bool) -> None:
    assert priced(window, now=now).amount == (500 if is_open else 1000)


def test_a_tier_counts_what_was_bought_in_this_calendar_month() -> None:
    regular = Account(bought=15, paid=150, month=202601, bought_before=5, paid_before=50)
    last_month = regular._replace(month=202512, bought_before=0)

    assert priced(MANY, account=regular).amount == 900
    assert priced(MANY, account=regular._replace(bought=55)).amount == 800
    assert priced(MANY, account=last_month).amount == 1000
    by_amount = replace(MANY, measure=Measure.AMOUNT, tiers=((100, 1000),))
    assert priced(by_amount, account=regular).amount == 900


def test_of_several_windows_the_best_counts_alone() -> None:
    other = replace(HALF, name="other", percent=4000)

    assert priced(other, HALF).steps == (Step("half", "half price", -500),)


def test_each_percentage_is_rounded_up_for_the_site() -> None:
    regular = Account(month=202601, bought=10)

    found = priced(HALF, MANY, account=regular, list_price=101)

    # 101 - 50.5 is 51, and a tenth off that is 46.
    assert [step.delta for step in found.steps] == [-50, -5]
    assert found.amount == 46


def test_credit_comes_after_the_coupon_and_points_come_last() -> None:
    account = Account(credit=100, points=500)
    coupon = Coupon("SPRING", "your coupon", 1000, 50)

    found = priced(POINTS, coupon=coupon, account=account, points=20)

    assert [step.delta for step in found.steps] == [-100, -50, -100, -40]
    assert found.amount == 710
    assert found.change.points == found.points - 20 == 71 - 20


def test_points_are_earned_on_what_was_paid_in_all() -> None:
    account, earned = Account(), 0
    for _ in range(10):
        found = priced(POINTS, account=account, list_price=7)
        earned += found.points
        account = account.plus(found.change, NOON)

    assert earned == account.points == 7
    assert account.counter("points") == 0


def test_points_are_not_spent_unless_the_payer_chose_to() -> None:
    assert priced(POINTS, account=Account(points=500)).amount == 1000


def test_cash_back_counts_on_what_was_paid() -> None:
    found = priced(BACK, account=Account(credit=981))

    assert found.amount == 19
    assert (found.credit, found.change.credit) == (0, -981)
    assert priced(BACK).change.credit == 50


def test_whoever_brings_a_payer_is_rewarded_once_and_no_more_than_was_paid() -> None:
    first = priced(FRIENDS, referrer=FRIEND)
    after = Account().plus(first.change, NOON)

    assert (first.reward, first.given) == (40, "friends")
    assert priced(FRIENDS, referrer=FRIEND, list_price=30).reward == 30
    assert priced(FRIENDS, referrer=FRIEND, account=after).reward == 0
    assert priced(FRIENDS, referrer=FRIEND, deposit=99).reward == 0
    assert priced(FRIENDS, referrer=FRIEND, given_today={"friends": 10}).reward == 0
    assert priced(FRIENDS, WELCOME, referrer=FRIEND).reward == 0


def test_earnings_that_were_spent_before_their_sale_was_released_are_owed() -> None:
    sale = priced(BACK)
    account = Account().plus(sale.change, NOON)
    spent = price(Facts(50, 1000), account, NOON + PENDING_MS + 1)
    assert spent.amount == 0

    key = account_key(READER, FRIEND)
    entries = {key: account.plus(spent.change, NOON).to_state()}
    account = Account.from_state(undone(sale.change.undo(key), entries)[key])

    assert account.credit == -50
    assert priced(account=account).amount == 1000


def test_what_pending_sales_brought_counts_once_they_stand() -> None:
    points = Points("points", "", per=100, worth=100)
    halved = Volume("volume", "", Measure.AMOUNT, ((900, 5000),))
    account = Account().plus(priced(points, list_price=150).change, NOON)
    account = account.plus(priced(BACK, points, TENTH, account=account).change, NOON)
    known = account.knowing(Delivered(1, 150))

    for rules in ((), (halved,), (replace(TENTH, every=2),)):
        assert priced(*rules, account=known).amount == 1000
        assert priced(*rules, account=known.knowing(Delivered(1, 1000))).amount < 1000
        assert priced(*rules, account=known, now=NOON + PENDING_MS + 1).amount < 1000
    assert (known.points, known.counter("points")) == (11, 50)
    assert priced(points, account=account, points=20).amount == 1000
    assert priced(points, account=known, points=20).amount == 900


def _numbers(account: Account) -> dict[str, int]:
    """What an account counts, whatever its last month: that of a sale that was given back stays."""
    counters = {name: count for name, count in account.counters.items() if count}
    of_month = [account.in_month(month) for month in (202511, 202512, 202601, 202602)]
    sums = (account.bought, account.paid, account.credit, account.points)
    return {**counters, "": hash((sums, tuple(one for one in of_month if any(one))))}
