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
    InsufficientBalance,
    NotFound,
    PaymentRefused,
    StoreUnavailable,
)
from channelpay.protocol.rules import KEYED_RETRY_WINDOW_MS, RETRY_WINDOW_MS, Outcome
from channelpay.protocol.types import ChannelStatus
from channelpay.store import Store
from tests.store.books import (
    DEPOSIT,
    NOW_MS,
    add,
    channel,
    channel_id,
    dump,
    purchase,
    signature,
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
        store.accept(purchase(10, 10)).result()
    with pytest.raises(ChannelNotFound):
        store.update_chain(channel_id(), view()).result()


def test_a_purchase_raises_accepted_and_spent_and_enters_one_payment(store: Store) -> None:
    add(store)

    accepted = store.accept(purchase(30, 10, key="k")).result()

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

    store.accept(purchase(deposit, deposit - 1)).result()

    record = store.record(channel_id())
    assert record is not None
    assert (record.accepted, record.spent, record.available) == (deposit, deposit - 1, 1)


@pytest.mark.parametrize("order", list(permutations((10, 20, 30))))
def test_the_order_in_which_vouchers_arrive_is_irrelevant(
    store: Store, order: tuple[int, ...]
) -> None:
    add(store)
    store.accept(purchase(30, 0, resource="HEAD")).result()

    for cumulative in order:
        store.accept(purchase(cumulative, 10, key=str(cumulative))).result()

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
        store.accept(purchase(cumulative, price)).result()

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
    store.accept(purchase(20, 0)).result()
    store.update_chain(channel_id(), view(block=11, status=status)).result()
    before = dump(store)

    with pytest.raises(error):
        store.accept(purchase(20, 10)).result()

    assert dump(store) == before


def test_the_same_key_is_charged_once(store: Store) -> None:
    add(store)
    first = store.accept(purchase(10, 10, key="k")).result()

    again = store.accept(purchase(20, 10, key="k")).result()

    assert again.payment_id == first.payment_id
    assert (again.record.accepted, again.record.spent) == (20, 10)
    assert len(store.payments(channel_id())) == 1


def test_a_key_buys_one_resource_only(store: Store) -> None:
    add(store)
    store.accept(purchase(10, 10, key="k")).result()
    before = dump(store)

    with pytest.raises(IdempotencyKeyReused):
        store.accept(purchase(20, 10, key="k", resource="GET /other")).result()

    assert dump(store) == before


def test_a_key_is_served_again_for_a_day_only(store: Store) -> None:
    add(store)
    store.accept(purchase(10, 10, key="k")).result()
    store.accept(purchase(10, 10, key="k", now=NOW_MS + KEYED_RETRY_WINDOW_MS)).result()
    before = dump(store)

    with pytest.raises(IdempotencyKeyReused):
        store.accept(purchase(20, 10, key="k", now=NOW_MS + KEYED_RETRY_WINDOW_MS + 1)).result()

    assert dump(store) == before


def test_the_same_key_on_two_channels_buys_twice(store: Store) -> None:
    add(store, 1)
    add(store, 2)

    for number in (1, 2):
        store.accept(purchase(10, 10, key="k", number=number)).result()

    assert [record.spent for record in store.records()] == [10, 10]


def test_without_a_key_the_same_voucher_and_resource_is_a_retry_for_a_while(store: Store) -> None:
    add(store)
    first = store.accept(purchase(10, 10)).result()

    again = store.accept(purchase(10, 10, now=NOW_MS + RETRY_WINDOW_MS)).result()

    assert again.payment_id == first.payment_id
    with pytest.raises(InsufficientBalance):
        store.accept(purchase(10, 10, now=NOW_MS + RETRY_WINDOW_MS + 1)).result()


def test_a_release_gives_the_charge_back_exactly_once(store: Store) -> None:
    add(store)
    kept = store.accept(purchase(10, 10, key="kept")).result()
    failed = store.accept(purchase(20, 10, key="failed")).result()
    assert failed.payment_id is not None

    released = [store.release(failed.payment_id).result() for _ in range(3)]

    assert [record.spent for record in released] == [10, 10, 10]
    assert released[0].accepted == 20
    outcomes = {row.payment_id: row.payment.outcome for row in store.payments(channel_id())}
    assert outcomes == {
        kept.payment_id: Outcome.CHARGED,
        failed.payment_id: Outcome.RELEASED,
    }


def test_after_a_release_the_same_key_is_charged_anew(store: Store) -> None:
    add(store)
    failed = store.accept(purchase(10, 10, key="k")).result()
    assert failed.payment_id is not None
    store.release(failed.payment_id).result()

    again = store.accept(purchase(10, 10, key="k")).result()

    assert again.payment_id != failed.payment_id
    assert again.record.spent == 10


def test_a_retry_that_fails_does_not_take_the_delivered_charge_back(store: Store) -> None:
    add(store)
    charged = store.accept(purchase(10, 10, key="k")).result()
    assert charged.payment_id is not None
    store.accept(purchase(10, 10, key="k")).result()

    after_one_failed = store.release(charged.payment_id).result()
    after_both_failed = store.release(charged.payment_id).result()

    assert (after_one_failed.spent, after_both_failed.spent) == (10, 0)


def test_an_unknown_payment_cannot_be_released(store: Store) -> None:
    with pytest.raises(NotFound):
        store.release(7).result()


def test_a_begun_close_takes_the_last_voucher_and_none_after_it(store: Store) -> None:
    add(store)
    store.accept(purchase(10, 10)).result()

    begun = store.begin_close(channel_id(), purchase(30, 0).voucher).result()

    assert store.record(channel_id()) == begun
    assert (begun.accepted, begun.spent, begun.signature) == (30, 10, signature(30))
    with pytest.raises(ChannelClosing):
        store.accept(purchase(40, 10)).result()


def test_vouchers_are_taken_again_only_when_every_begun_close_failed(store: Store) -> None:
    add(store)
    store.begin_close(channel_id(), None).result()
    store.begin_close(channel_id(), None).result()

    store.close_failed(channel_id()).result()
    with pytest.raises(ChannelClosing):
        store.accept(purchase(10, 10)).result()
    store.close_failed(channel_id()).result()

    assert store.accept(purchase(10, 10)).result().record.spent == 10


def test_news_from_the_chain_and_releases_leave_a_begun_close_alone(store: Store) -> None:
    add(store)
    charged = store.accept(purchase(10, 10)).result()
    assert charged.payment_id is not None
    store.begin_close(channel_id(), None).result()

    store.release(charged.payment_id).result()
    store.update_chain(channel_id(), view(2 * DEPOSIT, block=11)).result()
    store.add_channel(channel_id(), channel(), view(block=12)).result()

    with pytest.raises(ChannelClosing):
        store.accept(purchase(20, 10)).result()


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
    store.accept(purchase(30, 10)).result()

    record = store.add_channel(channel_id(), channel(), view(2 * DEPOSIT, block=12)).result()

    assert (record.accepted, record.spent, record.chain.deposit) == (30, 10, 2 * DEPOSIT)


def test_a_voucher_covered_by_a_top_up_is_taken(store: Store) -> None:
    add(store)
    store.update_chain(channel_id(), view(DEPOSIT + 5, block=11)).result()

    accepted = store.accept(purchase(DEPOSIT + 5, DEPOSIT + 5)).result()

    assert accepted.record.available == 0


def test_records_come_in_the_order_of_their_ids(store: Store) -> None:
    for number in (3, 1, 2):
        add(store, number)

    ids = [record.channel_id for record in store.records()]

    assert ids == sorted(map(channel_id, (1, 2, 3)))


def test_each_reader_has_its_own_cursor(store: Store) -> None:
    assert store.cursor("one") is None

    store.save_cursor("one", "10").result()
    store.save_cursor("one", "11").result()
    store.save_cursor("two", "20").result()

    assert (store.cursor("one"), store.cursor("two")) == ("11", "20")


def test_parallel_purchases_on_one_channel_all_succeed(store: Store) -> None:
    add(store)

    def buy(number: int) -> None:
        store.accept(purchase(DEPOSIT, 10, key=str(number))).result()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(buy, range(DEPOSIT // 10)))

    record = store.record(channel_id())
    assert record is not None
    assert record.spent == DEPOSIT
    assert len(store.payments(channel_id())) == DEPOSIT // 10


def test_parallel_requests_with_one_key_are_charged_once(store: Store) -> None:
    add(store)

    with ThreadPoolExecutor(8) as pool:
        accepted = list(
            pool.map(lambda _: store.accept(purchase(10, 10, key="k")).result(), range(32))
        )

    assert len({one.payment_id for one in accepted}) == 1
    assert {one.record.spent for one in accepted} == {10}


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.accept(purchase(10, 10)),
        lambda store: store.release(1),
        lambda store: store.save_cursor("one", "1"),
    ],
    ids=["accept", "release", "save_cursor"],
)
def test_a_closed_store_takes_nothing(store: Store, write: Callable[[Store], object]) -> None:
    add(store)
    store.close()
    store.close()

    with pytest.raises(StoreUnavailable):
        write(store).result()  # type: ignore[attr-defined]
