"""One paid request on its way through an application: what is sent of the application's response,
what in its place, and whether the charge stands. Knows no server and does no I/O of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from uuid import uuid4

from channelpay.errors import NetworkError
from channelpay.observe import Outcome
from channelpay.payee.checkout import BODY_BYTES_MAX, Answer, Checkout, Headers
from channelpay.payee.payment import AskForVoucher, Payment
from channelpay.payee.request import Request
from channelpay.payee.verifier import Paid
from channelpay.protocol import rules
from channelpay.protocol.sse import MEDIA_TYPE, receipt_event
from channelpay.protocol.wire import Receipt

_EVENT_ENDS = (b"\n\n", b"\r\r", b"\r\n\r\n")


class Delivery:
    """Whoever serves tells it what the application does, in the order of the methods, and sends
    what it returns. It ends delivered, or released: then nothing was charged.

    ``ask`` is how the application's charges reach the client; ``began`` is when the request
    arrived, by :func:`time.perf_counter`.
    """

    def __init__(
        self, checkout: Checkout, request: Request, paid: Paid, ask: AskForVoucher, began: float
    ) -> None:
        self.payment: Payment = Payment(checkout.payee, paid, ask)
        self.releasing: Future[rules.Payment] | None = None
        """Done when the books have it back; to be waited for before the client reads a failure."""
        self._checkout = checkout
        self._request = request
        self._began = began
        self.is_bodiless: bool = request.method == "HEAD"
        """Not every server leaves the body out by itself; to HEAD it would be a free one."""
        self._status: int | None = None
        self._seconds = 0.0
        self._undelivered = True
        self._released = False
        self._receipts = checkout.payee.receipts if self.payment.is_metered else None
        if self._receipts is not None:
            self._receipts.begin(paid.accepted)
        self._started = self._streams = self._complete = self._ended = False
        self._tail = b""

    def replaces(self, status: int) -> bool:
        """Whether the application's response is a page that a framework made of the refusal which
        the application let through: then :meth:`refusal` is sent.
        """
        return status >= 500 and self.payment.refusal is not None

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        """The response begins; its headers as they are to be sent. One that says that it failed is
        released.
        """
        self._started = True
        self._status = status
        self._seconds = time.perf_counter() - self._began
        if status >= 400:
            self.release()
        if self._released:
            return [*headers, *self._checkout.released_headers(self.payment.paid)]
        headers = self._checkout.paid_headers(headers, self.payment.paid, self._request)
        up_to = self.payment.paid.quote.up_to
        self.payment.is_fixed = up_to
        is_metered = self.payment.is_metered and not up_to and not self.is_bodiless
        self._streams = is_metered and _takes_events(headers)
        return headers

    def delivered(self) -> None:
        """The client is getting the response: from now on the charge stands."""
        if self._undelivered:
            self._undelivered = False
            self._checkout.payee.register.deliveries.note(self.payment.paid.accepted)

    def pieces(self, part: bytes) -> Iterator[bytes]:
        """A part for a server that asks for the next piece when it has sent one, and does not tell
        else whether it could. The first byte goes alone, since large pieces may be cut off.
        """
        if part and self._undelivered:
            yield part[:1]
            self.delivered()
            part = part[1:]
        if part:
            yield part

    def part(self, body: bytes, *, is_last: bool) -> bytes:
        """A part of the body as it is to be sent; the last one of a stream has the receipt."""
        self._complete = is_last
        if self.is_bodiless:
            return b""
        if not self._streams:
            return body
        self._tail = (self._tail + body)[-4:]
        return body + receipt_event(self._receipt()) if is_last else body

    @property
    def is_between_events(self) -> bool:
        """Whether an event of ours may be sent now."""
        within = self._tail and not self._tail.endswith(_EVENT_ENDS)
        return self._streams and not self._complete and not within

    @property
    def ends_refused(self) -> bool:
        """Whether a refused charge broke the application off, and the client can be told so: a
        stream ends with its receipt, and a response that has not begun is :meth:`refusal`. In all
        others a part could be taken for the whole; so could a stream that trouble of ours breaks
        off, and to repeat that request helps.
        """
        refusal = self.payment.refusal
        tellable = not self._started or (self._streams and not isinstance(refusal, NetworkError))
        return refusal is not None and tellable and not self._complete

    def refusal(self) -> Answer:
        """What the application's charge was refused with, as the whole response."""
        assert self.payment.refusal is not None
        self.release()
        quote = self.payment.paid.quote
        return self._checkout.refusal(self.payment.refusal, self._request, quote)

    def release(self) -> None:
        """Nothing was delivered, or will be: give the charge back."""
        if self._undelivered:
            self._undelivered = False
            self._released = True
            self.releasing = self._checkout.payee.register.release(self.payment.paid.accepted)

    async def released(self) -> None:
        """Wait until the books have back what was released, if anything was."""
        if self.releasing is not None:
            released = asyncio.wrap_future(self.releasing)
            await asyncio.wait([released])
            released.exception()  # Looked at, or asyncio complains; the register deals with it.

    def end(self) -> None:
        """The application is done, or failed: a charge that delivered nothing goes back."""
        if self._ended:
            return
        self._ended = True
        self.release()
        if self._receipts is not None:
            self._receipts.end(self.payment.paid.accepted)
        if self.payment.is_metered or not self._started:
            self._seconds = time.perf_counter() - self._began
        outcome = Outcome.RELEASED if self._released else Outcome.PAID
        self._checkout.delivered(self._request, self.payment, self._status, outcome, self._seconds)
        self.payment.end()

    def _receipt(self) -> Receipt:
        return self._checkout.payee.receipt(self.payment.paid)


class BodyDigest:
    """Tells the bodies of requests apart: a retry repeats its body."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._size = 0

    def add(self, piece: bytes) -> bool:
        """Take more of the body; False when it is too long to be compared."""
        self._digest.update(piece)
        self._size += len(piece)
        return self._size <= BODY_BYTES_MAX

    def text(self) -> str:
        """SHA-256 of the whole body, nothing for one that is empty, or something that never comes
        again for a body over :data:`~channelpay.payee.checkout.BODY_BYTES_MAX`.
        """
        if self._size > BODY_BYTES_MAX:
            return too_long_to_compare()
        if not self._size:
            return ""
        return f"sha256:{self._digest.hexdigest()}"


def too_long_to_compare() -> str:
    """Stands for a body that is like no other."""
    return f"long:{uuid4()}"


def _takes_events(headers: Headers) -> bool:
    """Whether events of ours may stand between the application's own."""
    values = {name.lower(): value.lower() for name, value in headers}
    kind = values.get(b"content-type", b"").split(b";")[0].strip()
    fixed = values.keys() & {b"content-encoding", b"content-length"}
    return kind == MEDIA_TYPE.encode() and not fixed
