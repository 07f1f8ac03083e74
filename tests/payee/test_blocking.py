"""A payee on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from channelpay.errors import NetworkError
from channelpay.payee import Payee
from channelpay.payee.blocking import PayeeOfProcess, PayeeThread, ReadBody
from channelpay.payee.checkout import Answer
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid
from channelpay.protocol.rules import Outcome
from channelpay.protocol.wire import VoucherPayload
from tests.payee.shop import PRICE, OpenChannel, Shop, wait_for

pytestmark = pytest.mark.anyio


@pytest.fixture
def thread(shop: Shop) -> Iterator[PayeeThread]:
    started = PayeeThread(shop.payee)
    yield started
    started.close()


def _order(shop: Shop, header: str) -> tuple[Request, Quote, str | None, ReadBody]:
    request = Request("GET", "/page", headers=[(b"authorization", header.encode())])
    quote = shop.payee.quote(request)
    assert quote is not None
    return request, quote, None, str


def _opened(shop: Shop, thread: PayeeThread) -> OpenChannel:
    channel = shop.payer.open()
    header = shop.header(channel.open_payload(0), source=channel.source)
    request, quote, client, read_body = _order(shop, header)
    quote = Quote(quote.prices, charged=False)
    assert isinstance(thread.pay(request, quote, client, read_body), Paid)
    return channel


def _paying(
    shop: Shop, channel: OpenChannel, cumulative: int = PRICE
) -> tuple[Request, Quote, str | None, ReadBody]:
    return _order(shop, shop.header(VoucherPayload(channel.sign(cumulative))))


def test_a_request_is_paid_from_any_thread(shop: Shop, thread: PayeeThread) -> None:
    channel = _opened(shop, thread)
    headers = [shop.header(VoucherPayload(channel.sign(number * PRICE))) for number in range(1, 21)]

    with ThreadPoolExecutor(8) as threads:
        paid = list(threads.map(lambda header: thread.pay(*_order(shop, header)), headers))

    assert [type(one) for one in paid] == [Paid] * 20
    assert shop.spent(channel) == 20 * PRICE


def test_what_was_bought_for_an_interrupted_thread_goes_back(
    shop: Shop, thread: PayeeThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers end a worker's request by a signal."""
    channel, pay = _opened(shop, thread), thread.checkout.pay
    told, interrupted = threading.Event(), threading.Event()

    async def delayed(*order: Any) -> Paid | Answer:
        paid = await pay(*order)
        while not told.is_set():  # Nobody sees a signal that comes just before the thread waits.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            await asyncio.to_thread(told.wait, 5)
        await asyncio.to_thread(interrupted.wait, 20)
        return paid

    def interrupt(*_: object) -> None:
        told.set()
        raise InterruptedError

    monkeypatch.setattr(thread.checkout, "pay", delayed)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(InterruptedError):
            thread.pay(*_paying(shop, channel))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert shop.spent(channel) == PRICE
    interrupted.set()

    wait_for(lambda: shop.spent(channel) == 0)
    assert [one.outcome for one in shop.payments(channel)] == [Outcome.RELEASED]


async def test_what_was_bought_for_a_cancelled_task_goes_back(
    shop: Shop, thread: PayeeThread
) -> None:
    channel = await asyncio.to_thread(_opened, shop, thread)
    outcomes = []
    for turns in range(12):
        order = _paying(shop, channel, (turns + 1) * PRICE)
        paying = asyncio.ensure_future(thread.pay_async(*order))
        for _ in range(turns):
            await asyncio.sleep(0)
        paying.cancel()
        await asyncio.wait([paying])
        # The payee's thread may be done before the task is cancelled.
        outcomes.append(Outcome.RELEASED if paying.cancelled() else Outcome.CHARGED)

    # Not even begun is the one that was cancelled before its first turn.
    assert outcomes.pop(0) is Outcome.RELEASED
    assert Outcome.RELEASED in outcomes
    await asyncio.to_thread(
        wait_for, lambda: [one.outcome for one in shop.payments(channel)] == outcomes
    )


def test_nobody_waits_for_a_body_that_could_not_be_read(shop: Shop, thread: PayeeThread) -> None:
    def read_body() -> str:
        raise ConnectionResetError

    request, quote, client, _ = _paying(shop, _opened(shop, thread))
    with pytest.raises(ConnectionResetError) as raised:
        thread.pay(replace(request, method="POST"), quote, client, read_body)

    wait_for(lambda: not asyncio.all_tasks(thread._loop))
    # Its frames hold what was handed over: a task that waits would not just be collected.
    assert raised.tb is not None


def test_a_payee_is_opened_once_by_whoever_asks_first(shop: Shop) -> None:
    opened: list[Payee] = []

    def open_payee() -> Payee:
        opened.append(shop.payee)
        return shop.payee

    process = PayeeOfProcess(open_payee)
    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: process.thread(), range(32)))
    process.close()

    assert (len(opened), len(found)) == (1, 1)


def test_a_payee_that_could_not_be_opened_is_opened_by_the_next_request(shop: Shop) -> None:
    attempts = iter([NetworkError("the node does not answer"), None])

    def open_payee() -> Payee:
        if (error := next(attempts)) is not None:
            raise error
        return shop.payee

    process = PayeeOfProcess(open_payee)
    with pytest.raises(NetworkError):
        process.thread()

    assert process.thread().checkout.payee is shop.payee
    process.close()
