"""A node that fails as a test says: a JSON-RPC proxy in front of a real one.

    with faulty_node(chain.rpc_url) as node:
        node.behave(Refusing())             # from here on
        node.wait_until_asked("eth_call")   # somebody ran into it
        node.behave()                       # a good node again, at the same URL

``behave`` takes faults in the order in which a request passes them; the last one asks the real
node. Each fault can be limited to some ``methods``. What is asked is counted from each ``behave``
on, so that a test waits for a request instead of a time. A request that a fault keeps waiting goes
on as soon as the node behaves otherwise.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Condition, Event, Lock, Thread
from typing import Any, Protocol

from channelpay.protocol.keccak import keccak256
from channelpay.testing.rpc_client import post, rpc_call

Json = Any
Next = Callable[[Json], Json]
"""Passes a JSON-RPC request on; gives the whole answer, with ``result`` or ``error``."""
LOOPBACK = "127.0.0.1"
ASKED_SECONDS = 60.0
RATE_LIMITED = -32005
NODE_ERROR = -32000
_ABORT = struct.pack("ii", 1, 0)
_JSON = "application/json"


# --- what a request can come to instead of an answer ---------------------------------------------


class Cut(Exception):
    """The connection is reset without an answer."""


class Instead(Exception):
    """An HTTP answer of this kind, whatever was asked."""

    def __init__(self, status: int, body: bytes, content_type: str = _JSON, **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = {"Content-Type": content_type, **headers}


# --- faults --------------------------------------------------------------------------------------


class Fault(Protocol):
    """``released`` is set as soon as the node behaves otherwise."""

    def answer(self, request: Json, proceed: Next, released: Event, /) -> Json: ...


@dataclass(frozen=True, slots=True)
class Down:
    """Nobody listens at the port, and what was connected is not any more."""

    def answer(self, _request: Json, _proceed: Next, _released: Event) -> Json:
        raise Cut


@dataclass(frozen=True, slots=True)
class Resetting:
    """Connections are accepted, and reset as soon as something is asked."""

    methods: frozenset[str] | None = None

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        if _is_among(self.methods, request):
            raise Cut
        return proceed(request)


@dataclass(frozen=True, slots=True)
class AnswerLost:
    """What is asked is done; the connection is reset before the answer."""

    methods: frozenset[str] | None = None

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        answer = proceed(request)
        if _is_among(self.methods, request):
            raise Cut
        return answer


@dataclass(frozen=True, slots=True)
class Unavailable:
    """An HTTP error with a page for people, as a gateway gives it."""

    status: int = 503
    methods: frozenset[str] | None = None

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        if _is_among(self.methods, request):
            raise Instead(self.status, b"<html><h1>no upstream</h1></html>", "text/html")
        return proceed(request)


@dataclass(frozen=True, slots=True)
class TooManyRequests:
    """HTTP 429 with ``Retry-After``."""

    methods: frozenset[str] | None = None

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        if not _is_among(self.methods, request):
            return proceed(request)
        body = json.dumps(_failure(request, RATE_LIMITED, "too many requests")).encode()
        raise Instead(429, body, **{"Retry-After": "1"})


@dataclass(frozen=True, slots=True)
class Refusing:
    """A JSON-RPC error: -32000 unless said otherwise, -32005 is a rate limit."""

    code: int = NODE_ERROR
    message: str = "internal trouble of the node"
    methods: frozenset[str] | None = None

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        if _is_among(self.methods, request):
            return _failure(request, self.code, self.message)
        return proceed(request)


@dataclass(frozen=True, slots=True)
class Slow:
    """Answers come ``seconds`` late, or not before the node behaves otherwise."""

    seconds: float | None = None
    methods: frozenset[str] | None = None

    def answer(self, request: Json, proceed: Next, released: Event) -> Json:
        if _is_among(self.methods, request):
            released.wait(self.seconds)
        return proceed(request)


@dataclass(frozen=True, slots=True)
class Malformed:
    """A body that is no answer; see MALFORMED."""

    body: bytes
    methods: frozenset[str] | None = None

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        if _is_among(self.methods, request):
            raise Instead(200, self.body)
        return proceed(request)


MALFORMED = {
    "nothing": b"",
    "no JSON": b"<html>It works!</html>",
    "cut off": b'{"jsonrpc": "2.0", "id": 1, "result": {"numb',
    "no result": b'{"jsonrpc": "2.0", "id": 1}',
    "a list": b"[]",
    "null": b'{"jsonrpc": "2.0", "id": 1, "result": null}',
    "another type": b'{"jsonrpc": "2.0", "id": 1, "result": {"number": [], "hash": 7}}',
    "no number": b'{"jsonrpc": "2.0", "id": 1, "result": "0xzz"}',
    "an error without members": b'{"jsonrpc": "2.0", "id": 1, "error": "no"}',
}


@dataclass(frozen=True, slots=True)
class OtherChain:
    """Says that it serves another chain."""

    chain_id: int = 5

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        says = {"eth_chainId": hex(self.chain_id), "net_version": str(self.chain_id)}
        method = request["method"]
        return _success(request, says[method]) if method in says else proceed(request)


@dataclass(frozen=True, slots=True)
class TransactionsDropped:
    """Takes transactions and loses them. ``dropped`` are their raw bytes."""

    dropped: list[bytes] = field(default_factory=list)

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        if request["method"] != "eth_sendRawTransaction":
            return proceed(request)
        raw = bytes.fromhex(request["params"][0][2:])
        self.dropped.append(raw)
        return _success(request, "0x" + keccak256(raw).hex())


@dataclass(frozen=True, slots=True)
class StaleHead:
    """Knows no block after ``head``. What is sent is mined by others, and never seen here."""

    head: int

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        method = request["method"]
        if method == "eth_blockNumber":
            return _success(request, hex(self.head))
        if method == "eth_getLogs":
            return self._logs(request, proceed)
        if method in _BLOCK_PARAMETER:
            return self._as_of(request, proceed, _BLOCK_PARAMETER[method])
        answer = proceed(request)
        number = _block_number(answer.get("result"))
        if number is None or number <= self.head:
            return answer
        if method == "eth_getTransactionByHash":
            return _success(request, answer["result"] | dict.fromkeys(_MINED))
        return _success(request, None)

    def _as_of(self, request: Json, proceed: Next, position: int) -> Json:
        parameters = list(request["params"])
        asked = parameters[position] if position < len(parameters) else "latest"
        if self._is_later(asked):
            if request["method"] == "eth_getBlockByNumber":
                return _success(request, None)
            return _failure(request, NODE_ERROR, "header not found")
        parameters[position:] = [self._named(asked), *parameters[position + 1 :]]
        return proceed(request | {"params": parameters})

    def _logs(self, request: Json, proceed: Next) -> Json:
        (wanted,) = request["params"]
        if "blockHash" not in wanted:
            first, last = (self._named(wanted.get(one)) for one in ("fromBlock", "toBlock"))
            if self._is_later(first):
                return _success(request, [])
            last = hex(self.head) if self._is_later(last) else last
            request = request | {"params": [wanted | {"fromBlock": first, "toBlock": last}]}
        answer = proceed(request)
        if "result" not in answer:
            return answer
        known = [log for log in answer["result"] if not self._is_later(log["blockNumber"])]
        return _success(request, known)

    def _named(self, block: Json) -> Json:
        """``block``, or the number of what the last block is to this node."""
        return hex(self.head) if block in _LAST_BLOCKS else block

    def _is_later(self, block: Json) -> bool:
        is_number = isinstance(block, str) and block.startswith("0x") and len(block) < _HASH_LENGTH
        return is_number and int(block, 16) > self.head


@dataclass(frozen=True, slots=True)
class Contradicting:
    """Says other hashes than the others of block ``since`` and all that follow it."""

    since: int = 0

    def answer(self, request: Json, proceed: Next, _: Event) -> Json:
        answer = proceed(_with_other_hash(request))
        if not answer.get("result"):
            answer = proceed(request)
        return {name: self._said(value) for name, value in answer.items()}

    def _said(self, value: Json) -> Json:
        if isinstance(value, list):
            return [self._said(one) for one in value]
        number = _block_number(value)
        if number is None:
            return value
        changed = {one: self._said(value[one]) for one in ("logs", "transactions") if one in value}
        if "parentHash" not in value:
            return value | changed | self._hashes(value, blockHash=number)
        return value | changed | self._hashes(value, hash=number, parentHash=number - 1)

    def _hashes(self, value: Json, **numbers: int) -> Json:
        """The hashes of the blocks of these numbers, under their names in ``value``."""
        return {
            name: _unlike(value[name]) for name, number in numbers.items() if number >= self.since
        }


@dataclass(frozen=True, slots=True)
class Every:
    """``fault`` for each ``nth`` request, the first one of them at once."""

    nth: int
    fault: Fault
    _numbers: Iterator[int] = field(default_factory=count)

    def answer(self, request: Json, proceed: Next, released: Event) -> Json:
        if next(self._numbers) % self.nth == 0:
            return self.fault.answer(request, proceed, released)
        return proceed(request)


# --- the node ------------------------------------------------------------------------------------


class FaultyNode:
    """A node at ``url``. Made by :func:`faulty_node`."""

    def __init__(self, rpc_url: str) -> None:
        self._rpc_url = rpc_url
        self._faults: tuple[Fault, ...] = ()
        self._released = Event()
        self._asked: Counter[str] = Counter()
        self._changed = Condition()
        self._door = _Door(self)
        self.url = f"http://{LOOPBACK}:{self._door.port}"

    def behave(self, *faults: Fault) -> None:
        """Fail like this from here on, and start to count anew; not at all without ``faults``."""
        with self._changed:
            before, self._released = self._released, Event()
            self._faults = faults
            self._asked.clear()
        before.set()
        if any(isinstance(fault, Down) for fault in faults):
            self._door.shut()
        else:
            self._door.open()

    @contextmanager
    def behaving(self, *faults: Fault) -> Iterator[None]:
        """Fail like this until the block ends."""
        self.behave(*faults)
        try:
            yield
        finally:
            self.behave()

    def head(self) -> int:
        """The real node's last block, for :class:`StaleHead` and :class:`Contradicting`."""
        return int(str(rpc_call(self._rpc_url, "eth_blockNumber")), 16)

    def asked(self, method: str | None = None) -> int:
        """How many requests came since the last :meth:`behave`; nobody can ask a node that is
        down.
        """
        with self._changed:
            return self._count(method)

    def wait_until_asked(
        self, method: str | None = None, times: int = 1, seconds: float = ASKED_SECONDS
    ) -> None:
        """Raises :class:`TimeoutError` if so many requests do not come."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._count(method) >= times, seconds):
                raise TimeoutError(f"{self._count(method)} requests of {method or 'any method'}")

    def answer(self, body: bytes) -> bytes:
        """What the HTTP server does. Raises :class:`Cut` and :class:`Instead`."""
        asked = json.loads(body)
        requests = asked if isinstance(asked, list) else [asked]
        with self._changed:
            faults, released = self._faults, self._released
            self._asked.update(request["method"] for request in requests)
            self._changed.notify_all()
        answers = [_passed(request, faults, released, self._forward) for request in requests]
        return json.dumps(answers if isinstance(asked, list) else answers[0]).encode()

    def close(self) -> None:
        self._released.set()
        self._door.shut()
        self._door.close()

    def _forward(self, request: Json) -> Json:
        return json.loads(post(self._rpc_url, json.dumps(request).encode()))

    def _count(self, method: str | None) -> int:
        return self._asked.total() if method is None else self._asked[method]


@contextmanager
def faulty_node(rpc_url: str) -> Iterator[FaultyNode]:
    """A good node in front of the one at ``rpc_url``, until it is told to behave otherwise."""
    node = FaultyNode(rpc_url)
    try:
        yield node
    finally:
        node.close()


def _passed(request: Json, faults: Sequence[Fault], released: Event, last: Next) -> Json:
    if not faults:
        return last(request)
    first, *others = faults
    return first.answer(
        request, lambda passed_on: _passed(passed_on, others, released, last), released
    )


# --- HTTP ----------------------------------------------------------------------------------------


class _Door:
    """A port that is listened at, or not; it stays ours in between."""

    def __init__(self, node: FaultyNode) -> None:
        self._node = node
        self._socket = _bound(0)
        self.port = int(self._socket.getsockname()[1])
        self._server: _Server | None = None
        self._thread: Thread | None = None
        self.open()

    def open(self) -> None:
        if self._server is not None:
            return
        self._server = server = _Server(self._socket, self._node)
        self._thread = Thread(target=lambda: server.serve_forever(0.02), daemon=True)
        self._thread.start()

    def shut(self) -> None:
        """Whoever connects is refused, and whoever was connected is thrown out."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._socket = _bound(self.port)
        self._server.throw_out()
        self._server = None

    def close(self) -> None:
        self._socket.close()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((LOOPBACK, port))
    return bound


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one segment: two small ones would wait for each other's delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self._send(200, self.server.node.answer(body), {"Content-Type": _JSON})
        except Instead as instead:
            self._send(instead.status, instead.body, instead.headers)
        except Cut:
            self._reset()
        except OSError:
            # The real node is gone, or whoever asked.
            self._reset()

    def log_message(self, *_: object) -> None:
        """Stay silent: a test's output is its own."""

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, listening: socket.socket, node: FaultyNode) -> None:
        super().__init__((LOOPBACK, 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_activate()
        self.node = node
        self._connected: set[socket.socket] = set()
        self._lock = Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connected.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close without a farewell: a connection that is to be reset must not end in order."""
        with self._lock:
            self._connected.discard(request)
        self.close_request(request)

    def throw_out(self) -> None:
        """Also who waits for an answer."""
        with self._lock:
            for connected in self._connected:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                with suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients end, and are thrown out, at any time."""


# --- JSON-RPC ------------------------------------------------------------------------------------

_BLOCK_PARAMETER = {
    "eth_call": 1,
    "eth_estimateGas": 1,
    "eth_feeHistory": 1,
    "eth_getBalance": 1,
    "eth_getBlockByNumber": 0,
    "eth_getCode": 1,
    "eth_getStorageAt": 2,
    "eth_getTransactionCount": 1,
}
_LAST_BLOCKS = (None, "latest", "pending", "safe", "finalized")
_MINED = ("blockHash", "blockNumber", "transactionIndex")
_HASH_LENGTH = 66


def _is_among(methods: frozenset[str] | None, request: Json) -> bool:
    return methods is None or request["method"] in methods


def _success(request: Json, result: Json) -> Json:
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def _failure(request: Json, code: int, message: str) -> Json:
    error = {"code": code, "message": message}
    return {"jsonrpc": "2.0", "id": request["id"], "error": error}


def _block_number(value: Json) -> int | None:
    """Of a block, or of a transaction, receipt or log that is in one."""
    if not isinstance(value, dict):
        return None
    number = value.get("number", value.get("blockNumber"))
    return None if number is None else int(number, 16)


def _with_other_hash(request: Json) -> Json:
    """The request for the block of which the other hash is asked for, if it names one by hash."""
    if request["method"] == "eth_getBlockByHash":
        block_hash, *others = request["params"]
        return request | {"params": [_unlike(block_hash), *others]}
    parameters = [
        one | {"blockHash": _unlike(one["blockHash"])}
        if isinstance(one, dict) and "blockHash" in one
        else one
        for one in request["params"]
    ]
    return request | {"params": parameters}


def _unlike(block_hash: str) -> str:
    """Another hash; of that one, this."""
    return f"0x{int(block_hash, 16) ^ (2**256 - 1):064x}"
