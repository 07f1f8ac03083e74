"""Channel ids and lanes against the ABI encoding of eth-abi."""

from __future__ import annotations

from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from channelpay.protocol.types import ZERO_ADDRESS, Channel, Deployment
from tests.protocol.strategies import channels, deployments

WORDS = ["address", "address", "address", "bytes32", "address"]
epochs = st.integers(0, 2**32 - 1)


@given(channels, deployments)
def test_channel_id_is_the_hash_of_the_draft(channel: Channel, deployment: Deployment) -> None:
    place = [deployment.contract, deployment.chain_id]
    words = [channel.payer, channel.payee, channel.token, channel.salt, channel.authorized_signer]
    encoded = encode([*WORDS, "address", "uint256"], words + place)
    assert channel.id(deployment) == keccak(encoded)


@given(channels)
def test_lane_is_the_description_without_its_epoch(channel: Channel) -> None:
    salt = (int.from_bytes(channel.salt, "big") >> 32).to_bytes(32, "big")
    words = [channel.payer, channel.payee, channel.token, salt, channel.authorized_signer]
    assert channel.lane == keccak(encode(WORDS, words))


@given(channels, deployments, epochs)
def test_another_epoch_is_another_channel_of_the_same_lane(
    channel: Channel, deployment: Deployment, epoch: int
) -> None:
    reopened = channel.with_epoch(epoch)
    assert reopened.epoch == epoch
    assert reopened.lane == channel.lane
    same = epoch == channel.epoch
    assert (reopened.id(deployment) == channel.id(deployment)) == same == (reopened == channel)


@given(channels)
def test_payer_signs_where_nobody_is_authorized(channel: Channel) -> None:
    unauthorized = channel.authorized_signer == ZERO_ADDRESS
    assert channel.signer == (channel.payer if unauthorized else channel.authorized_signer)
