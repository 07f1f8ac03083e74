"""What every store must do with entries: they change with the sale, or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from channelpay.errors import (
    ChannelClosing,
    ChannelFinalized,
    ChannelNotFound,
    ChannelPayError,
    ConfigError,
    IdempotencyKeyReused,
    NotFound,
    PaymentRefused,
    PriceRaised,
)
from channelpay.protocol.entries import (
    STATE_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    Entries,
    EntryKey,
    EntryState,
    Undo,
)
from channelpay.protocol.rules import PLAIN, REFUND, Amend, Outcome, Sale
from channelpay.protocol.types import ChannelStatus
from channelpay.store import Accepted, Store
from tests.store.books import (
    NOW_MS,
    add,
    channel_id,
    charge,
    dump,
    order,
    purchase,
    spent_by_payments,
    view,
)
from tests.store.terms import (
    ACCOUNT,
    COUPON,
    PASS,
    Adding,
    Selling,
    amend,
    put,
    read,
    refund,
    stated,
)


def test_the_price_of_the_terms_is_charged_and_their_entries_change_with_it(store: Store) -> None:
    add(store)
    put(store, COUPON, 1)

    sold = order(store, purchase(100, 50, terms=Adding({ACCOUNT: 1, COUPON: -1}, off=20)))

    assert (sold.charged, sold.record.spent) == (30, 30)
    assert (read(store, ACCOUNT), read(store, COUPON)) == (1, 0)
    assert sold.entries == {ACCOUNT: {"n": 1}, COUPON: {"n": 0}}
    (stored,) = store.payments(channel_id())
    assert stored.payment == sold.payment
    assert stored.payment.details == '{"list":"50","off":"20"}'
    assert stored.payment.undo == (Undo(ACCOUNT, {"n": -1}), Undo(COUPON, {"n": 1}))


def test_a_plain_purchase_has_a_plain_payment_and_touches_no_entry(store: Store) -> None:
    add(store)
    put(store, ACCOUNT, 5)

    sold = order(store, purchase(100, 50))

    assert sold.payment is not None
    assert sold.payment.sold == PLAIN
    assert sold.entries == {}
    assert read(store, ACCOUNT) == 5


@pytest.mark.parametrize(
    ("cumulative", "coupon"), [(10, 1), (100, 0)], ids=["too little money", "a coupon used up"]
)
def test_a_refused_order_changes_nothing(store: Store, cumulative: int, coupon: int) -> None:
    add(store)
    put(store, COUPON, coupon)
    before = dump(store)

    with pytest.raises(PaymentRefused):
        order(store, purchase(cumulative, 50, terms=Adding({ACCOUNT: 1, COUPON: -1}, off=10)))

    assert dump(store) == before
    assert store.entry(ACCOUNT) is None
    assert read(store, COUPON) == coupon


def test_an_order_sees_what_the_order_before_it_changed(store: Store) -> None:
    add(store)
    put(store, COUPON, 2)
    orders = [
        purchase(100, 10, key=str(n), terms=Adding({COUPON: -1, ACCOUNT: 1})) for n in range(4)
    ]

    answers = store.accept(orders).result()

    assert [isinstance(answer, Accepted) for answer in answers] == [True, True, False, False]
    assert (read(store, COUPON), read(store, ACCOUNT), spent_by_payments(store)) == (0, 2, 20)


def test_what_costs_nothing_by_its_terms_is_a_payment_that_a_retry_finds(store: Store) -> None:
    add(store)
    free = purchase(0, 10, key="k", terms=Adding({ACCOUNT: 1}, off=10))

    first, again = order(store, free), order(store, free)

    assert first.payment_id == again.payment_id is not None
    assert (first.charged, again.attempt, spent_by_payments(store)) == (0, 2, 0)
    assert read(store, ACCOUNT) == 1


@pytest.mark.parametrize("key", ["k", None])
def test_a_retry_is_not_sold_again(store: Store, key: str | None) -> None:
    add(store)
    bought = purchase(10, 10, key=key, terms=Adding({ACCOUNT: 1}))
    order(store, bought)

    again = order(store, bought)

    assert (again.attempt, again.charged, again.entries) == (2, 0, {})
    assert again.payment is not None
    assert again.payment.details == '{"list":"10","off":"0"}'
    assert (read(store, ACCOUNT), spent_by_payments(store)) == (1, 10)


def test_a_release_undoes_the_sale_once_and_leaves_what_others_did(store: Store) -> None:
    add(store)
    put(store, COUPON, 1)
    failed = order(store, purchase(100, 30, key="a", terms=Adding({ACCOUNT: 1, COUPON: -1})))
    order(store, purchase(100, 30, key="b", terms=Adding({ACCOUNT: 1})))
    assert failed.payment_id is not None

    released = [store.release(failed.payment_id, 1).result() for _ in range(3)]

    assert {one.outcome for one in released} == {Outcome.RELEASED}
    assert (read(store, ACCOUNT), read(store, COUPON), spent_by_payments(store)) == (1, 1, 30)


def test_nothing_is_undone_while_another_request_may_be_served_for_it(store: Store) -> None:
    add(store)
    bought = purchase(100, 30, key="a", terms=Adding({ACCOUNT: 1}))
    charged = order(store, bought)
    order(store, bought)
    assert charged.payment_id is not None

    store.release(charged.payment_id, 1).result()
    after_one = read(store, ACCOUNT)
    store.release(charged.payment_id, 2).result()

    assert (after_one, read(store, ACCOUNT)) == (1, 0)


def test_what_belongs_to_a_month_is_undone_in_that_month_only(store: Store) -> None:
    add(store)
    put(store, ACCOUNT, 0, month=1)
    sold = order(store, purchase(100, 30, terms=Adding({ACCOUNT: 1}, where="month")))
    assert sold.payment_id is not None
    put(store, ACCOUNT, 0, month=2)

    store.release(sold.payment_id, 1).result()

    assert read(store, ACCOUNT) == 0
    assert spent_by_payments(store) == 0


def test_a_charge_books_what_it_adds_and_a_release_undoes_all_of_it(store: Store) -> None:
    add(store)
    begun = order(store, purchase(100, 10, metered=True, terms=Adding({ACCOUNT: 1})))

    booked = Adding({ACCOUNT: 1, PASS: 2})
    *_, last = [order(store, charge(begun.payment_id, n, terms=booked)) for n in (10, 30, 30)]

    assert (last.record.spent, read(store, ACCOUNT), read(store, PASS)) == (30, 3, 4)
    assert last.payment is not None
    assert len(last.payment.undo) == 2, "it grows with each charge"
    assert begun.payment_id is not None
    store.release(begun.payment_id, 1).result()
    assert (spent_by_payments(store), read(store, ACCOUNT), read(store, PASS)) == (0, 0, 0)


def test_the_terms_of_a_charge_cannot_make_it_less(store: Store) -> None:
    """The total would then ask for the rest of it again."""
    add(store)
    begun = order(store, purchase(100, 10, metered=True))

    with pytest.raises(ConfigError):
        order(store, charge(begun.payment_id, 30, terms=Adding({ACCOUNT: 1}, off=5)))

    assert (spent_by_payments(store), store.entry(ACCOUNT)) == (0, None)


# --- payments without a voucher -------------------------------------------------------------------


@pytest.mark.parametrize("status", [ChannelStatus.OPEN, ChannelStatus.FINALIZED])
def test_a_pass_is_used_without_a_voucher_also_when_its_channel_is_gone(
    store: Store, status: ChannelStatus
) -> None:
    add(store)
    put(store, PASS, 2)
    store.update_chain(channel_id(), view(block=11, status=status)).result()

    answers = store.accept([amend({PASS: -1}, key=str(n)) for n in range(3)]).result()

    assert [isinstance(answer, Accepted) for answer in answers] == [True, True, False]
    assert read(store, PASS) == 0
    kinds = [(one.payment.kind, one.payment.price) for one in store.payments(channel_id())]
    assert kinds == [("pass-use", 0)] * 2


def test_a_use_that_is_repeated_counts_once_and_one_that_failed_is_given_back(store: Store) -> None:
    add(store)
    put(store, PASS, 2)
    used = order(store, amend({PASS: -1}, key="k"))
    again = order(store, amend({PASS: -1}, key="k"))
    assert (again.payment_id, again.attempt, read(store, PASS)) == (used.payment_id, 2, 1)
    assert used.payment_id is not None

    for attempt in (1, 2, 2):
        store.release(used.payment_id, attempt).result()

    assert read(store, PASS) == 2


def test_a_key_that_bought_one_resource_uses_no_pass_for_another(store: Store) -> None:
    add(store)
    put(store, PASS, 2)
    order(store, purchase(10, 10, key="k"))

    with pytest.raises(IdempotencyKeyReused):
        order(store, amend({PASS: -1}, key="k", resource="GET https://site.example/other"))

    assert read(store, PASS) == 2


def test_a_refund_gives_back_and_is_a_payment_of_its_own(store: Store) -> None:
    add(store)
    put(store, PASS, 3)
    bought = order(store, purchase(100, 100, key="k"))

    back = order(store, refund(bought.payment_id, 30, {PASS: -3}))

    assert (back.record.spent, back.record.available, back.charged) == (70, 30, 0)
    assert (read(store, PASS), spent_by_payments(store)) == (0, 70)
    first, second = (stored.payment for stored in store.payments(channel_id()))
    assert (first.price, first.sold.refunded) == (100, 30)
    assert (second.kind, second.price, second.resource) == (REFUND, 30, "unused")
    assert order(store, purchase(100, 30)).record.spent == 100


def test_no_more_is_refunded_than_was_charged(store: Store) -> None:
    add(store)
    order(store, purchase(100, 80, key="other"))
    bought = order(store, purchase(100, 20, key="k"))
    order(store, refund(bought.payment_id, 15, {}))

    with pytest.raises(PriceRaised):
        order(store, refund(bought.payment_id, 6, {PASS: 1}))
    order(store, refund(bought.payment_id, 5, {}))

    assert (spent_by_payments(store), store.entry(PASS)) == (80, None)


def test_what_was_refunded_is_not_given_back_once_more_nor_the_other_way_round(
    store: Store,
) -> None:
    add(store)
    order(store, purchase(100, 80, key="other"))
    bought, failed = (order(store, purchase(100, 10, key=key)) for key in ("a", "b"))
    back = order(store, refund(bought.payment_id, 4, {}))
    assert bought.payment_id is not None
    assert failed.payment_id is not None
    assert back.payment_id is not None

    for payment_id in (bought.payment_id, back.payment_id, failed.payment_id):
        store.release(payment_id, 1).result()

    assert spent_by_payments(store) == 96 - 10
    for payment_id in (failed.payment_id, back.payment_id):
        with pytest.raises(PaymentRefused):
            order(store, refund(payment_id, 1, {}))


def test_nothing_is_refunded_on_a_channel_that_takes_no_vouchers_or_is_in_doubt(
    store: Store,
) -> None:
    bought = {}
    for number in (1, 2, 3):
        add(store, number)
        bought[number] = order(store, purchase(100, 100, number=number)).payment_id
    store.update_chain(channel_id(1), view(block=11, status=ChannelStatus.FINALIZED)).result()
    store.begin_close(channel_id(2), None).result()
    store.mark_in_doubt().result()

    for number, error in ((1, ChannelFinalized), (2, ChannelClosing), (3, PaymentRefused)):
        with pytest.raises(error):
            order(store, refund(bought[number], 10, {PASS: 1}, number=number))

    assert store.entry(PASS) is None


def test_a_refund_is_of_a_payment_of_its_channel(store: Store) -> None:
    add(store, 1)
    add(store, 2)
    bought = order(store, purchase(100, 100))

    for payment_id, number in ((bought.payment_id, 2), (99, 1)):
        with pytest.raises(NotFound):
            order(store, refund(payment_id, 10, {PASS: 1}, number=number))

    assert (spent_by_payments(store), store.entry(PASS)) == (100, None)


def test_a_payment_without_a_voucher_is_of_a_known_channel(store: Store) -> None:
    with pytest.raises(ChannelNotFound):
        order(store, amend({PASS: 1}))

    assert store.entry(PASS) is None


# --- terms that are wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sale", "error"),
    [
        (Sale(11), PriceRaised),
        (Sale(-1), ConfigError),
        (Sale(5, kind="Sale"), ConfigError),
        (Sale(5, kind="a-kind-beyond-any-bound"), ConfigError),
        (Sale(5, kind=REFUND), ConfigError),
        (Sale(5, details="\0"), ConfigError),
        (Sale(5, details="x" * (TEXT_CHARACTERS_MAX + 1)), ConfigError),
        (Sale(5, entries={COUPON: {"n": 1}}), ConfigError),
        (Sale(5, undo=(Undo(COUPON, {"n": 1}),)), ConfigError),
        (Sale(5, entries={ACCOUNT: {"n": True}}), ConfigError),
        (Sale(5, entries={ACCOUNT: {"n": ["x" * STATE_CHARACTERS_MAX]}}), ConfigError),
    ],
)
def test_an_order_whose_terms_are_wrong_fails_alone(
    store: Store, sale: Sale, error: type[ChannelPayError]
) -> None:
    add(store)
    wrong = purchase(100, 10, key="wrong", terms=Selling(sale, (ACCOUNT,)))

    answers = store.accept([purchase(100, 10, key="a"), wrong, purchase(100, 10, key="b")]).result()

    assert [type(answer) for answer in answers] == [Accepted, error, Accepted]
    assert spent_by_payments(store) == 20
    assert (store.entry(ACCOUNT), store.entry(COUPON)) == (None, None)


def test_what_has_no_voucher_charges_nothing(store: Store) -> None:
    add(store)
    order(store, purchase(100, 0, resource="HEAD"))

    with pytest.raises(PriceRaised):
        order(store, Amend(channel_id(), Selling(Sale(10, kind="pass")), "pass", NOW_MS))

    assert spent_by_payments(store) == 0


# --- entries alone --------------------------------------------------------------------------------


def test_entries_are_changed_together_or_not_at_all(store: Store) -> None:
    def refuse(entries: Entries) -> Entries:
        raise NotFound("no such batch")

    put(store, COUPON, 1)
    with pytest.raises(NotFound):
        store.change_entries([COUPON, PASS], refuse).result()
    with pytest.raises(ConfigError):
        store.change_entries([COUPON], stated({COUPON: {"n": 5}, PASS: {"n": 5}})).result()

    assert (read(store, COUPON), store.entry(PASS)) == (1, None)


def test_a_change_sees_the_entries_that_are_there_and_those_only(store: Store) -> None:
    put(store, COUPON, 7)
    seen: list[Entries] = []

    def look(entries: Entries) -> Entries:
        seen.append(dict(entries))
        return {PASS: {"n": 1}}

    changed = store.change_entries([PASS, ACCOUNT, COUPON], look).result()

    assert changed == {PASS: {"n": 1}}
    assert seen == [{COUPON: {"n": 7}}]
    assert (read(store, PASS), store.entry(ACCOUNT)) == (1, None)


def test_more_entries_than_a_statement_holds_are_one_change(store: Store) -> None:
    keys = [EntryKey("coupon", number.to_bytes(32, "big")) for number in range(600)]

    store.change_entries(keys, stated({key: {"n": 1} for key in keys})).result()

    assert [key for key, _ in store.entries("coupon")] == keys


def test_entries_are_listed_by_kind_and_the_beginning_of_their_names(store: Store) -> None:
    for kind, name in (("share", b"ab\xff"), ("share", b"ab"), ("share", b"b"), ("pass", b"ab")):
        put(store, EntryKey(kind, name), len(name))

    def names(prefix: bytes = b"", after: bytes = b"", limit: int = 9) -> list[bytes]:
        return [key.name for key, _ in store.entries("share", prefix, after, limit)]

    assert names() == [b"ab", b"ab\xff", b"b"]
    assert names(b"ab") == [b"ab", b"ab\xff"]
    assert names(after=b"ab") == [b"ab\xff", b"b"]
    assert names(b"ab", after=b"ab") == [b"ab\xff"]
    assert names(limit=2) == [b"ab", b"ab\xff"]
    assert names(b"c") == []
    assert store.entries("share", b"b") == [(EntryKey("share", b"b"), {"n": 1})]


@pytest.mark.parametrize(
    "state",
    [
        {"amount": 2**130, "below": -(2**70)},
        {"steps": [[1_800_000_000_000, "issued", 100], [], "…"]},
        {"text": 'é\0"\ud800\U0001f600'},
        {},
    ],
)
def test_a_state_is_kept_to_the_unit_and_the_character(store: Store, state: EntryState) -> None:
    store.change_entries([PASS], stated({PASS: state})).result()

    assert store.entry(PASS) == state
    assert store.entries("pass") == [(PASS, state)]


def test_a_change_that_edits_what_it_was_given_and_fails_has_changed_nothing(store: Store) -> None:
    put(store, PASS, 1)

    def edit(entries: Entries) -> Entries:
        state = entries[PASS]
        assert isinstance(state, dict)
        state["n"] = 1000
        raise PaymentRefused

    with pytest.raises(PaymentRefused):
        store.change_entries([PASS], edit).result()
    order_after = store.change_entries([PASS], lambda entries: entries).result()

    assert order_after == {PASS: {"n": 1}}


def test_a_coupon_that_many_redeem_at_once_is_redeemed_once(store: Store) -> None:
    add(store)
    put(store, COUPON, 1)

    def redeem(number: int) -> bool:
        try:
            order(store, purchase(100, 1, key=str(number), terms=Adding({COUPON: -1})))
        except PaymentRefused:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        redeemed = list(pool.map(redeem, range(32)))

    assert (sum(redeemed), read(store, COUPON), spent_by_payments(store)) == (1, 0, 1)
