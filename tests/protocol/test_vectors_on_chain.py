"""The golden vectors, checked by the contract itself: on each vector's chain it stands where the
vector says, as the first transaction of its deployer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_typing import Address as EvmAddress

from channelpay.chain.artifacts import payment_channels
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import (
    GRACE_SECONDS_CANONICAL,
    NATIVE,
    Channel,
    Deployment,
    Voucher,
)
from channelpay.testing import evm
from channelpay.testing.accounts import DevAccount, dev_accounts
from channelpay.testing.evm import EmbeddedChain
from channelpay.testing.execution import CallMessage, ExecutionReverted
from tests.protocol.vectors import (
    VOUCHERS,
    channel_of,
    deployment_of,
    description,
    from_hex,
    voucher_of,
)

CHANNEL = "(address,address,address,address,bytes32)"
DEPLOYER, PAYER, PAYEE, _, STRANGER = dev_accounts()[:5]
TRANSACTION_GAS = 5_000_000

each_voucher = pytest.mark.parametrize("vector", VOUCHERS["vouchers"], ids=description)
each_close_authorization = pytest.mark.parametrize(
    "vector", VOUCHERS["closeAuthorizations"], ids=description
)
each_invalid = pytest.mark.parametrize("vector", VOUCHERS["invalid"], ids=description)


def call_data(function: str, *arguments: object) -> bytes:
    types = function[function.index("(") + 1 : -1]
    return keccak256(function.encode())[:4] + encode(_split(types), arguments)


def _split(types: str) -> list[str]:
    inside = types.replace(CHANNEL, "channel")
    return [kind.replace("channel", CHANNEL) for kind in inside.split(",") if kind]


def words_of(channel: Channel) -> tuple[bytes, ...]:
    return channel.payer, channel.payee, channel.token, channel.authorized_signer, channel.salt


@dataclass(frozen=True)
class Contract:
    """The contract on a fresh chain of its own."""

    chain: EmbeddedChain
    deployment: Deployment

    def view(self, function: str, *arguments: object) -> bytes:
        message = CallMessage(to=self.deployment.contract, data=call_data(function, *arguments))
        return self.chain.call(message, self.chain.head.header)

    def send(self, sender: DevAccount, data: bytes, *, to: bytes, value: int = 0) -> None:
        fields = {
            "chainId": self.deployment.chain_id,
            "nonce": self.chain.state_at(self.chain.head.header).get_nonce(
                EvmAddress(sender.address)
            ),
            "to": to,
            "data": data,
            "value": value,
            "gas": TRANSACTION_GAS,
            "maxFeePerGas": 10**10,
            "maxPriorityFeePerGas": 10**9,
        }
        signed = Account.sign_transaction(fields, sender.private_key)
        self.chain.submit(bytes(signed.raw_transaction))

    def balance(self, address: bytes) -> int:
        return self.chain.state_at(self.chain.head.header).get_balance(EvmAddress(address))


Deploy = Callable[[Deployment], Contract]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Starts the chain of a deployment and puts the contract on it."""

    def start(deployment: Deployment) -> Contract:
        monkeypatch.setattr(evm, "CHAIN_ID", deployment.chain_id)
        monkeypatch.setattr(evm._PyEvmChain, "chain_id", deployment.chain_id)
        chain = EmbeddedChain(account.address for account in dev_accounts())
        contract = Contract(chain, deployment)
        creation = payment_channels().bytecode + encode(["uint256"], [GRACE_SECONDS_CANONICAL])
        contract.send(DEPLOYER, creation, to=b"")
        assert chain.state_at(chain.head.header).get_code(EvmAddress(deployment.contract))
        return contract

    return start


@each_voucher
def test_contract_computes_the_same_ids_and_digests(deploy: Deploy, vector: dict[str, Any]) -> None:
    contract, voucher = deploy(deployment_of(vector)), voucher_of(vector)
    digest = contract.view(
        "voucherDigest(bytes32,uint128)", voucher.channel_id, voucher.cumulative_amount
    )
    assert contract.view("domainSeparator()") == from_hex(vector["domainSeparator"])
    assert contract.view(f"channelId({CHANNEL})", words_of(channel_of(vector))) == from_hex(
        vector["channelId"]
    )
    assert digest == from_hex(vector["digest"])


@each_close_authorization
def test_contract_computes_the_same_digest_of_a_close_authorization(
    deploy: Deploy, vector: dict[str, Any]
) -> None:
    contract, voucher = deploy(deployment_of(vector)), voucher_of(vector)
    digest = contract.view(
        "closeAuthorizationDigest(bytes32,uint128)", voucher.channel_id, voucher.cumulative_amount
    )
    assert digest == from_hex(vector["digest"])


def native_and_affordable(vector: dict[str, Any]) -> bool:
    return channel_of(vector).token == NATIVE and 0 < int(vector["cumulativeAmount"]) <= 10**21


AFFORDABLE = [vector for vector in VOUCHERS["vouchers"] if native_and_affordable(vector)]


@pytest.mark.parametrize("vector", AFFORDABLE, ids=description)
def test_contract_settles_the_voucher(deploy: Deploy, vector: dict[str, Any]) -> None:
    contract, channel, voucher = (
        deploy(deployment_of(vector)),
        channel_of(vector),
        voucher_of(vector),
    )
    before = contract.balance(PAYEE.address)
    open_channel(contract, channel, voucher.cumulative_amount)
    contract.send(STRANGER, settle_data(channel, voucher), to=contract.deployment.contract)
    assert contract.balance(PAYEE.address) == before + voucher.cumulative_amount


@each_invalid
def test_contract_refuses_the_invalid_voucher(deploy: Deploy, vector: dict[str, Any]) -> None:
    contract, channel, voucher = (
        deploy(deployment_of(vector)),
        channel_of(vector),
        voucher_of(vector),
    )
    open_channel(contract, channel, 1000)
    message = CallMessage(to=contract.deployment.contract, data=settle_data(channel, voucher))
    with pytest.raises(ExecutionReverted) as reverted:
        contract.chain.call(message, contract.chain.head.header)
    assert reverted.value.data == keccak256(b"InvalidSignature()")[:4]


def open_channel(contract: Contract, channel: Channel, deposit: int) -> None:
    data = call_data(
        "open(address,address,uint128,bytes32,address)",
        *(channel.payee, channel.token, deposit, channel.salt, channel.authorized_signer),
    )
    contract.send(PAYER, data, to=contract.deployment.contract, value=deposit)


def settle_data(channel: Channel, voucher: Voucher) -> bytes:
    function = f"settle({CHANNEL},uint128,bytes)"
    return call_data(function, words_of(channel), voucher.cumulative_amount, voucher.signature)
