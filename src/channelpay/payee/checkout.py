"""The way of a request through a payment, whatever server it came through: what it costs, what its
credential achieves, and every answer that is not the application's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from logging import getLogger
from typing import Any, NamedTuple

from channelpay.errors import (
    ChainBehind,
    ChainReverted,
    ChannelPayError,
    InputError,
    MalformedCredential,
    NetworkError,
    NodesDisagree,
    PassNotCovering,
    PaymentRefused,
    PaymentRequired,
    ReceiptNotFound,
    RiskLimitReached,
    StoreUnavailable,
    TooFewConfirmations,
)
from channelpay.observe import Answered, Outcome
from channelpay.payee.page import payment_page
from channelpay.payee.payee import Payee
from channelpay.payee.payment import Payment
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.selling.counter import AskReceipt
from channelpay.payee.selling.deal import NO_WISH
from channelpay.payee.selling.desk import Shown, host_named, token_in
from channelpay.payee.selling.offers import offers_of
from channelpay.payee.selling.receipts import wants_signed
from channelpay.payee.selling.tabs import agrees
from channelpay.payee.selling.wishes import wish_of
from channelpay.payee.verifier import Closed, Order, Paid, ReadBody, Verified
from channelpay.protocol.parse import parse_signature
from channelpay.protocol.passes import HEADER, PROOF_HEADER
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.receipts import HEADER as SIGNED_RECEIPT
from channelpay.protocol.text import to_hex
from channelpay.protocol.wire import IDEMPOTENCY_KEY_MAX, is_payment_header

Headers = list[tuple[bytes, bytes]]

RETRY_AFTER_SECONDS = 2
MENDED_SECONDS = 20
"""What it takes for a settlement to be mined, or a node to be back, if all goes well."""
RESOURCE_CHARS_MAX = 2048
BODY_BYTES_MAX = 16 * 1024 * 1024
"""A longer body is not compared with that of a retry: the request counts as another one."""
_UNCHECKED = "the payment could not be checked; the fault is the site's"
_CHALLENGED = frozenset({402, 410})
_SHARED_CACHES = ("public", "private", "s-maxage")
_PAGE_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PASS, _PROOF = HEADER.lower().encode(), PROOF_HEADER.lower().encode()
_SIGNED = SIGNED_RECEIPT.lower().encode()
_KEY_PROOF = PROOF.lower().encode()
_TOLD = (b"authorization", b"host", b"idempotency-key", _PROOF, _KEY_PROOF)
_NO_STORE = (b"cache-control", b"no-store")
_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_HTML = (b"content-type", b"text/html; charset=utf-8")
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSALS = PaymentRefused | InputError | ReceiptNotFound | ChainReverted
_OWN_WORDS = ChainBehind | RiskLimitReached
"""Trouble of ours whose cause is fit for the public, and says what the client can do."""
_OWN_CODES = NodesDisagree | StoreUnavailable
"""Trouble of ours that has a code of its own in public; what to do about it is not the client's."""
_BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})
# What tells shared caches something else than Cache-Control does; some have a prefix of their own.
_FOR_SHARED_CACHES = (b"cdn-cache-control", b"surrogate-control", b"edge-control", b"accel-expires")
_log = getLogger(__name__)


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: Headers
    body: bytes = b""
    error: ChannelPayError | None = None
    outcome: Outcome = Outcome.REFUSED


