"""Get paid: a Starlette application that costs 0.001 ETH per article.

    PUBLISHER_KEY=0x... uvicorn examples.get_paid:app --port 8402

or `python examples/get_paid.py` (PORT, default 8402). PUBLISHER_KEY is the private key of the
account that is paid, CHANNELPAY_RPC the node (default: that of `channelpay dev`).
"""

import os

import uvicorn
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from channelpay import Payee, PaymentMiddleware, PriceRule

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")


def article(request: Request) -> PlainTextResponse:
    payer = request.scope["channelpay"].payer.hex()
    return PlainTextResponse(f"Article {request.path_params['name']}, paid for by 0x{payer}\n")


payee = Payee.create(
    rpc=RPC,
    account=Account.from_key(os.environ["PUBLISHER_KEY"]),
    token="eth",
    prices=[PriceRule("/articles/*", "0.001", description="An article")],
    store="sqlite:///books.sqlite3",
)
app = PaymentMiddleware(Starlette(routes=[Route("/articles/{name}", article)]), payee)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8402")))
