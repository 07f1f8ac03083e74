"""Chains for tests: the embedded one and anvil behind one fixture, and a node that misbehaves.

A test module that needs a chain does ``from tests.support.chains import *`` in its conftest.py and
takes ``furnished``; every test then runs on both chains and finds them as they were at the start.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.sender import Sender, SendPolicy
from channelpay.testing import DevAccount, DevChain, anvil_chain, embedded_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from channelpay.testing.http_server import serving
from channelpay.testing.rpc_client import post

__all__ = ["chain", "connection", "contract", "furnished", "pristine_chain", "whole_chain"]

CHAINS: dict[str, Callable[[], AbstractContextManager[DevChain]]] = {
    "embedded": embedded_chain,
    "anvil": anvil_chain,
}

Json = Any


@pytest.fixture(scope="session", params=CHAINS)
def pristine_chain(request: pytest.FixtureRequest) -> Iterator[DevChain]:
    """A chain of each kind on which nobody has done anything; for tests that only look."""
    with CHAINS[request.param]() as chain:
        yield chain


@pytest.fixture(scope="session", params=CHAINS)
def whole_chain(request: pytest.FixtureRequest) -> Iterator[FurnishedChain]:
    with CHAINS[request.param]() as chain:
        yield furnish(chain)


@pytest.fixture
def furnished(whole_chain: FurnishedChain) -> Iterator[FurnishedChain]:
    """A chain with contract and token, put back after the test."""
    snapshot = whole_chain.chain.snapshot()
    yield whole_chain
    whole_chain.chain.revert(snapshot)


@pytest.fixture
def chain(furnished: FurnishedChain) -> DevChain:
    return furnished.chain


@pytest.fixture
def connection(chain: DevChain) -> Connection:
    return connect(chain.rpc_url)


@pytest.fixture
def contract(furnished: FurnishedChain, connection: Connection) -> PaymentChannelsContract:
    return PaymentChannelsContract(connection, furnished.deployment)


def sender_of(
    connection: Connection, account: DevAccount, policy: SendPolicy | None = None
) -> Sender:
    return Sender(connection, Account.from_key(account.private_key), policy)


class Lost(Exception):
    """Raised by a fake node's rule: the connection closes without an answer."""


class Refused(Exception):
    """Raised by a fake node's rule: the node answers with this JSON-RPC error."""

    def __init__(self, message: str, code: int = -32000, data: str | None = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


Rule = Callable[[str, list[Json], Callable[[], Json]], Json]
"""``rule(method, params, forward)`` gives the result; ``forward()`` asks the real node for it."""


class _FakeNode:
    def __init__(self, rpc_url: str, rule: Rule) -> None:
        self._rpc_url = rpc_url
        self._rule = rule

    def answer(self, body: bytes) -> bytes:
        request = json.loads(body)
        envelope = {"jsonrpc": "2.0", "id": request["id"]}

        def forward() -> Json:
            answer = json.loads(post(self._rpc_url, body))
            if "error" in answer:
                raise Refused(**answer["error"])
            return answer["result"]

        try:
            result = self._rule(request["method"], request["params"], forward)
        except Refused as refusal:
            return json.dumps(envelope | {"error": refusal.error}).encode()
        return json.dumps(envelope | {"result": result}).encode()


@contextmanager
def fake_node(rpc_url: str, rule: Rule) -> Iterator[str]:
    """A node in front of a real one, which answers by ``rule``; yields its URL."""
    with serving(_FakeNode(rpc_url, rule)) as fake_url:
        yield fake_url


class _FixedAnswer:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def answer(self, _: bytes) -> bytes:
        return self._body


@contextmanager
def node_that_says(body: bytes) -> Iterator[str]:
    """A node that gives the same answer to everything; yields its URL."""
    with serving(_FixedAnswer(body)) as url:
        yield url
