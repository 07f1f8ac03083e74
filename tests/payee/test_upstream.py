"""What goes up to the server behind the proxy, and what comes down, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from channelpay.errors import ConfigError
from channelpay.payee import upstream as upstream_module
from channelpay.payee.asgi import App, Receive, Scope, Send
from channelpay.payee.prices import Quote
from channelpay.payee.upstream import Upstream, UpstreamBrokeOff
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelId
from tests.payee.upstreams import (
    SECONDS,
    Conversation,
    Echo,
    connected,
    conversing,
    raw_answer,
    serving,
)

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[2] / "docs" / "proxy.md"
SECRET = b"a secret of the proxy and its upstream"
NOW = 1_767_225_600
MEGABYTE = 1 << 20
PAYER = Address(b"\x11" * 20)
CHANNEL_ID = ChannelId(b"\x22" * 32)


@dataclass(frozen=True)
class Payment:
    """What the payment middleware puts into the scope, as far as the proxy reads it."""

    payer: Address = PAYER
    channel_id: ChannelId = CHANNEL_ID
    price: int = 10_000
    token: Address = NATIVE
    unit: str = "request"

    @property
    def is_metered(self) -> bool:
        return self.unit != "request"

    @property
    def paid(self) -> SimpleNamespace:
        return SimpleNamespace(quote=Quote((), self.unit))


def paid_for(application: App, payment: Payment) -> App:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await application({**scope, "channelpay": payment}, receive, send)

    return serve


@pytest.fixture
def echo() -> Echo:
    return Echo()


@asynccontextmanager
async def proxied(
    application: App, payment: Payment | None = None, **settings: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a proxy in front of an application."""
    async with serving(application) as url, fronted(url, payment, **settings) as client:
        yield client


@asynccontextmanager
async def fronted(
    url: str, payment: Payment | None = None, **settings: Any
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a proxy in front of the server at ``url``."""
    upstream = Upstream(url, **settings)
    application: App = upstream if payment is None else paid_for(upstream, payment)
    async with (
        serving(application) as proxy_url,
        httpx2.AsyncClient(base_url=proxy_url, timeout=SECONDS, trust_env=False) as client,
    ):
        yield client
    await upstream.aclose()


def answering(answer: bytes) -> Conversation:
    """A server that says this to whatever it is asked, and hangs up."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    return converse


# --- what goes up --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["/", "/a%7Eb/%c3%A9", "/a?x=%2F..%2f;y&&z=?", "/a/%5Bx%5D!$&'()*+,=:@~", "/[]|"]
)
async def test_the_upstream_gets_the_target_as_it_was_sent(echo: Echo, target: str) -> None:
    async with proxied(echo) as client:
        request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        await raw_answer(str(client.base_url), request.encode())

    assert echo.target == target


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
async def test_every_method_and_its_body_go_up(echo: Echo, method: str) -> None:
    async with proxied(echo) as client:
        response = await client.request(method, "/a", content=b"from the client")

    assert response.status_code == 200
    assert (echo.requests[0]["method"], echo.bodies) == (method, [b"from the client"])


async def test_a_request_without_a_body_has_none_upstream(echo: Echo) -> None:
    async with proxied(echo) as client:
        await client.get("/a")

    assert not {"content-length", "transfer-encoding"} & echo.header_names


async def test_headers_of_the_clients_own_go_up_as_they_are(echo: Echo) -> None:
    sent = [("X-One", "1"), ("X-One", "2"), ("Cookie", "a=b"), ("Idempotency-Key", "k")]
    async with proxied(echo) as client:
        await client.get("/a", headers=[*sent, ("Authorization", "Basic dTpw")])

    assert echo.headers("x-one") == ["1", "2"]
    assert echo.headers("cookie") == ["a=b"]
    assert echo.headers("idempotency-key") == ["k"]
    assert echo.headers("authorization") == ["Basic dTpw"]


@pytest.mark.parametrize(
    "credential", ["Payment eyJ", "payment eyJ", "PAYMENT  eyJ", "PaymentPass v1.A"]
)
async def test_a_payment_credential_stays_here(echo: Echo, credential: str) -> None:
    sent = [("Authorization", credential), ("Authorization", "Bearer b")]
    async with proxied(echo) as client:
        await client.get("/a", headers=sent)

    assert echo.headers("authorization") == ["Bearer b"]


