"""What every way to pay for a request has to do, against a paid site over HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests
from eth_account import Account
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from channelpay import (
    NATIVE,
    ChannelPayAdapter,
    ChannelPayAuth,
    Limits,
    Payee,
    Payer,
    PaymentMiddleware,
    PriceRule,
)
from channelpay.errors import BudgetExceeded, InputError
from channelpay.payer import driver
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.testing import FurnishedChain, fake_chain, furnish, serving_site
from channelpay.testing.sites import PaidSite
from tests.payer.client_kinds import EVERY_CLIENT, WITH_BODIES, Client, Got, Lost

PAGE = 10**15
WORD = 10**13
LIMITS = Limits(
    NATIVE,
    price_max=PAGE,
    deposit=10 * PAGE,
    top_up=10 * PAGE,
    deposit_max=200 * PAGE,
    metered_max=100 * WORD,
)
PRICES = [
    PriceRule("/pages/*", "0.001"),
    PriceRule("/dear", "0.1"),
    PriceRule("/words/*", "0.00001", unit="word"),
]


class Behaviour:
    """What the application does, by request, and what it saw."""

    def __init__(self) -> None:
        self.troubles = 0
        self.breaks = 0
        self.seen: list[tuple[str, bytes]] = []

    async def page(self, request: Request) -> Response:
        body = await request.body()
        self.seen.append((request.url.path, body))
        if self.troubles:
            self.troubles -= 1
            return PlainTextResponse("later", 500)
        if self.breaks:
            self.breaks -= 1
            return StreamingResponse(_broken_off())
        return PlainTextResponse(f"{request.url.path} {len(body)}")

    async def words(self, request: Request) -> Response:
        payment, count = request.scope["channelpay"], int(request.path_params["count"])

        async def sold() -> AsyncIterator[bytes]:
            for number in range(count):
                await payment.charge(WORD)
                yield b"data: %d\n\n" % number

        return StreamingResponse(sold(), media_type="text/event-stream")


async def _broken_off() -> AsyncIterator[bytes]:
    yield b"the beg"
    raise ConnectionAbortedError


async def free(request: Request) -> Response:
    return PlainTextResponse("for everybody")


async def moved(request: Request) -> Response:
    return RedirectResponse("/pages/there", 307)


@pytest.fixture(scope="module")
def chain() -> Iterator[FurnishedChain]:
    with fake_chain() as chain:
        yield furnish(chain)


@pytest.fixture(scope="module")
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture(scope="module")
def site(
    chain: FurnishedChain, behaviour: Behaviour, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PaidSite]:
    books = f"sqlite:///{tmp_path_factory.mktemp('payee') / 'books.sqlite3'}"
    routes = [
        Route("/pages/moved", moved),
        Route("/pages/{name}", behaviour.page, methods=["GET", "POST"]),
        Route("/dear", behaviour.page),
        Route("/words/{count}", behaviour.words),
        Route("/free", free),
        Route("/moved", moved, methods=["GET", "POST"]),
    ]
    payee = Payee.create(
        rpc=chain.chain.rpc_url,
        account=Account.from_key(chain.chain.accounts[2].private_key),
        token="eth",
        prices=PRICES,
        store=books,
        contract=to_hex(chain.contract),
    )
    with closing(payee), serving_site(PaymentMiddleware(Starlette(routes=routes), payee)) as url:
        yield PaidSite(url, books)


@pytest.fixture
def payer(chain: FurnishedChain, tmp_path: Path) -> Iterator[Payer]:
    """Somebody without a channel."""
    key, books = chain.chain.accounts[1].private_key, tmp_path / "payer.sqlite3"
    made = Payer(key, chain.chain.rpc_url, books, limits=[LIMITS], contract=chain.contract)
    with closing(made):
        yield made


def books_of(payer: Payer, site: PaidSite) -> ChannelRecord:
    """The payee's books of the payer's one channel, which agree with the payer's own."""
    (ours,) = payer.state.channels(payer.address)
    (theirs,) = (one for one in site.channels() if one.channel_id == ours.channel_id)
    assert (ours.spent, ours.signed) == (theirs.spent, theirs.accepted)
    assert (ours.in_flight, ours.deposit) == (0, theirs.chain.deposit)
    return theirs


