"""Payments inside FastAPI, Flask and Django, each in its own way."""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path as django_path
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from flask import Flask, Response, request, stream_with_context

from channelpay.errors import ConfigError, InsufficientBalance
from channelpay.payee import PaymentMiddleware, PriceRule
from channelpay.payee import django as django_adapter
from channelpay.payee.blocking import PayeeOfProcess
from channelpay.payee.fastapi import PAYMENT_REQUIRED, CurrentPayment
from channelpay.payee.flask import current_payment
from channelpay.payee.wsgi import PaymentMiddleware as WsgiMiddleware
from channelpay.protocol.sse import NEED_VOUCHER, RECEIPT, EventReader
from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import VoucherPayload, parse_challenges
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import PRICE, Payer, Shop, opened_shop, receipt_of
from tests.payee.test_metering import Reading
from tests.payee.wsgi_client import WsgiClient

pytestmark = pytest.mark.anyio

RULES = [
    PriceRule("/free/**", "0"),
    PriceRule("/units/**", "0.01", unit="word"),
    PriceRule("/**", "0.01"),
]
WORDS = ("one", "two", "three", "four", "five")


@pytest.fixture
def shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    with opened_shop(furnished, tmp_path, payer, prices=RULES) as opened:
        yield opened


class WholeReading(Reading):
    """The request's body, which is empty, comes before anything else, as Django wants it."""

    _is_read = False

    async def _receive(self) -> dict[str, Any]:
        if not self._is_read:
            self._is_read = True
            return {"type": "http.request"}
        return await super()._receive()


# --- FastAPI -------------------------------------------------------------------------------


def _fastapi(shop: Shop) -> FastAPI:
    app = FastAPI()

    @app.get("/page", responses=PAYMENT_REQUIRED)
    @app.head("/page")
    async def page(payment: CurrentPayment) -> int:
        return payment.charged

    @app.get("/free/page")
    async def free(payment: CurrentPayment) -> int:
        return payment.charged

    @app.get("/units/words", responses=PAYMENT_REQUIRED)
    async def words(payment: CurrentPayment) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            for word in WORDS:
                await payment.charge(payment.price)
                yield f"data: {word}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    app.add_middleware(PaymentMiddleware, payee=shop.payee)
    return app


async def test_a_fastapi_handler_is_given_its_payment(shop: Shop) -> None:
    shop.middleware = _fastapi(shop)  # type: ignore[assignment]
    channel = await shop.opened()

    response = await shop.pay(channel, PRICE)

    assert (response.json(), receipt_of(response).spent) == (PRICE, PRICE)


async def test_fastapi_describes_that_a_payment_is_required(shop: Shop) -> None:
    operations = _fastapi(shop).openapi()["paths"]

    answer = operations["/page"]["get"]["responses"]["402"]
    assert "WWW-Authenticate" in answer["headers"]
    assert "application/problem+json" in answer["content"]
    assert operations["/page"]["get"].get("parameters") is None


async def test_a_fastapi_handler_of_a_free_path_has_no_payment(shop: Shop) -> None:
    transport = httpx2.ASGITransport(_fastapi(shop))
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        with pytest.raises(ConfigError, match="/free/page is served without a payment"):
            await client.get("/free/page")


async def test_a_fastapi_stream_takes_vouchers_though_its_route_knows_no_head(shop: Shop) -> None:
    shop.middleware = _fastapi(shop)  # type: ignore[assignment]
    channel = await shop.opened()

    await _reads_all_words(shop, channel)


async def _reads_all_words(shop: Shop, channel: Any) -> None:
    """A stream that pauses after its second word, until a voucher for all of them comes."""
    (challenge,) = shop.challenges("/units/words")
    first = shop.header(VoucherPayload(channel.sign(2 * PRICE)), challenge)
    reading = WholeReading(shop.middleware, "/units/words", {"Authorization": first})
    names = [(await reading.next()).name for _ in range(3)]

    rest = shop.header(VoucherPayload(channel.sign(5 * PRICE)), challenge)
    answered = await shop.get("/units/words", rest, method="HEAD")
    events = await reading.rest()

    assert names == ["", "", NEED_VOUCHER]
    assert answered.status_code == 204
    assert [event.data for event in events if event.name == ""] == list(WORDS[2:])
    assert events[-1].name == RECEIPT
    assert shop.spent(channel) == 5 * PRICE


# --- Flask ---------------------------------------------------------------------------------