async def test_headers_for_this_hop_do_not_go_up(echo: Echo) -> None:
    sent = {
        "Connection": "keep-alive, X-Private , x-other",
        "Keep-Alive": "timeout=5",
        "X-Private": "1",
        "X-Other": "1",
        "Proxy-Connection": "keep-alive",
        "Proxy-Authorization": "Basic dTpw",
        "TE": "trailers",
        "Trailer": "X-Checksum",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAMAAABk",
        "Expect": "100-continue",
        "Proxy": "http://attacker.example",
    }
    async with proxied(echo) as client:
        await client.get("/a", headers=sent)

    assert not {name.lower() for name in sent} & echo.header_names


async def test_what_connection_names_cannot_take_the_length_of_the_body_away(echo: Echo) -> None:
    async with proxied(echo) as client:
        connection = {"Connection": "content-length"}
        await client.post("/a", content=b"GET /b HTTP/1.1", headers=connection)
        await client.get("/c")

    assert [scope["path"] for scope in echo.requests] == ["/a", "/c"]
    assert echo.bodies == [b"GET /b HTTP/1.1", b""]


@pytest.mark.parametrize(
    "name",
    [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X_Original_URL",
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
async def test_no_header_makes_another_request_of_it(echo: Echo, name: str, trusted: bool) -> None:
    async with proxied(echo, trusts_forwarded=trusted) as client:
        await client.get("/a", headers={name: "/paid"})

    assert name.lower() not in echo.header_names


# --- who pays ------------------------------------------------------------------------------------

FORGED = [
    "ChannelPay-Payer",
    "channelpay-payer",
    "CHANNELPAY-PAYER",
    "ChannelPay_Payer",
    "Channelpay-Payer_",
    "ChannelPay.Payer",
    "ChannelPay-Channel",
    "ChannelPay_Price",
    "ChannelPay-Token",
    "ChannelPay-Signature",
    "ChannelPay-Anything",
]


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("trusted", [False, True])
async def test_nobody_can_say_who_pays(echo: Echo, name: str, trusted: bool) -> None:
    async with proxied(echo, trusts_forwarded=trusted) as client:
        await client.get("/a", headers={name: "0xbad", "Connection": name})

    assert not [found for found in echo.header_names if found.startswith("channelpay")]


async def test_the_upstream_is_told_who_paid_what(echo: Echo) -> None:
    payment = Payment()
    forged = [(name, "0xbad") for name in FORGED]
    # Named in Connection, they would go if they were not added after that.
    connection = ("Connection", ", ".join(FORGED))
    async with proxied(echo, payment) as client:
        await client.get("/a", headers=[*forged, connection])

    assert echo.headers("channelpay-payer") == [to_hex(payment.payer)]
    assert echo.headers("channelpay-channel") == [to_hex(payment.channel_id)]
    assert echo.headers("channelpay-price") == ["10000"]
    assert echo.headers("channelpay-token") == ["0x" + "00" * 20]
    found = {name for name in echo.header_names if name.startswith("channelpay")}
    assert found == {f"channelpay-{one}" for one in ("payer", "channel", "price", "token")}


async def test_a_price_by_the_unit_is_not_served(echo: Echo) -> None:
    async with proxied(echo, Payment(unit="token")) as client:
        response = await client.get("/a")

    assert (response.status_code, response.json()["code"]) == (500, "config")
    assert echo.requests == []


def check_of_the_page() -> Callable[..., bool]:
    """The function with which docs/proxy.md says to check a signature."""
    pattern = re.compile(r"^```python\n(import hmac\n.*?)^```", re.MULTILINE | re.DOTALL)
    (program,) = pattern.findall(PAGE.read_text())
    names: dict[str, Any] = {}
    exec(program, names)  # noqa: S102  the page's own program
    check: Callable[..., bool] = names["is_from_proxy"]
    return check


@pytest.mark.parametrize("payment", [None, Payment()])
async def test_a_signature_is_checked_as_the_page_says(echo: Echo, payment: Payment | None) -> None:
    async with proxied(echo, payment, secret=SECRET, now=lambda: NOW + 0.9) as client:
        await client.post("/a%20b?c=d", headers={"ChannelPay-Signature": "1.00"})
    headers = {name.decode(): value.decode() for name, value in echo.requests[0]["headers"]}
    check = partial(check_of_the_page(), SECRET)

    assert check("POST", "/a%20b?c=d", headers, NOW)
    assert check("POST", "/a%20b?c=d", headers, NOW + 60)
    assert not check("POST", "/a%20b?c=d", headers, NOW + 61)
    assert not check("POST", "/a%20b?c=d", headers, NOW - 61)
    assert not check("GET", "/a%20b?c=d", headers, NOW)
    assert not check("POST", "/a b?c=d", headers, NOW)
    assert not check("POST", "/a%20b", headers, NOW)
    assert not check_of_the_page()(b"another secret", "POST", "/a%20b?c=d", headers, NOW)
    for name in ("payer", "channel", "price", "token", "signature"):
        changed = {**headers, f"channelpay-{name}": "0x1"}
        assert not check("POST", "/a%20b?c=d", changed, NOW)
    del headers["channelpay-signature"]
    assert not check("POST", "/a%20b?c=d", headers, NOW)


async def test_without_a_secret_nothing_is_signed(echo: Echo) -> None:
    async with proxied(echo, Payment()) as client:
        await client.get("/a")

    assert "channelpay-signature" not in echo.header_names


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ConfigError, match="16 bytes"):
        Upstream("http://127.0.0.1:1", secret=b"short")


# --- who asked -----------------------------------------------------------------------------------

SAID = {
    "X-Forwarded-For": "203.0.113.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "site.example",
    "Forwarded": "for=203.0.113.7",
    "X-Real-IP": "203.0.113.7",
    "X_Forwarded_For": "203.0.113.8",
}


async def test_what_a_client_says_of_itself_is_replaced(echo: Echo) -> None:
    async with proxied(echo) as client:
        await client.get("/a", headers={**SAID, "Host": "asked.example"})

    assert echo.headers("x-forwarded-for") == ["127.0.0.1"]
    assert echo.headers("x-forwarded-proto") == ["http"]
    assert echo.headers("x-forwarded-host") == ["asked.example"]
    assert echo.headers("forwarded") == ['for="127.0.0.1";proto=http;host="asked.example"']
    assert not {"x-real-ip", "x_forwarded_for"} & echo.header_names
    assert re.fullmatch(r"127\.0\.0\.1:\d+", echo.headers("host")[0])
    assert echo.headers("via") == ["1.1 channelpay"]


async def test_a_trusted_proxy_in_front_is_believed(echo: Echo) -> None:
    async with proxied(echo, trusts_forwarded=True) as client:
        await client.get("/a", headers={**SAID, "Host": "asked.example"})

    assert echo.headers("x-forwarded-for") == ["203.0.113.7, 127.0.0.1"]
    assert echo.headers("x-forwarded-proto") == ["https"]
    assert echo.headers("x-forwarded-host") == ["site.example"]
    assert echo.headers("forwarded") == [
        'for=203.0.113.7, for="127.0.0.1";proto=https;host="site.example"'
    ]


async def test_a_trusted_proxy_that_says_nothing_changes_nothing(echo: Echo) -> None:
    odd = {"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": 'x";for="y'}
    async with proxied(echo, trusts_forwarded=True) as client:
        await client.get("/a", headers={**odd, "Host": "asked.example"})

    assert echo.headers("forwarded") == ['for="127.0.0.1";proto=http;host="asked.example"']
    assert echo.headers("x-forwarded-host") == ["asked.example"]


async def test_an_ipv6_client_stands_in_brackets(echo: Echo) -> None:
    def from_ipv6(application: App) -> App:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await application({**scope, "client": ("2001:db8::1", 5)}, receive, send)

        return serve

    async with serving(echo) as url:
        upstream = Upstream(url)
        async with serving(from_ipv6(upstream)) as proxy_url, httpx2.AsyncClient() as client:
            await client.get(proxy_url)
        await upstream.aclose()

    assert echo.headers("x-forwarded-for") == ["2001:db8::1"]
    assert echo.headers("forwarded")[0].startswith('for="[2001:db8::1]";')


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:3000",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:3000/app",
        "http://127.0.0.1:3000/?a",
        "http://user:password@127.0.0.1",
        "http://127.0.0.1:99999",
    ],
)
def test_an_upstream_is_a_scheme_a_host_and_a_port(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Upstream(url)
    assert "password" not in str(refused.value)


# --- what comes down -----------------------------------------------------------------------------


async def test_headers_for_this_hop_do_not_come_down() -> None:
    answer = answering(
        b"HTTP/1.1 200 OK\r\nConnection: close, X-Private\r\nX-Private: 1\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nTrailer: X-Sum\r\n"
        b"Upgrade: h2c\r\nX-Kept: 1\r\nX-Kept: 2\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    async with conversing(answer) as url, fronted(url) as client:
        response = await client.get("/a")

    dropped = {"x-private", "keep-alive", "proxy-authenticate", "trailer", "upgrade", "connection"}
    assert not dropped & set(response.headers)
    assert response.headers.get_list("x-kept") == ["1", "2"]
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert response.headers["content-length"] == "2"
    assert len(response.headers.get_list("date")) == 1
    assert "2000" not in response.headers["date"]


async def test_cookies_of_one_client_do_not_reach_the_next(echo: Echo) -> None:
    async def set_cookie(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, lambda message: send(with_cookie(message)))

    def with_cookie(message: Any) -> Any:
        cookie = [(b"set-cookie", b"session=1")]
        return {**message, "headers": cookie} if "status" in message else message

    async with proxied(set_cookie) as client:
        first = await client.get("/a")
        client.cookies.clear()
        await client.get("/b")

    assert first.headers["set-cookie"] == "session=1"
    assert "cookie" not in echo.header_names


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("{url}/next?a=b", "/next?a=b"),
        ("/next", "/next"),
        ("https://elsewhere.example/", "https://elsewhere.example/"),
        ("{url}.elsewhere.example/", "{url}.elsewhere.example/"),
    ],
)
async def test_a_redirect_is_passed_on_and_not_followed(location: str, expected: str) -> None:
    urls: list[str] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to = location.format(url=urls[0])
        await answering(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n".encode())(reader, writer)

    async with conversing(redirect) as url, fronted(url) as client:
        urls.append(url)
        response = await client.get("/a")

    assert response.status_code == 302
    assert response.headers["location"] == expected.format(url=url)


async def test_proxies_of_the_environment_are_not_used(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with proxied(echo) as client:
        assert (await client.get("/a")).status_code == 200


async def test_head_tells_the_length_and_sends_nothing() -> None:
    answer = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    async with conversing(answer) as url, fronted(url) as client:
        response = await client.head("/a")
        again = await client.head("/a")

    assert (response.headers["content-length"], response.content) == ("1000", b"")
    assert again.status_code == 200


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 1000\r\n\r\n",
    ],
)
async def test_an_answer_without_a_body_has_none(answer: bytes) -> None:
    async with conversing(answering(answer)) as url, fronted(url) as client:
        response = await client.get("/a")
        again = await client.get("/a")

    assert response.content == b""
    assert response.status_code == again.status_code == int(answer[9:12])
    # RFC 9110, 8.6: a 204 has no length, a 304 has that of the page it stands for.
    assert ("content-length" in response.headers) == (response.status_code == 304)


