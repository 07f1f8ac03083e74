"""The httpx adapter, blocking and asynchronous, over a transport that is a site of real rules."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from channelpay.errors import BudgetExceeded, InputError, NetworkError
from channelpay.payer import driver
from channelpay.payer import httpx as adapter
from channelpay.payer.httpx import ChannelPayAuth
from channelpay.payer.session import PaymentSession
from channelpay.payer.steps import PROBLEM_BYTES_MAX, Answer, Paid, Send, Step
from channelpay.protocol.text import to_hex
from tests.payer.site import URL, Ground, Site, refused


class Transport(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """The site behind httpx; reads bodies as a network would, once, and notes what arrives."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.seen: list[httpx2.Request] = []
        self.moved: dict[str, str] = {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.SyncByteStream)
        return self._respond(request, b"".join(request.stream))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        return self._respond(request, b"".join([chunk async for chunk in request.stream]))

    def _respond(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        # A copy: the adapter changes the headers of the request that it sends again.
        self.seen.append(
            httpx2.Request(request.method, request.url, headers=request.headers, content=body)
        )
        if str(request.url) in self.moved:
            return httpx2.Response(302, headers={"Location": self.moved[str(request.url)]})
        names = {"authorization": "Authorization", "idempotency-key": "Idempotency-Key"}
        headers = {names[name]: value for name, value in request.headers.items() if name in names}
        return _response(self.site.answer(str(request.url), Send(headers)))


def _response(answer: Answer) -> httpx2.Response:
    headers = [("WWW-Authenticate", challenge) for challenge in answer.challenges]
    for name, value in (("Payment-Receipt", answer.receipt), ("Retry-After", answer.retry_after)):
        if value is not None:
            headers.append((name, value))
    if answer.problem:
        headers.append(("Content-Type", "application/problem+json"))
        return httpx2.Response(answer.status, headers=headers, text=json.dumps(answer.problem))
    return httpx2.Response(answer.status, headers=headers, text="content")


class FakePayer:
    """What the adapter uses of a payer."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    def session(self, url: str, key: str | None = None) -> PaymentSession:
        return PaymentSession(
            self._ground.terms(), self._ground.state, url, key, clock=self._ground.clock
        )

    def perform(self, step: Step) -> None:
        self._ground.perform(step)


@pytest.fixture
def transport(site: Site) -> Transport:
    return Transport(site)


@pytest.fixture
def auth(ground: Ground) -> ChannelPayAuth:
    return ChannelPayAuth(FakePayer(ground))  # type: ignore[arg-type]


@pytest.fixture
def client(auth: ChannelPayAuth, transport: Transport) -> Iterator[httpx2.Client]:
    with httpx2.Client(auth=auth, transport=transport, follow_redirects=True) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_blocking_client_opens_pays_and_reuses(
    client: httpx2.Client, ground: Ground, site: Site
) -> None:
    costs = []
    for _ in range(3):
        response = client.get(URL)
        assert (response.status_code, response.text) == (200, "content")
        costs.append(response.extensions["channelpay"].cost)
    assert costs == [1, 1, 1]
    assert (ground.opened, site.requests) == (1, 4)


@pytest.mark.anyio
async def test_an_asynchronous_client_does_the_same(
    auth: ChannelPayAuth, transport: Transport, ground: Ground
) -> None:
    async with httpx2.AsyncClient(auth=auth, transport=transport) as client:
        responses = [await client.get(URL) for _ in range(3)]
    assert [response.status_code for response in responses] == [200] * 3
    assert [response.extensions["channelpay"].cost for response in responses] == [1] * 3
    assert (ground.opened, transport.site.requests) == (1, 4)


@pytest.mark.anyio
async def test_parallel_requests_of_a_new_payer_open_one_channel(
    auth: ChannelPayAuth, transport: Transport, ground: Ground
) -> None:
    import anyio

    async with (
        httpx2.AsyncClient(auth=auth, transport=transport) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(8):
            group.start_soon(client.get, URL)
    (entry,) = ground.state.channels(ground.payer)
    assert (entry.spent, entry.signed, entry.in_flight) == (8, 8, 0)


def test_a_limit_is_raised_out_of_the_call(client: httpx2.Client, site: Site) -> None:
    site.default_price = 11
    with pytest.raises(BudgetExceeded):
        client.get(URL)


def test_the_payees_refusal_is_the_response(
    client: httpx2.Client, ground: Ground, site: Site
) -> None:
    ground.open()
    client.get(URL)
    site.scripted = [refused(402, "signer-mismatch", detail="who is this?")]
    response = client.get(URL)
    assert (response.status_code, response.json()["detail"]) == (402, "who is this?")
    assert response.extensions["channelpay"] is None


def test_a_lost_connection_frees_what_was_set_aside(ground: Ground, auth: ChannelPayAuth) -> None:
    ground.open()
    ground.pay()

    def fail(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("gone")

    with (
        httpx2.Client(auth=auth, transport=httpx2.MockTransport(fail)) as client,
        pytest.raises(httpx2.ConnectError),
    ):
        client.get(URL)
    (entry,) = ground.state.channels(ground.payer)
    assert entry.in_flight == 0


@pytest.mark.anyio
async def test_a_cancelled_request_frees_what_was_set_aside(
    ground: Ground, auth: ChannelPayAuth
) -> None:
    import anyio

    ground.open()
    ground.pay()
    sent = anyio.Event()

    async def hang(request: httpx2.Request) -> httpx2.Response:
        sent.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with (
        httpx2.AsyncClient(auth=auth, transport=httpx2.MockTransport(hang)) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(client.get, URL)
        await sent.wait()
        assert ground.state.channels(ground.payer)[0].in_flight == 1
        group.cancel_scope.cancel()
    assert ground.state.channels(ground.payer)[0].in_flight == 0


def test_the_body_comes_again_with_the_payment(client: httpx2.Client, transport: Transport) -> None:
    def body() -> Iterator[bytes]:
        yield b"one "
        yield b"two"

    assert client.post(URL, content=body()).status_code == 200
    assert [request.read() for request in transport.seen] == [b"one two"] * 2


@pytest.mark.anyio
async def test_an_asynchronous_body_comes_again_with_the_payment(
    auth: ChannelPayAuth, transport: Transport
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async with httpx2.AsyncClient(auth=auth, transport=transport) as client:
        assert (await client.post(URL, content=body())).status_code == 200
    assert [request.read() for request in transport.seen] == [b"one two"] * 2


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "11"}])
def test_a_body_that_is_too_large_to_be_kept_is_refused(
    client: httpx2.Client,
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    monkeypatch.setattr(driver, "BODY_BYTES_MAX", 10)
    with pytest.raises(InputError, match="over 10 bytes"):
        client.post(URL, content=(b"x" for _ in range(11)), headers=headers)
    assert transport.seen == []


def test_the_callers_own_idempotency_key_is_kept(
    client: httpx2.Client, transport: Transport
) -> None:
    client.get(URL, headers={"Idempotency-Key": "mine"})
    assert {request.headers["Idempotency-Key"] for request in transport.seen} == {"mine"}


def test_a_redirect_to_another_origin_carries_no_credential(
    client: httpx2.Client, transport: Transport, ground: Ground
) -> None:
    ground.open()
    client.get(URL)
    elsewhere = "https://elsewhere.example/page"
    transport.moved[URL] = elsewhere
    transport.seen.clear()
    response = client.get(URL)
    assert (response.status_code, str(response.url)) == (200, elsewhere)
    first, forwarded, paying = transport.seen
    assert "Authorization" in first.headers
    assert (str(forwarded.url), "Authorization" in forwarded.headers) == (elsewhere, False)
    assert (str(paying.url), "Authorization" in paying.headers) == (elsewhere, True)
    keys = {request.headers["Idempotency-Key"] for request in (first, paying)}
    assert len(keys) == 2


def test_a_redirect_within_the_origin_is_paid_where_it_leads(
    client: httpx2.Client, transport: Transport, ground: Ground
) -> None:
    ground.open()
    client.get(URL)
    transport.moved[URL] = "https://site.example/new"
    response = client.get(URL)
    assert response.status_code == 200
    assert response.extensions["channelpay"].cost == 1


@pytest.mark.parametrize("status", [200, 404])
def test_a_streamed_answer_is_left_unread(auth: ChannelPayAuth, status: int) -> None:
    def respond(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=iter([b"con", b"tent"]))

    with (
        httpx2.Client(auth=auth, transport=httpx2.MockTransport(respond)) as client,
        client.stream("GET", URL) as response,
    ):
        assert not response.is_stream_consumed
        assert response.read() == b"content"


def test_a_top_up_is_told_without_the_requests_body(
    client: httpx2.Client, transport: Transport, ground: Ground
) -> None:
    order: dict[str, Any] = {"content": b"order", "headers": {"Content-Type": "text/plain"}}
    entry = ground.open(deposit=1)
    client.post(URL, **order)
    ground.top_up(entry.channel_id, 5)
    transport.seen.clear()
    assert client.post(URL, **order).status_code == 200
    told, paid = transport.seen
    assert (told.method, told.read(), told.headers.get("content-type")) == ("POST", b"", None)
    assert told.headers.get("content-length", "0") == "0"
    assert "Idempotency-Key" not in told.headers
    assert paid.read() == b"order"


def test_the_result_names_channel_cost_and_receipt(client: httpx2.Client, ground: Ground) -> None:
    paid: Any = client.get(URL).extensions["channelpay"]
    assert isinstance(paid, Paid)
    assert paid.receipt is not None
    (entry,) = ground.state.channels(ground.payer)
    assert (paid.channel_id, paid.cost, paid.receipt.spent) == (entry.channel_id, 1, 1)


PROBLEM = {"Content-Type": "application/problem+json"}


class Endless(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that goes on for as long as somebody reads."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        while self.taken < 100 * PROBLEM_BYTES_MAX:
            self.taken += 1024
            yield b"a" * 1024

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


@pytest.mark.parametrize("kind", ["application/problem+json", "text/html"])
def test_of_an_endless_refusal_little_is_read(
    auth: ChannelPayAuth, site: Site, ground: Ground, kind: str
) -> None:
    ground.open()
    body = Endless()
    headers = {"Content-Type": kind, "WWW-Authenticate": site.challenge(1)}
    answers = [httpx2.Response(402, headers=headers, stream=body), httpx2.Response(200)]
    transport = httpx2.MockTransport(lambda _: answers.pop(0))
    with httpx2.Client(auth=auth, transport=transport) as client:
        assert client.get(URL).status_code == 200
    assert body.taken <= PROBLEM_BYTES_MAX + 1024


@pytest.mark.anyio
async def test_of_an_endless_refusal_little_is_read_asynchronously(auth: ChannelPayAuth) -> None:
    body = Endless()
    answer = httpx2.Response(402, headers=PROBLEM, stream=body)
    transport = httpx2.MockTransport(lambda _: answer)
    async with httpx2.AsyncClient(auth=auth, transport=transport) as client:
        assert (await client.get(URL)).content == b""
    assert body.taken <= PROBLEM_BYTES_MAX + 1024


def coded(body: bytes) -> httpx2.Response:
    stream = httpx2.ByteStream(gzip.compress(body))
    return httpx2.Response(402, headers={**PROBLEM, "Content-Encoding": "gzip"}, stream=stream)


def problem_of(auth: ChannelPayAuth, response: httpx2.Response) -> bytes:
    transport = httpx2.MockTransport(lambda _: response)
    with httpx2.Client(auth=auth, transport=transport) as client:
        return client.get(URL).content


def test_a_problem_is_decoded_up_to_the_limit(auth: ChannelPayAuth) -> None:
    assert problem_of(auth, coded(b'{"code": "x"}')) == b'{"code": "x"}'
    assert problem_of(auth, coded(b" " * (PROBLEM_BYTES_MAX + 1))) == b""
    broken = httpx2.Response(
        402, headers={**PROBLEM, "Content-Encoding": "gzip"}, stream=httpx2.ByteStream(b"no")
    )
    assert problem_of(auth, broken) == b""


@pytest.mark.parametrize("error", [httpx2.DecodingError, httpx2.ReadError])
def test_after_a_credential_was_sent_nobody_says_that_nothing_was_charged(
    error: type[httpx2.RequestError],
) -> None:
    for headers, charged in (({}, False), ({"Authorization": "Payment x"}, True)):
        request = httpx2.Request("GET", URL, headers=headers)
        with pytest.raises(NetworkError) as raised, adapter.translated(URL):
            raise error("lost", request=request)
        assert ("may have been charged" in raised.value.hint) == charged
        assert ("Nothing was charged" in raised.value.hint) != charged


def test_of_a_redirects_endless_body_little_is_read() -> None:
    body = Endless()

    def handle(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/moved":
            return httpx2.Response(302, headers={"Location": "/here"}, stream=body)
        return httpx2.Response(200, text="here")

    transport = httpx2.MockTransport(handle)
    with adapter._client(follow_redirects=True, transport=transport) as client:
        assert client.get("https://site.example/moved").text == "here"
    assert body.taken <= PROBLEM_BYTES_MAX + 1024


def test_a_silent_payee_comes_with_the_way_out_of_its_channel(ground: Ground) -> None:
    entry = ground.open()
    ground.pay()
    steps = ground.session().run()
    next(steps)
    steps.close()
    payer: Any = SimpleNamespace(state=ground.state, address=ground.payer)

    with pytest.raises(NetworkError) as lost, adapter.translated(URL, payer):
        raise httpx2.ConnectError("refused", request=httpx2.Request("GET", URL))
    gone = httpx2.Response(502, request=httpx2.Request("GET", URL))

    for hint in (lost.value.hint, adapter.error_of_response(gone, payer).hint):
        assert f"channelpay channel close {to_hex(entry.channel_id)} --request" in hint
        assert "since 2027-01-15T08:00:00Z" in hint


def test_a_dispute_over_what_was_charged_comes_with_the_way_out(ground: Ground) -> None:
    entry = ground.open()
    ground.pay()
    payer: Any = SimpleNamespace(state=ground.state, address=ground.payer)
    problem = {"code": "insufficient-balance", "spent": "9"}
    response = httpx2.Response(
        402, headers=PROBLEM, json=problem, request=httpx2.Request("GET", URL)
    )
    error = adapter.error_of_response(response, payer)
    assert f"channelpay channel close {to_hex(entry.channel_id)} --request" in error.hint


def test_the_way_out_is_not_told_of_a_payee_that_answers(ground: Ground) -> None:
    ground.open()
    ground.pay()
    payer: Any = SimpleNamespace(state=ground.state, address=ground.payer)
    assert adapter.way_out(payer, URL) == ""
