"""Get paid: a plain WSGI application that costs 0.001 ETH per article.

    PUBLISHER_KEY=0x... python examples/get_paid_wsgi.py

The settings are those of get_paid.py; the server is Python's own, for development.
"""

import os
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from eth_account import Account

from channelpay import Payee, PriceRule
from channelpay.payee.wsgi import PaymentMiddleware


def open_payee() -> Payee:
    return Payee.create(
        rpc=os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545"),
        account=Account.from_key(os.environ["PUBLISHER_KEY"]),
        token="eth",
        prices=[PriceRule("/articles/*", "0.001", description="An article")],
        store="sqlite:///books.sqlite3",
    )


def articles(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    name = environ["PATH_INFO"].removeprefix("/articles/")
    payer = environ["channelpay"].payer.hex()
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"Article {name}, paid for by 0x{payer}\n".encode()]


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if "channelpay" in environ:
        return articles(environ, start_response)
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"Try /articles/one\n"]


app = PaymentMiddleware(application, open_payee)


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """Several readers at a time."""

    daemon_threads = True


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8402"))
    with make_server("127.0.0.1", port, app, ThreadedServer) as server:
        print(f"http://127.0.0.1:{server.server_port}")
        server.serve_forever()
