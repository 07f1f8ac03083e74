"""A load generator that costs little: precomputed requests over keep-alive connections, one thread.

It runs in a process of its own, keeps every latency, and looks at every answer: the status has to
be 200, and a paid request's answer must have a receipt.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from channelpay.protocol.types import Address, Deployment
from channelpay.protocol.wire import Challenge, parse_challenges
from scripts.bench.scene import PLAIN_REQUEST, PaidRequests, payers_of

QUIET_SECONDS = 30.0
"""An answer that takes longer is a failure."""
CONNECT_SECONDS = 0.001
"""Connections come one after the other: where workers share a socket, the one that wakes first
takes all that wait.
"""
_RECEIVE_BYTES = 65_536
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """``count`` requests, ``in_flight`` at a time. Free ones if ``channels`` is 0, else paid ones
    from so many channels. ``in_order`` serves servers that take vouchers in their order alone:
    there is one connection for each channel, then. ``challenger`` is who gives the challenge that
    is echoed, if it is not the server itself.
    """

    server: Endpoint
    count: int
    in_flight: int
    channels: int = 0
    in_order: bool = False
    challenger: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """Requests of so many payers in turn, made elsewhere, with one connection for each payer.
    ``receipt`` is the header that an answer must have.
    """

    server: Endpoint
    requests: tuple[bytes, ...]
    payers: int
    receipt: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What a load came to. Latencies in seconds, ascending; ``cpu_seconds`` of the generator."""

    seconds: float
    latencies: tuple[float, ...]
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    def latency(self, share: float) -> float:
        """The latency that this share of the requests stayed under."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def generate(pipe: Connection[Any, Any], deployment: Deployment, payee: Address) -> None:
    """The generator's process: it is sent :class:`Load` or :class:`Replay` and answers with
    :class:`Sample`.
    """
    paid: dict[tuple[Endpoint, int], PaidRequests] = {}
    while True:
        asked: Load | Replay = pipe.recv()
        if isinstance(asked, Replay):
            lanes = _in_order(asked.requests, asked.payers)
            pipe.send(drive(asked.server, lanes, asked.receipt))
            continue
        if not asked.channels:
            lanes = _shared([PLAIN_REQUEST] * asked.count, asked.in_flight)
            pipe.send(drive(asked.server, lanes))
            continue
        source = asked.server, asked.channels
        if source not in paid:
            payers = payers_of(deployment, payee, asked.channels)
            paid[source] = PaidRequests(payers, challenge_of(asked.challenger or asked.server))
        requests = paid[source].take(asked.count)
        lanes = (_in_order if asked.in_order else _shared)(requests, asked.in_flight)
        pipe.send(drive(asked.server, lanes, "Payment-Receipt"))


Lanes = Sequence[Iterator[bytes]]


def _shared(requests: Sequence[bytes], connections: int) -> Lanes:
    """Each connection takes the next request of all."""
    return [iter(requests)] * connections


def _in_order(requests: Sequence[bytes], connections: int) -> Lanes:
    """Each connection has requests of its own."""
    return [iter(requests[number::connections]) for number in range(connections)]


def challenge_of(server: Endpoint) -> Challenge:
    """What a request without a credential is asked to pay."""
    with socket.create_connection(server, QUIET_SECONDS) as connection:
        connection.sendall(PLAIN_REQUEST)
        answer = b""
        while _HEAD_END not in answer:
            answer += _received(connection)
    lines = answer.partition(_HEAD_END)[0].decode("latin-1").split("\r\n")
    named = (line.partition(": ") for line in lines)
    headers = [value for name, _, value in named if name.lower() == "www-authenticate"]
    return parse_challenges(headers)[0]


class _Lane:
    """One connection with one request under way at a time."""

    def __init__(self, server: Endpoint, requests: Iterator[bytes], receipt: str | None) -> None:
        self.socket = socket.create_connection(server, QUIET_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = requests
        self._receipt = None if receipt is None else f"\r\n{receipt}:".lower().encode()
        self._answer = b""
        self._sent_at = 0.0

    def send(self) -> bool:
        """Send the next request; False if there is none."""
        request = next(self._requests, None)
        if request is None:
            return False
        self._sent_at = time.perf_counter()
        self.socket.sendall(request)
        return True

    def receive(self) -> float | None:
        """The latency, if the answer is complete now."""
        answer = self._answer = self._answer + _received(self.socket)
        end = answer.find(_HEAD_END)
        if end < 0:
            return None
        length = _LENGTH.search(answer, 0, end + 2)
        if length is None or not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"not the answer of a served request: {answer[:2000]!r}")
        if len(answer) < end + len(_HEAD_END) + int(length[1]):
            return None
        if self._receipt is not None and self._receipt not in answer[:end].lower():
            raise RuntimeError(f"an answer without a receipt: {answer[:end]!r}")
        self._answer = b""
        return time.perf_counter() - self._sent_at


def drive(server: Endpoint, queues: Lanes, receipt: str | None = None) -> Sample:
    """Send all requests, one connection for each queue, and wait for every answer."""
    with ExitStack() as opened, select.epoll() as poll:
        lanes: dict[int, _Lane] = {}
        for queue in queues:
            lane = _Lane(server, queue, receipt)
            descriptor = opened.enter_context(lane.socket).fileno()
            lanes[descriptor] = lane
            poll.register(descriptor, select.EPOLLIN)
            time.sleep(CONNECT_SECONDS)
        started, cpu_started = time.perf_counter(), time.process_time()
        latencies = _exchange(poll, lanes)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return Sample(seconds, tuple(sorted(latencies)), cpu)


def _exchange(poll: select.epoll, lanes: Mapping[int, _Lane]) -> list[float]:
    latencies: list[float] = []
    under_way = sum(lane.send() for lane in lanes.values())
    while under_way:
        ready = poll.poll(QUIET_SECONDS)
        if not ready:
            raise RuntimeError("the server does not answer any more")
        for descriptor, _ in ready:
            lane = lanes[descriptor]
            latency = lane.receive()
            if latency is not None:
                latencies.append(latency)
                under_way -= not lane.send()
    return latencies


def _received(connection: socket.socket) -> bytes:
    received = connection.recv(_RECEIVE_BYTES)
    if not received:
        raise RuntimeError("the server closed a connection")
    return received
