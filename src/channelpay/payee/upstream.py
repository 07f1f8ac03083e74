"""Passing requests on to the server behind the proxy, and its answers back, both as they come."""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import anyio
import httpx2

from channelpay.errors import ChannelPayError, ConfigError, NetworkError, UpstreamDown, UpstreamSlow
from channelpay.payee.asgi import Message, Receive, Scope, Send
from channelpay.payee.checkout import Headers
from channelpay.payee.problems import send_problem
from channelpay.payee.selling.desk import token_in
from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import is_payment_header

TIMEOUT_SECONDS = 60.0
"""How long the upstream may be silent, before its answer and within it."""
CONNECT_SECONDS = 10.0
CONNECTIONS_MAX = 100
WAIT_FOR_CONNECTION_SECONDS = 5.0
KEPT_SECONDS = 2.0
"""How long an idle connection is used again: shorter than what servers usually keep one, or
requests would be sent into connections that the upstream is just closing.
"""
SIGNATURE_SECRET_BYTES_MIN = 16
PEER = "channelpay.peer"
"""Of a scope: who is at the other end of the connection, where ``client`` is not."""
IDENTITY_PREFIX = b"channelpay-"
_PSEUDONYM = b"1.1 channelpay"
_FINAL_STATUSES = range(200, 600)
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Set by this side anew, or a way to make an upstream see another request than the priced one.
_REPLACED = frozenset(
    {
        b"content-length",
        b"expect",
        b"forwarded",
        b"host",
        b"http2-settings",
        b"proxy",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-method",
        b"x-original-uri",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    }
)
_FORWARDED_PREFIX = b"x-forwarded-"
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}\Z")
_SEPARATOR = re.compile(rb"[^a-z0-9]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the upstream is. ``host`` is what its ``Host`` header says."""

    url: httpx2.URL
    host: bytes

    @classmethod
    def parse(cls, text: str) -> Origin:
        """From a URL of scheme, host and maybe port. Raises :class:`ConfigError`."""
        try:
            url = httpx2.URL(text)
        except httpx2.InvalidURL as error:
            raise ConfigError(f"the upstream is no URL: {error}") from error
        if url.scheme not in ("http", "https") or not url.host:
            raise ConfigError("the upstream must be an http:// or https:// URL")
        if not 0 < (url.port or 80) < 65_536:
            raise ConfigError("the upstream has no such port")
        if url.userinfo or url.query or url.fragment or url.raw_path != b"/":
            raise ConfigError(
                "the upstream's URL must end after its host and port",
                hint="Paths are passed on as they are: --upstream http://127.0.0.1:3000",
            )
        return cls(url, url.netloc)

    def relative(self, location: bytes) -> bytes:
        """A redirect to the upstream itself, as one to whatever name the client knows it by."""
        text = location.decode("latin-1")
        path = text.removeprefix(f"{self.url.scheme}://{self.host.decode()}")
        return path.encode("latin-1") if path != text and path.startswith("/") else location


class Upstream:
    """An ASGI application that answers with what the server at ``url`` answers.

    The payer's identity, if ``scope["channelpay"]`` has one, goes along in ``ChannelPay-`` headers,
    which no client can send; with ``secret``, every request is signed as well (see
    :func:`signature`). Bodies stream both ways. ``timeout_seconds`` is how long the server may be
    silent.

    A server that fails before its answer is a 502 or 504 problem; one that breaks off within it
    raises :class:`UpstreamBrokeOff`, so that the client's connection breaks off too.

    Raises :class:`~channelpay.errors.ConfigError` for another URL than scheme, host and port.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        connections_max: int = CONNECTIONS_MAX,
        secret: bytes | None = None,
        trusts_forwarded: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        if secret is not None and len(secret) < SIGNATURE_SECRET_BYTES_MIN:
            raise ConfigError(
                f"the upstream secret must have {SIGNATURE_SECRET_BYTES_MIN} bytes or more",
                hint="Make one with: openssl rand -hex 32",
            )
        self._origin = Origin.parse(url)
        self._secret = secret
        self._trusts_forwarded = trusts_forwarded
        self._now = now
        self._timeout = httpx2.Timeout(
            timeout_seconds,
            connect=min(CONNECT_SECONDS, timeout_seconds),
            pool=WAIT_FOR_CONNECTION_SECONDS,
        ).as_dict()
        # The bare transport: it knows no redirects, no cookies and no proxies of the environment.
        self._transport = httpx2.AsyncHTTPTransport(
            limits=httpx2.Limits(
                max_connections=connections_max,
                max_keepalive_connections=connections_max,
                keepalive_expiry=KEPT_SECONDS,
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _RequestBody(receive)
        broke_off = False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(body.cancel_when_gone, tasks.cancel_scope)
            broke_off = await self._exchange(scope, body, send)
            tasks.cancel_scope.cancel()
        if broke_off:
            raise UpstreamBrokeOff("the upstream broke off its answer")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _exchange(self, scope: Scope, body: _RequestBody, send: Send) -> bool:
        """Whether the answer was broken off."""
        try:
            _check_unit(scope)
            response = await self._answered(self._request(scope, body))
        except _ClientGone:
            return False
        except ChannelPayError as error:
            await send_problem(send, error)
            return False
        try:
            await self._relay(scope, response, send)
        except httpx2.TransportError:
            return True
        finally:
            with anyio.move_on_after(CONNECT_SECONDS, shield=True):
                await response.aclose()
        return False

    async def _answered(self, request: httpx2.Request) -> httpx2.Response:
        """The head of the answer. Raises :class:`NetworkError`."""
        try:
            response = await self._transport.handle_async_request(request)
        except httpx2.PoolTimeout:
            raise NetworkError("too many requests wait for the upstream") from None
        except httpx2.TimeoutException:
            raise UpstreamSlow("the upstream did not answer in time") from None
        except httpx2.TransportError:
            raise UpstreamDown("the upstream gave no proper answer") from None
        if response.status_code not in _FINAL_STATUSES:
            await response.aclose()
            raise UpstreamDown("the upstream gave no proper answer")
        return response

    def _request(self, scope: Scope, body: _RequestBody) -> httpx2.Request:
        target = _target(scope)
        framing = _framing(scope)
        if not framing:
            body.skip()
        headers = [
            (b"host", self._origin.host),
            *_passed_on(scope["headers"]),
            *_forwarding(scope, self._trusts_forwarded),
            (b"via", _PSEUDONYM),
            *self._identity(scope, target),
            *framing,
        ]
        return httpx2.Request(
            scope["method"],
            self._origin.url,
            headers=headers,
            stream=body if framing else httpx2.ByteStream(b""),
            # As it was sent: the URL class would tidy it up.
            extensions={"target": target, "timeout": self._timeout},
        )

    def _identity(self, scope: Scope, target: bytes) -> Headers:
        payment = scope.get("channelpay")
        values = ("", "", "", "") if payment is None else _facts(payment)
        names = (b"payer", b"channel", b"price", b"token")
        headers = [
            (IDENTITY_PREFIX + name, value.encode())
            for name, value in zip(names, values, strict=True)
            if value
        ]
        if self._secret is not None:
            signed = (scope["method"], target.decode("ascii"), *values)
            value = signature(self._secret, int(self._now()), *signed)
            headers.append((IDENTITY_PREFIX + b"signature", value.encode()))
        return headers

    async def _relay(self, scope: Scope, response: httpx2.Response, send: Send) -> None:
        # Some servers run the same page for every method, and OPTIONS costs nothing.
        bodiless = scope["method"] == "OPTIONS" and "channelpay" not in scope
        headers = _answer_headers(response, self._origin)
        if bodiless:
            headers = [(name, value) for name, value in headers if name != b"content-length"]
            headers.append((b"content-length", b"0"))
        start = {"type": "http.response.start", "status": response.status_code}
        await send({**start, "headers": headers})
        if not bodiless:
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            async for chunk in response.stream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


class UpstreamBrokeOff(Exception):
    """Raised to the server, which then closes the client's connection: without it, a client could
    take half an answer for a whole one.
    """


def signature(  # noqa: PLR0913, PLR0917  all that is signed, each named
    secret: bytes,
    moment: int,
    method: str,
    target: str,
    payer: str,
    channel: str,
    price: str,
    token: str,
) -> str:
    """The value of ``ChannelPay-Signature``: Unix seconds, a dot, and the HMAC-SHA256 in hex.

    Signed are seven lines: moment, method, request target, payer, channel, price and token, the
    last four empty where nobody paid. Between them stands a line feed.
    """
    text = "\n".join([str(moment), method, target, payer, channel, price, token])
    return f"{moment}.{hmac.digest(secret, text.encode(), 'sha256').hex()}"


class _ClientGone(Exception):
    """The client left before it had sent all of its request."""


class _RequestBody(httpx2.AsyncByteStream):
    """The body of a request as the client sends it, and whether the client is still there."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._was_sent = anyio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            more = True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise _ClientGone
                more = message.get("more_body", False)
                if message.get("body"):
                    yield message["body"]
        finally:
            self._was_sent.set()

    async def cancel_when_gone(self, scope: anyio.CancelScope) -> None:
        """Cancel ``scope`` when the client leaves. What it sends after the upstream stopped reading
        is dropped.
        """
        await self._was_sent.wait()
        message: Message = {}
        while message.get("type") != "http.disconnect":
            message = await self._receive()
        scope.cancel()

    def skip(self) -> None:
        """There is no body to send."""
        self._was_sent.set()


def _target(scope: Scope) -> bytes:
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    query: bytes = scope.get("query_string", b"")
    return raw_path + b"?" + query if query else raw_path


def _check_unit(scope: Scope) -> None:
    """Only an application that runs with the payee can say what it used."""
    payment = scope.get("channelpay")
    if payment is not None and payment.is_metered:
        raise ConfigError(
            f"the price is {payment.paid.quote.format()}, and a proxy cannot say how much was used",
            hint="Price this path per request.",
        )


def _facts(payment: Any) -> tuple[str, str, str, str]:
    """Payer, channel, price, token as the upstream reads them."""
    return (
        to_hex(payment.payer),
        to_hex(payment.channel_id),
        str(payment.price),
        to_hex(payment.token),
    )


def _framing(scope: Scope) -> Headers:
    """How the end of the request's body is told, whatever Connection names; empty without one."""
    names = {name.lower(): value for name, value in scope["headers"]}
    if b"transfer-encoding" in names:
        return [(b"transfer-encoding", b"chunked")]
    length = names.get(b"content-length")
    return [] if length is None else [(b"content-length", length)]


def _passed_on(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """What the client says to the upstream itself."""
    headers = list(headers)
    named = _named_in_connection(headers)
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in named and not _is_ours(name) and not _is_credential(name, value)
    ]


def _is_ours(name: bytes) -> bool:
    """Whether a header of a client is dropped. Names that a CGI-like interface makes equal are
    equal here: to it, ``ChannelPay_Payer`` is ``ChannelPay-Payer``.
    """
    plain = _SEPARATOR.sub(b"-", name.lower())
    if plain in _REPLACED or plain in _HOP_BY_HOP:
        return True
    return plain.startswith((IDENTITY_PREFIX, _FORWARDED_PREFIX))


def _is_credential(name: bytes, value: bytes) -> bool:
    if name.lower() != b"authorization":
        return False
    return is_payment_header(value.decode("latin-1")) or token_in([value]) is not None


def _named_in_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """RFC 9110, 7.6.1: what Connection names is for this hop alone."""
    values = [value for name, value in headers if name.lower() == b"connection"]
    return {one.strip().lower() for one in b",".join(values).split(b",")}


def _forwarding(scope: Scope, trusted: bool) -> Headers:
    """Who asked, how and under which name: as this server saw it, or as the one before it says."""
    headers = scope["headers"] if trusted else []
    given = {name.lower(): value for name, value in headers}
    peer = scope.get(PEER) or scope.get("client")
    address = peer[0] if peer else "unknown"
    proto = forwarded_proto(scope, trusted)
    asked_host = _value(scope["headers"], b"host")
    host = next(filter(_HOST.match, (given.get(b"x-forwarded-host", b""), asked_host)), b"")
    chain = _all_values(headers, b"x-forwarded-for")
    element = f'for="{_node(address)}";proto={proto}'.encode()
    if host:
        element += b';host="' + host + b'"'
    return [
        (b"x-forwarded-for", b", ".join([*chain, address.encode()])),
        (b"x-forwarded-proto", proto.encode()),
        *([(b"x-forwarded-host", host)] if host else []),
        (b"forwarded", b", ".join([*_all_values(headers, b"forwarded"), element])),
    ]


def forwarded_proto(scope: Scope, trusted: bool) -> str:
    """``http`` or ``https``: what the client speaks."""
    said = _value(scope["headers"], b"x-forwarded-proto").decode("latin-1").lower()
    return said if trusted and said in ("http", "https") else str(scope.get("scheme", "http"))


def forwarded_client(scope: Scope) -> str | None:
    """The address that the proxy in front was asked from: the last that it names."""
    named = b",".join(_all_values(scope["headers"], b"x-forwarded-for")).rpartition(b",")[2]
    try:
        return str(ipaddress.ip_address(named.strip().decode("latin-1")))
    except ValueError:
        return None


def _node(address: str) -> str:
    """RFC 7239, 6: an IPv6 address stands in brackets."""
    try:
        return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    except ValueError:
        return "unknown"


def _value(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next(iter(_all_values(headers, name)), b"")


def _all_values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def _answer_headers(response: httpx2.Response, origin: Origin) -> Headers:
    """What the upstream says to the client itself. The date is the answering server's own."""
    raw = [(name.lower(), value) for name, value in response.headers.raw]
    dropped = _HOP_BY_HOP | _named_in_connection(raw) | {b"date"}
    if response.status_code == 204 or b"transfer-encoding" in {name for name, _ in raw}:
        dropped |= {b"content-length"}
    return [
        (name, origin.relative(value) if name == b"location" else value)
        for name, value in raw
        if name not in dropped
    ]
