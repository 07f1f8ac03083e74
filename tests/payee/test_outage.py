"""The books cannot be written for a while: nobody is billed for that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from channelpay.payee import PaymentMiddleware, PriceRule
from channelpay.payee.asgi import Receive, Scope, Send
from channelpay.protocol.rules import Outcome
from channelpay.protocol.wire import VoucherPayload
from channelpay.store import sqlite as sqlite_module
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import PRICE, OpenChannel, Payer, Shop, opened_shop, wait_on_loop_for

pytestmark = pytest.mark.anyio

RULES = [PriceRule("/words", "0.01", unit="word"), PriceRule("/**", "0.01")]


class Outage:
    """An application behind the payee, and somebody who keeps the books to himself while it
    serves.
    """

    def __init__(self, books: Path) -> None:
        self._connection = sqlite3.connect(books, isolation_level=None)
        self.is_over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.is_over:
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            await self._serve(scope, send)
        finally:
            if not self.is_over:
                self._connection.execute("ROLLBACK")

    async def _serve(self, scope: Scope, send: Send) -> None:
        payment = scope["channelpay"]
        if scope["path"] == "/words":
            await payment.charge(payment.price)
        status = 500 if scope["path"] == "/error" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def shop(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    with opened_shop(furnished, tmp_path, payer, prices=RULES) as opened:
        yield opened


@pytest.fixture
async def channel(shop: Shop) -> OpenChannel:
    return await shop.opened()


@pytest.fixture
def outage(shop: Shop, channel: OpenChannel) -> Iterator[Outage]:
    """Begins once there is a channel."""
    with closing(Outage(shop.books)) as begun:
        shop.middleware = PaymentMiddleware(begun, shop.payee)
        yield begun


async def test_a_charge_that_could_not_be_given_back_is_given_back_later(
    shop: Shop, channel: OpenChannel, outage: Outage
) -> None:
    failed = await shop.pay(channel, PRICE, "/error")
    assert failed.status_code == 500
    assert [one.outcome for one in shop.payments(channel)] == [Outcome.CHARGED]

    outage.is_over = True
    served = await shop.pay(channel, 2 * PRICE)

    assert served.status_code == 200
    await wait_on_loop_for(lambda: shop.spent(channel) == PRICE)
    outcomes = [one.outcome for one in shop.payments(channel)]
    assert outcomes == [Outcome.RELEASED, Outcome.CHARGED]


async def test_what_is_still_to_be_given_back_is_so_when_the_payee_closes(
    shop: Shop, channel: OpenChannel, outage: Outage
) -> None:
    await shop.pay(channel, PRICE, "/error")

    shop.payee.close()

    assert [one.outcome for one in shop.payments(channel)] == [Outcome.RELEASED]


async def test_a_unit_that_cannot_be_charged_for_is_our_trouble(
    shop: Shop, channel: OpenChannel, outage: Outage
) -> None:
    (challenge,) = shop.challenges("/words")
    header = shop.header(VoucherPayload(channel.sign(PRICE)), challenge)

    refused = await shop.get("/words", header, key="one")

    assert refused.status_code == 503
    assert refused.json()["code"] == "store-unavailable"
    assert refused.headers["retry-after"]
    outage.is_over = True
    served = await shop.get("/words", header, key="one")
    assert (served.status_code, served.content) == (200, b"served")
    assert shop.spent(channel) == PRICE
