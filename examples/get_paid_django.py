"""Get paid: a Django site in one file that sells articles, and a poem by the line.

    PUBLISHER_KEY=0x... python examples/get_paid_django.py

/articles/NAME costs 0.001 ETH, /poem 0.0001 ETH for each line, charged before it is sent. The
settings are those of get_paid.py; the server is Django's own, for development.
"""

import os
import secrets
from collections.abc import Iterator

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from eth_account import Account

from channelpay import PriceRule

POEM = ("A channel opened once,", "a voucher for each line:", "one close takes it all.")

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=secrets.token_urlsafe(),
    MIDDLEWARE=["channelpay.payee.django.PaymentMiddleware"],
    CHANNELPAY={
        "rpc": os.environ.get("CHANNELPAY_RPC", "http://127.0.0.1:8545"),
        "account": Account.from_key(os.environ["PUBLISHER_KEY"]),
        "token": "eth",
        "prices": [PriceRule("/articles/*", "0.001"), PriceRule("/poem", "0.0001", unit="line")],
        "store": "sqlite:///books.sqlite3",
    },
)


def article(request: HttpRequest, name: str) -> HttpResponse:
    payer = request.channelpay.payer.hex()
    return HttpResponse(f"Article {name}, paid for by 0x{payer}\n", content_type="text/plain")


def poem(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[str]:
        for line in POEM:
            request.channelpay.charge(request.channelpay.price)
            yield f"data: {line}\n\n"

    return StreamingHttpResponse(lines(), content_type="text/event-stream")


urlpatterns = [path("articles/<name>", article), path("poem", poem)]
application = get_wsgi_application()

if __name__ == "__main__":
    port = os.environ.get("PORT", "8402")
    execute_from_command_line(["get_paid_django.py", "runserver", "--noreload", port])
