"""Receivers that revert, burn gas, bomb or come back: the other side is paid, their share waits."""

from __future__ import annotations

from itertools import pairwise

import pytest

from channelpay.protocol.types import NATIVE, Address, Channel, ChannelState, ChannelStatus
from tests.contracts.abi import Event
from tests.contracts.world import (
    GRACE_SECONDS,
    Contract,
    Receipt,
    Reverted,
    Wallet,
    World,
    as_struct,
    mocks,
    reverts,
)

REFUSING = ["RevertingWallet", "GasBurningWallet", "RevertBombWallet"]
PUSH_GAS = 200_000
"""What every receiver gets at least before its share is kept instead."""


def channel_to(world: World, payee: Wallet) -> Channel:
    """An open ETH channel to a contract, with a deposit of 100."""
    channel = world.channel(payee=payee)
    world.open(channel, 100)
    return channel


def channel_from(world: World, payer: Wallet) -> Channel:
    """An open ETH channel of a contract, with a deposit of 100."""
    world.give_ether(payer, 100)
    channel = world.channel(payer=payer, signer=world.session_key)
    world.open(channel, 100)
    return channel


@pytest.mark.parametrize("kind", REFUSING)
def test_a_payee_that_refuses_does_not_block_the_payer(world: World, kind: str) -> None:
    payee = world.deploy_wallet(kind)
    channel = channel_to(world, payee)

    with world.pays(NATIVE, {world.payer: 40, payee: 0, world.contract: -40}):
        receipt = world.close(channel, 60)

    kept = {"token": NATIVE, "account": payee.address, "amount": 60}
    assert receipt.events[1:] == (Event("ShareKept", kept),)
    assert world.kept(NATIVE, payee.address) == 60
    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 60)


@pytest.mark.parametrize("kind", REFUSING)
def test_a_payer_that_refuses_does_not_block_the_payee(world: World, kind: str) -> None:
    payer = world.deploy_wallet(kind)
    channel = channel_from(world, payer)

    with world.pays(NATIVE, {world.payee: 60, payer: 0, world.contract: -60}):
        world.close(channel, 60)

    assert world.kept(NATIVE, payer.address) == 40


@pytest.mark.parametrize("kind", REFUSING)
def test_when_both_refuse_both_shares_are_kept(world: World, kind: str) -> None:
    payer, payee = world.deploy_wallet(kind), world.deploy_wallet(kind)
    world.give_ether(payer, 100)
    channel = world.channel(payer=payer, payee=payee, signer=world.session_key)
    world.open(channel, 100)

    world.close(channel, 60)

    assert world.kept(NATIVE, payee.address) == 60
    assert world.kept(NATIVE, payer.address) == 40


@pytest.mark.parametrize("kind", REFUSING)
def test_a_refusing_payee_can_still_be_settled(world: World, kind: str) -> None:
    payee = world.deploy_wallet(kind)
    channel = channel_to(world, payee)

    world.settle(channel, 60)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100, 60)
    assert world.kept(NATIVE, payee.address) == 60


@pytest.mark.parametrize("kind", REFUSING)
def test_a_refusing_payer_still_gets_out(world: World, kind: str) -> None:
    payer = world.deploy_wallet(kind)
    channel = channel_from(world, payer)
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)

    world.withdraw(channel)

    assert world.state(channel).status is ChannelStatus.FINALIZED
    assert world.kept(NATIVE, payer.address) == 100


def test_a_receiver_that_returns_a_bomb_is_paid(world: World) -> None:
    payee = world.deploy_wallet("ReturnBombWallet")
    channel = channel_to(world, payee)

    with world.pays(NATIVE, {world.payer: 40, payee: 60, world.contract: -100}):
        world.close(channel, 60)


@pytest.mark.parametrize("kind", [*REFUSING, "ReturnBombWallet"])
def test_a_hostile_receiver_burns_no_more_than_its_push(world: World, kind: str) -> None:
    friend, foe = world.deploy_wallet("FriendlyWallet"), world.deploy_wallet(kind)
    usual = world.settle(channel_to(world, friend), 60).gas_used

    hostile = world.settle(channel_to(world, foe), 60).gas_used

    bookkeeping = 30_000
    """A kept share takes a fresh storage slot and one more log."""
    assert hostile < usual + PUSH_GAS + bookkeeping


