"""Receipts that are asked for after the sale: who gets one, and what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channelpay.errors import ReceiptNotFound
from channelpay.observe import Observer
from channelpay.payee import PaymentMiddleware, PriceRule
from channelpay.payee.acceptance import Acceptance, Guard
from channelpay.payee.asgi import Receive, Scope, Send
from channelpay.payee.register import Register
from channelpay.payee.selling import desk
from channelpay.payee.selling.receipts import Receipts
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.passes import PLACE as SHOP
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.receipts import (
    ASKING_HEADER,
    HEADER,
    PLACE,
    SIGNED,
    ReceiptSigner,
    SignedReceipt,
    receipt_place,
)
from channelpay.protocol.rules import (
    KEYED_RETRY_WINDOW_MS,
    Charge,
    Purchase,
    Refund,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Voucher,
)
from channelpay.protocol.wire import VoucherPayload
from channelpay.store import ChainView, MemoryStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import PRICE, OpenChannel, Payer, Shop, opened_shop
from tests.store.books import DEPLOYMENT, order
from tests.store.terms import Adding

pytestmark = pytest.mark.anyio

RULES = [PriceRule("/words", "0.01", unit="word"), PriceRule("/**", "0.01")]
ASKS = {ASKING_HEADER: SIGNED}
WORDS = 3
SECONDS = 20.0


class Words:
    """Sells words by the word, the last one when it may go on; and pages."""

    def __init__(self) -> None:
        self.is_waiting, self.goes_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 500 if scope["path"] == "/error" else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        for number in range(WORDS if scope["path"] == "/words" else 0):
            if number == WORDS - 1:
                self.is_waiting.set()
                await self.goes_on.wait()
            await scope["channelpay"].charge(PRICE)
            await send({"type": "http.response.body", "body": b"word ", "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    with opened_shop(furnished, tmp_path, payer, prices=RULES) as opened:
        opened.middleware = PaymentMiddleware(Words(), opened.payee)
        yield opened


def proof_of(channel: OpenChannel, key: str) -> str:
    return to_hex(channel.signer.sign(receipt_place(channel.id, key), 0).signature)


async def ask(shop: Shop, channel_id: ChannelId, key: str, proof: str) -> httpx2.Response:
    headers = [("Idempotency-Key", key), (PROOF, proof)]
    return await shop.request(f"{SHOP}{PLACE}{to_hex(channel_id)}", headers, method="POST")


async def fetched(shop: Shop, channel: OpenChannel, key: str) -> SignedReceipt:
    """Asked for again for as long as the end of a stream is on its way to the books."""
    deadline = time.monotonic() + SECONDS
    answer = await ask(shop, channel.id, key, proof_of(channel, key))
    while answer.status_code == 409 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
        answer = await ask(shop, channel.id, key, proof_of(channel, key))
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store"), answer.text
    receipt = SignedReceipt.from_header(answer.headers[HEADER])
    receipt.check()
    return receipt


async def stream(shop: Shop, channel: OpenChannel, key: str) -> httpx2.Response:
    (challenge,) = shop.challenges("/words")
    header = shop.header(VoucherPayload(channel.sign(WORDS * PRICE)), challenge)
    return await shop.get("/words", header, key=key)


def words_of(shop: Shop) -> Words:
    words = shop.middleware._app
    assert isinstance(words, Words)
    return words


async def test_the_receipt_of_a_sale_is_there_later_and_after_the_channel_is_closed(
    shop: Shop,
) -> None:
    channel = await shop.opened()
    answer = await shop.pay(channel, PRICE, key="one page", **ASKS)

    later = [await fetched(shop, channel, "one page") for _ in range(2)]
    await shop.close(channel, PRICE)
    closed = await fetched(shop, channel, "one page")

    given = SignedReceipt.from_header(answer.headers[HEADER])
    assert [*later, closed] == [given] * 3


async def test_a_stream_has_none_before_its_end_in_any_process_and_then_one_of_all_it_cost(
    shop: Shop, furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    channel = await shop.opened()
    proof = proof_of(channel, "words")

    with opened_shop(furnished, tmp_path, payer, prices=RULES, watches=False) as beside:
        reading = asyncio.ensure_future(stream(shop, channel, "words"))
        await words_of(shop).is_waiting.wait()
        early = [await ask(one, channel.id, "words", proof) for one in (shop, beside)]
        words_of(shop).goes_on.set()
        assert (await reading).content == b"word " * WORDS
        receipts = [await fetched(one, channel, "words") for one in (shop, beside)]

    codes = [(one.status_code, one.json()["code"]) for one in early]
    assert codes == [(409, "receipt-not-yet")] * 2
    assert receipts[0] == receipts[1]
    assert (receipts[0].amount, receipts[0].spent) == (WORDS * PRICE, WORDS * PRICE)


async def test_a_stream_that_is_served_again_has_none_meanwhile(shop: Shop) -> None:
    channel, words = await shop.opened(), words_of(shop)
    words.goes_on.set()
    await stream(shop, channel, "words")
    first = await fetched(shop, channel, "words")
    words.goes_on.clear()
    words.is_waiting.clear()

    reading = asyncio.ensure_future(stream(shop, channel, "words"))
    await words.is_waiting.wait()
    meanwhile = await ask(shop, channel.id, "words", proof_of(channel, "words"))
    words.goes_on.set()
    await reading

    assert meanwhile.json()["code"] == "receipt-not-yet"
    assert await fetched(shop, channel, "words") == first


async def test_a_stream_whose_process_was_killed_has_one_when_its_key_has_ended(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await shop.opened()
    assert shop.payee.receipts is not None
    monkeypatch.setattr(shop.payee.receipts, "end", lambda _: None)
    words_of(shop).goes_on.set()
    await stream(shop, channel, "words")
    proof = proof_of(channel, "words")

    early = await ask(shop, channel.id, "words", proof)
    now = shop.payee.receipts._now()
    shop.payee.receipts._now = lambda: now + KEYED_RETRY_WINDOW_MS / 1000

    assert early.json()["code"] == "receipt-not-yet"
    assert (await fetched(shop, channel, "words")).amount == WORDS * PRICE


async def test_nobody_else_is_told_more_than_that_there_is_nothing(shop: Shop) -> None:
    channel, other = await shop.opened(), await shop.opened()
    await shop.pay(channel, PRICE, key="key")
    voucher = to_hex(channel.sign(PRICE).signature)
    asked = [
        (channel.id, "key", proof_of(other, "key")),
        (other.id, "key", proof_of(other, "key")),
        (channel.id, "another", proof_of(channel, "key")),
        (channel.id, "another", proof_of(channel, "another")),
        (channel.id, "key", voucher),
        (ChannelId(bytes(32)), "key", proof_of(channel, "key")),
    ]

    answers = [await ask(shop, *one) for one in asked]

    assert {one.text for one in answers} == {answers[0].text}
    problem = answers[0].json()
    assert (problem["status"], problem["code"]) == (404, "receipt-not-found")
    assert problem["hint"]
    assert not any(HEADER in one.headers for one in answers)


async def test_what_was_given_back_has_none(shop: Shop) -> None:
    channel = await shop.opened()
    failed = await shop.pay(channel, PRICE, "/error", key="key")

    answer = await ask(shop, channel.id, "key", proof_of(channel, "key"))

    assert (failed.status_code, answer.status_code) == (500, 404)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 404),
        ([("Idempotency-Key", "key")], 404),
        ([("Idempotency-Key", "key"), (PROOF, "0x00")], 400),
        ([("Idempotency-Key", "k" * 256), (PROOF, "0x" + "00" * 65)], 400),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    shop: Shop, headers: list[tuple[str, str]], status: int
) -> None:
    channel = await shop.opened()

    answer = await shop.request(f"{SHOP}{PLACE}{to_hex(channel.id)}", headers, method="POST")

    assert answer.status_code == status


async def test_who_asks_in_vain_too_often_has_to_wait_and_no_stranger_can_bring_that_about(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "ATTEMPTS_MAX", 2)
    channel, other = await shop.opened(), await shop.opened()
    await shop.pay(channel, PRICE, key="key")
    for _ in range(2):
        await ask(shop, channel.id, "key", proof_of(other, "key"))
    assert (await fetched(shop, channel, "key")).amount == PRICE

    unknown = str(uuid4())
    for _ in range(2):
        await ask(shop, channel.id, unknown, proof_of(channel, unknown))
    answer = await ask(shop, channel.id, "key", proof_of(channel, "key"))

    assert (answer.status_code, answer.json()["code"]) == (429, "too-many-attempts")


async def test_a_site_without_a_key_has_none(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    payee = to_hex(furnished.chain.accounts[2].address)
    with opened_shop(furnished, tmp_path, payer, account=None, payee=payee) as shop:
        channel = await shop.opened()
        await shop.pay(channel, PRICE, key="key")
        answer = await ask(shop, channel.id, "key", proof_of(channel, "key"))

    assert answer.json()["code"] == "receipt-not-found"


# --- any history ---------------------------------------------------------------------------------

PAYEE_KEY = b"\x11" * 32
PAYER = VoucherSigner(DEPLOYMENT, b"\x22" * 32)
PAYEE = VoucherSigner(DEPLOYMENT, PAYEE_KEY).address
CHANNEL = Channel(PAYER.address, PAYEE, Address(b"\x70" * 20), ZERO_ADDRESS, bytes(32))
CHANNEL_ID = CHANNEL.id(DEPLOYMENT)
NOW_MS = 1_800_000_000_000
RICH = 10**6
KEYS = ("a", "b")
Step = tuple[str, str, int]


class History:
    """Some books, and what each key cost by a simpler account."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        view = ChainView(ChannelState(ChannelStatus.OPEN, RICH, 0, 0), 1)
        self.store.add_channel(CHANNEL_ID, CHANNEL, view).result()
        self.cost: dict[str, int] = {}
        self._bought: dict[str, int] = {}
        self._refunded: set[str] = set()

    def take(self, step: Step) -> None:
        verb, key, amount = step
        number = self._bought.get(key)
        if verb == "buy" and number is None:
            self._bought[key] = self._buy(key, amount)
            self.cost[key] = 0
        elif verb == "charge" and number is not None:
            order(self.store, Charge(CHANNEL_ID, number, self._charged(number) + amount))
            self.cost[key] += amount
        elif verb == "refund" and number is not None and self.cost[key] >= amount:
            terms = Adding({}, back=amount)
            order(self.store, Refund(CHANNEL_ID, number, terms, "unused", NOW_MS))
            self.cost[key] -= amount
            self._refunded.add(key)
        elif verb == "release" and number is not None and key not in self._refunded:
            self.store.release(number, 1).result()
            del self._bought[key], self.cost[key]

    def _buy(self, key: str, price: int) -> int:
        voucher = Voucher(CHANNEL_ID, RICH, bytes(65))
        accepted = order(self.store, Purchase(voucher, price, "GET /", NOW_MS, key, metered=True))
        assert accepted.payment_id is not None
        return accepted.payment_id

    def _charged(self, number: int) -> int:
        payments = {one.payment_id: one.payment for one in self.store.payments(CHANNEL_ID)}
        return payments[number].price


