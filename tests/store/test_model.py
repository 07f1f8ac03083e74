"""Any sequence of verbs leaves any store with the books that a plain model has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
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
from channelpay.store import MemoryStore, SqliteStore, Store
from tests.store.books import channel, channel_id, dump, purchase, view

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
        for payment_id, charge in self.charges.items():
            if (charge.number, charge.key) == (number, key) and charge.attempts:
                return payment_id
        return None


class StoreMachine(RuleBasedStateMachine):
    make: Callable[[Path], Store]

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.store = type(self).make(Path(self.directory.name) / "books")
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

    @rule(number=NUMBERS, cumulative=AMOUNTS, price=AMOUNTS, key=KEYS, resource=RESOURCES)
    def buy(self, number: int, cumulative: int, price: int, key: str, resource: str) -> None:
        before = dump(self.store)
        wanted = purchase(cumulative, price, number=number, key=key, resource=resource)
        try:
            accepted = self.store.accept(wanted).result()
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
            charge = ModelCharge(number, key, resource, price)
            self.model.charges[accepted.payment_id] = charge
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
        with closing(self.store):
            pass
        self.directory.cleanup()


def _memory(path: Path) -> Store:
    return MemoryStore()


@pytest.mark.parametrize("make", [_memory, SqliteStore], ids=["memory", "sqlite"])
def test_a_store_agrees_with_the_model_after_any_sequence_of_verbs(
    make: Callable[[Path], Store],
) -> None:
    machine = type("Machine", (StoreMachine,), {"make": staticmethod(make)})
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=30))
