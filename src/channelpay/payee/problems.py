"""Errors as HTTP answers, for what is refused before anybody is asked to pay."""

from __future__ import annotations

import json

from channelpay.errors import ChannelPayError
from channelpay.payee.asgi import Send
from channelpay.payee.checkout import RETRY_AFTER_SECONDS, Headers


async def send_problem(send: Send, error: ChannelPayError, headers: Headers | None = None) -> None:
    """Answer with ``error`` as a problem (RFC 9457) and ``headers``."""
    body = json.dumps(error.as_problem()).encode()
    sent = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *(headers or ()),
    ]
    if error.status == 503:
        sent.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
    await send({"type": "http.response.start", "status": error.status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
