"""Views: Python computes what the contract does, and the packed word never truncates."""

from __future__ import annotations

import pytest
from eth_typing import Address as EvmAddress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channelpay.protocol.eip712 import VoucherHasher, domain_separator
from channelpay.protocol.types import (
    AMOUNT_MAX,
    DEPOSIT_MAX,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
)
from tests.contracts.world import (
    GRACE_SECONDS,
    Reverted,
    World,
    as_state,
    as_struct,
    reverts,
)

LAST_TIME = 2**32 - 2
"""The last Unix second that the contract can note, in the year 2106."""

addresses = st.binary(min_size=20, max_size=20).map(Address)
channels = st.builds(
    Channel, addresses, addresses, addresses, addresses, st.binary(min_size=32, max_size=32)
)
# A view changes nothing: the chain may serve many examples.
many_examples = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@many_examples
@given(channel=channels)
def test_channel_ids_are_those_of_python(world: World, channel: Channel) -> None:
    assert world.read(world.contract, "channelId", as_struct(channel)) == world.id(channel)


@many_examples
@given(
    channel_id=st.binary(min_size=32, max_size=32).map(ChannelId),
    cumulative=st.integers(0, AMOUNT_MAX),
)
def test_voucher_digests_are_those_of_python(
    world: World, channel_id: ChannelId, cumulative: int
) -> None:
    digest = VoucherHasher(world.deployment).digest(channel_id, cumulative)

    assert world.read(world.contract, "voucherDigest", channel_id, cumulative) == digest


def test_the_domain_separator_is_that_of_python(world: World) -> None:
    assert world.read(world.contract, "domainSeparator") == domain_separator(world.deployment)


@many_examples
@given(channel=channels)
def test_lanes_are_those_of_python(world: World, channel: Channel) -> None:
    """Of the contract's lanes only the effects are seen; the slot itself is read from storage."""
    opened = Channel(
        world.payer.address,
        channel.payee if any(channel.payee) else world.payee.address,
        world.token.address,
        channel.authorized_signer,
        channel.salt,
    )
    slot = int.from_bytes(opened.lane, "big")
    with world.rolled_back():
        world.open(opened, 100)
        state = world.chain.state_at(world.chain.head.header)
        word = state.get_storage(EvmAddress(world.contract.address), slot)

    assert word == 100 << 160 | opened.epoch


def test_an_unknown_channel_is_absent(world: World) -> None:
    assert world.state(world.channel()) == ChannelState(ChannelStatus.ABSENT)


def test_many_states_come_in_their_order(world: World) -> None:
    closed, absent, live = (world.channel(salt=number << 32) for number in range(3))
    world.open(closed, 100)
    world.close(closed, 40)
    world.open(live, 70)

    states = world.read(
        world.contract, "channelStates", [as_struct(one) for one in (live, closed, absent, live)]
    )

    assert [as_state(values) for values in states] == [
        ChannelState(ChannelStatus.OPEN, 70),
        ChannelState(ChannelStatus.FINALIZED, 100, 40),
        ChannelState(ChannelStatus.ABSENT),
        ChannelState(ChannelStatus.OPEN, 70),
    ]


def test_the_packed_word_holds_the_greatest_of_each_field(world: World) -> None:
    channel = world.channel(world.token.address, salt=2**32 - 1)
    world.open(channel, DEPOSIT_MAX)
    world.settle(channel, DEPOSIT_MAX)
    world.next_block_at(LAST_TIME)
    world.request_close(channel)

    state = world.state(channel)

    assert state == ChannelState(ChannelStatus.CLOSING, DEPOSIT_MAX, DEPOSIT_MAX, LAST_TIME)


def test_the_grace_period_holds_over_the_end_of_32_bit_time(world: World) -> None:
    channel = world.channel()
    world.open(channel, 100)
    world.next_block_at(LAST_TIME)
    world.request_close(channel)

    world.next_block_at(LAST_TIME + GRACE_SECONDS - 1)
    with reverts("CloseNotReady", LAST_TIME + GRACE_SECONDS):
        world.withdraw(channel)
    with world.pays(channel.token, {world.payer: 100}):
        world.withdraw(channel)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    deposit=st.integers(1, DEPOSIT_MAX),
    epoch=st.integers(0, 2**32 - 1),
    wait=st.integers(1, LAST_TIME - 1_800_000_100),
    data=st.data(),
)
def test_fields_of_the_word_never_touch_each_other(
    world: World, deposit: int, epoch: int, wait: int, data: st.DataObject
) -> None:
    settled = data.draw(st.integers(1, deposit), label="settled")
    added = data.draw(st.integers(0, DEPOSIT_MAX - deposit), label="added")
    channel = world.channel(world.token.address, salt=epoch)
    with world.rolled_back():
        world.open(channel, deposit)
        world.next_block_at(world.timestamp + wait)
        requested_at = world.request_close(channel).timestamp
        world.settle(channel, settled)
        if added:
            world.top_up(channel, added, sender=world.stranger)

        state = world.state(channel)

    assert state == ChannelState(ChannelStatus.CLOSING, deposit + added, settled, requested_at)


ADDRESS_WORDS = range(4)


@pytest.mark.parametrize("word", ADDRESS_WORDS)
@pytest.mark.parametrize("function", ["requestClose", "withdraw"])
def test_an_action_with_dirty_addresses_finds_no_channel(
    world: World, function: str, word: int
) -> None:
    """Else one channel had many descriptions."""
    channel = world.channel()
    world.open(channel, 100)

    with pytest.raises(Reverted, match="ChannelNotFound"):
        world.send_data(world.payer, world.contract.address, dirty(world, function, channel, word))


@pytest.mark.parametrize("word", ADDRESS_WORDS)
@pytest.mark.parametrize("function", ["channelId", "channelState"])
def test_a_view_with_dirty_addresses_is_refused(world: World, function: str, word: int) -> None:
    with reverts(""):
        data = dirty(world, function, world.channel(), word)
        world.send_data(world.payer, world.contract.address, data)


def dirty(world: World, function: str, channel: Channel, word: int) -> bytes:
    """Calldata with a bit set in front of one of the description's four addresses."""
    data = bytearray(world.contract.abi.encode(function, as_struct(channel)))
    data[4 + 32 * word] = 1
    return bytes(data)