def _flask() -> Flask:
    app = Flask("shop")

    @app.route("/page")
    @app.route("/free/page")
    def page() -> str:
        return str(current_payment().charged)

    @app.get("/units/early")
    def early() -> str:
        current_payment().charge(3 * PRICE)
        return "bought"

    @app.get("/units/words")
    def words() -> Response:
        payment = current_payment()

        def events() -> Iterator[str]:
            for word in WORDS:
                payment.charge(payment.price)
                yield f"data: {word} {request.args['of']}\n\n"

        return Response(stream_with_context(events()), mimetype="text/event-stream")

    return app


@pytest.fixture
def flask_client(shop: Shop) -> Iterator[WsgiClient]:
    middleware = WsgiMiddleware(_flask().wsgi_app, lambda: shop.payee)
    yield WsgiClient(shop, middleware)
    middleware.close()


def test_a_flask_view_knows_its_payment(flask_client: WsgiClient) -> None:
    response = flask_client.pay(flask_client.opened(), PRICE)

    assert (response.body, response.receipt.spent) == (str(PRICE).encode(), PRICE)


def test_a_flask_view_of_a_free_path_has_no_payment(shop: Shop) -> None:
    with (
        _flask().test_request_context("/free/page"),
        pytest.raises(ConfigError, match="/free/page is served without a payment"),
    ):
        current_payment()


def test_what_flask_reads_as_the_same_page_costs_the_same(flask_client: WsgiClient) -> None:
    # Flask takes leading slashes together, and writes methods in capitals.
    assert flask_client.get("//page").status == 402
    assert flask_client.get("///free/../page").status == 402


def test_a_page_that_flask_made_of_a_refused_charge_is_not_sent(flask_client: WsgiClient) -> None:
    channel = flask_client.opened()

    response = flask_client.pay(channel, 2 * PRICE, "/units/early")

    assert response.status == 402
    assert InsufficientBalance.code.encode() in response.body
    assert flask_client.shop.spent(channel) == 0


def test_a_flask_stream_keeps_its_context_while_it_waits(flask_client: WsgiClient) -> None:
    channel, reader = flask_client.opened(), EventReader()
    response = flask_client.start_paid(channel, 2 * PRICE, "/units/words?of=5")

    events = list(reader.feed(b"".join(next(response.pieces) for _ in range(4))))
    head = {"REQUEST_METHOD": "HEAD"}
    answered = flask_client.pay(channel, 5 * PRICE, "/units/words", head)
    events += reader.feed(response.read().body)

    assert answered.status == 204
    assert [event.name for event in events] == ["", "", NEED_VOUCHER, "", "", "", RECEIPT]
    assert [event.data for event in events if not event.name] == [f"{word} 5" for word in WORDS]


# --- Django --------------------------------------------------------------------------------

