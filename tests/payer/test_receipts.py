"""The signed receipts of responses whose cost is known at their end."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from channelpay.errors import ChannelPayError, NotFound, ReceiptNotFound, ReceiptNotYet
from channelpay.payer import receipts
from channelpay.payer.client import Payer
from channelpay.payer.metering import MeteredResponse
from channelpay.payer.steps import Answer, Send
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.receipts import (
    HEADER,
    ReceiptSigner,
    SignedReceipt,
    receipt_place,
)
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    Voucher,
)
from tests.payer.selling import LIMITS, metered_site
from tests.payer.site import DEPLOYMENT, KEY, PAYEE, PAYEE_KEY, Ground, Site
from tests.payer.stream_server import Reply, StreamServer, serving
from tests.payer.test_streams import (
    CONTENT,
    COUNT,
    Fetch,
    asynchronous,
    blocking,
    only_channel,
    with_requests,
)


def refusal(error: ChannelPayError) -> Reply:
    body = json.dumps(error.as_problem()).encode()
    return error.status, {"Content-Type": "application/problem+json"}, body


NOT_FOUND, NOT_YET = refusal(ReceiptNotFound()), refusal(ReceiptNotYet())


ELSEWHERE = Channel(Address(b"\x11" * 20), PAYEE, NATIVE, ZERO_ADDRESS, bytes(32))


class Signing:
    """A payee's answers to who asks for receipts: ``early`` come first."""

    def __init__(self, site: Site, key: bytes = PAYEE_KEY, **changes: Any) -> None:
        self._site = site
        self._signer = ReceiptSigner(key)
        self._changes = changes
        self.early: list[Reply] = []

    def __call__(self, channel_id: ChannelId, key: str) -> Reply:
        if self.early:
            return self.early.pop(0)
        return 204, {HEADER: self.receipt(channel_id, key).to_header()}, b""

    def receipt(self, channel_id: ChannelId, key: str) -> SignedReceipt:
        record, payment = self._site.records[channel_id], self._site.payments[channel_id, key]
        receipt = SignedReceipt(
            DEPLOYMENT, record.channel, 1, payment.price, record.spent, payment.resource, 1_800_000
        )
        return self._signer.sign(replace(receipt, **self._changes))


@pytest.fixture
def server() -> Iterator[StreamServer]:
    with serving(StreamServer(metered_site(), [1] * COUNT)) as server:
        server.ask_receipt = Signing(server.site)
        yield server


@pytest.fixture
def ground(tmp_path: Path, server: StreamServer) -> Iterator[Ground]:
    ground = Ground(tmp_path, server.site, LIMITS)
    ground.state.purchases.are_kept = True
    yield ground
    ground.state.close()


@pytest.fixture(params=[blocking, asynchronous, with_requests])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    chosen: Fetch = request.param
    return chosen


def kept(ground: Ground) -> list[tuple[int, str | None]]:
    found = ground.state.purchases.of_channel(only_channel(ground).channel_id)
    return [(one.cost, one.receipt) for one in found]


def questions(server: StreamServer) -> list[dict[str, str]]:
    sent = (headers for _, _, headers, _ in server.sent_with("POST"))
    return [headers for headers in sent if PROOF.lower() in headers]


