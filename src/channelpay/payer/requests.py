"""Payments for requests.

::

    session = requests.Session()
    session.mount("https://", ChannelPayAdapter(payer))
    response = session.get(url)

What the payer itself forbids is raised, say as :class:`~channelpay.errors.BudgetExceeded`. What the
payee refuses comes back as its own response. :func:`paid_of` says what a response cost.

An answer that is lost on its way may have been charged. To repeat such a request without paying
twice, give it an ``Idempotency-Key`` header of your own, and the same one when you repeat it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, RequestException
from requests.exceptions import ConnectionError as RequestsConnectionError
from urllib3 import BaseHTTPResponse, HTTPHeaderDict, HTTPResponse
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from channelpay.errors import ConfigError
from channelpay.payer.client import Payer
from channelpay.payer.driver import (
    NOT_IN_BARE_REQUESTS,
    answer_from,
    check_length,
    has_problem,
    keep,
    run,
    small_body,
)
from channelpay.payer.metering import RECEIPT_SECONDS, VOUCHER_SECONDS, MeteredResponse
from channelpay.payer.origins import following_key
from channelpay.payer.steps import PROBLEM_BYTES_MAX, Answer, Paid, Send, Step
from channelpay.protocol.sse import NeedVoucher

_CHUNK_BYTES = 64 * 1024
_OF_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})

SendRequest = Callable[..., Response]


class PaidResponse(Response):
    """A response, and what was paid for it."""

    paid: Paid | None = None


def paid_of(response: Response) -> Paid | None:
    """What a response cost; None if it was not paid for. While a metered one is read, that is what
    it was promised.
    """
    return response.paid if isinstance(response, PaidResponse) else None


class ChannelPayAdapter(HTTPAdapter):
    """Pays for the requests of one session, or of many, out of one payer's channels. ``settings``
    are those of :class:`requests.adapters.HTTPAdapter`.

    Each hop of a redirect is a request of its own. While a metered response is read, vouchers for
    it go to the same URL on another connection of the same pool. Raises :class:`ConfigError` for
    ``pool_block``: streams that hold all connections would wait for ever for one more.
    """

    def __init__(self, payer: Payer, **settings: Any) -> None:
        if settings.get("pool_block"):
            raise ConfigError(
                "with pool_block a stream that is paid for while it comes could wait for its own"
                " connection",
                hint="Leave pool_block out: pool_maxsize still bounds what is kept open.",
            )
        super().__init__(**settings)
        self._payer = payer

    def send(
        self,
        request: PreparedRequest,
        stream: bool = False,  # noqa: ARG002  the session reads what is not streamed
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> PaidResponse:
        """Called by ``requests.Session``."""
        way: dict[str, Any] = {"verify": verify, "cert": cert, "proxies": proxies}
        send = partial(super().send, stream=True, **way)
        exchange = _Exchange(_with_body(request), partial(send, timeout=timeout))
        key = _header(request, "Idempotency-Key")
        session = self._payer.session(str(request.url), key)
        paid = run(session.run(), exchange.send, self._payer.perform)
        response = exchange.last
        if isinstance(paid, MeteredResponse):
            _MeteredBody(response, paid, self._payer.perform, send)
            return response
        if response.is_redirect:
            _read_small(response)  # Else the session would read all of it.
            if paid is not None and key is not None:
                # The session copies the headers of this request for the next one.
                request.headers["Idempotency-Key"] = following_key(key, str(request.url))
        response.paid = paid
        return response

    def build_response(self, req: PreparedRequest, resp: BaseHTTPResponse) -> PaidResponse:
        """Called for each answer."""
        response = PaidResponse()
        vars(response).update(vars(super().build_response(req, resp)))
        return response


class _Exchange:
    """The requests and responses behind one call of the adapter."""

    def __init__(self, request: PreparedRequest, send: SendRequest) -> None:
        self._request = request
        self._send = send
        self._response: PaidResponse | None = None

    def send(self, step: Send) -> Answer:
        if self._response is not None:
            _read_small(self._response)
        request = _bare(self._request, step.method, step.to) if step.bare else self._request.copy()
        request.headers.update(step.headers)
        response = self._send(request)
        assert isinstance(response, PaidResponse)
        self._response = response
        if has_problem(response.status_code, response.headers):
            _read_small(response)
        return _answer_of(response)

    @property
    def last(self) -> PaidResponse:
        assert self._response is not None
        return self._response


class _MeteredBody:
    """Takes the place of a response's raw body: handed on as it comes, and paid for on the way."""

    def __init__(
        self,
        response: PaidResponse,
        metered: MeteredResponse,
        perform: Callable[[Step], None],
        send: SendRequest,
    ) -> None:
        self._raw: HTTPResponse = response.raw
        self._response = response
        self._metered = metered
        self._perform = perform
        self._send_request = send
        self._parts = self._read()
        self._rest = b""
        response.raw = self
        self._show_cost()

    def __getattr__(self, name: str) -> Any:
        """Status, headers and cookies are those of the response."""
        return getattr(self._raw, name)

    def stream(
        self,
        amt: int | None = None,
        decode_content: bool = True,  # noqa: ARG002  as requests calls it
    ) -> Iterator[bytes]:
        """What comes, at most ``amt`` bytes at once; always decoded."""
        while data := self.read1(amt):
            yield data

    def read(
        self,
        amt: int | None = None,
        decode_content: bool = True,  # noqa: ARG002  as requests calls it
    ) -> bytes:
        """``amt`` bytes or all, fewer only at the end; always decoded."""
        read = bytearray()
        while data := self.read1(None if amt is None else amt - len(read)):
            read += data
        return bytes(read)

    def read1(self, amt: int | None = None) -> bytes:
        """What is there, or comes next; nothing at the end."""
        if amt == 0:
            return b""
        part = self._rest or next(self._parts, b"")
        self._rest = b"" if amt is None else part[amt:]
        return part if amt is None else part[:amt]

    def close(self) -> None:
        """Nothing more is read, and paid for."""
        self._parts.close()
        self._end()

    def release_conn(self) -> None:
        """Nothing: the connection goes back to its pool when the body has ended."""

    def _show_cost(self) -> None:
        self._response.paid = self._metered.paid

    def _read(self) -> Generator[bytes, None, None]:
        try:
            with self._naming_the_promise():
                for chunk in iter(partial(self._raw.read1, _CHUNK_BYTES, decode_content=True), b""):
                    yield from self._paid_parts(chunk)
            if rest := self._metered.rest():
                yield rest
            run(self._metered.prove(), self._send, self._perform)
        finally:
            self._end()

    def _paid_parts(self, chunk: bytes) -> Iterator[bytes]:
        for part in self._metered.read(chunk):
            if isinstance(part, NeedVoucher):
                run(self._metered.answer(part), self._send, self._perform)
                self._show_cost()
            else:
                yield part

    def _end(self) -> None:
        try:
            self._raw.close()
        finally:
            self._metered.settle()
            self._show_cost()

    def _send(self, step: Send) -> Answer:
        request = _bare(self._response.request, step.method or "HEAD", step.to)
        request.headers.update(step.headers)
        seconds = VOUCHER_SECONDS if step.to is None else RECEIPT_SECONDS
        try:
            response = self._send_request(request, timeout=seconds)
            _read_small(response)
        except RequestException:
            # To be repeated like a busy payee's answer: a voucher is the same at each attempt.
            return Answer(503, str(self._response.url), retry_after="0")
        return _answer_of(response)

    @contextmanager
    def _naming_the_promise(self) -> Iterator[None]:
        """Say of a body that breaks off what it may have cost."""
        try:
            yield
        except ReadTimeoutError as error:
            message = f"{error} ({self._metered.promise})"
            raise ReadTimeoutError(error.pool, str(error.url), message) from error
        except ProtocolError as error:
            raise ProtocolError(f"{error} ({self._metered.promise})", error) from error


