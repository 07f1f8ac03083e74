"""Paid streams over real sockets, for blocking and asynchronous readers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import requests

from channelpay.errors import BudgetExceeded, ConfigError, PaymentRefused
from channelpay.payer import metering
from channelpay.payer.httpx import ChannelPayAuth
from channelpay.payer.messages import answer_of
from channelpay.payer.requests import ChannelPayAdapter, paid_of
from channelpay.payer.steps import Paid
from channelpay.protocol.sse import NeedVoucher, need_voucher_event
from channelpay.protocol.types import ChannelId
from tests.payer.selling import LIMITS, metered_site
from tests.payer.site import Ground
from tests.payer.stream_server import StreamServer, serving
from tests.payer.test_httpx import FakePayer

DEADLINE_SECONDS = 20.0
COUNT = 400
CONTENT = b"".join(b"data: %d\n\n" % (number + 1) for number in range(COUNT))


class Fetched:
    """What a reader got, and how it ended."""

    def __init__(self) -> None:
        self.content = b""
        self.costs: list[int] = []
        self.response: httpx2.Response | requests.Response | None = None
        self.error: Exception | None = None

    @property
    def paid(self) -> Paid:
        assert self.response is not None
        if isinstance(self.response, httpx2.Response):
            paid: Paid | None = self.response.extensions["channelpay"]
        else:
            paid = paid_of(self.response)
        assert paid is not None
        return paid

    def take(self, chunk: bytes) -> None:
        self.content += chunk
        self.costs.append(self.paid.cost)


Fetch = Callable[..., Fetched]


@pytest.fixture
def server() -> Iterator[StreamServer]:
    with serving(StreamServer(metered_site(), [1] * COUNT)) as server:
        yield server


@pytest.fixture
def ground(tmp_path: Path, server: StreamServer) -> Iterator[Ground]:
    ground = Ground(tmp_path, server.site, LIMITS)
    yield ground
    ground.state.close()


def payer_of(ground: Ground) -> Any:
    return FakePayer(ground)


def blocking(ground: Ground, url: str, **options: Any) -> Fetched:
    fetched = Fetched()
    until: Callable[[Fetched], bool] = options.pop("until", lambda fetched: False)
    auth = ChannelPayAuth(payer_of(ground))
    try:
        with (
            httpx2.Client(auth=auth, timeout=options.pop("timeout", DEADLINE_SECONDS)) as client,
            client.stream(options.pop("method", "GET"), url, **options) as response,
        ):
            fetched.response = response
            for chunk in response.iter_bytes():
                fetched.take(chunk)
                if until(fetched):
                    break
    except Exception as error:  # noqa: BLE001  the test looks at it
        fetched.error = error
    return fetched


def asynchronous(ground: Ground, url: str, **options: Any) -> Fetched:
    fetched = Fetched()
    until: Callable[[Fetched], bool] = options.pop("until", lambda fetched: False)
    auth = ChannelPayAuth(payer_of(ground))

    async def read() -> None:
        timeout = options.pop("timeout", DEADLINE_SECONDS)
        async with (
            httpx2.AsyncClient(auth=auth, timeout=timeout) as client,
            client.stream(options.pop("method", "GET"), url, **options) as response,
        ):
            fetched.response = response
            async for chunk in response.aiter_bytes():
                fetched.take(chunk)
                if until(fetched):
                    break

    try:
        anyio.run(read)
    except Exception as error:  # noqa: BLE001  the test looks at it
        fetched.error = error
    return fetched


def with_requests(ground: Ground, url: str, **options: Any) -> Fetched:
    fetched = Fetched()
    until: Callable[[Fetched], bool] = options.pop("until", lambda fetched: False)
    method, body = options.pop("method", "GET"), options.pop("content", None)
    timeout = options.pop("timeout", DEADLINE_SECONDS)
    if isinstance(timeout, httpx2.Timeout):
        timeout = (timeout.connect, timeout.read)
    try:
        with requests.Session() as session:
            session.mount("http://", ChannelPayAdapter(payer_of(ground)))
            response = session.request(
                method, url, data=body, stream=True, timeout=timeout, **options
            )
            with response:
                fetched.response = response
                for chunk in response.iter_content(None):
                    fetched.take(chunk)
                    if until(fetched):
                        break
    except Exception as error:  # noqa: BLE001  the test looks at it
        fetched.error = error
    return fetched


@pytest.fixture(params=[blocking, asynchronous, with_requests])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    chosen: Fetch = request.param
    return chosen


def only_channel(ground: Ground) -> Any:
    (entry,) = ground.state.channels(ground.payer)
    return entry


def test_a_stream_is_read_whole_and_paid_for_as_it_comes(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    fetched = fetch(ground, server.url)
    assert fetched.error is None
    assert fetched.content == CONTENT
    assert (fetched.paid.cost, only_channel(ground).spent) == (COUNT, COUNT)
    assert fetched.costs[0] == 100, "what was promised, until it is known"
    assert fetched.paid.receipt is not None
    assert fetched.paid.receipt.spent == COUNT


def test_vouchers_go_to_the_same_url_on_another_connection_and_buy_nothing(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    order = {"content": b"order", "headers": {"Content-Type": "text/plain", "Cookie": "a=b"}}
    assert fetch(ground, server.url, method="POST", **order).content == CONTENT
    _, streamed = server.sent_with("POST")
    vouchers = server.sent_with("HEAD")
    assert len(vouchers) == 2
    assert len({port for _, port, _, _ in vouchers}) == 1
    for _, port, headers, body in vouchers:
        assert port != streamed[1]
        assert headers["cookie"] == "a=b"
        assert not headers.keys() & {"idempotency-key", "content-type", "content-length"}
        assert body == b""


def test_a_stream_is_asked_for_as_it_is_so_that_it_can_be_looked_into(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    fetch(ground, server.url)
    *_, (_, _, headers, _) = server.sent_with("GET")
    assert headers["accept-encoding"] == "identity"


def test_at_the_limit_the_reader_has_what_was_paid_and_an_error(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    server.amounts = [1] * 5000
    fetched = fetch(ground, server.url)
    assert isinstance(fetched.error, BudgetExceeded)
    assert fetched.content.endswith(b"data: 1600\n\n")
    assert (fetched.paid.cost, only_channel(ground).in_flight) == (1600, 0)


@pytest.mark.parametrize(
    "event",
    [
        need_voucher_event(NeedVoucher(ChannelId(bytes(32)), 2, 1, 100)),
        b"event: payment-need-voucher\ndata: now\n\n",
    ],
    ids=["another channel", "malformed"],
)
def test_a_senseless_need_ends_the_stream_after_what_came_before(
    fetch: Fetch, ground: Ground, server: StreamServer, event: bytes
) -> None:
    server.extra = b"data: before\n\n" + event
    fetched = fetch(ground, server.url)
    assert isinstance(fetched.error, PaymentRefused)
    assert fetched.content == b"data: before\n\n"
    assert server.sent_with("HEAD") == []


def test_a_payee_that_does_not_go_on_is_left_at_the_readers_timeout(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    server.goes_on = False
    fetched = fetch(ground, server.url, timeout=httpx2.Timeout(DEADLINE_SECONDS, read=0.3))
    assert isinstance(fetched.error, httpx2.ReadTimeout | requests.ConnectionError)
    assert "promised 301 base units" in str(fetched.error)
    assert (only_channel(ground).in_flight, fetched.paid.receipt) == (0, None)


@pytest.mark.parametrize("media_type", ["text/event-stream", "text/plain"])
def test_a_response_that_is_cut_off_says_what_it_was_promised(
    fetch: Fetch, ground: Ground, server: StreamServer, media_type: str
) -> None:
    server.site.media_type, server.cut = media_type, 50
    fetched = fetch(ground, server.url)
    broken_off = httpx2.RemoteProtocolError | requests.exceptions.ChunkedEncodingError
    assert isinstance(fetched.error, broken_off)
    assert "it was cut off when it had been promised 100 base units" in str(fetched.error)
    assert fetched.content.endswith(b"data: 50\n\n")
    assert only_channel(ground).in_flight == 0


def test_a_reader_that_stops_early_pays_no_more_and_the_next_one_is_served(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    server.hold_after = 10
    fetched = fetch(ground, server.url, until=lambda fetched: b"10" in fetched.content)
    server.released.set()
    assert (fetched.error, only_channel(ground).in_flight) == (None, 0)
    assert only_channel(ground).signed == 100
    assert fetch(ground, server.url).content == CONTENT


def test_a_voucher_that_is_lost_on_its_way_is_sent_again(
    fetch: Fetch, ground: Ground, server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "RETRY_AFTER_SECONDS", 0.01)
    server.lost_vouchers = 3
    fetched = fetch(ground, server.url)
    assert (fetched.error, fetched.content) == (None, CONTENT)


def test_a_response_that_is_read_at_once_is_paid_for_too(
    ground: Ground, server: StreamServer
) -> None:
    with httpx2.Client(auth=ChannelPayAuth(payer_of(ground))) as client:
        response = client.get(server.url)
    assert response.content == CONTENT
    assert response.extensions["channelpay"].cost == COUNT
    assert response.elapsed.total_seconds() > 0


@pytest.mark.parametrize("chunk_bytes", [1, 7, 10**6])
def test_requests_reads_a_stream_in_chunks_of_any_size(
    ground: Ground, server: StreamServer, chunk_bytes: int
) -> None:
    with requests.Session() as session:
        session.mount("http://", ChannelPayAdapter(payer_of(ground)))
        with session.get(server.url, stream=True, timeout=DEADLINE_SECONDS) as response:
            chunks = list(response.iter_content(chunk_bytes))
        whole = session.get(server.url, stream=True, timeout=DEADLINE_SECONDS)
        raw = whole.raw.read(20), whole.raw.read()
        whole.close()
    assert max(map(len, chunks)) <= chunk_bytes
    assert b"".join(chunks) == b"".join(raw) == CONTENT
    assert (len(raw[0]), only_channel(ground).spent) == (20, 2 * COUNT)


def test_a_client_for_vouchers_is_used_and_left_open(ground: Ground, server: StreamServer) -> None:
    sent: list[httpx2.Request] = []
    vouchers = httpx2.Client(
        event_hooks={"request": [sent.append]}, timeout=DEADLINE_SECONDS, auth=("user", "secret")
    )
    auth = ChannelPayAuth(payer_of(ground), vouchers)
    with vouchers, httpx2.Client(auth=auth, timeout=None) as client:
        assert client.get(server.url).content == CONTENT
        assert [request.method for request in sent] == ["HEAD"] * 2
        assert all(request.headers["Authorization"].startswith("Payment ") for request in sent)
        assert {request.extensions["timeout"]["read"] for request in sent} == {DEADLINE_SECONDS}
        assert not vouchers.is_closed


@pytest.mark.anyio
async def test_an_asynchronous_client_for_vouchers_is_used_and_left_open(
    ground: Ground, server: StreamServer
) -> None:
    sent: list[httpx2.Request] = []

    async def note(request: httpx2.Request) -> None:
        sent.append(request)

    vouchers = httpx2.AsyncClient(event_hooks={"request": [note]})
    auth = ChannelPayAuth(payer_of(ground), vouchers)
    async with vouchers, httpx2.AsyncClient(auth=auth) as client:
        assert (await client.get(server.url)).content == CONTENT
        assert [request.method for request in sent] == ["HEAD"] * 2
        assert not vouchers.is_closed


@pytest.mark.anyio
async def test_a_client_for_vouchers_of_the_wrong_kind_is_refused_before_anything_is_sent(
    ground: Ground, server: StreamServer
) -> None:
    with (
        httpx2.Client(auth=ChannelPayAuth(payer_of(ground), httpx2.AsyncClient())) as client,
        pytest.raises(ConfigError),
    ):
        client.get(server.url)
    async with httpx2.AsyncClient(
        auth=ChannelPayAuth(payer_of(ground), httpx2.Client())
    ) as asynchronous_client:
        with pytest.raises(ConfigError):
            await asynchronous_client.get(server.url)
    assert server.requests == []


@pytest.mark.anyio
async def test_a_reader_that_is_cancelled_leaves_the_books_in_order(
    ground: Ground, server: StreamServer
) -> None:
    server.hold_after = 10
    read = anyio.Event()

    async def reader() -> None:
        auth = ChannelPayAuth(payer_of(ground))
        async with (
            httpx2.AsyncClient(auth=auth, timeout=DEADLINE_SECONDS) as client,
            client.stream("GET", server.url) as response,
        ):
            async for _ in response.aiter_bytes():
                read.set()

    async with anyio.create_task_group() as group:
        group.start_soon(reader)
        await read.wait()
        assert only_channel(ground).in_flight == 100
        group.cancel_scope.cancel()
    assert only_channel(ground).in_flight == 0


@pytest.mark.anyio
async def test_streams_at_the_same_time_over_one_channel_are_all_read_whole(
    ground: Ground, server: StreamServer
) -> None:
    contents: list[bytes] = []

    async def reader(client: httpx2.AsyncClient) -> None:
        contents.append((await client.get(server.url)).content)

    auth = ChannelPayAuth(payer_of(ground))
    async with (
        httpx2.AsyncClient(auth=auth, timeout=DEADLINE_SECONDS) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(4):
            group.start_soon(reader, client)
    assert contents == [CONTENT] * 4
    (record,) = server.site.records.values()
    assert (only_channel(ground).spent, record.spent) == (4 * COUNT, 4 * COUNT)


@pytest.mark.parametrize(
    ("status", "method", "encoding", "expected"),
    [
        (200, "GET", "identity", "text/event-stream"),
        (200, "GET", "gzip", "application/octet-stream"),
        (200, "HEAD", "identity", None),
        (204, "GET", "identity", None),
    ],
)
def test_only_a_body_that_can_be_looked_into_counts_as_an_event_stream(
    status: int, method: str, encoding: str, expected: str | None
) -> None:
    headers = {"Content-Type": "Text/Event-Stream; charset=utf-8", "Content-Encoding": encoding}
    request = httpx2.Request(method, "https://site.example/")
    response = httpx2.Response(status, headers=headers, request=request)
    assert answer_of(response, "https://site.example/").media_type == expected


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