def test_a_stream_that_is_kept_has_its_signed_receipt(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    fetched = fetch(ground, server.url)

    assert (fetched.error, fetched.content) == (None, CONTENT)
    signed = fetched.paid.signed_receipt
    assert signed is not None
    signed.check()
    assert (signed.amount, fetched.paid.cost) == (COUNT, COUNT)
    assert kept(ground) == [(COUNT, signed.to_json())]


def test_the_question_shows_no_voucher_but_a_proof_for_this_one_receipt(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    fetch(ground, server.url)

    (headers,) = questions(server)
    entry, key = only_channel(ground), headers["idempotency-key"]
    proof = bytes.fromhex(headers[PROOF.lower()][2:])
    place = receipt_place(entry.channel_id, key)
    VoucherHasher(DEPLOYMENT).check(Voucher(place, 0, proof), ground.payer)
    assert "authorization" not in headers
    (purchase,) = ground.state.purchases.of_channel(entry.channel_id)
    assert purchase.key == key


def test_who_keeps_no_purchases_asks_for_none(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    ground.state.purchases.are_kept = False

    assert fetch(ground, server.url).paid.signed_receipt is None
    assert questions(server) == []


def test_a_reader_that_stops_early_asks_for_none(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    fetch(ground, server.url, until=lambda fetched: b"10" in fetched.content)

    assert questions(server) == []


def test_who_asks_too_early_asks_again(
    fetch: Fetch, ground: Ground, server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "PAUSES_SECONDS", (0.01,) * 3)
    signing = Signing(server.site)
    signing.early = [NOT_YET] * 3
    server.ask_receipt = signing

    assert fetch(ground, server.url).paid.signed_receipt is not None


def test_a_body_that_is_charged_as_it_comes_costs_what_its_signed_receipt_says(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    server.site.media_type = "text/plain"
    server.amounts = [1] * 50

    fetched = fetch(ground, server.url)

    assert fetched.error is None
    assert (fetched.paid.cost, fetched.paid.receipt) == (50, None)
    assert (only_channel(ground).spent, [cost for cost, _ in kept(ground)]) == (50, [50])


@pytest.mark.parametrize(
    "fault",
    [
        (404, {}, b""),
        (503, {"Retry-After": "1"}, b""),
        (204, {HEADER: "!"}, b""),
        (200, {"Content-Encoding": "gzip"}, b"garbage" * 100_000),
        NOT_YET,
        {"key": bytes(31) + b"\x03"},
        {"spent": 10**6},
        {"amount": 2**200},
        {"channel": ELSEWHERE},
    ],
    ids=[
        *("unknown", "busy", "senseless", "large", "never"),
        *("forged", "too much", "no amount", "another channel"),
    ],
)
def test_no_fault_of_a_receipt_is_one_of_the_answer(
    fetch: Fetch,
    ground: Ground,
    server: StreamServer,
    monkeypatch: pytest.MonkeyPatch,
    fault: Any,
) -> None:
    monkeypatch.setattr(receipts, "PAUSES_SECONDS", (0.01,) * 3)
    signing = Signing(server.site, **fault) if isinstance(fault, dict) else None
    server.ask_receipt = signing or (lambda *_: fault)

    fetched = fetch(ground, server.url)

    assert (fetched.error, fetched.content) == (None, CONTENT)
    assert (fetched.paid.cost, fetched.paid.signed_receipt) == (COUNT, None)
    assert kept(ground) == [(COUNT, None)]


def test_a_site_that_is_gone_before_the_receipt_has_delivered_nevertheless(
    fetch: Fetch, ground: Ground, server: StreamServer
) -> None:
    def gone(*_: object) -> Reply:
        raise ConnectionResetError

    server.ask_receipt = gone

    fetched = fetch(ground, server.url)

    assert (fetched.error, fetched.content, kept(ground)) == (None, CONTENT, [(COUNT, None)])


class SigningSite(Site):
    """One whose answers bring a signed receipt, or ``header`` in its place."""

    header: str | None = None

    def answer(self, url: str, step: Send) -> Answer:
        answer = super().answer(url, step)
        if answer.receipt is None:
            return answer
        signed = Signing(self).receipt(*next(iter(self.payments))).to_header()
        return replace(answer, signed_receipt=self.header or signed)


@pytest.mark.parametrize(("header", "is_signed"), [(None, True), ("!", False)])
@pytest.mark.parametrize("media_type", ["text/html", "text/event-stream"])
def test_what_an_answer_brings_is_kept_if_it_holds(
    tmp_path: Path, header: str | None, media_type: str, is_signed: bool
) -> None:
    site = SigningSite()
    site.header, site.media_type = header, media_type
    ground = Ground(tmp_path, site)
    ground.state.purchases.are_kept = True
    _, paid = ground.pay()
    if isinstance(paid, MeteredResponse):
        is_asked_for = next(paid.prove(), None) is not None
        assert is_asked_for != is_signed
        paid = paid.settle()

    assert (paid.signed_receipt is not None) == is_signed
    expected = paid.signed_receipt.to_json() if is_signed else None
    assert kept(ground) == [(1, expected)]
    ground.state.close()


def test_a_receipt_that_did_not_come_is_had_later_and_replaced_by_a_newer_one(
    ground: Ground, server: StreamServer, tmp_path: Path
) -> None:
    server.ask_receipt = lambda *_: NOT_FOUND
    blocking(ground, server.url)
    books, file = ground.state.purchases, tmp_path / "payer.sqlite3"
    with closing(Payer(KEY, None, file, contract=DEPLOYMENT.contract)) as payer:
        with pytest.raises(ReceiptNotFound):
            payer.fetch_receipt(1)
        assert books.one(1).receipt is None
        for amount in (COUNT, COUNT - 1):
            server.ask_receipt = Signing(server.site, amount=amount)
            receipt = payer.fetch_receipt(1)
            assert (receipt.amount, books.one(1).receipt) == (amount, receipt.to_json())
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("UPDATE purchased SET key = NULL")
        with pytest.raises(NotFound, match="no Idempotency-Key"):
            payer.fetch_receipt(1)
