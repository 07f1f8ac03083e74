"""Pages that are paid for through WSGI."""

from __future__ import annotations

import io
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import pytest

from channelpay.errors import ConfigError, InsufficientBalance, StoreUnavailable
from channelpay.payee import PriceRule, delivery, payment
from channelpay.payee.blocking import BlockingPayment
from channelpay.payee.checkout import Checkout
from channelpay.payee.wsgi import PaymentMiddleware, request_of
from channelpay.protocol.rules import Outcome
from channelpay.protocol.sse import NEED_VOUCHER, RECEIPT, Event, EventReader, NeedVoucher
from channelpay.protocol.wire import VoucherPayload
from channelpay.store import sqlite
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import PRICE, OpenChannel, Payer, Shop, opened_shop
from tests.payee.wsgi_client import Response, WsgiClient

RULES = [
    PriceRule("/free/**", "0"),
    PriceRule("/gratis", "0"),
    PriceRule("/café/*", "0.01"),
    PriceRule("/get-only", "0.01", method="GET"),
    PriceRule("/units/**", "0.01", unit="word"),
    PriceRule("/page", "0.01"),
    PriceRule("/shop/page", "0.01"),
    PriceRule("/answers/**", "0.01"),
]
WORDS = ("one", "two", "three", "four", "five")
PLAIN = [
    ("Content-Type", "text/plain"),
    ("Cache-Control", "public, max-age=60"),
    ("CDN-Cache-Control", "max-age=60"),
    ("Surrogate-Control", "max-age=60"),
]
EVENTS = [("Content-Type", "text/event-stream")]
STATUSES = {
    "/answers/error": "500 Internal Server Error",
    "/answers/missing": "404 Not Found",
    "/answers/moved": "303 See Other",
    "/answers/unchanged": "304 Not Modified",
}
_outside: ContextVar[str] = ContextVar("outside", default="nothing")


