"""What a payment session asks its driver to do, and what it gets back.

A session does no I/O of its own but in the books' file: it yields steps and is sent their results.
So one and the same session serves blocking and asynchronous programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from channelpay.errors import InputError
from channelpay.payer.passes import HeldPass, PassState
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.parse import parse_amount, parse_json_object
from channelpay.protocol.receipts import SignedReceipt
from channelpay.protocol.tabs import TabNote
from channelpay.protocol.types import Address, ChannelId
from channelpay.protocol.wire import Receipt, SessionRequest

PROBLEM_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request (again), with these headers added; the result is an :class:`Answer`.

    ``bare`` leaves out the body and what describes it: such a request carries a credential only,
    and buys nothing. ``head`` sends it with HEAD, which is charged nothing even where it could be.
    One that is ``bare`` may go ``to`` another URL of the same origin instead, as a POST.
    """

    headers: dict[str, str] = field(repr=False)
    bare: bool = False
    head: bool = False
    to: str | None = None

    @property
    def method(self) -> str | None:
        """That of a bare request; None for the one of the request that is paid for."""
        if self.head:
            return "HEAD"
        return None if self.to is None else "POST"


@dataclass(frozen=True, slots=True)
class Open:
    """Open a channel that can pay ``request``; the result is None.

    The driver does nothing when the same two have a usable channel or are opening one. Where the
    payee is to carry the gas, it signs the open, for the session to present.
    """

    request: SessionRequest
    deposit: int
    url: str


@dataclass(frozen=True, slots=True)
class Add:
    """Top a channel that holds ``deposit`` up by ``amount`` base units, unless another is at it or
    did it; the result is None. ``request`` may offer to carry the gas.
    """

    channel_id: ChannelId
    amount: int
    deposit: int
    request: SessionRequest | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """See on chain what became of the channels to ``payee``, if that can be done now; the result is
    None.
    """

    payee: Address


@dataclass(frozen=True, slots=True)
class Wait:
    """Let this many seconds pass; the result is None."""

    seconds: float


Step = Send | Open | Add | Look | Wait


@dataclass(frozen=True, slots=True)
class Answer:
    """What a session needs to know of a response. ``url`` is where it came from, after redirects;
    ``media_type`` is None where it has no body.

    ``problem`` holds the members of a problem+json body (RFC 9457), or nothing; ``shown`` is what
    the answer says of a pass.
    """

    status: int
    url: str
    challenges: tuple[str, ...] = ()
    receipt: str | None = None
    signed_receipt: str | None = None
    retry_after: str | None = None
    media_type: str | None = None
    problem: dict[str, object] = field(default_factory=dict)
    shown: PassState | None = None

    @property
    def code(self) -> str:
        """Our own code of the problem, or the last part of its type, which peers know."""
        code = self.problem.get("code")
        if isinstance(code, str):
            return code
        kind = self.problem.get("type")
        return kind.rpartition("/")[2] if isinstance(kind, str) else ""

    def amount(self, member: str) -> int | None:
        """An amount among the problem's members, if it is there and well-formed."""
        try:
            return parse_amount(self.problem.get(member), member)
        except InputError:
            return None

    @property
    def retry_after_seconds(self) -> float | None:
        """``Retry-After`` in its form as a number of seconds."""
        text = self.retry_after or ""
        return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else None


@dataclass(frozen=True, slots=True)
class Paid:
    """What one request cost, in base units; ``receipt`` is None if it could not be believed.

    While a metered response is read, and after one that ended without a receipt, ``cost`` is what
    it was promised: it has cost that at most, beside what was promised before and not used. With
    a ``by_pass`` that covered it, it cost nothing. Where purchases are kept, ``signed_receipt``
    proves it to others, if the payee signs receipts.
    """

    channel_id: ChannelId
    cost: int
    receipt: Receipt | None
    by_pass: HeldPass | None = None
    signed_receipt: SignedReceipt | None = None

    @property
    def tab(self) -> TabNote | None:
        """What was put on the tab instead, and what is owed: what the receipt says."""
        return None if self.receipt is None else self.receipt.tab

    @property
    def price(self) -> PriceNote | None:
        """Why it cost what it did, and what the payer has at this site: what the receipt says."""
        return None if self.receipt is None else self.receipt.price


def parse_problem(body: bytes) -> dict[str, object]:
    """The members of a problem+json body, or nothing if it is malformed or too large."""
    if len(body) > PROBLEM_BYTES_MAX:
        return {}
    try:
        return parse_json_object(body, "problem")
    except InputError:
        return {}
