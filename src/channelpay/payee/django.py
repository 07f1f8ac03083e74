"""Payment for a Django site, under WSGI and ASGI alike.

Put ``channelpay.payee.django.PaymentMiddleware`` first in ``MIDDLEWARE``, and the arguments of
:meth:`channelpay.payee.payee.Payee.create` into the setting ``CHANNELPAY``. A paid request reaches
the view with its payment in ``request.channelpay``: ``charge`` blocks, ``acharge`` is for
asynchronous views.
"""

from __future__ import annotations

import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
)
from functools import partial
from typing import Any
from urllib.parse import quote as percent_encoded

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from channelpay.payee.ahead import AsyncAhead
from channelpay.payee.blocking import (
    BlockingDelivery,
    BlockingPayment,
    Part,
    PayeeOfProcess,
    ReadBody,
)
from channelpay.payee.checkout import Answer, Headers, without_length
from channelpay.payee.delivery import BodyDigest, too_long_to_compare
from channelpay.payee.payee import Payee
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid
from channelpay.payee.wsgi import PLAIN_IN_PATHS, headers_of

payee_of_process: PayeeOfProcess = PayeeOfProcess(lambda: Payee.create(**settings.CHANNELPAY))
"""Opened by the first request; the server may fork before that."""


class PaymentMiddleware:
    """Django's middleware: the views behind the prices of ``CHANNELPAY``."""

    sync_capable = async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        sale = _Sale(request)
        if sale.quote is not None:
            return self._sell_async(sale) if self._is_async else self._sell(sale)
        if not sale.hides_body:
            return self._get_response(request)
        if self._is_async:
            return self._answer_head_async(request)
        return _head_of(self._get_response(request))

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """A refused charge that the view let through is no error of the site's."""
        delivery = getattr(request, "channelpay_delivery", None)
        if delivery is None or error is not delivery.payment.refusal:
            return None
        return _response_of(delivery.refusal(), request.method)

    async def _answer_head_async(self, request: HttpRequest) -> HttpResponseBase:
        return _head_of(await self._get_response(request))

    def _sell(self, sale: _Sale) -> HttpResponseBase:
        answer = sale.answer or sale.take(sale.thread.pay(*sale.order()))
        if answer is not None:
            return answer
        try:
            response = sale.delivery.response_of(self._get_response(sale.request))
        except BaseException:
            sale.delivery.close()
            raise
        sale.delivery.wait_until_released()
        return response

    async def _sell_async(self, sale: _Sale) -> HttpResponseBase:
        answer = sale.answer or sale.take(await sale.thread.pay_async(*sale.order()))
        if answer is not None:
            return answer
        try:
            response = sale.delivery.response_of(await self._get_response(sale.request))
        except BaseException:
            sale.delivery.end()
            raise
        await sale.delivery.released()
        return response


class _Sale:
    """One request for something that may have a price."""

    def __init__(self, request: HttpRequest) -> None:
        self._began = time.perf_counter()
        self.request = request
        self.thread = payee_of_process.thread()
        self._asked = _request_of(request)
        self.quote = self.thread.checkout.quote(self._asked)
        self.answer: HttpResponse | None = None
        if isinstance(self.quote, Answer):
            self.answer = _response_of(self.quote, request.method)
        self.delivery: _Delivery

    @property
    def hides_body(self) -> bool:
        """See :meth:`channelpay.payee.checkout.Checkout.hides_body`."""
        return self.thread.checkout.hides_body(self._asked)

    def order(self) -> tuple[Request, Quote, str | None, ReadBody]:
        """What it takes to pay."""
        assert isinstance(self.quote, Quote)
        client = self.request.META.get("REMOTE_ADDR") or None
        return self._asked, self.quote, client, partial(_body_digest, self.request)

    def take(self, paid: Paid | Answer) -> HttpResponse | None:
        """The response, unless the request is paid for: then the view is to answer."""
        if isinstance(paid, Answer):
            self.thread.checkout.answered(self._asked, paid, time.perf_counter() - self._began)
            return _response_of(paid, self._asked.method)
        self.delivery = _Delivery(self.thread, self._asked, paid, self._began)
        self.request.channelpay_delivery = self.delivery
        self.request.channelpay = BlockingPayment(self.delivery.payment, self.thread)
        return None


