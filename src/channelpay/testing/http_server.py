"""JSON-RPC over HTTP on loopback, and a page for people who open its address in a browser.

Any web page the developer visits could post to a port of this machine. Two checks keep them out:
the ``Host`` header must name this machine (against DNS rebinding), and the content type must be
``application/json``, which a browser sends across origins only after a preflight that is never
granted here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType
from typing import Protocol

from channelpay.errors import ConfigError

LOOPBACK = "127.0.0.1"
REQUEST_BYTES_MAX = 2 * 1024 * 1024
_LENGTH = re.compile(r"[0-9]{1,12}", re.ASCII)
_PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
}
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Answering(Protocol):
    """Whatever answers JSON-RPC: request bytes in, answer bytes out."""

    def answer(self, body: bytes, /) -> bytes: ...


Page = Callable[[], str]
"""Makes the HTML page for people; called in any thread."""


class _RpcHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one segment: two small ones would wait for each other's delayed ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _RpcHttpServer

    def do_GET(self) -> None:
        page = self.server.page
        if not self._comes_from_here():
            self._refuse(HTTPStatus.FORBIDDEN)
        elif page is None or self.path != "/":
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._send(HTTPStatus.OK, page().encode(), "text/html; charset=utf-8", _PAGE_HEADERS)

    def do_POST(self) -> None:
        refusal, rpc = self._refusal(), self.server.rpc
        if refusal is not None or rpc is None:
            self._refuse(refusal or HTTPStatus.NOT_FOUND)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(HTTPStatus.OK, rpc.answer(body), "application/json")

    def log_message(self, *_: object) -> None:
        """Stay silent: stdout and stderr belong to the program that runs the chain."""

    def _refusal(self) -> HTTPStatus | None:
        """Why the request is not read at all, or nothing."""
        length = self.headers.get("Content-Length", "")
        if not self._comes_from_here():
            return HTTPStatus.FORBIDDEN
        if self.headers.get_content_type() != "application/json":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        if not _LENGTH.fullmatch(length):
            return HTTPStatus.LENGTH_REQUIRED
        if int(length) > REQUEST_BYTES_MAX:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return None

    def _comes_from_here(self) -> bool:
        return _host_name(self.headers.get("Host", "")) in _LOOPBACK_NAMES

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(status, status.phrase.encode(), "text/plain")

    def _send(
        self,
        status: HTTPStatus,
        body: bytes,
        content_type: str,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in headers.items():
            self.send_header(name, value)
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

    def __init__(self, rpc: Answering | None, port: int, page: Page | None) -> None:
        super().__init__((LOOPBACK, port), _RpcHandler)
        self.rpc = rpc
        self.page = page


@contextmanager
def serving(rpc: Answering | None, port: int = 0, page: Page | None = None) -> Iterator[str]:
    """Serve on loopback in a thread; yields the URL with the real port. Port 0 picks a free one.

    ``page`` is shown to whoever opens the URL in a browser.
    """
    try:
        server = _RpcHttpServer(rpc, port, page)
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
