"""Lanes and epochs: one storage slot serves one channel after the other, and no voucher outlives
its channel.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from channelpay.protocol.types import NATIVE, Address, Channel, ChannelState, ChannelStatus
from tests.contracts.world import GRACE_SECONDS, World, as_struct, reverts

LAST_EPOCH = 2**32 - 1


def finalized(world: World, channel: Channel, deposit: int = 100, settled: int = 40) -> Channel:
    """Open and close the channel."""
    world.open(channel, deposit)
    world.close(channel, settled)
    return channel


@pytest.mark.parametrize("epoch", [0, 1, 12345, LAST_EPOCH])
def test_a_fresh_lane_takes_any_epoch(world: World, asset: Address, epoch: int) -> None:
    channel = world.channel(asset, salt=epoch)

    world.open(channel, 100)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


@pytest.mark.parametrize("epoch", [6, 7, LAST_EPOCH])
def test_a_finalized_lane_takes_a_greater_epoch(world: World, asset: Address, epoch: int) -> None:
    old = finalized(world, world.channel(asset, salt=5))
    new = old.with_epoch(epoch)

    world.open(new, 70)

    assert world.id(new) != world.id(old)
    assert world.state(new) == ChannelState(ChannelStatus.OPEN, 70)


@pytest.mark.parametrize("epoch", [0, 4, 5])
def test_a_finalized_lane_takes_no_other_epoch(world: World, asset: Address, epoch: int) -> None:
    again = finalized(world, world.channel(asset, salt=5)).with_epoch(epoch)

    with reverts("ChannelAlreadyExists", world.id(again)):
        world.open(again, 70)


def test_a_withdrawn_lane_takes_a_greater_epoch_too(world: World, asset: Address) -> None:
    channel = world.channel(asset)
    world.open(channel, 100)
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)
    world.withdraw(channel)

    world.open(channel.with_epoch(1), 70)

    assert world.state(channel.with_epoch(1)) == ChannelState(ChannelStatus.OPEN, 70)


def test_the_last_epoch_ends_the_lane(world: World) -> None:
    channel = finalized(world, world.channel(salt=LAST_EPOCH))

    for epoch in (0, LAST_EPOCH):
        again = channel.with_epoch(epoch)
        with reverts("ChannelAlreadyExists", world.id(again)):
            world.open(again, 70)


def test_no_voucher_of_an_older_epoch_pays(world: World, asset: Address) -> None:
    old = world.channel(asset)
    world.open(old, 100)
    voucher = world.sign(old, 60)
    world.close(old, 10)
    new = old.with_epoch(1)
    world.open(new, 100)

    with reverts("ChannelFinalized", world.id(old)):
        world.settle(old, 60, voucher)
    with reverts("InvalidSignature"):
        world.settle(new, 60, voucher)
    with reverts("InvalidSignature"):
        world.close(new, 60, voucher)
    assert world.state(new).settled == 0


def test_no_voucher_of_a_later_epoch_pays(world: World, asset: Address) -> None:
    now = world.channel(asset)
    world.open(now, 100)
    later = now.with_epoch(1)

    with reverts("ChannelNotFound", world.id(later)):
        world.settle(later, 60)
    with reverts("InvalidSignature"):
        world.settle(now, 60, world.sign(later, 60))


@pytest.mark.parametrize("function", ["topUp", "settle", "close", "requestClose", "withdraw"])
@pytest.mark.parametrize("when", ["before", "live", "after"])
def test_every_action_needs_a_live_channel_of_that_epoch(
    world: World, function: str, when: str
) -> None:
    never = world.channel(salt=3)
    error, channel = "ChannelNotFound", never
    if when == "live":
        world.open(never.with_epoch(2), 100)
    if when == "after":
        error, channel = "ChannelFinalized", finalized(world, never)
        world.open(never.with_epoch(4), 100)
    arguments = {"topUp": (10,), "settle": (50, world.sign(channel, 50))}
    arguments["close"] = arguments["settle"]

    with reverts(error, world.id(channel)):
        world.send(
            world.payee if function == "close" else world.payer,
            world.contract,
            function,
            as_struct(channel),
            *arguments.get(function, ()),
            value=10 if function == "topUp" else 0,
        )


def test_of_an_older_epoch_only_its_end_is_known(world: World) -> None:
    old = finalized(world, world.channel(salt=1))
    assert world.state(old) == ChannelState(ChannelStatus.FINALIZED, 100, 40)

    world.open(old.with_epoch(2), 70)

    assert world.state(old) == ChannelState(ChannelStatus.FINALIZED)
    assert world.state(old.with_epoch(3)) == ChannelState(ChannelStatus.ABSENT)


def test_a_skipped_epoch_is_finalized_unused(world: World) -> None:
    old = finalized(world, world.channel(salt=1))
    world.open(old.with_epoch(9), 70)

    skipped = old.with_epoch(5)

    assert world.state(skipped).status is ChannelStatus.FINALIZED
    with reverts("ChannelAlreadyExists", world.id(skipped)):
        world.open(skipped, 1)


def test_each_part_of_the_description_but_the_epoch_picks_the_lane(world: World) -> None:
    channel = world.channel(world.token.address, salt=1 << 32)
    world.open(channel, 100)
    others = [
        replace(channel, payer=world.stranger.address),
        replace(channel, payee=world.stranger.address),
        replace(channel, token=NATIVE),
        replace(channel, authorized_signer=world.session_key.address),
        replace(channel, salt=(2 << 32).to_bytes(32, "big")),
        replace(channel, salt=(1 << 255 | 1 << 32).to_bytes(32, "big")),
    ]

    for other in others:
        assert world.state(other).status is ChannelStatus.ABSENT
        world.open(other, 10)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


def test_a_reopened_channel_forgets_the_close_request(world: World, asset: Address) -> None:
    old = world.channel(asset)
    world.open(old, 100)
    world.request_close(old)
    world.close(old, 40)

    world.open(old.with_epoch(1), 70)

    assert world.state(old.with_epoch(1)) == ChannelState(ChannelStatus.OPEN, 70)
