"""``openWithPermit``: an allowance by signature (EIP-2612) and the open, in one transaction."""

from __future__ import annotations

from dataclasses import replace

import pytest

from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
)
from tests.contracts.funding import (
    FundingCall,
    deploy_token,
    opened,
    parts,
    permit_open,
    revoke_allowance,
)
from tests.contracts.world import GAS, UNLIMITED, Contract, Reverted, World, reverts

ODD_PERMITS = [
    "RefusingPermitToken",
    "BombPermitToken",
    "RevertBombPermitToken",
    "HungryPermitToken",
    "PhantomToken",
    "BytesOnlyToken",
]


@pytest.fixture
def channel(world: World) -> Channel:
    """Not open yet, in the test token, for which the contract has no allowance."""
    revoke_allowance(world, world.contract.address)
    return world.channel(world.token.address, signer=world.session_key, salt=5)


def use_permit(world: World, call: FundingCall) -> None:
    """A stranger sends the permit to the token by itself."""
    value, deadline = call.values["deposit"], call.values["deadline"]
    signature = parts(call.signature)
    spender = world.contract.address
    permit = (world.payer.address, spender, value, deadline, *signature)
    world.send(world.stranger, world.token, "permit", *permit)


def allowance(world: World) -> int:
    """What the payer allows the contract to take of the test token."""
    parties = (world.payer.address, world.contract.address)
    return int(world.read(world.token, "allowance", *parties))


def test_an_open_with_a_permit_needs_no_allowance_before(world: World, channel: Channel) -> None:
    call = permit_open(world, channel, 100)

    with world.pays(channel.token, {world.payer: -100, world.contract: 100}):
        receipt = call.send(world, world.payer)

    assert receipt.events == (opened(world, channel, 100),)
    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)
    assert allowance(world) == 0


def test_an_open_with_a_permit_returns_the_channels_id(world: World, channel: Channel) -> None:
    assert permit_open(world, channel, 100).ask(world, world.payer) == world.id(channel)


def test_a_permit_used_first_by_someone_else_does_not_stop_the_open(
    world: World, channel: Channel
) -> None:
    call = permit_open(world, channel, 100)
    use_permit(world, call)

    with world.pays(channel.token, {world.payer: -100, world.contract: 100}):
        call.send(world, world.payer)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


def test_a_permit_opens_once(world: World, channel: Channel) -> None:
    call = permit_open(world, channel, 100)
    call.send(world, world.payer)
    again = call.changed("salt", b"n" * 32)

    with (
        world.pays(channel.token, {world.payer: 0}),
        reverts("TokenTransferFailed", channel.token),
    ):
        again.send(world, world.payer)


def test_another_account_gets_nothing_from_a_permit(world: World, channel: Channel) -> None:
    call = permit_open(world, channel, 100)

    with (
        world.pays(channel.token, {world.payer: 0, world.stranger: 0, world.contract: 0}),
        reverts("TokenTransferFailed", channel.token),
    ):
        call.send(world, world.stranger)


def test_a_permit_holds_until_its_deadline(world: World, channel: Channel) -> None:
    call = permit_open(world, channel, 100, deadline=world.timestamp + 100)

    with world.rolled_back():
        world.next_block_at(call.values["deadline"])
        call.send(world, world.payer)
    world.next_block_at(call.values["deadline"] + 1)
    with reverts("TokenTransferFailed", channel.token):
        call.send(world, world.payer)


@pytest.mark.parametrize("change", [("deposit", 101), ("deposit", 99), ("deadline", 2**255)])
def test_a_permit_over_other_words_opens_nothing(
    world: World, channel: Channel, change: tuple[str, int]
) -> None:
    call = permit_open(world, channel, 100).changed(*change)

    with (
        world.pays(channel.token, {world.payer: 0, world.contract: 0}),
        reverts("TokenTransferFailed", channel.token),
    ):
        call.send(world, world.payer)

    assert world.state(channel).status is ChannelStatus.ABSENT


def test_a_wrong_permit_opens_nothing(world: World, channel: Channel) -> None:
    call = permit_open(world, channel, 100)
    by_another = call.signed(call.message.sign(world.stranger))

    with reverts("TokenTransferFailed", channel.token):
        by_another.send(world, world.payer)


