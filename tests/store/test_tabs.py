"""Tabs under any history of sales, payments, write-offs and releases, in every store."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channelpay.errors import ChannelPayError, TabDue, TabFull
from channelpay.payee.selling.statements import statements
from channelpay.protocol.rules import Amend, Order, Outcome, Purchase
from channelpay.protocol.statements import Period
from channelpay.protocol.tabs import (
    PAYMENT,
    TAB,
    WRITE_OFF,
    OnTab,
    PaysTab,
    Tab,
    TabKeys,
    TabPolicy,
    WritesOff,
)
from channelpay.protocol.types import Address, Channel, ChannelId, Voucher
from channelpay.store import Accepted, Store, open_store
from tests.store.books import DEPLOYMENT, NOW_MS, moved, order, signature, view

DEPOSIT = 400
DAY_MS = 86_400_000
POLICY = TabPolicy(limit_start=30, limit_max=80, grows=5_000, total_max=100, due_ms=DAY_MS)
TOKEN, PAYEE = Address(b"\x70" * 20), Address(b"\xb0" * 20)
PAYERS = [Address(bytes([n]) * 20) for n in (1, 1, 2, 3)]
"""Of each channel: the first two are of one payer."""


class Step(NamedTuple):
    """One request: its kind, its channel, its price, by how much its voucher is higher, and how
    much later it comes.
    """

    kind: str
    channel: int
    price: int
    more: int
    hours: int


steps = st.builds(
    Step,
    st.sampled_from(["agrees", "agrees", "agrees", "plain", "pays", "write-off", "release"]),
    st.integers(0, 3),
    st.integers(1, 40),
    st.sampled_from([0, 0, 5, 40]),
    st.sampled_from([0, 0, 1, 30]),
)


def channel(number: int) -> Channel:
    return Channel(PAYERS[number], PAYEE, TOKEN, PAYERS[number], bytes([number]) * 32)


def keys(number: int) -> TabKeys:
    return TabKeys.of(PAYERS[number], TOKEN)


class Books:
    """A store that is sold from, and what is known of each sale on a tab."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ids = [ChannelId(channel(n).id(DEPLOYMENT)) for n in range(len(PAYERS))]
        self.now = NOW_MS
        self.sold: list[int] = []
        for number, channel_id in enumerate(self.ids):
            store.add_channel(channel_id, channel(number), view(DEPOSIT)).result()

    def take(self, step: Step) -> None:
        self.now += step.hours * 3_600_000 + 1
        if step.kind == "release":
            if step.price < len(self.sold):
                self.store.release(self.sold.pop(-1 - step.price), 1).result()
            return
        before = self.tab(step.channel)
        try:
            accepted = order(self.store, self.order(step))
        except ChannelPayError:
            assert self.tab(step.channel) == before
            return
        assert accepted.payment_id is not None
        self.sold.append(accepted.payment_id)
        if accepted.payment is not None and accepted.payment.kind == TAB:
            self.was_allowed(step, before, accepted)

    def order(self, step: Step) -> Order:
        channel_id, own = self.ids[step.channel], keys(step.channel)
        record = self.store.record(channel_id)
        assert record is not None
        amount = min(DEPOSIT, record.accepted + step.more)
        if step.kind == "write-off":
            return Amend(channel_id, WritesOff(own, self.now), "TAB", self.now)
        voucher = Voucher(channel_id, amount, signature(amount))
        if step.kind == "pays":
            terms = PaysTab(POLICY, own, self.now)
            return Purchase(voucher, amount, "TAB", self.now, f"tab {self.now}", terms=terms)
        agrees = step.kind == "agrees"
        on_tab = OnTab(POLICY, own, self.now, agrees, pays_first=step.price % 2 == 0)
        url = f"GET https://site.example/{step.price}"
        return Purchase(voucher, step.price, url, self.now, f"{self.now}", terms=on_tab)

    def was_allowed(self, step: Step, before: Tab, accepted: Accepted) -> None:
        assert accepted.charged == 0
        after = self.tab(step.channel)
        assert after.owed == before.owed + step.price <= max(0, before.limit(POLICY))
        assert after.owed <= 0 or step.kind == "agrees"
        assert not before.is_overdue(POLICY, self.now)
        assert accepted.record.available < step.price
        assert accepted.record.spent + after.owed <= DEPOSIT
        assert self.total <= POLICY.total_max

    def tab(self, number: int) -> Tab:
        return Tab.from_state(self.store.entry(keys(number).tab))

    @property
    def total(self) -> int:
        state = self.store.entry(keys(0).total)
        owed = 0 if state is None else state["owed"]
        assert isinstance(owed, int)
        return owed