def cost(got: Got) -> int:
    assert got.paid is not None
    return got.paid.cost


every_client = pytest.mark.parametrize("client", EVERY_CLIENT)
those_with_bodies = pytest.mark.parametrize("client", WITH_BODIES)


@every_client
def test_the_first_request_opens_a_channel_and_the_next_ones_use_it(
    client: Client, payer: Payer, site: PaidSite, behaviour: Behaviour
) -> None:
    behaviour.seen.clear()
    answers = [client(payer, site.page(f"/pages/{number}")) for number in range(3)]

    assert [(one.status, one.content) for one in answers] == [
        (200, b"/pages/%d 0" % number) for number in range(3)
    ]
    assert [cost(one) for one in answers] == [PAGE] * 3
    assert (books_of(payer, site).spent, len(behaviour.seen)) == (3 * PAGE, 3)


@every_client
def test_a_channel_that_is_used_up_is_topped_up(
    client: Client, payer: Payer, site: PaidSite
) -> None:
    answers = [client(payer, site.page("/pages/again")) for _ in range(11)]

    assert [cost(one) for one in answers] == [PAGE] * 11
    assert books_of(payer, site).chain.deposit == 20 * PAGE


@every_client
def test_what_is_free_costs_nothing(client: Client, payer: Payer, site: PaidSite) -> None:
    got = client(payer, site.page("/free"))

    assert (got.status, got.content, got.paid) == (200, b"for everybody", None)
    assert payer.state.channels(payer.address) == []


@every_client
def test_a_price_over_the_limit_is_an_error_and_nothing_is_signed(
    client: Client, payer: Payer, site: PaidSite
) -> None:
    with pytest.raises(BudgetExceeded):
        client(payer, site.page("/dear"))
    assert payer.state.channels(payer.address) == []


@every_client
def test_a_page_that_fails_is_not_charged_and_what_was_signed_buys_the_next(
    client: Client, payer: Payer, site: PaidSite, behaviour: Behaviour
) -> None:
    behaviour.troubles = 1
    try:
        failed: Got | None = client(payer, site.page("/pages/one"))
    except Lost:
        failed = None
    assert failed is None or (failed.status, failed.paid) == (500, None)

    assert cost(client(payer, site.page("/pages/one"))) == PAGE
    assert (books_of(payer, site).spent, books_of(payer, site).accepted) == (PAGE, PAGE)


@every_client
def test_a_request_that_is_repeated_with_its_key_is_paid_once(
    client: Client, payer: Payer, site: PaidSite, behaviour: Behaviour
) -> None:
    behaviour.breaks = 1
    with pytest.raises(Lost):
        client(payer, site.page("/pages/one"), key="the one")
    assert client(payer, site.page("/pages/one"), key="the one").content == b"/pages/one 0"
    assert books_of(payer, site).spent == PAGE


@every_client
def test_a_key_that_bought_something_else_is_refused(
    client: Client, payer: Payer, site: PaidSite
) -> None:
    client(payer, site.page("/pages/one"), key="the one")
    got = client(payer, site.page("/pages/two"), key="the one")

    assert (got.status, got.paid) == (409, None)
    (ours,) = payer.state.channels(payer.address)
    assert (ours.spent, ours.in_flight) == (PAGE, 0)


@every_client
def test_a_redirect_that_is_sold_and_what_it_leads_to_are_paid_once_each_for_one_key(
    client: Client, payer: Payer, site: PaidSite
) -> None:
    for _ in range(2):
        got = client(payer, site.page("/pages/moved"), key="the one")
        assert (got.url, got.content) == (site.page("/pages/there"), b"/pages/there 0")
    assert books_of(payer, site).spent == 2 * PAGE


