"""A voucher binds one channel, contract, chain and amount, in one canonical form, by one key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from coincurve import PublicKey

from channelpay.protocol.eip712 import VoucherHasher, VoucherSigner, address_of, domain_separator
from channelpay.protocol.types import Address, Channel, Deployment, Voucher
from channelpay.testing.execution import CHAIN_ID
from tests.contracts.world import World, as_struct, reverts, short

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OTHER_CHAIN_ID = 1


@pytest.fixture
def channel(world: World, asset: Address) -> Channel:
    """An open channel with a deposit of 100, whose vouchers the payer signs."""
    channel = world.channel(asset)
    world.open(channel, 100)
    return channel


def with_s(signature: bytes, s: int) -> bytes:
    return signature[:32] + s.to_bytes(32, "big") + signature[64:]


def high_s(signature: bytes) -> bytes:
    """The other signature that plain ECDSA accepts for the same key and digest."""
    s = int.from_bytes(signature[32:64], "big")
    return with_s(signature, CURVE_ORDER - s)[:64] + bytes([55 - signature[64]])


def compact(signature: bytes) -> bytes:
    """The 64 bytes of EIP-2098."""
    return signature[:32] + short(signature)


MUTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "high s": high_s,
    "high s with the old v": lambda signature: high_s(signature)[:64] + signature[64:],
    "the other v": lambda signature: signature[:64] + bytes([55 - signature[64]]),
    "v 0 or 1": lambda signature: signature[:64] + bytes([signature[64] - 27]),
    "v 26": lambda signature: signature[:64] + b"\x1a",
    "v 29": lambda signature: signature[:64] + b"\x1d",
    "v of EIP-155": lambda signature: signature[:64] + bytes([(signature[64] + 8 + 70) % 256]),
    "no signature": lambda _: b"",
    "64 bytes": lambda signature: signature[:64],
    "64 bytes of EIP-2098": compact,
    "66 bytes": lambda signature: signature + b"\0",
    "only zeros": lambda _: bytes(65),
    "zeros with a good v": lambda signature: bytes(64) + signature[64:],
    "r zero": lambda signature: bytes(32) + signature[32:],
    "s zero": lambda signature: with_s(signature, 0),
    "s of the curve's order": lambda signature: with_s(signature, CURVE_ORDER),
    "a flipped bit": lambda signature: bytes([signature[0] ^ 1]) + signature[1:],
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_only_the_canonical_signature_pays(world: World, channel: Channel, mutation: str) -> None:
    signature = MUTATIONS[mutation](world.sign(channel, 60))

    with reverts("InvalidSignature"):
        world.settle(channel, 60, signature)
    with reverts("InvalidSignature"):
        world.close(channel, 60, signature)


def test_the_high_s_form_would_pass_plain_ecdsa(world: World, channel: Channel) -> None:
    signature = high_s(world.sign(channel, 60))

    digest = VoucherHasher(world.deployment).digest(world.id(channel), 60)
    key = PublicKey.from_signature_and_message(
        signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
    )

    assert address_of(key.format(compressed=False)[1:]) == channel.payer


def test_another_key_pays_nothing(world: World, channel: Channel) -> None:
    for other in (world.payee, world.stranger, world.session_key):
        with reverts("InvalidSignature"):
            world.settle(channel, 60, world.sign_as(other, world.id(channel), 60))


def test_with_an_authorized_signer_the_payer_key_pays_nothing(world: World, asset: Address) -> None:
    channel = world.channel(asset, signer=world.session_key)
    world.open(channel, 100)

    with reverts("InvalidSignature"):
        world.settle(channel, 60, world.sign_as(world.payer, world.id(channel), 60))
    with world.pays(asset, {world.payee: 60}):
        world.settle(channel, 60)


def test_a_voucher_for_another_amount_pays_nothing(world: World, channel: Channel) -> None:
    with reverts("InvalidSignature"):
        world.settle(channel, 61, world.sign(channel, 60))


def test_a_voucher_of_a_neighbour_channel_pays_nothing(world: World, channel: Channel) -> None:
    neighbour = replace(channel, salt=(1 << 32).to_bytes(32, "big"))
    world.open(neighbour, 100)

    with reverts("InvalidSignature"):
        world.settle(channel, 60, world.sign(neighbour, 60))


def test_a_signature_that_no_key_made_never_stands_for_the_zero_address(world: World) -> None:
    """``ecrecover`` answers zero for it, and a zero authorized signer means the payer."""
    channel = world.channel()
    world.open(channel, 100)

    with reverts("InvalidSignature"):
        world.settle(channel, 60, bytes(64) + b"\x1b")


def test_a_voucher_of_another_contract_pays_nothing(world: World, channel: Channel) -> None:
    twin = Deployment(CHAIN_ID, world.deploy_channels(600).address)
    elsewhere = VoucherHasher(twin)

    theirs = signature_in(twin, world, channel)

    elsewhere.check(Voucher(channel.id(twin), 60, theirs), channel.payer)
    with reverts("InvalidSignature"):
        world.settle(channel, 60, theirs)


def test_a_voucher_of_another_chain_pays_nothing(world: World, channel: Channel) -> None:
    elsewhere = Deployment(OTHER_CHAIN_ID, world.contract.address)

    with reverts("InvalidSignature"):
        world.settle(channel, 60, signature_in(elsewhere, world, channel))


def test_another_domain_pays_nothing_even_for_this_id(world: World, channel: Channel) -> None:
    for elsewhere in (
        Deployment(OTHER_CHAIN_ID, world.contract.address),
        Deployment(CHAIN_ID, world.token.address),
    ):
        signature = signature_in(elsewhere, world, channel, of_this_id=True)
        with reverts("InvalidSignature"):
            world.settle(channel, 60, signature)


def test_after_a_fork_each_chain_has_its_own_domain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = world.channel()
    world.open(channel, 100)
    forked = Deployment(OTHER_CHAIN_ID, world.contract.address)
    voucher_here, voucher_there = world.sign(channel, 60), signature_in(forked, world, channel)
    settled_here = (as_struct(channel), 60, voucher_here)
    settled_there = (as_struct(channel), 60, voucher_there)

    monkeypatch.setattr(world.chain._chain, "chain_id", OTHER_CHAIN_ID)

    assert world.read(world.contract, "domainSeparator") == domain_separator(forked)
    assert world.read(world.contract, "channelId", as_struct(channel)) == channel.id(forked)
    with reverts("InvalidSignature"):
        world.read(world.contract, "settle", *settled_here)
    world.read(world.contract, "settle", *settled_there)


def signature_in(
    deployment: Deployment, world: World, channel: Channel, *, of_this_id: bool = False
) -> bytes:
    """The payer's voucher for 60 in another deployment's domain."""
    signer = VoucherSigner(deployment, world.payer.private_key)
    return signer.sign(world.id(channel) if of_this_id else channel.id(deployment), 60).signature
