"""Get paid: a FastAPI application that sells articles, and answers by the token.

    PUBLISHER_KEY=0x... uvicorn examples.get_paid_fastapi:app --port 8402

/articles/NAME costs 0.001 ETH. /answers?question=... is a stream of events that costs 0.00001 ETH
for each token, charged before it is sent. The settings are those of get_paid.py.
"""

import os
from collections.abc import AsyncIterator

import uvicorn
from eth_account import Account
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

from channelpay import Payee, PaymentMiddleware, PriceRule
from channelpay.payee.fastapi import PAYMENT_REQUIRED, CurrentPayment

payee = Payee.create(
    rpc=os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545"),
    account=Account.from_key(os.environ["PUBLISHER_KEY"]),
    token="eth",
    prices=[PriceRule("/articles/*", "0.001"), PriceRule("/answers", "0.00001", unit="token")],
    store="sqlite:///books.sqlite3",
)
app = FastAPI(title="Articles and answers")
app.add_middleware(PaymentMiddleware, payee=payee)


@app.get("/articles/{name}", responses=PAYMENT_REQUIRED, response_class=PlainTextResponse)
async def article(name: str, payment: CurrentPayment) -> str:
    return f"Article {name}, paid for by 0x{payment.payer.hex()}\n"


async def tokens(question: str) -> AsyncIterator[str]:
    """A language model would stand here."""
    for word in f"You asked: {question} Here is an answer, token by token.".split():
        yield word


@app.get("/answers", responses=PAYMENT_REQUIRED)
async def answer(question: str, payment: CurrentPayment) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        async for token in tokens(question):
            await payment.charge(payment.price)
            yield f"data: {token}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8402")))