@pytest.mark.parametrize("kind", REFUSING)
def test_a_kept_share_is_claimed_to_another_address(world: World, kind: str) -> None:
    payee = world.deploy_wallet(kind)
    world.settle(channel_to(world, payee), 60)

    with world.pays(NATIVE, {world.accounts[7]: 60, world.contract: -60}):
        receipt = world.claim(payee, NATIVE, world.accounts[7].address)

    assert receipt.events == (
        Event(
            "ShareClaimed",
            {
                "token": NATIVE,
                "account": payee.address,
                "receiver": world.accounts[7].address,
                "amount": 60,
            },
        ),
    )
    assert world.kept(NATIVE, payee.address) == 0


def test_a_share_is_claimed_once(world: World) -> None:
    payee = world.deploy_wallet("RevertingWallet")
    world.settle(channel_to(world, payee), 60)
    world.claim(payee, NATIVE, world.stranger.address)

    with reverts("NothingToClaim"):
        world.claim(payee, NATIVE, world.stranger.address)


def test_nobody_claims_the_share_of_another(world: World) -> None:
    payee = world.deploy_wallet("RevertingWallet")
    world.settle(channel_to(world, payee), 60)

    for other in (world.payer, world.payee, world.stranger):
        with reverts("NothingToClaim"):
            world.claim(other, NATIVE, other.address)


def test_a_share_is_kept_in_its_own_token(world: World) -> None:
    payee = world.deploy_wallet("RevertingWallet")
    world.settle(channel_to(world, payee), 60)

    with reverts("NothingToClaim"):
        world.claim(payee, world.token.address, world.stranger.address)


def test_a_claim_that_fails_leaves_the_share(world: World) -> None:
    payee = world.deploy_wallet("RevertingWallet")
    world.settle(channel_to(world, payee), 60)

    with reverts("TokenTransferFailed", NATIVE):
        world.claim(payee, NATIVE, payee.address)

    assert world.kept(NATIVE, payee.address) == 60


def test_a_claim_gives_the_receiver_all_the_gas(world: World) -> None:
    payee = hungry_wallet(world, appetite=300_000)
    world.settle(channel_to(world, payee), 60)
    assert world.kept(NATIVE, payee.address) == 60

    with world.pays(NATIVE, {payee: 60, world.contract: -60}):
        world.claim(payee, NATIVE, payee.address)


def test_a_sender_that_starves_a_push_is_refused(world: World) -> None:
    payee = world.deploy_wallet("RevertingWallet")
    channel = channel_to(world, payee)

    with reverts("GasTooLow"):
        world.settle(channel, 60, gas=200_000)

    assert world.kept(NATIVE, payee.address) == 0
    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


APPETITE = 190_000
"""Nearly all that a push gives: whoever is starved by a sender shows it."""


@pytest.mark.parametrize("action", ["settle", "close", "withdraw"])
def test_no_sender_can_force_a_share_to_be_kept(world: World, action: str) -> None:
    payer, payee = (hungry_wallet(world, APPETITE) for _ in range(2))
    world.give_ether(payer, 100)
    channel = world.channel(payer=payer, payee=payee, signer=world.session_key)
    world.open(channel, 100)
    ready_at = world.request_close(channel).timestamp + GRACE_SECONDS

    outcomes = []
    for gas in range(200_000, 700_001, 4_000):
        with world.rolled_back():
            world.next_block_at(ready_at)
            outcomes.append(outcome(world, channel, action, gas))

    assert set(outcomes) == {"paid", "refused"}
    assert sum(before != after for before, after in pairwise(outcomes)) == 1
    assert outcomes[-1] == "paid"


def test_no_sender_can_force_a_share_of_tokens_to_be_kept(world: World) -> None:
    token = world.deploy_token("HungryToken")
    channel = world.channel(token.address)
    world.open(channel, 100)
    world.configure(token, "HungryToken", "setAppetite", 150_000)

    outcomes = []
    for gas in range(200_000, 700_001, 4_000):
        with world.rolled_back():
            outcomes.append(outcome(world, channel, "close", gas))

    assert set(outcomes) == {"paid", "refused"}
    assert outcomes[-1] == "paid"


