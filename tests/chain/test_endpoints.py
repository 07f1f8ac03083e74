"""Several nodes: what one of them lacks the others give, and no wrong answer is believed."""

from __future__ import annotations

import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise

import pytest
from eth_account import Account

from channelpay.chain import endpoint as endpoint_module
from channelpay.chain import endpoints as endpoints_module
from channelpay.chain.connection import Connection, NodeRefused, checksum, connect
from channelpay.chain.endpoints import Endpoints
from channelpay.chain.types import ContractCall
from channelpay.errors import (
    ChainReverted,
    ConfigError,
    NetworkError,
    NodesDisagree,
    WrongChain,
)
from channelpay.protocol.types import Address
from channelpay.testing import DevChain, anvil_chain
from channelpay.testing.clock import FakeClock
from channelpay.testing.furnished import FurnishedChain, furnish
from tests.support.chains import Json, Refused, fake_node
from tests.support.rpc_faults import (
    MALFORMED,
    Contradicting,
    Down,
    FaultyNode,
    Malformed,
    OtherChain,
    Refusing,
    Resetting,
    Slow,
    StaleHead,
    TooManyRequests,
    Unavailable,
    faulty_node,
)

ANYBODY = Address(b"\x11" * 20)
AFTER_SURVEY = endpoints_module.SURVEY_SECONDS + 1
AFTER_ALL_PAUSES = endpoint_module.PAUSE_SECONDS_MAX + 1


@pytest.fixture(scope="module")
def whole_chain() -> Iterator[FurnishedChain]:
    """Of one kind: whatever is wrong with a node is made in front of it."""
    with anvil_chain() as chain:
        yield furnish(chain)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def nodes(chain: DevChain) -> Iterator[tuple[FaultyNode, FaultyNode]]:
    """Two nodes in front of the same chain."""
    with faulty_node(chain.rpc_url) as first, faulty_node(chain.rpc_url) as second:
        yield first, second


@pytest.fixture
def pair(nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock) -> Connection:
    return connected(clock, *nodes)


def connected(clock: FakeClock, *nodes: FaultyNode) -> Connection:
    return Connection(Endpoints([node.url for node in nodes], clock=clock))


@pytest.mark.parametrize(
    "fault",
    [
        Down(),
        Resetting(),
        Unavailable(),
        Unavailable(404),
        TooManyRequests(),
        Refusing(),
        Refusing(-32005, "slow down"),
        Refusing(-32603),
    ],
    ids=str,
)
def test_the_second_node_answers_while_the_first_one_cannot(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], fault: Down
) -> None:
    nodes[0].behave(fault)
    for _ in range(3):
        assert pair.latest_block().number == nodes[1].head()


def test_a_node_that_failed_is_left_alone_and_then_used_again(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock
) -> None:
    nodes[0].behave(Unavailable())
    pair.latest_block()
    nodes[0].behave()
    pair.latest_block()
    assert nodes[0].asked() == 0
    clock.advance(endpoint_module.PAUSE_SECONDS_MIN + 0.1)
    nodes[1].behave()
    pair.latest_block()
    assert nodes[0].asked("eth_getBlockByNumber") > 0
    assert nodes[1].asked() == 0


