"""``settleBatch`` and ``closeBatch``: many channels, one transfer to the payee, and no row that
spoils the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
)
from tests.contracts.abi import Event
from tests.contracts.ledger import BatchRow, Ledger
from tests.contracts.test_receivers import (
    APPETITE,
    PUSH_GAS,
    REFUSING,
    hungry_wallet,
    plan,
    tried,
)
from tests.contracts.test_tokens import TURNED_AWAY
from tests.contracts.world import (
    BATCH_GAS,
    GRACE_SECONDS,
    Contract,
    Receipt,
    Reverted,
    Row,
    Sender,
    Wallet,
    World,
    as_struct,
)


def opened(
    world: World,
    asset: Address,
    count: int,
    *,
    payer: Sender | None = None,
    payee: Sender | None = None,
) -> list[Channel]:
    """Open channels with a deposit of 100 each, one per lane."""
    channels = [
        world.channel(asset, payer=payer, payee=payee, salt=lane << 32) for lane in range(count)
    ]
    for channel in channels:
        world.open(channel, 100)
    return channels


def skips(receipt: Receipt) -> list[bytes]:
    """The channel ids of the skipped rows."""
    return [one.arguments["channelId"] for one in receipt.events if one.name == "RowSkipped"]


UNSIGNED = bytes(64) + b"\x1b"
"""In the form of a signature."""

# Settling


def test_settle_batch_settles_each_row_and_pays_once(world: World, asset: Address) -> None:
    channels = opened(world, asset, 3)
    world.settle(channels[1], 5)
    rows = [world.row(one, 10 * n) for n, one in enumerate(channels, 1)]

    paid = world.read(world.contract, "settleBatch", world.payee.address, asset, rows)
    with world.pays(asset, {world.payee: 55, world.payer: 0, world.contract: -55}):
        receipt = world.settle_batch(world.payee.address, asset, rows)

    assert paid == 55
    assert receipt.transfers == (0 if asset == NATIVE else 1)
    assert receipt.events == tuple(settled(world, one, 10 * n) for n, one in enumerate(channels, 1))
    assert [world.state(one).settled for one in channels] == [10, 20, 30]


def test_settle_batch_pushes_ether_once(world: World) -> None:
    wallet = world.deploy_wallet("ReentrantWallet")
    channels = opened(world, NATIVE, 3, payee=wallet)
    plan(world, wallet, world.contract.abi.encode("gracePeriod"))

    with world.pays(NATIVE, {wallet: 60}):
        world.settle_batch(wallet.address, NATIVE, [world.row(one, 20) for one in channels])

    assert tried(world, wallet) == (1, 1)


@pytest.mark.parametrize("sender", ["payer", "payee", "stranger"])
def test_anyone_settles_a_batch_and_only_the_payee_is_paid(
    world: World, asset: Address, sender: str
) -> None:
    rows = [world.row(one, 20) for one in opened(world, asset, 2)]

    with world.pays(asset, {world.payer: 0, world.payee: 40, world.stranger: 0}):
        world.settle_batch(world.payee.address, asset, rows, sender=getattr(world, sender))


def test_settle_batch_takes_session_keys(world: World) -> None:
    channel = world.channel(signer=world.session_key)
    world.open(channel, 100)

    with world.pays(NATIVE, {world.payee: 60}):
        world.settle_batch(world.payee.address, NATIVE, [world.row(channel, 60)])


def test_settle_batch_works_while_a_close_is_pending(world: World, asset: Address) -> None:
    closing, other = opened(world, asset, 2)
    requested_at = world.request_close(closing).timestamp
    world.next_block_at(requested_at + GRACE_SECONDS + 1)

    with world.pays(asset, {world.payee: 90}):
        world.settle_batch(
            world.payee.address, asset, [world.row(closing, 60), world.row(other, 30)]
        )

    assert world.state(closing) == ChannelState(ChannelStatus.CLOSING, 100, 60, requested_at)


# Rows that are skipped


def absent(world: World, good: Channel) -> Row:
    return world.row(replace(good, salt=b"\x55" * 32), 60)


def finalized(world: World, good: Channel) -> Row:
    row = world.row(good, 60)
    world.close(good, 10)
    return row


def older_epoch(world: World, good: Channel) -> Row:
    row = finalized(world, good)
    world.open(good.with_epoch(1), 100)
    return row


def later_epoch(world: World, good: Channel) -> Row:
    return world.row(good.with_epoch(1), 60)


def above_the_deposit(world: World, good: Channel) -> Row:
    return world.row(good, 101)


def far_above_the_deposit(world: World, good: Channel) -> Row:
    return world.row(good, 2**96 + 60)


def other_key(world: World, good: Channel) -> Row:
    return world.row(good, 60, world.sign_as(world.stranger, world.id(good), 60))


def other_amount(world: World, good: Channel) -> Row:
    return world.row(good, 60, world.sign(good, 59))


def close_authorization(world: World, good: Channel) -> Row:
    return world.row(good, 60, world.sign_close_as(world.payer, world.id(good), 60))


def other_token(world: World, good: Channel) -> Row:
    token = world.token.address if good.token == NATIVE else NATIVE
    other = replace(good, token=token, salt=b"\x66" * 28 + bytes(4))
    world.open(other, 100)
    return world.row(other, 60)


def other_payee(world: World, good: Channel) -> Row:
    other = replace(good, payee=world.accounts[4].address, salt=b"\x66" * 28 + bytes(4))
    world.open(other, 100)
    return world.row(other, 60)


WRONG_ROWS: list[Callable[[World, Channel], Row]] = [
    absent,
    finalized,
    older_epoch,
    later_epoch,
    above_the_deposit,
    far_above_the_deposit,
    other_key,
    other_amount,
    close_authorization,
    other_token,
    other_payee,
]


@pytest.mark.parametrize("wrong", WRONG_ROWS)
@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_a_wrong_row_is_skipped_and_the_others_are_paid(
    world: World, asset: Address, function: str, wrong: Callable[[World, Channel], Row]
) -> None:
    first, victim, last = opened(world, asset, 3)
    row = wrong(world, victim)
    before = world.state(victim)

    rows = [world.row(first, 10), row, world.row(last, 30)]
    with world.pays(asset, {world.payee: 40}):
        receipt = batch(world, function, asset, rows)

    assert skips(receipt) == [row_id(world, asset, row)]
    assert len(receipt.events) == 3
    assert world.state(victim) == before


BITS = {
    "the other v": (0, 1 << 255),
    "another r": (1 << 250, 0),
    "another s": (0, 1 << 250),
}
"""Of r and of vs."""


@pytest.mark.parametrize("flipped", BITS)
@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_a_row_whose_signature_is_another_pays_nothing(
    world: World, function: str, flipped: str
) -> None:
    [channel] = opened(world, NATIVE, 1)
    salt, payer, key, cumulative, r, vs = world.row(channel, 60)
    r, vs = (flip(word, bits) for word, bits in zip((r, vs), BITS[flipped], strict=True))

    with world.pays(NATIVE, {world.payee: 0, world.payer: 0, world.contract: 0}):
        receipt = batch(world, function, NATIVE, [(salt, payer, key, cumulative, r, vs)])

    assert skips(receipt) == [world.id(channel)]


@pytest.mark.parametrize("signer", ["payer", "nobody"])
@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_a_signature_that_no_key_made_pays_nothing_in_a_batch(
    world: World, function: str, signer: str
) -> None:
    """``ecrecover`` answers zero for it, and a zero authorized signer means the payer."""
    [channel] = opened(world, NATIVE, 1)
    payer = channel.payer if signer == "payer" else ZERO_ADDRESS

    for words in ((bytes(32), bytes(32)), (bytes(32), b"\x7f" + bytes(31))):
        row = (channel.salt, payer, ZERO_ADDRESS, 60, *words)
        with world.pays(NATIVE, {world.payee: 0, world.contract: 0}):
            receipt = batch(world, function, NATIVE, [row])
        assert skips(receipt) == [row_id(world, NATIVE, row)]


@pytest.mark.parametrize("word", range(4))
@pytest.mark.parametrize("function", ["settleBatch", "closeBatch"])
def test_a_row_with_dirty_words_is_skipped(world: World, function: str, word: int) -> None:
    """A payer, signer or amount with a bit set above its size; the salt's bits are all its own."""
    first, victim, last = opened(world, NATIVE, 3)
    rows = [world.row(one, 60) for one in (first, victim, last)]
    arguments = (world.payee.address, NATIVE, rows)[0 if function == "settleBatch" else 1 :]
    data = bytearray(world.contract.abi.encode(function, *arguments))
    data[-(2 * 6 - word) * 32] = 1

    with world.pays(NATIVE, {world.payee: 120}):
        receipt = world.send_data(world.payee, world.contract.address, bytes(data))

    assert len(skips(receipt)) == 1
    assert world.state(victim) == ChannelState(ChannelStatus.OPEN, 100)


