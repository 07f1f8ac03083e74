"""The proxy in front of a real server: what is paid, what is free, and what is refused."""

from __future__ import annotations

import asyncio
import posixpath
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote
from uuid import uuid4

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channelpay.errors import ConfigError, UnclearRequest
from channelpay.payee import PriceRule
from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.payee.plain_path import plain_path
from channelpay.payee.prices import PriceTable
from channelpay.payee.proxy import HEAD_BYTES_MAX, HEADERS_MAX, Proxy
from channelpay.payee.request import Request
from channelpay.payee.terms import ETHER
from channelpay.payee.upstream import Upstream
from channelpay.payee.verifier import Order, Verified
from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import VoucherPayload
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import (
    PRICE,
    OpenChannel,
    Payer,
    Shop,
    opened_shop,
    receipt_of,
    wait_on_loop_for,
)
from tests.payee.test_plain_path import HOSTILE, UNCLEAR
from tests.payee.test_upstream import Watched, answering
from tests.payee.upstreams import (
    SECONDS,
    Echo,
    connected,
    conversing,
    raw_answer,
    serving,
    status_of,
)

asynchronous = pytest.mark.anyio


class Customer:
    """Asks a proxy of a shop, and pays."""

    def __init__(self, shop: Shop, client: httpx2.AsyncClient) -> None:
        self.shop = shop
        self.client = client

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    async def pay(
        self, channel: OpenChannel, cumulative: int, path: str = "/page", method: str = "GET"
    ) -> httpx2.Response:
        headers = self.payment(channel, cumulative)
        return await self.client.request(method, path, headers=headers)

    def payment(self, channel: OpenChannel, cumulative: int) -> dict[str, str]:
        header = self.shop.header(VoucherPayload(channel.sign(cumulative)))
        return {"Authorization": header, "Idempotency-Key": str(uuid4())}


@asynccontextmanager
async def customer_of(shop: Shop, upstream_url: str, **settings: Any) -> AsyncIterator[Customer]:
    of_upstream = {key: settings.pop(key) for key in ("timeout_seconds",) if key in settings}
    trusts_forwarded = settings.get("trusts_forwarded", False)
    upstream = Upstream(upstream_url, trusts_forwarded=trusts_forwarded, **of_upstream)
    proxy = Proxy(upstream, shop.payee, **settings)
    async with (
        serving(proxy) as url,
        httpx2.AsyncClient(base_url=url, timeout=SECONDS, trust_env=False) as client,
    ):
        yield Customer(shop, client)
    await upstream.aclose()


@asynccontextmanager
async def customer_before(shop: Shop, application: App, **more: Any) -> AsyncIterator[Customer]:
    async with serving(application) as url, customer_of(shop, url, **more) as customer:
        yield customer


@pytest.fixture
def echo() -> Echo:
    return Echo()


# --- paying --------------------------------------------------------------------------------------


@asynchronous
async def test_what_is_paid_reaches_the_upstream_with_the_payers_name(
    shop: Shop, echo: Echo
) -> None:
    channel = await shop.opened()
    async with customer_before(shop, echo) as customer:
        response = await customer.pay(channel, PRICE)

    assert (response.status_code, response.text) == (200, "from the upstream")
    assert receipt_of(response).spent == PRICE
    assert response.headers["cache-control"] == "private"
    assert echo.headers("channelpay-payer") == [to_hex(channel.channel.payer)]
    assert echo.headers("channelpay-channel") == [to_hex(channel.id)]
    assert echo.headers("channelpay-price") == [str(PRICE)]
    assert echo.headers("channelpay-token") == [to_hex(channel.channel.token)]
    assert "authorization" not in echo.header_names


@asynchronous
async def test_what_is_not_paid_does_not_reach_the_upstream(shop: Shop, echo: Echo) -> None:
    async with customer_before(shop, echo) as customer:
        response = await customer.client.get("/page", headers={"ChannelPay-Payer": "0x1"})

    assert response.status_code == 402
    assert response.headers["www-authenticate"].startswith("Payment ")
    assert echo.requests == []


@asynchronous
async def test_what_is_free_passes_without_a_payer(shop: Shop, echo: Echo) -> None:
    async with customer_before(shop, echo) as customer:
        response = await customer.client.get("/free/a", headers={"ChannelPay-Payer": "0x1"})

    assert (response.status_code, response.text) == (200, "from the upstream")
    assert "payment-receipt" not in response.headers
    assert not any(name.startswith("channelpay") for name in echo.header_names)


