"""The contract under eth-tester, as projects use it that have their own tests on it."""

from __future__ import annotations

import pytest
from eth_tester import EthereumTester, PyEVMBackend
from web3 import EthereumTesterProvider, Web3
from web3.contract import Contract
from web3.types import Wei

from channelpay.chain.artifacts import payment_channels
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE, Address, Channel, Deployment

DEPOSIT = 10**16
PROMISED = 3 * 10**15
SESSION_KEY = keccak256(b"a session key for tests only")


@pytest.fixture
def web3() -> Web3:
    return Web3(EthereumTesterProvider(EthereumTester(PyEVMBackend())))


@pytest.fixture
def contract(web3: Web3) -> Contract:
    artifact = payment_channels()
    factory = web3.eth.contract(abi=list(artifact.abi), bytecode=artifact.bytecode)
    receipt = web3.eth.wait_for_transaction_receipt(factory.constructor(86_400).transact())
    assert receipt["contractAddress"] is not None
    return web3.eth.contract(receipt["contractAddress"], abi=list(artifact.abi))


def test_a_channel_is_opened_and_closed_with_our_voucher(web3: Web3, contract: Contract) -> None:
    payer, payee = list(web3.eth.accounts)[:2]
    deployment = Deployment(web3.eth.chain_id, _address(contract.address))
    signer = VoucherSigner(deployment, SESSION_KEY)
    channel = Channel(_address(payer), _address(payee), NATIVE, signer.address, bytes(32))
    voucher = signer.sign(channel.id(deployment), PROMISED)
    open_call = contract.functions.open(
        payee, checksum_address(NATIVE), DEPOSIT, channel.salt, checksum_address(signer.address)
    )
    open_call.transact({"from": payer, "value": Wei(DEPOSIT)})
    payer_before = web3.eth.get_balance(payer)

    description = (
        payer,
        payee,
        checksum_address(NATIVE),
        checksum_address(signer.address),
        channel.salt,
    )
    close_call = contract.functions.close(description, PROMISED, voucher.signature)
    receipt = web3.eth.wait_for_transaction_receipt(close_call.transact({"from": payee}))

    closed, *_ = contract.events.ChannelClosed().process_receipt(receipt)
    assert closed["args"]["channelId"] == channel.id(deployment)
    assert (closed["args"]["settled"], closed["args"]["refund"]) == (PROMISED, DEPOSIT - PROMISED)
    assert web3.eth.get_balance(payer) == payer_before + DEPOSIT - PROMISED


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))
