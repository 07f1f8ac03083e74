"""The ways to pay for a request, behind one interface: what tests/payer/test_clients.py asks of
each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import requests

import channelpay
from channelpay import ChannelPayAdapter, ChannelPayAuth, Paid, Payer, paid_of
from channelpay.errors import BudgetExceeded, ChannelPayError, NetworkError

SECONDS = 20.0


@dataclass(frozen=True)
class Got:
    """An answer: ``url`` is where it came from."""

    status: int
    url: str
    content: bytes = b""
    paid: Paid | None = None


class Lost(Exception):
    """No whole answer came."""


Client = Callable[..., Got]
"""``client(payer, url, key=None, body=None)``: POST where there is a body, else GET."""


def httpx_blocking(payer: Payer, url: str, key: str | None = None, body: Any = None) -> Got:
    try:
        with httpx2.Client(
            auth=ChannelPayAuth(payer), timeout=SECONDS, follow_redirects=True
        ) as client:
            response = client.request(_method(body), url, headers=_headers(key), content=body)
    except httpx2.TransportError as error:
        raise Lost from error
    return _of_httpx(response)


def httpx_asynchronous(payer: Payer, url: str, key: str | None = None, body: Any = None) -> Got:
    async def fetch() -> httpx2.Response:
        async with httpx2.AsyncClient(
            auth=ChannelPayAuth(payer), timeout=SECONDS, follow_redirects=True
        ) as client:
            content = _asynchronous(body) if hasattr(body, "__next__") else body
            return await client.request(_method(body), url, headers=_headers(key), content=content)

    try:
        return _of_httpx(asyncio.run(fetch()))
    except httpx2.TransportError as error:
        raise Lost from error


def with_requests(payer: Payer, url: str, key: str | None = None, body: Any = None) -> Got:
    with requests.Session() as session:
        session.mount("http://", ChannelPayAdapter(payer))
        try:
            response = session.request(
                _method(body), url, headers=_headers(key), data=body, timeout=SECONDS
            )
        except requests.RequestException as error:
            raise Lost from error
    return Got(response.status_code, response.url, response.content, paid_of(response))


def plain_function(payer: Payer, url: str, key: str | None = None, body: Any = None) -> Got:
    """A refusal is an error here."""
    assert body is None
    try:
        page = channelpay.get(url, payer, idempotency_key=key)
    except NetworkError as error:
        raise Lost from error
    except BudgetExceeded:
        raise
    except ChannelPayError as error:
        return Got(error.status, url)
    return Got(200, page.url, page.content, page.paid)


EVERY_CLIENT = (httpx_blocking, httpx_asynchronous, with_requests, plain_function)
WITH_BODIES = (httpx_blocking, httpx_asynchronous, with_requests)


def _method(body: Any) -> str:
    return "GET" if body is None else "POST"


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


async def _asynchronous(chunks: Any) -> Any:
    for chunk in chunks:
        yield chunk


def _of_httpx(response: httpx2.Response) -> Got:
    paid = response.extensions["channelpay"]
    return Got(response.status_code, str(response.url), response.content, paid)