@asynchronous
async def test_a_paid_answer_streams(shop: Shop) -> None:
    go_on = asyncio.Event()

    async def in_two_parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"second"})

    channel = await shop.opened()
    async with customer_before(shop, in_two_parts) as customer:
        headers = customer.payment(channel, PRICE)
        async with customer.client.stream("GET", "/page", headers=headers) as response:
            parts = response.aiter_raw()
            assert await anext(parts) == b"first"
            go_on.set()
            assert await anext(parts) == b"second"

    assert shop.spent(channel) == PRICE


@asynchronous
@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_failure_of_the_upstream_costs_nothing(shop: Shop, status: int) -> None:
    channel = await shop.opened()
    failing = answering(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\nno" % status)
    async with conversing(failing) as url, customer_of(shop, url) as customer:
        response = await customer.pay(channel, PRICE)

    assert (response.status_code, response.text) == (status, "no")
    assert "payment-receipt" not in response.headers
    assert shop.spent(channel) == 0


@asynchronous
@pytest.mark.parametrize(
    ("answer", "status"), [(b"", 502), (b"HTTP/1.1 101 Switching\r\nConnection: x\r\n\r\n", 502)]
)
async def test_an_upstream_without_an_answer_costs_nothing(
    shop: Shop, answer: bytes, status: int
) -> None:
    channel = await shop.opened()
    async with conversing(answering(answer)) as url, customer_of(shop, url) as customer:
        response = await customer.pay(channel, PRICE)

    assert response.status_code == status
    assert shop.spent(channel) == 0


@asynchronous
async def test_a_slow_upstream_costs_nothing(shop: Shop) -> None:
    channel = await shop.opened()
    silent = Watched()
    async with (
        conversing(silent.converse) as url,
        customer_of(shop, url, timeout_seconds=0.2) as customer,
    ):
        response = await customer.pay(channel, PRICE)

    assert (response.status_code, response.json()["code"]) == (504, "upstream-slow")
    assert shop.spent(channel) == 0


@asynchronous
async def test_a_client_that_leaves_before_the_answer_is_not_charged(shop: Shop) -> None:
    channel = await shop.opened()
    silent = Watched()
    async with conversing(silent.converse) as url, customer_of(shop, url) as customer:
        _, writer = await connected(customer.url)
        lines = [f"{name}: {value}" for name, value in customer.payment(channel, PRICE).items()]
        head = "\r\n".join(["GET /page HTTP/1.1", "Host: x", *lines, "", ""])
        writer.write(head.encode())
        await silent.arrived.wait()
        writer.close()
        await asyncio.wait_for(silent.left.wait(), SECONDS)
        await wait_on_loop_for(lambda: shop.spent(channel) == 0)


@asynchronous
async def test_a_price_by_the_unit_is_neither_served_nor_charged(
    furnished: FurnishedChain, payer: Payer, echo: Echo, tmp_path: Any
) -> None:
    rules = [PriceRule("/page", "0.01", unit="token"), PriceRule("/**", "0.01")]
    with opened_shop(furnished, tmp_path, payer, prices=rules) as shop:
        channel = payer.open()
        (challenge,) = shop.challenges("/page")
        header = shop.header(channel.open_payload(PRICE), challenge, source=channel.source)
        async with customer_before(shop, echo) as customer:
            response = await customer.client.get("/page", headers={"Authorization": header})

        assert (response.status_code, response.json()["code"]) == (500, "config")
        assert echo.requests == []
        assert shop.spent(channel) == 0


# --- what a request means ------------------------------------------------------------------------


@asynchronous
@pytest.mark.parametrize("kind", UNCLEAR)
async def test_an_unclear_target_is_refused_before_anybody_pays(
    shop: Shop, echo: Echo, kind: str
) -> None:
    channel = await shop.opened()
    async with customer_before(shop, echo) as customer:
        payment = customer.payment(channel, PRICE)
        lines = [f"{name}: {value}" for name, value in payment.items()]
        for target in UNCLEAR[kind]:
            # The server itself refuses what is no request line at all.
            assert await status_of(customer.url, target, "GET", *lines) == 400, target

    assert echo.requests == []
    assert shop.spent(channel) == 0


@asynchronous
@pytest.mark.parametrize("prefix", ["/free/", "/free/a"])
async def test_no_detour_leads_from_a_free_path_to_a_paid_one(
    shop: Shop, echo: Echo, prefix: str
) -> None:
    detours = ["../page", "..%2fpage", "%2e%2e/page", "..;/page", "..\\page", "..%5cpage"]
    detours += ["%252e%252e/page", "..%c0%afpage", "..%00/page", "%ef%bc%8e%ef%bc%8e/page"]
    async with customer_before(shop, echo) as customer:
        for detour in detours:
            assert await status_of(customer.url, f"{prefix}/{detour}") == 400, detour

    assert echo.requests == []


@asynchronous
@pytest.mark.parametrize("method", ["get", "Get", "TRACE", "CONNECT", "GET1", "M-SEARCH", "X" * 21])
async def test_a_method_that_prices_cannot_name_is_refused(
    shop: Shop, echo: Echo, method: str
) -> None:
    async with customer_before(shop, echo) as customer:
        assert await status_of(customer.url, "/free/a", method) == 400

    assert echo.requests == []


@asynchronous
@pytest.mark.parametrize(
    "headers",
    [
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Host: other.example"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding : chunked"],
    ],
)
async def test_a_request_that_servers_read_in_several_ways_is_refused(
    shop: Shop, echo: Echo, headers: list[str]
) -> None:
    async with customer_before(shop, echo) as customer:
        assert await status_of(customer.url, "/free/a", "POST", *headers) in (400, 501)

    assert echo.requests == []


