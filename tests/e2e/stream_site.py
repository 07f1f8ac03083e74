"""A site that sells words by the word: a stream, a whole answer at the end, and a plain body.

Started by tests/e2e/test_streams.py with uvicorn.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from channelpay import Payee, PaymentMiddleware, PriceRule

WORD_PRICE = "0.0001"


async def stream(request: Request) -> Response:
    """Server-sent events, each of which is charged before it is sent."""
    payment, count = request.scope["channelpay"], int(request.path_params["count"])

    async def words() -> AsyncIterator[bytes]:
        for number in range(count):
            await payment.charge(payment.price)
            yield f"data: word {number}\n\n".encode()

    return StreamingResponse(words(), media_type="text/event-stream")


async def whole(request: Request) -> Response:
    """An answer that is charged when it is complete, before its first byte."""
    payment, count = request.scope["channelpay"], int(request.path_params["count"])
    await payment.charge(count * payment.price)
    return PlainTextResponse(" ".join(f"word {number}" for number in range(count)))


async def body(request: Request) -> Response:
    """A body that is charged as it goes, and cannot ask for more."""
    payment, count = request.scope["channelpay"], int(request.path_params["count"])

    async def words() -> AsyncIterator[bytes]:
        for number in range(count):
            await payment.charge(payment.price)
            yield f"word {number}\n".encode()

    return StreamingResponse(words(), media_type="text/plain")


payee = Payee.create(
    rpc=os.environ["CHANNELPAY_RPC"],
    account=Account.from_key(os.environ["PUBLISHER_KEY"]),
    token="eth",
    prices=[PriceRule("/**", WORD_PRICE, unit="word", description="Words")],
    store="sqlite:///books.sqlite3",
    challenge_secret=bytes.fromhex(os.environ["CHALLENGE_SECRET"]),
)
app = PaymentMiddleware(
    Starlette(
        routes=[
            Route("/stream/{count}", stream, methods=["GET", "POST"]),
            Route("/whole/{count}", whole),
            Route("/body/{count}", body),
        ]
    ),
    payee,
)