def flip(word: bytes, mask: int) -> bytes:
    return (int.from_bytes(word, "big") ^ mask).to_bytes(32, "big")


@pytest.mark.parametrize("cumulative", [0, 19, 20])
def test_settle_batch_skips_what_is_settled_already(
    world: World, asset: Address, cumulative: int
) -> None:
    [channel] = opened(world, asset, 1)
    world.settle(channel, 20)

    with world.pays(asset, {world.payee: 0}):
        receipt = world.settle_batch(world.payee.address, asset, [world.row(channel, cumulative)])

    assert skips(receipt) == [world.id(channel)]


def test_one_channel_twice_in_a_batch_is_paid_up_to_its_highest_voucher(
    world: World, asset: Address
) -> None:
    [channel] = opened(world, asset, 1)
    rows = [world.row(channel, amount) for amount in (30, 30, 50, 40)]

    with world.pays(asset, {world.payee: 50, world.contract: -50}):
        receipt = world.settle_batch(world.payee.address, asset, rows)

    assert skips(receipt) == [world.id(channel)] * 2
    assert world.state(channel).settled == 50


@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_an_empty_batch_does_nothing(world: World, asset: Address, function: str) -> None:
    with world.pays(asset, {world.payee: 0, world.contract: 0}):
        receipt = batch(world, function, asset, [])

    assert (receipt.events, receipt.transfers) == ((), 0)