def test_the_pauses_grow_up_to_a_limit(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock
) -> None:
    nodes[0].behave(Unavailable())
    asked = []
    for _ in range(200):
        before = nodes[0].asked()
        pair.balance_wei(ANYBODY)
        if nodes[0].asked() > before:
            asked.append(clock())
        clock.advance(1)
    pauses = [after - before for before, after in pairwise(asked)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 5
    assert max(pauses) <= endpoint_module.PAUSE_SECONDS_MAX + 1


def test_nobody_answering_is_a_network_error_and_ends_by_itself(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock
) -> None:
    for node in nodes:
        node.behave(Down())
    for _ in range(5):
        with pytest.raises(NetworkError, match=r"node 1 .* does not answer"):
            pair.latest_block()
    for node in nodes:
        node.behave()
    assert pair.latest_block().number == nodes[0].head()


def test_a_node_that_is_down_at_the_start_is_used_when_it_comes(
    nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock
) -> None:
    nodes[0].behave(Down())
    pair = connected(clock, *nodes)
    nodes[0].behave()
    clock.advance(AFTER_SURVEY)
    nodes[1].behave(Down())
    assert pair.latest_block().number == nodes[0].head()


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_node_that_talks_nonsense_is_passed_over(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, body: bytes
) -> None:
    nodes[0].behave(Malformed(body))
    clock.advance(AFTER_SURVEY)
    assert pair.latest_block().number == nodes[1].head()


# --- the right chain -----------------------------------------------------------------------------


def test_a_node_of_another_chain_is_left_out_until_it_serves_the_right_one(
    pair: Connection,
    nodes: tuple[FaultyNode, FaultyNode],
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nodes[0].behave(OtherChain(5))
    clock.advance(AFTER_SURVEY)
    pair.latest_block()
    assert nodes[0].asked("eth_getTransactionCount") == 0
    assert "serves chain 5, not chain 31337" in caplog.text

    nodes[0].behave()
    clock.advance(AFTER_SURVEY)
    nodes[1].behave()
    pair.latest_block()
    assert nodes[1].asked("eth_getBalance") == 0


def test_no_transaction_goes_to_another_chain(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock
) -> None:
    nodes[1].behave(OtherChain(5))
    clock.advance(AFTER_SURVEY)
    with pytest.raises(NodeRefused):
        pair.send_raw_transaction(b"\x02nonsense")
    assert nodes[1].asked("eth_sendRawTransaction") == 0


def test_a_node_that_comes_back_as_one_of_another_chain_is_not_believed(
    chain: DevChain, clock: FakeClock
) -> None:
    with faulty_node(chain.rpc_url) as node:
        alone = connected(clock, node)
        node.behave(Down())
        with pytest.raises(NetworkError):
            alone.latest_block()
        node.behave(OtherChain(5))
        with pytest.raises(WrongChain, match="serves chain 5"):
            alone.latest_block()


def test_the_expected_chain_decides_and_else_the_first_node(
    nodes: tuple[FaultyNode, FaultyNode],
) -> None:
    nodes[0].behave(OtherChain(5))
    urls = [node.url for node in nodes]
    assert connect(urls).chain_id == 5
    assert connect(",".join(urls), expected_chain_id=31337).chain_id == 31337
    with pytest.raises(NetworkError):
        connect(urls, expected_chain_id=1)


@pytest.mark.parametrize("url", ["", "localhost:8545", "ws://127.0.0.1:1", "http://", "http://[::"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="node 2"):
        connect(["http://127.0.0.1:9", url])


# --- how far they are ----------------------------------------------------------------------------


def test_a_stale_node_is_passed_over(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, chain: DevChain
) -> None:
    nodes[0].behave(StaleHead(nodes[0].head()))
    chain.mine(endpoints_module.LAG_BLOCKS_MAX + 1)
    clock.advance(AFTER_SURVEY)
    assert pair.latest_block().number == nodes[1].head()
    nodes[0].behave()
    clock.advance(AFTER_SURVEY)
    nodes[1].behave(Down())
    assert pair.latest_block().number == nodes[0].head()


def test_a_node_that_is_minutes_behind_is_passed_over(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, chain: DevChain
) -> None:
    nodes[0].behave(StaleHead(nodes[0].head()))
    chain.increase_time(endpoints_module.LAG_SECONDS_MAX + 10)
    clock.advance(AFTER_SURVEY)
    assert pair.latest_block().number == nodes[1].head()


def test_the_chain_does_not_go_back_when_another_node_takes_over(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, chain: DevChain
) -> None:
    nodes[1].behave(StaleHead(nodes[1].head()))
    chain.mine(2)
    shown = pair.latest_block()
    nodes[0].behave(Down())
    reads: list[Callable[[], object]] = [pair.latest_block, lambda: pair.block(shown.number)]
    for read in reads:
        with pytest.raises(NetworkError, match="behind what another node has shown"):
            read()
    nodes[1].behave()
    assert pair.latest_block() == shown


def test_a_chain_that_stays_behind_is_believed_after_a_while(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, chain: DevChain
) -> None:
    stale = nodes[1].head()
    nodes[1].behave(StaleHead(stale))
    chain.mine(2)
    pair.latest_block()
    nodes[0].behave(Down())
    clock.advance(endpoints_module.LAG_SECONDS_MAX + 1)
    assert pair.latest_block().number == stale


# --- contradictions ------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", [0, 1])
def test_nothing_is_believed_while_two_nodes_contradict_each_other(
    pair: Connection,
    nodes: tuple[FaultyNode, FaultyNode],
    clock: FakeClock,
    chain: DevChain,
    liar: int,
) -> None:
    nodes[liar].behave(Contradicting(since=nodes[0].head() + 1))
    chain.mine(endpoints_module.LAG_BLOCKS_MAX + 1)
    clock.advance(AFTER_SURVEY)
    reads: list[Callable[[], object]] = [pair.latest_block, lambda: pair.balance_wei(ANYBODY)]
    for read in reads:
        with pytest.raises(NodesDisagree, match=r"node 1 .* and node 2"):
            read()
    nodes[liar].behave()
    clock.advance(endpoints_module.DOUBT_SECONDS + 0.1)
    assert pair.latest_block().number == nodes[0].head()


def test_a_contradiction_is_found_also_where_one_of_the_two_is_behind(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, chain: DevChain
) -> None:
    chain.mine(10)
    nodes[1].behave(StaleHead(nodes[1].head()), Contradicting())
    chain.mine(10)
    clock.advance(AFTER_SURVEY)
    with pytest.raises(NodesDisagree):
        pair.latest_block()


def test_a_contradiction_does_not_end_because_one_of_the_two_is_down(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock
) -> None:
    nodes[1].behave(Contradicting())
    clock.advance(AFTER_SURVEY)
    with pytest.raises(NodesDisagree):
        pair.latest_block()
    nodes[1].behave(Down())
    for _ in range(3):
        clock.advance(AFTER_SURVEY)
        with pytest.raises(NodesDisagree):
            pair.latest_block()
    nodes[1].behave()
    clock.advance(AFTER_ALL_PAUSES)
    assert pair.latest_block().number == nodes[0].head()


def test_nodes_may_differ_for_a_moment_about_the_newest_blocks(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, chain: DevChain
) -> None:
    nodes[1].behave(Contradicting(since=nodes[0].head() + 1))
    chain.mine(endpoints_module.LAG_BLOCKS_MAX)
    clock.advance(AFTER_SURVEY)
    assert pair.latest_block().number == nodes[0].head()


# --- rate limits and slowness --------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [TooManyRequests(), Refusing(-32005, "daily request count exceeded")], ids=str
)
def test_a_node_that_limits_requests_is_left_alone_as_long_as_it_wants(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], fault: TooManyRequests, clock: FakeClock
) -> None:
    nodes[0].behave(fault)
    for _ in range(5):
        pair.latest_block()
    assert nodes[0].asked() == 1
    nodes[0].behave()
    clock.advance(1.1)
    pair.latest_block()
    assert nodes[0].asked("eth_getBlockByNumber") >= 1


def test_a_single_node_that_limits_requests_is_waited_for_a_moment_only(
    chain: DevChain, clock: FakeClock
) -> None:
    with faulty_node(chain.rpc_url) as node:
        alone = connected(clock, node)
        node.behave(TooManyRequests())
        for _ in range(4):
            with pytest.raises(NetworkError, match="limits how often"):
                alone.latest_block()
        node.behave()
        assert alone.latest_block().number == node.head()


def test_too_many_logs_are_a_refusal_and_no_rate_limit(chain: DevChain) -> None:
    def too_many(method: str, params: list[Json], forward: Callable[[], Json]) -> Json:
        if method == "eth_getLogs":
            raise Refused("query returned more than 10000 results", -32005)
        return forward()

    with fake_node(chain.rpc_url, too_many) as url:
        connection = connect(url)
        with pytest.raises(NodeRefused, match="10000 results"):
            connection.logs(ANYBODY, [], 0, 0)


def test_a_slow_node_holds_nobody_up_for_long(
    pair: Connection,
    nodes: tuple[FaultyNode, FaultyNode],
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoints_module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(endpoints_module, "SURVEY_ANSWER_SECONDS", 0.2)
    nodes[0].behave(Slow())
    for _ in range(5):
        assert pair.latest_block().number == nodes[1].head()
    assert nodes[0].asked() == 1
    clock.advance(AFTER_SURVEY)
    assert pair.latest_block().number == nodes[1].head()


def test_a_node_that_answers_bit_by_bit_is_given_up_in_time(
    chain: DevChain, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "SURVEY_ANSWER_SECONDS", 0.3)
    with dripping_node() as url, pytest.raises(NetworkError, match="in time"):
        connect(url)
    with dripping_node() as url:
        assert connect([url, chain.rpc_url]).chain_id == 31337


@contextmanager
def dripping_node() -> Iterator[str]:
    """Sends a byte every now and then, for ever."""
    done = threading.Event()

    def drip(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while not done.wait(0.05):
                client.sendall(b" ")

    def listen() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        done.set()
        server.shutdown(socket.SHUT_RDWR)
    listener.join()


# --- errors that are about the request -----------------------------------------------------------


def test_a_revert_is_asked_once(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], chain: DevChain
) -> None:
    nodes[0].behave(Refusing(3, "execution reverted", frozenset({"eth_call"})))
    nodes[1].behave()
    with pytest.raises(ChainReverted):
        pair.call(ContractCall(ANYBODY), ANYBODY)
    assert nodes[1].asked("eth_call") == 0


def test_what_all_refuse_is_refused_in_the_first_ones_words(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode]
) -> None:
    for number, node in enumerate(nodes, 1):
        node.behave(Refusing(-32000, f"pruned by {number}", frozenset({"eth_getBalance"})))
    with pytest.raises(NodeRefused, match="pruned by 1"):
        pair.balance_wei(ANYBODY)
    assert pair.latest_block().number == nodes[0].head()


# --- transactions --------------------------------------------------------------------------------


def signed_payment(chain: DevChain) -> tuple[bytes, bytes]:
    signed = Account.sign_transaction(
        {
            "chainId": 31337,
            "nonce": 0,
            "to": checksum(ANYBODY),
            "value": 1,
            "gas": 21_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 1,
        },
        chain.accounts[0].private_key,
    )
    return bytes(signed.hash), bytes(signed.raw_transaction)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_transaction_goes_to_every_node_and_one_that_takes_it_is_enough(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], chain: DevChain, failing: int
) -> None:
    method = "eth_sendRawTransaction"
    nodes[failing].behave(Refusing(-32000, "txpool is full", frozenset({method})))
    nodes[1 - failing].behave()
    transaction_hash, raw = signed_payment(chain)
    pair.send_raw_transaction(raw)
    assert pair.has_transaction(transaction_hash)
    assert [node.asked(method) for node in nodes] == [1, 1]


def test_a_transaction_is_sent_even_while_nodes_contradict_each_other(
    pair: Connection, nodes: tuple[FaultyNode, FaultyNode], clock: FakeClock, chain: DevChain
) -> None:
    nodes[1].behave(Contradicting())
    clock.advance(AFTER_SURVEY)
    transaction_hash, raw = signed_payment(chain)
    pair.send_raw_transaction(raw)
    assert connect(chain.rpc_url).has_transaction(transaction_hash)


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Down(), Unavailable(), TooManyRequests(), Malformed(b"[]")])
def test_no_url_shows_in_errors_or_logs(
    chain: DevChain, caplog: pytest.LogCaptureFixture, fault: Down
) -> None:
    caplog.set_level(logging.DEBUG, "channelpay")
    caplog.set_level(logging.DEBUG, "web3")
    with faulty_node(chain.rpc_url) as node:
        node.behave(fault)
        url = node.url.replace("://", "://user:hunter2@") + "/v2/secret-api-key?key=secret-too"
        with pytest.raises(NetworkError) as caught:
            connect(url)
    shown = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "hunter2" not in shown
    assert "secret" not in shown
    assert "node 1 (127.0.0.1" in shown
