"""Get paid, and give readers reasons to buy: discounts, credit, points, and prices up to a ceiling.

    PUBLISHER_KEY=0x... python examples/get_paid_discounts.py

PORT (default 8402), PUBLISHER_KEY and CHANNELPAY_RPC are those of get_paid.py. A price file says
the same with one [[incentive]] table for each: docs/how-to/discounts.md.
"""

import os

import uvicorn
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from channelpay import Payee, PaymentMiddleware, PriceRule
from channelpay.payee import Incentive

RPC = os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545")
WEI_PER_LETTER = 10**13


def article(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"Article {request.path_params['name']}\n")


async def shout(request: Request) -> PlainTextResponse:
    """Charges what was used, before it answers; the rest of the ceiling stays the reader's."""
    text = request.path_params["text"]
    await request.scope["channelpay"].charge(len(text) * WEI_PER_LETTER)
    return PlainTextResponse(f"{text.upper()}!\n")


payee = Payee.create(
    rpc=RPC,
    account=Account.from_key(os.environ["PUBLISHER_KEY"]),
    token="eth",
    prices=[
        PriceRule("/articles/*", "0.001", description="An article"),
        PriceRule("/shout/*", "0.001", description="0.00001 ETH a letter", up_to=True),
    ],
    incentives=[
        Incentive("first-free", count=1, deposit_min="0.01", day_max=1000),
        Incentive("volume", tiers=[{"count": 2, "percent": 20}, {"count": 20, "percent": 40}]),
        Incentive("cash-back", percent=10),
        Incentive("points", per="0.0001", worth="0.000005"),
    ],
    store="sqlite:///books.sqlite3",
)
routes = [Route("/articles/{name}", article), Route("/shout/{text}", shout)]
app = PaymentMiddleware(Starlette(routes=routes), payee)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8402")))