@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_a_batch_of_wrong_rows_does_nothing(world: World, asset: Address, function: str) -> None:
    channels = opened(world, asset, 2)
    rows = [other_key(world, one) for one in channels]

    with world.pays(asset, {world.payee: 0, world.payer: 0, world.contract: 0}):
        receipt = batch(world, function, asset, rows)

    assert skips(receipt) == [world.id(one) for one in channels]
    assert (len(receipt.events), receipt.transfers) == (2, 0)
    assert all(world.state(one) == ChannelState(ChannelStatus.OPEN, 100) for one in channels)


@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_a_batch_in_a_token_without_code_does_nothing(world: World, function: str) -> None:
    receipt = batch(world, function, Address(b"\x77" * 20), [world.row(world.channel(), 60)])

    assert len(skips(receipt)) == len(receipt.events) == 1


# Closing


def test_close_batch_pays_the_payee_once_and_refunds_each_channel(
    world: World, asset: Address
) -> None:
    mine, theirs = world.channel(asset), world.channel(asset, payer=world.stranger)
    for channel in (mine, theirs):
        world.open(channel, 100)
    world.settle(mine, 5)
    rows = [world.row(mine, 60), world.row(theirs, 30)]

    paid = world.read_as(world.payee.address, world.contract, "closeBatch", asset, rows)
    changes = {world.payee: 85, world.payer: 40, world.stranger: 70, world.contract: -195}
    with world.pays(asset, changes):
        receipt = world.close_batch(asset, rows)

    assert paid == 85
    assert receipt.transfers == (0 if asset == NATIVE else 3)
    assert receipt.events == (closed(world, mine, 60, 40), closed(world, theirs, 30, 70))
    assert world.state(mine) == ChannelState(ChannelStatus.FINALIZED, 100, 60)


def test_close_batch_pushes_ether_to_the_payee_once(world: World) -> None:
    wallet = world.deploy_wallet("ReentrantWallet")
    channels = opened(world, NATIVE, 3, payee=wallet)
    plan(world, wallet, world.contract.abi.encode("gracePeriod"))

    with world.pays(NATIVE, {wallet: 60, world.payer: 240}):
        world.close_batch(NATIVE, [world.row(one, 20) for one in channels], sender=wallet)

    assert tried(world, wallet) == (1, 1)


