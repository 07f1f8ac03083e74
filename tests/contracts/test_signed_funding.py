"""What holds for every way to fund a channel by signature: no input can be changed, no hook counts
a deposit twice, and without Permit2 on the chain nothing is credited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.protocol.types import (
    AMOUNT_MAX,
    DEPOSIT_MAX,
    ZERO_ADDRESS,
    Channel,
    ChannelState,
    ChannelStatus,
)
from tests.contracts.funding import (
    FOREVER,
    PERMIT2,
    Form,
    FundingCall,
    authorized_open,
    authorized_top_up,
    deploy_token,
    new_permit2_world,
    open_nonce,
    permit2_open,
    permit2_top_up,
    permit_open,
    top_up_nonce,
)
from tests.contracts.world import (
    UNLIMITED,
    Contract,
    Reverted,
    Sender,
    Wallet,
    World,
    as_struct,
    reverts,
)

Opener = Callable[[World, Channel, int], FundingCall]

OPENS: dict[str, Opener] = {
    "permit": permit_open,
    "authorization": partial(authorized_open, form=Form.BYTES),
    "authorization in parts": partial(authorized_open, form=Form.PARTS),
    "Permit2": permit2_open,
}
TOP_UPS: dict[str, Opener] = {
    "authorization": partial(authorized_top_up, form=Form.BYTES),
    "authorization in parts": partial(authorized_top_up, form=Form.PARTS),
    "Permit2": permit2_top_up,
}
REFUSALS = {
    "ChannelNotFound",
    "DepositOverflow",
    "InvalidPayee",
    "InvalidToken",
    "NonceMismatch",
    "TokenTransferFailed",
    "ZeroDeposit",
}


@dataclass(frozen=True, slots=True)
class Ground:
    """A chain with Permit2 and two channels of the payer, which differ in their salt alone."""

    world: World
    first: Channel
    second: Channel


@pytest.fixture(scope="module")
def ground() -> Ground:
    """Both channels are open with a deposit of 100."""
    world = new_permit2_world()
    salts = (int.from_bytes(lane * 28) << 32 for lane in (b"\x5a", b"\xa5"))
    first, second = (world.channel(world.token.address, salt=salt) for salt in salts)
    for channel in (first, second):
        authorized_open(world, channel, 100, Form.BYTES).send(world)
    return Ground(world, first, second)


@pytest.fixture
def permit2_world(ground: Ground) -> Iterator[World]:
    """The chain with Permit2, as it was before, for one test."""
    with ground.world.rolled_back():
        yield ground.world


# Changed inputs

WORDS = st.binary(min_size=32, max_size=32)
ADDRESSES = st.binary(min_size=20, max_size=20)
GREATEST = {
    "amount": AMOUNT_MAX,
    "deposit": AMOUNT_MAX,
    "deadline": UNLIMITED,
    "nonce": UNLIMITED,
    "validAfter": UNLIMITED,
    "validBefore": UNLIMITED,
}
"""What the integer inputs can hold."""


def signed_call(draw: st.DrawFn, ground: Ground) -> FundingCall:
    """Any funding that the contract would take."""
    world, form = ground.world, draw(st.sampled_from(Form))
    amount = draw(st.integers(1, DEPOSIT_MAX - 100))
    times: dict[str, Any] = {
        "valid_after": draw(st.integers(0, world.timestamp)),
        "valid_before": draw(st.integers(world.timestamp + 60, FOREVER)),
    }
    once: dict[str, Any] = {
        "nonce": draw(st.integers(0, UNLIMITED)),
        "deadline": draw(st.integers(world.timestamp + 60, FOREVER)),
    }
    signer = draw(st.sampled_from([None, world.session_key]))
    salt = int.from_bytes(draw(WORDS))
    fresh = world.channel(world.token.address, signer=signer, salt=salt)
    live = draw(st.sampled_from([ground.first, ground.second]))
    funder = draw(st.sampled_from([world.payer, world.stranger]))
    ways: list[Callable[[], FundingCall]] = [
        lambda: authorized_open(world, fresh, amount, form, **times),
        lambda: authorized_top_up(world, live, amount, form, funder=funder, **times),
        lambda: permit2_open(world, fresh, amount, **once),
        lambda: permit2_top_up(world, live, amount, funder=funder, **once),
    ]
    return draw(st.sampled_from(ways))()


def other_channel(draw: st.DrawFn, ground: Ground, struct: tuple[bytes, ...]) -> Any:
    """A live channel, or the same description with another value in one field."""
    live = st.sampled_from([as_struct(ground.first), as_struct(ground.second)])
    index = draw(st.integers(0, 4))
    field = draw(WORDS if index == 4 else ADDRESSES)
    return draw(st.one_of(live, st.just((*struct[:index], field, *struct[index + 1 :]))))


def other_value(draw: st.DrawFn, ground: Ground, name: str, value: Any) -> Any:
    """Any value of an input's type, near the one that it has or far."""
    world = ground.world
    if name == "channel":
        return other_channel(draw, ground, value)
    if isinstance(value, int):
        near = st.sampled_from([max(value - 1, 0), min(value + 1, GREATEST[name])])
        return draw(st.one_of(near, st.integers(0, GREATEST[name])))
    if len(value) == 32:
        return draw(WORDS)
    known = [one.address for one in world.accounts] + [ZERO_ADDRESS, PERMIT2]
    return draw(st.one_of(ADDRESSES, st.sampled_from([*known, world.contract.address])))