def told(books: Books, payer: Address) -> tuple[int, int]:
    """What the ledger says a payer owes, and what was written off of it."""
    owed = lost = 0
    for channel_id, one in zip(books.ids, PAYERS, strict=True):
        rows = books.store.payments(channel_id) if one == payer else []
        for payment in (stored.payment for stored in rows):
            details = json.loads(payment.details) if payment.details else {}
            if payment.outcome is Outcome.RELEASED:
                continue
            if payment.kind == TAB:
                owed += int(details["onTab"])
            elif payment.kind == PAYMENT:
                assert payment.price == int(details["owed"]) + int(details["writtenOff"])
                owed, lost = owed - int(details["owed"]), lost - int(details["writtenOff"])
            elif payment.kind == WRITE_OFF:
                owed, lost = owed - int(details["owed"]), lost + int(details["owed"])
    return owed, lost


def test_what_is_owed_is_what_the_ledger_says_and_never_over_its_limits(
    new_books: Callable[[], str],
) -> None:
    @settings(
        max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(steps, max_size=40))
    def holds(history: list[Step]) -> None:
        with closing(open_store(new_books())) as store:
            books = Books(store)
            for step in history:
                books.take(step)

            for number, payer in enumerate(PAYERS):
                tab = books.tab(number)
                assert (tab.owed, tab.written_off) == told(books, payer)
            owed = {payer: books.tab(n).owed for n, payer in enumerate(PAYERS)}
            assert books.total == sum(owed.values())
            the_statements_add_up(books)

    holds()


def the_statements_add_up(books: Books) -> None:
    """Over any cut in time: to the unit, and to what every channel says was spent."""
    cut = (NOW_MS + books.now) // 2
    records = {one.channel_id: one for one in books.store.records()}
    whole = statements(books.store, Period())
    for part in (Period(end=cut), Period(begin=cut), Period()):
        for one in statements(books.store, part):
            assert one.total == sum(row.amount for row in one.balances)
            assert all(row.opening + row.amount == row.closing for row in one.balances)
            lines = [line.list_price - line.discount - line.on_tab for line in one.lines]
            assert lines == [line.amount for line in one.lines]
    for one in whole:
        for row in one.balances:
            record = records[row.channel_id]
            payments = [stored.payment for stored in books.store.payments(row.channel_id)]
            assert row.closing == record.spent == sum(map(moved, payments)) <= record.accepted
            assert row.opening == 0
    before, after = (statements(books.store, part) for part in (Period(end=cut), Period(cut)))
    assert sum(one.total for one in whole) == sum(one.total for one in (*before, *after))


def test_a_payer_that_has_not_paid_in_time_is_told_what_it_owes(store: Store) -> None:
    books = Books(store)
    books.take(Step("agrees", 0, 20, 0, 0))
    books.now += DAY_MS + 1

    refusal = refused(books, Step("agrees", 1, 5, 0, 0))

    assert type(refusal) is TabDue
    assert (refusal.context["owed"], refusal.context["requiredCumulative"]) == ("20", "25")
    assert order(store, books.order(Step("pays", 1, 1, 40, 0))).charged == 20
    books.take(Step("agrees", 1, 25, 0, 0))
    assert books.tab(0).owed == 25


def test_a_tab_that_is_paid_on_time_grows_up_to_its_limit(store: Store) -> None:
    books = Books(store)
    assert type(refused(books, Step("agrees", 0, 31, 0, 0))) is TabFull

    for _ in range(8):
        books.take(Step("agrees", 0, 30, 0, 1))
        books.take(Step("pays", 0, 1, 40, 0))

    assert books.tab(0).limit(POLICY) == POLICY.limit_max
    assert type(refused(books, Step("agrees", 0, POLICY.limit_max + 1, 0, 0))) is TabFull


def test_what_is_paid_too_late_earns_no_credit(store: Store) -> None:
    books = Books(store)
    books.take(Step("agrees", 0, 30, 0, 0))
    books.now += DAY_MS + 1
    books.take(Step("pays", 0, 1, 40, 0))

    assert (books.tab(0).owed, books.tab(0).limit(POLICY)) == (0, POLICY.limit_start)


def test_a_payment_that_is_given_back_is_owed_again_wherever_it_went(store: Store) -> None:
    books = Books(store)
    books.take(Step("agrees", 0, 20, 0, 0))
    books.take(Step("write-off", 0, 1, 0, 0))
    books.sold.clear()
    before = books.tab(0)
    books.take(Step("pays", 0, 1, 40, 0))
    assert books.tab(0).unpaid == 0

    books.take(Step("release", 0, 0, 0, 0))

    assert books.tab(0) == before


def test_what_was_written_off_is_paid_before_there_is_credit_again(store: Store) -> None:
    books = Books(store)
    books.take(Step("agrees", 0, 20, 0, 0))
    books.take(Step("write-off", 0, 1, 0, 0))

    assert (books.tab(0).unpaid, books.total) == (20, 0)
    assert type(refused(books, Step("agrees", 0, 5, 0, 0))) is TabDue
    assert order(store, books.order(Step("pays", 0, 1, 40, 0))).charged == 20
    books.take(Step("agrees", 0, 25, 0, 0))
    assert books.tab(0).owed == 25


def refused(books: Books, step: Step) -> ChannelPayError:
    before = books.store.records()
    try:
        order(books.store, books.order(step))
    except ChannelPayError as refusal:
        assert books.store.records() == before
        return refusal
    raise AssertionError("it was sold")
