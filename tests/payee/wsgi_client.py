"""Asking a WSGI application without a server, as a payer of a shop's channels."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from channelpay.protocol.wire import Receipt, VoucherPayload
from tests.payee.shop import OpenChannel, Shop

Environ: TypeAlias = dict[str, Any]


@dataclass
class Response:
    """What a server would have; ``pieces`` are read from the application as they are asked for."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: Iterator[bytes] = field(default_factory=lambda: iter(()))
    iterable: Any = None
    body: bytes = b""

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key.lower() == name]
        return values[0] if values else None

    @property
    def receipt(self) -> Receipt:
        return Receipt.parse(self.header("payment-receipt") or "")

    def read(self) -> Response:
        """All that is left, and the end."""
        try:
            self.body += b"".join(self.pieces)
        finally:
            self.iterable.close()
        return self


class WsgiClient:
    """Asks ``app``, which sells for ``shop``."""

    def __init__(self, shop: Shop, app: WSGIApplication) -> None:
        self.shop = shop
        self._app = validator(app)

    def start(self, path: str, environ: Environ | None = None) -> Response:
        """Send a request; the response is not read yet. Headers are named as in the environment."""
        response = Response()
        path, _, query = path.partition("?")
        sent = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": query,
            "HTTP_HOST": "shop.example",
            "wsgi.input": io.BytesIO(),
        } | (environ or {})
        setup_testing_defaults(sent)

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            response.status, response.headers = int(status[:3]), headers
            return lambda _: None

        response.iterable = self._app(sent, start_response)
        response.pieces = iter(response.iterable)
        return response

    def get(self, path: str = "/page", environ: Environ | None = None) -> Response:
        return self.start(path, environ).read()

    def credential(self, channel: OpenChannel, cumulative: int, path: str) -> str:
        (challenge,) = self.shop.challenges(path)
        return self.shop.header(VoucherPayload(channel.sign(cumulative)), challenge)

    def start_paid(
        self,
        channel: OpenChannel,
        cumulative: int,
        path: str = "/page",
        environ: Environ | None = None,
    ) -> Response:
        header = self.credential(channel, cumulative, path)
        return self.start(path, {"HTTP_AUTHORIZATION": header} | (environ or {}))

    def pay(
        self,
        channel: OpenChannel,
        cumulative: int,
        path: str = "/page",
        environ: Environ | None = None,
    ) -> Response:
        return self.start_paid(channel, cumulative, path, environ).read()

    def opened(self) -> OpenChannel:
        """A channel that the shop knows: presented by a HEAD, which is charged nothing."""
        channel = self.shop.payer.open()
        header = self.shop.header(channel.open_payload(0), source=channel.source)
        response = self.get("/page", {"REQUEST_METHOD": "HEAD", "HTTP_AUTHORIZATION": header})
        assert response.status == 200, response.body
        return channel