@pytest.mark.parametrize("sender", ["payer", "stranger"])
def test_close_batch_closes_only_the_callers_channels(
    world: World, asset: Address, sender: str
) -> None:
    """A payee is not named: the rows of another one describe channels that do not exist."""
    [channel] = opened(world, asset, 1)

    with world.pays(asset, {world.payee: 0, world.payer: 0, world.contract: 0}):
        receipt = world.close_batch(asset, [world.row(channel, 60)], sender=getattr(world, sender))

    theirs = replace(channel, payee=getattr(world, sender).address)
    assert skips(receipt) == [world.id(theirs)]
    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


@pytest.mark.parametrize("cumulative", [0, 19, 20])
def test_close_batch_of_a_settled_amount_looks_at_no_signature(
    world: World, asset: Address, cumulative: int
) -> None:
    [channel] = opened(world, asset, 1)
    world.settle(channel, 20)

    with world.pays(asset, {world.payee: 0, world.payer: 80, world.contract: -80}):
        world.close_batch(asset, [world.row(channel, cumulative, UNSIGNED)])

    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 20)


def test_one_channel_twice_in_a_batch_closes_once(world: World, asset: Address) -> None:
    [channel] = opened(world, asset, 1)

    with world.pays(asset, {world.payee: 30, world.payer: 70, world.contract: -100}):
        receipt = world.close_batch(asset, [world.row(channel, n) for n in (30, 50)])

    assert skips(receipt) == [world.id(channel)]


# Receivers that refuse


@pytest.mark.parametrize("kind", REFUSING)
@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_the_share_of_a_payee_that_refuses_is_kept(world: World, kind: str, function: str) -> None:
    payee = world.deploy_wallet(kind)
    channels = opened(world, NATIVE, 2, payee=payee)
    rows = [world.row(one, 20) for one in channels]

    refunds = 0 if function == "settle_batch" else 160
    with world.pays(NATIVE, {payee: 0, world.payer: refunds, world.contract: -refunds}):
        receipt = batch(world, function, NATIVE, rows, payee=payee)

    kept = {"token": NATIVE, "account": payee.address, "amount": 40}
    assert receipt.events[-1] == Event("ShareKept", kept)
    assert world.kept(NATIVE, payee.address) == 40
    assert [world.state(one).settled for one in channels] == [20, 20]


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_the_share_of_a_payee_that_the_token_turns_away_is_kept(world: World, kind: str) -> None:
    token = world.deploy_token(kind)
    rows = [world.row(one, 20) for one in opened(world, token.address, 2)]
    world.configure(token, kind, "list", world.payee.address, True)

    world.settle_batch(world.payee.address, token.address, rows)

    assert world.kept(token.address, world.payee.address) == 40


@pytest.mark.parametrize("kind", [*REFUSING, "ReturnBombWallet"])
def test_a_payer_that_refuses_stops_no_other_row(world: World, kind: str) -> None:
    foe = world.deploy_wallet(kind)
    world.give_ether(foe, 200)
    first, last = opened(world, NATIVE, 2)
    hostile = [world.channel(payer=foe, signer=world.session_key, salt=n << 32) for n in (0, 1)]
    for channel in hostile:
        world.open(channel, 100)

    rows = [world.row(one, 60) for one in (first, *hostile, last)]
    with world.pays(NATIVE, {world.payee: 240, world.payer: 80}):
        world.close_batch(NATIVE, rows)

    refused = kind in REFUSING
    assert world.kept(NATIVE, foe.address) == (80 if refused else 0)
    for channel in (first, *hostile, last):
        assert world.state(channel).status is ChannelStatus.FINALIZED


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_payer_that_the_token_turns_away_stops_no_other_row(world: World, kind: str) -> None:
    token = world.deploy_token(kind)
    listed, other = (world.channel(token.address, payer=one) for one in world.accounts[0:3:2])
    for channel in (listed, other):
        world.open(channel, 100)
    world.configure(token, kind, "list", world.payer.address, True)

    with world.pays(token.address, {world.payee: 120, world.stranger: 40, world.payer: 0}):
        world.close_batch(token.address, [world.row(one, 60) for one in (listed, other)])

    assert world.kept(token.address, world.payer.address) == 40