@asynchronous
@pytest.mark.parametrize("host", ["a b", "user@site", 'x";for="y', "site/path", "x" * 256])
async def test_a_host_that_is_no_name_is_refused(shop: Shop, echo: Echo, host: str) -> None:
    request = f"GET /free/a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    async with customer_before(shop, echo) as customer:
        answer = await raw_answer(customer.url, request.encode())

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert echo.requests == []


@asynchronous
async def test_a_head_over_the_limits_is_refused_with_a_problem(shop: Shop, echo: Echo) -> None:
    many = [(f"X-{number}", "1") for number in range(HEADERS_MAX)]
    large = [("X-Large", "x" * HEAD_BYTES_MAX)]
    async with customer_before(shop, echo) as customer:
        answers = [await customer.client.get("/free/a", headers=some) for some in (many, large)]
        long = await status_of(customer.url, "/free/a?" + "x" * HEAD_BYTES_MAX)

    assert [long, *(answer.status_code for answer in answers)] == [431] * 3
    assert {answer.json()["code"] for answer in answers} == {"headers-too-large"}
    assert echo.requests == []


class Reader:
    """A server that finds a page in a path in some way that servers are known to have."""

    def __init__(self, *steps: str) -> None:
        self.steps = steps

    def read(self, path: str) -> str:
        for step in self.steps:
            path = getattr(self, step)(path)
        return path

    def decode(self, path: str) -> str:
        return unquote(path, errors="replace")

    def cut(self, path: str) -> str:
        return path.partition("?")[0].partition("#")[0].partition("\0")[0]

    def without_parameters(self, path: str) -> str:
        return "/".join(segment.partition(";")[0] for segment in path.split("/"))

    def slashes(self, path: str) -> str:
        return path.replace("\\", "/")

    def composed(self, path: str) -> str:
        return unicodedata.normalize("NFKC", path)

    def visible(self, path: str) -> str:
        return "".join(one for one in path if unicodedata.category(one) not in ("Cc", "Cf"))

    def short(self, path: str) -> str:
        return "/".join(
            segment if not segment.strip(".") else segment.rstrip(". ")
            for segment in path.split("/")
        )

    def tidy(self, path: str) -> str:
        return posixpath.normpath("/" + path.lstrip("/"))

    def small(self, path: str) -> str:
        return path.casefold()


