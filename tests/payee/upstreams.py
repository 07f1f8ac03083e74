"""Servers to stand behind the proxy and in front of it, on sockets of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import uvicorn

from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.payee.server import listen, url_of_socket
from tests.payee.shop import wait_on_loop_for

SECONDS = 20.0
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Echo:
    """An upstream that tells what it was asked, and keeps it: the requests, in their order."""

    def __init__(self) -> None:
        self.requests: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests.append(scope)
        self.bodies.append(await whole_body(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"from the upstream"})

    @property
    def target(self) -> str:
        """The raw target of the last request."""
        scope = self.requests[-1]
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        return str((scope["raw_path"] + query).decode())

    def headers(self, name: str) -> list[str]:
        """The values of a header of the last request."""
        wanted = name.lower().encode()
        return [value.decode() for key, value in self.requests[-1]["headers"] if key == wanted]

    @property
    def header_names(self) -> set[str]:
        return {name.decode() for name, _ in self.requests[-1]["headers"]}


async def whole_body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


@asynccontextmanager
async def serving(application: App) -> AsyncIterator[str]:
    """A server of this event loop; yields its URL."""
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(
            application, http="h11", lifespan="off", log_config=None, proxy_headers=False
        )
        server = uvicorn.Server(config)
        running = asyncio.ensure_future(server._serve([listening]))
        try:
            await wait_on_loop_for(lambda: server.started)
            yield url_of_socket(listening)
        finally:
            server.should_exit = server.force_exit = True
            await running


@asynccontextmanager
async def conversing(conversation: Conversation) -> AsyncIterator[str]:
    """A server that does with each connection what ``conversation`` does; yields its URL."""
    server = await asyncio.start_server(conversation, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    async with server:
        yield f"http://{host}:{port}"


async def raw_answer(url: str, request: bytes) -> bytes:
    """All that comes back for these bytes, until the server closes."""
    async with asyncio.timeout(SECONDS):
        reader, writer = await connected(url)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = httpx2.URL(url)
    return await asyncio.open_connection(address.host, address.port)


async def status_of(url: str, target: str, method: str = "GET", *headers: str) -> int:
    """What is answered to a request whose target goes over the wire as it is."""
    lines = [f"{method} {target} HTTP/1.1", "Host: site.example", "Connection: close", *headers]
    answer = await raw_answer(url, "\r\n".join([*lines, "", ""]).encode("latin-1"))
    return int(answer.split(b" ", 2)[1])
