"""JSON-RPC over HTTP on loopback.

Any web page the developer visits could post to a port of this machine. Two checks keep them out:
the ``Host`` header must name this machine (against DNS rebinding), and the content type must be
``application/json``, which a browser sends across origins only after a preflight that is never
granted here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Protocol

from channelpay.errors import ConfigError

LOOPBACK = "127.0.0.1"
REQUEST_BYTES_MAX = 2 * 1024 * 1024
_LENGTH = re.compile(r"[0-9]{1,12}", re.ASCII)
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Answering(Protocol):
    """Whatever answers JSON-RPC: request bytes in, answer bytes out."""

    def answer(self, body: bytes, /) -> bytes: ...


class _RpcHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one segment: two small ones would wait for each other's delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _RpcHttpServer

    def do_POST(self) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self._send(refusal, refusal.phrase.encode(), "text/plain")
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(HTTPStatus.OK, self.server.rpc.answer(body), "application/json")

    def log_message(self, *_: object) -> None:
        """Stay silent: stdout and stderr belong to the program that runs the chain."""

    def _refusal(self) -> HTTPStatus | None:
        """Why the request is not read at all, or nothing."""
        length = self.headers.get("Content-Length", "")
        if _host_name(self.headers.get("Host", "")) not in _LOOPBACK_NAMES:
            return HTTPStatus.FORBIDDEN
        if self.headers.get_content_type() != "application/json":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        if not _LENGTH.fullmatch(length):
            return HTTPStatus.LENGTH_REQUIRED
        if int(length) > REQUEST_BYTES_MAX:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status is not HTTPStatus.OK:
            # The body was not read, so the connection cannot carry another request.
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)


class _RpcHttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, rpc: Answering, port: int) -> None:
        super().__init__((LOOPBACK, port), _RpcHandler)
        self.rpc = rpc


@contextmanager
def serving(rpc: Answering, port: int = 0) -> Iterator[str]:
    """Serve on loopback in a thread; yields the URL with the real port. Port 0 picks a free one."""
    try:
        server = _RpcHttpServer(rpc, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on port {port}: {error.strerror}",
            hint="Choose another port with --port; 0 picks a free one.",
        ) from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _host_name(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()