READERS = [
    Reader("decode", "tidy"),
    Reader("decode", "decode", "tidy"),
    Reader("without_parameters", "decode", "tidy"),
    Reader("decode", "without_parameters", "tidy", "small"),
    Reader("decode", "cut", "slashes", "tidy", "small"),
    Reader("decode", "cut", "decode", "cut", "slashes", "short", "tidy", "small"),
    Reader("decode", "composed", "visible", "slashes", "without_parameters", "tidy", "small"),
    Reader("decode", "composed", "decode", "visible", "short", "tidy", "small"),
]
PAID = "/paid/page"
CATALOGUES = {
    "some paths are paid": [PriceRule(PAID, "1")],
    "all but some are paid": [PriceRule("/free/**", "0"), PriceRule("/**", "1")],
    "a folder is paid": [PriceRule("/Paid/**", "1")],
}
SPELLED = st.one_of(
    HOSTILE,
    # The page under another name: every letter of it by itself, as some reader may take it.
    st.tuples(
        st.sampled_from(["/paid/page", "/free/../paid/page", "/paid/./page", "//paid//page/"]),
        st.lists(st.sampled_from(["", "%", "%25", ";x", "/", "\\", ".", "%00", "\u200b", "S"])),
        st.randoms(use_true_random=False),
    ).map(lambda drawn: disguised(*drawn)),
)


def disguised(path: str, pieces: list[str], random: Any) -> str:
    letters = list(path)
    for piece in pieces:
        at = random.randrange(len(letters))
        letter = letters[at]
        if piece in ("%", "%25"):
            letters[at] = "".join(f"{piece}{byte:02x}" for byte in letter.encode())
        elif piece == "S":
            letters[at] = letter.upper()
        else:
            letters[at] = letter + piece
    return "".join(letters)


@pytest.mark.parametrize("name", CATALOGUES)
@given(text=SPELLED)
@example("/PAID/page")
@example("/paid/page.")
@example("/paid/page/")
@example("/paid/p%C3%A5ge")
@example("/pa%EF%BD%89d/page")  # a wide i
@example("/paid/pa%E2%80%8Bge")  # with a zero-width space
@example("/free/%2e%2e/paid/page")
@example("/free/..%3b/paid/page")
@example("/paid/page%3f.css")
@example("/pa%69d/page")
def test_no_reader_of_paths_finds_a_paid_page_for_nothing(name: str, text: str) -> None:
    raw = quote(text if text.startswith("/") else "/" + text, safe="/%;?#\\.!$&'()*+,=:@~-_")
    target, _, _ = raw.partition("?")
    table = PriceTable(CATALOGUES[name], (ETHER,))
    try:
        path = plain_path(target.encode())
    except UnclearRequest:
        return
    if table.quote(Request("GET", path)) is None:
        assert PAID not in [reader.read(target) for reader in READERS]


def test_these_readers_would_be_deceived() -> None:
    """The test above means something: each reader finds the page under a spelling of its own."""
    spellings = [
        "/paid/%70age",
        "/paid/%2570age",
        "/paid;x/page",
        "/PAID/page%3bx",
        "/paid%5cpage%3fx",
        "/paid/page.%252e",
        "/pa%EF%BD%89d/pa%E2%80%8Bge",
        "/PAI%44/page.",
    ]
    found = [reader.read(one) for reader, one in zip(READERS, spellings, strict=True)]
    assert found == [PAID] * len(READERS)


# --- what is not for sale ------------------------------------------------------------------------


@asynchronous
async def test_health_checks_of_the_proxy_are_free_and_its_own(shop: Shop, echo: Echo) -> None:
    async with customer_before(shop, echo) as customer:
        for path in ("/healthz", "/readyz"):
            response = await customer.client.get(path)
            assert (response.status_code, response.json()["status"]) == (200, "ok")

    assert echo.requests == []


@asynchronous
async def test_a_check_that_fails_makes_it_unready(shop: Shop, echo: Echo) -> None:
    checks = {"disk": lambda: "full"}
    async with customer_before(shop, echo, checks=checks) as customer:
        assert (await customer.client.get("/readyz")).status_code == 503
        assert (await customer.client.get("/healthz")).status_code == 200


@asynchronous
async def test_the_upstreams_health_check_is_free_to_read_and_nothing_more(
    shop: Shop, echo: Echo
) -> None:
    async with customer_before(shop, echo, free_paths=["/status"]) as customer:
        statuses = [
            (await customer.client.request(method, path)).status_code
            for method, path in [
                ("GET", "/status"),
                ("HEAD", "/status"),
                ("POST", "/status"),
                ("GET", "/status/"),
                ("GET", "/status2"),
            ]
        ]

    assert statuses == [200, 200, 402, 402, 402]
    assert [scope["method"] for scope in echo.requests] == ["GET", "HEAD"]


