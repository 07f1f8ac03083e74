"""Any sequence of verbs leaves any store with the books that a plain model has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from channelpay.errors import PaymentRefused
from channelpay.protocol.types import ChannelStatus
from channelpay.store import Store, open_store
from tests.store.books import channel, channel_id, charge, dump, order, purchase, view

NUMBERS = st.integers(1, 2)
AMOUNTS = st.integers(0, 60)
KEYS = st.sampled_from(["a", "b", "c"])
RESOURCES = st.sampled_from(["GET /a", "GET /b"])


@dataclass
class ModelCharge:
    number: int
    key: str
    resource: str
    price: int
    attempts: int = 1


@dataclass
class ModelChannel:
    deposit: int
    block: int
    open: bool = True
    accepted: int = 0
    closes: int = 0


@dataclass
class Model:
    """The rules once more, as short as they can be said; every purchase has a key."""

    channels: dict[int, ModelChannel] = field(default_factory=dict)
    charges: dict[int, ModelCharge] = field(default_factory=dict)

    def spent(self, number: int) -> int:
        charges = self.charges.values()
        return sum(one.price for one in charges if one.number == number and one.attempts)

    def holds(self, number: int, key: str) -> int | None:
        for payment_id, made in self.charges.items():
            if (made.number, made.key) == (number, key) and made.attempts:
                return payment_id
        return None


class StoreMachine(RuleBasedStateMachine):
    make: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).make()
        self.model = Model()

    @initialize()
    def begin_with_one_channel(self) -> None:
        self.add(1, 40, 1)

    @rule(number=NUMBERS, deposit=AMOUNTS, block=st.integers(1, 5))
    def add(self, number: int, deposit: int, block: int) -> None:
        self.store.add_channel(
            channel_id(number), channel(number), view(deposit, block=block)
        ).result()
        known = self.model.channels.setdefault(number, ModelChannel(deposit, block))
        self.see(known, deposit, block, is_open=True)

    @rule(number=NUMBERS, deposit=AMOUNTS, block=st.integers(1, 9), is_open=st.booleans())
    def update(self, number: int, deposit: int, block: int, is_open: bool) -> None:
        known = self.model.channels.get(number)
        if known is None:
            return
        status = ChannelStatus.OPEN if is_open else ChannelStatus.CLOSING
        seen = view(deposit, block=block, status=status)
        self.store.update_chain(channel_id(number), seen).result()
        self.see(known, deposit, block, is_open=is_open)

    def see(self, known: ModelChannel, deposit: int, block: int, *, is_open: bool) -> None:
        if block >= known.block:
            known.deposit, known.block, known.open = deposit, block, is_open

    @rule(
        number=NUMBERS,
        cumulative=AMOUNTS,
        price=AMOUNTS,
        key=KEYS,
        resource=RESOURCES,
        metered=st.booleans(),
    )
    def buy(
        self, number: int, cumulative: int, price: int, key: str, resource: str, metered: bool
    ) -> None:
        before = dump(self.store)
        wanted = purchase(
            cumulative, price, number=number, key=key, resource=resource, metered=metered
        )
        try:
            accepted = order(self.store, wanted)
        except PaymentRefused:
            assert not self.allowed(number, cumulative, price, key, resource)
            assert dump(self.store) == before, "refused, and yet written"
            return
        assert self.allowed(number, cumulative, price, key, resource)
        known = self.model.channels[number]
        held = self.model.holds(number, key)
        known.accepted = max(known.accepted, cumulative)
        if held is not None:
            assert accepted.payment_id == held, "charged twice"
            self.model.charges[held].attempts += 1
        elif price:
            assert accepted.payment_id is not None
            made = ModelCharge(number, key, resource, 0 if metered else price)
            self.model.charges[accepted.payment_id] = made
        else:
            assert accepted.payment_id is None

    def allowed(self, number: int, cumulative: int, price: int, key: str, resource: str) -> bool:
        known = self.model.channels.get(number)
        if known is None or not known.open or known.closes or cumulative > known.deposit:
            return False
        held = self.model.holds(number, key)
        if held is not None:
            return self.model.charges[held].resource == resource
        return max(known.accepted, cumulative) - self.model.spent(number) >= price

    @precondition(lambda self: self.model.charges)
    @rule(data=st.data(), total=AMOUNTS)
    def charge(self, data: st.DataObject, total: int) -> None:
        payment_id = data.draw(st.sampled_from(sorted(self.model.charges)))
        made = self.model.charges[payment_id]
        known = self.model.channels[made.number]
        more = max(0, total - made.price)
        live = known.open and not known.closes and made.attempts
        allowed = live and known.accepted - self.model.spent(made.number) >= more
        before = dump(self.store)
        try:
            charged = order(self.store, charge(payment_id, total, number=made.number))
        except PaymentRefused:
            assert not allowed
            assert dump(self.store) == before, "refused, and yet written"
            return
        assert allowed
        assert (charged.payment_id, charged.charged) == (payment_id, more)
        made.price += more

    @rule(number=NUMBERS, cumulative=AMOUNTS)
    def begin_close(self, number: int, cumulative: int) -> None:
        known = self.model.channels.get(number)
        voucher = purchase(cumulative, 0, number=number).voucher
        try:
            self.store.begin_close(channel_id(number), voucher).result()
        except PaymentRefused:
            assert known is None or cumulative > known.deposit
            return
        assert known is not None
        known.accepted = max(known.accepted, cumulative)
        known.closes += 1

    @rule(number=NUMBERS)
    def close_failed(self, number: int) -> None:
        known = self.model.channels.get(number)
        if known is not None:
            self.store.close_failed(channel_id(number)).result()
            known.closes = max(0, known.closes - 1)

    @precondition(lambda self: self.model.charges)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        payment_id = data.draw(st.sampled_from(sorted(self.model.charges)))
        self.store.release(payment_id).result()
        charge = self.model.charges[payment_id]
        charge.attempts = max(0, charge.attempts - 1)

    @invariant()
    def the_store_has_the_books_of_the_model(self) -> None:
        for number, known in self.model.channels.items():
            record = self.store.record(channel_id(number))
            assert record is not None
            assert record.accepted >= record.spent
            assert (record.accepted, record.spent) == (known.accepted, self.model.spent(number))
            assert record.chain.deposit == known.deposit
            assert record.closes_begun == known.closes

    def teardown(self) -> None:
        self.store.close()


def test_a_store_agrees_with_the_model_after_any_sequence_of_verbs(
    new_books: Callable[[], str],
) -> None:
    machine = type(
        "Machine", (StoreMachine,), {"make": staticmethod(lambda: open_store(new_books()))}
    )
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=30))