def _with_body(request: PreparedRequest) -> PreparedRequest:
    """The request with a body that can be sent more than once. Raises :class:`InputError` for one
    that is too large.
    """
    body: Any = request.body
    if body is None or isinstance(body, bytes | str):
        return request
    check_length(_header(request, "Content-Length"))
    chunks: Iterable[bytes | str] = body
    if hasattr(body, "read"):
        chunks = iter(partial(body.read, _CHUNK_BYTES), type(body.read(0))())
    kept = bytearray()
    for chunk in chunks:
        keep(kept, chunk.encode() if isinstance(chunk, str) else chunk)
    copy = request.copy()
    copy.body = bytes(kept)
    return copy


def _bare(request: PreparedRequest, method: str | None, to: str | None = None) -> PreparedRequest:
    """A request to the same URL, or ``to`` another one, without a body and what describes it, which
    buys nothing that the request is for.
    """
    bare = request.copy()
    bare.method = method or bare.method
    bare.url = to or bare.url
    bare.body = None
    for name in NOT_IN_BARE_REQUESTS:
        bare.headers.pop(name, None)
    return bare


def _header(request: PreparedRequest, name: str) -> str | None:
    """Values may be bytes in requests."""
    value: str | bytes | None = request.headers.get(name)
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _answer_of(response: Response) -> Answer:
    """What a session needs of a response whose problem body, if any, was read."""
    return answer_from(
        response.status_code,
        response.url,
        response.request.method,
        response.headers,
        response.raw.headers.getlist("WWW-Authenticate"),
        lambda: response.content,
    )


def _read_small(response: Response) -> None:
    """Read the body of a response that the caller does not stream: a problem, a redirect, or one
    that another attempt replaces. One that is too large is dropped, and its connection with it.
    """
    raw = response.raw
    if not isinstance(raw, HTTPResponse) or raw.closed:
        return
    body = bytearray()
    with _translated(response):
        for chunk in raw.stream(_CHUNK_BYTES, decode_content=False):
            body += chunk
            if len(body) > PROBLEM_BYTES_MAX:
                break
    response.close()
    encoding = response.headers.pop("Content-Encoding", "identity")
    response.raw = _replaced(raw, small_body(bytes(body), encoding))


def _replaced(raw: HTTPResponse, body: bytes) -> HTTPResponse:
    """The same response, as if it had come with this body."""
    headers = [(name, value) for name, value in raw.headers.items() if name.lower() not in _OF_BODY]
    return HTTPResponse(
        BytesIO(body),
        headers=HTTPHeaderDict(headers),
        status=raw.status,
        reason=raw.reason,
        preload_content=False,
        # Where requests looks for cookies.
        original_response=getattr(raw, "_original_response", None),
    )


@contextmanager
def _translated(response: Response) -> Iterator[None]:
    """What requests makes of an error while a body is read."""
    try:
        yield
    except ReadTimeoutError as error:
        raise RequestsConnectionError(error, request=response.request) from error
    except ProtocolError as error:
        raise ChunkedEncodingError(error, request=response.request) from error
