"""A channel's life, as a contract developer drives it from Ape."""

from __future__ import annotations

import json
from typing import Any

import ape
import pytest
from ape.utils import ZERO_ADDRESS
from eip712.messages import EIP712Domain, EIP712Message
from eth_pydantic_types import abi

from scripts import build_contracts

DEPOSIT = 1_000_000
SALT = bytes(28) + (1).to_bytes(4, "big")
FINALIZED = 3


class Voucher(EIP712Message):
    """What a payer signs, as an EIP-712 library describes it."""

    channelId: abi.bytes32  # noqa: N815
    cumulativeAmount: abi.uint128  # noqa: N815


def voucher(channels: Any, signer: Any, channel_id: bytes, amount: int) -> bytes:
    """A voucher as any EIP-712 wallet signs it."""
    domain = EIP712Domain(
        name="EVM Payment Channel",
        version="1",
        chainId=ape.chain.chain_id,
        verifyingContract=channels.address,
    )
    message = Voucher(channelId=channel_id, cumulativeAmount=amount, eip712_domain=domain)
    return signer.sign_message(message.signable_message).encode_rsv()


def open_channel(channels: Any, payer: Any, payee: Any, token: str) -> tuple[tuple, bytes]:
    """A channel with `DEPOSIT` in it: its description and its id."""
    value = DEPOSIT if token == ZERO_ADDRESS else 0
    channels.open(payee, token, DEPOSIT, SALT, ZERO_ADDRESS, sender=payer, value=value)
    channel = (payer.address, payee.address, token, ZERO_ADDRESS, SALT)
    return channel, channels.channelId(channel)


@pytest.mark.parametrize("name", sorted(build_contracts.TARGETS))
def test_ape_compiles_the_bytecode_that_ships(contract_types: dict[str, Any], name: str) -> None:
    artifact = json.loads((build_contracts.ARTIFACTS_DIRECTORY / f"{name}.json").read_text())
    contract_type = contract_types[name].contract_type

    assert str(contract_type.deployment_bytecode.bytecode) == artifact["bytecode"]
    assert str(contract_type.runtime_bytecode.bytecode) == artifact["deployedBytecode"]


def test_close_pays_the_payee_and_refunds_the_payer_in_ether(
    channels: Any, payer: Any, payee: Any
) -> None:
    channel, channel_id = open_channel(channels, payer, payee, ZERO_ADDRESS)
    signature = voucher(channels, payer, channel_id, 400_000)
    payer_before, payee_before = payer.balance, payee.balance

    receipt = channels.close(channel, 400_000, signature, sender=payee)

    assert payer.balance == payer_before + 600_000
    assert payee.balance == payee_before + 400_000 - receipt.total_fees_paid
    assert channels.balance == 0
    assert channels.channelState(channel).status == FINALIZED


def test_settle_and_close_pay_the_payee_in_a_token(
    channels: Any, token: Any, payer: Any, payee: Any, accounts: Any
) -> None:
    payer_before = token.balanceOf(payer)
    channel, channel_id = open_channel(channels, payer, payee, token.address)

    first = voucher(channels, payer, channel_id, 300_000)
    channels.settle(channel, 300_000, first, sender=accounts[5])
    assert token.balanceOf(payee) == 300_000

    second = voucher(channels, payer, channel_id, 700_000)
    channels.close(channel, 700_000, second, sender=payee)
    assert token.balanceOf(payee) == 700_000
    assert token.balanceOf(payer) == payer_before - 700_000
    assert token.balanceOf(channels) == 0


def test_a_voucher_of_another_key_settles_nothing(
    channels: Any, payer: Any, payee: Any, accounts: Any
) -> None:
    channel, channel_id = open_channel(channels, payer, payee, ZERO_ADDRESS)
    forged = voucher(channels, accounts[5], channel_id, 1)

    with ape.reverts(channels.InvalidSignature):
        channels.settle(channel, 1, forged, sender=payee)


def test_withdraw_waits_for_the_grace_period(
    channels: Any, payer: Any, payee: Any, chain: Any
) -> None:
    channel, _ = open_channel(channels, payer, payee, ZERO_ADDRESS)
    channels.requestClose(channel, sender=payer)

    with ape.reverts(channels.CloseNotReady):
        channels.withdraw(channel, sender=payer)

    chain.pending_timestamp += channels.gracePeriod()
    channels.withdraw(channel, sender=payer)
    assert channels.balance == 0