class Checkout:
    """Sells what is behind the prices of ``payee``. For one event loop."""

    def __init__(self, payee: Payee) -> None:
        self.payee = payee

    def quote(self, request: Request) -> Quote | Answer | None:
        """What a request costs; None where it is free, an answer where that cannot be told."""
        try:
            return self.payee.quote(request)
        except Exception as error:  # noqa: BLE001  a price function is the site's own
            return self.refusal(error, request, None)

    def hides_body(self, request: Request) -> bool:
        """Whether the answer to a free request might show what has a price: then its body is not
        sent, nor what :func:`without_length` takes from its headers.
        """
        return self.payee.prices.hides_body(request)

    async def pay(
        self, request: Request, quote: Quote, client: str | None, read_body: ReadBody | None
    ) -> Paid | Answer:
        """Have the request paid, or answer it. ``read_body`` gives what tells bodies apart, None
        stands for a request without one; it is called after the signature was checked: strangers
        cannot fill the memory.

        A HEAD for what is sold by the unit only brings a voucher, often while a stream waits for
        it, and one where there are tabs may pay one: the application, which may not know HEAD or
        begin its work, does not see it.
        """
        if isinstance(quote.item, AskReceipt):
            return await self._later_receipt(request, quote.item)
        try:
            verified = await self._verified(request, quote, client, read_body)
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            return self.refusal(error, request, quote)
        sold_here = quote.metered or quote.item is not None
        has_tab = isinstance(verified, Paid) and verified.tab is not None
        brings_voucher = not quote.charged and (sold_here or has_tab)
        if isinstance(verified, Paid) and quote.item is not None and quote.charged:
            return await self._handed_out(request, quote, verified)
        if isinstance(verified, Paid) and not brings_voucher:
            return verified
        headers = [self.receipt_header(verified), _NO_STORE]
        if not isinstance(verified, Closed):
            outcome = Outcome.PAID if isinstance(verified, Paid) else Outcome.TOPPED_UP
            return Answer(204, headers, outcome=outcome)
        body = _closed_body(verified)
        return _sized(Answer(200, [*headers, _JSON], body, outcome=Outcome.CLOSED))

    def receipt_header(self, verified: Verified) -> tuple[bytes, bytes]:
        return (b"payment-receipt", self.payee.receipt(verified).to_header().encode())

    def paid_headers(
        self, headers: Iterable[tuple[bytes, bytes]], paid: Paid, request: Request
    ) -> Headers:
        """The application's headers with the receipt, and kept out of shared caches. Where a pass
        covers the request, what is left of that is the receipt.
        """
        if paid.covered is not None:
            return [*_private(headers), (_PASS, paid.covered.encode())]
        return [*_private(headers), self.receipt_header(paid), *self._signed(paid, request)]

    def _signed(self, paid: Paid, request: Request) -> Headers:
        """The signed receipt, where one is asked for and can be given."""
        receipts = self.payee.receipts
        if receipts is None or not wants_signed(request):
            return []
        signed = receipts.of_answer(paid)
        return [] if signed is None else [(_SIGNED, signed.to_header().encode())]

    async def _later_receipt(self, request: Request, asked: AskReceipt) -> Answer:
        """The signed receipt of an earlier sale."""
        try:
            told = _told(request)
            key, proofs = _idempotency_key(told[b"idempotency-key"]), told[_KEY_PROOF]
            if self.payee.receipts is None or key is None or not proofs:
                raise ReceiptNotFound
            proof = parse_signature(proofs[0].decode("latin-1"), PROOF)
            signed = await self.payee.receipts.asked(asked.channel_id, key, proof)
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            return self.refusal(error, request, None)
        header = (_SIGNED, signed.to_header().encode())
        return Answer(204, [header, _NO_STORE], outcome=Outcome.PAID)

    def released_headers(self, paid: Paid) -> Headers:
        """What goes with an answer that was not paid for: a pass may have another token by now."""
        if paid.covered is None:
            return []
        return [(_PASS, paid.covered.partition(";")[0].encode())]

    def refusal(self, error: Exception, request: Request, quote: Quote | None) -> Answer:
        """What the client is told of an error, with fresh challenges where they help."""
        told = _answerable(error)
        outcome = Outcome.UNAVAILABLE if told.status == 503 else Outcome.REFUSED
        self.payee.observer.refused(told.code)
        headers = [_NO_STORE]
        if told.status in _CHALLENGED and quote is not None:
            headers += self._challenges(quote)
        if told.status == 503 or isinstance(told, TooFewConfirmations):
            seconds = MENDED_SECONDS if isinstance(told, _OWN_WORDS) else RETRY_AFTER_SECONDS
            headers.append((b"retry-after", str(seconds).encode()))
        if isinstance(told, PaymentRequired) and quote is not None and _wants_page(request):
            url = _url(request, _told(request)[b"host"])
            page = payment_page(self.payee.terms, quote, url).encode()
            headers += [_HTML, (b"content-security-policy", _PAGE_POLICY)]
            return _sized(Answer(told.status, headers, page, told, outcome))
        problem: dict[str, Any] = {**told.as_problem()}
        if isinstance(told, PaymentRequired) and quote is not None:
            problem["offers"] = offers_of(quote)
        body = json.dumps(problem).encode()
        return _sized(Answer(told.status, [*headers, _PROBLEM], body, told, outcome))

    def answered(self, request: Request, answer: Answer, seconds: float) -> None:
        """Tell the observer of an answer that is not the application's."""
        self.payee.observer.answered(
            Answered(request.method, request.path, answer.status, answer.outcome, seconds)
        )

    def delivered(
        self,
        request: Request,
        payment: Payment,
        status: int | None,
        outcome: Outcome,
        seconds: float,
    ) -> None:
        """Tell the observer of a paid request."""
        charged = payment.charged if outcome is Outcome.PAID else 0
        place = (payment.channel_id, payment.token)
        self.payee.observer.answered(
            Answered(request.method, request.path, status, outcome, seconds, *place, charged)
        )

    def _challenges(self, quote: Quote) -> Headers:
        """One for each token that is taken."""
        challenges = self.payee.challenges(quote)
        headers = [(b"www-authenticate", one.to_header().encode()) for one in challenges]
        return [*headers, (b"vary", b"Accept")]

    async def _verified(
        self, request: Request, quote: Quote, client: str | None, read_body: ReadBody | None
    ) -> Verified:
        told = _told(request)
        header = _credential(told[b"authorization"])
        if header is None:
            if (token := token_in(told[b"authorization"])) is not None:
                return await self._covered(request, quote, told, token, read_body)
            # Nobody is to open a channel now, only to be told that it cannot be used.
            await self.payee.require_followed()
            raise PaymentRequired(f"this costs {quote.format()}")
        resource = _resource(request, told[b"host"])
        key = _idempotency_key(told[b"idempotency-key"])
        wish = NO_WISH if quote.selling is None else wish_of(request, quote.selling)
        order = Order(resource, quote, key, client, read_body, wish)
        if told[_KEY_PROOF]:
            order = order._replace(proof=told[_KEY_PROOF][0].decode("latin-1"))
        if quote.credit is not None:
            order = order._replace(on_tab=agrees(request))
        if quote.metered and key is not None and self.payee.receipts is not None:
            order = order._replace(sells=self.payee.receipts.sells(key))
        if quote.item is not None:
            about = (self.payee.prices.counter, request, host_named(told[b"host"]), key)
            order = order._replace(sells=self.payee.desk.sells(quote.item, *about))
        return await self.payee.verify(header, order)

    async def _covered(
        self,
        request: Request,
        quote: Quote,
        told: dict[bytes, list[bytes]],
        token: str,
        read_body: ReadBody | None,
    ) -> Paid:
        """A request that comes with a pass: it needs no voucher, if the pass covers it."""
        if quote.item is not None or quote.metered:
            raise PassNotCovering("no pass covers what is sold by the unit or is a pass itself")
        host, desk = host_named(told[b"host"]), self.payee.desk
        covered = None if told[_PROOF] else desk.admit_at_once(token, request.path, host)
        if covered is None:
            resource = _resource(request, told[b"host"])
            if read_body is not None and (body := await read_body()):
                resource = f"{resource} body={body}"
            key = _idempotency_key(told[b"idempotency-key"])
            proof = told[_PROOF][0].decode("latin-1") if told[_PROOF] else None
            shown = Shown(token, request.path, host, resource, key, quote.charged, proof)
            covered = await desk.admit(shown)
        price = quote.price_in(covered.accepted.record.channel.token) or 0
        return Paid(covered.accepted, "", price, quote, covered=covered.header)

    async def _handed_out(self, request: Request, quote: Quote, paid: Paid) -> Answer:
        """The answer with what the payee itself sold."""
        assert quote.item is not None
        key = _idempotency_key(_told(request)[b"idempotency-key"])
        try:
            record, token, members = await self.payee.desk.told(
                quote.item, paid.accepted, host_named(_told(request)[b"host"]), key
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the client gets an answer
            return self.refusal(error, request, quote)
        paid = paid._replace(accepted=replace(paid.accepted, record=record))
        headers = [self.receipt_header(paid), _NO_STORE, _JSON]
        if token is not None:
            headers.append((_PASS, token.encode()))
        body = json.dumps(members).encode()
        return _sized(Answer(200, headers, body, outcome=Outcome.PAID))


def may_have_body(request: Request) -> bool:
    """Whether a retry has to repeat a body: methods that mostly have none announce it."""
    return request.method not in _WITHOUT_BODY or any(
        value.strip(b"0 ") for name, value in request.headers if name.lower() in _BODY_HEADERS
    )


def without_length(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of an answer whose body is not sent."""
    return [(name, value) for name, value in headers if name.lower() != b"content-length"]


def _sized(answer: Answer) -> Answer:
    length = (b"content-length", str(len(answer.body)).encode())
    return answer._replace(headers=[*answer.headers, length])


def _answerable(error: Exception) -> ChannelPayError:
    """What the client is told. Our trouble is never its bill: 503, with the cause in the log alone,
    since a node's message may name what is not for the public.
    """
    if isinstance(error, _REFUSALS | _OWN_WORDS):
        return error
    if isinstance(error, NetworkError):
        _log.warning("%s: %s", _UNCHECKED, error.detail)
        kind = type(error) if isinstance(error, _OWN_CODES) else NetworkError
        return kind(_UNCHECKED, hint=NetworkError.hint)
    _log.error(_UNCHECKED, exc_info=error)
    return NetworkError(_UNCHECKED)


def _told(request: Request) -> dict[bytes, list[bytes]]:
    """All values of the headers that matter to a payment, in one pass."""
    found: dict[bytes, list[bytes]] = {name: [] for name in _TOLD}
    for name, value in request.headers:
        values = found.get(name.lower())
        if values is not None:
            values.append(value)
    return found


def _credential(found: list[bytes]) -> str | None:
    if len(found) > 1:
        raise MalformedCredential("there is more than one Authorization header")
    header = found[0].decode("latin-1") if found else ""
    return header if is_payment_header(header) else None


def _idempotency_key(found: list[bytes]) -> str | None:
    if not found:
        return None
    key = found[0].decode("latin-1")
    plain = 0 < len(key) <= IDEMPOTENCY_KEY_MAX and key.isascii() and key.isprintable()
    if len(found) > 1 or not plain:
        raise InputError(
            f"Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters"
        )
    return key


def _url(request: Request, hosts: list[bytes]) -> str:
    host = hosts[0].decode("latin-1") if hosts else "localhost"
    return f"{request.scheme}://{host}{request.target}"


def _resource(request: Request, hosts: list[bytes]) -> str:
    """Method and URL, as the ledger keeps them: a very long one by its beginning and its hash."""
    # PostgreSQL cannot keep a NUL in a text.
    resource = f"{request.method} {_url(request, hosts)}".replace("\0", "%00")
    if len(resource) <= RESOURCE_CHARS_MAX:
        return resource
    digest = hashlib.sha256(resource.encode()).hexdigest()
    return f"{resource[: RESOURCE_CHARS_MAX - 65]}#{digest}"


def _wants_page(request: Request) -> bool:
    """Whether a person's browser asks: it names text/html, programs do not."""
    ranges = ",".join(request.header_values("accept")).lower().split(",")
    names = (one.replace(" ", "").partition(";") for one in ranges)
    return any(name == "text/html" and rest not in ("q=0", "q=0.0") for name, _, rest in names)


def _private(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    told = [(name.lower(), name, value) for name, value in headers]
    values = [value for lower, _, value in told if lower == b"cache-control"]
    kept = [
        (name, value)
        for lower, name, value in told
        if lower != b"cache-control" and not lower.endswith(_FOR_SHARED_CACHES)
    ]
    if not values:
        return [*kept, (b"cache-control", b"private")]
    directives = [one.strip() for one in b",".join(values).decode("latin-1").split(",")]
    rest = [one for one in directives if one and not one.lower().startswith(_SHARED_CACHES)]
    cache_control = ", ".join(rest if "no-store" in rest else ["private", *rest])
    return [*kept, (b"cache-control", cache_control.encode("latin-1"))]


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