async def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" * 2
    answer = answering(interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    async with conversing(answer) as url, fronted(url) as client:
        assert (await client.get("/a")).text == "ok"


async def test_trailers_are_passed_over() -> None:
    answer = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    async with conversing(answer) as url, fronted(url) as client:
        response = await client.get("/a")

    assert (response.text, "x-sum" in response.headers) == ("ok", False)


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nConnection: close\r\n", b"HTTP/1.0 200 OK\r\n"]
)
async def test_a_body_of_unknown_length_ends_with_the_connection(head: bytes) -> None:
    async with conversing(answering(head + b"\r\nall of it")) as url, fronted(url) as client:
        assert (await client.get("/a")).text == "all of it"


@pytest.mark.parametrize("payment", [None, Payment()])
async def test_options_brings_no_page_unless_it_was_paid(
    echo: Echo, payment: Payment | None
) -> None:
    async with proxied(echo, payment) as client:
        response = await client.options("/a")

    assert response.status_code == 200
    assert response.text == ("" if payment is None else "from the upstream")


# --- streams -------------------------------------------------------------------------------------


async def test_an_answer_comes_down_as_it_is_made() -> None:
    asked_for_more = asyncio.Event()

    async def in_two_parts(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asked_for_more.wait()
        await send({"type": "http.response.body", "body": b"second"})

    async with proxied(in_two_parts) as client, client.stream("GET", "/a") as response:
        parts = response.aiter_raw()
        assert await anext(parts) == b"first"
        # Had the first part waited for the second, nobody would ever get here.
        asked_for_more.set()
        assert await anext(parts) == b"second"


@pytest.mark.parametrize("length", [{}, {"content-length": "11"}])
async def test_a_request_goes_up_as_it_comes(length: dict[str, str]) -> None:
    arrived = asyncio.Event()
    bodies: list[bytes] = []

    async def take(scope: Scope, receive: Receive, send: Send) -> None:
        message: Any = {"more_body": True}
        while message["more_body"]:
            message = await receive()
            bodies.append(message["body"])
            arrived.set()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"thanks"})

    async def in_two_parts() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.wait_for(arrived.wait(), SECONDS)
        yield b"second"

    async with proxied(take) as client:
        response = await client.post("/a", content=in_two_parts(), headers=length)

    assert (response.text, b"".join(bodies)) == ("thanks", b"firstsecond")


