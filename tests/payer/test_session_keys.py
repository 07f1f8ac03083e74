"""Vouchers are signed by a key of the channel's own, which the account can always make again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import ConfigError
from channelpay.payer.client import Payer
from channelpay.payer.session_keys import SessionKeys
from channelpay.protocol.eip712 import VoucherHasher, VoucherSigner
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel, Deployment
from channelpay.testing.furnished import FurnishedChain

DEPLOYMENT = Deployment(31337, Address(b"\x11" * 20))
SECRET = bytes(31) + b"\x01"
CHANNEL = Channel(Address(b"\x22" * 20), Address(b"\x33" * 20), NATIVE, ZERO_ADDRESS, b"\x44" * 32)

secrets = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20).map(Address)


def flipped(data: bytes) -> bytes:
    """With another first bit."""
    return bytes([data[0] ^ 0x80]) + data[1:]


@given(secret=secrets, salt=secrets, payee=addresses)
def test_a_lane_has_one_key_and_every_other_lane_another(
    secret: bytes, salt: bytes, payee: Address
) -> None:
    keys = SessionKeys.of_account(secret)
    channel = replace(CHANNEL, payee=payee, salt=salt)
    own = keys.address(DEPLOYMENT, channel)

    assert keys.address(DEPLOYMENT, channel.with_epoch(7)) == own
    assert keys.address(DEPLOYMENT, replace(channel, authorized_signer=own)) == own
    others = (
        keys.address(DEPLOYMENT, replace(channel, payee=Address(flipped(payee)))),
        keys.address(DEPLOYMENT, replace(channel, token=Address(flipped(NATIVE)))),
        keys.address(DEPLOYMENT, replace(channel, salt=flipped(salt))),
        keys.address(replace(DEPLOYMENT, chain_id=1), channel),
        keys.address(replace(DEPLOYMENT, contract=Address(b"\x08" * 20)), channel),
        SessionKeys.of_account(flipped(secret)).address(DEPLOYMENT, channel),
    )
    assert own not in others
    assert len({*others}) == len(others)


def test_keys_are_the_same_in_every_version() -> None:
    """Else a payer could not sign any more for the channels that it has open."""
    address = SessionKeys.of_account(SECRET).address(DEPLOYMENT, CHANNEL)

    assert to_hex(address) == "0xdd5feca8ca0bc9675011ce1b4fcc4838d9f96ee6"


def test_no_secret_is_shown() -> None:
    keys = SessionKeys.of_account(SECRET)

    assert keys.seed.hex() not in repr(keys)
    assert repr(keys.seed) not in repr(keys)


@pytest.fixture
def payer(furnished: FurnishedChain, tmp_path: Path) -> Payer:
    key = furnished.chain.accounts[0].private_key
    contract = furnished.deployment.contract
    return Payer(key, furnished.chain.rpc_url, tmp_path / "books", contract=contract)


def test_what_is_opened_has_a_signer_of_its_own(payer: Payer, furnished: FurnishedChain) -> None:
    payees = [account.address for account in furnished.chain.accounts[1:3]]
    entries = [payer.open_channel(payee, 1000) for payee in payees]

    signers = {entry.channel.authorized_signer for entry in entries}
    assert len(signers) == 2
    assert not signers & {ZERO_ADDRESS, payer.address}
    for entry in entries:
        reservation = payer.state.reserve(entry.channel_id, 5, payer._sign)
        hasher = VoucherHasher(furnished.deployment)
        hasher.check(reservation.voucher, entry.channel.authorized_signer)


def test_a_channel_without_a_signer_is_signed_by_the_account(
    payer: Payer, furnished: FurnishedChain
) -> None:
    entry = payer.open_channel(furnished.chain.accounts[1].address, 1000)
    own = replace(entry, channel=replace(entry.channel, authorized_signer=ZERO_ADDRESS))

    voucher = payer._sign(own, 5)

    VoucherHasher(furnished.deployment).check(voucher, payer.address)


def test_a_signer_that_is_not_ours_is_refused_before_anything_is_signed(
    payer: Payer, furnished: FurnishedChain
) -> None:
    entry = payer.open_channel(furnished.chain.accounts[1].address, 1000)
    stranger = VoucherSigner(furnished.deployment, SECRET).address
    theirs = replace(entry, channel=replace(entry.channel, authorized_signer=stranger))

    with pytest.raises(ConfigError):
        payer._sign(theirs, 5)
