"""``close``: the payee takes its share, the payer gets the rest, and the channel is over."""

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


def test_close_settles_refunds_and_finalizes_at_once(world: World, channel: Channel) -> None:
    changes = {world.payee: 60, world.payer: 40, world.contract: -100}
    with world.pays(channel.token, changes):
        receipt = world.close(channel, 60)

    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 60)
    parties = {"payer": channel.payer, "payee": channel.payee}
    assert receipt.events == (
        Event(
            "ChannelClosed",
            {"channelId": world.id(channel), **parties, "settled": 60, "refund": 40},
        ),
    )


def test_close_pays_only_what_is_not_yet_settled(world: World, channel: Channel) -> None:
    world.settle(channel, 25)

    with world.pays(channel.token, {world.payee: 35, world.payer: 40, world.contract: -75}):
        world.close(channel, 60)


@pytest.mark.parametrize("cumulative", [0, 24, 25])
def test_close_without_a_newer_voucher_refunds_the_rest_and_looks_at_no_signature(
    world: World, channel: Channel, cumulative: int
) -> None:
    world.settle(channel, 25)

    with world.pays(channel.token, {world.payee: 0, world.payer: 75, world.contract: -75}):
        world.close(channel, cumulative, b"")

    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 25)


def test_close_of_the_whole_deposit_refunds_nothing(world: World, channel: Channel) -> None:
    with world.pays(channel.token, {world.payee: 100, world.payer: 0, world.contract: -100}):
        world.close(channel, 100)


@pytest.mark.parametrize("sender", ["payer", "stranger", "session_key"])
def test_only_the_payee_closes(world: World, channel: Channel, sender: str) -> None:
    world.send_data(world.payer, world.session_key.address, b"", value=10**18)

    with reverts("NotPayee", channel.payee):
        world.close(channel, 60, sender=getattr(world, sender))


def test_close_never_pays_above_the_deposit(world: World, channel: Channel) -> None:
    with reverts("AmountExceedsDeposit", 101, 100):
        world.close(channel, 101)


def test_close_checks_the_signature_of_what_it_pays(world: World, channel: Channel) -> None:
    with reverts("InvalidSignature"):
        world.close(channel, 60, world.sign(channel, 59))


def test_close_during_the_grace_period_and_after_it(world: World, asset: Address) -> None:
    for number, wait in enumerate((1, GRACE_SECONDS, GRACE_SECONDS + 5)):
        channel = world.channel(asset, salt=number << 32)
        world.open(channel, 100)
        world.next_block_at(world.request_close(channel).timestamp + wait)

        with world.pays(asset, {world.payee: 60, world.payer: 40}):
            world.close(channel, 60)

        assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 60)


def test_a_channel_closes_once(world: World, channel: Channel) -> None:
    world.close(channel, 60)

    with reverts("ChannelFinalized", world.id(channel)):
        world.close(channel, 60)
    with reverts("ChannelFinalized", world.id(channel)):
        world.settle(channel, 70)


def test_after_a_close_nothing_is_left_to_withdraw(world: World, channel: Channel) -> None:
    over = world.request_close(channel).timestamp + GRACE_SECONDS
    world.close(channel, 60)
    world.next_block_at(over)

    with reverts("ChannelFinalized", world.id(channel)):
        world.withdraw(channel)


def test_one_who_is_payer_and_payee_gets_all_back(world: World, asset: Address) -> None:
    channel = world.channel(asset, payee=world.payer)
    world.open(channel, 100)

    with world.pays(asset, {world.payer: 100, world.contract: -100}):
        world.close(channel, 60)