def test_many_gas_burning_payers_cost_a_push_each_and_stop_nothing(world: World) -> None:
    foe = world.deploy_wallet("GasBurningWallet")
    count = 8
    world.give_ether(foe, 100 * count)
    hostile = [
        world.channel(payer=foe, signer=world.session_key, salt=n << 32) for n in range(count)
    ]
    for channel in hostile:
        world.open(channel, 100)

    with world.pays(NATIVE, {world.payee: 60 * count}):
        receipt = world.close_batch(NATIVE, [world.row(one, 60) for one in hostile])

    assert world.kept(NATIVE, foe.address) == 40 * count
    assert receipt.gas_used < (PUSH_GAS + 60_000) * (count + 1)


@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
def test_no_sender_can_force_a_share_of_a_batch_to_be_kept(world: World, function: str) -> None:
    """Whatever the gas limit, a hungry payer and a hungry payee are paid, or nothing happens."""
    payer, payee = (hungry_wallet(world, APPETITE) for _ in range(2))
    world.give_ether(payer, 200)
    channels = [
        world.channel(payer=payer, payee=payee, signer=world.session_key, salt=n << 32)
        for n in (0, 1)
    ]
    for channel in channels:
        world.open(channel, 100)
    rows = [world.row(one, 60) for one in channels]

    outcomes = []
    for gas in range(150_000, 1_100_001, 20_000):
        with world.rolled_back():
            outcomes.append(outcome(world, function, rows, payee, gas))

    assert set(outcomes) == {"paid", "refused"}
    assert sum(before != after for before, after in pairwise(outcomes)) == 1
    assert outcomes[-1] == "paid"


def outcome(world: World, function: str, rows: list[Row], payee: Sender, gas: int) -> str:
    try:
        receipt = batch(world, function, NATIVE, rows, payee=payee, gas=gas)
    except Reverted:
        return "refused"
    return "kept" if any(one.name == "ShareKept" for one in receipt.events) else "paid"


# Coming back


def returning_payer(world: World) -> tuple[Wallet, list[Channel]]:
    """A wallet with three channels to the payee, beside one of somebody else."""
    wallet = world.deploy_wallet("ReentrantWallet")
    world.give_ether(wallet, 1000)
    channels = [
        world.channel(payer=wallet, signer=world.session_key, salt=n << 32) for n in range(3)
    ]
    for channel in channels:
        world.open(channel, 100)
    world.open(world.channel(), 1000)
    return wallet, channels


def test_a_refund_cannot_settle_a_later_row_twice(world: World) -> None:
    """The payer settles the batch's second row from inside the first one's refund: it is paid
    then, and not once more.
    """
    wallet, (first, second, third) = returning_payer(world)
    voucher = (as_struct(second), 60, world.sign(second, 60))
    plan(world, wallet, world.contract.abi.encode("settle", *voucher))

    rows = [world.row(one, 60) for one in (first, second, third)]
    with world.pays(NATIVE, {world.payee: 180, wallet: 120, world.contract: -300}):
        world.close_batch(NATIVE, rows)

    assert tried(world, wallet) == (3, 1)


@pytest.mark.parametrize(
    ("function", "paid"),
    [("withdraw", 120), ("settleBatch", 180), ("close", 180), ("closeBatch", 180)],
)
def test_a_refund_that_comes_back_gains_nothing(world: World, function: str, paid: int) -> None:
    """It may withdraw or settle what is due; each channel still pays out its 100 and no more."""
    wallet, channels = returning_payer(world)
    ready_at = [world.request_close(one).timestamp + GRACE_SECONDS for one in channels][-1]
    rows = [world.row(one, 60) for one in channels]
    arguments: dict[str, tuple[Any, ...]] = {
        "withdraw": (as_struct(channels[1]),),
        "settleBatch": (world.payee.address, NATIVE, rows),
        "close": (as_struct(channels[1]), 0, b""),
        "closeBatch": (NATIVE, rows),
    }
    plan(world, wallet, world.contract.abi.encode(function, *arguments[function]))
    world.next_block_at(ready_at)

    with world.pays(NATIVE, {world.payee: paid, wallet: 300 - paid, world.contract: -300}):
        world.close_batch(NATIVE, rows)

    assert {world.state(one).status for one in channels} == {ChannelStatus.FINALIZED}
    assert world.state(world.channel()) == ChannelState(ChannelStatus.OPEN, 1000)


