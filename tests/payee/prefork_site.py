"""A WSGI site as servers with worker processes run it: loaded once, then forked. Not a test.

The settings come in JSON on standard input; the site writes its port. Every worker says which
process it is. With ``"asks": true`` the process that forks answers a request itself before that.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

from channelpay.payee import Payee, PriceRule
from channelpay.payee.secret import kept_secret
from channelpay.payee.wsgi import PaymentMiddleware

SETTINGS = json.load(sys.stdin)
WORKERS = 2


def open_payee() -> Payee:
    return Payee.create(
        rpc=SETTINGS["rpc"],
        token=SETTINGS["token"],
        contract=SETTINGS["contract"],
        payee=SETTINGS["payee"],
        prices=[PriceRule("/**", "0.01")],
        store=SETTINGS["store"],
        challenge_secret=kept_secret(Path("secret")),
    )


def application(_: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


site = PaymentMiddleware(application, open_payee)


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def serve(listening: socket.socket) -> None:
    server = Server(("127.0.0.1", 0), Quiet, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    server.server_name, server.server_port = "127.0.0.1", listening.getsockname()[1]
    server.setup_environ()
    server.set_app(site)
    server.serve_forever()


def ask_here() -> None:
    environ: WSGIEnvironment = {}
    setup_testing_defaults(environ)
    list(site(environ, lambda *_: lambda _: None))


def end_workers(*_: object) -> None:
    for worker in workers:
        os.kill(worker, signal.SIGKILL)


if SETTINGS.get("asks"):
    ask_here()
listener = socket.create_server(("127.0.0.1", 0))
workers = []
for _ in range(WORKERS):
    child = os.fork()
    if child == 0:
        serve(listener)
    workers.append(child)
sys.stdout.write(f"{listener.getsockname()[1]}\n")
sys.stdout.flush()
signal.signal(signal.SIGTERM, end_workers)
for worker in workers:
    os.waitpid(worker, 0)
