"""The node that fails does so as it is told, and is a good one in between."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from threading import Thread
from urllib.parse import urlsplit

import pytest
from eth_account import Account

from channelpay.testing import DevChain, anvil_chain
from channelpay.testing.rpc_client import rpc_call
from tests.support.rpc_faults import (
    MALFORMED,
    RATE_LIMITED,
    AnswerLost,
    Contradicting,
    Down,
    Every,
    Fault,
    FaultyNode,
    Json,
    Malformed,
    OtherChain,
    Refusing,
    Resetting,
    Slow,
    StaleHead,
    TooManyRequests,
    TransactionsDropped,
    Unavailable,
    faulty_node,
)

EMPTY = "0x" + bytes(20).hex()


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with anvil_chain() as chain:
        yield chain


@pytest.fixture
def node(chain: DevChain) -> Iterator[FaultyNode]:
    with faulty_node(chain.rpc_url) as node:
        yield node


class Client:
    """Somebody whose connection stays."""

    def __init__(self, node: FaultyNode) -> None:
        parts = urlsplit(node.url)
        assert parts.hostname is not None
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)

    def ask(self, method: str, *parameters: Json) -> tuple[int, bytes]:
        request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": parameters}
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/", json.dumps(request), headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def answer(self, method: str, *parameters: Json) -> Json:
        status, body = self.ask(method, *parameters)
        assert status == 200
        return json.loads(body)

    def result(self, method: str, *parameters: Json) -> Json:
        return self.answer(method, *parameters)["result"]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(node: FaultyNode) -> Iterator[Client]:
    client = Client(node)
    yield client
    client.close()


def transfer(chain: DevChain) -> str:
    """The raw bytes of a transaction that moves nothing."""
    account = Account.from_key(chain.accounts[0].private_key)
    count = rpc_call(chain.rpc_url, "eth_getTransactionCount", account.address, "latest")
    nonce = int(str(count), 16)
    fields = {"nonce": nonce, "to": EMPTY, "value": 0, "gas": 21_000, "chainId": chain.chain_id}
    fees = {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 1}
    return "0x" + bytes(Account.sign_transaction(fields | fees, account.key).raw_transaction).hex()


def test_a_good_node_says_what_the_real_one_says(chain: DevChain, client: Client) -> None:
    said = client.answer("eth_getBlockByNumber", "latest", False)

    assert said["id"] == 7
    assert said["result"] == rpc_call(chain.rpc_url, "eth_getBlockByNumber", "latest", False)


def test_nobody_is_at_home_at_a_node_that_is_down(node: FaultyNode, client: Client) -> None:
    client.result("eth_chainId")

    with node.behaving(Down()):
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            client.ask("eth_chainId")
        client.close()
        with pytest.raises(ConnectionRefusedError):
            client.ask("eth_chainId")
        client.close()

    assert client.result("eth_chainId") == "0x7a69"


@pytest.mark.parametrize("times", [1, 5])
def test_a_node_can_go_down_again_and_again(node: FaultyNode, client: Client, times: int) -> None:
    for _ in range(times):
        node.behave(Down())
        with pytest.raises(ConnectionRefusedError):
            Client(node).ask("eth_chainId")
        node.behave()
        assert client.result("eth_chainId") == "0x7a69"
        client.close()


def test_a_connection_is_reset(node: FaultyNode) -> None:
    node.behave(Resetting())
    parts = urlsplit(node.url)
    address = (parts.hostname or "", parts.port or 0)
    body = b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}'
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    with socket.create_connection(address, timeout=10) as connected:
        connected.sendall(head + body)
        with pytest.raises(ConnectionResetError):
            connected.recv(1)


@pytest.mark.parametrize(
    ("fault", "status"), [(Unavailable(), 503), (Unavailable(502), 502), (TooManyRequests(), 429)]
)
def test_an_error_of_http(node: FaultyNode, client: Client, fault: Fault, status: int) -> None:
    node.behave(fault)

    assert client.ask("eth_chainId")[0] == status


def test_an_error_of_the_node(node: FaultyNode, client: Client) -> None:
    node.behave(Refusing(RATE_LIMITED, "slow down", frozenset({"eth_call"})))

    error = {"code": -32005, "message": "slow down"}
    assert client.answer("eth_call", {}, "latest") == {"jsonrpc": "2.0", "id": 7, "error": error}
    assert client.result("eth_chainId") == "0x7a69"


@pytest.mark.parametrize("kind", MALFORMED)
def test_an_answer_that_is_none(node: FaultyNode, client: Client, kind: str) -> None:
    node.behave(Malformed(MALFORMED[kind]))

    assert client.ask("eth_chainId") == (200, MALFORMED[kind])


def test_a_slow_node_answers_as_soon_as_it_behaves(node: FaultyNode, client: Client) -> None:
    node.behave(Slow())
    said: list[Json] = []
    asking = Thread(target=lambda: said.append(client.result("eth_chainId")))
    asking.start()
    node.wait_until_asked("eth_chainId")
    assert not said

    node.behave()

    asking.join(10)
    assert said == ["0x7a69"]


def test_another_chain(node: FaultyNode, client: Client) -> None:
    node.behave(OtherChain(5))

    assert client.result("eth_chainId") == "0x5"
    assert client.result("net_version") == "5"


def test_a_transaction_that_is_dropped_is_known_to_nobody(
    chain: DevChain, node: FaultyNode, client: Client
) -> None:
    dropping, raw = TransactionsDropped(), transfer(chain)
    node.behave(dropping)

    transaction_hash = client.result("eth_sendRawTransaction", raw)

    assert client.result("eth_getTransactionByHash", transaction_hash) is None
    assert dropping.dropped == [bytes.fromhex(raw[2:])]
    node.behave()
    assert client.result("eth_sendRawTransaction", raw) == transaction_hash


def test_a_transaction_is_sent_whose_answer_is_lost(
    chain: DevChain, node: FaultyNode, client: Client
) -> None:
    node.behave(AnswerLost(frozenset({"eth_sendRawTransaction"})))
    before = node.head()

    with pytest.raises(ConnectionError):
        client.ask("eth_sendRawTransaction", transfer(chain))

    assert node.head() == before + 1


def test_a_stale_node_knows_nothing_that_came_later(
    chain: DevChain, node: FaultyNode, client: Client
) -> None:
    head = node.head()
    node.behave(StaleHead(head))
    address = "0x" + chain.accounts[0].address.hex()
    count = client.result("eth_getTransactionCount", address, "pending")

    transaction_hash = client.result("eth_sendRawTransaction", transfer(chain))

    later = rpc_call(chain.rpc_url, "eth_getBlockByNumber", "latest", False)
    assert isinstance(later, dict)
    assert later["number"] == hex(head + 1)
    assert client.result("eth_blockNumber") == hex(head)
    assert client.result("eth_getBlockByNumber", "latest", False)["number"] == hex(head)
    assert client.result("eth_getBlockByNumber", hex(head + 1), False) is None
    assert client.result("eth_getBlockByHash", later["hash"], False) is None
    assert client.result("eth_getTransactionReceipt", transaction_hash) is None
    assert client.result("eth_getTransactionByHash", transaction_hash)["blockNumber"] is None
    assert client.result("eth_getTransactionCount", address, "latest") == count
    assert "error" in client.answer("eth_getBalance", address, hex(head + 1))
    assert client.result("eth_getLogs", {"fromBlock": hex(head + 1), "toBlock": "latest"}) == []


def test_a_contradicting_node_has_a_chain_of_its_own(
    chain: DevChain, node: FaultyNode, client: Client
) -> None:
    chain.mine(3)
    head = node.head()
    true = [client.result("eth_getBlockByNumber", hex(head - n), False) for n in range(3)]
    node.behave(Contradicting(since=head - 1))

    said = [client.result("eth_getBlockByNumber", hex(head - n), False) for n in range(3)]

    assert said[0]["hash"] != true[0]["hash"]
    assert said[0]["parentHash"] == said[1]["hash"] != true[1]["hash"]
    assert said[1]["parentHash"] == said[2]["hash"] == true[2]["hash"]
    for block in said:
        assert client.result("eth_getBlockByHash", block["hash"], False) == block


def test_a_contradicting_node_tells_its_hashes_everywhere(
    chain: DevChain, node: FaultyNode, client: Client
) -> None:
    transaction_hash = client.result("eth_sendRawTransaction", transfer(chain))
    node.behave(Contradicting())
    block = client.result("eth_getBlockByNumber", "latest", True)

    receipt = client.result("eth_getTransactionReceipt", transaction_hash)

    assert receipt["blockHash"] == block["hash"] == block["transactions"][0]["blockHash"]
    found = client.result("eth_getTransactionByHash", transaction_hash)
    assert found["blockHash"] == block["hash"]


def test_every_nth_request_fails(node: FaultyNode, client: Client) -> None:
    node.behave(Every(3, Unavailable()))

    assert [client.ask("eth_chainId")[0] for _ in range(6)] == [503, 200, 200, 503, 200, 200]


def test_faults_come_together(node: FaultyNode, client: Client) -> None:
    node.behave(OtherChain(5), StaleHead(0))

    assert client.result("eth_chainId") == "0x5"
    assert client.result("eth_blockNumber") == "0x0"


def test_requests_are_counted_from_each_change_on(node: FaultyNode, client: Client) -> None:
    client.result("eth_chainId")
    assert node.asked() == node.asked("eth_chainId") == 1

    node.behave()

    assert node.asked() == 0
    with pytest.raises(TimeoutError):
        node.wait_until_asked(seconds=0)