@pytest.mark.parametrize("path", ["status", "/a//b", "/healthz", "/readyz", "/a/../b"])
def test_a_health_path_must_be_one_that_can_be_asked(shop: Shop, path: str) -> None:
    with pytest.raises(ConfigError):
        Proxy(Upstream("http://127.0.0.1:1"), shop.payee, free_paths=[path])


HANDSHAKE = (
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


@asynchronous
@pytest.mark.parametrize("target", ["/free/a", "/page"])
@pytest.mark.parametrize("connection", ["Connection: Upgrade", "Connection: close"])
async def test_a_websocket_is_refused_in_words(
    shop: Shop, echo: Echo, target: str, connection: str
) -> None:
    lines = [f"GET {target} HTTP/1.1", "Host: x", *HANDSHAKE, connection, "", ""]
    async with customer_before(shop, echo) as customer:
        reader, writer = await connected(customer.url)
        writer.write("\r\n".join(lines).encode())
        answer = await asyncio.wait_for(reader.readuntil(b"cannot be paid for"), SECONDS)
        writer.close()

    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"upgrade: http/1.1" in answer.lower()
    assert echo.requests == []


@asynchronous
async def test_a_server_that_only_knows_how_to_close_websockets_closes_it(shop: Shop) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    proxy = Proxy(Upstream("http://127.0.0.1:1"), shop.payee)
    await proxy({"type": "websocket", "path": "/free/a", "headers": []}, receive, send)

    assert [(one["type"], one["code"]) for one in sent] == [("websocket.close", 1008)]
    assert "cannot be paid" in sent[0]["reason"]


@asynchronous
@pytest.mark.parametrize(
    ("trusted", "said", "client"),
    [
        (True, ["203.0.113.7"], "203.0.113.7"),
        (True, ["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (True, ["198.51.100.1", "192.0.2.1 ,203.0.113.7"], "203.0.113.7"),
        (True, ["2001:DB8::1"], "2001:db8::1"),
        (True, ["203.0.113.7, unknown"], "127.0.0.1"),
        (True, ["203.0.113.7,"], "127.0.0.1"),
        (True, [], "127.0.0.1"),
        (False, ["203.0.113.7"], "127.0.0.1"),
    ],
)
async def test_whose_share_a_payment_takes_is_told_by_the_trusted_proxy(
    shop: Shop,
    echo: Echo,
    monkeypatch: pytest.MonkeyPatch,
    trusted: bool,
    said: list[str],
    client: str,
) -> None:
    channel = await shop.opened()
    clients: list[str | None] = []
    verify = shop.payee.verify

    async def noted(header: str, order: Order) -> Verified:
        clients.append(order.client)
        return await verify(header, order)

    monkeypatch.setattr(shop.payee, "verify", noted)
    async with customer_before(shop, echo, trusts_forwarded=trusted) as customer:
        forwarded = [("X-Forwarded-For", one) for one in said]
        headers = [*customer.payment(channel, PRICE).items(), *forwarded]
        response = await customer.client.get("/page", headers=headers)

    assert response.status_code == 200
    assert clients == [client]


@asynchronous
async def test_the_upstream_is_told_the_proxy_in_front_as_well(shop: Shop, echo: Echo) -> None:
    said = {"X-Forwarded-For": "203.0.113.7"}
    async with customer_before(shop, echo, trusts_forwarded=True) as customer:
        await customer.client.get("/free/a", headers=said)

    assert echo.headers("x-forwarded-for") == ["203.0.113.7, 127.0.0.1"]


@asynchronous
async def test_the_clients_protocol_is_that_of_the_trusted_proxy(shop: Shop, echo: Echo) -> None:
    async def page(trusted: bool) -> str:
        async with customer_before(shop, echo, trusts_forwarded=trusted) as customer:
            headers = {"Accept": "text/html", "X-Forwarded-Proto": "https", "Host": "a.example"}
            return (await customer.client.get("/page", headers=headers)).text

    assert "https://a.example/page" in await page(trusted=True)
    assert "http://a.example/page" in await page(trusted=False)
