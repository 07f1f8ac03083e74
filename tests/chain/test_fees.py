"""What is offered per unit of gas: never over the limit, and always enough to replace."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from channelpay.chain.fees import GWEI, FeeMarket, FeePolicy, Fees
from channelpay.errors import BudgetExceeded

prices = st.integers(0, 500 * GWEI)
markets = st.builds(FeeMarket, prices, st.integers(0, 50 * GWEI))
policies = st.builds(FeePolicy, st.integers(1, 10**12), st.integers(0, 10**11))
urgencies = st.floats(0, 1)


@given(policies, markets, urgencies, st.integers(1, 10**12))
def test_no_offer_is_over_the_limit_and_no_tip_over_the_offer(
    policy: FeePolicy, market: FeeMarket, urgency: float, limit: int
) -> None:
    limit = min(limit, policy.fee_per_gas_wei_max)
    offer = policy.offer(market, urgency, limit)
    assert 0 <= offer.tip_wei <= offer.max_fee_wei <= limit


@given(policies, markets, markets, urgencies, urgencies)
def test_replacements_satisfy_the_nodes_and_end_at_the_limit(
    policy: FeePolicy, before: FeeMarket, after: FeeMarket, calm: float, hurry: float
) -> None:
    limit = policy.fee_per_gas_wei_max
    last = policy.offer(before, calm, limit)
    for _ in range(1000):
        offer = policy.replacement(last, after, hurry, limit)
        if offer is None:
            break
        assert offer.max_fee_wei > last.max_fee_wei
        assert offer.tip_wei > last.tip_wei
        assert offer.max_fee_wei * 8 >= last.max_fee_wei * 9
        assert offer.tip_wei * 8 >= last.tip_wei * 9
        assert offer.tip_wei <= offer.max_fee_wei <= limit
        last = offer
    assert last.max_fee_wei == limit


@given(policies, markets, urgencies, urgencies)
def test_more_urgency_never_offers_less(
    policy: FeePolicy, market: FeeMarket, one: float, other: float
) -> None:
    assume(one <= other)
    limit = policy.fee_per_gas_wei_max
    calm, hurried = (policy.offer(market, urgency, limit) for urgency in (one, other))
    assert calm.max_fee_wei <= hurried.max_fee_wei
    assert calm.tip_wei <= hurried.tip_wei


def test_the_offer_goes_from_the_usual_one_to_the_policys_limit() -> None:
    policy = FeePolicy(fee_per_gas_wei_max=100 * GWEI, tip_per_gas_wei_urgent=11 * GWEI)
    market = FeeMarket(base_fee_wei=10 * GWEI, tip_wei=GWEI)
    limit = policy.fee_per_gas_wei_max
    assert policy.offer(market, 0, limit) == Fees(21 * GWEI, GWEI)
    assert policy.offer(market, 0.5, limit) == Fees(60_500_000_000, 6 * GWEI)
    assert policy.offer(market, 1, limit) == Fees(100 * GWEI, 11 * GWEI)


def test_what_costs_more_than_the_limit_is_refused() -> None:
    market = FeeMarket(base_fee_wei=9, tip_wei=2)
    market.require_within(11)
    with pytest.raises(BudgetExceeded, match="limit of 10 wei"):
        market.require_within(10)
