"""Get paid after the reader has read: a tab with a limit for each reader, and signed receipts.

    PUBLISHER_KEY=0x... python examples/get_paid_later.py

PORT (default 8402), PUBLISHER_KEY and CHANNELPAY_RPC are those of get_paid.py. A price file says
the same with a [tab] table: docs/how-to/post-pay.md. Readers agree to it with
channelpay pay URL --max-tab AMOUNT, and pay when it is due, or with channelpay tab pay URL.
"""

import os

import uvicorn
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from channelpay import Payee, PaymentMiddleware, PriceRule
from channelpay.payee import TabPlan

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")


def article(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"Article {request.path_params['name']}\n")


payee = Payee.create(
    rpc=RPC,
    account=Account.from_key(os.environ["PUBLISHER_KEY"]),
    token="eth",
    prices=[PriceRule("/articles/*", "0.001", description="An article")],
    tab=TabPlan(
        limit_start="0.003",  # What somebody new may owe.
        limit_max="0.05",
        grows=50,  # Percent of what was paid on time.
        total_max="1",  # What all readers may owe together.
        due_days=7,
    ),
    store="sqlite:///books.sqlite3",
)
routes = [Route("/articles/{name}", article)]
app = PaymentMiddleware(Starlette(routes=routes), payee)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8402")))
