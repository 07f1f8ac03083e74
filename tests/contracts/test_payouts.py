"""Many receivers in one transaction: each gets exactly its amount or is skipped, no round is paid
twice, and nothing stays in the contract.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from channelpay.chain import artifacts
from channelpay.protocol.types import NATIVE, Address
from tests.contracts.abi import Abi, Event
from tests.contracts.world import (
    UNLIMITED,
    Contract,
    Receipt,
    Reverted,
    Sender,
    World,
    mocks,
)

PAYOUTS = Abi(artifacts.payouts().abi)
ROUND_GAS = 3_000_000
REFUSING = ["RevertingWallet", "GasBurningWallet", "RevertBombWallet"]
TURNED_AWAY = ["BlacklistToken", "BombToken"]

Row = tuple[bytes, int]


def account(number: int) -> Address:
    """An account that nobody has used."""
    return Address(b"\xbb" * 18 + number.to_bytes(2, "big"))


ANNA, BERT, CARL = account(1), account(2), account(3)


@pytest.fixture
def payouts(world: World) -> Contract:
    contract = Contract(world.deploy(artifacts.payouts().bytecode), PAYOUTS)
    world.send(world.payer, world.token, "approve", contract.address, UNLIMITED)
    return contract


def pay(
    world: World,
    payouts: Contract,
    token: Address,
    number: int,
    rows: Sequence[Row],
    *,
    sender: Sender | None = None,
    value: int | None = None,
    gas: int = ROUND_GAS,
) -> Receipt:
    """A round of the payer, with the right value, unless told otherwise."""
    total = sum(amount for _, amount in rows) if token == NATIVE else 0
    return world.send(
        sender or world.payer,
        payouts,
        "pay",
        token,
        number,
        list(rows),
        value=total if value is None else value,
        gas=gas,
    )


def said(world: World, payouts: Contract) -> list[tuple[Any, ...]]:
    """Receiver, amount and fate of each row of the newest block."""
    events: list[Event] = [
        payouts.abi.decode_event((topic.to_bytes(32, "big") for topic in log.topics), log.data)
        for log in world.chain.head.receipts[0].logs
        if bytes(log.address) == payouts.address
    ]
    return [
        (one.arguments["receiver"], one.arguments["amount"], one.arguments["paid"])
        for one in events
    ]


@contextmanager
def refuses(name: str, *values: object) -> Iterator[None]:
    with pytest.raises(Reverted) as caught:
        yield
    assert PAYOUTS.decode_error(bytes.fromhex(caught.value.name)) == (name, values)


@contextmanager
def pays(world: World, token: Address, expected: Mapping[Address, int]) -> Iterator[None]:
    """Expect exactly these changes of balances, gas left out."""
    before = {one: world.balance(token, one) for one in expected}
    yield
    assert {one: world.balance(token, one) - before[one] for one in expected} == expected


def test_every_receiver_gets_its_amount(world: World, payouts: Contract, asset: Address) -> None:
    rows = [(ANNA, 10), (BERT, 7), (ANNA, 3), (CARL, 0)]

    with pays(world, asset, {ANNA: 13, BERT: 7, world.payer.address: -20}):
        pay(world, payouts, asset, 0, rows)

    assert said(world, payouts) == [
        (ANNA, 10, True),
        (BERT, 7, True),
        (ANNA, 3, True),
        (CARL, 0, True),
    ]
    assert world.balance(asset, payouts.address) == 0


def test_no_round_is_paid_twice(world: World, payouts: Contract, asset: Address) -> None:
    pay(world, payouts, asset, 0, [(ANNA, 10)])

    with refuses("WrongRound", 1):
        pay(world, payouts, asset, 0, [(ANNA, 10)])
    with refuses("WrongRound", 1):
        pay(world, payouts, asset, 2, [(ANNA, 10)])
    pay(world, payouts, asset, 1, [(ANNA, 5)])

    assert world.balance(asset, ANNA) == 15
    assert world.read(payouts, "rounds", world.payer.address) == 2


def test_rounds_are_counted_for_each_sender(world: World, payouts: Contract) -> None:
    pay(world, payouts, NATIVE, 0, [(ANNA, 10)])

    pay(world, payouts, NATIVE, 0, [(BERT, 10)], sender=world.stranger)

    assert world.read(payouts, "rounds", world.stranger.address) == 1


@pytest.mark.parametrize("kind", REFUSING)
def test_a_receiver_that_refuses_ether_is_skipped_alone(
    world: World, payouts: Contract, kind: str
) -> None:
    hostile = world.deploy_wallet(kind).address
    rows = [(ANNA, 10), (hostile, 1_000), (BERT, 7)]

    with pays(world, NATIVE, {ANNA: 10, BERT: 7, world.payer.address: -17}):
        pay(world, payouts, NATIVE, 0, rows)

    assert said(world, payouts) == [(ANNA, 10, True), (hostile, 1_000, False), (BERT, 7, True)]
    assert world.balance(NATIVE, payouts.address) == 0


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_receiver_that_the_token_turns_away_is_skipped_alone(
    world: World, payouts: Contract, kind: str
) -> None:
    token = world.deploy_token(kind)
    world.send(world.payer, token, "approve", payouts.address, UNLIMITED)
    world.configure(token, kind, "list", BERT, True)
    rows = [(ANNA, 10), (BERT, 1_000), (CARL, 7)]

    with pays(world, token.address, {ANNA: 10, CARL: 7, world.payer.address: -17}):
        pay(world, payouts, token.address, 0, rows)

    assert [paid for _, _, paid in said(world, payouts)] == [True, False, True]


def test_a_token_without_answers_pays(world: World, payouts: Contract) -> None:
    token = world.deploy_token("SilentToken")
    world.send(world.payer, token, "approve", payouts.address, UNLIMITED)

    with pays(world, token.address, {ANNA: 10, world.payer.address: -10}):
        pay(world, payouts, token.address, 0, [(ANNA, 10)])

    assert said(world, payouts) == [(ANNA, 10, True)]


def test_a_token_burns_what_a_row_may_use(world: World, payouts: Contract) -> None:
    token = world.deploy_token("HungryToken")
    world.send(world.payer, token, "approve", payouts.address, UNLIMITED)
    world.configure(token, "HungryToken", "setAppetite", 250_000)

    pay(world, payouts, token.address, 0, [(ANNA, 10)])

    assert said(world, payouts) == [(ANNA, 10, False)]


def test_what_is_no_token_pays_nobody(world: World, payouts: Contract) -> None:
    with refuses("NoToken", account(9)):
        pay(world, payouts, account(9), 0, [(ANNA, 10)])


def test_more_than_was_allowed_is_skipped(world: World, payouts: Contract) -> None:
    world.send(world.payer, world.token, "approve", payouts.address, 12)

    with pays(world, world.token.address, {ANNA: 10, world.payer.address: -10}):
        pay(world, payouts, world.token.address, 0, [(ANNA, 10), (BERT, 7)])

    assert [paid for _, _, paid in said(world, payouts)] == [True, False]


@pytest.mark.parametrize(("value", "expected"), [(16, 17), (18, 17), (0, 10)])
def test_ether_has_to_be_exactly_what_the_rows_say(
    world: World, payouts: Contract, value: int, expected: int
) -> None:
    with refuses("WrongValue", expected):
        pay(world, payouts, NATIVE, 0, [(ANNA, 10), (BERT, 7)], value=value)

    assert world.balance(NATIVE, ANNA) == 0


def test_ether_that_comes_with_a_token_is_refused(world: World, payouts: Contract) -> None:
    with refuses("WrongValue", 0):
        pay(world, payouts, world.token.address, 0, [(ANNA, 10)], value=1)


def test_a_receiver_that_calls_back_takes_nothing_of_the_others(
    world: World, payouts: Contract
) -> None:
    wallet = world.deploy_wallet("ReentrantWallet")
    again = PAYOUTS.encode("pay", NATIVE, 0, [(wallet.address, 1_000)])
    world.configure(wallet, "ReentrantWallet", "plan", payouts.address, again)

    with pays(world, NATIVE, {wallet.address: 10, ANNA: 1_000, world.payer.address: -1_010}):
        pay(world, payouts, NATIVE, 0, [(wallet.address, 10), (ANNA, 1_000)])

    planned = Contract(wallet.address, mocks()["ReentrantWallet"].abi)
    assert (world.read(planned, "calls"), world.read(planned, "successes")) == (1, 0)


def test_a_sender_that_cannot_take_back_what_was_skipped_pays_nothing(
    world: World, payouts: Contract
) -> None:
    sender = world.deploy_wallet("RevertingWallet")
    refusing = world.deploy_wallet("RevertingWallet").address
    world.give_ether(sender, 1_000)

    with refuses("RefundFailed", 7):
        pay(world, payouts, NATIVE, 0, [(ANNA, 10), (refusing, 7)], sender=sender)

    assert world.balance(NATIVE, ANNA) == 0
    assert world.read(payouts, "rounds", sender.address) == 0


def test_little_gas_skips_nobody(world: World, payouts: Contract) -> None:
    """Who sends a round cannot make a receiver fail that takes what a row may use."""
    hungry = world.deploy_wallet("HungryWallet")
    world.configure(hungry, "HungryWallet", "setAppetite", 190_000)

    gas = 120_000
    while not world.read(payouts, "rounds", world.payer.address):
        gas += 1_000
        with suppress(Reverted):
            pay(world, payouts, NATIVE, 0, [(hungry.address, 10)], gas=gas)

    assert said(world, payouts) == [(hungry.address, 10, True)]


def test_nobody_can_leave_ether_in_the_contract(world: World, payouts: Contract) -> None:
    with pytest.raises(Reverted):
        world.send_data(world.stranger, payouts.address, b"", 1)
    with pays(world, NATIVE, {world.payer.address: 0}):
        pay(world, payouts, NATIVE, 0, [(payouts.address, 5)])


def test_one_row_more_costs_less_than_a_transfer(world: World, payouts: Contract) -> None:
    """Of receivers that hold something already."""
    rows = [(account(100 + number), 10) for number in range(20)]
    pay(world, payouts, NATIVE, 0, rows)
    one = pay(world, payouts, NATIVE, 1, rows[:1]).gas_used
    many = pay(world, payouts, NATIVE, 2, rows).gas_used

    assert (many - one) / 19 < 14_500
