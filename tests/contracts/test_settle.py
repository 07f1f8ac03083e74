"""``settle``: anyone may send a voucher, it pays only the payee, and it pays once."""

from __future__ import annotations

import pytest

from channelpay.protocol.types import Address, Channel, ChannelState, ChannelStatus
from tests.contracts.abi import Event
from tests.contracts.world import GRACE_SECONDS, World, reverts


@pytest.fixture
def channel(world: World, asset: Address) -> Channel:
    """An open channel with a deposit of 100."""
    channel = world.channel(asset)
    world.open(channel, 100)
    return channel


def test_settle_pays_the_payee_what_the_voucher_adds(world: World, channel: Channel) -> None:
    world.settle(channel, 30)

    with world.pays(channel.token, {world.payee: 15, world.payer: 0, world.contract: -15}):
        receipt = world.settle(channel, 45)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100, 45)
    parties = {"payer": channel.payer, "payee": channel.payee}
    assert receipt.events == (
        Event("Settled", {"channelId": world.id(channel), **parties, "cumulativeAmount": 45}),
    )


@pytest.mark.parametrize("sender", ["payer", "payee", "stranger"])
def test_anyone_may_settle_and_only_the_payee_is_paid(
    world: World, channel: Channel, sender: str
) -> None:
    with world.pays(channel.token, {world.payer: 0, world.payee: 30, world.stranger: 0}):
        world.settle(channel, 30, sender=getattr(world, sender))


def test_a_voucher_pays_once(world: World, channel: Channel) -> None:
    world.settle(channel, 30)

    with reverts("AmountNotIncreasing", 30, 30):
        world.settle(channel, 30)


def test_an_older_voucher_pays_nothing(world: World, channel: Channel) -> None:
    world.settle(channel, 30)

    with reverts("AmountNotIncreasing", 29, 30):
        world.settle(channel, 29)


def test_a_voucher_of_nothing_pays_nothing(world: World, channel: Channel) -> None:
    with reverts("AmountNotIncreasing", 0, 0):
        world.settle(channel, 0)


def test_the_whole_deposit_may_be_settled(world: World, channel: Channel) -> None:
    with world.pays(channel.token, {world.payee: 100, world.contract: -100}):
        world.settle(channel, 100)


@pytest.mark.parametrize("cumulative", [101, 2**96, 2**96 + 50, 2**128 - 1])
def test_a_voucher_above_the_deposit_pays_nothing(
    world: World, channel: Channel, cumulative: int
) -> None:
    with reverts("AmountExceedsDeposit", cumulative, 100):
        world.settle(channel, cumulative)


def test_a_voucher_settles_while_a_close_is_pending(world: World, channel: Channel) -> None:
    requested_at = world.request_close(channel).timestamp

    with world.pays(channel.token, {world.payee: 60}):
        world.settle(channel, 60)

    assert world.state(channel) == ChannelState(ChannelStatus.CLOSING, 100, 60, requested_at)


@pytest.mark.parametrize("seconds_after_grace", [-1, 0, 1, 10**6])
def test_a_voucher_settles_until_the_withdrawal_lands(
    world: World, channel: Channel, seconds_after_grace: int
) -> None:
    over = world.request_close(channel).timestamp + GRACE_SECONDS
    world.next_block_at(over + seconds_after_grace)

    with world.pays(channel.token, {world.payee: 60}):
        world.settle(channel, 60)
    world.next_block_at(over + 10**6 + 1)
    with world.pays(channel.token, {world.payer: 40, world.payee: 0, world.contract: -40}):
        world.withdraw(channel)


def test_a_voucher_settles_right_after_a_top_up_by_anyone(world: World, channel: Channel) -> None:
    world.top_up(channel, 50, sender=world.stranger)

    with world.pays(channel.token, {world.payee: 150}):
        world.settle(channel, 150)


def test_settling_one_channel_leaves_its_neighbour(world: World, asset: Address) -> None:
    ours, other = world.channel(asset), world.channel(asset, salt=1 << 32)
    world.open(ours, 100)
    world.open(other, 100)

    world.settle(ours, 100)

    assert world.state(other) == ChannelState(ChannelStatus.OPEN, 100)
    with world.pays(asset, {world.payee: 100}):
        world.settle(other, 100)
