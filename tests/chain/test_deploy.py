"""Deployment: one address everywhere, and nothing deployed twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from channelpay.chain import artifacts
from channelpay.chain.connection import connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.create2 import DEPLOYER, predicted_address
from channelpay.chain.deploy import deploy
from channelpay.errors import ConfigError
from channelpay.protocol.types import Deployment
from channelpay.testing import embedded_chain
from channelpay.testing.furnished import FurnishedChain
from tests.support.chains import Json, Refused, fake_node, sender_of


def test_the_contract_is_where_it_was_predicted(furnished: FurnishedChain) -> None:
    assert furnished.deployment.contract == predicted_address(86_400)


def test_deploying_again_sends_nothing(furnished: FurnishedChain) -> None:
    connection = connect(furnished.chain.rpc_url)
    sender = sender_of(connection, furnished.chain.accounts[0])
    again = deploy(sender)
    assert again.already_there
    assert again.address == furnished.deployment.contract
    assert connection.next_nonce(sender.address) == 0


def test_another_grace_period_is_another_contract(furnished: FurnishedChain) -> None:
    connection = connect(furnished.chain.rpc_url)
    deployed = deploy(sender_of(connection, furnished.chain.accounts[0]), grace_seconds=600)
    assert deployed.receipt is not None
    assert deployed.address == predicted_address(600) != furnished.deployment.contract
    contract = PaymentChannelsContract(connection, Deployment(31337, deployed.address))
    assert contract.grace_period_seconds() == 600
    contract.require_genuine()


def test_a_grace_period_under_ten_minutes_is_refused() -> None:
    with pytest.raises(ConfigError, match="599"):
        predicted_address(599)


def test_the_deployer_is_put_where_it_is_missing(furnished: FurnishedChain) -> None:
    assert len(connect(furnished.chain.rpc_url).code(DEPLOYER)) == 69


def test_a_chain_that_refuses_the_deployer_is_a_clear_error() -> None:
    def only_replay_protected(method: str, params: list[Json], forward: Callable[[], Json]) -> Json:
        if method == "eth_sendRawTransaction" and params[0].startswith("0xf8a5"):
            raise Refused("only replay-protected (EIP-155) transactions allowed over RPC")
        return forward()

    with embedded_chain() as chain, fake_node(chain.rpc_url, only_replay_protected) as url:
        with pytest.raises(ConfigError, match="replay-protected") as caught:
            deploy(sender_of(connect(url), chain.accounts[0]))
        assert "0x4e59b44847b379578588920cA78FbF26c0B4956C" in caught.value.hint


def test_code_is_compared_without_its_immutables_but_each_has_one_value() -> None:
    artifact = artifacts.payment_channels()
    code = bytearray(artifact.deployed_bytecode)
    assert not artifact.difference(bytes(code))
    copies = next(copies for copies in artifact.immutable_ranges if len(copies) > 1)
    for start, length in copies:
        code[start : start + length] = b"\xff" * length
        whole = start == copies[-1][0]
        assert artifact.difference(bytes(code)) == ("" if whole else "an immutable has two values")
    assert b"\xff" * 32 in artifact.immutables(bytes(code))
    place = copies[0][0] - 1
    code[place] ^= 1
    assert artifact.difference(bytes(code)) == f"byte {place} differs"
    for other in (b"", artifact.deployed_bytecode + b"\0"):
        assert artifact.difference(other).startswith(f"it has {len(other)} bytes")
