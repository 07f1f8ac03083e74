"""A paid site on a loopback port, for as long as a test needs it.

The server runs in a thread: the test can look into the application, and nothing outlives it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any

from channelpay.errors import ConfigError
from channelpay.payee.asgi import App, Receive, Scope, Send

if TYPE_CHECKING:
    from channelpay.protocol.rules import ChannelRecord

LOOPBACK = "127.0.0.1"
_BACKLOG = 128
START_SECONDS = 30.0
_STOP_SECONDS = 10
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class PaidSite:
    """A running site; ``books`` is the URL of its payee's store."""

    url: str
    books: str

    def page(self, path: str) -> str:
        """The URL of a path."""
        return self.url + path

    def channels(self) -> list[ChannelRecord]:
        """The payee's books as they are now: what was accepted, charged and settled."""
        from channelpay.store import open_store

        with closing(open_store(self.books)) as store:
            return store.records()

    def spent(self) -> int:
        """What the site has charged for, over all channels, in base units."""
        return sum(record.spent for record in self.channels())


@contextmanager
def serving_site(app: App) -> Iterator[str]:
    """Serve an ASGI application on a free loopback port; yields its URL, without a last slash.

    Raises :class:`~channelpay.errors.ConfigError` if there is no server to run it with, or the
    application does not start.
    """
    with closing(socket.create_server((LOOPBACK, 0), backlog=_BACKLOG)) as listening:
        server = _server(app)
        thread = Thread(target=_run, args=(server, listening), daemon=True)
        thread.start()
        try:
            _wait_for_start(server, thread)
            yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)


async def welcome(scope: Scope, receive: Receive, send: Send) -> None:
    """What ``paid_site()`` sells when a test brings no application: every path says its name."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": f"This is {scope['path']}\n".encode()})


async def _live(receive: Receive, send: Send) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


def _server(app: App) -> Any:
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise ConfigError(
            "serving a site needs the module uvicorn", hint="Install channelpay[site]."
        ) from error
    # A test that leaves a connection open should not wait for it at its end.
    config = uvicorn.Config(
        app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1
    )
    return uvicorn.Server(config)


def _wait_for_start(server: Any, thread: Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise ConfigError("the application did not start; its messages say why")
        time.sleep(_POLL_SECONDS)


def _run(server: Any, listening: socket.socket) -> None:
    asyncio.run(server.serve([listening]))
