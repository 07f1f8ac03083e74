"""Payment for any WSGI application: a plain middleware around it.

The same as :mod:`channelpay.payee.asgi`, for servers that give each request a thread or a process.
A paid request reaches the application with its payment, whose ``charge`` blocks, in
``environ["channelpay"]``. WSGI does not tell that a client is gone: a charge goes back when the
server fails to send the first byte.

An application that is paid by the unit runs in a thread of its own, so that a stream of events can
ask for a voucher while the application waits in ``charge``. Every voucher is a request of its own:
the server must be able to answer one beside the stream, in a thread or in another process.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeAlias
from urllib.parse import quote as percent_encoded
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from channelpay.payee.blocking import (
    BlockingDelivery,
    BlockingPayment,
    OpenPayee,
    Part,
    PayeeOfProcess,
    PayeeThread,
)
from channelpay.payee.checkout import Answer, Headers, without_length
from channelpay.payee.delivery import BodyDigest
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid

PLAIN_IN_PATHS = "/!$&'()*+,;=:@~"
_READ_BYTES = 64 * 1024
_Head: TypeAlias = tuple[str, list[tuple[str, str]]]
_ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
)


class PaymentMiddleware:
    """``app`` behind the prices of the payee that ``open_payee`` makes: once in each process, for
    its first request, so that the server may fork before that.

    What opening raises is raised to the server. The workers of a site need one
    ``challenge_secret``.
    """

    def __init__(self, app: WSGIApplication, open_payee: OpenPayee) -> None:
        self._app = app
        self._payee = PayeeOfProcess(open_payee)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        thread = self._payee.thread()
        request = request_of(environ)
        quote = thread.checkout.quote(request)
        if quote is None:
            if thread.checkout.hides_body(request):
                return _head_only(self._app, environ, start_response)
            return self._app(environ, start_response)
        if isinstance(quote, Answer):
            return _answer(request, quote, start_response)
        return self._sell(thread, request, quote, environ, start_response)

    def close(self) -> None:
        """Close this process's payee, when nothing is under way any more."""
        self._payee.close()

    def _sell(
        self,
        thread: PayeeThread,
        request: Request,
        quote: Quote,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        began = time.perf_counter()
        client = environ.get("REMOTE_ADDR") or None
        paid = thread.pay(request, quote, client, partial(_body_digest, environ))
        if isinstance(paid, Answer):
            thread.checkout.answered(request, paid, time.perf_counter() - began)
            return _answer(request, paid, start_response)
        delivery = _Delivery(thread, request, paid, began, start_response)
        environ["channelpay"] = BlockingPayment(delivery.payment, thread)
        delivery.send(delivery.serve(self._app, environ))
        return delivery


class _Delivery(BlockingDelivery):
    """A delivery by WSGI: the iterable that the server gets."""

    def __init__(
        self,
        thread: PayeeThread,
        request: Request,
        paid: Paid,
        began: float,
        start_response: StartResponse,
    ) -> None:
        super().__init__(thread, request, paid, began)
        self._start_sending = start_response
        self._head: _Head | None = None
        self._written: list[bytes] = []

    def serve(self, app: WSGIApplication, environ: WSGIEnvironment) -> Generator[Part, None, None]:
        """The response of ``app``, or what is sent in its place."""
        try:
            yield from self._answered(app, environ)
        except Exception:
            if not self.ends_refused:
                raise
            yield from self._end_refused()

    def _answered(self, app: WSGIApplication, environ: WSGIEnvironment) -> Iterator[Part]:
        chunks = app(environ, self._start_response)
        try:
            for chunk in self._with_written(chunks):
                yield from self._begun()
                yield self.part(chunk, is_last=False)
            yield from self._begun()
            yield self.part(b"", is_last=True)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """WSGI's start_response for the application."""
        if exc_info is not None and exc_info[1] is not None and self._started:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            raise AssertionError("start_response was called for the second time")
        self._head = (status, headers)
        return self._written.append

    def _with_written(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks that say something, and what was written before them."""
        for chunk in chunks:
            yield from self._take_written()
            if chunk:
                yield chunk
        yield from self._take_written()

    def _take_written(self) -> list[bytes]:
        written = [chunk for chunk in self._written if chunk]
        self._written.clear()
        return written

    def _begun(self) -> Iterator[Part]:
        """The beginning of the response, once."""
        if self._started:
            return
        if self._head is None:
            raise AssertionError("the application did not call start_response")
        status, headers = self._head
        if self.replaces(int(status[:3])):
            raise _Replaced
        sent = _to_text(self.begin(int(status[:3]), _to_bytes(headers)))
        self.wait_until_released()
        yield partial(self._start_sending, status, sent)

    def _end_refused(self) -> Iterator[Part]:
        if self._started:
            yield self.part(b"", is_last=True)
            return
        answer = self.refusal()
        self.wait_until_released()
        yield partial(self._start_sending, *_head_of(answer))
        yield answer.body


class _Replaced(Exception):
    """What the application answers is not sent."""


def request_of(environ: WSGIEnvironment) -> Request:
    """The request of a WSGI environment: its path is that of the whole URL, as UTF-8."""
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    return Request(
        environ["REQUEST_METHOD"].upper(),
        path.decode("utf-8", "replace") or "/",
        environ.get("QUERY_STRING", "").encode("latin-1"),
        list(headers_of(environ)),
        environ["wsgi.url_scheme"],
        percent_encoded(path, PLAIN_IN_PATHS).encode(),
    )


def headers_of(environ: WSGIEnvironment) -> Iterator[tuple[bytes, bytes]]:
    """The request's headers. The server has joined those of one name."""
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")
        elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield key.replace("_", "-").lower().encode(), value.encode("latin-1")


class _Body(io.RawIOBase):
    """A request's body: what was read of it already, and the rest as it comes. ``size`` is that of
    the rest, if it does not end by itself.
    """

    def __init__(self, rest: Any, size: int | None) -> None:
        self._early = io.BytesIO()
        self._rest = rest
        self._size = size

    def digest(self) -> str:
        """Read what tells the body apart, and keep it for the application."""
        digest, more = BodyDigest(), True
        while more and (piece := self._read_rest(_READ_BYTES)):
            self._early.write(piece)
            more = digest.add(piece)
        self._early.seek(0)
        return digest.text()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._early.read(len(buffer)) or self._read_rest(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def _read_rest(self, size: int) -> bytes:
        if self._size is None:
            return bytes(self._rest.read(size))
        piece = bytes(self._rest.read(min(size, self._size))) if self._size else b""
        self._size -= len(piece)
        return piece


def _body_digest(environ: WSGIEnvironment) -> str:
    """What tells the body apart; the application can still read it."""
    body = _Body(environ["wsgi.input"], _body_size(environ))
    digest = body.digest()
    environ["wsgi.input"] = io.BufferedReader(body)
    return digest


def _body_size(environ: WSGIEnvironment) -> int | None:
    """None if the server ends the body where the request does."""
    length = environ.get("CONTENT_LENGTH") or ""
    if not length and environ.get("wsgi.input_terminated"):
        return None
    return int(length) if length.isascii() and length.isdigit() else 0


def _head_only(
    app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse
) -> list[bytes]:
    """The answer of ``app`` without its body."""

    def start(
        status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        start_response(status, _to_text(without_length(_to_bytes(headers))), exc_info)
        return lambda _: None

    chunks = app(environ, start)
    try:
        next(filter(None, chunks), None)  # An application may begin with its first chunk.
    finally:
        if hasattr(chunks, "close"):
            chunks.close()
    return []


def _answer(request: Request, answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    start_response(*_head_of(answer))
    return [] if request.method == "HEAD" else [answer.body]


def _head_of(answer: Answer) -> _Head:
    status = HTTPStatus(answer.status)
    return f"{status.value} {status.phrase}", _to_text(answer.headers)


def _to_bytes(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _to_text(headers: Headers) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
