"""Entries under any history of orders that two stores take at once, and through kills."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from channelpay.errors import PaymentRefused
from channelpay.protocol.entries import Entries, EntryKey
from channelpay.protocol.rules import Order, Refund
from channelpay.store import Accepted, Answer, Store, open_store
from tests.store.books import add, channel_id, charge, purchase, spent_by_payments
from tests.store.conftest import OpenStore
from tests.store.terms import COUPON, PASS, Adding, added, amend, put, read, refund

DEPOSIT = 300
ACCOUNTS = tuple(EntryKey("account", bytes([number])) for number in (1, 2))
COUNTED = (*ACCOUNTS, COUPON, PASS)
FIRST = {COUPON: 2, PASS: 3}

NUMBERS = st.integers(1, 2)
SIDES = st.integers(0, 1)
KEYS = st.sampled_from(["a", "b", "c", "d", None])
ADDS = st.fixed_dictionaries(
    {},
    optional={
        ACCOUNTS[0]: st.integers(0, 3),
        ACCOUNTS[1]: st.integers(0, 3),
        COUPON: st.just(-1),
        PASS: st.integers(-2, 1),
    },
).map(lambda adds: dict(reversed(adds.items())))  # Not in the order of the keys.


@st.composite
def orders(draw: st.DrawFn) -> tuple[Order, Mapping[EntryKey, int]]:
    """An order, and what it adds to entries if it is new."""
    number, key, adds = draw(NUMBERS), draw(KEYS), draw(ADDS)
    kind = draw(st.sampled_from(["sale", "metered", "charge", "use", "refund"]))
    amount = draw(st.integers(0, 40))
    if kind == "refund":
        return refund(draw(st.integers(1, 12)), amount, adds, number=number), adds
    if kind == "use":
        return amend(adds, number=number, key=key), adds
    if kind == "charge":
        terms = Adding(adds)
        return charge(draw(st.integers(1, 12)), amount, number=number, terms=terms), adds
    terms = Adding(adds, off=draw(st.integers(0, 10)))
    cumulative = draw(st.integers(0, DEPOSIT))
    metered = kind == "metered"
    one = purchase(cumulative, amount, number=number, key=key, metered=metered, terms=terms)
    return one, adds


@dataclass
class Made:
    """A payment: what its orders added to entries, and which of its requests failed."""

    adds: list[Mapping[EntryKey, int]] = field(default_factory=list)
    attempts: int = 1
    failed: set[int] = field(default_factory=set)
    stands: bool = False

    @property
    def live(self) -> bool:
        return self.stands or len(self.failed) < self.attempts


Waiting = tuple[list[tuple[Order, Mapping[EntryKey, int]]], Future[list[Answer]]]


class EntriesMachine(RuleBasedStateMachine):
    """Two stores over the same books. What was accepted is known only when it is answered; so the
    model takes the answers, and says what the books are then.
    """

    make: Callable[[], tuple[Store, Store]]

    def __init__(self) -> None:
        super().__init__()
        self.stores = type(self).make()
        self.waiting: list[Waiting] = []
        self.payments: dict[int, Made] = {}
        self.outside: list[Mapping[EntryKey, int]] = []

    @initialize()
    def begin(self) -> None:
        for number in (1, 2):
            add(self.stores[0], number, DEPOSIT)
        for key, n in FIRST.items():
            put(self.stores[0], key, n)

    @rule(side=SIDES, some=st.lists(orders(), min_size=1, max_size=6))
    def hand_in(self, side: int, some: list[tuple[Order, Mapping[EntryKey, int]]]) -> None:
        """Nobody waits for the answers yet: the batches of the two stores meet."""
        future = self.stores[side].accept([order for order, _ in some])
        self.waiting.append((some, future))

    @precondition(lambda self: self.waiting)
    @rule()
    def read_answers(self) -> None:
        for some, future in self.waiting:
            for (order, adds), answer in zip(some, future.result(), strict=True):
                if isinstance(answer, Accepted) and answer.payment_id is not None:
                    self.note(order, adds, answer.payment_id, answer)
                else:
                    assert isinstance(answer, Exception), order
        self.waiting.clear()
        self.the_books_are_those_of_the_answers()

    def note(
        self, order: Order, adds: Mapping[EntryKey, int], payment_id: int, answer: Accepted
    ) -> None:
        made = self.payments.setdefault(payment_id, Made())
        made.attempts = max(made.attempts, answer.attempt)
        if answer.is_new or answer.charged:
            assert set(answer.entries) == set(adds)
            made.adds.append(adds)
        else:
            assert answer.entries == {}, "sold twice"
        if isinstance(order, Refund):
            of = self.payments.setdefault(order.payment_id, Made())
            made.stands = of.stands = True

    @precondition(lambda self: self.payments and not self.waiting)
    @rule(which=st.integers(0, 30), attempt=st.integers(1, 8), twice=st.booleans(), side=SIDES)
    def release(self, which: int, attempt: int, twice: bool, side: int) -> None:
        payment_id = sorted(self.payments)[which % len(self.payments)]
        made = self.payments[payment_id]
        failed = 1 + attempt % made.attempts
        both = (self.stores[side], self.stores[1 - side]) if twice else (self.stores[side],)
        futures = [store.release(payment_id, failed) for store in both]
        for future in futures:
            future.result()
        if made.live:
            made.failed.add(failed)
        self.the_books_are_those_of_the_answers()

    @precondition(lambda self: not self.waiting)
    @rule(side=SIDES, adds=ADDS)
    def change(self, side: int, adds: Mapping[EntryKey, int]) -> None:
        def change(entries: Entries) -> Entries:
            return {key: added(key, entries, n) for key, n in adds.items()}

        try:
            self.stores[side].change_entries(tuple(adds), change).result()
        except PaymentRefused:
            return
        self.outside.append(adds)

    def the_books_are_those_of_the_answers(self) -> None:
        """What is spent is the sum of charges less releases and refunds, and no more than accepted;
        what entries count is the sum of what sales added, less releases.
        """
        live = [adds for made in self.payments.values() if made.live for adds in made.adds]
        for key in COUNTED:
            n = FIRST.get(key, 0) + sum(adds.get(key, 0) for adds in (*live, *self.outside))
            assert {read(store, key) for store in self.stores} == {n}, key
        assert spent_by_payments(self.stores[0]) >= 0
        stored = [one.payment_id for n in (1, 2) for one in self.stores[1].payments(channel_id(n))]
        assert sorted(stored) == sorted(self.payments)

    def teardown(self) -> None:
        self.read_answers()
        for store in self.stores:
            store.close()


def test_two_stores_lose_no_count_and_give_back_what_is_released(
    new_books: Callable[[], str],
) -> None:
    def make() -> tuple[Store, Store]:
        url = new_books()
        first = open_store(url)
        return first, first if url == "memory:" else open_store(url)

    machine = type("Machine", (EntriesMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=15, stateful_step_count=20),
    )


def test_two_stores_that_name_entries_in_other_orders_never_wait_in_a_circle(
    open_shared: OpenStore,
) -> None:
    """Also where neither of them is there yet: both insert them."""
    stores = [open_shared(), open_shared()]
    for number in (1, 2):
        add(stores[0], number)
    keys = [EntryKey("share", bytes([number])) for number in range(1, 40)]
    rounds = 20

    def count(entries: Entries) -> Entries:
        return {key: added(key, entries, 1) for key in keys}

    futures = [
        stores[side].change_entries(some, count)
        for _ in range(rounds)
        for side, some in ((0, keys), (1, keys[::-1]))
    ]

    assert all(future.result(timeout=60) for future in futures)
    assert {read(stores[0], key) for key in keys} == {2 * rounds}


def test_one_coupon_at_two_stores_is_redeemed_once(open_shared: OpenStore) -> None:
    """By two payers: the locks of their channels keep nobody waiting."""
    stores = [open_shared(), open_shared()]
    for number in (1, 2):
        add(stores[0], number)
    for turn in range(20):
        put(stores[0], COUPON, 1)
        orders = [
            purchase(100, 1, key=str(turn), number=number, terms=Adding({COUPON: -1}))
            for number in (1, 2)
        ]

        futures = [store.accept([one]) for store, one in zip(stores, orders, strict=True)]

        answers = [future.result()[0] for future in futures]
        assert sum(isinstance(answer, Accepted) for answer in answers) == 1
        assert (read(stores[1], COUPON), spent_by_payments(stores[1])) == (0, turn + 1)


def test_one_free_item_at_two_stores_is_given_once(open_shared: OpenStore) -> None:
    """The entry that counts it is not there before: two stores make it at the same moment."""
    stores = [open_shared(), open_shared()]
    add(stores[0])

    for turn in range(10):
        key = EntryKey("free", bytes([turn + 1]))

        def give(entries: Entries, key: EntryKey = key) -> Entries:
            if key in entries:
                raise PaymentRefused("it was given")
            return {key: {"n": 1}}

        futures = [store.change_entries([key], give) for store in stores]
        assert sum(future.exception() is None for future in futures) == 1
