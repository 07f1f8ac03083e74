"""A site of several workers for the tests of the server: ``counting_site.py WORKERS FOLDER FAILS``.

Every process that ends in order leaves a file of its number in FOLDER. A secret is read from
standard input.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio.to_thread

from channelpay.errors import ChannelPayError, ConfigError
from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.payee.server import Place, listen, serve, url_of_socket


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    workers, folder, fails = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    secret = sys.stdin.readline().strip()
    listening = listen("127.0.0.1", 0)
    url = url_of_socket(listening)

    @contextmanager
    def service(place: Place) -> Iterator[App]:
        if fails == "silently":
            os._exit(3)
        if fails == "at once" or (fails == "later" and place.number > 0):
            raise ConfigError("no chain", hint="start one")
        if place.announces:
            print(json.dumps({"url": url}), flush=True)  # noqa: T201
        try:
            yield application(secret, folder.parent / "go on")
        finally:
            (folder / str(os.getpid())).touch()

    try:
        serve(service, listening, workers)
    except ChannelPayError as error:
        print(f"error: {error.detail}; hint: {error.hint}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


def application(secret: str, go_on: Path) -> App:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
            await anyio.to_thread.run_sync(wait_for, go_on)
            await send({"type": "http.response.body", "body": b"last\n"})
            return
        members = {"secret": secret} if scope["path"] == "/secret" else {"pid": os.getpid()}
        await send({"type": "http.response.body", "body": json.dumps(members).encode()})

    return answer


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


if __name__ == "__main__":
    main()
