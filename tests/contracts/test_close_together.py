"""``closeWithAuthorization``: anyone closes a channel with the payee's signature, and pays nobody
more or less than the payee's own close would.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channelpay.protocol.eip712 import close_authorization_digest, sign_close_authorization
from channelpay.protocol.types import (
    AMOUNT_MAX,
    NATIVE,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
)
from channelpay.testing.execution import CHAIN_ID
from tests.contracts.abi import Event
from tests.contracts.test_signature import MUTATIONS, OTHER_CHAIN_ID
from tests.contracts.world import GRACE_SECONDS, World, as_struct, reverts


@pytest.fixture
def channel(world: World, asset: Address) -> Channel:
    """An open channel with a deposit of 100."""
    channel = world.channel(asset)
    world.open(channel, 100)
    return channel


@pytest.mark.parametrize("sender", ["payer", "payee", "stranger"])
def test_anyone_closes_with_the_payees_signature(
    world: World, channel: Channel, sender: str
) -> None:
    changes = {world.payee: 60, world.payer: 40, world.stranger: 0, world.contract: -100}
    with world.pays(channel.token, changes):
        receipt = world.close_with_authorization(channel, 60, sender=getattr(world, sender))

    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 60)
    parties = {"payer": channel.payer, "payee": channel.payee}
    closed = {"channelId": world.id(channel), **parties, "settled": 60, "refund": 40}
    assert receipt.events == (Event("ChannelClosed", closed),)


def test_it_pays_only_what_is_not_yet_settled(world: World, channel: Channel) -> None:
    world.settle(channel, 25)

    with world.pays(channel.token, {world.payee: 35, world.payer: 40, world.contract: -75}):
        world.close_with_authorization(channel, 60)


@pytest.mark.parametrize("cumulative", [0, 24, 25])
def test_the_payee_may_forfeit_what_is_not_settled(
    world: World, channel: Channel, cumulative: int
) -> None:
    world.settle(channel, 25)

    with world.pays(channel.token, {world.payee: 0, world.payer: 75, world.contract: -75}):
        world.close_with_authorization(channel, cumulative, b"")

    assert world.state(channel) == ChannelState(ChannelStatus.FINALIZED, 100, 25)


def test_a_settle_in_between_is_not_paid_again(world: World, channel: Channel) -> None:
    """The authorization is older than the settle, and as good as before."""
    vouchers = (world.sign(channel, 60), world.sign_close(channel, 60))
    world.settle(channel, 80)

    with world.pays(channel.token, {world.payee: 0, world.payer: 20, world.contract: -20}):
        world.close_with_authorization(channel, 60, *vouchers)

    assert world.state(channel).settled == 80


@pytest.mark.parametrize("wait", [1, GRACE_SECONDS, GRACE_SECONDS + 5])
def test_it_closes_during_the_grace_period_and_after_it(
    world: World, channel: Channel, wait: int
) -> None:
    world.next_block_at(world.request_close(channel).timestamp + wait)

    with world.pays(channel.token, {world.payee: 60, world.payer: 40}):
        world.close_with_authorization(channel, 60)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_only_canonical_signatures_close(world: World, mutation: str) -> None:
    """Of both sides: the payee's alone never raises what it gets."""
    channel = world.channel()
    world.open(channel, 100)
    mutate = MUTATIONS[mutation]
    voucher, authorization = world.sign(channel, 60), world.sign_close(channel, 60)

    with reverts("InvalidAuthorization"):
        world.close_with_authorization(channel, 60, voucher, mutate(authorization))
    with reverts("InvalidSignature"):
        world.close_with_authorization(channel, 60, mutate(voucher), authorization)


@pytest.mark.parametrize("signer", ["payer", "stranger", "session_key"])
def test_only_the_payees_key_authorizes(world: World, asset: Address, signer: str) -> None:
    """Neither the payer's key nor the one that signs vouchers."""
    channel = world.channel(asset, signer=world.session_key)
    world.open(channel, 100)
    signature = world.sign_close_as(getattr(world, signer), world.id(channel), 60)

    with reverts("InvalidAuthorization"):
        world.close_with_authorization(channel, 60, payee_signature=signature)


def test_it_never_pays_above_the_deposit(world: World, channel: Channel) -> None:
    with reverts("AmountExceedsDeposit", 101, 100):
        world.close_with_authorization(channel, 101)


def test_an_authorization_is_for_one_amount(world: World, channel: Channel) -> None:
    signature = world.sign_close(channel, 60)

    for other in (0, 59, 61):
        with reverts("InvalidAuthorization"):
            world.close_with_authorization(channel, other, payee_signature=signature)


def test_an_authorization_is_for_one_channel(world: World, channel: Channel) -> None:
    neighbour = replace(channel, salt=(1 << 32).to_bytes(32, "big"))
    world.open(neighbour, 100)

    with reverts("InvalidAuthorization"):
        world.close_with_authorization(channel, 60, payee_signature=world.sign_close(neighbour, 60))


