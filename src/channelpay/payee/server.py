"""Running a site over HTTP in this process, until a signal ends it."""

from __future__ import annotations

import signal
import socket

import uvicorn

from channelpay.errors import ConfigError
from channelpay.payee.asgi import App

HEADER_BYTES_MAX = 1280 * 1024
"""What the server reads of a request's head. Far more than a credential needs, so that a client
that sends too much gets a problem that says so, and not a closed connection; but to take a head
apart holds up everybody else.
"""
SHUTDOWN_SECONDS = 10
_BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on; port 0 picks a free one.

    Raises :class:`~channelpay.errors.ConfigError` if that address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="Choose another --port."
        ) from error


def url_of_socket(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(application: App, listening: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish those under way and return."""
    # uvicorn raises the signal again when it is done; then it must not end the process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # h11, since it alone bounds what a request's head may have.
    config = uvicorn.Config(
        application,
        http="h11",
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[listening])