@pytest.mark.parametrize("action", ["settle", "close"])
def test_a_payee_that_comes_back_gains_nothing(world: World, action: str) -> None:
    wallet = world.deploy_wallet("ReentrantWallet")
    others = world.channel(salt=1 << 32)
    world.open(others, 1000)
    channel = channel_to(world, wallet)
    voucher = (as_struct(channel), 60, world.sign(channel, 60))
    plan(world, wallet, world.contract.abi.encode(action, *voucher))

    with world.pays(NATIVE, {wallet: 60, world.contract: -60 if action == "settle" else -100}):
        getattr(world, action)(channel, 60)

    assert tried(world, wallet) == (1, 0)
    assert world.state(others) == ChannelState(ChannelStatus.OPEN, 1000)


def test_a_payer_that_comes_back_gains_nothing(world: World) -> None:
    wallet = world.deploy_wallet("ReentrantWallet")
    world.open(world.channel(salt=1 << 32), 1000)
    channel = channel_from(world, wallet)
    world.next_block_at(world.request_close(channel).timestamp + GRACE_SECONDS)
    plan(world, wallet, world.contract.abi.encode("withdraw", as_struct(channel)))

    with world.pays(NATIVE, {wallet: 100, world.contract: -100}):
        world.withdraw(channel)

    assert tried(world, wallet) == (1, 0)


def test_a_claimer_that_comes_back_gains_nothing(world: World) -> None:
    wallet = world.deploy_wallet("ReentrantWallet")
    world.open(world.channel(salt=1 << 32), 1000)
    channel = channel_to(world, wallet)
    world.configure(wallet, "ReentrantWallet", "setRefusing", True)
    world.settle(channel, 60)
    world.configure(wallet, "ReentrantWallet", "setRefusing", False)
    plan(world, wallet, world.contract.abi.encode("claim", NATIVE, wallet.address))

    with world.pays(NATIVE, {wallet: 60, world.contract: -60}):
        world.claim(wallet, NATIVE, wallet.address)

    assert tried(world, wallet) == (1, 0)


def test_a_share_can_be_claimed_for_a_fresh_account(world: World) -> None:
    payee = world.deploy_wallet("RevertingWallet")
    world.settle(channel_to(world, payee), 60)
    fresh = Address(b"\x55" * 20)

    world.claim(payee, NATIVE, fresh)

    assert world.balance(NATIVE, fresh) == 60


def test_ether_that_nobody_asked_for_is_nobodys(world: World) -> None:
    """It can be forced on the contract, and pays no channel's voucher or refund."""
    channel = world.channel()
    world.open(channel, 100)

    world.force_ether(1000)

    assert world.balance(NATIVE, world.contract.address) == 1100
    with reverts("AmountExceedsDeposit", 101, 100):
        world.settle(channel, 101)
    with world.pays(NATIVE, {world.payee: 60, world.payer: 40, world.contract: -100}):
        world.close(channel, 60)


def hungry_wallet(world: World, appetite: int) -> Wallet:
    """A wallet that takes this much gas with a payment."""
    wallet = world.deploy_wallet("HungryWallet")
    world.configure(wallet, "HungryWallet", "setAppetite", appetite)
    return wallet


def plan(world: World, wallet: Wallet, data: bytes) -> None:
    """What the wallet will call as soon as it is paid."""
    world.configure(wallet, "ReentrantWallet", "plan", world.contract.address, data)


def tried(world: World, wallet: Wallet) -> tuple[int, int]:
    """How often the wallet came back, and how often with success."""
    contract = Contract(wallet.address, mocks()["ReentrantWallet"].abi)
    return world.read(contract, "calls"), world.read(contract, "successes")


def outcome(world: World, channel: Channel, action: str, gas: int) -> str:
    """Whether a transaction with this gas limit paid all, kept a share, or was refused."""
    try:
        receipt = act(world, channel, action, gas)
    except Reverted:
        return "refused"
    return "kept" if any(one.name == "ShareKept" for one in receipt.events) else "paid"


def act(world: World, channel: Channel, action: str, gas: int) -> Receipt:
    if action == "settle":
        return world.settle(channel, 60, gas=gas)
    if action == "close":
        return world.close(channel, 60, gas=gas)
    return world.withdraw(channel, gas=gas)
