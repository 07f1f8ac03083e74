"""What every store must do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations

import pytest

from channelpay.errors import (
    AmountExceedsDeposit,
    ChannelClosing,
    ChannelFinalized,
    ChannelNotFound,
    IdempotencyKeyReused,
    InputError,
    InsufficientBalance,
    NotFound,
    PaymentRefused,
    RiskLimitReached,
    StoreUnavailable,
)
from channelpay.protocol.rules import ATTEMPTS_MAX, KEYED_RETRY_WINDOW_MS, RETRY_WINDOW_MS, Outcome
from channelpay.protocol.types import ChannelStatus
from channelpay.store import Accepted, Store, Totals
from tests.store.books import (
    DEPOSIT,
    NOW_MS,
    add,
    channel,
    channel_id,
    charge,
    dump,
    order,
    purchase,
    signature,
    spent_by_payments,
    view,
)


def test_a_new_channel_holds_no_voucher(store: Store) -> None:
    add(store)

    record = store.record(channel_id())

    assert record is not None
    assert record.channel == channel()
    assert (record.accepted, record.spent, record.voucher) == (0, 0, None)


def test_an_unknown_channel_is_not_found(store: Store) -> None:
    assert store.record(channel_id()) is None
    with pytest.raises(ChannelNotFound):
        order(store, purchase(10, 10))
    with pytest.raises(ChannelNotFound):
        store.update_chain(channel_id(), view()).result()


def test_a_purchase_raises_accepted_and_spent_and_enters_one_payment(store: Store) -> None:
    add(store)

    accepted = order(store, purchase(30, 10, key="k"))

    assert (accepted.record.accepted, accepted.record.spent) == (30, 10)
    assert accepted.record.signature == signature(30)
    assert store.record(channel_id()) == accepted.record
    (stored,) = store.payments(channel_id())
    assert stored.payment_id == accepted.payment_id
    assert (stored.payment.cumulative, stored.payment.price) == (30, 10)
    assert (stored.payment.time, stored.payment.idempotency_key) == (NOW_MS, "k")


def test_amounts_beyond_64_bits_are_kept_to_the_unit(store: Store) -> None:
    deposit = 2**96 - 1
    add(store, deposit=deposit)

    order(store, purchase(deposit, deposit - 1))

    record = store.record(channel_id())
    assert record is not None
    assert (record.accepted, record.spent, record.available) == (deposit, deposit - 1, 1)


@pytest.mark.parametrize("arriving", list(permutations((10, 20, 30))))
def test_the_order_in_which_vouchers_arrive_is_irrelevant(
    store: Store, arriving: tuple[int, ...]
) -> None:
    add(store)
    order(store, purchase(30, 0, resource="HEAD"))

    for cumulative in arriving:
        order(store, purchase(cumulative, 10, key=str(cumulative)))

    record = store.record(channel_id())
    assert record is not None
    assert (record.accepted, record.spent, record.signature) == (30, 30, signature(30))


@pytest.mark.parametrize(
    ("cumulative", "price", "error"),
    [(DEPOSIT + 1, 1, AmountExceedsDeposit), (9, 10, InsufficientBalance)],
)
def test_a_refused_purchase_writes_nothing(
    store: Store, cumulative: int, price: int, error: type[PaymentRefused]
) -> None:
    add(store)
    before = dump(store)

    with pytest.raises(error):
        order(store, purchase(cumulative, price))

    assert dump(store) == before


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (ChannelStatus.CLOSING, ChannelClosing),
        (ChannelStatus.FINALIZED, ChannelFinalized),
        (ChannelStatus.ABSENT, ChannelNotFound),
    ],
)
def test_no_voucher_is_taken_on_a_channel_that_is_not_open(
    store: Store, status: ChannelStatus, error: type[PaymentRefused]
) -> None:
    add(store)
    order(store, purchase(20, 0))
    store.update_chain(channel_id(), view(block=11, status=status)).result()
    before = dump(store)

    with pytest.raises(error):
        order(store, purchase(20, 10))

    assert dump(store) == before


def test_the_same_key_is_charged_once(store: Store) -> None:
    add(store)
    first = order(store, purchase(10, 10, key="k"))

    again = order(store, purchase(20, 10, key="k"))

    assert again.payment_id == first.payment_id
    assert (again.record.accepted, again.record.spent) == (20, 10)
    assert len(store.payments(channel_id())) == 1


def test_a_key_buys_one_resource_only(store: Store) -> None:
    add(store)
    order(store, purchase(10, 10, key="k"))
    before = dump(store)

    with pytest.raises(IdempotencyKeyReused):
        order(store, purchase(20, 10, key="k", resource="GET /other"))

    assert dump(store) == before


def test_a_key_is_served_again_for_a_day_only(store: Store) -> None:
    add(store)
    order(store, purchase(10, 10, key="k"))
    order(store, purchase(10, 10, key="k", now=NOW_MS + KEYED_RETRY_WINDOW_MS))
    before = dump(store)

    with pytest.raises(IdempotencyKeyReused):
        order(store, purchase(20, 10, key="k", now=NOW_MS + KEYED_RETRY_WINDOW_MS + 1))

    assert dump(store) == before


def test_the_same_key_on_two_channels_buys_twice(store: Store) -> None:
    add(store, 1)
    add(store, 2)

    for number in (1, 2):
        order(store, purchase(10, 10, key="k", number=number))

    assert [record.spent for record in store.records()] == [10, 10]


def test_without_a_key_the_same_voucher_and_resource_is_a_retry_for_a_while(store: Store) -> None:
    add(store)
    first = order(store, purchase(10, 10))

    again = order(store, purchase(10, 10, now=NOW_MS + RETRY_WINDOW_MS))

    assert again.payment_id == first.payment_id
    with pytest.raises(InsufficientBalance):
        order(store, purchase(10, 10, now=NOW_MS + RETRY_WINDOW_MS + 1))


def test_a_release_gives_the_charge_back_exactly_once(store: Store) -> None:
    add(store)
    kept = order(store, purchase(10, 10, key="kept"))
    failed = order(store, purchase(20, 10, key="failed"))
    assert failed.payment_id is not None

    released = [store.release(failed.payment_id, 1).result() for _ in range(3)]

    assert [payment.outcome for payment in released] == [Outcome.RELEASED] * 3
    record = store.record(channel_id())
    assert record is not None
    assert (record.accepted, record.spent) == (20, 10)
    outcomes = {row.payment_id: row.payment.outcome for row in store.payments(channel_id())}
    assert outcomes == {
        kept.payment_id: Outcome.CHARGED,
        failed.payment_id: Outcome.RELEASED,
    }


def test_after_a_release_the_same_key_is_charged_anew(store: Store) -> None:
    add(store)
    failed = order(store, purchase(10, 10, key="k"))
    assert failed.payment_id is not None
    store.release(failed.payment_id, 1).result()

    again = order(store, purchase(10, 10, key="k"))

    assert again.payment_id != failed.payment_id
    assert again.record.spent == 10
    assert order(store, purchase(10, 10, key="k")).payment_id == again.payment_id


def test_what_a_key_bought_is_found_by_its_channel_unless_it_was_given_back(store: Store) -> None:
    add(store, 1)
    add(store, 2)
    order(store, purchase(30, 10))
    first, second = order(store, purchase(30, 5, key="k")), order(store, purchase(30, 5, key="l"))
    store.release(second.payment_id or 0, second.attempt).result()

    found = store.payment(channel_id(1), "k")

    assert found is not None
    assert (found.payment_id, found.payment) == (first.payment_id, first.payment)
    assert store.payment(channel_id(1), "l") is None
    assert store.payment(channel_id(2), "k") is None
    again = order(store, purchase(30, 7, key="l"))
    bought = store.payment(channel_id(1), "l")
    assert bought is not None
    assert (bought.payment_id, bought.payment.price) == (again.payment_id, 7)


@pytest.mark.parametrize("text", [{"resource": "GET /a\0b"}, {"key": "a\0b"}])
def test_what_not_every_store_keeps_is_in_no_order(text: dict[str, str]) -> None:
    """In PostgreSQL it would fail all orders that are written with it."""
    with pytest.raises(InputError):
        purchase(100, 10, **text)  # type: ignore[arg-type]


def test_a_payment_is_found_by_its_number(store: Store) -> None:
    add(store, 1)
    first, second = order(store, purchase(30, 10)), order(store, purchase(30, 5, key="k"))
    store.release(first.payment_id or 0, first.attempt).result()

    for stored in store.payments(channel_id(1)):
        assert store.payment_numbered(stored.payment_id) == stored
    assert store.payment_numbered((second.payment_id or 0) + 1) is None


def test_a_retry_that_fails_does_not_take_the_delivered_charge_back(store: Store) -> None:
    add(store)
    charged = order(store, purchase(10, 10, key="k"))
    assert charged.payment_id is not None
    again = order(store, purchase(10, 10, key="k"))
    assert (charged.attempt, again.attempt) == (1, 2)

    after_one_failed = store.release(charged.payment_id, again.attempt).result()
    after_both_failed = store.release(charged.payment_id, charged.attempt).result()

    assert (after_one_failed.outcome, after_one_failed.served) == (Outcome.CHARGED, 1)
    assert (after_both_failed.outcome, after_both_failed.served) == (Outcome.RELEASED, 0)
    assert spent_by_payments(store) == 0


def test_a_release_that_is_repeated_counts_once_beside_a_retry(store: Store) -> None:
    """Whoever does not know whether its release was committed repeats it."""
    add(store)
    charged = order(store, purchase(10, 10, key="k"))
    assert charged.payment_id is not None
    order(store, purchase(10, 10, key="k"))

    repeated = [store.release(charged.payment_id, charged.attempt).result() for _ in range(3)]

    assert {payment.outcome for payment in repeated} == {Outcome.CHARGED}
    assert spent_by_payments(store) == 10


def test_a_charge_is_of_the_request_that_it_names(store: Store) -> None:
    add(store)
    order(store, purchase(100, 10, key="k", metered=True))
    again = order(store, purchase(100, 10, key="k", metered=True))

    charged = order(store, charge(again.payment_id, 30, attempt=again.attempt))

    assert charged.attempt == again.attempt == 2


def test_an_unknown_payment_cannot_be_released(store: Store) -> None:
    with pytest.raises(NotFound):
        store.release(7, 1).result()


def test_a_begun_close_takes_the_last_voucher_and_none_after_it(store: Store) -> None:
    add(store)
    order(store, purchase(10, 10))

    begun = store.begin_close(channel_id(), purchase(30, 0).voucher).result()

    assert store.record(channel_id()) == begun
    assert (begun.accepted, begun.spent, begun.signature) == (30, 10, signature(30))
    with pytest.raises(ChannelClosing):
        order(store, purchase(40, 10))


def test_vouchers_are_taken_again_only_when_every_begun_close_failed(store: Store) -> None:
    add(store)
    store.begin_close(channel_id(), None).result()
    store.begin_close(channel_id(), None).result()

    store.close_failed(channel_id()).result()
    with pytest.raises(ChannelClosing):
        order(store, purchase(10, 10))
    store.close_failed(channel_id()).result()

    assert order(store, purchase(10, 10)).record.spent == 10


def test_news_from_the_chain_and_releases_leave_a_begun_close_alone(store: Store) -> None:
    add(store)
    charged = order(store, purchase(10, 10))
    assert charged.payment_id is not None
    store.begin_close(channel_id(), None).result()

    store.release(charged.payment_id, 1).result()
    store.update_chain(channel_id(), view(2 * DEPOSIT, block=11)).result()
    store.add_channel(channel_id(), channel(), view(block=12)).result()

    with pytest.raises(ChannelClosing):
        order(store, purchase(20, 10))


def test_a_close_that_is_refused_writes_nothing(store: Store) -> None:
    add(store)
    before = dump(store)

    with pytest.raises(AmountExceedsDeposit):
        store.begin_close(channel_id(), purchase(DEPOSIT + 1, 0).voucher).result()

    assert dump(store) == before


def test_an_older_view_of_the_chain_undoes_nothing(store: Store) -> None:
    add(store)
    store.update_chain(channel_id(), view(2 * DEPOSIT, block=12)).result()

    late = store.update_chain(channel_id(), view(DEPOSIT, block=11)).result()
    added_late = store.add_channel(channel_id(), channel(), view(DEPOSIT, block=11)).result()

    assert late.chain.deposit == added_late.chain.deposit == 2 * DEPOSIT


def test_a_channel_added_again_keeps_its_books(store: Store) -> None:
    add(store)
    order(store, purchase(30, 10))

    record = store.add_channel(channel_id(), channel(), view(2 * DEPOSIT, block=12)).result()

    assert (record.accepted, record.spent, record.chain.deposit) == (30, 10, 2 * DEPOSIT)


def test_a_voucher_covered_by_a_top_up_is_taken(store: Store) -> None:
    add(store)
    store.update_chain(channel_id(), view(DEPOSIT + 5, block=11)).result()

    accepted = order(store, purchase(DEPOSIT + 5, DEPOSIT + 5))

    assert accepted.record.available == 0


def test_records_come_in_the_order_of_their_ids(store: Store) -> None:
    for number in (3, 1, 2):
        add(store, number)

    ids = [record.channel_id for record in store.records()]

    assert ids == sorted(map(channel_id, (1, 2, 3)))


def test_orders_of_one_list_are_decided_in_their_turn(store: Store) -> None:
    add(store, 1)
    add(store, 2)

    answers = store.accept(
        [
            purchase(10, 10, key="a"),
            purchase(10, 10, key="b"),
            purchase(20, 10, key="b"),
            purchase(20, 10, key="b"),
            purchase(DEPOSIT + 1, 1, key="c"),
            purchase(10, 10, number=2),
            purchase(10, 10, number=2),
            purchase(10, 10, number=3),
        ]
    ).result()

    refused = [type(one) for one in answers if not isinstance(one, Accepted)]
    assert refused == [InsufficientBalance, AmountExceedsDeposit, ChannelNotFound]
    first, _, second, retry, _, third, keyless_retry, _ = answers
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert isinstance(third, Accepted)
    assert isinstance(retry, Accepted)
    assert isinstance(keyless_retry, Accepted)
    assert len({first.payment_id, second.payment_id, third.payment_id}) == 3
    assert (retry.payment_id, keyless_retry.payment_id) == (second.payment_id, third.payment_id)
    assert [one.charged for one in (first, second, retry, third)] == [10, 10, 0, 10]
    assert [record.spent for record in store.records()].count(20) == 1
    assert spent_by_payments(store) == 30


def test_no_orders_have_no_answers(store: Store) -> None:
    assert store.accept([]).result() == []


def test_a_list_longer_than_any_statement_is_one_list(store: Store) -> None:
    add(store, deposit=10**6)

    answers = store.accept([purchase(10**6, 1, key=str(n)) for n in range(1500)]).result()

    assert [one.record.spent for one in answers if isinstance(one, Accepted)] == [*range(1, 1501)]
    assert spent_by_payments(store) == 1500


def test_a_metered_purchase_needs_one_unit_and_charges_nothing(store: Store) -> None:
    add(store)
    with pytest.raises(InsufficientBalance):
        order(store, purchase(9, 10, key="k", metered=True))

    begun = order(store, purchase(10, 10, key="k", metered=True))

    assert (begun.record.accepted, begun.record.spent, begun.charged) == (10, 0, 0)
    (stored,) = store.payments(channel_id())
    assert (stored.payment_id, stored.payment.price) == (begun.payment_id, 0)


def test_a_charge_raises_the_price_of_its_payment_to_the_total(store: Store) -> None:
    add(store)
    begun = order(store, purchase(100, 10, key="k", metered=True))

    charges = [order(store, charge(begun.payment_id, total)) for total in (10, 30, 30, 20, 40)]

    assert [one.record.spent for one in charges] == [10, 30, 30, 30, 40]
    assert [one.charged for one in charges] == [10, 20, 0, 0, 10]
    assert {one.payment_id for one in charges} == {begun.payment_id}
    (stored,) = store.payments(channel_id())
    assert stored.payment.price == 40


def test_a_broken_stream_that_is_repeated_does_not_pay_twice(store: Store) -> None:
    add(store)
    begun = order(store, purchase(100, 10, key="k", metered=True))
    order(store, charge(begun.payment_id, 50))

    again = order(store, purchase(100, 10, key="k", metered=True))
    order(store, charge(again.payment_id, 20))

    assert again.payment_id == begun.payment_id
    assert spent_by_payments(store) == 50


def test_a_charge_beyond_what_is_available_is_refused_and_written_nowhere(store: Store) -> None:
    add(store)
    begun = order(store, purchase(20, 10, key="k", metered=True))
    order(store, charge(begun.payment_id, 20))
    before = dump(store)

    with pytest.raises(InsufficientBalance):
        order(store, charge(begun.payment_id, 21))

    assert dump(store) == before
    order(store, purchase(30, 0, resource="HEAD"))
    assert order(store, charge(begun.payment_id, 21)).record.spent == 21


def test_a_charge_belongs_to_a_payment_of_its_channel(store: Store) -> None:
    add(store, 1)
    add(store, 2)
    begun = order(store, purchase(20, 10, key="k", metered=True))
    assert begun.payment_id is not None

    for wrong in (charge(begun.payment_id, 10, number=2), charge(begun.payment_id + 1, 10)):
        with pytest.raises(NotFound):
            order(store, wrong)

    assert spent_by_payments(store) == 0


def test_a_purchase_and_its_charges_fit_into_one_list_of_others(store: Store) -> None:
    add(store)
    begun = order(store, purchase(100, 10, key="k", metered=True))

    answers = store.accept(
        [charge(begun.payment_id, 10), purchase(100, 30, key="other"), charge(begun.payment_id, 60)]
    ).result()

    assert [one.record.spent for one in answers if isinstance(one, Accepted)] == [10, 40, 90]
    assert spent_by_payments(store) == 90


def test_a_released_stream_gives_all_of_its_charges_back(store: Store) -> None:
    add(store)
    begun = order(store, purchase(100, 10, key="k", metered=True))
    order(store, charge(begun.payment_id, 70))
    assert begun.payment_id is not None

    store.release(begun.payment_id, 1).result()

    assert spent_by_payments(store) == 0
    with pytest.raises(PaymentRefused):
        order(store, charge(begun.payment_id, 80))


def test_what_is_unsettled_is_summed_by_token(store: Store) -> None:
    assert store.unsettled() == {}
    for number, status, settled in (
        (1, ChannelStatus.OPEN, 0),
        (2, ChannelStatus.CLOSING, 10),
        (3, ChannelStatus.FINALIZED, 0),
        (4, ChannelStatus.OPEN, 50),
    ):
        add(store, number)
        order(store, purchase(30, 0, number=number))
        now = view(block=11, status=status, settled=settled)
        store.update_chain(channel_id(number), now).result()

    assert store.unsettled() == {channel().token: 30 + 20}


def test_totals_are_over_all_channels_by_token(store: Store) -> None:
    assert store.totals() == {}
    for number, status in ((1, ChannelStatus.OPEN), (2, ChannelStatus.FINALIZED)):
        add(store, number)
        order(store, purchase(30, 20, number=number))
        now = view(block=11, status=status, settled=10)
        store.update_chain(channel_id(number), now).result()

    assert store.totals() == {
        channel().token: Totals(channels=2, deposit=2 * DEPOSIT, accepted=60, spent=40, settled=20)
    }


def test_owed_are_live_channels_with_something_unsettled_or_a_begun_close(store: Store) -> None:
    for number in range(1, 7):
        add(store, number)
    for number in (1, 2, 3, 4):
        order(store, purchase(30, 10, number=number))
    store.update_chain(channel_id(2), view(block=11, settled=30)).result()
    closing = view(block=11, status=ChannelStatus.CLOSING, settled=29)
    store.update_chain(channel_id(3), closing).result()
    gone = view(block=11, status=ChannelStatus.FINALIZED)
    store.update_chain(channel_id(4), gone).result()
    store.begin_close(channel_id(5), None).result()

    owed = store.owed()

    assert [record.channel_id for record in owed] == sorted(map(channel_id, (1, 3, 5)))
    assert owed == [one for one in store.records() if one in owed]


def test_what_is_unsettled_has_the_time_of_its_first_voucher(store: Store) -> None:
    add(store)
    order(store, purchase(10, 10, key="a", now=NOW_MS))
    order(store, purchase(20, 10, key="b", now=NOW_MS + 5))
    order(store, purchase(30, 10, key="c", now=NOW_MS + 6))

    (record,) = store.records()
    settled = store.update_chain(channel_id(), view(block=11, settled=30)).result()
    again = order(store, purchase(40, 10, key="d", now=NOW_MS + 7)).record

    assert record.unsettled_since == NOW_MS
    assert (settled.unsettled_since, again.unsettled_since) == (0, NOW_MS + 7)
    assert store.record(channel_id()) == again


def test_an_order_beyond_the_risk_is_refused_until_the_payee_has_settled(store: Store) -> None:
    add(store)
    order(store, purchase(30, 20, key="a", risk_max=20))
    before = dump(store)

    with pytest.raises(RiskLimitReached):
        order(store, purchase(31, 1, key="b", risk_max=20))

    assert dump(store) == before
    store.update_chain(channel_id(), view(block=11, settled=30)).result()
    assert order(store, purchase(31, 1, key="b", risk_max=20)).record.spent == 21


# --- after a reorganisation ----------------------------------------------------------------------


def test_after_a_reorganisation_an_earlier_block_counts(store: Store) -> None:
    add(store)
    order(store, purchase(30, 10))
    store.update_chain(channel_id(), view(2 * DEPOSIT, block=20, settled=30)).result()

    rewound = store.update_chain(channel_id(), view(block=12), rewound=True).result()

    assert (rewound.chain.deposit, rewound.unsettled, rewound.spent) == (DEPOSIT, 30, 10)
    assert rewound.unsettled_since > 0
    assert store.owed() == [rewound]
    # From here on the chain is followed as before.
    assert store.update_chain(channel_id(), view(5, block=11)).result() == rewound
    assert store.update_chain(channel_id(), view(5, block=13)).result().chain.deposit == 5


def test_vouchers_from_before_top_ups_are_kept_to_the_byte(store: Store) -> None:
    add(store)
    for count, cumulative in enumerate((30, 1_040), start=1):
        order(store, purchase(cumulative, 1))
        topped_up = view(DEPOSIT + 50 * count, block=20 + count)
        store.update_chain(channel_id(), topped_up).result()
    order(store, purchase(1_090, 1))

    rewound = store.update_chain(channel_id(), view(block=12), rewound=True).result()

    kept = (30, signature(30)), (1_040, signature(1_040))
    assert (rewound.earlier, rewound.accepted, rewound.unsettled) == (kept, 1_090, 30)
    assert store.record(channel_id()) == rewound
    assert store.owed() == [rewound]


def test_a_close_that_is_undone_is_owed_and_takes_no_voucher(store: Store) -> None:
    add(store)
    order(store, purchase(30, 10))
    closed = view(block=20, status=ChannelStatus.FINALIZED, settled=30)
    store.update_chain(channel_id(), closed).result()
    assert store.owed() == []

    back = store.update_chain(channel_id(), view(block=19), rewound=True).result()

    assert store.owed() == [back]
    assert (back.closes_begun, back.accepted, back.signature) == (1, 30, signature(30))
    with pytest.raises(ChannelClosing):
        order(store, purchase(40, 10))


def test_the_channels_read_after_a_block_are_those_that_it_may_change(store: Store) -> None:
    for number, block in ((1, 10), (2, 11), (3, 12)):
        store.add_channel(channel_id(number), channel(number), view(block=block)).result()
    store.update_chain(channel_id(1), view(block=13)).result()

    seen = {record.channel_id for record in store.seen_after(11)}

    assert seen == {channel_id(1), channel_id(3)}


# --- in doubt ------------------------------------------------------------------------------------


def test_every_live_channel_is_marked_in_doubt(store: Store) -> None:
    for number in (1, 2, 3):
        add(store, number)
    order(store, purchase(30, 10, number=1))
    final = view(block=11, status=ChannelStatus.FINALIZED)
    store.update_chain(channel_id(3), final).result()

    assert store.mark_in_doubt().result() == 2

    marked = {record.channel_id: record.in_doubt for record in store.records()}
    assert marked == {channel_id(1): True, channel_id(2): True, channel_id(3): False}


def test_the_first_voucher_in_doubt_charges_what_was_promised_and_clears_the_mark(
    store: Store,
) -> None:
    add(store)
    order(store, purchase(30, 10))
    store.mark_in_doubt().result()

    first = order(store, purchase(100, 10, key="a"))
    second = order(store, purchase(110, 5, key="b"))

    assert (first.record.spent, first.charged, first.record.in_doubt) == (100, 10, False)
    assert (second.record.spent, second.record.available) == (105, 5)
    assert store.record(channel_id()) == second.record


def test_a_channel_may_be_entered_in_doubt_and_a_known_one_stays_as_it_is(store: Store) -> None:
    entered = store.add_channel(channel_id(), channel(), view(), in_doubt=True).result()
    add(store, 2)
    known = store.add_channel(channel_id(2), channel(2), view(block=11), in_doubt=True).result()

    assert (entered.in_doubt, known.in_doubt) == (True, False)
    assert store.record(channel_id()) == entered


def test_one_list_in_doubt_is_decided_in_its_turn(store: Store) -> None:
    add(store)
    store.mark_in_doubt().result()

    answers = store.accept([purchase(50 + n, 1, key=str(n)) for n in range(3)]).result()

    assert [one.record.spent for one in answers if isinstance(one, Accepted)] == [50, 51, 52]
    (record,) = store.records()
    assert (record.spent, record.in_doubt) == (52, False)


def test_long_and_foreign_texts_are_kept_to_the_character(store: Store) -> None:
    add(store)
    resource = (
        "GET https://site.example/" + "".join(chr(0x100 + n) for n in range(2000)) + "\\\"'{},"
    )
    key = "~" * 255

    first = order(store, purchase(10, 10, resource=resource, key=key))
    again = order(store, purchase(10, 10, resource=resource, key=key))
    keyless = [order(store, purchase(20, 10, resource=resource)) for _ in range(2)]

    assert again.payment_id == first.payment_id
    assert keyless[0].payment_id == keyless[1].payment_id != first.payment_id
    assert {row.payment.resource for row in store.payments(channel_id())} == {resource}


def test_nothing_waits_when_everything_is_answered(store: Store) -> None:
    add(store)
    order(store, purchase(10, 10))

    assert store.waiting == 0


def test_each_reader_has_its_own_cursor(store: Store) -> None:
    assert store.cursor("one") is None

    store.save_cursor("one", "10").result()
    store.save_cursor("one", "11").result()
    store.save_cursor("two", "20").result()

    assert (store.cursor("one"), store.cursor("two")) == ("11", "20")


def test_parallel_purchases_on_one_channel_all_succeed(store: Store) -> None:
    add(store)

    def buy(number: int) -> None:
        order(store, purchase(DEPOSIT, 10, key=str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(buy, range(DEPOSIT // 10)))

    record = store.record(channel_id())
    assert record is not None
    assert record.spent == DEPOSIT
    assert len(store.payments(channel_id())) == DEPOSIT // 10


def test_parallel_requests_with_one_key_are_charged_once(store: Store) -> None:
    add(store)

    with ThreadPoolExecutor(ATTEMPTS_MAX) as pool:
        wanted = [purchase(10, 10, key="k")] * ATTEMPTS_MAX
        accepted = list(pool.map(lambda one: order(store, one), wanted))

    assert len({one.payment_id for one in accepted}) == 1
    assert {one.record.spent for one in accepted} == {10}


@pytest.mark.parametrize("key", ["k", None])
def test_one_payment_serves_so_many_requests_and_no_more(store: Store, key: str | None) -> None:
    add(store)
    for _ in range(ATTEMPTS_MAX):
        assert order(store, purchase(10, 10, key=key)).record.spent == 10

    with pytest.raises(PaymentRefused):
        order(store, purchase(10, 10, key=key))


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.accept([purchase(10, 10)]),
        lambda store: store.release(1, 1),
        lambda store: store.save_cursor("one", "1"),
        lambda store: store.take_lease("settle", "one", 1),
    ],
    ids=["accept", "release", "save_cursor", "take_lease"],
)
def test_a_closed_store_takes_nothing(store: Store, write: Callable[[Store], object]) -> None:
    add(store)
    store.close()
    store.close()

    with pytest.raises(StoreUnavailable):
        write(store).result()  # type: ignore[attr-defined]
