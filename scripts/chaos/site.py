"""The site that is killed: ``python -m scripts.chaos.site SETTINGS``.

This process has everything imported, and starts and kills the site, a fork of itself, when it is
told so on its standard input; it answers each time on its standard output. It ends, and the site
with it, when its input ends. The listening socket is that of who started it, as with a service
manager: clients that come while the site is down wait for the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NoReturn

from eth_account import Account

from channelpay.payee import Payee, PaymentMiddleware, PriceRule
from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.payee.payment import Payment
from channelpay.payee.server import serve
from channelpay.protocol.keccak import keccak256
from channelpay.testing.accounts import dev_accounts

PRICE = 10**12
"""One millionth of an ether, in wei."""
PARTS = 4
"""What a metered answer consists of; each costs PRICE."""
PAYEE_ACCOUNT = 2
_RULES = [
    PriceRule("/page", "0.000001"),
    PriceRule("/dear", "0.000003"),
    PriceRule("/broken", "0.000001"),
    PriceRule("/metered", "0.000001", unit="part"),
]
_SECRET = keccak256(b"chaos challenge secret")
_TEXT = [(b"content-type", b"text/plain")]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the chain and the books are. ``listening`` is the socket's file descriptor."""

    rpc_url: str
    contract: str
    store: str
    listening: int


async def application(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  ASGI
    """The pages behind the prices: one that is served, one that fails, one that is metered."""
    path = scope["path"]
    if path == "/metered":
        await _metered(scope["channelpay"], send)
        return
    status, body = (500, b"broken") if path == "/broken" else (200, b"a page")
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*_TEXT, length]})
    await send({"type": "http.response.body", "body": body})


async def _metered(payment: Payment, send: Send) -> None:
    for number in range(PARTS):
        await payment.charge(PRICE)
        if number == 0:
            await send({"type": "http.response.start", "status": 200, "headers": _TEXT})
        more = number + 1 < PARTS
        await send({"type": "http.response.body", "body": b"a part\n", "more_body": more})
        await asyncio.sleep(0)


@contextmanager
def _service(settings: Settings) -> Iterator[App]:
    payee = Payee.create(
        rpc=settings.rpc_url,
        contract=settings.contract,
        token="eth",  # noqa: S106  the kind of money
        account=Account.from_key(dev_accounts()[PAYEE_ACCOUNT].private_key),
        prices=_RULES,
        store=settings.store,
        challenge_secret=_SECRET,
    )
    with closing(payee):
        yield PaymentMiddleware(application, payee)


def _run(settings: Settings, listening: socket.socket) -> NoReturn:
    """Be the site until somebody kills it."""
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    serve(lambda _: _service(settings), listening)
    sys.exit("the site ended by itself")


class _Stage:
    """Holds at most one site."""

    def __init__(self, settings: Settings, listening: socket.socket) -> None:
        self._settings = settings
        self._listening = listening
        self._pid = 0

    def start(self) -> str:
        self._pid = os.fork()
        if self._pid == 0:
            _run(self._settings, self._listening)
        return "started"

    def kill(self) -> str:
        """How it went: a site that had ended before it was killed has a fault."""
        ended, status = os.waitpid(self._pid, os.WNOHANG)
        if ended:
            self._pid = 0
            return f"ended by itself with code {os.waitstatus_to_exitcode(status)}"
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self._pid = 0
        return "killed"

    def end(self) -> None:
        if self._pid:
            self.kill()


def main() -> None:
    """Obey ``start`` and ``kill``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = Settings(**json.loads(sys.argv[1]))
    listening = socket.socket(fileno=settings.listening)
    stage = _Stage(settings, listening)
    commands = {"start": stage.start, "kill": stage.kill}
    try:
        while command := sys.stdin.readline().strip():
            sys.stdout.write(commands[command]() + "\n")
            sys.stdout.flush()
    finally:
        stage.end()


if __name__ == "__main__":
    main()