async def test_large_bodies_go_both_ways_unchanged() -> None:
    block = hashlib.sha256(b"seed").digest() * (MEGABYTE // 32)

    async def back(scope: Scope, receive: Receive, send: Send) -> None:
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    async def blocks() -> AsyncIterator[bytes]:
        for number in range(24):
            yield bytes([number]) + block

    async with proxied(back) as client:
        response = await client.post("/a", content=blocks())

    expected = b"".join([bytes([number]) + block for number in range(24)])
    assert hashlib.sha256(response.content).digest() == hashlib.sha256(expected).digest()


class Pump:
    """Writes blocks as fast as they are taken, and counts the bytes."""

    def __init__(self, megabytes: int) -> None:
        self.megabytes = megabytes
        self.sent = 0
        self.done = False

    async def run(self, writer: asyncio.StreamWriter) -> None:
        for _ in range(self.megabytes):
            writer.write(b"x" * MEGABYTE)
            await writer.drain()
            self.sent += MEGABYTE
        self.done = True

    async def until_stuck(self) -> None:
        """Wait until nothing more was taken for half a second."""
        seen, since = -1, time.monotonic()
        while not self.done and time.monotonic() < since + 0.5:
            if self.sent != seen:
                seen, since = self.sent, time.monotonic()
            await asyncio.sleep(0.02)


async def test_a_client_that_does_not_read_holds_the_upstream_back() -> None:
    pump = Pump(64)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MEGABYTE))
        await pump.run(writer)
        writer.close()

    async with conversing(converse) as url, fronted(url) as client:
        reader, writer = await connected(str(client.base_url))
        writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await pump.until_stuck()
        held_at = pump.sent
        rest = 0
        while data := await reader.read(MEGABYTE):
            rest += len(data)
        writer.close()

    assert held_at < 32 * MEGABYTE
    assert rest == 64 * MEGABYTE


