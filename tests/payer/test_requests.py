"""The requests adapter where it differs from others: what it reads of bodies, what it keeps."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from channelpay import ChannelPayAdapter, paid_of
from channelpay.errors import ConfigError
from channelpay.payer.steps import PROBLEM_BYTES_MAX, Answer, Send
from tests.payer.site import Ground, Site
from tests.payer.test_httpx import FakePayer

SECONDS = 10.0
PROBLEM = "application/problem+json"
_NAMES = ("Authorization", "Idempotency-Key")


class Served(ThreadingHTTPServer):
    """The site of real rules behind a socket; ``moved`` and ``bodies`` are other answers."""

    daemon_threads = True

    def __init__(self, site: Site) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.site = site
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.moved: dict[str, str] = {}
        self.bodies: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.silent = False
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.sent_bytes = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Served

    def do_GET(self) -> None:
        server, headers = self.server, dict(self.headers.items())
        server.seen.append((self.path, headers))
        if server.silent and "Authorization" in headers:
            self.close_connection = True
        elif self.path in server.bodies:
            self._send(*server.bodies[self.path])
        elif self.path in server.moved:
            self._send(302, {"Location": server.moved[self.path], "Set-Cookie": "way=1"}, b"")
        else:
            ours = {name: headers[name] for name in _NAMES if name in headers}
            self._send_answer(server.site.answer(server.url + self.path, Send(ours)))

    def _send_answer(self, answer: Answer) -> None:
        headers = {"Set-Cookie": f"status=s{answer.status}"}
        if answer.receipt is not None:
            headers["Payment-Receipt"] = answer.receipt
        if answer.challenges:
            headers["WWW-Authenticate"] = answer.challenges[0]
        if answer.problem:
            headers["Content-Type"] = PROBLEM
        body = json.dumps(answer.problem).encode() if answer.problem else b"content"
        self._send(answer.status, headers, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Length", str(len(body))))
        self.end_headers()
        try:
            for start in range(0, len(body), 65536):
                self.wfile.write(body[start : start + 65536])
                self.server.sent_bytes += 65536
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""


@contextmanager
def serving(site: Site) -> Iterator[Served]:
    server = Served(site)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def server(site: Site) -> Iterator[Served]:
    with serving(site) as server:
        yield server


@pytest.fixture
def session(ground: Ground) -> Iterator[requests.Session]:
    payer: Any = FakePayer(ground)
    with requests.Session() as session:
        session.mount("http://", ChannelPayAdapter(payer))
        yield session
    ground.state.close()


def test_a_pool_that_could_wait_for_itself_is_refused(ground: Ground) -> None:
    payer: Any = FakePayer(ground)
    with pytest.raises(ConfigError, match="pool_block"):
        ChannelPayAdapter(payer, pool_maxsize=1, pool_block=True)
    ground.state.close()


def test_a_lost_connection_frees_what_was_set_aside(
    session: requests.Session, server: Served, ground: Ground
) -> None:
    session.get(server.url, timeout=SECONDS)
    server.silent = True
    with pytest.raises(requests.ConnectionError):
        session.get(server.url, timeout=SECONDS)
    (entry,) = ground.state.channels(ground.payer)
    assert (entry.in_flight, entry.spent, entry.signed) == (0, 1, 2)


def test_a_redirect_to_another_origin_carries_no_credential(
    session: requests.Session, server: Served
) -> None:
    session.get(server.url + "/first", timeout=SECONDS)
    with serving(Site(default_price=0)) as elsewhere:
        elsewhere.site.prices = {elsewhere.url + "/there": None}
        server.moved["/here"] = elsewhere.url + "/there"
        response = session.get(server.url + "/here", timeout=SECONDS)
    assert (response.url, response.status_code) == (elsewhere.url + "/there", 200)
    assert "Authorization" in server.seen[-1][1]
    assert [headers.get("Authorization") for _, headers in elsewhere.seen] == [None]


def test_cookies_of_redirects_and_of_paid_answers_are_kept(
    session: requests.Session, server: Served
) -> None:
    server.moved["/here"] = "/there"
    response = session.get(server.url + "/here", timeout=SECONDS)
    assert paid_of(response) is not None
    assert dict(session.cookies) == {"way": "1", "status": "s200"}


@pytest.mark.parametrize(
    "headers", [{"Content-Type": PROBLEM}, {"Location": "/there"}], ids=["refusal", "redirect"]
)
def test_of_an_endless_body_that_nobody_asked_for_little_is_read(
    session: requests.Session, server: Served, headers: dict[str, str]
) -> None:
    status = 302 if "Location" in headers else 403
    server.bodies["/here"] = (status, headers, bytes(64 * 1024 * 1024))
    response = session.get(server.url + "/here", timeout=SECONDS)
    assert response.status_code == (200 if status == 302 else 403)
    assert server.sent_bytes < 32 * 1024 * 1024
    assert response.content in {b"", b"content"}


@pytest.mark.parametrize("size", [100, PROBLEM_BYTES_MAX + 1])
def test_a_problem_is_decoded_up_to_the_limit(
    session: requests.Session, server: Served, size: int
) -> None:
    body = json.dumps({"title": "x" * size}).encode()
    headers = {"Content-Type": PROBLEM, "Content-Encoding": "gzip"}
    server.bodies["/here"] = (403, headers, gzip.compress(body))
    response = session.get(server.url + "/here", timeout=SECONDS)
    assert response.content == (body if size == 100 else b"")


def test_a_streamed_answer_is_left_unread(session: requests.Session, server: Served) -> None:
    with session.get(server.url, stream=True, timeout=SECONDS) as response:
        assert paid_of(response) is not None
        assert next(response.iter_content(3)) == b"con"
