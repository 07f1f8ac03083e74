"""Get paid with passes and coupons: bought once, then nothing is signed until they are used up.

    PUBLISHER_KEY=0x... python examples/get_paid_passes.py

PORT (default 8402), PUBLISHER_KEY and CHANNELPAY_RPC are those of get_paid.py. The secret of
passes is kept in the file challenge.key. A price file says the same with [[pass]] tables and
[coupons]: docs/how-to/passes.md.
"""

import os
from pathlib import Path

import uvicorn
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from channelpay import Payee, PaymentMiddleware, PriceRule
from channelpay.payee import Coupons, PassPlan
from channelpay.payee.secret import kept_secret

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")


def article(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"Article {request.path_params['name']}\n")


payee = Payee.create(
    rpc=RPC,
    account=Account.from_key(os.environ["PUBLISHER_KEY"]),
    token="eth",
    prices=[PriceRule("/articles/*", "0.001", description="An article")],
    passes=[
        PassPlan("day", price="0.003", hours=24, paths="/articles/**", renew=True),
        PassPlan("three", price="0.002", uses=3, paths="/articles/**", refund_days=14),
    ],
    coupons=Coupons(gift_max="0.01"),
    store="sqlite:///books.sqlite3",
    challenge_secret=kept_secret(Path("challenge.key")),
)
app = PaymentMiddleware(Starlette(routes=[Route("/articles/{name}", article)]), payee)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8402")))