async def test_an_upstream_that_does_not_read_holds_the_client_back() -> None:
    go_on = asyncio.Event()
    pump = Pump(64)
    taken = 0

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        while taken < 64 * MEGABYTE:
            taken += len(await reader.read(MEGABYTE))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async with conversing(converse) as url, fronted(url) as client:
        reader, writer = await connected(str(client.base_url))
        length = 64 * MEGABYTE
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length)
        pumping = asyncio.ensure_future(pump.run(writer))
        await pump.until_stuck()
        held_at = pump.sent
        go_on.set()
        answer = await asyncio.wait_for(reader.readuntil(b"ok"), SECONDS)
        await pumping
        writer.close()

    assert held_at < 32 * MEGABYTE
    assert taken == 64 * MEGABYTE
    assert answer.startswith(b"HTTP/1.1 200")


async def test_an_upstream_may_answer_before_it_has_read_everything() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
        writer.write(head + b"less")
        await writer.drain()
        writer.write_eof()
        while await reader.read(MEGABYTE):
            pass
        writer.close()

    async with conversing(refuse) as url, fronted(url) as client:
        response = await client.post("/a", content=b"x" * 4 * MEGABYTE)

    assert (response.status_code, response.text) == (413, "less")


# --- what breaks off -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense",
    ],
)
async def test_half_an_answer_is_never_given_for_a_whole_one(answer: bytes) -> None:
    async with conversing(answering(answer)) as url, fronted(url) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/a")


