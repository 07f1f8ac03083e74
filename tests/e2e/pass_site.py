"""A site whose passes get another token every moment, in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import uvicorn
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from channelpay import Payee, PaymentMiddleware, PriceRule
from channelpay.payee import PassPlan
from channelpay.payee.secret import kept_secret
from channelpay.protocol import passes

passes.TURN_MS = 100
passes.GRACE_MS = 300


def article(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.url.path}\n")


def main() -> None:
    payee = Payee.create(
        rpc=os.environ["CHANNELPAY_RPC"],
        account=Account.from_key(os.environ["PUBLISHER_KEY"]),
        token="eth",
        prices=[PriceRule("/**", "0.001")],
        passes=[
            PassPlan("hour", price="0.001", hours=1, paths="/articles/time/*"),
            PassPlan("nine", price="0.0009", uses=9, paths="/articles/count/*", renew=True),
        ],
        store="sqlite:///books.sqlite3",
        challenge_secret=kept_secret(Path("challenge.key")),
    )
    app = Starlette(routes=[Route("/articles/{kind}/{name}", article)])
    uvicorn.run(PaymentMiddleware(app, payee), port=int(os.environ["PORT"]))


if __name__ == "__main__":
    main()
