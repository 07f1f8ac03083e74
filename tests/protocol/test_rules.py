"""The payee's books: what a voucher buys, in any order, and what it does not."""

from __future__ import annotations

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
)
from channelpay.protocol.rules import (
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
) -> Purchase:
    return Purchase(voucher(cumulative), price, resource, now, key, metered)


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
        charge(begin_close(record, None), payment, 1)
    with pytest.raises(PaymentRefused):
        charge(*release(record, payment), 1)


def test_what_a_metered_response_cost_is_given_back_as_a_whole() -> None:
    record, payment = release(*charge(*metered(10, 1), 7))
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
    record, released = release(first.record, bought(first))
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
    record = begin_close(RECORD, voucher(10))
    assert (record.accepted, record.spent, record.voucher) == (10, 0, voucher(10))
    with pytest.raises(ChannelClosing):
        decide(record, purchase(20, 5), None)


def test_begun_close_serves_no_retry() -> None:
    first = decide(RECORD, purchase(10, 5, key="k"), None)
    with pytest.raises(ChannelClosing):
        decide(begin_close(first.record, None), purchase(10, 5, key="k"), bought(first))


def test_vouchers_are_taken_again_once_every_begun_close_failed() -> None:
    twice = begin_close(begin_close(RECORD, None), None)
    once = close_failed(twice)
    with pytest.raises(ChannelClosing):
        decide(once, purchase(10, 5), None)
    assert close_failed(once) == close_failed(close_failed(once)) == RECORD


def test_close_may_be_begun_while_the_payer_requests_one() -> None:
    record = replace(RECORD, chain=ChannelState(ChannelStatus.CLOSING, DEPOSIT))
    assert begin_close(record, voucher(10)).voucher == voucher(10)


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
        begin_close(record, voucher(cumulative))


# --- release ---------------------------------------------------------------------------------


def test_release_gives_the_price_back_once() -> None:
    first = decide(RECORD, purchase(10, 7), None)
    once = release(first.record, bought(first))
    assert once[0] == replace(first.record, spent=0)
    assert once[1] == replace(bought(first), outcome=Outcome.RELEASED, attempts=0)
    assert release(*once) == once


def test_charge_stays_while_one_of_its_requests_may_be_served() -> None:
    first = decide(RECORD, purchase(10, 7, key="k"), None)
    again = decide(first.record, purchase(10, 7, key="k"), bought(first))
    record, payment = release(again.record, served_again(again))
    assert (record.spent, payment) == (7, bought(first))
    assert release(record, payment)[0].spent == 0


class Books(RuleBasedStateMachine):
    """The store's part played by a list: any mix of purchases, retries, releases and top-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.record = RECORD
        self.payments: list[Payment] = []
        self.best = 0
        self.now = NOW

    @rule(
        cumulative=st.integers(0, 2 * DEPOSIT),
        price=st.integers(0, DEPOSIT),
        key=st.none() | st.sampled_from("abc"),
        resource=st.sampled_from(["GET /a", "GET /b"]),
        is_metered=st.booleans(),
    )
    def buy(
        self, cumulative: int, price: int, key: str | None, resource: str, is_metered: bool
    ) -> None:
        wanted = purchase(
            cumulative, price, key=key, resource=resource, now=self.now, metered=is_metered
        )
        earlier = self.earlier(wanted)
        before = self.record
        try:
            decision = decide(before, wanted, earlier)
        except PaymentRefused:
            return
        self.record = decision.record
        self.best = max(self.best, cumulative)
        charged = decision.record.spent - before.spent
        assert charged == (0 if decision.payment is None or is_metered else price)
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
        self.record, self.payments[index] = release(self.record, self.payments[index])

    @precondition(lambda self: self.payments)
    @rule(data=st.data(), total=st.integers(0, 2 * DEPOSIT))
    def charge_more(self, data: st.DataObject, total: int) -> None:
        index = data.draw(st.integers(0, len(self.payments) - 1))
        try:
            decision = decide_charge(
                self.record, Charge(CHANNEL_ID, index, total), self.payments[index]
            )
        except PaymentRefused:
            return
        assert decision.updated is not None
        assert decision.updated.price == max(total, self.payments[index].price)
        self.record, self.payments[index] = decision.record, decision.updated

    @rule(amount=st.integers(1, DEPOSIT))
    def top_up(self, amount: int) -> None:
        chain = replace(self.record.chain, deposit=self.record.chain.deposit + amount)
        self.record = replace(self.record, chain=chain)

    @rule(milliseconds=st.integers(0, 2 * RETRY_WINDOW_MS))
    def wait(self, milliseconds: int) -> None:
        self.now += milliseconds

    @invariant()
    def amounts_keep_their_order(self) -> None:
        assert 0 <= self.record.spent <= self.record.accepted <= self.record.chain.deposit

    @invariant()
    def spent_is_the_sum_of_what_was_charged(self) -> None:
        charged = [p.price for p in self.payments if p.outcome is Outcome.CHARGED]
        assert self.record.spent == sum(charged)

    @invariant()
    def best_voucher_is_the_one_held(self) -> None:
        assert self.record.accepted == self.best
        held = self.record.voucher
        assert held is None or held == voucher(self.best)


TestBooks = Books.TestCase
