"""Awkward tokens: what cannot be counted on is refused at the deposit, and a party that a token
turns away harms only itself.
"""

from __future__ import annotations

import pytest

from channelpay.protocol.types import Channel, ChannelState, ChannelStatus
from tests.contracts.abi import Event
from tests.contracts.world import GRACE_SECONDS, Contract, World, as_struct, reverts


def opened(world: World, token: Contract, deposit: int = 100) -> Channel:
    """An open channel in a token."""
    channel = world.channel(token.address)
    world.open(channel, deposit)
    return channel


@pytest.mark.parametrize("kind", ["FeeToken", "GenerousToken", "LyingToken"])
def test_a_token_that_moves_another_amount_is_refused(world: World, kind: str) -> None:
    token = world.deploy_token(kind)

    with reverts("TokenTransferFailed", token.address):
        opened(world, token)


def test_a_top_up_that_moves_another_amount_is_refused(world: World) -> None:
    token = world.deploy_token("BlacklistToken")
    channel = opened(world, token)
    world.configure(token, "BlacklistToken", "list", world.payer.address, True)

    with reverts("TokenTransferFailed", token.address):
        world.top_up(channel, 10)


def test_a_token_that_returns_false_is_refused(world: World) -> None:
    token = world.deploy_token("FalseToken")
    world.configure(token, "FalseToken", "list", world.payer.address, True)

    with reverts("TokenTransferFailed", token.address):
        opened(world, token)


def test_a_token_that_returns_nothing_works(world: World) -> None:
    token = world.deploy_token("SilentToken")
    channel = opened(world, token)
    world.top_up(channel, 20)
    world.settle(channel, 30)

    with world.pays(token.address, {world.payee: 20, world.payer: 70, world.contract: -90}):
        world.close(channel, 50)


def test_a_contract_that_is_no_token_is_refused(world: World) -> None:
    with reverts("TokenTransferFailed", world.contract.address):
        world.open(world.channel(world.contract.address), 100)


TURNED_AWAY = ["BlacklistToken", "FalseToken", "BombToken"]


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_payee_that_the_token_turns_away_does_not_block_the_payer(
    world: World, kind: str
) -> None:
    token = world.deploy_token(kind)
    channel = opened(world, token)
    world.configure(token, kind, "list", world.payee.address, True)

    with world.pays(token.address, {world.payer: 40, world.payee: 0, world.contract: -40}):
        receipt = world.close(channel, 60)

    kept = {"token": token.address, "account": world.payee.address, "amount": 60}
    assert receipt.events[1:] == (Event("ShareKept", kept),)
    assert world.kept(token.address, world.payee.address) == 60


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_payer_that_the_token_turns_away_does_not_block_the_payee(
    world: World, kind: str
) -> None:
    token = world.deploy_token(kind)
    channel = opened(world, token)
    world.configure(token, kind, "list", world.payer.address, True)

    with world.pays(token.address, {world.payee: 60, world.payer: 0, world.contract: -60}):
        world.close(channel, 60)

    assert world.kept(token.address, world.payer.address) == 40


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_payer_that_the_token_turns_away_still_finalizes(world: World, kind: str) -> None:
    token = world.deploy_token(kind)
    channel = opened(world, token)
    world.configure(token, kind, "list", world.payer.address, True)
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)

    world.withdraw(channel)

    assert world.state(channel).status is ChannelStatus.FINALIZED
    assert world.kept(token.address, world.payer.address) == 100


@pytest.mark.parametrize("kind", TURNED_AWAY)
def test_a_share_kept_by_a_token_is_claimed_to_another_address(world: World, kind: str) -> None:
    token = world.deploy_token(kind)
    channel = opened(world, token)
    world.configure(token, kind, "list", world.payee.address, True)
    world.settle(channel, 60)

    with reverts("TokenTransferFailed", token.address):
        world.claim(world.payee, token.address, world.payee.address)
    with world.pays(token.address, {world.stranger: 60, world.contract: -60}):
        world.claim(world.payee, token.address, world.stranger.address)

    assert world.kept(token.address, world.payee.address) == 0


