"""Get paid through a network: a reader's one channel buys on the sites of all its members.

    NETWORK=http://127.0.0.1:8410 python examples/get_paid_network.py herald

This is the site of the member herald, whose key is in the file herald.key. It needs no node, no
books and no account; PORT (default 8402) is that of get_paid.py. How a network is begun, run, and
pays its members: docs/how-to/hub.md.
"""

import os
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from channelpay import PaymentMiddleware, PriceRule
from channelpay.payee.hub import join_hub

(name,) = sys.argv[1:]


def article(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{name}: {request.url.path}\n")


payee = join_hub(
    os.environ.get("NETWORK", "http://127.0.0.1:8410"),
    Path(f"{name}.key").read_text(),
    prices=[PriceRule("/**", "0.001", description="An article")],
    authors={"/anna/**": "anna"},  # She shares what is sold there.
    sales_log=Path(f"{name}-sales.jsonl"),  # To check the network's statements with.
)
app = PaymentMiddleware(Starlette(routes=[Route("/{path:path}", article)]), payee)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8402")))