class _Delivery(BlockingDelivery):
    """A delivery by Django's responses, which the server asks for their parts, and closes."""

    def response_of(self, response: HttpResponseBase) -> HttpResponseBase:
        """The view's response as it is to be sent, or what is sent in its place."""
        if self.replaces(response.status_code):
            response.close()
            response = _response_of(self.refusal(), self._request.method)
        _set_headers(response, self.begin(response.status_code, _headers(response)))
        if not response.streaming:
            if self.is_bodiless:
                response.content = b""
            self.delivered()
            self.end()
        elif response.is_async:
            response.streaming_content = _AsyncContent(self, response.streaming_content)
        else:
            self.send(self._served(response.streaming_content))
            response.streaming_content = self
        return response

    def ahead(self, parts: AsyncGenerator[bytes, None]) -> AsyncIterable[bytes]:
        """The same parts; if they are paid by the unit, from a task of their own."""
        if not self.payment.is_metered:
            return parts
        ahead = AsyncAhead(parts)
        self._put = ahead.put
        return ahead

    def _served(self, content: Iterable[bytes]) -> Generator[Part, None, None]:
        try:
            for chunk in content:
                yield self.part(chunk, is_last=False)
        except Exception:
            if not self.ends_refused:
                raise
        finally:
            if self.payment.is_metered:
                connections.close_all()  # Those of a thread that ends with the response.
        yield self.part(b"", is_last=True)


class _AsyncContent:
    """The content of an asynchronous response on its way."""

    def __init__(self, delivery: _Delivery, content: AsyncIterator[bytes]) -> None:
        self._delivery = delivery
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        delivery = self._delivery
        try:
            async for part in delivery.ahead(self._served()):
                for piece in delivery.pieces(part):
                    yield piece
            delivery.delivered()
        finally:
            delivery.end()

    def close(self) -> None:
        """The server is done, also if it never asked for anything."""
        self._delivery.end()

    async def _served(self) -> AsyncGenerator[bytes, None]:
        delivery = self._delivery
        try:
            async for chunk in self._content:
                yield delivery.part(chunk, is_last=False)
        except Exception:
            if not delivery.ends_refused:
                raise
        yield delivery.part(b"", is_last=True)


def _request_of(request: HttpRequest) -> Request:
    """Its path is the one that Django goes by."""
    query = request.META.get("QUERY_STRING", "").encode("latin-1")
    raw_path = percent_encoded(request.path, PLAIN_IN_PATHS).encode()
    headers = list(headers_of(request.META))
    return Request(request.method, request.path, query, headers, request.scheme, raw_path)


def _body_digest(request: HttpRequest) -> str:
    digest = BodyDigest()
    try:
        digest.add(request.body)
    except RequestDataTooBig:
        return too_long_to_compare()
    return digest.text()


def _response_of(answer: Answer, method: str) -> HttpResponse:
    """Django's headers have one value each: challenges are joined as RFC 9110 allows."""
    response = HttpResponse(b"" if method == "HEAD" else answer.body, status=answer.status)
    del response["Content-Type"]
    for name, value in answer.headers:
        known, text = response.get(name.decode()), value.decode("latin-1")
        response[name.decode()] = text if known is None else f"{known}, {text}"
    return response


def _head_of(response: HttpResponseBase) -> HttpResponseBase:
    """The view's response without its body."""
    _set_headers(response, without_length(_headers(response)))
    if not response.streaming:
        response.content = b""
    else:
        response.streaming_content = _nothing() if response.is_async else ()
    return response


async def _nothing() -> AsyncGenerator[bytes, None]:
    parts: tuple[bytes, ...] = ()
    for part in parts:
        yield part


def _headers(response: HttpResponseBase) -> Headers:
    return [(name.encode(), value.encode("latin-1")) for name, value in response.items()]


def _set_headers(response: HttpResponseBase, headers: Headers) -> None:
    """These, and no others."""
    for name, _ in list(response.items()):
        del response[name]
    for raw_name, value in headers:
        response[raw_name.decode()] = value.decode("latin-1")
