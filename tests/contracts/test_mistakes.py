"""Mistakes that other payment channels made, each tried on this one."""

from __future__ import annotations

import pytest

from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import NATIVE, Channel, ChannelState, ChannelStatus, Deployment
from tests.contracts import funding
from tests.contracts.test_permit2 import (
    OPEN_WITNESS,
    PERMISSIONS,
    TRANSFER,
    digest,
    signature_of,
    witness_hash,
)
from tests.contracts.world import GRACE_SECONDS, World, reverts


@pytest.fixture
def channel(world: World) -> Channel:
    """An open channel of tokens with a deposit of 100."""
    channel = world.channel(world.token.address)
    world.open(channel, 100)
    return channel


def test_machinomy_a_reused_id_replays_old_vouchers(world: World, channel: Channel) -> None:
    voucher = world.sign(channel, 60)
    world.close(channel, 60, voucher)

    with reverts("ChannelAlreadyExists", world.id(channel)):
        world.open(channel, 100)
    again = channel.with_epoch(1)
    world.open(again, 100)
    with reverts("InvalidSignature"):
        world.settle(again, 60, voucher)
    assert world.state(again) == ChannelState(ChannelStatus.OPEN, 100)


@pytest.mark.parametrize("chain_id", [0, 1])
def test_machinomy_and_microraiden_no_chain_id_in_the_digest(
    world: World, channel: Channel, chain_id: int
) -> None:
    elsewhere = Deployment(chain_id, world.contract.address)
    signer = VoucherSigner(elsewhere, world.payer.private_key)

    for channel_id in (world.id(channel), channel.id(elsewhere)):
        with reverts("InvalidSignature"):
            world.settle(channel, 60, signer.sign(channel_id, 60).signature)


def test_microraiden_the_payee_cannot_settle_once_a_close_is_requested(
    world: World, channel: Channel
) -> None:
    world.request_close(channel)

    with world.pays(channel.token, {world.payee: 60}):
        world.settle(channel, 60)
    with world.pays(channel.token, {world.payee: 10}):
        world.settle_batch(world.payee.address, channel.token, [world.row(channel, 70)])


def test_x402_referenced_types_are_not_sorted(world: World) -> None:
    """A wallet's library sorts the types that a type refers to, and what it signs must pay; the
    same message with its types in another order is another message.
    """
    funding.place_permit2(world)
    world.send(world.payer, world.token, "approve", funding.PERMIT2, 100)
    call = funding.permit2_open(world, world.channel(world.token.address), 100)
    types = f"{TRANSFER}ChannelOpenWitness witness){PERMISSIONS}{OPEN_WITNESS}"
    unsorted = digest(world, types, witness_hash(call.values), 100)

    with reverts("TokenTransferFailed", world.token.address):
        call.signed(signature_of(world, unsorted)).send(world)
    with world.pays(world.token.address, {world.payer: -100, world.contract: 100}):
        call.send(world)


def test_x402_one_bad_row_blocks_a_batch(world: World, channel: Channel) -> None:
    bad = world.row(channel, 60, world.sign(channel, 61))
    other = world.channel(channel.token, salt=1 << 32)
    world.open(other, 100)

    rows = [bad, world.row(other, 30), world.row(world.channel(salt=2 << 32), 1)]
    with world.pays(channel.token, {world.payee: 30}):
        world.settle_batch(world.payee.address, channel.token, rows)


@pytest.mark.parametrize("side", ["payer", "payee"])
def test_x402_a_blacklisted_party_traps_the_escrow(world: World, side: str) -> None:
    token = world.deploy_token("BlacklistToken")
    channel = world.channel(token.address)
    world.open(channel, 100)
    listed = getattr(world, side)
    world.configure(token, "BlacklistToken", "list", listed.address, True)
    shares = {world.payee: 60, world.payer: 40}

    with world.pays(token.address, {one: shares[one] * (one != listed) for one in shares}):
        world.close(channel, 60)
    with world.pays(token.address, {world.accounts[7]: shares[listed]}):
        world.claim(listed, token.address, world.accounts[7].address)


def test_x402_a_settlement_in_two_steps_is_raced(world: World, channel: Channel) -> None:
    """The money is the payee's with the transaction that takes the voucher: no claim is left that
    a withdrawal could overtake.
    """
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)

    with world.pays(channel.token, {world.payee: 60, world.contract: -60}):
        world.settle(channel, 60)
    with world.pays(channel.token, {world.payee: 0, world.payer: 40, world.contract: -40}):
        world.withdraw(channel)
    assert world.kept(channel.token, world.payee.address) == 0


@pytest.mark.parametrize("seconds", [0, 1, 599])
def test_machinomy_a_grace_period_of_zero_is_accepted(world: World, seconds: int) -> None:
    with reverts("GracePeriodTooShort", seconds):
        world.deploy_channels(seconds)


def test_a_stale_voucher_is_not_checked(world: World, channel: Channel) -> None:
    """One below what is settled lowers nothing and pays nothing, alone, in a batch, at a close."""
    old = world.sign(channel, 30)
    world.settle(channel, 60)

    with reverts("AmountNotIncreasing", 30, 60):
        world.settle(channel, 30, old)
    with world.pays(NATIVE, {world.payee: 0}), world.pays(channel.token, {world.payee: 0}):
        world.settle_batch(world.payee.address, channel.token, [world.row(channel, 30, old)])
    assert world.state(channel).settled == 60
    with world.pays(channel.token, {world.payee: 0, world.payer: 40}):
        world.close(channel, 30, old)
