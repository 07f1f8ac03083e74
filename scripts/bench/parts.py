"""Where the time of a paid request goes: its parts, each alone, beside the whole."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import h11

from channelpay.payee import Payee, PaymentMiddleware
from channelpay.payee.asgi import Message, Scope, request_of
from channelpay.payee.checkout import Checkout
from channelpay.payee.payee import REALM
from channelpay.payee.verifier import Order, Paid
from channelpay.protocol.eip712 import VoucherChecker, VoucherHasher
from channelpay.protocol.reader import CredentialReader
from channelpay.protocol.wire import ChallengeIssuer, VoucherPayload
from channelpay.store import open_store
from scripts.bench.books import Customers, fill
from scripts.bench.core import seconds_per_call
from scripts.bench.database import sqlite_url
from scripts.bench.figures import Table, medians
from scripts.bench.paid import BUSY, CHANNELS, Lab, enter_payers, site
from scripts.bench.scene import PATH, PLAIN_REQUEST, PaidRequests, payers_of
from scripts.bench.site import CHALLENGE_SECRET, PAYEE, hello, payee_of

SLICES = 7
GROUPS = 30
"""Groups of BUSY orders, and requests in as many rounds, in one slice."""


def measure(lab: Lab, directory: Path) -> None:
    """On SQLite, with BUSY requests in flight."""
    directory.mkdir()
    over_http = _over_http(lab, directory)
    url = sqlite_url(directory / "parts.sqlite3")
    enter_payers(lab, url)
    with closing(payee_of(lab.place, url)) as payee:
        requests = _requests(lab, payee)
        inside = _inside(lab, payee, requests, directory)
        middleware = _middleware(payee, requests)
    bare, whole = over_http["hello cpu"], over_http["paid cpu"]
    known = sum(inside.values())
    between = middleware - (known - inside[LONGER_HEAD])
    rows = [
        ("the server and the application: a bare request", bare),
        *inside.items(),
        ("the middleware around them, and the way to the writer and back", between),
        ("what is left: more wake-ups, smaller groups", whole - bare - known - between),
        ("a paid request: processor", whole),
        ("a paid request: 1 ÷ requests/s", 1e6 / over_http["paid rate"]),
    ]
    note = (
        f"Microseconds of the processor; SQLite, {BUSY} in flight. The first line and the last two "
        "are over HTTP; every other part was measured alone."
    )
    lab.findings.tables.append(Table("Where the time goes", note, ("part", "µs"), tuple(rows)))


LONGER_HEAD = "reading a longer head"


def _over_http(lab: Lab, directory: Path) -> dict[str, float]:
    """The figures of bare and paid requests."""
    url = sqlite_url(directory / "whole.sqlite3")
    enter_payers(lab, url)
    with site(lab, url, 1, {}) as paid:
        return medians(lab.rounds({"paid": paid}, BUSY, CHANNELS[-1]))


def _inside(lab: Lab, payee: Payee, requests: PaidRequests, directory: Path) -> dict[str, float]:
    """Microseconds of each part that can be called alone."""
    (raw,) = requests.take(1)
    scope = _scope(raw)
    request = request_of(scope)
    header = request.header_values("authorization")[0]
    issuer = ChallengeIssuer(CHALLENGE_SECRET, REALM)
    reader, checker = CredentialReader(issuer), VoucherChecker(VoucherHasher(lab.place.deployment))
    payload = reader.read(header, time.time()).payload
    assert isinstance(payload, VoucherPayload)
    signer = payers_of(lab.place.deployment, PAYEE, CHANNELS[-1])[0].signer.address
    paid = _paid(payee, scope)
    checkout = Checkout(payee)
    longer = _microseconds(lambda: _read_head(raw)) - _microseconds(
        lambda: _read_head(PLAIN_REQUEST)
    )
    return {
        LONGER_HEAD: longer,
        "the price": _microseconds(lambda: payee.quote(request_of(scope))),
        "reading the credential": _microseconds(lambda: reader.read(header, time.time())),
        "the signature": _microseconds(lambda: checker.check(payload.voucher, signer)),
        f"the books: decide, write, commit; one of {BUSY}": _books(directory),
        "the receipt": _microseconds(lambda: checkout.paid_headers((), paid, request_of(scope))),
    }


def _requests(lab: Lab, payee: Payee) -> PaidRequests:
    quote = payee.quote(request_of(_scope(PLAIN_REQUEST)))
    assert quote is not None
    payers = payers_of(lab.place.deployment, PAYEE, CHANNELS[-1])
    return PaidRequests(payers, payee.challenges(quote)[0])


def _microseconds(run: Callable[[], object]) -> float:
    return statistics.median(seconds_per_call(run) for _ in range(SLICES)) * 1e6


def _read_head(raw: bytes) -> Sequence[tuple[bytes, bytes]]:
    """The headers, by the library that the server reads them with."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    return list(request.headers)


def _scope(raw: bytes) -> Scope:
    """As uvicorn gives it."""
    return {
        "type": "http",
        "method": "GET",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": b"",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "headers": _read_head(raw),
    }


def _paid(payee: Payee, scope: Scope) -> Paid:
    """One payment."""
    request = request_of(scope)
    quote = payee.quote(request)
    assert quote is not None
    order = Order("GET http://127.0.0.1/article", quote)
    paid = asyncio.run(payee.verify(request.header_values("authorization")[0], order))
    assert isinstance(paid, Paid)
    return paid


def _books(directory: Path) -> float:
    """Microseconds of one order among BUSY that are handed in at once."""
    url = sqlite_url(directory / "books.sqlite3")
    fill(url, CHANNELS[-1])
    customers = Customers(CHANNELS[-1])
    taken = []
    with closing(open_store(url)) as store:
        for _ in range(SLICES):
            groups = [customers.take(BUSY) for _ in range(GROUPS)]
            started = time.process_time()
            for group in groups:
                store.accept(group).result()
            taken.append((time.process_time() - started) / (GROUPS * BUSY))
    return statistics.median(taken) * 1e6


class _Cycle:
    """The server's side of a request, as uvicorn has it."""

    disconnected = False

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200


def _middleware(payee: Payee, requests: PaidRequests) -> float:
    """Microseconds of a request through the middleware, with BUSY in flight, without a server."""
    application = PaymentMiddleware(hello, payee)

    async def serve(scopes: Iterator[Scope]) -> None:
        for scope in scopes:
            cycle = _Cycle()
            await application(scope, cycle.receive, cycle.send)

    async def slice_of(scopes: Iterator[Scope]) -> None:
        await asyncio.gather(*(serve(scopes) for _ in range(BUSY)))

    async def slices() -> float:
        taken = []
        for _ in range(SLICES):
            scopes: list[Any] = [_scope(raw) for raw in requests.take(GROUPS * BUSY)]
            started = time.process_time()
            await slice_of(iter(scopes))
            taken.append((time.process_time() - started) / len(scopes))
        return statistics.median(taken) * 1e6

    return asyncio.run(slices())
