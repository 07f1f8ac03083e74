"""A member's site for ``make hub-many``: every path says its name, and ``/broken`` fails.

``python -m scripts.hub_site HUB_URL KEY_FILE PORT PRICE SALES_LOG``; it prints its URL.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from channelpay.payee import PaymentMiddleware, PriceRule
from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.payee.hub import join_hub
from channelpay.payee.server import Place, listen, serve, url_of_socket

AUTHORS = {"/anna/**": "anna"}


async def page(scope: Scope, _: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    status = 500 if scope["path"] == "/broken" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def main(hub_url: str, key_file: str, port: str, price: str, log: str) -> None:
    with listen("127.0.0.1", int(port)) as listening:

        @contextmanager
        def service(_: Place) -> Iterator[App]:
            rules = [PriceRule("/**", price)]
            key = Path(key_file).read_text()
            payee = join_hub(hub_url, key, prices=rules, authors=AUTHORS, sales_log=Path(log))
            with closing(payee):
                print(url_of_socket(listening), flush=True)
                yield PaymentMiddleware(page, payee)

        serve(service, listening)


if __name__ == "__main__":
    main(*sys.argv[1:])