def test_a_refund_cannot_reopen_its_lane_into_the_batch(world: World) -> None:
    """The new epoch is another channel: no voucher of the old one closes it."""
    token = world.deploy_token("HookToken")
    wallet = world.deploy_wallet("ReentrantWallet")
    old = world.channel(token.address, payer=wallet, signer=world.session_key)
    world.fund(wallet, token)
    world.open(old, 100)
    new = old.with_epoch(1)
    description = (new.payee, new.token, 50, new.salt, new.authorized_signer)
    plan(world, wallet, world.contract.abi.encode("open", *description))

    rows = [world.row(old, 60), world.row(old, 60), world.row(new, 40, world.sign(old, 40))]
    with world.pays(token.address, {world.payee: 60, wallet: -10, world.contract: -50}):
        receipt = world.close_batch(token.address, rows)

    assert skips(receipt) == [world.id(old), world.id(new)]
    assert world.state(new) == ChannelState(ChannelStatus.OPEN, 50)


# By the model


SALTS = [lane << 32 | epoch for lane in range(2) for epoch in range(2)]


@dataclass(frozen=True, slots=True)
class Place:
    """Which of a few channels a row is about."""

    salt: int
    payer: int = 0
    payee: int = 0
    token: int = 0
    with_session_key: bool = False


mostly_here = st.sampled_from([0, 0, 0, 0, 0, 1])
places = st.builds(
    Place,
    salt=st.sampled_from(SALTS),
    payer=st.integers(0, 1),
    payee=mostly_here,
    token=mostly_here,
    with_session_key=st.booleans(),
)
amounts = st.integers(0, 40) | st.sampled_from([101, DEPOSIT_MAX, 2**96 + 7, 2**128 - 1])
batch_rows = st.lists(
    st.tuples(places, amounts, st.sampled_from(["right", "right", "right", "other key"])),
    max_size=8,
)
histories = st.lists(
    st.tuples(places, st.sampled_from(["open", "settle", "request", "close"])), max_size=6
)