steps = st.tuples(
    st.sampled_from(["buy", "charge", "charge", "refund", "release"]),
    st.sampled_from(KEYS),
    st.integers(1, 9),
)


@given(st.lists(steps, max_size=20))
@settings(deadline=None)
def test_a_receipt_says_what_was_charged_less_what_was_given_back(history: Sequence[Step]) -> None:
    books = History()
    for step in history:
        books.take(step)

    receipts = asyncio.run(_receipts(books.store))

    assert {key: one.amount for key, one in receipts.items()} == books.cost
    record = books.store.record(CHANNEL_ID)
    assert record is not None
    assert all(one.spent == record.spent for one in receipts.values())
    assert sum(one.amount for one in receipts.values()) == record.spent


async def _receipts(store: MemoryStore) -> dict[str, SignedReceipt]:
    guard = Guard(Acceptance(), store, "test", 86_400)
    register = Register(store, Observer(), guard)
    receipts = Receipts(ReceiptSigner(PAYEE_KEY), register, DEPLOYMENT, lambda: NOW_MS / 1000)
    found: dict[str, Any] = {}
    for key in KEYS:
        proof = PAYER.sign(receipt_place(CHANNEL_ID, key), 0).signature
        try:
            found[key] = await receipts.asked(CHANNEL_ID, key, proof)
        except ReceiptNotFound:
            continue
    register.close()
    return found
