"""What wallets sign is what the contract takes: viem signs each message, byte for byte as
eth-account does, and the chain accepts it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from channelpay.protocol.types import Channel, ChannelState, ChannelStatus
from channelpay.testing.accounts import DevAccount
from scripts.build_contracts import ROOT
from tests.contracts.funding import (
    Form,
    FundingCall,
    TypedMessage,
    authorized_open,
    authorized_top_up,
    close_message,
    new_permit2_world,
    permit2_open,
    permit2_top_up,
    permit_open,
)
from tests.contracts.world import World, as_struct

OPENS = ["openWithPermit", "openWithAuthorization", "openWithPermit2"]
TOP_UPS = ["topUpWithAuthorization", "topUpWithPermit2"]


@pytest.fixture(scope="module")
def permit2_world() -> World:
    """A chain with Permit2."""
    return new_permit2_world()


@pytest.fixture
def world(permit2_world: World) -> Iterator[World]:
    """That chain, as it was before, for one test."""
    with permit2_world.rolled_back():
        yield permit2_world


def described(world: World) -> Channel:
    """The channel of all messages; every field is set."""
    return world.channel(world.token.address, signer=world.session_key, salt=(9 << 32) + 5)


def funding_calls(world: World) -> dict[str, FundingCall]:
    """Each way to fund that channel, signed by the payer with eth-account."""
    channel = described(world)
    calls = (
        permit_open(world, channel, 100),
        authorized_open(world, channel, 100, Form.BYTES),
        permit2_open(world, channel, 100, nonce=2**256 - 1),
        authorized_top_up(world, channel, 30, Form.PARTS),
        permit2_top_up(world, channel, 30),
    )
    return {call.function: call for call in calls}


def messages(world: World) -> dict[str, tuple[TypedMessage, DevAccount]]:
    """What is signed for each of the contract's functions, and by whom."""
    closing = {"closeWithAuthorization": (close_message(world, described(world), 60), world.payee)}
    return closing | {
        name: (call.message, world.payer) for name, call in funding_calls(world).items()
    }


@pytest.fixture(scope="module")
def viem_signatures(permit2_world: World) -> dict[str, bytes]:
    """All of the messages signed by viem, in one process."""
    wanted = messages(permit2_world)
    signed = subprocess.run(
        ["node", "tests/js/sign_typed_data.mjs"],
        input=json.dumps([message.as_request(signer) for message, signer in wanted.values()]),
        capture_output=True,
        check=True,
        cwd=ROOT,
        text=True,
        timeout=120,
    )
    found = (bytes.fromhex(signature[2:]) for signature in json.loads(signed.stdout))
    return dict(zip(wanted, found, strict=True))


@pytest.mark.parametrize("function", [*OPENS, *TOP_UPS, "closeWithAuthorization"])
def test_viem_signs_what_eth_account_signs(
    world: World, viem_signatures: dict[str, bytes], function: str
) -> None:
    message, signer = messages(world)[function]

    assert viem_signatures[function] == message.sign(signer)


@pytest.mark.parametrize("function", OPENS)
def test_a_channel_opens_with_viems_signature(
    world: World, viem_signatures: dict[str, bytes], function: str
) -> None:
    call = funding_calls(world)[function].signed(viem_signatures[function])

    with world.pays(world.token.address, {world.payer: -100, world.contract: 100}):
        call.send(world, world.payer)

    assert world.state(described(world)) == ChannelState(ChannelStatus.OPEN, 100)


@pytest.mark.parametrize("function", TOP_UPS)
def test_a_channel_is_topped_up_with_viems_signature(
    world: World, viem_signatures: dict[str, bytes], function: str
) -> None:
    funding_calls(world)["openWithPermit2"].send(world)
    call = funding_calls(world)[function].signed(viem_signatures[function])

    with world.pays(world.token.address, {world.payer: -30, world.contract: 30}):
        call.send(world)

    assert world.state(described(world)) == ChannelState(ChannelStatus.OPEN, 130)


def test_a_channel_is_closed_with_viems_signature(
    world: World, viem_signatures: dict[str, bytes]
) -> None:
    """The payee's close authorization, sent by a stranger."""
    channel = described(world)
    funding_calls(world)["openWithPermit2"].send(world)
    signatures = (world.sign(channel, 60), viem_signatures["closeWithAuthorization"])

    with world.pays(channel.token, {world.payee: 60, world.payer: 40, world.contract: -100}):
        world.send(
            world.stranger,
            world.contract,
            "closeWithAuthorization",
            as_struct(channel),
            60,
            *signatures,
        )
