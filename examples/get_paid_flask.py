"""Get paid: a Flask application that sells articles, and a poem by the line.

    PUBLISHER_KEY=0x... python examples/get_paid_flask.py

/articles/NAME costs 0.001 ETH, /poem 0.0001 ETH for each line, charged before it is sent. The
settings are those of get_paid.py; the server is Flask's own, for development.
"""

import os
from collections.abc import Iterator

from eth_account import Account
from flask import Flask, Response

from channelpay import Payee, PriceRule
from channelpay.payee.flask import current_payment
from channelpay.payee.wsgi import PaymentMiddleware

POEM = ("A channel opened once,", "a voucher for each line:", "one close takes it all.")


def open_payee() -> Payee:
    return Payee.create(
        rpc=os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545"),
        account=Account.from_key(os.environ["PUBLISHER_KEY"]),
        token="eth",
        prices=[PriceRule("/articles/*", "0.001"), PriceRule("/poem", "0.0001", unit="line")],
        store="sqlite:///books.sqlite3",
    )


app = Flask(__name__)
app.wsgi_app = PaymentMiddleware(app.wsgi_app, open_payee)  # type: ignore[method-assign]


@app.get("/articles/<name>")
def article(name: str) -> Response:
    payer = current_payment().payer.hex()
    return Response(f"Article {name}, paid for by 0x{payer}\n", mimetype="text/plain")


@app.get("/poem")
def poem() -> Response:
    payment = current_payment()

    def lines() -> Iterator[str]:
        for line in POEM:
            payment.charge(payment.price)
            yield f"data: {line}\n\n"

    return Response(lines(), mimetype="text/event-stream")


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "8402")))
