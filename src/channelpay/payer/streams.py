"""The bodies of metered responses for httpx2: handed on as they come, and paid for on the way.

A reader gets what the payee sent without the events of payments, and out of its own loop what ends
the response early: :class:`~channelpay.errors.BudgetExceeded` at the limit, another error of ours
where a voucher did not get through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread

from channelpay.payer.driver import Done, advance, run
from channelpay.payer.messages import (
    answer_of,
    bare_request,
    httpx,
    read_small,
    read_small_async,
)
from channelpay.payer.metering import RECEIPT_SECONDS, VOUCHER_SECONDS, MeteredResponse
from channelpay.payer.steps import Answer, Send, Step, Wait
from channelpay.protocol.sse import NeedVoucher

Perform = Callable[[Step], None]


class _Metered:
    """One response and what pays for it."""

    def __init__(
        self, response: httpx.Response, metered: MeteredResponse, perform: Perform
    ) -> None:
        self._response = response
        self._metered = metered
        self._perform = perform
        self._show_cost()

    def _show_cost(self) -> None:
        self._response.extensions["channelpay"] = self._metered.paid

    def _settle(self) -> None:
        self._metered.settle()
        self._show_cost()

    def _request(self, step: Send) -> httpx.Request:
        """A voucher has its own client's timeout: that of the response may be none."""
        request = bare_request(self._response.request, step.headers, step.method or "HEAD", step.to)
        extensions = dict(request.extensions)
        extensions.pop("timeout", None)
        if step.to is not None:  # A receipt is not worth waiting for.
            extensions["timeout"] = httpx.Timeout(RECEIPT_SECONDS).as_dict()
        request.extensions = extensions
        return request

    def _answer_of(self, response: httpx.Response) -> Answer:
        return answer_of(response, str(response.url))

    def _not_reached(self) -> Answer:
        """To be repeated like a busy payee's answer: a voucher is the same at each attempt."""
        return Answer(503, str(self._response.url), retry_after="0")

    @contextmanager
    def _naming_the_promise(self) -> Iterator[None]:
        """Say of a body that breaks off what it may have cost."""
        try:
            yield
        except httpx.TransportError as error:
            raise type(error)(
                f"{error} ({self._metered.promise})", request=self._response.request
            ) from error


class MeteredStream(_Metered, httpx.SyncByteStream):
    """Takes the place of a response's stream, for blocking readers."""

    def __init__(
        self,
        response: httpx.Response,
        metered: MeteredResponse,
        perform: Perform,
        client: httpx.Client | None,
    ) -> None:
        super().__init__(response, metered, perform)
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._body: httpx.SyncByteStream = response.stream
        self._client = client
        self._own_client: httpx.Client | None = None
        response.stream = self

    @property
    def elapsed(self) -> timedelta | None:
        """What ``response.elapsed`` says."""
        return getattr(self._body, "elapsed", None)

    def __iter__(self) -> Iterator[bytes]:
        with self._naming_the_promise():
            for chunk in self._body:
                for part in self._metered.read(chunk):
                    if isinstance(part, bytes):
                        yield part
                    else:
                        self._answer(part)
            if rest := self._metered.rest():
                yield rest
        run(self._metered.prove(), self._send, self._perform)

    def close(self) -> None:
        try:
            self._body.close()
        finally:
            self._settle()
            if self._own_client is not None:
                self._own_client.close()

    def _answer(self, need: NeedVoucher) -> None:
        run(self._metered.answer(need), self._send, self._perform)
        self._show_cost()

    def _send(self, step: Send) -> Answer:
        client = self._client or self._own_client
        if client is None:
            client = self._own_client = httpx.Client(timeout=VOUCHER_SECONDS)
        request = self._request(step)
        try:
            response = client.send(request, auth=None, follow_redirects=False, stream=True)
            read_small(response)
        except httpx.TransportError:
            return self._not_reached()
        return self._answer_of(response)


class AsyncMeteredStream(_Metered, httpx.AsyncByteStream):
    """The same for asynchronous readers. Books and chain are used in a thread."""

    def __init__(
        self,
        response: httpx.Response,
        metered: MeteredResponse,
        perform: Perform,
        client: httpx.AsyncClient | None,
    ) -> None:
        super().__init__(response, metered, perform)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._body: httpx.AsyncByteStream = response.stream
        self._client = client
        self._own_client: httpx.AsyncClient | None = None
        response.stream = self

    @property
    def elapsed(self) -> timedelta | None:
        return getattr(self._body, "elapsed", None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._naming_the_promise():
            async for chunk in self._body:
                for part in self._metered.read(chunk):
                    if isinstance(part, bytes):
                        yield part
                    else:
                        await self._answer(part)
            if rest := self._metered.rest():
                yield rest
        await self._run(self._metered.prove())

    async def aclose(self) -> None:
        """Also where the reader was cancelled the books are brought in order."""
        with anyio.CancelScope(shield=True):
            try:
                await self._body.aclose()
            finally:
                await anyio.to_thread.run_sync(self._settle)
                if self._own_client is not None:
                    await self._own_client.aclose()

    async def _answer(self, need: NeedVoucher) -> None:
        await self._run(self._metered.answer(need))
        self._show_cost()

    async def _run(self, steps: Generator[Step, Any, None]) -> None:
        try:
            current = await anyio.to_thread.run_sync(advance, steps, None)
            while not isinstance(current, Done):
                answer = None
                if isinstance(current, Send):
                    answer = await self._send(current)
                elif isinstance(current, Wait):
                    await anyio.sleep(current.seconds)
                else:
                    await anyio.to_thread.run_sync(self._perform, current)
                current = await anyio.to_thread.run_sync(advance, steps, answer)
        finally:
            steps.close()

    async def _send(self, step: Send) -> Answer:
        client = self._client or self._own_client
        if client is None:
            client = self._own_client = httpx.AsyncClient(timeout=VOUCHER_SECONDS)
        request = self._request(step)
        try:
            response = await client.send(request, auth=None, follow_redirects=False, stream=True)
            await read_small_async(response)
        except httpx.TransportError:
            return self._not_reached()
        return self._answer_of(response)
