"""A lease: never two holders at one time, and a dead holder does not keep it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channelpay.store import MemoryStore, SqliteStore, Store
from tests.store.conftest import OpenStore
from tests.store.held import WriterHeld

DEADLINE_SECONDS = 30
LEASE_SECONDS = 0.05
HOLDERS = ("one", "two", "three")


def take(store: Store, holder: str, seconds: float = 60, name: str = "settle") -> bool:
    return store.take_lease(name, holder, seconds).result()


def test_one_holder_at_a_time_who_may_renew(store: Store) -> None:
    assert take(store, "one")
    assert not take(store, "two")
    assert take(store, "one")


def test_each_name_is_a_lease_of_its_own(store: Store) -> None:
    assert take(store, "one")
    assert take(store, "two", name="follow")


def test_a_lease_that_ran_out_is_anybodys(store: Store) -> None:
    assert take(store, "one", seconds=0)
    assert take(store, "two")
    assert not take(store, "one")


def test_a_dropped_lease_is_anybodys_and_only_its_holder_drops_it(store: Store) -> None:
    assert take(store, "one")
    store.drop_lease("settle", "two").result()
    assert not take(store, "two")

    store.drop_lease("settle", "one").result()

    assert take(store, "two")
    store.drop_lease("nobody took it", "one").result()


def test_a_lease_runs_out_by_itself(store: Store) -> None:
    assert take(store, "one", seconds=0.05)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not take(store, "two"):
        assert time.monotonic() < deadline


def test_a_lease_holds_for_all_stores_and_after_a_restart(open_shared: OpenStore) -> None:
    first, second = open_shared(), open_shared()
    assert take(first, "one")
    assert not take(second, "two")
    first.close()
    assert not take(open_shared(), "two")
    assert take(open_shared(), "one")


def test_leases_taken_in_one_transaction_are_taken_in_their_turn(open_shared: OpenStore) -> None:
    store = open_shared()
    with WriterHeld(store):
        taken = [store.take_lease("settle", holder, 60) for holder in HOLDERS]
        store.drop_lease("settle", "one")
        later = store.take_lease("settle", "two", 60)

    assert [one.result() for one in taken] == [True, False, False]
    assert later.result()


def test_of_many_who_ask_at_two_stores_nobody_holds_it_beside_another(
    open_shared: OpenStore,
) -> None:
    """They count from before their call, as the holder of a lease has to."""
    stores = [open_shared(), open_shared()]
    held: list[tuple[float, float, str]] = []
    turns = count()
    end = time.monotonic() + 1

    def ask(number: int) -> None:
        """Each holder asks once: leases end by being dropped, or by running out."""
        while (asked := time.monotonic()) < end:
            holder = f"holder {next(turns)}"
            if take(stores[number % 2], holder, seconds=LEASE_SECONDS):
                taken, until = time.monotonic(), asked + LEASE_SECONDS
                if drops := len(held) % 2:
                    until = min(until, time.monotonic())
                held.append((taken, until, holder))
                if drops:
                    stores[number % 2].drop_lease("settle", holder).result()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))

    spans = sorted(span for span in held if span[0] < span[1])
    assert len({holder for *_, holder in spans}) > 1
    for (_, until, holder), (begin, _, other) in pairwise(spans):
        assert holder == other or until <= begin


@dataclass
class Machine:
    """A clock, and who may believe to hold the lease, by its own count."""

    now: float = 1_800_000_000.0
    until: dict[str, float] = field(default_factory=dict)

    def holders(self) -> list[str]:
        return [holder for holder, until in self.until.items() if self.now < until]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "drop", "wait"]),
        st.sampled_from(HOLDERS),
        st.sampled_from([0.0, 0.5, 1.0, 2.5]),
    ),
    max_size=25,
)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_history_of_a_lease_has_two_holders(kind: str, tmp_path: Path) -> None:
    numbers = count()

    @settings(max_examples=60, deadline=None)
    @given(STEPS)
    def holds(steps: list[tuple[str, str, float]]) -> None:
        machine = Machine()
        with ExitStack() as stack:
            stores = _stores(kind, tmp_path / f"books-{next(numbers)}", machine, stack)
            for verb, holder, seconds in steps:
                store = stores[HOLDERS.index(holder) % len(stores)]
                _step(machine, store, verb, holder, seconds)
                assert len(machine.holders()) <= 1

    holds()


def _stores(kind: str, path: Path, machine: Machine, stack: ExitStack) -> list[Store]:
    def clock() -> float:
        return machine.now

    if kind == "memory":
        return [MemoryStore(clock)]
    made = (SqliteStore(path, clock=clock) for _ in range(2))
    return [stack.enter_context(closing(store)) for store in made]


def _step(machine: Machine, store: Store, verb: str, holder: str, seconds: float) -> None:
    if verb == "wait":
        machine.now += seconds
    elif verb == "drop":
        store.drop_lease("settle", holder).result()
        machine.until.pop(holder, None)
    else:
        others = [one for one in machine.holders() if one != holder]
        assert take(store, holder, seconds) == (not others)
        if not others:
            machine.until[holder] = machine.now + seconds
