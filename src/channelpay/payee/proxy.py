"""A paid site in front of a server of any language: what is paid for, or free, is passed on to it.

What could mean one thing to the prices and another to the server is refused before anybody pays:
see :mod:`channelpay.payee.plain_path`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from channelpay.errors import (
    ChannelPayError,
    ConfigError,
    HeadersTooLarge,
    UnclearRequest,
    UpgradeRefused,
)
from channelpay.observe.health import HEALTH_PATH, READY_PATH, Check, Health
from channelpay.payee.asgi import App, PaymentMiddleware, Receive, Scope, Send
from channelpay.payee.payee import Payee
from channelpay.payee.plain_path import plain_path
from channelpay.payee.problems import send_problem
from channelpay.payee.upstream import PEER, Upstream, forwarded_client, forwarded_proto

HEADERS_MAX = 100
HEAD_BYTES_MAX = 64 * 1024
"""Of the target and all headers. A credential takes about 1 KiB of it."""
_METHOD = re.compile(r"[A-Z]{1,20}\Z")
# CONNECT asks for a tunnel; TRACE would show the client what it must not know.
_REFUSED_METHODS = frozenset({"CONNECT", "TRACE"})
_READING = frozenset({"GET", "HEAD"})
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}\Z")
_POLICY_VIOLATION = 1008
_NO_WEBSOCKETS = "WebSockets are not passed on: they cannot be paid for"


class Proxy:
    """The ASGI application: ``upstream`` behind the prices of ``payee``.

    ``/healthz`` and ``/readyz`` are the proxy's own, the latter by ``checks``; what the upstream
    has there is not reached. ``free_paths`` are passed on without a price for GET and HEAD: health
    checks of the upstream.
    """

    def __init__(
        self,
        upstream: Upstream,
        payee: Payee,
        *,
        free_paths: Iterable[str] = (),
        trusts_forwarded: bool = False,
        checks: Mapping[str, Check] | None = None,
    ) -> None:
        self._upstream = upstream
        self._paid = Health(PaymentMiddleware(upstream, payee), checks or {})
        self._free_paths = frozenset(map(_checked_free_path, free_paths))
        self._trusts_forwarded = trusts_forwarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await _refuse_websocket(scope, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope = self._clear(scope)
        except UpgradeRefused as error:
            await send_problem(send, error, [(b"upgrade", b"HTTP/1.1"), (b"connection", b"close")])
        except ChannelPayError as error:
            await send_problem(send, error)
        else:
            await self._application(scope)(scope, receive, send)

    def _application(self, scope: Scope) -> App:
        is_free = scope["path"] in self._free_paths and scope["method"] in _READING
        return self._upstream if is_free else self._paid

    def _clear(self, scope: Scope) -> Scope:
        """The request as it is priced. Raises :class:`InputError` if the upstream could see another
        in it, or for its size.
        """
        headers = scope["headers"]
        raw_path = scope["raw_path"]
        size = len(raw_path) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in headers)
        if len(headers) > HEADERS_MAX or size > HEAD_BYTES_MAX:
            raise HeadersTooLarge(
                f"a request may have {HEADERS_MAX} headers and {HEAD_BYTES_MAX} bytes of them"
            )
        _check_method(scope["method"])
        _check_headers(headers)
        return {**scope, "path": plain_path(raw_path), **self._origin(scope)}

    def _origin(self, scope: Scope) -> Scope:
        """Who asks, and over what."""
        trusted = self._trusts_forwarded
        origin: Scope = {"scheme": forwarded_proto(scope, trusted), PEER: scope.get("client")}
        if trusted and (address := forwarded_client(scope)) is not None:
            origin["client"] = (address, 0)
        return origin

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._upstream.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def _checked_free_path(path: str) -> str:
    try:
        plain = plain_path(path.encode())
    except UnclearRequest as error:
        raise ConfigError(f"the health path {path!r}: {error.detail}") from error
    if plain in (HEALTH_PATH, READY_PATH):
        raise ConfigError(f"{plain} is the proxy's own", hint="Give the upstream's another path.")
    return plain


def _check_method(method: str) -> None:
    """Prices name methods in capitals, and some servers take ``get`` for GET."""
    if not _METHOD.match(method) or method in _REFUSED_METHODS:
        raise UnclearRequest(f"the method {method[:20]} is not passed on", hint="Use GET.")


def _check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    names = [name.lower() for name, _ in headers]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise UnclearRequest("the end of the body is told in two ways", hint="Tell it in one.")
    hosts = [value for name, value in headers if name.lower() == b"host"]
    if len(hosts) > 1 or not all(map(_HOST.match, hosts)):
        raise UnclearRequest("the Host header is not a host's name", hint="Send one plain name.")
    if any(name.lower() == b"upgrade" and b"websocket" in value.lower() for name, value in headers):
        raise UpgradeRefused(_NO_WEBSOCKETS)


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        refusal = {"code": _POLICY_VIOLATION, "reason": _NO_WEBSOCKETS}
        await send({"type": "websocket.close", **refusal})
        return
    body = f"{_NO_WEBSOCKETS}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"upgrade", b"HTTP/1.1"),
    ]
    start = {"type": "websocket.http.response.start", "status": UpgradeRefused.status}
    await send({**start, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
