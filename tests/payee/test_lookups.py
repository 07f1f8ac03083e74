"""How much of the node's time a client can have who makes opens up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from threading import Event

import pytest

from channelpay.errors import ChainReverted, ChannelPayError, NetworkError, TooFewConfirmations
from channelpay.payee.lookups import (
    REMEMBERED_MAX,
    SECONDS_FAILED,
    SECONDS_UNMINED,
    SHARE_MAX,
    WORKERS,
    Lookups,
)
from tests.payee.shop import wait_on_loop_for

pytestmark = pytest.mark.anyio


class Node:
    """A node that answers when it is let, or refuses."""

    def __init__(self, refusal: ChannelPayError | None = None) -> None:
        self.refusal = refusal
        self.asked = 0
        self.go_on = Event()

    def answer(self) -> str:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        assert self.go_on.wait(20)
        return "found"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lookups(clock: Clock) -> Iterator[Lookups]:
    with closing(Lookups(clock)) as made:
        yield made


def _start(lookups: Lookups, client: str | None, node: Node, count: int) -> list[asyncio.Task[str]]:
    return [asyncio.ensure_future(lookups.run(client, object(), node.answer)) for _ in range(count)]


async def test_a_client_has_no_more_than_its_share_and_others_have_theirs(lookups: Lookups) -> None:
    node = Node()
    greedy = _start(lookups, "192.0.2.1", node, SHARE_MAX + 5)
    await asyncio.sleep(0)
    other = _start(lookups, "192.0.2.2", node, 1)
    await asyncio.sleep(0)
    node.go_on.set()

    refused = [one for one in await _outcomes(greedy) if isinstance(one, NetworkError)]

    assert len(refused) == 5
    assert await _outcomes(other) == ["found"]


async def test_a_share_is_free_again_when_the_node_has_answered(lookups: Lookups) -> None:
    node = Node()
    node.go_on.set()

    for _ in range(3 * SHARE_MAX):
        assert await lookups.run("192.0.2.1", object(), node.answer) == "found"


async def test_calls_that_run_count_until_the_node_answered_though_the_client_is_gone(
    lookups: Lookups,
) -> None:
    node = Node()
    tasks = _start(lookups, "192.0.2.1", node, WORKERS)
    await wait_on_loop_for(lambda: node.asked == WORKERS)
    for task in tasks:
        task.cancel()
    await _outcomes(tasks)

    again = _start(lookups, "192.0.2.1", node, SHARE_MAX)
    await asyncio.sleep(0)
    node.go_on.set()

    refused = [one for one in await _outcomes(again) if isinstance(one, NetworkError)]
    assert len(refused) == WORKERS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        (None, "", True),
    ],
)
async def test_who_counts_as_one_client(
    lookups: Lookups, one: str | None, other: str, same: bool
) -> None:
    node = Node()
    tasks = _start(lookups, one, node, SHARE_MAX)
    await asyncio.sleep(0)
    tasks += _start(lookups, other, node, 1)
    await asyncio.sleep(0)
    node.go_on.set()

    assert isinstance((await _outcomes(tasks))[-1], NetworkError) == same


@pytest.mark.parametrize(
    ("refusal", "seconds"),
    [
        (TooFewConfirmations("the transaction is not mined yet"), SECONDS_UNMINED),
        (ChainReverted("the transaction was mined, but it failed"), SECONDS_FAILED),
    ],
)
async def test_what_was_refused_is_not_asked_again_for_a_while(
    lookups: Lookups, clock: Clock, refusal: ChannelPayError, seconds: float
) -> None:
    node = Node(refusal)
    for _ in range(3):
        with pytest.raises(type(refusal), match=refusal.detail):
            await lookups.run("192.0.2.1", "this", node.answer)
    assert node.asked == 1

    clock.now += seconds + 0.01
    with pytest.raises(type(refusal)):
        await lookups.run("192.0.2.1", "this", node.answer)

    assert node.asked == 2


async def test_trouble_of_the_node_is_not_remembered(lookups: Lookups) -> None:
    node = Node(NetworkError("no answer"))

    for _ in range(2):
        with pytest.raises(NetworkError):
            await lookups.run("192.0.2.1", "this", node.answer)

    assert node.asked == 2


async def test_no_more_than_so_many_refusals_are_remembered(lookups: Lookups) -> None:
    node = Node(TooFewConfirmations("not mined"))

    for number in range(REMEMBERED_MAX + 10):
        with pytest.raises(TooFewConfirmations):
            await lookups.run("192.0.2.1", number, node.answer)

    assert len(lookups._refused) == REMEMBERED_MAX


async def _outcomes(tasks: list[asyncio.Task[str]]) -> list[object]:
    return list(await asyncio.gather(*tasks, return_exceptions=True))