async def test_a_server_hears_of_half_an_answer() -> None:
    """A server that is not uvicorn may take an application's return for the end of the answer."""
    half = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    async with conversing(half) as url:
        upstream = Upstream(url)
        transport = httpx2.ASGITransport(upstream)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            with pytest.raises(UpstreamBrokeOff):
                await client.get("/a")
        await upstream.aclose()


async def test_an_upstream_that_falls_silent_in_its_answer_breaks_it_off() -> None:
    async def fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()
        writer.close()

    async with conversing(fall_silent) as url, fronted(url, timeout_seconds=0.2) as client:
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get("/a")


async def problem_of(client: httpx2.AsyncClient) -> tuple[int, str]:
    response = await client.get("/a")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert "Nothing was charged" in problem["hint"]
    return response.status_code, problem["code"]


async def test_an_upstream_that_is_not_there_is_a_bad_gateway(echo: Echo) -> None:
    async with serving(echo) as url:
        pass
    async with fronted(url) as client:
        assert await problem_of(client) == (502, "upstream-down")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 700 What\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_upstream_that_makes_no_sense_is_a_bad_gateway(answer: bytes) -> None:
    async with conversing(answering(answer)) as url, fronted(url) as client:
        assert await problem_of(client) == (502, "upstream-down")


async def test_an_upstream_that_does_not_answer_in_time_is_a_gateway_timeout() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with conversing(say_nothing) as url, fronted(url, timeout_seconds=0.2) as client:
        assert await problem_of(client) == (504, "upstream-slow")


async def test_more_requests_than_connections_are_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upstream_module, "WAIT_FOR_CONNECTION_SECONDS", 0.2)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait(scope: Scope, receive: Receive, send: Send) -> None:
        arrived.set()
        await go_on.wait()
        await Echo()(scope, receive, send)

    async with proxied(wait, connections_max=1) as client:
        first = asyncio.ensure_future(client.get("/a"))
        await arrived.wait()
        second = await client.get("/b")
        go_on.set()

        assert (second.status_code, second.headers["retry-after"]) == (503, "2")
        assert (await first).status_code == 200
        assert (await client.get("/c")).status_code == 200


class Watched:
    """A server that takes one request, sends ``answer``, and notes when its client has gone."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        self.arrived.set()
        try:
            while await reader.read(MEGABYTE):
                pass
        except ConnectionError:
            pass
        self.left.set()
        writer.close()


UNFINISHED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"


@pytest.mark.parametrize(
    ("request_head", "answer"),
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b""),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", UNFINISHED),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody", b""),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", b""),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b""),
    ],
    ids=["before the answer", "within it", "after the body", "within it, sized", "chunked"],
)
async def test_a_client_that_leaves_ends_the_upstreams_request(
    request_head: bytes, answer: bytes
) -> None:
    watched = Watched(answer)
    async with conversing(watched.converse) as url, fronted(url, connections_max=1) as client:
        reader, writer = await connected(str(client.base_url))
        writer.write(request_head)
        await asyncio.wait_for(watched.arrived.wait(), SECONDS)
        if answer:
            await reader.readuntil(b"first")
        writer.close()

        await asyncio.wait_for(watched.left.wait(), SECONDS)
        # Its connection is free again: there is only one.
        watched.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        assert (await client.get("/b")).status_code == 200
