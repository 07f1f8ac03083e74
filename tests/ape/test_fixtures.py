"""The fixtures of channelpay's own plugin beside those of Ape."""

from __future__ import annotations

from typing import Any

import ape
import pytest
from ape.utils import ZERO_ADDRESS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address, Deployment
from channelpay.testing.strategies import SignedVoucher, amounts, signed_vouchers

OPEN, FINALIZED = 1, 3


def description(channel: Any) -> tuple[Any, ...]:
    addresses = (channel.payer, channel.payee, channel.token, channel.authorized_signer)
    return (*map(checksum_address, addresses), channel.salt)


# Ape leaves the connection of a provider that it is done with to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_channel_of_the_plugins_chain_is_read_and_closed_by_ape(
    channelpay_chain: Any, channel_factory: Any, contract_types: dict[str, Any]
) -> None:
    channel = channel_factory(1_000_000)
    voucher = channel.sign(400_000)
    key = channelpay_chain.accounts[2].private_key.hex()

    with ape.networks.parse_network_choice(channelpay_chain.rpc_url):
        contract = contract_types["PaymentChannels"].at(checksum_address(channelpay_chain.contract))
        facts = description(channel.channel)
        assert contract.channelState(facts).status == OPEN
        payee = ape.accounts.test_accounts[2]
        assert payee.private_key.removeprefix("0x") == key
        contract.close(facts, voucher.cumulative_amount, voucher.signature, sender=payee)
        assert contract.channelState(facts).status == FINALIZED

    assert channel.state().settled == 400_000


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_vouchers_of_the_strategies_have_the_digest_that_apes_contract_signs(
    channels: Any, data: st.DataObject
) -> None:
    where = Deployment(ape.chain.chain_id, Address(bytes.fromhex(channels.address[2:])))
    signed: SignedVoucher = data.draw(
        signed_vouchers(deployment=st.just(where), amount=amounts(2**128 - 1))
    )
    channel_id = channels.channelId(description(signed.channel))
    assert bytes(channel_id) == signed.voucher.channel_id
    assert channels.channelState(description(signed.channel)).deposit == 0


def test_apes_own_chain_stays_apes(channelpay_chain: Any, accounts: Any) -> None:
    height = ape.chain.blocks.height
    channelpay_chain.chain.mine(5)
    assert ape.chain.blocks.height == height
    assert accounts[0].address != ZERO_ADDRESS
