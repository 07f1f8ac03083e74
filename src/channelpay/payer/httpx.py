"""Payments for httpx2 (or httpx, where only that is installed), blocking and asynchronous alike.

::

    client = httpx2.Client(auth=ChannelPayAuth(payer))
    response = client.get(url)

What the payer itself forbids is raised, say as :class:`~channelpay.errors.BudgetExceeded`. What the
payee refuses comes back as its own response. ``response.extensions["channelpay"]`` holds a
:class:`~channelpay.payer.steps.Paid`, or None if the answer was not paid for.

An answer that is lost on its way may have been charged. To repeat such a request without paying
twice, give it an ``Idempotency-Key`` header of your own, and the same one when you repeat it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from channelpay.errors import (
    ChannelPayError,
    ConfigError,
    InputError,
    InsufficientBalance,
    NetworkError,
)
from channelpay.payer.client import Payer
from channelpay.payer.driver import Done, advance, check_length, keep, run
from channelpay.payer.messages import (
    answer_of,
    bare_request,
    has_problem,
    httpx,
    read_small,
    read_small_async,
)
from channelpay.payer.metering import MeteredResponse
from channelpay.payer.origins import is_counter, origin_of
from channelpay.payer.records import PayerChannel
from channelpay.payer.refusals import error_of
from channelpay.payer.session import is_answered
from channelpay.payer.steps import Answer, Paid, Send, Step, Wait
from channelpay.payer.streams import AsyncMeteredStream, MeteredStream
from channelpay.protocol.passes import SCHEME
from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import (
    INTENT,
    METHOD,
    SessionRequest,
    format_time,
    parse_challenges,
)

CLOSE_ANSWER_SECONDS = 180.0
ANSWER_SECONDS = 30.0
MAY_HAVE_BEEN_CHARGED = (
    "The payment may have been charged. The same command run again goes on with it and is not"
    " charged twice; nor is a program's own request with the same Idempotency-Key."
)
REPEATS = 1
"""How often a request is repeated whose answer was lost after it was paid for."""
REPEAT_AFTER_SECONDS = 0.5
NO_HEADERS: Mapping[str, str] = MappingProxyType({})

Result = TypeVar("Result")


class ChannelPayAuth(httpx.Auth):
    """Pays for the requests of one client, or of many, out of one payer's channels.

    While a metered response is read, vouchers for it go to the same URL on another connection: of
    ``voucher_client``, a blocking or asynchronous client like the paying one, or else of one with
    httpx2's own settings. It needs to be given where those do not lead to the site: behind a proxy,
    or with certificates of one's own.
    """

    def __init__(
        self, payer: Payer, voucher_client: httpx.Client | httpx.AsyncClient | None = None
    ) -> None:
        self._payer = payer
        self._voucher_client = voucher_client

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Called by ``httpx2.Client``."""
        vouchers = self._voucher_client
        if isinstance(vouchers, httpx.AsyncClient):
            raise ConfigError("a blocking client needs a blocking voucher client")
        _keep_body(request)
        exchange = _Exchange(request)
        steps = self._start(request)
        try:
            current = advance(steps, None)
            while not isinstance(current, Done):
                result = None
                if isinstance(current, Send):
                    if exchange.response is not None:
                        read_small(exchange.response)
                    response = yield exchange.request_for(current)
                    exchange.take(response, current)
                    if has_problem(response):
                        read_small(response)
                    result = exchange.answer()
                elif isinstance(current, Wait):
                    time.sleep(current.seconds)
                else:
                    self._payer.perform(current)
                current = advance(steps, result)
            paid = exchange.finish(current.value)
            if paid is not None:
                MeteredStream(exchange.last, paid, self._payer.perform, vouchers)
        finally:
            steps.close()

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Called by ``httpx2.AsyncClient``. Books and chain are used in a thread."""
        vouchers = self._voucher_client
        if isinstance(vouchers, httpx.Client):
            raise ConfigError("an asynchronous client needs an asynchronous voucher client")
        await _keep_body_async(request)
        exchange = _Exchange(request)
        steps = self._start(request)
        try:
            current = await anyio.to_thread.run_sync(advance, steps, None)
            while not isinstance(current, Done):
                result = None
                if isinstance(current, Send):
                    if exchange.response is not None:
                        await read_small_async(exchange.response)
                    response = yield exchange.request_for(current)
                    exchange.take(response, current)
                    if has_problem(response):
                        await read_small_async(response)
                    result = exchange.answer()
                elif isinstance(current, Wait):
                    await anyio.sleep(current.seconds)
                else:
                    await anyio.to_thread.run_sync(self._payer.perform, current)
                current = await anyio.to_thread.run_sync(advance, steps, result)
            paid = exchange.finish(current.value)
            if paid is not None:
                AsyncMeteredStream(exchange.last, paid, self._payer.perform, vouchers)
        finally:
            steps.close()

    def _start(self, request: httpx.Request) -> Generator[Step, Any, Paid | MeteredResponse | None]:
        key = request.headers.get("Idempotency-Key")
        return self._payer.session(str(request.url), key).run()


class _Exchange:
    """The requests and responses behind one call of the client."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._to: str | None = None
        self.response: httpx.Response | None = None

    def request_for(self, step: Send) -> httpx.Request:
        if step.bare:
            return bare_request(self._request, step.headers, step.method, step.to)
        self._request.headers.update(step.headers)
        return self._request

    def take(self, response: httpx.Response, step: Send) -> None:
        """Note a response. After a redirect the next attempt goes where the answer came from."""
        self.response = response
        self._to = step.to
        if not step.bare:
            self._request = response.request

    def answer(self) -> Answer:
        if self._to is None:
            return answer_of(self.last, str(self._request.url))
        is_there = origin_of(str(self.last.url)) == origin_of(self._to)
        return answer_of(self.last, self._to if is_there else str(self.last.url))

    def finish(self, paid: Paid | MeteredResponse | None) -> MeteredResponse | None:
        """Say what was paid, or return what pays while the last response is read."""
        if isinstance(paid, MeteredResponse):
            return paid
        self.last.extensions["channelpay"] = paid
        return None

    @property
    def last(self) -> httpx.Response:
        assert self.response is not None
        return self.response