@every_client
def test_a_redirect_is_paid_where_it_leads_and_once_for_one_key(
    client: Client, payer: Payer, site: PaidSite
) -> None:
    for _ in range(2):
        got = client(payer, site.page("/moved"), key="the one")
        assert (got.url, got.content) == (site.page("/pages/there"), b"/pages/there 0")
    assert books_of(payer, site).spent == PAGE


@every_client
def test_a_stream_is_paid_by_the_unit_and_its_vouchers_are_not_seen(
    client: Client, payer: Payer, site: PaidSite
) -> None:
    got = client(payer, site.page("/words/40"))

    assert got.content == b"".join(b"data: %d\n\n" % number for number in range(40))
    assert cost(got) == 40 * WORD
    (ours,) = payer.state.channels(payer.address)
    assert (ours.spent, ours.in_flight) == (40 * WORD, 0)


@every_client
def test_a_stream_ends_with_an_error_at_the_limit(
    client: Client, payer: Payer, site: PaidSite
) -> None:
    with pytest.raises(BudgetExceeded, match="had cost up to"):
        client(payer, site.page("/words/101"))
    (ours,) = payer.state.channels(payer.address)
    assert (ours.signed <= 100 * WORD, ours.in_flight) == (True, 0)


@those_with_bodies
@pytest.mark.parametrize("kind", ["bytes", "file", "chunks"])
def test_the_body_comes_again_with_the_payment(
    client: Client, payer: Payer, site: PaidSite, behaviour: Behaviour, kind: str
) -> None:
    bodies: dict[str, Any] = {
        "bytes": b"12345",
        "file": BytesIO(b"12345"),
        "chunks": (chunk for chunk in (b"123", b"45")),
    }
    if kind == "file" and client.__name__ == "httpx_asynchronous":
        pytest.skip("an asynchronous client takes no blocking file")
    behaviour.seen.clear()
    got = client(payer, site.page("/pages/form"), body=bodies[kind])

    assert (got.content, cost(got)) == (b"/pages/form 5", PAGE)
    assert behaviour.seen == [("/pages/form", b"12345")]


@those_with_bodies
def test_a_body_that_is_too_large_to_be_kept_is_refused_before_it_is_sent(
    client: Client, payer: Payer, site: PaidSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "BODY_BYTES_MAX", 10)
    with pytest.raises(InputError, match="over 10 bytes"):
        client(payer, site.page("/pages/form"), body=(b"12345678" for _ in range(2)))
    assert payer.state.channels(payer.address) == []


def test_a_hundred_tasks_of_one_client_sign_once_each(payer: Payer, site: PaidSite) -> None:
    payer.allow(replace(LIMITS, deposit=100 * PAGE))

    async def fetch() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(auth=ChannelPayAuth(payer), timeout=60) as client:
            return await asyncio.gather(
                *(client.get(site.page(f"/pages/{number}")) for number in range(100))
            )

    answers = asyncio.run(fetch())

    assert [one.status_code for one in answers] == [200] * 100
    assert [one.extensions["channelpay"].cost for one in answers] == [PAGE] * 100
    keys = {one.request.headers["Idempotency-Key"] for one in answers}
    assert (len(keys), books_of(payer, site).spent) == (100, 100 * PAGE)
    assert books_of(payer, site).accepted == 100 * PAGE, "one increment for each request"


def test_threads_may_share_a_session_of_requests(payer: Payer, site: PaidSite) -> None:
    answers: list[requests.Response] = []
    with requests.Session() as session:
        session.mount("http://", ChannelPayAdapter(payer))

        def fetch(number: int) -> None:
            answers.append(session.get(site.page(f"/pages/{number}"), timeout=60))

        threads = [threading.Thread(target=fetch, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [one.status_code for one in answers] == [200] * 16
    assert books_of(payer, site).spent == 16 * PAGE
