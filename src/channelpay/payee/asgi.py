"""Payment for any ASGI application: a plain middleware around it.

Requests that cost nothing pass untouched. A paid one reaches the application with
:class:`PaymentFacts` in ``scope["channelpay"]``; everything else is answered here: the 402 with its
challenge, every refusal, top-ups and closes. A WebSocket cannot be paid for: one on a path with a
price for GET is refused before it opens.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from logging import getLogger
from typing import Any

from channelpay.errors import (
    ChainReverted,
    ChannelPayError,
    InputError,
    MalformedCredential,
    NetworkError,
    PaymentRefused,
    PaymentRequired,
    StoreUnavailable,
    TooFewConfirmations,
)
from channelpay.payee.page import payment_page
from channelpay.payee.payee import Payee
from channelpay.payee.prices import Quote
from channelpay.payee.verifier import Closed, Order, Paid, ToppedUp, Verified, log_failed_release
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, ChannelId
from channelpay.protocol.wire import IDEMPOTENCY_KEY_MAX, is_payment_header

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

RETRY_AFTER_SECONDS = 2
RESOURCE_CHARS_MAX = 2048
_UNCHECKED = "the payment could not be checked; the fault is the site's"
_POLICY_VIOLATION = 1008
_CHALLENGED = frozenset({402, 410})
_SHARED_CACHES = ("public", "private", "s-maxage")
_PAGE_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PaymentFacts:
    """What the application may know of the payment; amounts in base units of the token."""

    channel_id: ChannelId
    payer: Address
    price: int
    accepted: int
    spent: int


class PaymentMiddleware:
    """``app`` behind the prices of ``payee``."""

    def __init__(self, app: App, payee: Payee) -> None:
        self._app = app
        self._payee = payee

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        quote = None
        if scope["type"] == "http":
            quote = self._payee.quote(scope["method"], scope["path"])
        elif scope["type"] == "websocket":
            quote = self._payee.quote("GET", scope["path"])
        if quote is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        else:
            await self._sell(scope, receive, send, quote)

    async def _sell(self, scope: Scope, receive: Receive, send: Send, quote: Quote) -> None:
        try:
            verified = await self._verified(scope, quote)
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            await self._refuse(scope, send, quote, _answerable(error))
            return
        receipt = [(b"payment-receipt", self._payee.receipt(verified).to_header().encode())]
        if isinstance(verified, Paid):
            await self._serve(scope, receive, send, verified, receipt)
        elif isinstance(verified, ToppedUp):
            await _answer(send, 204, [*receipt, _NO_STORE], b"")
        else:
            await _answer(send, 200, [*receipt, _NO_STORE, _JSON], _closed_body(verified))

    async def _verified(self, scope: Scope, quote: Quote) -> Verified:
        header = _credential(scope)
        if header is None:
            price = self._payee.terms.token.format(quote.asked)
            raise PaymentRequired(f"this costs {price}")
        order = Order(_resource(scope), quote.charged, _idempotency_key(scope))
        return await self._payee.verify(header, order)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, paid: Paid, receipt: Headers
    ) -> None:
        delivery = _Delivery(self._payee, paid, receipt, receive, send)
        paid_scope = {**scope, "channelpay": _facts(paid)}
        try:
            await self._app(paid_scope, delivery.receive, delivery.send)
        finally:
            await delivery.end()

    async def _refuse(self, scope: Scope, send: Send, quote: Quote, error: ChannelPayError) -> None:
        headers = [_NO_STORE]
        if error.status in _CHALLENGED:
            challenge = self._payee.challenge(quote).to_header()
            headers += [(b"www-authenticate", challenge.encode()), (b"vary", b"Accept")]
        if error.status == 503 or isinstance(error, TooFewConfirmations):
            headers.append((b"retry-after", str(RETRY_AFTER_SECONDS).encode()))
        if isinstance(error, PaymentRequired) and _wants_page(scope):
            page = payment_page(self._payee.terms, quote, _url(scope)).encode()
            headers += [_HTML, (b"content-security-policy", _PAGE_POLICY)]
            await _answer(send, error.status, headers, page)
        else:
            body = json.dumps(error.as_problem()).encode()
            await _answer(send, error.status, [*headers, _PROBLEM], body)


class _Delivery:
    """One paid request on its way through the application: it ends delivered or released."""

    def __init__(
        self, payee: Payee, paid: Paid, receipt: Headers, receive: Receive, send: Send
    ) -> None:
        self._payee = payee
        self._payment_id = paid.payment_id
        self._receipt = receipt
        self._send = send
        self._client = _Client(receive)
        self.receive = self._client.receive

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] >= 400 or await self._client.is_gone():
                await self._release()
            else:
                self._payment_id = None
                headers = [*_private(message.get("headers", ())), *self._receipt]
                message = {**message, "headers": headers}
        await self._send(message)

    async def end(self) -> None:
        """The application is done, or failed: a charge that delivered nothing goes back."""
        self._client.leave()
        await self._release()

    async def _release(self) -> None:
        """Wait for it, so that the books are right when the client reads that it failed."""
        if self._payment_id is not None:
            released = self._payee.release(self._payment_id)
            self._payment_id = None
            released.add_done_callback(log_failed_release)
            await asyncio.wait([asyncio.wrap_future(released)])


class _Client:
    """The client's side of one request: what it sends, and whether it is still there."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._early: deque[Message] = deque()
        self._peeking: asyncio.Future[Message] | None = None
        self._app_waits = False
        self._gone = False

    async def receive(self) -> Message:
        """ASGI's receive for the application; nothing that was peeked at is lost."""
        if self._early:
            return self._early.popleft()
        self._app_waits = True
        try:
            return self._seen(await (self._peeking or self._receive()))
        finally:
            self._app_waits = False
            self._peeking = None

    async def is_gone(self) -> bool:
        """Whether the server knows already that the client has gone. Does not wait for it."""
        if not self._gone and not self._app_waits:
            if self._peeking is None:
                self._peeking = asyncio.ensure_future(self._receive())
            await asyncio.sleep(0)
            if self._peeking.done():
                self._early.append(self._seen(self._peeking.result()))
                self._peeking = None
        return self._gone

    def leave(self) -> None:
        if self._peeking is not None:
            self._peeking.cancel()

    def _seen(self, message: Message) -> Message:
        self._gone = self._gone or message["type"] == "http.disconnect"
        return message


