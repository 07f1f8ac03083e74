"""The payee's books: what a voucher buys, in any order, and what it does not."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from channelpay.errors import (
    AmountExceedsDeposit,
    ChannelClosing,
    ChannelFinalized,
    ChannelNotFound,
    IdempotencyKeyReused,
    InsufficientBalance,
    PaymentRefused,
    RiskLimitReached,
    VoucherPublic,
)
from channelpay.protocol.rules import (
    ATTEMPTS_COUNTED_MAX,
    EARLIER_MAX,
    KEYED_RETRY_WINDOW_MS,
    RETRY_WINDOW_MS,
    ChannelRecord,
    Charge,
    Decision,
    Outcome,
    Payment,
    Purchase,
    begin_close,
    close_failed,
    decide,
    decide_charge,
    enter_chain,
    release,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    AMOUNT_MAX,
    DEPOSIT_MAX,
    NATIVE,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Voucher,
)

NOW = 1_800_000_000_000
DEPOSIT = 1000
CHANNEL_ID = ChannelId(b"\x01" * 32)
CHANNEL = Channel(
    Address(b"\x02" * 20), Address(b"\x03" * 20), NATIVE, Address(b"\x04" * 20), bytes(32)
)
RECORD = ChannelRecord(CHANNEL_ID, CHANNEL, ChannelState(ChannelStatus.OPEN, DEPOSIT))


def voucher(cumulative: int) -> Voucher:
    """A voucher whose signature tells its amount, so that mixing two up shows."""
    return Voucher(CHANNEL_ID, cumulative, cumulative.to_bytes(65, "big"))


def purchase(
    cumulative: int,
    price: int,
    *,
    key: str | None = None,
    resource: str = "GET /a",
    now: int = NOW,
    metered: bool = False,
    risk_max: int | None = None,
) -> Purchase:
    return Purchase(voucher(cumulative), price, resource, now, key, metered, risk_max)


def proven(order: Purchase) -> Purchase:
    return replace(order, is_proven=True)


def bought(decision: Decision) -> Payment:
    assert decision.payment is not None
    return decision.payment


def served_again(decision: Decision) -> Payment:
    assert decision.payment is None
    assert decision.updated is not None
    return decision.updated


# --- charging --------------------------------------------------------------------------------


def test_voucher_raises_accepted_and_request_raises_spent() -> None:
    decision = decide(RECORD, purchase(10, 7, key="k"), None)
    record = decision.record
    assert (record.accepted, record.spent, record.available) == (10, 7, 3)
    assert decision.record.voucher == voucher(10)
    assert decision.payment == Payment(CHANNEL_ID, 10, 7, "GET /a", NOW, "k", Outcome.CHARGED)


def test_no_voucher_is_held_before_the_first() -> None:
    assert RECORD.voucher is None
    assert decide(RECORD, purchase(0, 0), None).record.voucher == voucher(0)


def test_what_was_paid_ahead_buys_again_with_the_same_voucher() -> None:
    first = decide(RECORD, purchase(10, 5), None)
    second = decide(first.record, purchase(10, 5, resource="GET /b"), None)
    assert second.record.available == 0
    with pytest.raises(InsufficientBalance):
        decide(second.record, purchase(10, 5, resource="GET /c"), None)


def test_older_voucher_lowers_nothing() -> None:
    first = decide(RECORD, purchase(10, 5), None)
    second = decide(first.record, purchase(3, 5), None)
    assert second.record.accepted == 10
    assert second.record.voucher == voucher(10)
    assert second.record.spent == 10


def test_price_zero_writes_no_payment() -> None:
    decision = decide(RECORD, purchase(10, 0), None)
    assert decision.payment is None
    assert decision.record.available == 10


# --- metered responses -----------------------------------------------------------------------


def metered(cumulative: int, unit: int) -> tuple[ChannelRecord, Payment]:
    decision = decide(RECORD, purchase(cumulative, unit, key="k", metered=True), None)
    return decision.record, bought(decision)


def charge(record: ChannelRecord, payment: Payment, total: int) -> tuple[ChannelRecord, Payment]:
    decision = decide_charge(record, Charge(CHANNEL_ID, 1, total), payment)
    return decision.record, served_again(decision)


def test_a_metered_purchase_needs_one_unit_and_charges_nothing_yet() -> None:
    record, payment = metered(10, 10)
    assert (record.spent, payment.price) == (0, 0)
    with pytest.raises(InsufficientBalance):
        metered(9, 10)


@given(st.lists(st.integers(0, DEPOSIT), max_size=8))
def test_a_metered_payment_costs_its_highest_total(totals: list[int]) -> None:
    record, payment = metered(DEPOSIT, 1)
    for total in totals:
        record, payment = charge(record, payment, total)
    assert record.spent == payment.price == max(totals, default=0)


def test_a_charge_beyond_what_is_available_says_what_is_needed() -> None:
    record, payment = charge(*metered(10, 1), 8)
    with pytest.raises(InsufficientBalance) as refused:
        charge(record, payment, 11)
    assert refused.value.context["requiredCumulative"] == "11"
    assert charge(record, payment, 10)[0].available == 0


def test_nothing_is_charged_on_a_channel_that_is_being_closed_or_a_payment_given_back() -> None:
    record, payment = metered(10, 1)
    with pytest.raises(ChannelClosing):
        charge(begin_close(record, None, NOW), payment, 1)
    with pytest.raises(PaymentRefused):
        charge(*release(record, payment, 1), 1)


def test_what_a_metered_response_cost_is_given_back_as_a_whole() -> None:
    record, payment = release(*charge(*metered(10, 1), 7), 1)
    assert (record.spent, payment.outcome) == (0, Outcome.RELEASED)


# --- parallel requests and retries -----------------------------------------------------------


@given(st.permutations(range(1, 9)), st.integers(1, DEPOSIT // 8))
def test_parallel_requests_all_succeed_in_any_order(order: list[int], price: int) -> None:
    record = RECORD
    for number in order:
        record = decide(record, purchase(number * price, price, key=str(number)), None).record
    assert (record.accepted, record.spent) == (8 * price, 8 * price)
    assert record.voucher == voucher(8 * price)


@given(
    st.lists(st.integers(0, DEPOSIT), min_size=1).flatmap(
        lambda amounts: st.tuples(st.just(amounts), st.permutations(amounts))
    )
)
def test_order_of_vouchers_makes_no_difference(orders: tuple[list[int], list[int]]) -> None:
    ends = []
    for order in orders:
        record = RECORD
        for cumulative in order:
            record = decide(record, purchase(cumulative, 0), None).record
        ends.append(record)
    assert ends[0] == ends[1]
    assert ends[0].voucher == voucher(max(orders[0]))


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (ChannelStatus.ABSENT, ChannelNotFound),
        (ChannelStatus.CLOSING, ChannelClosing),
        (ChannelStatus.FINALIZED, ChannelFinalized),
    ],
)
def test_only_an_open_channel_pays(status: ChannelStatus, error: type[PaymentRefused]) -> None:
    record = replace(RECORD, chain=ChannelState(status, DEPOSIT))
    with pytest.raises(error) as refusal:
        decide(record, purchase(10, 5), None)
    assert refusal.value.context == {"channelId": to_hex(CHANNEL_ID)}


@pytest.mark.parametrize("promised", [DEPOSIT + 1, DEPOSIT_MAX + 1, AMOUNT_MAX])
def test_voucher_above_the_deposit_is_refused(promised: int) -> None:
    with pytest.raises(AmountExceedsDeposit) as refusal:
        decide(RECORD, purchase(promised, 1), None)
    assert refusal.value.context == {"channelId": to_hex(CHANNEL_ID), "deposit": str(DEPOSIT)}


def test_whole_deposit_can_be_promised() -> None:
    assert decide(RECORD, purchase(DEPOSIT, DEPOSIT), None).record.available == 0


def test_refusal_says_which_voucher_would_do() -> None:
    record = decide(RECORD, purchase(10, 8), None).record
    with pytest.raises(InsufficientBalance) as refusal:
        decide(record, purchase(11, 5, resource="GET /b"), None)
    assert refusal.value.context == {
        "channelId": to_hex(CHANNEL_ID),
        "requiredCumulative": "13",
        "acceptedCumulative": "10",
        "spent": "8",
        "deposit": str(DEPOSIT),
    }
    assert decide(record, purchase(13, 5), None).record.available == 0


# --- retries ---------------------------------------------------------------------------------


def test_retry_with_its_key_is_not_charged_again() -> None:
    first = decide(RECORD, purchase(10, 5, key="k"), None)
    again = decide(first.record, purchase(10, 5, key="k"), bought(first))
    assert again.record == first.record
    assert served_again(again) == replace(bought(first), attempts=2)


def test_retry_with_its_key_keeps_its_price() -> None:
    first = decide(RECORD, purchase(10, 5, key="k"), None)
    dearer = purchase(10, 900, key="k")
    assert served_again(decide(first.record, dearer, bought(first))).price == 5


def test_key_is_served_again_for_a_day_and_then_spent() -> None:
    first = decide(RECORD, purchase(10, 5, key="k"), None)
    in_time = purchase(10, 5, key="k", now=NOW + KEYED_RETRY_WINDOW_MS)
    assert served_again(decide(first.record, in_time, bought(first))).attempts == 2
    late = purchase(20, 5, key="k", now=NOW + KEYED_RETRY_WINDOW_MS + 1)
    with pytest.raises(IdempotencyKeyReused):
        decide(first.record, late, bought(first))


def test_retry_may_bring_a_better_voucher() -> None:
    first = decide(RECORD, purchase(10, 10, key="k"), None)
    again = decide(first.record, purchase(20, 10, key="k"), bought(first))
    assert served_again(again).cumulative == 10
    assert (again.record.accepted, again.record.spent) == (20, 10)


def test_key_that_bought_another_resource_is_refused() -> None:
    first = decide(RECORD, purchase(10, 5, key="k"), None)
    with pytest.raises(IdempotencyKeyReused):
        decide(first.record, purchase(20, 5, key="k", resource="GET /b"), bought(first))


def test_released_payment_is_charged_on_the_retry() -> None:
    first = decide(RECORD, purchase(10, 5, key="k"), None)
    record, released = release(first.record, bought(first), 1)
    again = decide(record, purchase(10, 5, key="k"), released)
    assert again.record.spent == 5
    assert bought(again).outcome is Outcome.CHARGED


@pytest.mark.parametrize(
    ("age_ms", "is_retry"), [(0, True), (RETRY_WINDOW_MS, True), (RETRY_WINDOW_MS + 1, False)]
)
def test_retry_without_a_key_has_a_window(*, age_ms: int, is_retry: bool) -> None:
    first = decide(RECORD, purchase(10, 10), None)
    later = purchase(10, 10, now=NOW + age_ms)
    if is_retry:
        again = decide(first.record, later, bought(first))
        assert (again.record, served_again(again).attempts) == (first.record, 2)
    else:
        with pytest.raises(InsufficientBalance):
            decide(first.record, later, bought(first))


def test_without_a_key_what_was_paid_ahead_is_charged() -> None:
    first = decide(RECORD, purchase(10, 5), None)
    assert decide(first.record, purchase(10, 5), bought(first)).record.spent == 10


# --- closing ---------------------------------------------------------------------------------


def test_begun_close_takes_the_last_voucher_and_none_after_it() -> None:
    record = begin_close(RECORD, voucher(10), NOW)
    assert (record.accepted, record.spent, record.voucher) == (10, 0, voucher(10))
    with pytest.raises(ChannelClosing):
        decide(record, purchase(20, 5), None)


def test_begun_close_serves_no_retry() -> None:
    first = decide(RECORD, purchase(10, 5, key="k"), None)
    with pytest.raises(ChannelClosing):
        decide(begin_close(first.record, None, NOW), purchase(10, 5, key="k"), bought(first))


def test_vouchers_are_taken_again_once_every_begun_close_failed() -> None:
    twice = begin_close(begin_close(RECORD, None, NOW), None, NOW)
    once = close_failed(twice)
    with pytest.raises(ChannelClosing):
        decide(once, purchase(10, 5), None)
    assert close_failed(once) == close_failed(close_failed(once)) == RECORD


def test_close_may_be_begun_while_the_payer_requests_one() -> None:
    record = replace(RECORD, chain=ChannelState(ChannelStatus.CLOSING, DEPOSIT))
    assert begin_close(record, voucher(10), NOW).voucher == voucher(10)


@pytest.mark.parametrize(
    ("status", "cumulative", "error"),
    [
        (ChannelStatus.ABSENT, 10, ChannelNotFound),
        (ChannelStatus.FINALIZED, 10, ChannelFinalized),
        (ChannelStatus.OPEN, DEPOSIT + 1, AmountExceedsDeposit),
    ],
)
def test_close_that_the_contract_would_refuse_is_not_begun(
    status: ChannelStatus, cumulative: int, error: type[PaymentRefused]
) -> None:
    record = replace(RECORD, chain=ChannelState(status, DEPOSIT))
    with pytest.raises(error):
        begin_close(record, voucher(cumulative), NOW)


# --- release ---------------------------------------------------------------------------------


def test_release_gives_the_price_back_once() -> None:
    first = decide(RECORD, purchase(10, 7), None)
    once = release(first.record, bought(first), 1)
    assert once[0] == replace(first.record, spent=0)
    assert once[1] == replace(bought(first), outcome=Outcome.RELEASED, undelivered=1)
    assert release(*once, 1) == once


def test_charge_stays_while_one_of_its_requests_may_be_served() -> None:
    first = decide(RECORD, purchase(10, 7, key="k"), None)
    again = decide(first.record, purchase(10, 7, key="k"), bought(first))
    record, payment = release(again.record, served_again(again), 2)
    assert (record.spent, payment.served) == (7, 1)
    assert release(record, payment, 1)[0].spent == 0


@pytest.mark.parametrize("attempt", [1, 2])
def test_one_attempt_that_is_released_again_and_again_counts_once(attempt: int) -> None:
    first = decide(RECORD, purchase(10, 7, key="k"), None)
    again = decide(first.record, purchase(10, 7, key="k"), bought(first))
    record, payment = again.record, served_again(again)
    for _ in range(3):
        record, payment = release(record, payment, attempt)
    assert (record.spent, payment.outcome, payment.served) == (7, Outcome.CHARGED, 1)


def test_requests_that_failed_leave_room_for_others_until_they_cannot_be_told_apart() -> None:
    first = decide(RECORD, purchase(10, 7, key="k"), None)
    record, payment = first.record, bought(first)
    for attempt in range(2, ATTEMPTS_COUNTED_MAX + 1):
        payment = served_again(decide(record, purchase(10, 7, key="k"), payment))
        record, payment = release(record, payment, attempt)
    assert (payment.served, payment.undelivered.bit_length()) == (1, ATTEMPTS_COUNTED_MAX)
    with pytest.raises(IdempotencyKeyReused):
        decide(record, purchase(10, 7, key="k"), payment)


# --- what is unsettled -----------------------------------------------------------------------


def settled(amount: int, status: ChannelStatus = ChannelStatus.OPEN) -> ChannelState:
    return ChannelState(status, DEPOSIT, amount)


def test_unsettled_since_is_the_first_voucher_beyond_what_is_settled() -> None:
    record = enter_chain(RECORD, settled(10), NOW)
    record = decide(record, proven(purchase(10, 1, now=NOW + 1)), None).record
    assert (record.unsettled, record.unsettled_since) == (0, 0)
    record = decide(record, purchase(12, 1, now=NOW + 2), None).record
    record = decide(record, purchase(15, 1, now=NOW + 3), None).record
    assert (record.unsettled, record.unsettled_since) == (5, NOW + 2)


def test_a_last_voucher_that_comes_with_the_close_is_unsettled_from_then_on() -> None:
    assert begin_close(RECORD, voucher(10), NOW + 7).unsettled_since == NOW + 7


@pytest.mark.parametrize(
    ("state", "since"),
    [
        (settled(0), NOW),
        (settled(5), NOW + 9),
        (settled(10), 0),
        (settled(11), 0),
        (settled(0, ChannelStatus.CLOSING), NOW),
        (settled(0, ChannelStatus.FINALIZED), 0),
    ],
    ids=["as before", "in part", "all", "more", "closing", "lost"],
)
def test_a_settlement_ends_what_is_unsettled_or_begins_its_age_anew(
    state: ChannelState, since: int
) -> None:
    record = decide(RECORD, purchase(10, 1), None).record
    assert enter_chain(record, state, NOW + 9).unsettled_since == since


def test_a_settlement_that_is_undone_is_unsettled_again() -> None:
    record = decide(RECORD, purchase(10, 1), None).record
    taken = enter_chain(record, settled(10), NOW + 1)
    undone = enter_chain(taken, settled(0), NOW + 2)
    assert (undone.unsettled, undone.unsettled_since, undone.voucher) == (10, NOW + 2, voucher(10))


# --- vouchers that everybody knows -----------------------------------------------------------


@pytest.mark.parametrize("price", [0, 1])
def test_a_voucher_that_was_settled_buys_nothing_without_a_proof(price: int) -> None:
    record = decide(RECORD, purchase(20, 1), None).record
    record = enter_chain(record, settled(10), NOW)

    for cumulative in (9, 10):
        with pytest.raises(VoucherPublic) as refused:
            decide(record, purchase(cumulative, price), None)
        assert refused.value.context.keys() == {"channelId", "requiredCumulative"}
        assert decide(record, proven(purchase(cumulative, price)), None).record.spent == 1 + price
    assert decide(record, purchase(11, price), None).record.spent == 1 + price


@pytest.mark.parametrize("key", ["k", None])
def test_a_retry_with_a_voucher_that_was_settled_needs_its_key(key: str | None) -> None:
    first = decide(RECORD, purchase(10, 1, key=key), None)
    record = enter_chain(first.record, settled(10), NOW)

    with nullcontext() if key else pytest.raises(VoucherPublic):
        assert served_again(decide(record, purchase(10, 1, key=key), bought(first))).attempts == 2


# --- a top-up that a reorganisation takes back -----------------------------------------------


def with_deposit(record: ChannelRecord, deposit: int, settled: int = 0) -> ChannelRecord:
    return enter_chain(record, ChannelState(ChannelStatus.OPEN, deposit, settled), NOW)


def after_top_ups(*bought_up_to: int, top_up: int = 100) -> ChannelRecord:
    """A channel that was topped up once more after each of these vouchers."""
    record = RECORD
    for count, cumulative in enumerate(bought_up_to, start=1):
        record = decide(record, purchase(cumulative, 5), None).record
        record = with_deposit(record, DEPOSIT + count * top_up)
    return record


@pytest.mark.parametrize(
    ("taken_back_to", "best"), [(1200, 1150), (1150, 1150), (1149, 1080), (1100, 1080), (1000, 990)]
)
def test_without_its_top_up_a_channel_is_settled_with_the_best_voucher_that_is_covered(
    taken_back_to: int, best: int
) -> None:
    record = decide(after_top_ups(990, 1080), purchase(1150, 5), None).record

    left = with_deposit(record, taken_back_to)

    assert (left.voucher, left.unsettled) == (voucher(best), best)
    assert with_deposit(left, taken_back_to, settled=best).unsettled_since == 0


def test_a_top_up_that_is_back_counts_as_if_it_had_never_been_gone() -> None:
    record = decide(after_top_ups(990), purchase(1080, 5), None).record

    back = with_deposit(with_deposit(record, DEPOSIT, settled=990), DEPOSIT + 100, settled=990)

    assert (back.voucher, back.unsettled, back.earlier) == (voucher(1080), 90, record.earlier)
    assert back.unsettled_since > 0


def test_what_was_promised_beyond_the_deposit_buys_nothing() -> None:
    promised = decide(after_top_ups(990), purchase(1080, 5, metered=True), None)
    left = with_deposit(promised.record, DEPOSIT)

    for cumulative in (10, 1080):
        with pytest.raises(AmountExceedsDeposit):
            decide(left, purchase(cumulative, 5), None)
    with pytest.raises(AmountExceedsDeposit):
        decide_charge(left, Charge(CHANNEL_ID, 1, 5), bought(promised))


def test_so_many_earlier_vouchers_are_kept_the_latest_of_them() -> None:
    amounts = [10 * count for count in range(1, EARLIER_MAX + 2)]

    kept = after_top_ups(*amounts).earlier

    assert [amount for amount, _ in kept] == amounts[1:]


# --- a close that a reorganisation undoes ----------------------------------------------------


@pytest.mark.parametrize("began_it", [False, True])
def test_a_finalized_channel_that_is_back_takes_no_voucher_and_is_to_be_closed_again(
    *, began_it: bool
) -> None:
    bought_for = decide(RECORD, purchase(10, 5), None).record
    closing = begin_close(bought_for, None, NOW) if began_it else bought_for
    closed = enter_chain(closing, settled(10, ChannelStatus.FINALIZED), NOW)

    back = enter_chain(closed, settled(0), NOW + 1)

    assert (back.closes_begun, back.unsettled, back.voucher) == (1, 10, voucher(10))
    with pytest.raises(ChannelClosing):
        decide(back, purchase(20, 5), None)


def test_a_channel_whose_open_was_undone_too_stays_to_be_closed() -> None:
    closed = enter_chain(RECORD, settled(0, ChannelStatus.FINALIZED), NOW)
    absent = enter_chain(closed, ChannelState(ChannelStatus.ABSENT), NOW)
    with pytest.raises(ChannelClosing):
        decide(enter_chain(absent, settled(0), NOW), purchase(10, 5), None)


def test_what_a_channel_held_is_remembered_when_its_slot_is_used_again() -> None:
    closed = enter_chain(RECORD, settled(10, ChannelStatus.FINALIZED), NOW)
    forgotten = enter_chain(closed, ChannelState(ChannelStatus.FINALIZED), NOW)
    assert (forgotten.chain.deposit, forgotten.chain.settled) == (DEPOSIT, 10)


# --- risk ------------------------------------------------------------------------------------


def test_no_more_is_served_beyond_what_is_settled_than_the_payee_risks() -> None:
    record = enter_chain(RECORD, settled(100), NOW)
    record = decide(record, purchase(500, 130, risk_max=30), None).record
    with pytest.raises(RiskLimitReached):
        decide(record, purchase(500, 1, risk_max=30), None)
    assert decide(record, purchase(500, 1, risk_max=31), None).charged == 1
    later = enter_chain(record, settled(500), NOW)
    assert decide(later, purchase(530, 400, risk_max=30), None).record.spent == 530


def test_a_voucher_and_a_retry_cost_nothing_and_are_no_risk() -> None:
    first = decide(RECORD, purchase(10, 10, key="k"), None)
    again = decide(first.record, purchase(10, 10, key="k", risk_max=0), bought(first))
    raised = decide(first.record, purchase(20, 0, risk_max=0), None)
    assert (again.record.spent, raised.record.accepted) == (10, 20)


def test_a_metered_response_is_refused_from_its_first_unit_to_its_last() -> None:
    with pytest.raises(RiskLimitReached):
        decide(RECORD, purchase(10, 2, metered=True, risk_max=1), None)
    record, payment = metered(10, 1)
    with pytest.raises(RiskLimitReached):
        decide_charge(record, Charge(CHANNEL_ID, 1, 3, risk_max=2), payment)
    record, payment = charge(record, payment, 3)
    known = decide_charge(record, Charge(CHANNEL_ID, 1, 3, risk_max=2), payment)
    assert (known.record.spent, known.charged) == (3, 0)


# --- books in doubt --------------------------------------------------------------------------

DOUBTED = replace(decide(RECORD, purchase(100, 60), None).record, in_doubt=True)
"""A backup: since it was made, 60 may have become 100, and 100 more."""


@pytest.mark.parametrize(
    ("cumulative", "price", "spent"),
    [(105, 5, 105), (200, 5, 200), (200, 0, 200), (100, 0, 100), (50, 0, 100), (140, 40, 140)],
)
def test_what_was_promised_before_the_first_voucher_in_doubt_counts_as_charged(
    cumulative: int, price: int, spent: int
) -> None:
    decision = decide(DOUBTED, purchase(cumulative, price), None)
    assert (decision.record.spent, decision.record.in_doubt) == (spent, False)
    assert decision.charged == price


@pytest.mark.parametrize("cumulative", [50, 100, 104])
def test_what_was_available_before_the_doubt_buys_nothing(cumulative: int) -> None:
    with pytest.raises(InsufficientBalance) as refused:
        decide(DOUBTED, purchase(cumulative, 5), None)
    assert refused.value.context["requiredCumulative"] == "105"
    assert refused.value.context["spent"] == "100"


@pytest.mark.parametrize("price", [0, 5])
def test_a_voucher_in_doubt_that_is_below_what_is_settled_buys_nothing(price: int) -> None:
    rebuilt = replace(enter_chain(RECORD, settled(50), NOW), in_doubt=True)
    with pytest.raises(InsufficientBalance) as refused:
        decide(rebuilt, proven(purchase(49, price)), None)
    assert refused.value.context["requiredCumulative"] == str(50 + price)
    enough = proven(purchase(50 + price, price))
    assert decide(rebuilt, enough, None).record.spent == 50 + price


def test_a_close_in_doubt_with_less_than_is_settled_is_for_what_is_held() -> None:
    rebuilt = replace(enter_chain(RECORD, settled(50), NOW), in_doubt=True)
    closing = begin_close(rebuilt, voucher(40), NOW)
    assert (closing.accepted, closing.spent) == (40, 40)


def test_a_retry_in_doubt_is_served_once_more_and_ends_the_doubt() -> None:
    first = decide(RECORD, purchase(100, 60, key="k"), None)
    doubted = replace(first.record, in_doubt=True)
    again = decide(doubted, purchase(130, 60, key="k"), bought(first))
    assert served_again(again).attempts == 2
    assert (again.record.spent, again.record.in_doubt, again.charged) == (130, False, 0)


def test_a_close_in_doubt_is_for_all_that_was_promised() -> None:
    closing = begin_close(DOUBTED, voucher(60), NOW)
    assert (closing.spent, closing.accepted, closing.in_doubt) == (100, 100, False)


def test_the_first_voucher_in_doubt_is_taken_whatever_is_risked() -> None:
    """It has to be in the books, so that the payee can settle with it."""
    record = decide(DOUBTED, purchase(200, 5, risk_max=10), None).record
    assert record.voucher == voucher(200)
    with pytest.raises(RiskLimitReached):
        decide(record, purchase(205, 5, risk_max=10), None)


# --- a payer that is behind ------------------------------------------------------------------


def test_a_payer_that_is_behind_is_shown_its_best_voucher() -> None:
    record = decide(RECORD, purchase(100, 100), None).record
    with pytest.raises(InsufficientBalance) as refused:
        decide(record, purchase(99, 5), None)
    assert refused.value.context["acceptedCumulative"] == "100"
    assert refused.value.context["acceptedSignature"] == to_hex(voucher(100).signature)


def test_nobody_else_is_shown_a_signature() -> None:
    record, payment = charge(*metered(10, 1), 10)
    refusals = []
    for order in (
        lambda: decide(record, purchase(10, 5), None),
        lambda: decide(record, purchase(11, 5), None),
        lambda: charge(record, payment, 11),
    ):
        with pytest.raises(InsufficientBalance) as refused:
            order()
        refusals.append(refused.value.context)
    assert not any("acceptedSignature" in context for context in refusals)


class Books(RuleBasedStateMachine):
    """The store's part played by a list: any mix of purchases, retries, releases and top-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.record = RECORD
        self.payments: list[Payment] = []
        self.best = 0
        self.now = NOW
        self.doubted = 0

    @rule(
        cumulative=st.integers(0, 2 * DEPOSIT),
        price=st.integers(0, DEPOSIT),
        key=st.none() | st.sampled_from("abc"),
        resource=st.sampled_from(["GET /a", "GET /b"]),
        is_metered=st.booleans(),
        risk_max=st.none() | st.integers(0, DEPOSIT),
    )
    def buy(
        self,
        cumulative: int,
        price: int,
        key: str | None,
        resource: str,
        is_metered: bool,
        risk_max: int | None,
    ) -> None:
        wanted = replace(
            purchase(cumulative, price, key=key, resource=resource, now=self.now),
            metered=is_metered,
            risk_max=risk_max,
        )
        earlier = self.earlier(wanted)
        before = self.record
        try:
            decision = decide(before, wanted, earlier)
        except (PaymentRefused, RiskLimitReached):
            return
        self.record = decision.record
        self.best = max(self.best, cumulative)
        assert decision.charged == (0 if decision.payment is None or is_metered else price)
        doubted = decision.record.spent - before.spent - decision.charged
        assert doubted >= 0
        assert before.in_doubt or doubted == 0
        assert not decision.record.in_doubt
        if before.in_doubt:
            promised = max(before.accepted, before.chain.settled)
            assert decision.record.spent >= promised, "promised before, and not charged"
        elif decision.charged:
            self.check_risk(risk_max)
        self.doubted += doubted
        assert decision.payment is None or decision.updated is None
        if decision.payment is not None:
            self.payments.append(decision.payment)
        if decision.updated is not None:
            self.payments = [decision.updated if p is earlier else p for p in self.payments]

    def earlier(self, wanted: Purchase) -> Payment | None:
        for payment in reversed(self.payments):
            if wanted.idempotency_key is not None:
                if payment.idempotency_key == wanted.idempotency_key:
                    return payment
            elif (payment.cumulative, payment.resource, payment.idempotency_key) == (
                wanted.voucher.cumulative_amount,
                wanted.resource,
                None,
            ):
                return payment
        return None

    @precondition(lambda self: self.payments)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.payments) - 1))
        attempt = data.draw(st.integers(1, self.payments[index].attempts))
        self.record, self.payments[index] = release(self.record, self.payments[index], attempt)

    @precondition(lambda self: self.payments)
    @rule(
        data=st.data(),
        total=st.integers(0, 2 * DEPOSIT),
        risk_max=st.none() | st.integers(0, DEPOSIT),
    )
    def charge_more(self, data: st.DataObject, total: int, risk_max: int | None) -> None:
        index = data.draw(st.integers(0, len(self.payments) - 1))
        wanted = Charge(CHANNEL_ID, index, total, risk_max=risk_max)
        try:
            decision = decide_charge(self.record, wanted, self.payments[index])
        except (PaymentRefused, RiskLimitReached):
            return
        assert decision.updated is not None
        assert decision.charged == decision.record.spent - self.record.spent
        if decision.charged:
            self.check_risk(risk_max, decision.record)
        assert decision.updated.price == max(total, self.payments[index].price)
        self.record, self.payments[index] = decision.record, decision.updated

    @rule(amount=st.integers(1, DEPOSIT))
    def top_up(self, amount: int) -> None:
        chain = replace(self.record.chain, deposit=self.record.chain.deposit + amount)
        self.record = replace(self.record, chain=chain)

    @rule(data=st.data())
    def chain_settles_or_takes_it_back(self, data: st.DataObject) -> None:
        settled = data.draw(st.integers(0, DEPOSIT))
        chain = replace(self.record.chain, settled=settled)
        self.record = enter_chain(self.record, chain, self.now)

    @rule()
    def restore(self) -> None:
        self.record = replace(self.record, in_doubt=True)

    def check_risk(self, risk_max: int | None, record: ChannelRecord | None = None) -> None:
        after = record or self.record
        assert risk_max is None or after.spent - after.chain.settled <= risk_max

    @invariant()
    def what_is_unsettled_has_an_age(self) -> None:
        assert (self.record.unsettled_since > 0) == (
            self.record.accepted > self.record.chain.settled
        )

    @rule(milliseconds=st.integers(0, 2 * RETRY_WINDOW_MS))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    @invariant()
    def amounts_keep_their_order(self) -> None:
        assert 0 <= self.record.spent <= self.record.accepted <= self.record.chain.deposit

    @invariant()
    def spent_is_the_sum_of_what_was_charged(self) -> None:
        charged = [p.price for p in self.payments if p.outcome is Outcome.CHARGED]
        assert self.record.spent == sum(charged) + self.doubted

    @invariant()
    def best_voucher_is_the_one_held(self) -> None:
        assert self.record.accepted == self.best
        held = self.record.voucher
        assert held is None or held == voucher(self.best)


TestBooks = Books.TestCase
