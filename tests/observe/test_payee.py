"""A whole payee: what it does is in its metrics, its access log and its readiness."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from channelpay.observe import Observers
from channelpay.observe.health import Health
from channelpay.observe.logs import ACCESS_LOGGER, AccessLog, JsonFormatter
from channelpay.observe.metrics import PrometheusObserver
from channelpay.protocol.text import to_hex
from channelpay.testing.furnished import FurnishedChain
from tests.observe.exposition import Samples, read, value
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer, Shop, opened_shop, wait_for

pytestmark = pytest.mark.anyio


@contextmanager
def observed(
    furnished: FurnishedChain, payer: Payer, directory: Path
) -> Iterator[tuple[Shop, PrometheusObserver]]:
    metrics = PrometheusObserver()
    observer = Observers([metrics, AccessLog()])
    with opened_shop(furnished, directory, payer, observer=observer) as shop:
        yield shop, metrics


def in_tokens(shop: Shop) -> dict[str, str]:
    (token,) = shop.payee.terms.tokens
    return {"token": to_hex(token.address), "symbol": token.symbol}


def outcomes(found: Samples) -> dict[str, float]:
    counts = {
        dict(labels)["outcome"]: count
        for (name, labels), count in found.items()
        if name == "channelpay_request_seconds_count"
    }
    return {outcome: count for outcome, count in counts.items() if count}


async def test_what_is_paid_released_and_refused_is_counted(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with observed(furnished, payer, tmp_path) as (shop, metrics):
        channel = await shop.opened()
        await shop.pay(channel, PRICE)
        await shop.pay(channel, 2 * PRICE, "/error")
        await shop.get("/page")
        await shop.pay(channel, 2 * DEPOSIT)
        found = read(metrics.registry)
        labels = in_tokens(shop)
    assert value(found, "payments_accepted_total", labels) == 2
    assert value(found, "charged_total", labels) == pytest.approx(0.02)
    assert value(found, "released_total", labels) == pytest.approx(0.01)
    assert value(found, "requests_refused_total", {"code": "payment-required"}) == 1
    assert value(found, "requests_refused_total", {"code": "amount-exceeds-deposit"}) == 1
    assert value(found, "channels_opened_total", labels) == 1
    assert value(found, "deposited_total", labels) == pytest.approx(1)
    assert value(found, "verify_seconds_count") == 4
    assert value(found, "commit_orders_sum") >= 3
    assert outcomes(found) == {"paid": 2, "released": 1, "refused": 2}


async def test_a_retry_is_no_second_payment(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with observed(furnished, payer, tmp_path) as (shop, metrics):
        channel = await shop.opened()
        for _ in range(3):
            assert (await shop.pay(channel, PRICE, key="one")).status_code == 200
        found = read(metrics.registry)
        assert value(found, "payments_accepted_total", in_tokens(shop)) == 1
        assert value(found, "charged_total", in_tokens(shop)) == pytest.approx(0.01)


async def test_top_ups_and_closes_are_counted_with_what_they_move(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with observed(furnished, payer, tmp_path) as (shop, metrics):
        channel = await shop.opened()
        assert (await shop.top_up(channel, payer.top_up(channel, PRICE))).status_code == 204
        assert (await shop.pay(channel, PRICE)).status_code == 200
        assert (await shop.close(channel, PRICE)).status_code == 200
        found = read(metrics.registry)
        labels = in_tokens(shop)
    assert value(found, "top_ups_total", labels) == 1
    assert value(found, "deposited_total", labels) == pytest.approx(1.01)
    assert value(found, "channels_closed_total", labels) == 1
    assert value(found, "settled_total", labels) == pytest.approx(0.01)
    assert outcomes(found) == {"paid": 2, "topped-up": 1, "closed": 1}


async def test_the_follower_says_how_far_it_is(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with observed(furnished, payer, tmp_path) as (shop, metrics):
        await shop.opened()
        latest = payer.sender.connection.latest_block().number

        def arrived() -> bool:
            return value(read(metrics.registry), "follower_block") == latest

        await asyncio.to_thread(wait_for, arrived)


async def pay_once(shop: Shop) -> OpenChannel:
    channel = await shop.opened()
    assert (await shop.pay(channel, PRICE)).status_code == 200
    return channel


async def test_a_paid_request_is_in_the_access_log_and_its_voucher_is_not(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=ACCESS_LOGGER)
    with observed(furnished, payer, tmp_path) as (shop, _):
        channel = await pay_once(shop)
    lines = [JsonFormatter().format(one) for one in caplog.records if one.name == ACCESS_LOGGER]
    line = json.loads(lines[-1])
    assert (line["status"], line["outcome"], line["price"]) == (200, "paid", "0.01 TUSD")
    assert line["channelId"] == to_hex(channel.id)
    assert channel.sign(PRICE).signature.hex() not in "".join(lines)


async def test_a_running_payee_is_ready_and_one_with_closed_books_is_not(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with observed(furnished, payer, tmp_path) as (shop, _):
        shop.middleware = Health(shop.middleware, shop.payee.checks)  # type: ignore[assignment]
        ready = await shop.get("/readyz")
        assert ready.status_code == 200, ready.text
        assert set(ready.json()["checks"]) == {"books", "chain", "disk"}
        checks = shop.payee.checks
    shop.middleware = Health(shop.middleware, checks)  # type: ignore[assignment]
    response = await shop.get("/readyz")
    assert response.status_code == 503
    assert response.json()["checks"]["books"] == {"ok": False, "detail": "Books Unavailable"}