@pytest.mark.parametrize("of_this_id", [False, True])
@pytest.mark.parametrize("elsewhere", ["contract", "chain"])
def test_an_authorization_is_for_one_contract_and_chain(
    world: World, channel: Channel, elsewhere: str, of_this_id: bool
) -> None:
    deployment = (
        Deployment(CHAIN_ID, world.deploy_channels(GRACE_SECONDS).address)
        if elsewhere == "contract"
        else Deployment(OTHER_CHAIN_ID, world.contract.address)
    )
    channel_id = world.id(channel) if of_this_id else channel.id(deployment)
    signature = sign_close_authorization(deployment, world.payee.private_key, channel_id, 60)

    with reverts("InvalidAuthorization"):
        world.close_with_authorization(channel, 60, payee_signature=signature)


def test_a_voucher_is_no_authorization_and_an_authorization_no_voucher(world: World) -> None:
    """Even of one key: the payee of this channel also signs its vouchers."""
    channel = world.channel(payer=world.payer, signer=world.payee)
    world.open(channel, 100)
    voucher, authorization = world.sign(channel, 60), world.sign_close(channel, 60)

    with reverts("InvalidAuthorization"):
        world.close_with_authorization(channel, 60, voucher, voucher)
    with reverts("InvalidSignature"):
        world.close_with_authorization(channel, 60, authorization, authorization)
    for action in (world.settle, world.close):
        with reverts("InvalidSignature"):
            action(channel, 60, authorization)
    world.close_with_authorization(channel, 60, voucher, authorization)


@pytest.mark.parametrize("end", ["close", "close_with_authorization"])
def test_an_authorization_closes_once(world: World, channel: Channel, end: str) -> None:
    getattr(world, end)(channel, 60)

    with reverts("ChannelFinalized", world.id(channel)):
        world.close_with_authorization(channel, 60)


def test_an_authorization_never_closes_a_later_epoch(world: World, channel: Channel) -> None:
    signatures = (world.sign(channel, 60), world.sign_close(channel, 60))
    world.close_with_authorization(channel, 60, *signatures)
    again = channel.with_epoch(1)
    world.open(again, 100)

    with reverts("InvalidAuthorization"):
        world.close_with_authorization(again, 60, *signatures)
    with reverts("ChannelFinalized", world.id(channel)):
        world.close_with_authorization(channel, 60, *signatures)
    assert world.state(again) == ChannelState(ChannelStatus.OPEN, 100)


def test_it_needs_a_channel(world: World) -> None:
    channel = world.channel()

    with reverts("ChannelNotFound", world.id(channel)):
        world.close_with_authorization(channel, 60)


def test_a_payee_that_is_a_contract_closes_itself_only(world: World) -> None:
    wallet = world.deploy_wallet("FriendlyWallet")
    channel = world.channel(payee=wallet)
    world.open(channel, 100)
    by_driver = world.sign_close_as(wallet.driver, world.id(channel), 60)

    for signature in (by_driver, bytes(64) + b"\x1b", b""):
        with reverts("InvalidAuthorization"):
            world.close_with_authorization(channel, 60, payee_signature=signature)
    with world.pays(NATIVE, {wallet: 60, world.payer: 40}):
        world.close(channel, 60, sender=wallet)


@pytest.mark.parametrize("side", ["payer", "payee"])
def test_a_side_that_the_token_turns_away_does_not_block_the_other(world: World, side: str) -> None:
    token = world.deploy_token("BlacklistToken")
    channel = world.channel(token.address)
    world.open(channel, 100)
    listed = getattr(world, side)
    world.configure(token, "BlacklistToken", "list", listed.address, True)
    shares = {world.payee: 60, world.payer: 40}

    with world.pays(token.address, {one: shares[one] * (one != listed) for one in shares}):
        world.close_with_authorization(channel, 60)

    assert world.kept(token.address, listed.address) == shares[listed]


def test_after_a_fork_each_chain_has_its_own_authorization(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = world.channel()
    world.open(channel, 100)
    signed_here = (world.sign(channel, 60), world.sign_close(channel, 60))

    monkeypatch.setattr(world.chain._chain, "chain_id", OTHER_CHAIN_ID)

    with reverts("InvalidAuthorization"):
        world.read(world.contract, "closeWithAuthorization", as_struct(channel), 60, *signed_here)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    channel_id=st.binary(min_size=32, max_size=32).map(ChannelId),
    cumulative=st.integers(0, AMOUNT_MAX),
)
def test_authorization_digests_are_those_of_python(
    world: World, channel_id: ChannelId, cumulative: int
) -> None:
    digest = close_authorization_digest(world.deployment, channel_id, cumulative)

    answer = world.read(world.contract, "closeAuthorizationDigest", channel_id, cumulative)
    assert answer == digest
