"""Payment for any ASGI application: a plain middleware around it.

Requests that cost nothing pass untouched. A paid one reaches the application with its
:class:`~channelpay.payee.payment.Payment` in ``scope["channelpay"]``; everything else is answered
here: the 402 with its challenges, every refusal, top-ups and closes. A WebSocket cannot be paid
for: one on a path with a price for GET is refused before it opens.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from uuid import uuid4

from channelpay.observe import Outcome
from channelpay.payee.checkout import BODY_BYTES_MAX, Answer, Checkout
from channelpay.payee.payee import Payee
from channelpay.payee.payment import Payment
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid
from channelpay.protocol.sse import MEDIA_TYPE, NeedVoucher, need_voucher_event, receipt_event

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY_VIOLATION = 1008
_EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")


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
            await self._app(scope, receive, send)
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
        body_digest = ""
        if self._checkout.needs_body(request):
            body_digest = await client.body_digest()
        address = scope.get("client")
        paid = await self._checkout.pay(
            request, quote, address[0] if address else None, body_digest
        )
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
            await delivery.end()


class _Delivery:
    """One paid request on its way through the application: it ends delivered or released."""

    def __init__(
        self,
        checkout: Checkout,
        request: Request,
        paid: Paid,
        client: _Client,
        send: Send,
        began: float,
    ) -> None:
        self._checkout = checkout
        self._request = request
        self._client = client
        self.receive = client.receive
        self._send = send
        self._began = began
        self._status: int | None = None
        self._seconds = 0.0
        self._undelivered = True
        self._released = False
        self._started = self._ended = False
        self._streams = self._replaced = False
        self._tail = b""
        self.payment = Payment(checkout.payee, paid, self.ask)

    async def send(self, message: Message) -> None:
        """ASGI's send for the application."""
        if message["type"] == "http.response.start":
            # A framework makes a page of its own of the refusal that the application let through.
            self._replaced = message["status"] >= 500 and self.payment.refusal is not None
            if not self._replaced:
                await self._start(message)
        elif self._started and message["type"] == "http.response.body":
            await self._send_body(message)
        elif self._started:
            await self._send(message)

    async def ask(self, need: NeedVoucher) -> bool:
        """Tell the client, between two events of a stream, what to promise."""
        if not self._streams or self._ended or await self._client.is_gone():
            return False
        if self._tail and not self._tail.endswith(_EVENT_ENDS):
            return False
        event = need_voucher_event(need)
        await self._send({"type": "http.response.body", "body": event, "more_body": True})
        return True

    async def end_refused(self) -> bool:
        """End what a refused charge broke off; False if that is not what happened, or the client
        could take a part for the whole.
        """
        refusal = self.payment.refusal
        if refusal is None or self._ended or (self._started and not self._streams):
            return False
        if self._started:
            await self._send_body({"type": "http.response.body", "body": b""})
        else:
            await self._release()
            quote = self.payment.paid.quote
            await _answer(self._send, self._checkout.refusal(refusal, self._request, quote))
        return True

    async def end_replaced(self) -> None:
        """The application is done; say what it was refused, instead of what it made of that."""
        if self._replaced:
            await self.end_refused()

    async def end(self) -> None:
        """The application is done, or failed: a charge that delivered nothing goes back."""
        self._client.leave()
        await self._release()
        if self.payment.is_metered or not self._started:
            self._seconds = time.perf_counter() - self._began
        outcome = Outcome.RELEASED if self._released else Outcome.PAID
        self._checkout.delivered(self._request, self.payment, self._status, outcome, self._seconds)

    async def _start(self, message: Message) -> None:
        self._started = True
        self._status = message["status"]
        self._seconds = time.perf_counter() - self._began
        if message["status"] >= 400 or await self._client.is_gone():
            await self._release()
        else:
            self._undelivered = False
            headers = message.get("headers", ())
            paid = self.payment.paid
            self._streams = self.payment.is_metered and _takes_events(headers)
            message = {**message, "headers": self._checkout.paid_headers(headers, paid)}
        await self._send(message)

    async def _send_body(self, message: Message) -> None:
        self._ended = not message.get("more_body", False)
        if self._streams:
            body = message.get("body", b"")
            self._tail = (self._tail + body)[-4:]
            if self._ended:
                receipt = self._checkout.payee.receipt(self.payment.paid)
                message = {**message, "body": body + receipt_event(receipt)}
        await self._send(message)

    async def _release(self) -> None:
        """Wait for it, so that the books are right when the client reads that it failed."""
        if self._undelivered:
            self._undelivered = False
            self._released = True
            released = self._checkout.payee.register.release(self.payment.paid.accepted)
            if released is not None:
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

    async def body_digest(self) -> str:
        """SHA-256 of the whole body, which is kept for the application; something that never comes
        again for a body over :data:`~channelpay.payee.checkout.BODY_BYTES_MAX`.
        """
        digest, size = hashlib.sha256(), 0
        while size <= BODY_BYTES_MAX:
            message = self._seen(await self._receive())
            self._early.append(message)
            digest.update(message.get("body", b""))
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                return f"sha256:{digest.hexdigest()}"
        return f"long:{uuid4()}"

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
        scope.get("method", "GET"),
        scope["path"],
        scope.get("query_string", b""),
        scope["headers"],
        scope.get("scheme", "http"),
        scope.get("raw_path") or b"",
    )


async def _answer(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


def _takes_events(headers: Any) -> bool:
    """Whether events of ours may stand between the application's own."""
    values = {name.lower(): value.lower() for name, value in headers}
    kind = values.get(b"content-type", b"").split(b";")[0].strip()
    fixed = values.keys() & {b"content-encoding", b"content-length"}
    return bool(kind == MEDIA_TYPE.encode()) and not fixed
