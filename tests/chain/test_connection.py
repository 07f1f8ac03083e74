"""Whatever a node does, what comes out is a typed value or an error of ours."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from channelpay.chain.artifacts import payment_channels
from channelpay.chain.connection import Connection, NodeRefused, connect
from channelpay.chain.contract import Erc20
from channelpay.chain.reverts import reverted
from channelpay.chain.types import ContractCall
from channelpay.errors import ChainReverted, InsufficientFunds, NetworkError, WrongChain
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import Address
from channelpay.testing import DevChain
from channelpay.testing.http_server import serving
from tests.support.chains import Json, Lost, Refused, Rule, fake_node, node_that_says

NOBODY = Address(b"\x11" * 20)


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_an_unreachable_node_is_a_network_error_that_does_not_show_the_url() -> None:
    with pytest.raises(NetworkError) as caught:
        connect(f"http://127.0.0.1:{a_free_port()}/v1/secret-api-key")
    assert "secret-api-key" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b'{"jsonrpc":"2.0","id":0,"result":null}',
        b'{"jsonrpc":"2.0","id":0,"result":"nonsense"}',
        b'{"jsonrpc":"2.0","id":0,"error":"nonsense"}',
        b'{"jsonrpc":"2.0","id":0,"error":{"code":-32005,"message":"slow down"}}',
    ],
)
def test_an_answer_without_sense_is_a_network_error(body: bytes) -> None:
    with node_that_says(body) as url, pytest.raises(NetworkError):
        connect(url)


def test_a_refusal_carries_the_nodes_words(pristine_chain: DevChain) -> None:
    def refuse_balances(method: str, params: list[Json], forward: Callable[[], Json]) -> Json:
        if method == "eth_getBalance":
            raise Refused("no state for this block")
        return forward()

    with fake_node(pristine_chain.rpc_url, refuse_balances) as url:
        connection = connect(url)
        with pytest.raises(NodeRefused, match="no state for this block"):
            connection.balance_wei(NOBODY)


def test_another_chain_than_expected_is_refused(pristine_chain: DevChain) -> None:
    assert connect(pristine_chain.rpc_url, expected_chain_id=31337).chain_id == 31337
    with pytest.raises(WrongChain, match="31337"):
        connect(pristine_chain.rpc_url, expected_chain_id=1)


def test_a_connection_that_breaks_once_is_tried_again(pristine_chain: DevChain) -> None:
    attempts = []

    def break_first(method: str, params: list[Json], forward: Callable[[], Json]) -> Json:
        attempts.append(method)
        if len(attempts) == 1:
            raise Lost
        return forward()

    with fake_node(pristine_chain.rpc_url, break_first) as url:
        assert connect(url).chain_id == 31337
    assert attempts == ["eth_chainId", "eth_chainId"]


def test_blocks_that_are_not_there_are_nothing(connection: Connection) -> None:
    assert connection.block(10**9) is None
    latest = connection.latest_block()
    assert connection.block(latest.number) == latest


def test_transactions_that_are_not_there_are_nothing(connection: Connection) -> None:
    assert connection.receipt(b"\x01" * 32) is None
    assert not connection.has_transaction(b"\x01" * 32)


def test_missing_funds_are_told_apart_from_other_refusals(connection: Connection) -> None:
    with pytest.raises(InsufficientFunds):
        connection.call(ContractCall(NOBODY, value_wei=1), NOBODY)


def test_long_extra_data_of_other_chains_is_accepted(pristine_chain: DevChain) -> None:
    def with_long_extra_data(method: str, params: list[Json], forward: Callable[[], Json]) -> Json:
        result = forward()
        return (
            result | {"extraData": "0x" + "ab" * 97} if method.startswith("eth_getBl") else result
        )

    with fake_node(pristine_chain.rpc_url, with_long_extra_data) as url:
        assert connect(url).latest_block().number == 0


def reverting(data: str | None) -> Rule:
    """A node whose contracts all revert."""

    def rule(method: str, params: list[Json], forward: Callable[[], Json]) -> Json:
        if method == "eth_call":
            raise Refused("execution reverted", code=3, data=data)
        return forward()

    return rule


@pytest.mark.parametrize("data", [None, "0x", "0x12345678", "0x08c379a0", "Reverted 0x", "zz"])
def test_a_revert_is_a_revert_whatever_data_it_has(
    pristine_chain: DevChain, data: str | None
) -> None:
    with fake_node(pristine_chain.rpc_url, reverting(data)) as url:
        connection = connect(url)
        with pytest.raises(ChainReverted, match=r"reverted|unknown error"):
            connection.call(ContractCall(NOBODY), NOBODY)


class Recorder:
    """A server that remembers whether it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, _: bytes) -> bytes:
        self.asked += 1
        return b'{"data":"0x"}'


def test_a_contract_cannot_make_us_ask_other_servers(pristine_chain: DevChain) -> None:
    recorder = Recorder()
    with serving(recorder) as other_url:
        lookup = ["address", "string[]", "bytes", "bytes4", "bytes"]
        values = encode(lookup, [NOBODY, [other_url], b"", b"1234", b""])
        with fake_node(pristine_chain.rpc_url, reverting("0x556f1830" + values.hex())) as url:
            connection = connect(url)
            token = Erc20(connection, NOBODY)
            with pytest.raises(ChainReverted):
                connection.call(ContractCall(NOBODY), NOBODY)
            with pytest.raises(ChainReverted):
                token.symbol()
    assert recorder.asked == 0


def test_a_custom_error_is_named_with_its_values_and_a_hint() -> None:
    error = reverted(selector_of("AmountExceedsDeposit") + word(7) + word(5))
    assert error.error == "AmountExceedsDeposit"
    assert error.context == {"cumulativeAmount": "7", "deposit": "5"}
    assert error.detail == "AmountExceedsDeposit(cumulativeAmount 7, deposit 5)"
    assert "Top the channel up" in error.hint


def test_every_error_of_the_contract_that_a_caller_can_mend_has_a_hint() -> None:
    internal = {"DepositOverflow", "GasTooLow", "GracePeriodTooShort", "InvalidPayee"}
    internal |= {"NothingToClaim", "WrongValue"}
    for entry in payment_channels().abi:
        if entry["type"] == "error" and entry["name"] not in internal:
            values = b"".join(word(1) for _ in entry["inputs"])
            assert reverted(selector_of(entry["name"]) + values).hint, entry["name"]


def test_a_reason_string_and_a_panic_are_readable() -> None:
    reason = bytes.fromhex("08c379a0") + word(32) + word(2) + b"no".ljust(32, b"\0")
    assert reverted(reason).detail == "no"
    assert reverted(bytes.fromhex("4e487b71") + word(0x11)).detail == "panic 0x11"


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"\x08\xc3y\xa0" + tail))
def test_any_revert_data_becomes_an_error_of_ours(revert_data: bytes) -> None:
    assert reverted(revert_data).detail
    assert reverted(revert_data, message="execution reverted").detail


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def selector_of(name: str) -> bytes:
    (entry,) = [item for item in payment_channels().abi if item.get("name") == name]
    types = ",".join(item["type"] for item in entry["inputs"])
    return keccak256(f"{name}({types})".encode())[:4]