def test_kept_shares_of_many_channels_add_up(world: World) -> None:
    token = world.deploy_token("BlacklistToken")
    world.configure(token, "BlacklistToken", "list", world.payee.address, True)
    first, second = opened(world, token), world.channel(token.address, salt=1 << 32)
    world.open(second, 50)

    world.settle(first, 60)
    world.settle(first, 61)
    world.close(second, 50)

    assert world.kept(token.address, world.payee.address) == 111


def test_a_kept_share_counts_as_settled(world: World) -> None:
    token = world.deploy_token("BlacklistToken")
    channel = opened(world, token)
    world.configure(token, "BlacklistToken", "list", world.payee.address, True)

    world.settle(channel, 60)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100, 60)
    with reverts("AmountNotIncreasing", 60, 60):
        world.settle(channel, 60)


def test_a_token_too_hungry_for_a_push_is_still_claimed(world: World) -> None:
    token = world.deploy_token("HungryToken")
    channel = opened(world, token)
    world.configure(token, "HungryToken", "setAppetite", 300_000)
    world.close(channel, 60)
    assert world.kept(token.address, world.payee.address) == 60

    with world.pays(token.address, {world.payee: 60, world.contract: -60}):
        world.claim(world.payee, token.address, world.payee.address)


def test_a_hook_of_the_payer_cannot_count_one_deposit_twice(world: World) -> None:
    """Inside the outer open's transfer, an inner one opens and closes a channel."""
    token = world.deploy_token("HookToken")
    others = opened(world, token, deposit=1000)
    wallet = world.deploy_wallet("ReentrantWallet")
    world.fund(wallet, token)
    outer = world.channel(token.address, payer=wallet, payee=wallet, signer=world.session_key)
    world.configure(
        wallet,
        "ReentrantWallet",
        "plan",
        world.contract.address,
        world.contract.abi.encode("close", as_struct(outer), 100, world.sign(outer, 100)),
    )

    with (
        world.pays(token.address, {wallet: 0, world.contract: 0}),
        reverts("TokenTransferFailed", token.address),
    ):
        world.open(outer, 100)

    assert world.state(outer).status is ChannelStatus.ABSENT
    assert world.state(others) == ChannelState(ChannelStatus.OPEN, 1000)


def test_a_hook_of_the_payee_cannot_be_paid_twice(world: World) -> None:
    token = world.deploy_token("HookToken")
    others = opened(world, token, deposit=1000)
    wallet = world.deploy_wallet("ReentrantWallet")
    channel = world.channel(token.address, payee=wallet)
    world.open(channel, 100)
    voucher = (as_struct(channel), 60, world.sign(channel, 60))
    data = world.contract.abi.encode("settle", *voucher)
    world.configure(wallet, "ReentrantWallet", "plan", world.contract.address, data)

    with world.pays(token.address, {wallet: 60, world.contract: -60}):
        world.settle(channel, 60)

    assert world.state(others) == ChannelState(ChannelStatus.OPEN, 1000)


def test_a_paused_token_keeps_both_shares_until_it_moves_again(world: World) -> None:
    """The contract itself is on the list: nothing comes in or goes out."""
    token = world.deploy_token("BlacklistToken")
    channel = opened(world, token)
    world.configure(token, "BlacklistToken", "list", world.contract.address, True)

    world.close(channel, 60)
    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 60)
    with reverts("TokenTransferFailed", token.address):
        world.claim(world.payee, token.address, world.payee.address)
    with reverts("TokenTransferFailed", token.address):
        world.open(channel.with_epoch(1), 100)

    world.configure(token, "BlacklistToken", "list", world.contract.address, False)
    with world.pays(token.address, {world.payee: 60, world.payer: 40, world.contract: -100}):
        world.claim(world.payee, token.address, world.payee.address)
        world.claim(world.payer, token.address, world.payer.address)


def test_tokens_that_nobody_asked_for_are_nobodys(world: World) -> None:
    channel = opened(world, world.token)

    world.send(world.stranger, world.token, "transfer", world.contract.address, 1000)

    with reverts("AmountExceedsDeposit", 101, 100):
        world.settle(channel, 101)
    changes = {world.payee: 60, world.payer: 40, world.contract: -100}
    with world.pays(world.token.address, changes):
        world.close(channel, 60)
    with world.pays(world.token.address, {world.payer: -7, world.contract: 7}):
        world.open(channel.with_epoch(1), 7)
