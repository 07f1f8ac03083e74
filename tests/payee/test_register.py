"""How orders come from an event loop into the books."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from channelpay.observe import Observer
from channelpay.payee.acceptance import Acceptance, Guard
from channelpay.payee.register import TOGETHER_MAX, Register
from channelpay.protocol.rules import Order
from channelpay.store import Answer, MemoryStore
from tests.store.books import add, purchase

pytestmark = pytest.mark.anyio


class Watched(MemoryStore):
    """Knows how many orders came at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.handed_in: list[int] = []

    def accept(self, orders: Sequence[Order]) -> Future[list[Answer]]:
        self.handed_in.append(len(orders))
        return super().accept(orders)


@pytest.fixture
def store() -> Watched:
    store = Watched()
    add(store)
    return store


async def bought(store: Watched, turns: Sequence[int]) -> None:
    """Orders that come so many turns of the loop from now."""
    register = Register(store, Observer(), Guard(Acceptance(), store, "test", 86_400))

    async def buy(number: int, turn: int) -> None:
        for _ in range(turn):
            await asyncio.sleep(0)
        await register.accept(purchase(100, 0, key=str(number)))

    await asyncio.gather(*(buy(number, turn) for number, turn in enumerate(turns)))
    register.close()


async def test_what_comes_in_turns_after_each_other_goes_in_together(store: Watched) -> None:
    await bought(store, [0, 1, 2, 3])

    assert store.handed_in == [4]


async def test_nobody_waits_for_what_comes_after_a_turn_without_any(store: Watched) -> None:
    await bought(store, [0, 9])

    assert store.handed_in == [1, 1]


async def test_nobody_waits_for_others_without_end(store: Watched) -> None:
    await bought(store, range(3 * TOGETHER_MAX))

    assert max(store.handed_in) <= TOGETHER_MAX + 1
    assert sum(store.handed_in) == 3 * TOGETHER_MAX
