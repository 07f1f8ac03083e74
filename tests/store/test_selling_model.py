"""Passes and coupons under any history of orders that two stores take at once: a pass never serves
after its end nor less or more than was bought, no coupon pays twice, and what is released is back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from channelpay.errors import CouponNotValid, CouponUsed
from channelpay.protocol.accounts import Account, account_key
from channelpay.protocol.coupons import (
    Batch,
    GiftTerms,
    RedeemTerms,
    Worth,
    batch_key,
    gift_batch,
    new_coupon,
)
from channelpay.protocol.entries import EntryKey
from channelpay.protocol.passes import (
    GRACE_MS,
    TURN_MS,
    Length,
    Pass,
    PassTerms,
    RefundTerms,
    UseTerms,
    pass_key,
)
from channelpay.protocol.rules import Amend, Order, Outcome, Payment, Refund
from channelpay.store import Accepted, Answer, Store, open_store
from tests.store.books import (
    NOW_MS,
    add,
    channel,
    channel_id,
    order,
    purchase,
    spent_by_payments,
)
from tests.store.terms import stated

DEPOSIT = 1_000
PRICE, USES = 100, 3
WORTH = 7
NUMBERS = (1, 2)
PASS_ID = b"p" * 16
CODES = [EntryKey("coupon", bytes([n]) * 32) for n in range(3)]
BATCHES = [bytes([n]) * 8 for n in range(3)]
GIFT = EntryKey("coupon", b"g" * 32)
PAYER, TOKEN = channel().payer, channel().token
ACCOUNT = account_key(PAYER, TOKEN)
SIDES = st.integers(0, 1)


class SellingMachine(RuleBasedStateMachine):
    """The ledger of the books, and their entries, have to agree whatever happened."""

    make: Callable[[], tuple[Store, Store]]

    def __init__(self) -> None:
        super().__init__()
        self.stores = type(self).make()
        self.waiting: list[Future[list[Answer]]] = []
        self.released: list[Future[Payment]] = []
        self.now = NOW_MS
        self.keys = 0

    @initialize(hours=st.sampled_from([0, 1]))
    def begin(self, hours: int) -> None:
        for number in NUMBERS:
            add(self.stores[0], number, DEPOSIT)
        length = Length(hours=hours)
        terms = PassTerms(PASS_ID, "few", "few", ("/**",), length, USES, 1, "host", self.now)
        bought = order(self.stores[0], purchase(PRICE, PRICE, key="buy", terms=terms))
        assert bought.payment_id is not None
        self.bought = bought.payment_id
        self.token = self.held().current(PASS_ID)
        for code, batch_id in zip(CODES, BATCHES, strict=True):
            batch = Batch(Worth.VALUE, TOKEN, amount=WORTH, count=1)
            entries = {code: new_coupon(batch_id), batch_key(batch_id): batch.to_state()}
            self.stores[0].change_entries(tuple(entries), stated(entries)).result()

    def held(self) -> Pass:
        return Pass.from_state(self.stores[1].entry(pass_key(PASS_ID)))

    def hand_in(self, side: int, orders: list[Order]) -> None:
        """Nobody waits for the answers yet: the batches of the two stores meet."""
        self.waiting.append(self.stores[side].accept(orders))

    def use_once(self, key: str) -> Amend:
        return Amend(channel_id(1), UseTerms(self.token, self.now), "GET /p", self.now, key)

    @rule(side=SIDES, number=st.integers(1, 3), again=st.booleans())
    def use(self, side: int, number: int, again: bool) -> None:
        orders: list[Order] = []
        for _ in range(number):
            self.keys += 1
            orders.append(self.use_once(str(self.keys)))
        self.hand_in(side, orders + orders[:1] if again else orders)

    @rule(side=SIDES, which=st.integers(0, 2), number=st.sampled_from(NUMBERS))
    def redeem(self, side: int, which: int, number: int) -> None:
        terms = RedeemTerms(CODES[which], BATCHES[which], PAYER, ACCOUNT, self.now)
        self.keys += 1
        self.hand_in(side, [purchase(PRICE, 0, number=number, key=f"r{self.keys}", terms=terms)])

    @rule(side=SIDES, number=st.sampled_from(NUMBERS))
    def give(self, side: int, number: int) -> None:
        """One and the same gift code, as a purchase that is repeated would make it."""
        terms = GiftTerms(GIFT, TOKEN, 0, self.now)
        cumulative = PRICE + WORTH
        gift = purchase(cumulative, WORTH, number=1, key="gift", terms=terms, now=self.now)
        got = RedeemTerms(GIFT, gift_batch(GIFT), PAYER, ACCOUNT, self.now)
        self.keys += 1
        taken = purchase(0, 0, number=number, key=f"g{self.keys}", terms=got, now=self.now)
        self.hand_in(side, [gift, taken])

    @rule(side=SIDES)
    def refund(self, side: int) -> None:
        terms = RefundTerms(PASS_ID, self.now)
        self.hand_in(side, [Refund(channel_id(1), self.bought, terms, "refund", self.now)])

    @rule(
        milliseconds=st.sampled_from([1, GRACE_MS, TURN_MS, 3_600_000]),
        follows=st.booleans(),
    )
    def turn_on(self, milliseconds: int, follows: bool) -> None:
        """Time goes on; the client may have had the newest token, or not."""
        self.now += milliseconds
        if follows and not self.waiting:
            self.token = self.held().current(PASS_ID)

    @precondition(lambda self: not self.waiting)
    @rule(which=st.integers(0, 30), attempt=st.integers(1, 2), side=SIDES)
    def release(self, which: int, attempt: int, side: int) -> None:
        sold = [one for one in self.ledger() if one[0] != self.bought]
        if sold:
            payment_id, payment = sold[which % len(sold)]
            attempt = min(attempt, payment.attempts)
            self.stores[side].release(payment_id, attempt).result()
            self.agree()

    @precondition(lambda self: self.waiting)
    @rule()
    def read_answers(self) -> None:
        for future in self.waiting:
            for answer in future.result():
                assert isinstance(answer, Accepted | Exception)
        self.waiting.clear()
        self.agree()

    def ledger(self) -> list[tuple[int, Payment]]:
        stored = [one for n in NUMBERS for one in self.stores[1].payments(channel_id(n))]
        return [(one.payment_id, one.payment) for one in stored]

    def agree(self) -> None:
        payments = [payment for _, payment in self.ledger()]
        live = [one for one in payments if one.outcome is Outcome.CHARGED]
        self.passes_agree(live)
        self.coupons_agree(live)
        assert spent_by_payments(self.stores[0]) >= 0

    def passes_agree(self, live: list[Payment]) -> None:
        held = self.held()
        uses = [one for one in live if one.kind == "pass-use"]
        back = [one for one in live if one.kind == "refund"]
        returned = sum(_told(one)["uses"] for one in back)
        assert held.left >= 0
        assert held.left + len(uses) + returned == USES
        assert all(one.time < held.until for one in uses if held.until)
        assert all(one.price == PRICE * _told(one)["uses"] // USES for one in back)

    def coupons_agree(self, live: list[Payment]) -> None:
        redeemed = [one for one in live if one.kind == "coupon"]
        batches = Counter(_told(one)["batch"] for one in redeemed)
        account = Account.from_state(self.stores[1].entry(ACCOUNT))
        assert all(number == 1 for number in batches.values())
        assert account.credit == WORTH * len(redeemed)
        gifts = [one for one in live if one.kind == "gift"]
        assert len(gifts) <= 1

    def teardown(self) -> None:
        if self.waiting:
            self.read_answers()
        for store in self.stores:
            store.close()


def test_a_gift_that_is_given_back_once_it_was_redeemed_is_not_sold_again(store: Store) -> None:
    for number in NUMBERS:
        add(store, number, DEPOSIT)
    give = purchase(WORTH, WORTH, key="gift", terms=GiftTerms(GIFT, TOKEN, 0, NOW_MS))
    redeem = RedeemTerms(GIFT, gift_batch(GIFT), PAYER, ACCOUNT, NOW_MS)
    given = order(store, give)
    order(store, purchase(0, 0, number=2, key="first", terms=redeem))
    assert given.payment_id is not None
    store.release(given.payment_id, 1).result()

    with pytest.raises(CouponUsed):
        order(store, give)

    again = purchase(0, 0, number=2, key="second", terms=redeem)
    with pytest.raises(CouponNotValid):
        order(store, again)


def _told(payment: Payment) -> Any:
    return json.loads(payment.details)


def test_passes_and_coupons_are_what_the_ledger_says(new_books: Callable[[], str]) -> None:
    def make() -> tuple[Store, Store]:
        url = new_books()
        first = open_store(url)
        return first, first if url == "memory:" else open_store(url)

    machine = type("Machine", (SellingMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None)
    )
