"""``requestClose`` and ``withdraw``: the payer leaves without the payee, never before its time."""

from __future__ import annotations

import pytest

from channelpay.protocol.lifecycle import CLOSE_REQUEST_TIME_MAX
from channelpay.protocol.types import Address, Channel, ChannelState, ChannelStatus
from tests.contracts.abi import Event
from tests.contracts.world import GRACE_SECONDS, World, reverts


@pytest.fixture
def channel(world: World, asset: Address) -> Channel:
    """An open channel with a deposit of 100, of which 20 are settled."""
    channel = world.channel(asset)
    world.open(channel, 100)
    world.settle(channel, 20)
    return channel


def test_request_close_starts_the_grace_period_and_moves_no_money(
    world: World, channel: Channel
) -> None:
    with world.pays(channel.token, {world.payer: 0, world.payee: 0, world.contract: 0}):
        receipt = world.request_close(channel)

    now = receipt.timestamp
    parties = {"payer": channel.payer, "payee": channel.payee}
    assert world.state(channel) == ChannelState(ChannelStatus.CLOSING, 100, 20, now)
    assert receipt.events == (
        Event(
            "CloseRequested",
            {"channelId": world.id(channel), **parties, "withdrawableAt": now + GRACE_SECONDS},
        ),
    )


def test_request_close_repeated_moves_nothing(world: World, channel: Channel) -> None:
    first = world.request_close(channel)

    second = world.request_close(channel)

    assert second.timestamp > first.timestamp
    assert second.events == ()
    assert world.state(channel).close_requested_at == first.timestamp


@pytest.mark.parametrize("sender", ["payee", "stranger", "session_key"])
def test_only_the_payer_requests_a_close(world: World, asset: Address, sender: str) -> None:
    world.send_data(world.payer, world.session_key.address, b"", value=10**18)
    channel = world.channel(asset, signer=world.session_key)
    world.open(channel, 100)

    with reverts("NotPayer", channel.payer):
        world.request_close(channel, sender=getattr(world, sender))


@pytest.mark.parametrize("sender", ["payee", "stranger"])
def test_only_the_payer_withdraws(world: World, channel: Channel, sender: str) -> None:
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)

    with reverts("NotPayer", channel.payer):
        world.withdraw(channel, sender=getattr(world, sender))


def test_withdraw_needs_a_close_request(world: World, channel: Channel) -> None:
    with reverts("CloseNotReady", 0):
        world.withdraw(channel)


def test_the_payee_has_the_whole_grace_period_to_the_second(world: World, channel: Channel) -> None:
    over = world.request_close(channel).timestamp + GRACE_SECONDS

    world.next_block_at(over - 1)
    with reverts("CloseNotReady", over):
        world.withdraw(channel)
    assert world.timestamp == over - 1
    with world.pays(channel.token, {world.payer: 80, world.payee: 0, world.contract: -80}):
        world.withdraw(channel)
    assert world.timestamp == over


def test_withdraw_finalizes_and_says_so(world: World, channel: Channel) -> None:
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)

    receipt = world.withdraw(channel)

    parties = {"payer": channel.payer, "payee": channel.payee}
    assert receipt.events == (
        Event(
            "ChannelClosed",
            {"channelId": world.id(channel), **parties, "settled": 20, "refund": 80},
        ),
    )
    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 20)


def test_withdraw_pays_once(world: World, channel: Channel) -> None:
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)
    world.withdraw(channel)

    with reverts("ChannelFinalized", world.id(channel)):
        world.withdraw(channel)


def test_after_the_withdrawal_no_voucher_pays(world: World, channel: Channel) -> None:
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)
    world.withdraw(channel)

    with reverts("ChannelFinalized", world.id(channel)):
        world.settle(channel, 60)
    with reverts("ChannelFinalized", world.id(channel)):
        world.close(channel, 60)


def test_nothing_settled_means_the_whole_deposit_back(world: World, asset: Address) -> None:
    channel = world.channel(asset)
    world.open(channel, 100)
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)

    with world.pays(asset, {world.payer: 100, world.contract: -100}):
        world.withdraw(channel)


def test_everything_settled_still_lets_the_payer_finalize(world: World, channel: Channel) -> None:
    world.settle(channel, 100)
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)

    with world.pays(channel.token, {world.payer: 0, world.contract: 0}):
        world.withdraw(channel)


def test_a_cancelled_request_starts_the_whole_grace_period_again(
    world: World, channel: Channel
) -> None:
    first = world.request_close(channel).timestamp
    world.top_up(channel, 10)
    world.next_block_at(first + GRACE_SECONDS)
    second = world.request_close(channel).timestamp

    with reverts("CloseNotReady", second + GRACE_SECONDS):
        world.withdraw(channel)


def test_a_reopened_lane_gives_the_whole_grace_period_again(world: World, channel: Channel) -> None:
    first = world.request_close(channel).timestamp
    world.close(channel, 20)
    again = channel.with_epoch(1)
    world.open(again, 100)

    world.next_block_at(first + GRACE_SECONDS)
    with reverts("CloseNotReady", 0):
        world.withdraw(again)


def test_the_last_second_to_request_a_close_is_noted(world: World, channel: Channel) -> None:
    world.next_block_at(CLOSE_REQUEST_TIME_MAX)

    receipt = world.request_close(channel)

    over = CLOSE_REQUEST_TIME_MAX + GRACE_SECONDS
    assert receipt.events[0].arguments["withdrawableAt"] == over
    assert world.state(channel) == ChannelState(
        ChannelStatus.CLOSING, 100, 20, CLOSE_REQUEST_TIME_MAX
    )


@pytest.mark.parametrize("seconds_late", [1, 2, 2**32])
def test_after_32_bit_time_only_a_new_close_request_is_refused(
    world: World, channel: Channel, seconds_late: int
) -> None:
    """The next second would be the mark of a finalized channel, and later ones wrap around."""
    world.next_block_at(CLOSE_REQUEST_TIME_MAX + seconds_late)

    with reverts("TimeOverflow"):
        world.request_close(channel)

    world.top_up(channel, 10)
    world.settle(channel, 60)
    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 110, 60)
    with world.pays(channel.token, {world.payee: 30, world.payer: 20}):
        world.close(channel, 90)
    world.open(channel.with_epoch(1), 50)


def test_a_request_before_the_end_of_32_bit_time_holds_after_it(
    world: World, channel: Channel
) -> None:
    world.next_block_at(CLOSE_REQUEST_TIME_MAX)
    world.request_close(channel)

    world.next_block_at(CLOSE_REQUEST_TIME_MAX + 1)
    assert world.request_close(channel).events == ()
    world.settle(channel, 60)
    world.next_block_at(CLOSE_REQUEST_TIME_MAX + GRACE_SECONDS)
    with world.pays(channel.token, {world.payer: 40, world.contract: -40}):
        world.withdraw(channel)