def with_fitting_nonce(world: World, call: FundingCall) -> FundingCall:
    """The same call with the EIP-3009 nonce that its inputs ask for."""
    if call.function == "openWithAuthorization":
        return call.changed("nonce", open_nonce(call.values))
    if call.function == "topUpWithAuthorization":
        return call.changed("nonce", top_up_nonce(world, call.values))
    return call


@st.composite
def one_change(draw: st.DrawFn, ground: Ground) -> tuple[FundingCall, FundingCall]:
    """A call as signed, and the same with one input changed (and the nonce to fit, or not)."""
    call = signed_call(draw, ground)
    name = draw(st.sampled_from([*call.values, "signature"]))
    if name == "signature":
        bit = draw(st.integers(0, 65 * 8 - 1))
        flipped = int.from_bytes(call.signature) ^ (1 << bit)
        return call, call.signed(flipped.to_bytes(65))
    changed = call.changed(name, other_value(draw, ground, name, call.values[name]))
    if draw(st.booleans()):
        changed = with_fitting_nonce(ground.world, changed)
    return call, changed


@given(data=st.data())
def test_no_input_of_a_signed_funding_can_be_changed(ground: Ground, data: st.DataObject) -> None:
    call, changed = data.draw(one_change(ground))

    call.ask(ground.world)
    if changed.arguments == call.arguments:
        return
    with pytest.raises(Reverted) as caught:
        changed.ask(ground.world)

    assert caught.value.name in REFUSALS


# Without Permit2


@pytest.mark.parametrize("approved", [True, False])
def test_without_permit2_on_the_chain_nothing_opens(world: World, approved: bool) -> None:
    """A call to an address without code succeeds; only the balance tells."""
    world.send(world.payer, world.token, "approve", PERMIT2, UNLIMITED if approved else 0)
    channel = world.channel(world.token.address)

    with (
        world.pays(channel.token, {world.payer: 0, world.contract: 0}),
        reverts("TokenTransferFailed", channel.token),
    ):
        permit2_open(world, channel, 100).send(world)

    assert world.state(channel).status is ChannelStatus.ABSENT


def test_without_permit2_on_the_chain_nothing_is_topped_up(world: World) -> None:
    channel = world.channel(world.token.address)
    world.open(channel, 100)

    with (
        world.pays(channel.token, {world.payer: 0, world.contract: 0}),
        reverts("TokenTransferFailed", channel.token),
    ):
        permit2_top_up(world, channel, 30).send(world)

    assert world.state(channel) == ChannelState(ChannelStatus.OPEN, 100)


# A token that denies


@pytest.mark.parametrize("way", OPENS)
def test_a_token_that_moves_the_money_and_says_no_is_refused(
    permit2_world: World, way: str
) -> None:
    world, token = permit2_world, deploy_token(permit2_world, "DenyingToken")
    for spender in (world.contract.address, PERMIT2):
        world.send(world.payer, token, "approve", spender, UNLIMITED)
    call = OPENS[way](world, world.channel(token.address), 100)

    with (
        world.pays(token.address, {world.payer: 0, world.contract: 0}),
        reverts("TokenTransferFailed", token.address),
    ):
        call.send(world, world.payer)


# Hooks


@dataclass(frozen=True, slots=True)
class Hooked:
    """A token that calls a wallet before it moves the payer's money, and a channel from the payer
    to that wallet. The contract holds 1000 of a stranger's besides.
    """

    world: World
    token: Contract
    wallet: Wallet
    channel: Channel
    others: Channel

    def plan(self, data: bytes) -> None:
        """What the wallet sends to the contract when it is called."""
        world = self.world
        world.configure(self.wallet, "ReentrantWallet", "plan", world.contract.address, data)
        world.send(world.stranger, self.token, "setHook", world.payer.address, self.wallet.address)

    def plan_close(self, cumulative: int) -> None:
        """The wallet is the payee: it closes the channel."""
        signature = self.world.sign(self.channel, cumulative)
        close = ("close", as_struct(self.channel), cumulative, signature)
        self.plan(self.world.contract.abi.encode(*close))

    def sender_of(self, call: FundingCall) -> Sender:
        """A permit is sent by the payer, all else by a stranger."""
        world = self.world
        return world.payer if call.function == "openWithPermit" else world.stranger


