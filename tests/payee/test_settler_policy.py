"""When the payee takes its money: the rules of the settlement policy, for any books and fees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.payee.policy import (
    CLOSE_ROWS_MAX,
    WEI_PER_ETHER,
    Kind,
    Moment,
    Plan,
    Reason,
    SettlementPolicy,
    settling_before,
    watchtower_policy,
)
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
)

PAYEE = Address(b"\xbb" * 20)
DOLLAR = Address(b"\xdd" * 20)
GRACE = 86_400
NOW = 1_800_000_000
GWEI = 10**9
SIGNATURE = b"\x01" * 65
DOLLARS_PER_ETHER = 2_000 * 10**6
LIVE = (ChannelStatus.OPEN, ChannelStatus.CLOSING)


def moment(base_fee_wei: int = 20 * GWEI, seconds: int = NOW) -> Moment:
    return Moment(seconds * 1000, seconds, GRACE, base_fee_wei, GWEI)


def record(number: int = 1, unsettled: int = 10**15, **changes: Any) -> ChannelRecord:
    """A channel of ten ether with one thousandth of an ether unsettled."""
    token = changes.pop("token", NATIVE)
    settled = changes.pop("settled", 0)
    deposit = changes.pop("deposit", 10 * WEI_PER_ETHER)
    requested_at = changes.pop("requested_at", 0)
    status = ChannelStatus.CLOSING if requested_at else ChannelStatus.OPEN
    state = ChannelState(changes.pop("status", status), deposit, settled, requested_at)
    channel = Channel(Address(b"\xaa" * 20), PAYEE, token, ZERO_ADDRESS, number.to_bytes(32, "big"))
    accepted = settled + unsettled
    made = ChannelRecord(
        ChannelId(number.to_bytes(32, "big")),
        channel,
        state,
        accepted=accepted,
        spent=accepted,
        signature=SIGNATURE if accepted else b"",
        unsettled_since=NOW * 1000 if unsettled else 0,
    )
    return replace(made, **changes)


@st.composite
def records(draw: st.DrawFn) -> list[ChannelRecord]:
    found = []
    for number in range(draw(st.integers(0, 8))):
        settled = draw(st.integers(0, 10**18))
        requested_at = draw(st.sampled_from([0, 0]) | st.integers(NOW - 2 * GRACE, NOW))
        found.append(
            record(
                number + 1,
                draw(st.integers(0, 10**6) | st.integers(0, 10**18)),
                token=draw(st.sampled_from([NATIVE, DOLLAR])),
                settled=settled,
                requested_at=requested_at,
                closes_begun=draw(st.sampled_from([0, 0, 0, 1])),
                unsettled_since=draw(st.integers(1, NOW * 1000)),
            )
        )
    return found


policies = st.builds(
    SettlementPolicy,
    value_min=st.dictionaries(st.sampled_from([NATIVE, DOLLAR]), st.integers(0, 10**18)),
    total_min=st.dictionaries(st.sampled_from([NATIVE, DOLLAR]), st.integers(0, 10**18)),
    age_max_seconds=st.none() | st.floats(0, 10**6),
    base_fee_max_wei=st.none() | st.integers(0, 100 * GWEI),
    deposit_used_percent=st.none() | st.integers(1, 100),
    margin_percent=st.integers(0, 1000),
    eth_price=st.dictionaries(st.just(DOLLAR), st.integers(1, 10**12)),
    batch_rows_max=st.integers(1, 5),
    urgent_before_seconds=st.floats(0, 10 * GRACE),
    grace_wait_percent=st.integers(0, 50),
)
fees = st.integers(0, 1000 * GWEI)
ids = st.sets(st.integers(1, 8).map(lambda number: ChannelId(number.to_bytes(32, "big"))))


def price_of(policy: SettlementPolicy, token: Address) -> int | None:
    return WEI_PER_ETHER if token == NATIVE else policy.eth_price.get(token)


def is_voluntary(plan: Plan) -> bool:
    return plan.reason not in {Reason.CLOSE_REQUESTED, Reason.CLOSE_UNFINISHED}


@given(records(), policies, fees)
def test_nothing_is_settled_that_does_not_bring_its_gas_and_the_margin(
    known: list[ChannelRecord], policy: SettlementPolicy, fee: int
) -> None:
    for plan in filter(is_voluntary, policy.plan(known, moment(fee))):
        price = price_of(policy, plan.token)
        if price is None:
            every = [r for r in known if r.channel.token == plan.token]
            is_asked = sum(r.unsettled for r in every) >= policy.total_min.get(plan.token, 2**200)
            least = 1 if is_asked else policy.value_min[plan.token]
            assert all(one.unsettled >= least for one in plan.records)
        else:
            value_wei_hundredfold = plan.value * WEI_PER_ETHER * 100 // price
            assert value_wei_hundredfold >= plan.cost_wei * (100 + policy.margin_percent)


@given(records(), policies, fees, st.booleans())
def test_a_channel_that_is_closing_is_answered_whatever_the_policy_says(
    known: list[ChannelRecord], policy: SettlementPolicy, fee: int, closes: bool
) -> None:
    """At the latest when half of the grace period is left."""
    plans = policy.plan(known, moment(fee), closes=closes)
    answered = {one.channel_id for plan in plans for one in plan.records}
    for one in known:
        asked = one.chain.status is ChannelStatus.CLOSING and one.unsettled
        if asked and NOW - one.chain.close_requested_at >= GRACE / 2:
            assert one.channel_id in answered


@given(records(), policies, fees, ids)
def test_each_channel_is_in_one_transaction_and_none_that_is_busy(
    known: list[ChannelRecord], policy: SettlementPolicy, fee: int, busy: set[ChannelId]
) -> None:
    plans = policy.plan(known, moment(fee), busy=busy)
    planned = [one.channel_id for plan in plans for one in plan.records]
    assert len(planned) == len(set(planned))
    assert busy.isdisjoint(planned)


@given(records(), policies, fees, st.booleans())
def test_a_transaction_has_channels_of_one_token_and_no_more_rows_than_allowed(
    known: list[ChannelRecord], policy: SettlementPolicy, fee: int, closes: bool
) -> None:
    for plan in policy.plan(known, moment(fee), closes=closes):
        assert {one.channel.token for one in plan.records} == {plan.token}
        assert len(plan.records) <= policy.batch_rows_max
        assert plan.value == sum(one.unsettled for one in plan.records)
        assert all(one.chain.status in LIVE for one in plan.records)
        assert plan.cost_wei == plan.gas * moment(fee).gas_price_wei
        if plan.kind is Kind.CLOSE:
            assert closes


@given(records(), policies, fees)
def test_what_ends_first_comes_first(
    known: list[ChannelRecord], policy: SettlementPolicy, fee: int
) -> None:
    urgencies = [plan.urgency for plan in policy.plan(known, moment(fee))]
    assert urgencies == sorted(urgencies, reverse=True)
    assert all(0 <= urgency <= 1 for urgency in urgencies)


def test_fees_rise_as_the_end_of_the_grace_period_comes_near() -> None:
    policy, asked = SettlementPolicy(urgent_before_seconds=8 * 3600), record(requested_at=NOW)
    urgencies = [policy.urgency(asked, moment(seconds=NOW + hours * 3600)) for hours in range(30)]
    assert urgencies == sorted(urgencies)
    assert urgencies[:17] == [0.0] * 17
    assert 0 < urgencies[17] < urgencies[20] < 1
    assert urgencies[22:] == [1.0] * 8


def test_the_urgent_time_is_half_of_a_short_grace_period_at_most() -> None:
    short = replace(moment(seconds=NOW + 299), grace_seconds=600)
    policy, asked = SettlementPolicy(), record(requested_at=NOW)
    assert policy.urgency(asked, short) == 0
    assert policy.urgency(asked, replace(short, chain_seconds=NOW + 310)) > 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"value_min": {NATIVE: 10**16}}, Reason.VALUE),
        ({"total_min": {NATIVE: 2 * 10**16}}, Reason.TOTAL),
        ({"age_max_seconds": 3600}, Reason.AGE),
        ({"base_fee_max_wei": 20 * GWEI}, Reason.GAS_CHEAP),
        ({"deposit_used_percent": 50}, Reason.DEPOSIT_USED),
    ],
)
def test_one_reason_is_enough_and_what_is_worth_a_row_comes_along(
    settings: dict[str, Any], reason: Reason
) -> None:
    quiet: dict[str, Any] = {"age_max_seconds": None, "deposit_used_percent": None}
    old = record(1, 10**16, deposit=2 * 10**16, unsettled_since=(NOW - 3600) * 1000)
    other, dust = record(2, 10**16), record(3, 10)
    known = [old, other, dust]
    assert SettlementPolicy(**quiet).plan(known, moment()) == []

    (plan,) = SettlementPolicy(**(quiet | settings)).plan(known, moment())

    assert (plan.kind, plan.reason) == (Kind.SETTLE, reason)
    assert {*plan.records} == {old, other}


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"value_min": {NATIVE: 10**16 + 1}}, {}),
        ({"total_min": {NATIVE: 10**16 + 1}}, {}),
        ({"age_max_seconds": 3601}, {}),
        ({"base_fee_max_wei": 20 * GWEI - 1}, {}),
        ({"deposit_used_percent": 51}, {}),
        # It was used up before the last settlement already.
        ({"deposit_used_percent": 40}, {"settled": 10**16, "deposit": 25 * 10**15}),
    ],
)
def test_below_every_threshold_the_payee_waits(
    settings: dict[str, Any], changes: dict[str, Any]
) -> None:
    quiet: dict[str, Any] = {"age_max_seconds": None, "deposit_used_percent": None}
    facts = {"deposit": 2 * 10**16, "unsettled_since": (NOW - 3600) * 1000} | changes
    known = [record(1, 10**16, **facts)]
    assert SettlementPolicy(**(quiet | settings)).plan(known, moment()) == []


def test_many_small_amounts_that_pay_for_their_row_pay_for_the_transaction_together() -> None:
    policy = SettlementPolicy(age_max_seconds=0, margin_percent=0)
    row_wei = 16_000 * moment().gas_price_wei
    known = [record(number, row_wei) for number in range(1, 101)]
    assert policy.plan(known[:1], moment()) == []
    (plan,) = policy.plan(known, moment())
    assert len(plan.records) == 100


def test_a_token_is_compared_with_gas_at_the_price_that_was_stated() -> None:
    gas_in_dollars = 60_030 * moment().gas_price_wei * DOLLARS_PER_ETHER // WEI_PER_ETHER
    policy = SettlementPolicy(
        age_max_seconds=0, margin_percent=0, eth_price={DOLLAR: DOLLARS_PER_ETHER}
    )
    assert policy.plan([record(1, gas_in_dollars - 1, token=DOLLAR)], moment()) == []
    assert len(policy.plan([record(1, gas_in_dollars + 1, token=DOLLAR)], moment())) == 1


def test_a_token_without_a_price_is_settled_by_its_value_alone() -> None:
    known = [record(1, 10**6, token=DOLLAR), record(2, 10**9, token=DOLLAR)]
    old = SettlementPolicy(age_max_seconds=0)
    assert old.plan(known, moment()) == []
    (plan,) = replace(old, value_min={DOLLAR: 10**7}).plan(known, moment())
    assert plan.records == (known[1],)


@pytest.mark.parametrize("value_min", [{}, {DOLLAR: 5 * 10**6}])
def test_small_channels_of_a_token_without_a_price_are_settled_once_they_reach_the_total(
    value_min: dict[Address, int],
) -> None:
    """Else a limit on the total risk that they reach would turn every reader away for ever."""
    known = [record(number, 4 * 10**6, token=DOLLAR) for number in range(1, 14)]
    policy = SettlementPolicy(value_min=value_min, total_min={DOLLAR: 50 * 10**6})
    assert policy.plan(known[:12], moment()) == []
    (plan,) = policy.plan(known, moment())
    assert (plan.reason, {*plan.records}) == (Reason.TOTAL, {*known})


def test_a_thrifty_payee_answers_no_close_that_brings_less_than_its_gas() -> None:
    """Dust that asks for closes is not to use up the gas money that a real channel needs."""
    requested: dict[str, Any] = {"requested_at": NOW - 10}
    dust = [record(number, 1, **requested) for number in range(1, 50)]
    dust += [record(50, 0, closes_begun=1), record(51, 1, token=DOLLAR, **requested)]
    real = record(52, 10**16, requested_at=NOW - 5)
    unpriced = record(53, 1, token=DOLLAR, **requested)
    policy = SettlementPolicy()
    assert {r for plan in policy.plan([*dust, real], moment()) for r in plan.records} == {
        *dust,
        real,
    }
    priced = SettlementPolicy(eth_price={DOLLAR: DOLLARS_PER_ETHER})
    (plan,) = priced.plan([*dust, real], moment(), thrifty=True)
    assert plan.records == (real,)
    assert len(policy.plan([unpriced], moment(), thrifty=True)) == 1


def test_half_of_a_risk_limit_is_settled_unless_the_policy_says_otherwise() -> None:
    asked = SettlementPolicy(value_min={NATIVE: 7})
    made = settling_before(asked, {NATIVE: 100, DOLLAR: 10}, {DOLLAR: 80})
    assert made == replace(asked, value_min={NATIVE: 7, DOLLAR: 5}, total_min={DOLLAR: 40})


def test_closes_and_settlements_are_not_mixed_and_closes_have_fewer_rows() -> None:
    asked = [record(number, requested_at=NOW) for number in range(1, 101)]
    opened = [record(number, 10**18) for number in range(101, 201)]
    plans = SettlementPolicy(age_max_seconds=0).plan([*opened, *asked], moment())
    assert [(plan.kind, len(plan.records)) for plan in plans] == [
        *[(Kind.CLOSE, CLOSE_ROWS_MAX)] * 2,
        (Kind.CLOSE, 100 - 2 * CLOSE_ROWS_MAX),
        (Kind.SETTLE, 100),
    ]


def test_a_close_that_was_begun_is_finished_even_if_it_brings_nothing() -> None:
    begun = record(1, 0, closes_begun=1)
    (plan,) = SettlementPolicy().plan([begun], moment())
    assert (plan.kind, plan.reason, plan.records) == (
        Kind.CLOSE,
        Reason.CLOSE_UNFINISHED,
        (begun,),
    )


def test_where_a_close_is_refused_or_not_possible_the_payee_settles() -> None:
    asked = record(1, requested_at=NOW)
    for facts in ({"closes": False}, {"refused": {asked.channel_id}}):
        (plan,) = SettlementPolicy().plan([asked], moment(), **facts)
        assert plan.kind is Kind.SETTLE


def test_a_watchtower_leaves_the_first_part_of_the_grace_period_to_the_payee() -> None:
    policy = watchtower_policy(SettlementPolicy(value_min={NATIVE: 0}, age_max_seconds=0), 25)
    known = [record(1, requested_at=NOW), record(2, 10**18)]
    early = moment(seconds=NOW + GRACE // 4 - 1)
    assert policy.plan(known, early) == []
    (plan,) = policy.plan(known, moment(seconds=NOW + GRACE // 4))
    assert (plan.kind, plan.records) == (Kind.SETTLE, (known[0],))


def test_a_part_of_a_plan_costs_its_part() -> None:
    asked = [record(number, number, requested_at=NOW) for number in (1, 2, 3)]
    (plan,) = SettlementPolicy().plan(asked, moment())
    part = plan.part(plan.records[:1], Kind.SETTLE)
    (alone,) = SettlementPolicy().plan(plan.records[:1], moment(), closes=False)
    assert part == alone