def run_bare(client: httpx.Client, url: str, steps: Generator[Step, Any, Result]) -> Result:
    """Drive a session that sends bare requests to one URL only."""
    request = client.build_request("GET", url)

    def send(step: Send) -> Answer:
        return _answer_to(client, bare_request(request, step.headers, step.method, step.to))

    def refuse(step: Step) -> None:
        raise TypeError(f"{type(step).__name__} is no bare request")

    return run(steps, send, refuse)


def close_client() -> httpx.Client:
    """A client for closes: a payee answers one when its transaction is confirmed."""
    return httpx.Client(timeout=CLOSE_ANSWER_SECONDS)


def paying_client(payer: Payer) -> httpx.Client:
    """A client for whatever a person asks for: it follows redirects, and pays."""
    return _client(auth=ChannelPayAuth(payer), follow_redirects=True, timeout=ANSWER_SECONDS)


def _client(**settings: Any) -> httpx.Client:
    """A client that reads little of a redirect's body, where httpx would read all of it."""
    return httpx.Client(event_hooks={"response": [_read_redirect]}, **settings)


def _read_redirect(response: httpx.Response) -> None:
    if response.has_redirect_location:
        read_small(response)


def unpaid(url: str) -> Answer:
    """What a GET without a payment is answered, after redirects; of the body, only a problem is
    read.
    """
    with translated(url), _client(follow_redirects=True, timeout=ANSWER_SECONDS) as client:
        return _answer_to(client, client.build_request("GET", url))


def run_bare_alone(url: str, steps: Generator[Step, Any, Result]) -> Result:
    """:func:`run_bare` with a client for this one session."""
    with _client(timeout=ANSWER_SECONDS) as client:
        return run_bare(client, url, steps)


def asked_by(url: str) -> list[SessionRequest]:
    """What a URL asks to be paid, without paying; empty if nothing of our kind."""
    requests = []
    for challenge in parse_challenges(unpaid(url).challenges):
        if (challenge.method, challenge.intent) == (METHOD, INTENT):
            with suppress(InputError):
                requests.append(SessionRequest.decode(challenge.request))
    return requests


@contextmanager
def paid_get(
    payer: Payer,
    url: str,
    key: str | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
    method: str = "GET",
) -> Iterator[httpx.Response]:
    """GET a URL with these headers, and pay; the body is left to be streamed. If the answer is
    lost, the request is repeated with its Idempotency-Key, ``key`` or one of its own: what was
    charged already is not charged again. Of what a site sells beside its pages no redirect is
    followed: what comes of it is for the origin that was named.
    """
    with translated(url, payer), paying_client(payer) as client:
        client.headers.update(headers)
        client.follow_redirects = not is_counter(url)
        response = _repeated(client, method, url, key or str(uuid.uuid4()))
        try:
            yield response
        finally:
            response.close()