def hooked(world: World, kind: str) -> Hooked:
    """With a token of this kind."""
    token, wallet = deploy_token(world, kind), world.deploy_wallet("ReentrantWallet")
    world.send(world.payer, token, "approve", PERMIT2, UNLIMITED)
    world.fund(world.stranger, token)
    others = world.channel(token.address, payer=world.stranger)
    world.open(others, 1000)
    channel = world.channel(token.address, payee=wallet, signer=world.session_key)
    return Hooked(world, token, wallet, channel, others)


@pytest.mark.parametrize("way", OPENS)
def test_a_hook_in_a_signed_open_cannot_count_one_deposit_twice(
    permit2_world: World, way: str
) -> None:
    """Inside the open's transfer the payee closes, and takes the deposit that is not there yet."""
    ground = hooked(permit2_world, "HookFundingToken")
    ground.plan_close(100)
    call = OPENS[way](ground.world, ground.channel, 100)
    parties = {ground.wallet: 0, ground.world.payer: 0, ground.world.contract: 0}

    with (
        ground.world.pays(ground.token.address, parties),
        reverts("TokenTransferFailed", ground.token.address),
    ):
        call.send(ground.world, ground.sender_of(call))

    assert ground.world.state(ground.channel).status is ChannelStatus.ABSENT
    assert ground.world.state(ground.others) == ChannelState(ChannelStatus.OPEN, 1000)


@pytest.mark.parametrize("way", TOP_UPS)
def test_a_hook_in_a_signed_top_up_cannot_count_one_deposit_twice(
    permit2_world: World, way: str
) -> None:
    ground = hooked(permit2_world, "HookFundingToken")
    authorized_open(ground.world, ground.channel, 100, Form.BYTES).send(ground.world)
    ground.plan_close(130)
    call = TOP_UPS[way](ground.world, ground.channel, 30)
    parties = {ground.wallet: 0, ground.world.payer: 0, ground.world.contract: 0}

    with (
        ground.world.pays(ground.token.address, parties),
        reverts("TokenTransferFailed", ground.token.address),
    ):
        call.send(ground.world)

    assert ground.world.state(ground.channel) == ChannelState(ChannelStatus.OPEN, 100)


@pytest.mark.parametrize("way", OPENS)
def test_one_transfer_does_not_fund_two_channels(permit2_world: World, way: str) -> None:
    """Inside the outer open's transfer, an inner one brings the same amount for its own channel."""
    ground = hooked(permit2_world, "HookFundingToken")
    world = ground.world
    inner_channel = replace(ground.others, salt=b"i" * 32)
    inner = authorized_open(world, inner_channel, 100, Form.BYTES)
    ground.plan(inner.contract_abi.encode(inner.function, *inner.arguments))
    call = OPENS[way](world, ground.channel, 100)

    with (
        world.pays(ground.token.address, {world.payer: 0, world.stranger: 0, world.contract: 0}),
        reverts("TokenTransferFailed", ground.token.address),
    ):
        call.send(world, ground.sender_of(call))

    assert world.state(ground.channel).status is ChannelStatus.ABSENT
    assert world.state(inner_channel).status is ChannelStatus.ABSENT


def test_a_hook_in_a_permit_moves_the_payers_own_money_only(permit2_world: World) -> None:
    """Before the transfer of the deposit the payee closes; the payer still has to bring it."""
    ground = hooked(permit2_world, "HookPermitToken")
    ground.plan_close(100)
    world, call = ground.world, permit_open(ground.world, ground.channel, 100)

    with world.pays(
        ground.token.address, {ground.wallet: 100, world.payer: -100, world.contract: 0}
    ):
        call.send(world, world.payer)

    assert world.state(ground.channel) == ChannelState(ChannelStatus.FINALIZED, 100, 100)
    assert world.state(ground.others) == ChannelState(ChannelStatus.OPEN, 1000)


def test_a_hook_in_a_permit_cannot_take_what_the_payer_does_not_bring(
    permit2_world: World,
) -> None:
    """As before, but the payer has spent its tokens: the whole open is undone."""
    ground = hooked(permit2_world, "HookPermitToken")
    ground.plan_close(100)
    world, call = ground.world, permit_open(ground.world, ground.channel, 100)
    everything = world.balance(ground.token.address, world.payer.address)
    world.send(world.payer, ground.token, "transfer", world.payee.address, everything)

    with (
        world.pays(ground.token.address, {ground.wallet: 0, world.contract: 0}),
        reverts("TokenTransferFailed", ground.token.address),
    ):
        call.send(world, world.payer)

    assert world.state(ground.channel).status is ChannelStatus.ABSENT