class Application:
    """What stands behind the middleware: the path says how it answers."""

    def __init__(self) -> None:
        self.environs: list[WSGIEnvironment] = []
        self.threads: list[str] = []
        self.contexts: list[str] = []
        self.closed = 0

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.environs.append(environ)
        self.threads.append(threading.current_thread().name)
        path = environ["PATH_INFO"]
        if path.startswith(("/answers/", "/units/")) and path not in STATUSES:
            special: WSGIApplication = getattr(self, path.rpartition("/")[2].replace("-", "_"))
            return special(environ, start)
        status = STATUSES.get(path, "200 OK")
        start(status, [] if status[:3] == "304" else PLAIN)
        body = environ["wsgi.input"].read() if environ["REQUEST_METHOD"] == "POST" else b"content"
        return [] if "304" in status else [body]

    def close(self) -> None:
        self.closed += 1

    # --- answers -------------------------------------------------------------------------

    def raises(self, _: WSGIEnvironment, __: StartResponse) -> Iterable[bytes]:
        raise RuntimeError("the application is broken")

    def fails_late(self, _: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        yield b""
        raise RuntimeError("the application is broken")

    def silent(self, _: WSGIEnvironment, __: StartResponse) -> Iterable[bytes]:
        return [b"content"]

    def breaks_off(self, _: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        yield b"first"
        raise RuntimeError("the application broke off")

    def changes_its_mind(self, _: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        try:
            raise RuntimeError("the application is broken")
        except RuntimeError:
            start("500 Oh", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"sorry"]

    def writes(self, _: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        write = start("200 OK", PLAIN)
        write(b"written, ")
        return [b"yielded"]

    def in_pieces(self, _: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        return _Closing([b"first ", b"second"], self.close)

    def sized(self, _: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        start("200 OK", [*PLAIN, ("Content-Length", "7")])
        yield b"content"

    # --- units ---------------------------------------------------------------------------

    def words(self, environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        paid: BlockingPayment = environ["channelpay"]
        start("200 OK", EVENTS)
        self.contexts.append(_outside.get())
        _outside.set("the application's own")
        try:
            for word in WORDS:
                paid.charge(paid.price)
                yield f"data: {word}\n\n".encode()
        finally:
            self.threads.append(threading.current_thread().name)
            self.closed += 1

    def split(self, environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        start("200 OK", EVENTS)
        for word in WORDS:
            yield b"data: "
            environ["channelpay"].charge(PRICE)
            yield f"{word}\n\n".encode()

    def chunks(self, environ: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        for word in WORDS:
            environ["channelpay"].charge(PRICE)
            yield word.encode()

    def early(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        environ["channelpay"].charge(3 * PRICE)
        start("200 OK", PLAIN)
        return [b"bought"]

    def caught(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        try:
            environ["channelpay"].charge(3 * PRICE)
        except InsufficientBalance:
            start("200 OK", PLAIN)
            return [b"a sample"]
        raise AssertionError("it was affordable")

    def page_made_of_it(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        try:
            environ["channelpay"].charge(3 * PRICE)
        except InsufficientBalance:
            start("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"a framework's own page"]

    def fails(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        environ["channelpay"].charge(PRICE)
        start("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"broken"]


class _Closing:
    def __init__(self, chunks: Iterable[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


@pytest.fixture
def shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    with opened_shop(furnished, tmp_path, payer, prices=RULES) as opened:
        yield opened


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def client(shop: Shop, application: Application) -> Iterator[WsgiClient]:
    middleware = PaymentMiddleware(application, lambda: shop.payee)
    yield WsgiClient(shop, middleware)
    middleware.close()


# --- whole pages ---------------------------------------------------------------------------


def test_a_priced_page_without_payment_asks_for_it(client: WsgiClient) -> None:
    response = client.get("/page")

    assert (response.status, response.header("cache-control")) == (402, "no-store")
    assert (response.header("www-authenticate") or "").startswith("Payment ")
    assert b"this costs 0.01 TUSD" in response.body


def test_the_answer_to_a_head_has_no_body(client: WsgiClient) -> None:
    response = client.get("/page", {"REQUEST_METHOD": "HEAD"})

    assert (response.status, response.body) == (402, b"")


def test_a_voucher_for_nothing_brings_no_content_by_head(
    client: WsgiClient, application: Application
) -> None:
    """Servers send what the application gives them."""
    channel = client.opened()

    response = client.pay(channel, 0, environ={"REQUEST_METHOD": "HEAD"})
    piecemeal = client.pay(channel, 0, "/answers/in-pieces", {"REQUEST_METHOD": "HEAD"})

    assert (response.status, response.body, piecemeal.body) == (200, b"", b"")
    assert application.environs[-1]["REQUEST_METHOD"] == "HEAD"


@pytest.mark.parametrize("path", ["/page", "/get-only", "/answers/in-pieces", "/answers/sized"])
def test_a_free_answer_about_a_priced_page_has_no_body(
    client: WsgiClient, application: Application, path: str
) -> None:
    response = client.get(path, {"REQUEST_METHOD": "OPTIONS"})

    assert (response.status, response.body) == (200, b"")
    assert response.header("content-type") == "text/plain"
    assert response.header("content-length") is None
    assert application.closed == (path == "/answers/in-pieces")
    assert client.get("/free/page", {"REQUEST_METHOD": "OPTIONS"}).body == b"content"


def test_a_free_page_passes_untouched(client: WsgiClient, application: Application) -> None:
    response = client.get("/free/page", {"HTTP_AUTHORIZATION": "Payment nonsense"})

    assert (response.status, response.headers, response.body) == (200, PLAIN, b"content")
    assert "channelpay" not in application.environs[0]


def test_a_paid_page_has_a_receipt_and_is_kept_out_of_shared_caches(
    client: WsgiClient, application: Application
) -> None:
    channel = client.opened()

    response = client.pay(channel, 3 * PRICE)

    assert (response.status, response.body) == (200, b"content")
    assert (response.receipt.accepted, response.receipt.spent) == (3 * PRICE, PRICE)
    assert response.header("cache-control") == "private, max-age=60"
    assert response.header("cdn-cache-control") is None
    assert response.header("surrogate-control") is None
    paid = application.environs[-1]["channelpay"]
    assert (paid.payer, paid.channel_id) == (channel.channel.payer, channel.id)
    assert (paid.accepted, paid.spent, paid.charged) == (3 * PRICE, PRICE, PRICE)


@pytest.mark.parametrize("path", ["error", "missing", "changes-its-mind"])
def test_a_response_that_says_it_failed_is_not_charged(client: WsgiClient, path: str) -> None:
    channel = client.opened()

    response = client.start_paid(channel, PRICE, f"/answers/{path}")
    first = next(response.pieces)

    # Before the client reads it, and not when the server is done with it.
    assert (response.status >= 400, client.shop.spent(channel)) == (True, 0)
    assert response.header("payment-receipt") is None
    assert first
    response.read()


@pytest.mark.parametrize("path", ["raises", "fails-late", "silent"])
def test_an_application_that_fails_before_the_first_byte_is_not_paid(
    client: WsgiClient, path: str
) -> None:
    channel = client.opened()

    response = client.start_paid(channel, PRICE, f"/answers/{path}")
    with pytest.raises((RuntimeError, AssertionError)):
        next(response.pieces)

    assert client.shop.spent(channel) == 0
    response.iterable.close()
    assert [one.outcome for one in client.shop.payments(channel)] == [Outcome.RELEASED]


@pytest.mark.parametrize("path", ["moved", "unchanged"])
def test_a_redirect_is_charged_and_has_a_receipt(client: WsgiClient, path: str) -> None:
    channel = client.opened()

    assert client.pay(channel, PRICE, f"/answers/{path}").receipt.spent == PRICE
    assert client.shop.spent(channel) == PRICE


def test_what_breaks_off_after_the_first_byte_stays_charged(client: WsgiClient) -> None:
    channel = client.opened()

    with pytest.raises(RuntimeError):
        client.pay(channel, PRICE, "/answers/breaks-off")

    assert client.shop.spent(channel) == PRICE


def test_a_client_that_is_gone_before_the_first_byte_is_not_charged(
    client: WsgiClient, application: Application
) -> None:
    channel = client.opened()
    response = client.start_paid(channel, PRICE, "/answers/in-pieces")

    next(response.pieces)  # The server could not send this: it asks for nothing more.
    response.iterable.close()

    assert (client.shop.spent(channel), application.closed) == (0, 1)


def test_of_what_a_client_may_keep_without_paying_there_is_one_byte(client: WsgiClient) -> None:
    channel = client.opened()
    response = client.start_paid(channel, PRICE)

    pieces = [next(response.pieces), next(response.pieces)]
    response.iterable.close()

    assert pieces == [b"c", b"ontent"]
    assert client.shop.spent(channel) == PRICE


def test_a_response_that_the_server_never_asks_for_is_not_charged(client: WsgiClient) -> None:
    channel = client.opened()

    client.start_paid(channel, PRICE).iterable.close()

    assert client.shop.spent(channel) == 0


def test_what_is_written_comes_before_what_is_yielded(client: WsgiClient) -> None:
    assert client.pay(client.opened(), PRICE, "/answers/writes").body == b"written, yielded"


def test_an_application_runs_in_its_servers_thread(
    client: WsgiClient, application: Application
) -> None:
    client.pay(client.opened(), PRICE)

    assert set(application.threads) == {threading.current_thread().name}


def test_a_retry_with_the_same_body_is_not_charged_again(
    client: WsgiClient, application: Application
) -> None:
    channel = client.opened()

    def post(body: bytes) -> Response:
        environ = {
            "REQUEST_METHOD": "POST",
            "HTTP_IDEMPOTENCY_KEY": "k",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body + b"the next request"),
        }
        return client.pay(channel, PRICE, environ=environ)

    body = b"0123456789" * 30_000
    first, again, other = post(body), post(body), post(b"another")

    assert [first.body, again.body] == [body, body]
    assert (other.status, client.shop.spent(channel)) == (409, PRICE)


@pytest.mark.parametrize("framing", ["CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"])
def test_a_get_that_has_a_body_is_compared_by_it(client: WsgiClient, framing: str) -> None:
    channel = client.opened()

    def get(body: bytes) -> Response:
        length = str(len(body)) if framing == "CONTENT_LENGTH" else "chunked"
        environ = {
            "HTTP_IDEMPOTENCY_KEY": "k",
            framing: length,
            "wsgi.input": io.BytesIO(body),
            "wsgi.input_terminated": True,
        }
        return client.pay(channel, PRICE, environ=environ)

    assert [get(body).status for body in (b"one", b"one", b"two")] == [200, 200, 409]
    assert client.shop.spent(channel) == PRICE


class _Input(io.BytesIO):
    """A body that is on its way: it notes who waits for it."""

    def __init__(self, body: bytes, error: Exception | None = None) -> None:
        super().__init__(body)
        self.readers: list[str] = []
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        self.readers.append(threading.current_thread().name)
        if self._error is not None:
            raise self._error
        return super().read(size)


def _post(body: _Input) -> dict[str, Any]:
    length = str(len(body.getvalue()))
    return {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": length, "wsgi.input": body}


def test_the_body_of_a_stranger_is_not_read(client: WsgiClient) -> None:
    channel = client.opened()
    forged = replace(channel.sign(PRICE), cumulative_amount=2 * PRICE)
    headers = [client.shop.header(VoucherPayload(forged)), "x", "Payment x"]
    bodies = [_Input(b"content") for _ in headers]

    for header, body in zip(headers, bodies, strict=True):
        refused = client.get("/page", _post(body) | {"HTTP_AUTHORIZATION": header})
        assert refused.status in (400, 402)

    assert [body.readers for body in bodies] == [[], [], []]


def test_a_body_is_waited_for_in_the_servers_thread(client: WsgiClient) -> None:
    body = _Input(b"content")

    assert client.pay(client.opened(), PRICE, environ=_post(body)).body == b"content"
    assert set(body.readers) == {threading.current_thread().name}


def test_a_body_that_does_not_come_is_not_paid_for(client: WsgiClient) -> None:
    channel = client.opened()

    with pytest.raises(ConnectionResetError):
        client.pay(channel, PRICE, environ=_post(_Input(b"content", ConnectionResetError())))

    assert client.shop.payments(channel) == []
    assert client.pay(channel, PRICE).body == b"content"


@pytest.mark.parametrize("size", [10, 11])
def test_a_body_too_long_to_compare_is_another_purchase_each_time(
    client: WsgiClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(delivery, "BODY_BYTES_MAX", 10)
    channel, body = client.opened(), b"x" * size

    for _ in range(2):
        environ = {
            "REQUEST_METHOD": "POST",
            "wsgi.input": io.BytesIO(body),
            "wsgi.input_terminated": True,
        }
        response = client.pay(channel, 2 * PRICE if size > 10 else PRICE, environ=environ)
        assert response.body == body

    assert client.shop.spent(channel) == PRICE * (2 if size > 10 else 1)


# --- what is asked for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "environ"),
    [
        ("/caf%C3%A9/one", {}),
        ("/page", {"REQUEST_METHOD": "get"}),
        ("/get-only", {"REQUEST_METHOD": "get"}),
        ("//page", {}),
        ("/%70age", {}),
        ("/free/../page", {}),
        ("/page", {"SCRIPT_NAME": "/shop"}),
    ],
)
def test_no_spelling_of_a_priced_page_is_free(
    client: WsgiClient, application: Application, path: str, environ: dict[str, Any]
) -> None:
    method = environ.pop("REQUEST_METHOD", "GET")
    # The validator would refuse the method; servers do not.
    environ["HTTP_X"] = method
    spelled = PaymentMiddleware(application, lambda: client.shop.payee)

    def app(sent: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return spelled(sent | {"REQUEST_METHOD": sent["HTTP_X"]}, start)

    asking = WsgiClient(client.shop, app)
    assert asking.get(path, environ).status == 402
    assert application.environs == []


def test_the_mount_point_belongs_to_the_path(client: WsgiClient) -> None:
    mounted = [client.get("/page", {"SCRIPT_NAME": name}).status for name in ("", "/a", "/shop")]

    assert mounted == [402, 200, 402]


def test_a_request_is_read_as_the_client_sent_it() -> None:
    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/shop",
        "PATH_INFO": "/caf\xc3\xa9 \xff",
        "QUERY_STRING": "q=\xc3\xa9",
        "wsgi.url_scheme": "https",
        "HTTP_X_PLAN": "bulk",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "",
    }

    request = request_of(environ)

    assert (request.method, request.path, request.scheme) == ("POST", "/shop/café \ufffd", "https")
    assert request.target.encode("latin-1") == b"/shop/caf%C3%A9%20%FF?q=\xc3\xa9"
    assert request.header_values("X-Plan") == ["bulk"]
    assert request.header_values("Content-Type") == ["text/plain"]
    assert request.header_values("Content-Length") == []


def test_the_clients_address_is_that_of_its_connection(
    client: WsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    pay = Checkout.pay

    async def noted(self: Checkout, request: Any, quote: Any, address: Any, body: Any) -> Any:
        seen.append(address)
        return await pay(self, request, quote, address, body)

    monkeypatch.setattr(Checkout, "pay", noted)
    forged = {"HTTP_X_FORWARDED_FOR": "198.51.100.1"}
    client.get("/page", {"REMOTE_ADDR": "203.0.113.7"} | forged)
    client.get("/page", {"REMOTE_ADDR": ""} | forged)

    assert seen == ["203.0.113.7", None]


# --- by the unit ---------------------------------------------------------------------------


class Reading:
    """A stream that is read while it is written."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self._reader = EventReader()
        self._events: list[Event] = []

    def next(self) -> Event:
        while not self._events:
            self._events += self._reader.feed(next(self.response.pieces))
        return self._events.pop(0)

    def rest(self) -> list[Event]:
        return [*self._events, *self._reader.feed(self.response.read().body)]


def _data(events: list[Event]) -> list[str]:
    return [event.data or "" for event in events if event.name == ""]


def _send_voucher(client: WsgiClient, channel: OpenChannel, cumulative: int) -> Response:
    return client.pay(channel, cumulative, "/units/words", {"REQUEST_METHOD": "HEAD"})


def test_a_stream_with_enough_credit_is_charged_by_the_unit(client: WsgiClient) -> None:
    channel = client.opened()

    events = Reading(client.start_paid(channel, 9 * PRICE, "/units/words")).rest()

    assert _data(events) == list(WORDS)
    assert events[-1].name == RECEIPT
    assert client.shop.spent(channel) == len(WORDS) * PRICE


def test_a_stream_without_credit_asks_and_goes_on_when_a_voucher_comes(client: WsgiClient) -> None:
    channel = client.opened()
    reading = Reading(client.start_paid(channel, 2 * PRICE, "/units/words"))

    words = [reading.next() for _ in range(2)]
    asked = reading.next()
    need = NeedVoucher.from_json(asked.data or "")
    answered = _send_voucher(client, channel, 5 * PRICE)
    events = reading.rest()

    assert asked.name == NEED_VOUCHER
    assert (need.channel_id, need.accepted, need.required) == (channel.id, 2 * PRICE, 3 * PRICE)
    assert (answered.status, answered.receipt.accepted) == (204, 5 * PRICE)
    assert _data([*words, *events]) == list(WORDS)
    assert client.shop.spent(channel) == 5 * PRICE


def test_a_stream_that_nobody_pays_for_ends_with_its_receipt(
    client: WsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment, "NEED_VOUCHER_SECONDS", 0.1)
    channel = client.opened()

    events = Reading(client.start_paid(channel, 2 * PRICE, "/units/words")).rest()

    assert [event.name for event in events] == ["", "", NEED_VOUCHER, RECEIPT]
    assert client.shop.spent(channel) == 2 * PRICE


def test_nothing_is_put_into_the_middle_of_an_event(client: WsgiClient) -> None:
    events = Reading(client.start_paid(client.opened(), 2 * PRICE, "/units/split")).rest()

    assert NEED_VOUCHER not in [event.name for event in events]
    assert _data(events)[:2] == list(WORDS[:2])


def test_a_plain_response_without_credit_breaks_off(client: WsgiClient) -> None:
    channel = client.opened()

    with pytest.raises(InsufficientBalance):
        client.pay(channel, 2 * PRICE, "/units/chunks")

    assert client.shop.spent(channel) == 2 * PRICE


@pytest.mark.parametrize("path", ["early", "page-made-of-it"])
def test_a_charge_before_the_response_that_fails_is_a_402(client: WsgiClient, path: str) -> None:
    channel = client.opened()

    response = client.pay(channel, 2 * PRICE, f"/units/{path}")

    assert response.status == 402
    assert InsufficientBalance.code.encode() in response.body
    assert (response.header("www-authenticate") or "").startswith("Payment ")
    assert client.shop.spent(channel) == 0


def test_an_application_may_catch_the_refusal(client: WsgiClient) -> None:
    channel = client.opened()

    response = client.pay(channel, 2 * PRICE, "/units/caught")

    assert (response.status, response.body) == (200, b"a sample")
    assert client.shop.spent(channel) == 0


def test_what_was_charged_for_a_response_that_failed_goes_back(client: WsgiClient) -> None:
    channel = client.opened()

    assert client.pay(channel, 2 * PRICE, "/units/fails").status == 500
    assert client.shop.spent(channel) == 0


def test_a_unit_that_cannot_be_charged_for_is_our_trouble(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)

    def application(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        with closing(sqlite3.connect(other_shop.books, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")  # Keeps the books to itself.
            environ["channelpay"].charge(PRICE)
        start("200 OK", PLAIN)
        return [b"bought"]

    with opened_shop(furnished, tmp_path, payer, prices=RULES) as other_shop:
        priced = PaymentMiddleware(application, lambda: other_shop.payee)
        channel = WsgiClient(
            other_shop, PaymentMiddleware(Application(), lambda: other_shop.payee)
        ).opened()
        response = WsgiClient(other_shop, priced).pay(channel, PRICE, "/units/early")
        priced.close()

    assert (response.status, response.header("retry-after")) == (503, "2")
    assert StoreUnavailable.code.encode() in response.body
    assert response.header("payment-receipt") is None
    assert other_shop.spent(channel) == 0


def test_what_was_paid_as_a_whole_is_not_charged_by_the_unit(
    client: WsgiClient, application: Application
) -> None:
    client.pay(client.opened(), PRICE)

    with pytest.raises(ConfigError):
        application.environs[-1]["channelpay"].charge(1)


def test_a_stream_runs_in_one_thread_of_its_own_from_its_first_line_to_its_last(
    client: WsgiClient, application: Application
) -> None:
    _outside.set("the server's")

    Reading(client.start_paid(client.opened(), 9 * PRICE, "/units/words")).rest()

    assert application.threads[-2:] == ["channelpay-stream"] * 2
    assert (application.contexts, _outside.get()) == (["the server's"], "the server's")


def test_the_application_of_a_reader_that_is_gone_is_closed(
    client: WsgiClient, application: Application
) -> None:
    channel = client.opened()
    reading = Reading(client.start_paid(channel, 9 * PRICE, "/units/words"))
    reading.next()

    reading.response.iterable.close()

    assert application.closed == 1
    assert PRICE <= client.shop.spent(channel) <= 4 * PRICE
    assert "channelpay-stream" not in [thread.name for thread in threading.enumerate()]
