"""Getting paid where there is no event loop: a payee on a loop of its own, in a thread, for servers
that give each request a thread, or a process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from threading import Lock, Thread
from typing import Any, TypeVar

from channelpay.errors import ConfigError
from channelpay.payee.ahead import Ahead
from channelpay.payee.checkout import Answer, Checkout, may_have_body
from channelpay.payee.delivery import Delivery
from channelpay.payee.payee import Payee
from channelpay.payee.payment import Payment, PaymentFacts
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid
from channelpay.protocol.sse import NeedVoucher, need_voucher_event

T = TypeVar("T")
OpenPayee = Callable[[], Payee]
"""Makes the payee, in the process that serves."""
Part = bytes | Callable[[], object]
"""Of a response: bytes of its body, or what has to be called where it is sent."""
ReadBody = Callable[[], str]
"""Gives what tells the body of a request apart; it may wait for the client."""


class PayeeThread:
    """``payee`` with the event loop that its payments run on."""

    def __init__(self, payee: Payee) -> None:
        self.checkout: Checkout = Checkout(payee)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="channelpay-loop", daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run ``work`` on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def pay(
        self, request: Request, quote: Quote, client: str | None, read_body: ReadBody
    ) -> Paid | Answer:
        """See :meth:`channelpay.payee.checkout.Checkout.pay`. The body is read in this thread; what
        that raises, this raises, and nothing was paid.
        """
        body = _BodyElsewhere() if may_have_body(request) else None
        digest = None if body is None else body.digest
        paying = self.start(self.checkout.pay(request, quote, client, digest))
        try:
            if body is not None:
                either: list[Future[Any]] = [paying, body.wanted]
                wait(either, return_when=FIRST_COMPLETED)
                body.give(read_body)
            return paying.result()
        except BaseException:
            self._break_off(paying, body)
            raise

    async def pay_async(
        self, request: Request, quote: Quote, client: str | None, read_body: ReadBody
    ) -> Paid | Answer:
        """:meth:`pay` for a caller on another event loop, where the body is read."""
        body = _BodyElsewhere() if may_have_body(request) else None
        digest = None if body is None else body.digest
        paying = self.start(self.checkout.pay(request, quote, client, digest))
        try:
            paid = asyncio.shield(asyncio.wrap_future(paying))
            if body is not None:
                either: list[asyncio.Future[Any]] = [paid, asyncio.wrap_future(body.wanted)]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                body.give(read_body)
            return await paid
        except BaseException:
            self._break_off(paying, body)
            raise

    def close(self) -> None:
        """Close the payee, when nothing is under way any more."""
        self.checkout.payee.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _break_off(self, paying: Future[Paid | Answer], body: _BodyElsewhere | None) -> None:
        """Whoever waited is gone: there is nobody to serve, nor to read the body."""
        if body is not None:
            body.cancel()
        paying.add_done_callback(self._give_back)

    def _give_back(self, paying: Future[Paid | Answer]) -> None:
        if paying.cancelled() or paying.exception() is not None:
            return
        paid = paying.result()
        if isinstance(paid, Paid):
            self.checkout.payee.register.release(paid.accepted)


class _BodyElsewhere:
    """A request's body, which the payee's loop wants once the signature was checked, and which is
    read where the server has it: a loop does not wait for a client.
    """

    def __init__(self) -> None:
        self.wanted: Future[None] = Future()
        self._digest: Future[str] = Future()

    async def digest(self) -> str:
        self.wanted.set_result(None)
        return await asyncio.wrap_future(self._digest)

    def give(self, read_body: ReadBody) -> None:
        """Read it, if it is wanted."""
        if self.wanted.done():
            self._digest.set_result(read_body())

    def cancel(self) -> None:
        """It will not be read: whoever waits for it is cancelled."""
        self._digest.cancel()


class PayeeOfProcess:
    """The payee of whichever process asks for it: opened there by the first request.

    Servers load an application and fork afterwards. Threads do not survive that, nor do connections
    to books and chain; so nothing is opened before.
    """

    def __init__(self, open_payee: OpenPayee) -> None:
        self._open_payee = open_payee
        self._opening = Lock()
        self._opened: tuple[int, PayeeThread] | None = None

    def thread(self) -> PayeeThread:
        """Raises what opening the payee raises, each time it is asked until that succeeds, and
        :class:`~channelpay.errors.ConfigError` in the fork of a process that had opened it.
        """
        process_id, thread = self._opened or self._open()
        if process_id != os.getpid():
            raise ConfigError(
                "the payee was opened before this process was forked",
                hint="Answer no request in the process that the workers are forked from.",
            )
        return thread

    def close(self) -> None:
        """Close the payee, if this process has opened it. The next request opens it again."""
        with self._opening:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
                self._opened = None

    def _open(self) -> tuple[int, PayeeThread]:
        with self._opening:
            if self._opened is None:
                self._opened = (os.getpid(), PayeeThread(self._open_payee()))
            return self._opened


class BlockingPayment(PaymentFacts):
    """The payment of one request, for an application that blocks."""

    def __init__(self, payment: Payment, thread: PayeeThread) -> None:
        super().__init__(payment.paid)
        self._payment = payment
        self._thread = thread

    def charge(self, amount: int) -> None:
        """See :meth:`channelpay.payee.payment.Payment.charge`."""
        try:
            self._thread.start(self._payment.charge(amount)).result()
        finally:
            self._note()

    async def acharge(self, amount: int) -> None:
        """:meth:`charge` on an event loop; named as Django names such methods."""
        try:
            await asyncio.wrap_future(self._thread.start(self._payment.charge(amount)))
        finally:
            self._note()

    def _note(self) -> None:
        self.paid: Paid = self._payment.paid
        self.charged: int = self._payment.charged


class BlockingDelivery(Delivery):
    """A delivery whose response a server pulls, and closes. One that is paid by the unit is made in
    a thread of its own, since the application waits in ``charge``.
    """

    def __init__(self, thread: PayeeThread, request: Request, paid: Paid, began: float) -> None:
        super().__init__(thread.checkout, request, paid, self.ask, began)
        self._parts: Generator[Part, None, None] | Ahead[Part] | None = None
        self._sent = self._send()
        self._put: Callable[[bytes], bool] | None = None
        """Sends something beside what the application does, if it can be sent."""

    def send(self, parts: Generator[Part, None, None]) -> None:
        """Send these, as far as the server asks for them."""
        self._parts = parts
        if self.payment.is_metered:
            self._parts = ahead = Ahead(parts)
            self._put = ahead.put

    def __iter__(self) -> Iterator[bytes]:
        return self._sent

    def close(self) -> None:
        """The server is done, or the client is gone."""
        self._sent.close()
        if self._parts is not None:
            self._parts.close()
        self.end()
        self.wait_until_released()

    async def ask(self, need: NeedVoucher) -> bool:
        """Tell the client, between two events of a stream, what to promise."""
        if self._put is None or not self.is_between_events:
            return False
        return self._put(need_voucher_event(need))

    def wait_until_released(self) -> None:
        if self.releasing is not None:
            wait([self.releasing])

    def _send(self) -> Generator[bytes, None, None]:
        try:
            for part in self._parts or ():
                if callable(part):
                    part()
                else:
                    yield from self.pieces(part)
        except Exception:
            self.release()
            self.wait_until_released()
            raise
        self.delivered()