def _repeated(client: httpx.Client, method: str, url: str, key: str) -> httpx.Response:
    for _ in range(REPEATS):
        try:
            return _streamed(client, method, url, key)
        except httpx.TransportError as error:
            # A redirect makes another purchase with another key, which must not be made twice.
            if not _was_paid(error) or error.request.headers.get("Idempotency-Key") != key:
                raise
        time.sleep(REPEAT_AFTER_SECONDS)
    return _streamed(client, method, url, key)


def _streamed(client: httpx.Client, method: str, url: str, key: str) -> httpx.Response:
    request = client.build_request(method, url, headers={"Idempotency-Key": key})
    return client.send(request, stream=True)


def _was_paid(error: httpx.RequestError) -> bool:
    """Whether a credential was with the request that failed."""
    try:
        return _carried_payment(error.request)
    except RuntimeError:
        return False  # It failed before there was a request.


def _carried_payment(request: httpx.Request) -> bool:
    return str(request.headers.get("Authorization", "")).startswith(("Payment ", f"{SCHEME} "))


def is_final(response: httpx.Response) -> bool:
    """Whether the payee itself answered, so that nothing of a purchase is left to wait for."""
    return is_answered(answer_of(response, str(response.url)))


def error_of_response(response: httpx.Response, payer: Payer | None = None) -> ChannelPayError:
    """A response of a paying client that is not a success, as an error of ours."""
    answer = answer_of(response, str(response.url))
    error = error_of(answer)
    if isinstance(error, NetworkError) and not answer.code and _carried_payment(response.request):
        error.hint = MAY_HAVE_BEEN_CHARGED
    if payer is not None and not is_answered(answer):
        error.hint = f"{error.hint} {way_out(payer, answer.url)}".strip()
    if payer is not None and isinstance(error, InsufficientBalance):
        error.hint = _way_out_of_dispute(payer, answer.url) or error.hint
    return error


@contextmanager
def translated(url: str, payer: Payer | None = None) -> Iterator[None]:
    """Turn what the HTTP client raises into errors of ours; for a ``payer``, with the way out of
    the channels whose payee is silent.
    """
    try:
        yield
    except (httpx.InvalidURL, httpx.TooManyRedirects, UnicodeError) as error:
        # The last is what becomes of a name that no host can have, also in a redirect.
        raise InputError(f"{url}: {error}") from error
    except httpx.RequestError as error:
        hint = MAY_HAVE_BEEN_CHARGED if _was_paid(error) else NetworkError.hint
        if payer is not None:
            hint = f"{hint} {way_out(payer, url)}".strip()
        raise NetworkError(f"no whole answer from {url}: {error}", hint=hint) from error


def way_out(payer: Payer, url: str) -> str:
    """What to do about a payee that does not answer at this address, if money is locked there."""
    used = payer.state.used_at(payer.address, origin_of(url))
    silent = [entry for entry in used if entry.unanswered]
    if not silent:
        return ""
    since = format_time(min(entry.unanswered_since for entry in silent))
    return (
        f"The payee has not answered since {since}. If it stays silent, this gets your deposit back"
        f" without it: {_closing(silent)}"
    )


def _way_out_of_dispute(payer: Payer, url: str) -> str:
    used = payer.state.used_at(payer.address, origin_of(url))
    if not used:
        return ""
    return (
        "The payee says that it charged more than your books explain, and does not prove it. To"
        f" go on, close the channel and open another one: {_closing(used)}"
    )


def _closing(entries: list[PayerChannel]) -> str:
    return " or ".join(
        f"channelpay channel close {to_hex(one.channel_id)} --request" for one in entries
    )


def _answer_to(client: httpx.Client, request: httpx.Request) -> Answer:
    """Of the body, only a problem is read."""
    url = str(request.url)
    with translated(url):
        response = client.send(request, stream=True)
        try:
            if has_problem(response):
                read_small(response)
        finally:
            response.close()
    return answer_of(response, str(response.url))


def _keep_body(request: httpx.Request) -> None:
    if isinstance(request.stream, httpx.ByteStream):
        return
    check_length(request.headers.get("Content-Length"))
    kept = bytearray()
    stream = request.stream
    if not isinstance(stream, httpx.SyncByteStream):
        raise InputError("an asynchronous body needs an asynchronous client")
    for chunk in stream:
        keep(kept, chunk)
    request.stream = httpx.ByteStream(bytes(kept))


async def _keep_body_async(request: httpx.Request) -> None:
    if isinstance(request.stream, httpx.ByteStream):
        return
    check_length(request.headers.get("Content-Length"))
    kept = bytearray()
    stream = request.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise InputError("a blocking body needs a blocking client")
    async for chunk in stream:
        keep(kept, chunk)
    request.stream = httpx.ByteStream(bytes(kept))
