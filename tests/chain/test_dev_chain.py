"""A development chain behaves as a node does, whichever it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from hypothesis import given
from hypothesis import strategies as st

from channelpay.chain.connection import checksum
from channelpay.errors import ConfigError
from channelpay.protocol.text import to_hex
from channelpay.testing import DevChain, embedded_chain, embedded_chain_process
from channelpay.testing import devchain as devchain_module
from channelpay.testing.accounts import deployer_account
from channelpay.testing.embedded import embedded_rpc
from channelpay.testing.furnished import FurnishedChain
from channelpay.testing.rpc_client import post, rpc_call

ETHER = 10**18
ZERO_BYTES_32 = "0x" + "00" * 32
# "Error(string)" with "no", then a REVERT of exactly that.
REVERT_DATA = "0x08c379a0" + "20".rjust(64, "0") + "02".rjust(64, "0") + "6e6f".ljust(64, "0")
REVERTING_CODE = "0x6064600c60003960646000fd" + REVERT_DATA[2:]


def ask(chain: DevChain, method: str, *params: object) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    answer: dict[str, Any] = json.loads(post(chain.rpc_url, json.dumps(request).encode()))
    assert answer["id"] == 7
    return answer


def signed(account: LocalAccount, **fields: object) -> str:
    transaction: dict[str, Any] = {
        "type": 2,
        "chainId": 31337,
        "to": checksum(deployer_account().address),
        "value": 0,
        "gas": 100_000,
        "maxFeePerGas": 10**11,
        "maxPriorityFeePerGas": 10**9,
    }
    return to_hex(bytes(account.sign_transaction(transaction | fields).raw_transaction))


def mined(chain: DevChain, raw_transaction: str) -> dict[str, Any]:
    """The receipt; anvil answers before it has mined."""
    transaction_hash = ask(chain, "eth_sendRawTransaction", raw_transaction)["result"]
    until(lambda: ask(chain, "eth_getTransactionReceipt", transaction_hash)["result"] is not None)
    receipt: dict[str, Any] = ask(chain, "eth_getTransactionReceipt", transaction_hash)["result"]
    return receipt


def account_number(chain: DevChain, index: int) -> LocalAccount:
    account: LocalAccount = Account.from_key(chain.accounts[index].private_key)
    return account


def latest(chain: DevChain) -> dict[str, Any]:
    block: dict[str, Any] = ask(chain, "eth_getBlockByNumber", "latest", False)["result"]
    return block


def test_accounts_are_the_ones_everybody_knows_and_funded(pristine_chain: DevChain) -> None:
    assert len(pristine_chain.accounts) == 10
    assert checksum(pristine_chain.accounts[0].address) == (
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    )
    for account in (*pristine_chain.accounts, deployer_account()):
        balance = ask(pristine_chain, "eth_getBalance", to_hex(account.address), "latest")
        assert int(balance["result"], 16) == 10_000 * ETHER


def test_the_chain_id_is_31337(pristine_chain: DevChain) -> None:
    assert pristine_chain.chain_id == 31337
    assert ask(pristine_chain, "eth_chainId")["result"] == "0x7a69"
    assert ask(pristine_chain, "net_version")["result"] == "31337"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("eth_noSuchMethod", [], -32601),
        ("eth_getBalance", ["not an address", "latest"], -32602),
        ("eth_getBalance", [], -32602),
        ("eth_getTransactionReceipt", ["0x12"], -32602),
        ("eth_getBlockByNumber", ["newest", False], -32602),
        ("eth_sendRawTransaction", ["0xzz"], -32602),
    ],
)
def test_errors_have_the_codes_of_json_rpc(
    pristine_chain: DevChain, method: str, params: list[object], code: int
) -> None:
    assert ask(pristine_chain, method, *params)["error"]["code"] == code


def test_a_batch_gets_one_answer_each(pristine_chain: DevChain) -> None:
    requests = [
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []},
        {"jsonrpc": "2.0", "id": 2, "method": "eth_noSuchMethod", "params": []},
    ]
    answers = json.loads(post(pristine_chain.rpc_url, json.dumps(requests).encode()))
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id[1]["result"] == "0x7a69"
    assert by_id[2]["error"]["code"] == -32601


@pytest.mark.parametrize("method", ["eth_call", "eth_estimateGas"])
def test_a_revert_comes_with_code_3_and_its_data(pristine_chain: DevChain, method: str) -> None:
    error = ask(pristine_chain, method, {"data": REVERTING_CODE})["error"]
    assert error["code"] == 3
    assert error["data"] == REVERT_DATA
    assert error["message"] == "execution reverted: no"


def test_a_reverting_raw_transaction_is_mined_with_status_0(chain: DevChain) -> None:
    raw = signed(account_number(chain, 0), nonce=0, to="", data=REVERTING_CODE, gas=200_000)
    receipt = mined(chain, raw)
    assert receipt["status"] == "0x0"
    assert receipt["blockNumber"] == ask(chain, "eth_blockNumber")["result"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nonce": 0, "value": 1}, "nonce too low"),
        ({"nonce": 1, "value": 10_000 * ETHER}, "insufficient funds"),
        ({"nonce": 1, "maxFeePerGas": 1, "maxPriorityFeePerGas": 1}, "fee"),
        ({"nonce": 1, "gas": 20_000}, "intrinsic gas"),
        ({"nonce": 1, "gas": 40_000_000}, "gas"),
        ({"nonce": 1, "chainId": 1}, "chain"),
    ],
)
def test_a_transaction_that_no_block_can_hold_is_refused_in_the_words_of_nodes(
    chain: DevChain, fields: dict[str, object], words: str
) -> None:
    account = account_number(chain, 0)
    mined(chain, signed(account, nonce=0))
    before = ask(chain, "eth_blockNumber")["result"]

    refusal = ask(chain, "eth_sendRawTransaction", signed(account, **fields))["error"]

    assert words in refusal["message"].lower()
    assert ask(chain, "eth_blockNumber")["result"] == before


def test_transactions_and_their_block_agree_with_the_receipt(chain: DevChain) -> None:
    raw = signed(account_number(chain, 0), nonce=0, value=5)
    receipt = mined(chain, raw)
    transaction_hash = receipt["transactionHash"]
    transaction = ask(chain, "eth_getTransactionByHash", transaction_hash)["result"]
    block = latest(chain)

    assert receipt["gasUsed"] == "0x5208"
    assert transaction["blockHash"] == receipt["blockHash"] == block["hash"]
    assert block["transactions"] == [transaction_hash]
    price = int(receipt["effectiveGasPrice"], 16)
    assert price == int(block["baseFeePerGas"], 16) + 10**9
    assert (
        ask(chain, "eth_getBlockByHash", block["hash"], False)["result"]["number"]
        == (block["number"])
    )


def test_unknown_blocks_and_transactions_are_null(pristine_chain: DevChain) -> None:
    questions: list[tuple[str, list[object]]] = [
        ("eth_getBlockByNumber", ["0xffffff", False]),
        ("eth_getBlockByHash", [ZERO_BYTES_32, False]),
        ("eth_getTransactionByHash", [ZERO_BYTES_32]),
        ("eth_getTransactionReceipt", [ZERO_BYTES_32]),
    ]
    for method, params in questions:
        assert ask(pristine_chain, method, *params)["result"] is None


def test_a_pre_eip_155_transaction_is_accepted(chain: DevChain) -> None:
    account = account_number(chain, 0)
    raw = account.sign_transaction(
        {"nonce": 0, "to": account.address, "value": 0, "gas": 21_000, "gasPrice": 10**11}
    ).raw_transaction
    assert mined(chain, to_hex(bytes(raw)))["status"] == "0x1"


def test_fee_history_tells_the_next_base_fee(chain: DevChain) -> None:
    history = ask(chain, "eth_feeHistory", "0x2", "latest", [50])["result"]
    assert len(history["baseFeePerGas"]) == 3
    assert len(history["gasUsedRatio"]) == len(history["reward"]) == 2
    chain.mine()
    assert latest(chain)["baseFeePerGas"] == history["baseFeePerGas"][-1]


def test_time_moves_by_what_was_asked(chain: DevChain) -> None:
    before = int(latest(chain)["timestamp"], 16)
    chain.increase_time(86_400)
    moved = int(latest(chain)["timestamp"], 16) - before
    assert 86_400 <= moved < 86_400 + 60


def test_the_next_block_gets_the_timestamp_that_was_set(chain: DevChain) -> None:
    wanted = int(latest(chain)["timestamp"], 16) + 1_000
    rpc_call(chain.rpc_url, "evm_setNextBlockTimestamp", hex(wanted))
    rpc_call(chain.rpc_url, "evm_mine")
    assert int(latest(chain)["timestamp"], 16) == wanted
    chain.mine()
    assert int(latest(chain)["timestamp"], 16) >= wanted


def test_mine_makes_that_many_blocks(chain: DevChain) -> None:
    before = int(ask(chain, "eth_blockNumber")["result"], 16)
    chain.mine(5)
    assert int(ask(chain, "eth_blockNumber")["result"], 16) == before + 5


def test_revert_brings_back_balances_blocks_and_nonces(chain: DevChain) -> None:
    account = to_hex(chain.accounts[0].address)
    questions = [
        ("eth_getBalance", account, "latest"),
        ("eth_getTransactionCount", account, "pending"),
        ("eth_blockNumber",),
    ]
    before = [ask(chain, *question)["result"] for question in questions]
    snapshot = chain.snapshot()
    raw = signed(account_number(chain, 0), nonce=0, value=5)
    transaction_hash = mined(chain, raw)["transactionHash"]

    chain.revert(snapshot)

    assert [ask(chain, *question)["result"] for question in questions] == before
    assert ask(chain, "eth_getTransactionReceipt", transaction_hash)["result"] is None


def test_a_snapshot_serves_once(chain: DevChain) -> None:
    snapshot = chain.snapshot()
    chain.revert(snapshot)
    with pytest.raises(ConfigError):
        chain.revert(snapshot)


def test_logs_are_found_by_address_and_topic(furnished: FurnishedChain) -> None:
    transfers = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    account = furnished.chain.accounts[3].address
    logs = ask(
        furnished.chain,
        "eth_getLogs",
        {
            "fromBlock": "0x0",
            "address": to_hex(furnished.token),
            "topics": [transfers, None, [to_hex(bytes(12) + account)]],
        },
    )["result"]
    assert [int(log["data"], 16) for log in logs] == [10**12]


def http_status(chain: DevChain, headers: dict[str, str], method: str = "POST") -> int:
    parts = urlsplit(chain.rpc_url)
    body = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    connection.request(method, "/", body, {"Content-Type": "application/json"} | headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8545"}, 200),
        ({"Host": "[::1]:8545"}, 200),
        ({"Host": "rebound.example:8545"}, 403),
        ({"Host": "127.0.0.1.rebound.example"}, 403),
        ({"Host": ""}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Length": "2097153"}, 413),
        ({"Content-Length": "-1"}, 411),
        ({"Content-Length": "9" * 5000}, 411),
    ],
)
def test_only_json_from_this_machine_of_bounded_size_is_read(
    headers: dict[str, str], status: int
) -> None:
    with embedded_chain() as chain:
        assert http_status(chain, headers) == status


def test_only_post_is_answered() -> None:
    with embedded_chain() as chain:
        assert http_status(chain, {}, method="PUT") == 501


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32600),
        (b"[]", -32600),
        (b"3", -32600),
        (b'{"id":1}', -32600),
        (b'{"id":1,"method":"eth_chainId","params":{}}', -32602),
        (b'{"id":1,"method":"eth_chainId","params":[1]}', -32602),
        (b'{"id":1,"method":"eth_getLogs","params":[{"topics":{}}]}', -32602),
        (b'{"id":1,"method":"anvil_mine","params":["0xffffff"]}', -32602),
        (b'{"id":1,"method":"eth_call","params":[{"colour":"red"}]}', -32602),
        (json.dumps([{"id": 1, "method": "eth_chainId"}] * 101).encode(), -32600),
    ],
)
def test_malformed_requests_get_their_error(body: bytes, code: int) -> None:
    assert json.loads(embedded_rpc().answer(body))["error"]["code"] == code


def test_a_notification_gets_no_answer() -> None:
    assert embedded_rpc().answer(b'{"method":"eth_chainId","params":[]}') == b""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["latest", "0x1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["from", "to", "data", "topics", "address", "fromBlock"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
RPC = embedded_rpc()
METHODS = [name for name in RPC.method_names if not name.endswith("mine")]


@given(st.sampled_from(METHODS), st.lists(json_values, max_size=3))
def test_no_parameters_make_the_chain_fail_inside(method: str, params: list[object]) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = json.loads(RPC.answer(json.dumps(request).encode()))
    assert answer.get("error", {}).get("code") != -32603


def test_several_processes_share_one_chain() -> None:
    asking = "import sys; from channelpay.testing.rpc_client import rpc_call; "
    asking += "print(rpc_call(sys.argv[1], 'eth_blockNumber'))"
    with embedded_chain_process() as chain:
        chain.mine(3)
        answers = [
            subprocess.run(
                [sys.executable, "-c", asking, chain.rpc_url],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for _ in range(2)
        ]
    assert answers == ["0x3\n", "0x3\n"]


@pytest.mark.parametrize("kind", ["embedded_chain_process", "anvil_chain"])
def test_a_chain_dies_with_the_process_that_started_it_however_that_ends(kind: str) -> None:
    starting = f"from channelpay.testing import {kind} as start\n"
    starting += "with start() as chain: print(chain.rpc_url, flush=True); input()"
    parent = subprocess.Popen(
        [sys.executable, "-c", starting],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    rpc_url = parent.stdout.readline().strip()
    rpc_call(rpc_url, "eth_chainId")

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()

    until(lambda: not is_listening(rpc_url))
    parent.stdin.close()
    parent.stdout.close()


def test_a_port_in_use_is_a_clear_error() -> None:
    with embedded_chain() as chain:
        port = urlsplit(chain.rpc_url).port
        assert port is not None
        with pytest.raises(ConfigError, match=f"port {port}"), embedded_chain(port):
            pass


def test_a_missing_anvil_is_a_clear_error_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="anvil") as caught:
        devchain_module.anvil_binary()
    assert "npm ci" in caught.value.hint


def is_listening(rpc_url: str) -> bool:
    parts = urlsplit(rpc_url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)