settings.configure(
    ALLOWED_HOSTS=["shop.example"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["channelpay.payee.django.PaymentMiddleware"],
    DATA_UPLOAD_MAX_MEMORY_SIZE=1000,
    LOGGING_CONFIG=None,
)


def _page(sent: HttpRequest) -> HttpResponse:
    if sent.method == "POST":
        return HttpResponse(sent.read())
    charged = str(sent.channelpay.charged)
    return HttpResponse(charged, headers={"Cache-Control": "public, max-age=60"})


def _sized(_: HttpRequest) -> HttpResponse:
    headers = {"Content-Length": "7", "X-Kept": "1", "CDN-Cache-Control": "max-age=60"}
    return HttpResponse("content", headers=headers)


def _missing(_: HttpRequest) -> HttpResponse:
    return HttpResponse("no", status=404)


def _raising(_: HttpRequest) -> HttpResponse:
    raise RuntimeError("the view is broken")


def _early(sent: HttpRequest) -> HttpResponse:
    sent.channelpay.charge(3 * PRICE)
    return HttpResponse("bought")


def _made_of_it(sent: HttpRequest) -> HttpResponse:
    try:
        sent.channelpay.charge(3 * PRICE)
    except InsufficientBalance:
        return HttpResponse("the view's own page", status=500)
    return HttpResponse("bought")


def _pieces(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([b"first ", b"second"]), headers={"X-Kept": "1"})


def _words(sent: HttpRequest) -> StreamingHttpResponse:
    def events() -> Iterator[str]:
        for word in WORDS:
            sent.channelpay.charge(PRICE)
            yield f"data: {word}\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def _words_async(sent: HttpRequest) -> StreamingHttpResponse:
    async def events() -> AsyncIterator[str]:
        for word in WORDS:
            await sent.channelpay.acharge(PRICE)
            yield f"data: {word}\n\n"

    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def _pieces_async(_: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"first "
        yield b"second"

    return StreamingHttpResponse(pieces())


urlpatterns = [
    django_path("page", _page),
    django_path("café", _page),
    django_path("free/page", lambda _: HttpResponse("free")),
    django_path("sized", _sized),
    django_path("missing", _missing),
    django_path("raising", _raising),
    django_path("pieces", _pieces),
    django_path("pieces-async", _pieces_async),
    django_path("units/early", _early),
    django_path("units/made-of-it", _made_of_it),
    django_path("units/words-sync", _words),
    django_path("units/words", _words_async),
]


@pytest.fixture
def django_client(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[WsgiClient]:
    payee_of_process = PayeeOfProcess(lambda: shop.payee)
    monkeypatch.setattr(django_adapter, "payee_of_process", payee_of_process)
    yield WsgiClient(shop, get_wsgi_application())
    payee_of_process.close()


@pytest.fixture
def django_shop(shop: Shop, django_client: WsgiClient) -> Shop:
    """Under ASGI."""
    shop.middleware = get_asgi_application()
    return shop


def test_a_django_view_knows_its_payment(django_client: WsgiClient) -> None:
    response = django_client.pay(django_client.opened(), PRICE)

    assert (response.body, response.receipt.spent) == (str(PRICE).encode(), PRICE)
    assert response.header("cache-control") == "private, max-age=60"
    sized = django_client.pay(django_client.opened(), PRICE, "/sized")
    assert (sized.body, sized.header("cdn-cache-control")) == (b"content", None)


@pytest.mark.parametrize("path", ["/page", "/caf%C3%A9", "//page", "/free/../page"])
def test_a_django_page_asks_for_payment_however_it_is_spelled(
    django_client: WsgiClient, path: str
) -> None:
    response = django_client.get(path)

    assert response.status == 402
    assert (response.header("www-authenticate") or "").startswith("Payment ")


def test_a_django_view_shows_nothing_of_a_priced_page_by_other_methods(
    django_client: WsgiClient,
) -> None:
    channel = django_client.opened()
    head, options = {"REQUEST_METHOD": "HEAD"}, {"REQUEST_METHOD": "OPTIONS"}

    for path in ("/sized", "/pieces"):
        promised = django_client.pay(channel, 0, path, head)
        free = django_client.get(path, options)
        assert (promised.status, promised.body) == (200, b"")
        assert (free.status, free.body, free.header("content-length")) == (200, b"", None)
        assert free.header("x-kept") == "1"
    assert django_client.pay(channel, 0, "/sized", head).header("content-length") == "7"
    assert django_client.get("/sized", head).body == b""
    assert django_client.get("/free/page", options).body == b"free"


async def test_an_asynchronous_django_view_shows_nothing_by_other_methods(
    django_shop: Shop,
) -> None:
    channel = await django_shop.opened()
    (challenge,) = django_shop.challenges("/pieces-async")
    header = django_shop.header(VoucherPayload(channel.sign(0)), challenge)

    for path in ("/pieces-async", "/sized"):
        assert (await django_shop.get(path, header, method="HEAD")).content == b""
        assert (await django_shop.get(path, method="OPTIONS")).content == b""


def test_the_body_of_a_stranger_does_not_reach_django(django_client: WsgiClient) -> None:
    channel, body = django_client.opened(), io.BytesIO(b"content")
    forged = replace(channel.sign(PRICE), cumulative_amount=2 * PRICE)
    header = django_client.shop.header(VoucherPayload(forged))
    sent = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "7", "wsgi.input": body}

    refused = django_client.get("/page", sent | {"HTTP_AUTHORIZATION": header})

    assert (refused.status, body.tell()) == (402, 0)


def test_a_free_django_page_needs_no_payment(django_client: WsgiClient) -> None:
    assert django_client.get("/free/page").body == b"free"


@pytest.mark.parametrize("path", ["/missing", "/raising"])
def test_a_django_view_that_fails_is_not_paid(django_client: WsgiClient, path: str) -> None:
    channel = django_client.opened()

    assert django_client.pay(channel, PRICE, path).status in (404, 500)
    assert django_client.shop.spent(channel) == 0


@pytest.mark.parametrize(("taken", "spent"), [(1, 0), (2, PRICE)])
def test_a_django_stream_is_paid_when_its_first_byte_is_sent(
    django_client: WsgiClient, taken: int, spent: int
) -> None:
    channel = django_client.opened()
    response = django_client.start_paid(channel, PRICE, "/pieces")

    for _ in range(taken):
        next(response.pieces)
    response.iterable.close()

    assert django_client.shop.spent(channel) == spent


def test_a_refused_charge_in_a_django_view_is_a_402_and_no_error_of_the_site(
    django_client: WsgiClient, caplog: pytest.LogCaptureFixture
) -> None:
    channel = django_client.opened()

    with caplog.at_level(logging.ERROR, "django.request"):
        response = django_client.pay(channel, 2 * PRICE, "/units/early")

    assert response.status == 402
    assert [one for one in caplog.records if one.name == "django.request"] == []
    assert InsufficientBalance.code.encode() in response.body
    assert django_client.shop.spent(channel) == 0


def test_a_page_that_a_django_view_made_of_a_refused_charge_is_not_sent(
    django_client: WsgiClient,
) -> None:
    channel = django_client.opened()

    assert django_client.pay(channel, 2 * PRICE, "/units/made-of-it").status == 402
    assert django_client.shop.spent(channel) == 0


@pytest.mark.parametrize(("size", "spent"), [(900, PRICE), (1100, 2 * PRICE)])
def test_a_retried_post_to_django_is_charged_once_if_its_body_can_be_compared(
    django_client: WsgiClient, size: int, spent: int
) -> None:
    channel, body = django_client.opened(), b"x" * size
    for _ in range(2):
        sent = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(size)}
        environ = sent | {"wsgi.input": io.BytesIO(body)}
        assert django_client.pay(channel, spent, environ=environ).body == body

    assert django_client.shop.spent(channel) == spent


def test_a_django_stream_asks_and_goes_on_when_a_voucher_comes(django_client: WsgiClient) -> None:
    channel, reader = django_client.opened(), EventReader()
    response = django_client.start_paid(channel, 2 * PRICE, "/units/words-sync")

    events = list(reader.feed(b"".join(next(response.pieces) for _ in range(4))))
    head = {"REQUEST_METHOD": "HEAD"}
    answered = django_client.pay(channel, 5 * PRICE, "/units/words-sync", head)
    events += reader.feed(response.read().body)

    assert answered.status == 204
    assert [event.name for event in events] == ["", "", NEED_VOUCHER, "", "", "", RECEIPT]
    assert django_client.shop.spent(channel) == 5 * PRICE


def test_django_offers_every_currency(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = to_hex(furnished.token)
    rules = [PriceRule("/**", {"eth": "0.001", token: "0.01"})]
    with opened_shop(
        furnished, tmp_path, payer, prices=rules, token=[token, "eth"], suggested_deposit=None
    ) as shop:
        payee_of_process = PayeeOfProcess(lambda: shop.payee)
        monkeypatch.setattr(django_adapter, "payee_of_process", payee_of_process)
        response = WsgiClient(shop, get_wsgi_application()).get("/page")
        payee_of_process.close()

    assert len(parse_challenges([response.header("www-authenticate") or ""])) == 2


async def test_django_gets_paid_under_asgi(django_shop: Shop) -> None:
    channel = await django_shop.opened()

    response = await django_shop.pay(channel, PRICE)

    assert (response.text, receipt_of(response).spent) == (str(PRICE), PRICE)
    assert (await django_shop.get("/page")).status_code == 402
    assert (await django_shop.pay(channel, 2 * PRICE, "/missing")).status_code == 404
    assert (await django_shop.pay(channel, 2 * PRICE, "/pieces-async")).text == "first second"
    assert django_shop.spent(channel) == 2 * PRICE


async def test_an_asynchronous_django_stream_asks_and_goes_on_when_a_voucher_comes(
    django_shop: Shop,
) -> None:
    await _reads_all_words(django_shop, await django_shop.opened())


async def test_an_asynchronous_django_stream_ends_with_its_client(django_shop: Shop) -> None:
    channel = await django_shop.opened()
    (challenge,) = django_shop.challenges("/units/words")
    header = django_shop.header(VoucherPayload(channel.sign(PRICE)), challenge)
    reading = WholeReading(django_shop.middleware, "/units/words", {"Authorization": header})
    await reading.next()

    reading._gone.set()
    await reading.rest()

    assert django_shop.spent(channel) == PRICE