_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_HTML = (b"content-type", b"text/html; charset=utf-8")


async def _answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    if status != 204:
        headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _answerable(error: Exception) -> ChannelPayError:
    """What the client is told. Our trouble is never its bill: 503, with the cause in the log alone,
    since a node's message may name what is not for the public.
    """
    if isinstance(error, PaymentRefused | InputError | ChainReverted):
        return error
    if isinstance(error, NetworkError):
        _log.warning("%s: %s", _UNCHECKED, error.detail)
        kind = StoreUnavailable if isinstance(error, StoreUnavailable) else NetworkError
        return kind(_UNCHECKED)
    _log.error(_UNCHECKED, exc_info=error)
    return NetworkError(_UNCHECKED)


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _credential(scope: Scope) -> str | None:
    found = _headers(scope, b"authorization")
    if len(found) > 1:
        raise MalformedCredential("there is more than one Authorization header")
    if not found or not is_payment_header(found[0]):
        return None
    return found[0]


def _idempotency_key(scope: Scope) -> str | None:
    found = _headers(scope, b"idempotency-key")
    if not found:
        return None
    key = found[0]
    if len(found) > 1 or not 0 < len(key) <= IDEMPOTENCY_KEY_MAX or not key.isascii():
        raise InputError(f"Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_MAX} ASCII characters")
    return key


def _url(scope: Scope) -> str:
    host = "".join(_headers(scope, b"host")[:1]) or "localhost"
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    target = path + (b"?" + query if query else b"")
    return f"{scope.get('scheme', 'http')}://{host}{target.decode('latin-1')}"


def _resource(scope: Scope) -> str:
    """Method and URL, as the ledger keeps it: a very long one by its beginning and its hash."""
    resource = f"{scope['method']} {_url(scope)}"
    if len(resource) <= RESOURCE_CHARS_MAX:
        return resource
    digest = hashlib.sha256(resource.encode()).hexdigest()
    return f"{resource[: RESOURCE_CHARS_MAX - 65]}#{digest}"


def _wants_page(scope: Scope) -> bool:
    """Whether a person's browser asks: it names text/html, programs do not."""
    ranges = ",".join(_headers(scope, b"accept")).lower().split(",")
    names = (one.replace(" ", "").partition(";") for one in ranges)
    return any(name == "text/html" and rest not in ("q=0", "q=0.0") for name, _, rest in names)


def _private(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The application's headers, with what was paid for kept out of shared caches."""
    kept = [(name, value) for name, value in headers if name.lower() != b"cache-control"]
    values = [value for name, value in headers if name.lower() == b"cache-control"]
    directives = [one.strip() for one in b",".join(values).decode("latin-1").split(",")]
    rest = [one for one in directives if one and not one.lower().startswith(_SHARED_CACHES)]
    cache_control = ", ".join(rest if "no-store" in rest else ["private", *rest])
    return [*kept, (b"cache-control", cache_control.encode("latin-1"))]


def _facts(paid: Paid) -> PaymentFacts:
    record = paid.record
    return PaymentFacts(
        record.channel_id, record.channel.payer, paid.price, record.accepted, record.spent
    )


def _closed_body(closed: Closed) -> bytes:
    state = closed.record.chain
    members = {
        "status": "closed",
        "channelId": to_hex(closed.record.channel_id),
        "txHash": to_hex(closed.transaction_hash),
        "settled": str(state.settled),
        "refund": str(state.deposit - state.settled),
    }
    return json.dumps(members).encode()
