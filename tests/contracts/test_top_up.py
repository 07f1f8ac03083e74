"""``topUp``: anyone may add money, and only the payer's own takes a close request back."""

from __future__ import annotations

import pytest

from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
)
from tests.contracts.abi import Event
from tests.contracts.world import World, reverts


@pytest.fixture
def channel(world: World, asset: Address) -> Channel:
    """An open channel with a deposit of 100."""
    channel = world.channel(asset)
    world.open(channel, 100)
    return channel


def topped_up(world: World, channel: Channel, amount: int, deposit: int) -> Event:
    """The event of a top-up to ``deposit``."""
    return Event(
        "ToppedUp",
        {
            "channelId": world.id(channel),
            "payer": channel.payer,
            "payee": channel.payee,
            "amount": amount,
            "deposit": deposit,
        },
    )


def test_a_top_up_adds_to_the_deposit(world: World, channel: Channel) -> None:
    with world.pays(channel.token, {world.payer: -30, world.contract: 30}):
        receipt = world.top_up(channel, 30)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 130)
    assert receipt.events == (topped_up(world, channel, 30, 130),)


def test_a_top_up_leaves_what_is_settled(world: World, channel: Channel) -> None:
    world.settle(channel, 100)

    world.top_up(channel, 30)
    world.settle(channel, 130)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 130, 130)


def test_a_top_up_by_the_payer_cancels_a_pending_close(world: World, channel: Channel) -> None:
    world.request_close(channel)

    receipt = world.top_up(channel, 30)

    cancelled = {"channelId": world.id(channel), "payer": channel.payer, "payee": channel.payee}
    assert receipt.events == (
        Event("CloseCancelled", cancelled),
        topped_up(world, channel, 30, 130),
    )
    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 130)
    with reverts("CloseNotReady", 0):
        world.withdraw(channel)


def test_a_top_up_by_a_stranger_adds_money_and_cancels_nothing(
    world: World, channel: Channel
) -> None:
    requested_at = world.request_close(channel).timestamp

    with world.pays(channel.token, {world.stranger: -30, world.payer: 0, world.contract: 30}):
        receipt = world.top_up(channel, 30, sender=world.stranger)

    assert receipt.events == (topped_up(world, channel, 30, 130),)
    assert world.state(channel) == ChannelState(ChannelStatus.CLOSING, 130, 0, requested_at)


def test_a_top_up_of_nothing_is_refused(world: World, channel: Channel) -> None:
    world.request_close(channel)

    with reverts("ZeroDeposit"):
        world.top_up(channel, 0)

    assert world.state(channel).status is ChannelStatus.CLOSING


@pytest.mark.parametrize("amount", [DEPOSIT_MAX - 99, 2**128 - 1])
def test_a_top_up_over_the_greatest_deposit_is_refused(
    world: World, channel: Channel, amount: int
) -> None:
    with reverts("DepositOverflow", 100 + amount):
        world.top_up(channel, amount, value=0)


def test_a_top_up_to_the_greatest_deposit_fits(world: World) -> None:
    channel = world.channel(world.token.address)
    world.open(channel, 100)

    world.top_up(channel, DEPOSIT_MAX - 100)

    assert world.state(channel).deposit == DEPOSIT_MAX


@pytest.mark.parametrize("sent", [0, 29, 31])
def test_the_value_sent_must_be_the_amount(world: World, channel: Channel, sent: int) -> None:
    expected = 30 if channel.token == NATIVE else 0
    sent = sent if channel.token == NATIVE else sent + 1

    with reverts("WrongValue", expected, sent):
        world.top_up(channel, 30, value=sent)


def test_tokens_that_cannot_be_moved_are_refused(world: World) -> None:
    channel = world.channel(world.token.address)
    world.open(channel, 100)

    with reverts("TokenTransferFailed", world.token.address):
        world.top_up(channel, 30, sender=world.accounts[5])

    assert world.state(channel).deposit == 100