@pytest.mark.parametrize("function", ["settle_batch", "close_batch"])
@settings(
    max_examples=settings().max_examples // 3,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(history=histories, rows=batch_rows)
def test_a_batch_is_its_rows_one_by_one(
    world: World,
    asset: Address,
    function: str,
    history: list[tuple[Place, str]],
    rows: list[tuple[Place, int, str]],
) -> None:
    """Whatever is in it: it does what the rows would do alone, without those that would revert."""
    ledger = Ledger(world.contract.address)
    with world.rolled_back():
        for place, action in history:
            happen(world, ledger, channel_at(world, asset, place), action)
        before = dict(ledger.moved)
        expected, calldata = [], []
        for place, cumulative, signing in rows:
            told = channel_at(world, asset, place)
            asked = replace(told, payee=world.payee.address, token=asset)
            signed = told == asked and signing == "right"
            expected.append(BatchRow(asked, cumulative, signed))
            key = world.senders[told.signer] if signing == "right" else world.accounts[7]
            signature = world.sign_as(key, world.id(told), cumulative)  # type: ignore[arg-type]
            calldata.append(world.row(told, cumulative, signature))

        paid, skipped = getattr(ledger, function)(world.payee.address, asset, expected)
        people: list[Sender | Contract] = [
            world.payer,
            world.stranger,
            world.payee,
            world.accounts[4],
            world.contract,
        ]
        changes = {
            one: ledger.moved[asset, one.address] - before.get((asset, one.address), 0)
            for one in people
        }
        with world.pays(asset, changes):
            receipt = batch(world, function, asset, calldata)

        assert skips(receipt) == [world.id(one) for one in skipped]
        assert changes[world.payee] == paid
        for channel in {row.channel for row in expected}:
            lane = ledger.lane(channel)
            state = lane.view(channel.epoch) if lane else ChannelState(ChannelStatus.ABSENT)
            assert world.state(channel) == state


def channel_at(world: World, asset: Address, place: Place) -> Channel:
    other = world.token.address if asset == NATIVE else NATIVE
    return Channel(
        (world.payer, world.stranger)[place.payer].address,
        (world.payee, world.accounts[4])[place.payee].address,
        (asset, other)[place.token],
        world.session_key.address if place.with_session_key else ZERO_ADDRESS,
        place.salt.to_bytes(32, "big"),
    )


def happen(world: World, ledger: Ledger, channel: Channel, action: str) -> None:
    """What came before the batch, where it is possible."""
    lane = ledger.lane(channel)
    is_live = lane is not None and lane.epoch == channel.epoch and not lane.finalized
    if not is_live:
        if lane is None or (lane.finalized and lane.epoch < channel.epoch):
            world.open(channel, 100)
            ledger.open(channel, 100, channel.payer)
    elif action == "settle" and lane and lane.settled < 20:
        world.settle(channel, 20)
        ledger.settle(BatchRow(channel, 20))
    elif action == "request":
        ledger.now = world.chain.pending_header().timestamp
        world.request_close(channel)
        ledger.request_close(channel, by_payer=True)
    elif action == "close":
        world.close(channel, 30)
        ledger.close(BatchRow(channel, 30), by_payee=True)


# Gas


MARGINAL_GAS_MAX = 13_500
"""What one more settlement in a batch may cost, to the hundred: a signature with a zero byte more
or less costs 12 less or more.
"""


def test_a_hundred_rows_fit_a_block_and_one_more_is_cheap(world: World) -> None:
    used = {count: gas_of(world, "settle_batch", count) for count in (1, 10, 100)}

    marginal = (used[100] - used[10]) / 90
    assert round(marginal, -2) <= MARGINAL_GAS_MAX
    assert used[100] < BATCH_GAS / 10


def test_a_hundred_channels_close_in_one_batch(world: World) -> None:
    assert gas_of(world, "close_batch", 100) < BATCH_GAS / 5


def gas_of(world: World, function: str, count: int) -> int:
    """Of a batch of ERC-20 channels that were settled before, between people who hold tokens."""
    with world.rolled_back():
        world.send(world.stranger, world.token, "mint", world.payee.address, 1)
        channels = [
            world.channel(world.token.address, salt=int.from_bytes(b"\x55" * 28) + n << 32)
            for n in range(count)
        ]
        for channel in channels:
            world.open(channel, 10**6)
        rows = [world.row(one, 600_000) for one in channels]
        return batch(world, function, world.token.address, rows).gas_used


# Details


def batch(
    world: World,
    function: str,
    asset: Address,
    rows: list[Row],
    *,
    payee: Sender | None = None,
    gas: int = BATCH_GAS,
) -> Receipt:
    """``settleBatch`` by a stranger, or ``closeBatch`` by the payee."""
    payee = payee or world.payee
    if function == "settle_batch":
        return world.settle_batch(payee.address, asset, rows, gas=gas)
    return world.close_batch(asset, rows, sender=payee, gas=gas)


def row_id(world: World, asset: Address, row: Row) -> bytes:
    """The id of the channel that a row describes in a batch of the payee."""
    salt, payer, signer, *_ = row
    channel = Channel(Address(payer), world.payee.address, asset, Address(signer), salt)
    return world.id(channel)


def settled(world: World, channel: Channel, cumulative: int) -> Event:
    parties = {"payer": channel.payer, "payee": channel.payee}
    return Event(
        "Settled", {"channelId": world.id(channel), **parties, "cumulativeAmount": cumulative}
    )


def closed(world: World, channel: Channel, settled: int, refund: int) -> Event:
    parties = {"payer": channel.payer, "payee": channel.payee}
    return Event(
        "ChannelClosed",
        {"channelId": world.id(channel), **parties, "settled": settled, "refund": refund},
    )