def test_with_an_allowance_a_wrong_permit_does_not_matter(world: World, channel: Channel) -> None:
    world.send(world.payer, world.token, "approve", world.contract.address, 100)

    with world.pays(channel.token, {world.payer: -100, world.contract: 100}):
        permit_open(world, channel, 100).signed(b"\x01" * 65).send(world, world.payer)


@pytest.mark.parametrize("kind", ODD_PERMITS)
def test_whatever_a_permit_does_an_allowance_opens(world: World, kind: str) -> None:
    token = deploy_token(world, kind)
    world.send(world.payer, token, "approve", world.contract.address, 100)
    channel = world.channel(token.address)

    with world.pays(token.address, {world.payer: -100, world.contract: 100}):
        receipt = permit_open(world, channel, 100).send(world, world.payer)

    assert receipt.gas_used < 800_000
    assert receipt.events == (opened(world, channel, 100),)


@pytest.mark.parametrize("kind", ODD_PERMITS)
def test_whatever_a_permit_does_no_allowance_means_no_open(world: World, kind: str) -> None:
    token = deploy_token(world, kind)
    channel = world.channel(token.address)

    with reverts("TokenTransferFailed", token.address):
        permit_open(world, channel, 100).send(world, world.payer)


def test_a_permit_that_burns_all_gas_credits_nothing(world: World) -> None:
    """What a call may not take, one part in 64, is too little here for the transfer."""
    token = deploy_token(world, "GasBurningPermitToken")
    world.send(world.payer, token, "approve", world.contract.address, UNLIMITED)
    channel = world.channel(token.address)
    call = permit_open(world, channel, 100)

    with world.pays(token.address, {world.payer: 0, world.contract: 0}), pytest.raises(Reverted):
        call.send(world, world.payer, gas=GAS // 2)

    assert world.state(channel).status is ChannelStatus.ABSENT


@pytest.mark.parametrize("kind", ["TaxedFundingToken", "ShortFundingToken", "LavishFundingToken"])
def test_a_permitted_token_that_moves_another_amount_is_refused(world: World, kind: str) -> None:
    token = deploy_token(world, kind)
    call = permit_open(world, world.channel(token.address), 100)

    with reverts("TokenTransferFailed", token.address):
        call.send(world, world.payer)


@pytest.mark.parametrize("token", [NATIVE, Address(b"\x77" * 20)])
def test_a_token_without_code_has_no_permit(world: World, token: Address) -> None:
    with reverts("InvalidToken", token):
        permit_open(world, world.channel(token), 100).send(world, world.payer)


def test_an_open_with_a_permit_takes_no_native_currency(world: World, channel: Channel) -> None:
    call = permit_open(world, channel, 100)
    contract = Contract(world.contract.address, call.contract_abi)

    with world.pays(NATIVE, {world.payer: 0, world.contract: 0}), reverts(""):
        world.send(world.payer, contract, call.function, *call.arguments, value=100)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (("payee", ZERO_ADDRESS), ("InvalidPayee",)),
        (("deposit", 0), ("ZeroDeposit",)),
        (("deposit", DEPOSIT_MAX + 1), ("DepositOverflow", DEPOSIT_MAX + 1)),
    ],
)
def test_the_rules_of_an_open_hold_with_a_permit(
    world: World, channel: Channel, change: tuple[str, object], error: tuple[str, *tuple[int, ...]]
) -> None:
    with reverts(*error):
        permit_open(world, channel, 100).changed(*change).send(world, world.payer)


def test_a_permit_opens_no_live_lane_and_reopens_a_finalized_one(
    world: World, channel: Channel
) -> None:
    permit_open(world, channel, 100).send(world, world.payer)
    second = permit_open(world, channel, 100, nonce=1)
    with reverts("ChannelAlreadyExists", world.id(channel)):
        second.send(world, world.payer)
    world.close(channel, 0)

    with reverts("ChannelAlreadyExists", world.id(channel)):
        second.send(world, world.payer)
    later = replace(channel, salt=(6).to_bytes(32, "big"))
    permit_open(world, later, 70, nonce=1).send(world, world.payer)

    assert world.state(later) == ChannelState(ChannelStatus.OPEN, 70)


def test_a_channel_opened_by_permit_pays_out_like_any_other(world: World, channel: Channel) -> None:
    permit_open(world, channel, 100).send(world, world.payer)

    with world.pays(channel.token, {world.payee: 60, world.payer: 40, world.contract: -100}):
        world.close(channel, 60)
