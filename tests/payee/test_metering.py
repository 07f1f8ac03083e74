"""Responses that are charged as they go."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from channelpay.errors import InsufficientBalance, InvalidChallenge
from channelpay.payee import PaymentMiddleware, PriceRule, payment
from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.protocol.sse import NEED_VOUCHER, RECEIPT, Event, EventReader, NeedVoucher
from channelpay.protocol.wire import VoucherPayload
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import (
    PRICE,
    OpenChannel,
    Payer,
    Shop,
    challenges_of,
    opened_shop,
    receipt_of,
)

pytestmark = pytest.mark.anyio

RULES = [
    PriceRule("/words", "0.01", unit="word"),
    PriceRule("/chunks", "0.01", unit="word"),
    PriceRule("/early", "0.01", unit="word"),
    PriceRule("/caught", "0.01", unit="word"),
    PriceRule("/split", "0.01", unit="word"),
    PriceRule("/fails", "0.01", unit="word"),
    PriceRule("/**", "0.01"),
]
WORDS = ("one", "two", "three", "four", "five")


async def _words(request: Request) -> Response:
    paid = request.scope["channelpay"]

    async def events() -> AsyncIterator[bytes]:
        for word in WORDS:
            await paid.charge(paid.price)
            yield f"data: {word}\n\n".encode()

    return StreamingResponse(events(), media_type="text/event-stream")


async def _chunks(request: Request) -> Response:
    paid = request.scope["channelpay"]

    async def chunks() -> AsyncIterator[bytes]:
        for word in WORDS:
            await paid.charge(paid.price)
            yield word.encode()

    return StreamingResponse(chunks(), media_type="text/plain")


async def _split(request: Request) -> Response:
    """Charges in the middle of an event, where nothing may be put in."""
    paid = request.scope["channelpay"]

    async def events() -> AsyncIterator[bytes]:
        for word in WORDS:
            yield b"data: "
            await paid.charge(paid.price)
            yield f"{word}\n\n".encode()

    return StreamingResponse(events(), media_type="text/event-stream")


async def _early(request: Request) -> Response:
    """Charges more than is there before it answers."""
    paid = request.scope["channelpay"]
    await paid.charge(3 * paid.price)
    return PlainTextResponse("bought")


async def _caught(request: Request) -> Response:
    paid = request.scope["channelpay"]
    try:
        await paid.charge(3 * paid.price)
    except InsufficientBalance:
        return PlainTextResponse("a sample")
    return PlainTextResponse("bought")


async def _fails(request: Request) -> Response:
    paid = request.scope["channelpay"]
    await paid.charge(paid.price)
    return PlainTextResponse("broken", status_code=500)


async def _page(_: Request) -> Response:
    return PlainTextResponse("a page")


async def _whole(request: Request) -> Response:
    await request.scope["channelpay"].charge(1)
    return PlainTextResponse("never")


APPLICATION = Starlette(
    routes=[
        Route("/words", _words),
        Route("/chunks", _chunks),
        Route("/split", _split),
        Route("/early", _early),
        Route("/caught", _caught),
        Route("/fails", _fails),
        Route("/page", _page),
        Route("/whole", _whole),
    ]
)


@pytest.fixture
def shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    with opened_shop(furnished, tmp_path, payer, prices=RULES) as opened:
        opened.middleware = PaymentMiddleware(APPLICATION, opened.payee)
        yield opened


class Reading:
    """A stream that is read while it is written: one request in a task of its own."""

    def __init__(self, app: App, path: str, headers: dict[str, str]) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.status = 0
        self.broke_off = False
        self._reader = EventReader()
        self._app, self._gone = app, asyncio.Event()
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", b"shop.example"), *raw],
        }
        self.task = asyncio.ensure_future(self._run(scope))

    async def _run(self, scope: Scope) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001  a server closes the connection then
            self.broke_off = True

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        for event in self._reader.feed(message.get("body", b"")):
            self.events.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self.events.get(), 20)

    async def rest(self) -> list[Event]:
        await asyncio.wait_for(self.task, 60)
        return [self.events.get_nowait() for _ in range(self.events.qsize())]


async def _read(
    shop: Shop, channel: OpenChannel, cumulative: int, path: str = "/words", **more: str
) -> Reading:
    (challenge,) = shop.challenges(path)
    header = shop.header(VoucherPayload(channel.sign(cumulative)), challenge)
    headers = {"Authorization": header, "Idempotency-Key": str(uuid4())} | more
    return Reading(shop.middleware, path, headers)


async def _send_voucher(
    shop: Shop, channel: OpenChannel, cumulative: int, path: str = "/words"
) -> httpx2.Response:
    (challenge,) = shop.challenges(path)
    header = shop.header(VoucherPayload(channel.sign(cumulative)), challenge)
    return await shop.get("/words", header, method="HEAD")


def _data(events: list[Event]) -> list[str]:
    return [event.data or "" for event in events if event.name == ""]


async def test_a_stream_with_enough_credit_is_charged_by_the_unit(shop: Shop) -> None:
    channel = await shop.opened()

    reading = await _read(shop, channel, 9 * PRICE)
    events = await reading.rest()

    assert _data(events) == list(WORDS)
    assert shop.spent(channel) == len(WORDS) * PRICE
    last = events[-1]
    assert last.name == RECEIPT
    assert json.loads(last.data or "")["spent"] == str(len(WORDS) * PRICE)


async def test_a_stream_without_credit_asks_and_goes_on_when_a_voucher_comes(shop: Shop) -> None:
    channel = await shop.opened()
    reading = await _read(shop, channel, 2 * PRICE)

    words = [await reading.next() for _ in range(2)]
    asked = await reading.next()
    need = NeedVoucher.from_json(asked.data or "")
    answered = await _send_voucher(shop, channel, 5 * PRICE)
    events = await reading.rest()

    assert asked.name == NEED_VOUCHER
    assert (need.channel_id, need.accepted, need.required) == (channel.id, 2 * PRICE, 3 * PRICE)
    assert answered.status_code == 204
    assert receipt_of(answered).accepted == 5 * PRICE
    assert _data([*words, *events]) == list(WORDS)
    assert shop.spent(channel) == 5 * PRICE


async def test_a_voucher_that_another_worker_took_counts(
    shop: Shop, furnished: FurnishedChain, payer: Payer
) -> None:
    channel = await shop.opened()
    reading = await _read(shop, channel, PRICE)
    await reading.next()
    await reading.next()

    with opened_shop(furnished, shop.books.parent, payer, prices=RULES) as other:
        other.middleware = PaymentMiddleware(APPLICATION, other.payee)
        response = await _send_voucher(other, channel, 9 * PRICE)
        events = await reading.rest()

    assert response.status_code == 204
    assert _data(events) == list(WORDS[1:])


async def test_a_voucher_that_is_too_small_is_asked_about_again(shop: Shop) -> None:
    channel = await shop.opened()
    reading = await _read(shop, channel, PRICE)
    await reading.next()
    first = NeedVoucher.from_json((await reading.next()).data or "")

    await _send_voucher(shop, channel, PRICE + 1)
    second = NeedVoucher.from_json((await reading.next()).data or "")
    await _send_voucher(shop, channel, 5 * PRICE)

    assert (first.accepted, second.accepted) == (PRICE, PRICE + 1)
    assert first.required == second.required == 2 * PRICE
    assert _data(await reading.rest()) == list(WORDS[1:])


async def test_vouchers_that_are_too_small_do_not_keep_a_stream_open(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment, "NEED_VOUCHER_SECONDS", 1.0)
    channel = await shop.opened()
    reading = await _read(shop, channel, PRICE)
    began = time.monotonic()

    raised = 0
    while not reading.task.done() and time.monotonic() < began + 10:
        raised += 1
        await _send_voucher(shop, channel, PRICE + raised)

    assert reading.task.done()
    assert (await reading.rest())[-1].name == RECEIPT
    assert time.monotonic() < began + 5
    assert shop.spent(channel) == PRICE


async def test_a_stream_that_nobody_pays_for_ends_with_its_receipt(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment, "NEED_VOUCHER_SECONDS", 0.1)
    channel = await shop.opened()

    reading = await _read(shop, channel, 2 * PRICE)
    events = await reading.rest()

    assert not reading.broke_off
    assert [event.name for event in events] == ["", "", NEED_VOUCHER, RECEIPT]
    assert shop.spent(channel) == 2 * PRICE


async def test_what_a_repeated_stream_paid_already_is_not_charged_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment, "NEED_VOUCHER_SECONDS", 0.1)
    channel = await shop.opened()
    key = str(uuid4())
    broken = await _read(shop, channel, 2 * PRICE, **{"Idempotency-Key": key})
    await broken.rest()

    repeated = await _read(shop, channel, 5 * PRICE, **{"Idempotency-Key": key})
    events = await repeated.rest()

    assert _data(events) == list(WORDS)
    assert shop.spent(channel) == 5 * PRICE
    assert [one.price for one in shop.payments(channel)] == [5 * PRICE]


async def test_a_plain_response_without_credit_breaks_off(shop: Shop) -> None:
    channel = await shop.opened()

    reading = await _read(shop, channel, 2 * PRICE, "/chunks")
    await reading.rest()

    assert reading.status == 200
    assert reading.broke_off
    assert shop.spent(channel) == 2 * PRICE


async def test_nothing_is_put_into_the_middle_of_an_event(shop: Shop) -> None:
    channel = await shop.opened()

    reading = await _read(shop, channel, 2 * PRICE, "/split")
    events = await reading.rest()

    assert NEED_VOUCHER not in [event.name for event in events]
    assert _data(events)[:2] == list(WORDS[:2])


async def test_a_charge_before_the_response_that_fails_is_a_402(shop: Shop) -> None:
    channel = await shop.opened()
    (challenge,) = shop.challenges("/early")
    header = shop.header(VoucherPayload(channel.sign(2 * PRICE)), challenge)

    response = await shop.get("/early", header, key="k")

    assert (response.status_code, response.json()["code"]) == (402, InsufficientBalance.code)
    assert "www-authenticate" in response.headers
    assert shop.spent(channel) == 0


async def test_an_application_may_catch_the_refusal(shop: Shop) -> None:
    channel = await shop.opened()
    (challenge,) = shop.challenges("/caught")
    header = shop.header(VoucherPayload(channel.sign(2 * PRICE)), challenge)

    response = await shop.get("/caught", header, key="k")

    assert (response.status_code, response.text) == (200, "a sample")
    assert receipt_of(response).spent == 0


async def test_what_was_charged_for_a_response_that_failed_goes_back(shop: Shop) -> None:
    channel = await shop.opened()
    (challenge,) = shop.challenges("/fails")
    header = shop.header(VoucherPayload(channel.sign(2 * PRICE)), challenge)

    response = await shop.get("/fails", header, key="k")

    assert response.status_code == 500
    assert shop.spent(channel) == 0


async def test_no_stream_begins_without_credit_for_one_unit(shop: Shop) -> None:
    channel = await shop.opened()
    (challenge,) = shop.challenges("/words")

    response = await shop.get(
        "/words", shop.header(VoucherPayload(channel.sign(PRICE - 1)), challenge), key="k"
    )

    assert (response.status_code, response.json()["code"]) == (402, InsufficientBalance.code)


async def test_a_challenge_per_request_does_not_pay_for_units(shop: Shop) -> None:
    channel = await shop.opened()
    (challenge,) = shop.challenges("/page")
    header = shop.header(VoucherPayload(channel.sign(9 * PRICE)), challenge)

    response = await shop.get("/words", header, key="k")

    assert (response.status_code, response.json()["code"]) == (402, InvalidChallenge.code)
    assert shop.spent(channel) == 0


async def test_what_was_paid_as_a_whole_is_not_charged_by_the_unit(shop: Shop) -> None:
    channel = await shop.opened()

    response = await shop.pay(channel, 5 * PRICE, "/whole")

    assert response.status_code == 500
    assert shop.spent(channel) == 0


async def test_a_stream_that_answers_a_post_gets_its_vouchers_by_head(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    rules = [PriceRule("/words", "0.01", method="POST", unit="word"), PriceRule("/page", "0.01")]
    with opened_shop(furnished, tmp_path, payer, prices=rules) as shop:
        shop.middleware = PaymentMiddleware(APPLICATION, shop.payee)
        channel = await shop.opened()
        asked = await shop.get("/words", method="HEAD")
        header = shop.header(VoucherPayload(channel.sign(PRICE)), challenges_of(asked)[0])
        answered = await shop.get("/words", header, method="HEAD")

    assert (asked.status_code, answered.status_code) == (402, 204)


async def test_a_client_that_is_gone_is_not_waited_for(shop: Shop) -> None:
    channel = await shop.opened()
    reading = await _read(shop, channel, PRICE)
    await reading.next()
    await reading.next()

    reading._gone.set()
    await reading.rest()

    assert shop.spent(channel) == PRICE


async def test_a_charge_that_is_broken_off_gives_nothing_back_of_those_before_it(
    shop: Shop,
) -> None:
    """Servers cancel the application of a client that is gone, which picks the moment."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        paid = scope["channelpay"]
        kind = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        for turns in range(8):
            await paid.charge(PRICE)
            charging = asyncio.ensure_future(paid.charge(0))
            for _ in range(turns):
                await asyncio.sleep(0)
            charging.cancel()
            await asyncio.wait([charging])

    shop.middleware = PaymentMiddleware(application, shop.payee)
    channel = await shop.opened()

    await (await _read(shop, channel, 9 * PRICE)).rest()

    assert shop.spent(channel) == 8 * PRICE
