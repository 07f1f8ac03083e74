"""Payment for any ASGI application: a plain middleware around it.

Requests that cost nothing pass untouched. A paid one reaches the application with its
:class:`~channelpay.payee.payment.Payment` in ``scope["channelpay"]``; everything else is answered
here: the 402 with its challenges, every refusal, top-ups and closes. A WebSocket cannot be paid
for: one on a path with a price for GET is refused before it opens.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from channelpay.payee.checkout import Answer, Checkout, may_have_body, without_length
from channelpay.payee.delivery import BodyDigest, Delivery
from channelpay.payee.payee import Payee
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid
from channelpay.protocol.sse import NeedVoucher, need_voucher_event

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008
_BODIES = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
_TELLS_BODIES = frozenset({"1.0", "1.1"})
"""Versions of HTTP in which a request's headers tell whether it has a body."""


class PaymentMiddleware:
    """``app`` behind the prices of ``payee``."""

    def __init__(self, app: App, payee: Payee) -> None:
        self._app = app
        self._checkout = Checkout(payee)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = request_of(scope)
        quote = self._checkout.quote(request)
        if quote is None:
            hides = self._checkout.hides_body(request)
            await self._app(scope, receive, _without_body(send) if hides else send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        elif isinstance(quote, Answer):
            await _answer(send, quote)
        else:
            await self._sell(request, quote, scope, receive, send)

    async def _sell(
        self, request: Request, quote: Quote, scope: Scope, receive: Receive, send: Send
    ) -> None:
        began = time.perf_counter()
        client = _Client(receive)
        address = scope.get("client")
        tells = scope.get("http_version", "1.1") in _TELLS_BODIES
        read_body = None if tells and not may_have_body(request) else client.body_digest
        paid = await self._checkout.pay(request, quote, address[0] if address else None, read_body)
        if isinstance(paid, Answer):
            self._checkout.answered(request, paid, time.perf_counter() - began)
            await _answer(send, paid)
        else:
            await self._serve(_Delivery(self._checkout, request, paid, client, send, began), scope)

    async def _serve(self, delivery: _Delivery, scope: Scope) -> None:
        paid_scope = {**scope, "channelpay": delivery.payment}
        try:
            await self._app(paid_scope, delivery.receive, delivery.send)
        except Exception:
            if not await delivery.end_refused():
                raise
        else:
            await delivery.end_replaced()
        finally:
            await delivery.finish()


class _Delivery(Delivery):
    """A :class:`~channelpay.payee.delivery.Delivery` by ASGI's receive and send."""

    def __init__(
        self,
        checkout: Checkout,
        request: Request,
        paid: Paid,
        client: _Client,
        send: Send,
        began: float,
    ) -> None:
        super().__init__(checkout, request, paid, self.ask, began)
        self._client = client
        self._to_client = send
        self._replaced = self._abandoned = False
        self.receive = client.receive

    async def send(self, message: Message) -> None:
        """ASGI's send for the application."""
        if message["type"] == "http.response.start":
            self._replaced = self.replaces(message["status"])
            if not self._replaced:
                await self._start(message)
        elif self._started and message["type"] == "http.response.body":
            await self._send_body(message)
        elif self._started and self.is_bodiless and message["type"] in _BODIES:
            await self._send_body(_emptied(message))
        elif self._started:
            await self._send(message)

    async def ask(self, need: NeedVoucher) -> bool:
        """Tell the client, between two events of a stream, what to promise."""
        if not self.is_between_events or await self._client.is_gone():
            return False
        event = need_voucher_event(need)
        await self._send({"type": "http.response.body", "body": event, "more_body": True})
        return True

    async def end_refused(self) -> bool:
        """End what a refused charge broke off; False if the client cannot be told."""
        if not self.ends_refused:
            return False
        if self._started:
            await self._send_body({"type": "http.response.body", "body": b""})
        else:
            answer = self.refusal()
            await self.released()
            await _answer(self._send, answer)
        return True

    async def end_replaced(self) -> None:
        """The application is done; say what it was refused, instead of what it made of that."""
        if self._replaced:
            await self.end_refused()

    async def finish(self) -> None:
        """The application is done, or failed."""
        self._client.leave()
        self.end()
        await self.released()

    async def _start(self, message: Message) -> None:
        if message["status"] < 400 and await self._client.is_gone():
            self._abandoned = True
            self.release()
        headers = self.begin(message["status"], message.get("headers", ()))
        await self.released()
        self.delivered()
        await self._send({**message, "headers": headers})

    async def _send(self, message: Message) -> None:
        """Nothing is sent to a client that gets its money back for being gone."""
        if not self._abandoned:
            await self._to_client(message)

    async def _send_body(self, message: Message) -> None:
        body = message.get("body", b"")
        part = self.part(body, is_last=not message.get("more_body", False))
        await self._send(message if part is body else {**message, "body": part})


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

    async def body_digest(self) -> str:
        """What tells the body apart; it is kept for the application."""
        digest, more = BodyDigest(), True
        while more:
            message = self._seen(await self._receive())
            self._early.append(message)
            more = digest.add(message.get("body", b"")) and message.get("more_body", False)
        return digest.text()

    async def is_gone(self) -> bool:
        """Whether the server knows already that the client has gone. Does not wait for it."""
        # uvicorn can be asked for it; to have any other server tell takes a task for each request.
        known = getattr(getattr(self._receive, "__self__", None), "disconnected", None)
        if isinstance(known, bool):
            return known
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


def request_of(scope: Scope) -> Request:
    """The request of an ASGI scope; a WebSocket begins with a GET."""
    return Request(
        scope.get("method", "GET").upper(),
        scope["path"],
        scope.get("query_string", b""),
        scope["headers"],
        scope.get("scheme", "http"),
        scope.get("raw_path") or b"",
    )


def _without_body(send: Send) -> Send:
    """ASGI's send for an answer of which only the head is sent."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": without_length(message.get("headers", ()))}
        elif message["type"] in _BODIES:
            message = _emptied(message)
        await send(message)

    return send_head


def _emptied(message: Message) -> Message:
    more = message.get("more_body", False)
    return {"type": "http.response.body", "body": b"", "more_body": more}


async def _answer(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
