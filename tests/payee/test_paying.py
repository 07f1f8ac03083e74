"""Pages that are paid for: opening, paying, retrying, topping up, closing."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from channelpay.observe import Observer
from channelpay.payee import PaymentMiddleware, delivery
from channelpay.payee.asgi import App, Message, Receive, Scope, Send, request_of
from channelpay.payee.payment import Payment
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.rules import Outcome
from channelpay.protocol.types import Address
from channelpay.protocol.wire import ClosePayload, VoucherPayload
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import (
    DEPOSIT,
    PRICE,
    OpenChannel,
    Payer,
    Shop,
    challenges_of,
    opened_shop,
    receipt_of,
    wait_on_loop_for,
)

pytestmark = pytest.mark.anyio


async def test_a_priced_page_without_payment_asks_for_it(shop: Shop) -> None:
    response = await shop.get("/page")

    assert response.status_code == 402
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["code"] == "payment-required"
    assert response.json()["detail"] == "this costs 0.01 TUSD"
    (challenge,) = challenges_of(response)
    request = shop.asked()
    assert (challenge.method, challenge.intent, challenge.request) == (
        "evm",
        "session",
        request.encode(),
    )
    assert request.suggested_deposit == 1_000_000


async def test_a_free_page_needs_no_payment_and_ignores_one(shop: Shop) -> None:
    responses = [await shop.get("/free/page"), await shop.get("/free/page", "Payment nonsense")]

    assert [response.status_code for response in responses] == [200, 200]
    assert "payment-receipt" not in responses[1].headers
    assert "channelpay" not in shop.application.scopes[0]


def test_methods_are_read_in_capitals_as_applications_do() -> None:
    scope: Scope = {"type": "http", "method": "get", "path": "/page", "headers": []}

    assert request_of(scope).method == "GET"


@pytest.mark.parametrize(("path", "answer"), [("/page", [1008]), ("/free/page", [])])
async def test_a_websocket_on_a_path_with_a_price_is_refused(
    shop: Shop, path: str, answer: list[int]
) -> None:
    sent, reached = list[Message](), list[Scope]()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        assert message["type"] == "websocket.close"
        sent.append(message)

    scope: Scope = {"type": "websocket", "path": path, "headers": []}
    await PaymentMiddleware(application, shop.payee)(scope, receive, send)

    assert [message["code"] for message in sent] == answer
    assert bool(reached) == (not answer)


async def test_another_authorization_scheme_is_no_payment(shop: Shop) -> None:
    response = await shop.get("/page", "Basic dXNlcjpwYXNz")

    assert response.json()["code"] == "payment-required"


async def test_an_open_with_its_first_voucher_pays_at_once(shop: Shop) -> None:
    channel = shop.payer.open()
    header = shop.header(channel.open_payload(PRICE), source=channel.source)

    response = await shop.get("/page", header)

    assert (response.status_code, response.text) == (200, "content")
    receipt = receipt_of(response)
    assert (receipt.channel_id, receipt.accepted, receipt.spent) == (channel.id, PRICE, PRICE)
    assert response.headers["cache-control"] == "private, max-age=60"


async def test_the_application_learns_who_paid_what(shop: Shop) -> None:
    channel = await shop.opened()

    await shop.pay(channel, 3 * PRICE)

    payment = shop.application.scopes[-1]["channelpay"]
    assert (payment.channel_id, payment.payer) == (channel.id, channel.channel.payer)
    assert (payment.token, payment.unit, payment.price) == (channel.channel.token, "request", PRICE)
    assert (payment.accepted, payment.spent, payment.charged) == (3 * PRICE, PRICE, PRICE)


async def test_a_session_key_signs_for_the_payer(shop: Shop) -> None:
    signer = shop.payer.furnished.chain.accounts[5]
    channel = shop.payer.open(authorized_signer=signer.address)
    by_session_key = OpenChannel(
        channel.channel,
        channel.id,
        channel.transaction_hash,
        type(channel.signer)(shop.deployment, signer.private_key),
        channel.source,
    )
    assert (await shop.open(channel)).status_code == 402
    await shop.open(by_session_key)

    assert (await shop.pay(by_session_key, PRICE)).status_code == 200
    assert (await shop.pay(channel, 2 * PRICE)).json()["code"] == "signer-mismatch"


async def test_each_page_raises_spent_by_its_own_price(shop: Shop) -> None:
    channel = await shop.opened()

    await shop.pay(channel, PRICE)
    response = await shop.pay(channel, 3 * PRICE, "/dear")

    assert receipt_of(response).spent == 3 * PRICE


async def test_a_challenge_pays_for_any_page_up_to_its_amount(shop: Shop) -> None:
    channel = await shop.opened()
    header = shop.header(VoucherPayload(channel.sign(2 * PRICE)), shop.challenge(2 * PRICE))

    response = await shop.get("/page", header)

    assert receipt_of(response).spent == PRICE


async def test_parallel_requests_on_one_channel_all_succeed(shop: Shop) -> None:
    channel = await shop.opened()
    cumulative = [PRICE * number for number in range(1, 41)]

    responses = await asyncio.gather(*(shop.pay(channel, amount) for amount in cumulative))
    paid = {response.status_code for response in responses}

    # Vouchers that overtake smaller ones find their money there; the smaller ones come after.
    retries = [r for r in responses if r.status_code == 402]
    assert paid == {200}, [r.json() for r in retries]
    assert shop.spent(channel) == 40 * PRICE


async def test_vouchers_that_arrive_in_the_wrong_order_all_pay(shop: Shop) -> None:
    channel = await shop.opened()

    responses = [await shop.pay(channel, n * PRICE) for n in (3, 1, 2)]

    assert [response.status_code for response in responses] == [200, 200, 200]
    assert (receipt_of(responses[-1]).accepted, shop.spent(channel)) == (3 * PRICE, 3 * PRICE)


async def test_a_retry_with_the_same_key_is_served_and_not_charged(shop: Shop) -> None:
    channel = await shop.opened()

    responses = [await shop.pay(channel, PRICE, key="k") for _ in range(3)]

    assert [response.text for response in responses] == ["content"] * 3
    assert shop.spent(channel) == PRICE


async def test_a_head_updates_the_voucher_and_is_not_charged(shop: Shop) -> None:
    channel = await shop.opened()
    header = shop.header(VoucherPayload(channel.sign(5 * PRICE)))

    response = await shop.get("/page", header, method="HEAD")

    receipt = receipt_of(response)
    assert (response.status_code, receipt.accepted, receipt.spent) == (200, 5 * PRICE, 0)
    assert (await shop.get("/page", method="HEAD")).status_code == 402


async def test_a_post_is_paid_for_and_its_body_arrives(shop: Shop) -> None:
    channel = await shop.opened()
    header = shop.header(VoucherPayload(channel.sign(PRICE)))

    response = await shop.request(
        "/page", [("Authorization", header)], method="POST", content=b"x" * 100_000
    )

    assert (response.status_code, response.content) == (200, b"x" * 100_000)


@pytest.mark.parametrize("path", ["/error", "/missing", "/raise", "/silent"])
async def test_a_request_that_the_site_fails_is_not_charged(shop: Shop, path: str) -> None:
    channel = await shop.opened()
    try:
        response = await shop.pay(channel, PRICE, path)
        assert response.status_code >= 400
        assert "payment-receipt" not in response.headers
    except AssertionError:
        assert path == "/silent"

    assert shop.spent(channel) == 0
    assert receipt_of(await shop.pay(channel, PRICE)).spent == PRICE


@pytest.mark.parametrize("path", ["/moved", "/unchanged"])
async def test_a_redirect_is_charged_and_has_a_receipt(shop: Shop, path: str) -> None:
    channel = await shop.opened()

    assert receipt_of(await shop.pay(channel, PRICE, path)).spent == PRICE


async def test_what_breaks_off_after_the_first_byte_stays_charged(shop: Shop) -> None:
    channel = await shop.opened()

    await shop.pay(channel, PRICE, "/breaks-off")

    assert shop.spent(channel) == PRICE


async def test_a_cancelled_request_is_not_charged(shop: Shop) -> None:
    channel = await shop.opened()
    request = asyncio.ensure_future(shop.pay(channel, PRICE, "/slow"))
    await shop.application.slow_arrived.get()

    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request

    assert receipt_of(await shop.pay(channel, PRICE)).spent == PRICE


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("key", ["the-same", None])
async def test_a_retry_repeats_the_body_or_is_another_purchase(
    shop: Shop, key: str | None, method: str
) -> None:
    channel = await shop.opened()
    authorization = shop.header(VoucherPayload(channel.sign(PRICE)))
    headers = [("Authorization", authorization)] + ([("Idempotency-Key", key)] if key else [])

    first = await shop.request("/work", headers, method=method, content=b"one")
    again = await shop.request("/work", headers, method=method, content=b"one")
    other = await shop.request("/work", headers, method=method, content=b"two")

    assert [first.text, again.text] == (["one"] * 2 if method == "POST" else ["content"] * 2)
    assert other.status_code in {402, 409}
    assert shop.spent(channel) == PRICE


async def test_a_body_too_long_to_compare_is_another_purchase_each_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BODY_BYTES_MAX", 10)
    channel = await shop.opened()
    content = b"longer than that"
    for count in (1, 2):
        authorization = shop.header(VoucherPayload(channel.sign(2 * PRICE)))
        headers = [("Authorization", authorization)]
        response = await shop.request("/work", headers, method="POST", content=content)
        assert (response.text, shop.spent(channel)) == (content.decode(), count * PRICE)


async def test_the_body_of_a_stranger_is_not_read(shop: Shop) -> None:
    channel = await shop.opened()
    forged = replace(channel.sign(PRICE), cumulative_amount=2 * PRICE)
    header = shop.header(VoucherPayload(forged))

    async def receive() -> dict[str, object]:
        raise AssertionError("the body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"shop.example"), (b"authorization", header.encode())]
    scope = {"type": "http", "method": "POST", "path": "/work", "headers": headers}
    await shop.middleware(scope, receive, send)

    assert sent[0]["status"] == 402


async def test_a_request_cancelled_while_the_books_are_written_is_not_charged(
    shop: Shop,
) -> None:
    channel = await shop.opened()
    for steps in range(12):
        request = asyncio.ensure_future(shop.pay(channel, (steps + 1) * PRICE, "/slow"))
        for _ in range(steps):
            await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    await wait_on_loop_for(lambda: shop.spent(channel) == 0)


async def _disconnected(
    shop: Shop, header: str, key: str, path: str = "/page"
) -> list[dict[str, object]]:
    """A request whose client is gone before the application answers."""
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        sent.append(dict(message))  # type: ignore[call-overload]

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [
            (b"host", b"shop.example"),
            (b"authorization", header.encode()),
            (b"idempotency-key", key.encode()),
        ],
    }
    await shop.middleware(scope, receive, send)
    return sent


@pytest.mark.parametrize(("path", "sent"), [("/page", []), ("/missing", [404])])
async def test_a_client_that_is_gone_before_the_first_byte_is_not_charged_and_gets_nothing(
    shop: Shop, path: str, sent: list[int]
) -> None:
    channel = await shop.opened()
    header = shop.header(VoucherPayload(channel.sign(PRICE)))

    messages = await _disconnected(shop, header, "k", path)

    assert shop.spent(channel) == 0
    assert [message["status"] for message in messages if "status" in message] == sent
    assert bool(messages) == bool(sent)


class _Quarrelsome(Observer):
    """An observer that somebody else wrote."""

    def accepted(self, token: Address) -> None:
        raise RuntimeError("the observer is broken")


async def test_an_observer_that_fails_keeps_nobody_waiting(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    with opened_shop(furnished, tmp_path, payer, observer=_Quarrelsome()) as shop:
        channel = await shop.opened()
        paying = [shop.pay(channel, number * PRICE) for number in range(1, 9)]
        async with asyncio.timeout(20):
            responses = await asyncio.gather(*paying)

    assert [response.status_code for response in responses] == [200] * 8
    assert shop.spent(channel) == 8 * PRICE


async def _answer_in_any_way(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers each method alike, with a length, and a file by its path."""
    headers = [
        (b"content-length", b"7"),
        (b"x-kept", b"1"),
        (b"Cloudflare-CDN-Cache-Control", b"max-age=60"),
        (b"surrogate-control", b"max-age=60"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/file":
        await send({"type": "http.response.pathsend", "path": "/file"})
    else:
        await send({"type": "http.response.body", "body": b"content"})


async def _sent(
    shop: Shop, method: str, path: str, header: str | None, application: App = _answer_in_any_way
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"shop.example")]
    headers += [(b"authorization", header.encode())] if header else []
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    await PaymentMiddleware(application, shop.payee)(scope, receive, send)
    return sent


async def test_what_a_paid_request_took_up_is_freed_with_it(shop: Shop) -> None:
    channel = await shop.opened()
    header = shop.header(VoucherPayload(channel.sign(PRICE)), shop.challenge())
    payments: list[weakref.ref[Payment]] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        payments.append(weakref.ref(scope["channelpay"]))
        await _answer_in_any_way(scope, receive, send)

    gc.disable()
    try:
        await _sent(shop, "GET", "/page", header, application)
        assert payments[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("path", ["/page", "/file"])
async def test_a_free_answer_about_a_priced_page_has_no_body(shop: Shop, path: str) -> None:
    start, *parts = await _sent(shop, "OPTIONS", path, None)

    assert (start["status"], dict(start["headers"])[b"x-kept"]) == (200, b"1")
    assert b"content-length" not in dict(start["headers"])
    assert parts == [{"type": "http.response.body", "body": b"", "more_body": False}]
    assert (await _sent(shop, "OPTIONS", "/free/page", None))[1]["body"] == b"content"


@pytest.mark.parametrize("path", ["/page", "/file"])
async def test_a_voucher_for_nothing_brings_no_content_by_head(shop: Shop, path: str) -> None:
    channel = await shop.opened()

    start, *parts = await _sent(shop, "HEAD", path, shop.header(VoucherPayload(channel.sign(0))))

    assert dict(start["headers"])[b"content-length"] == b"7"
    assert [part["type"] for part in parts] == ["http.response.body"]
    assert (parts[0]["body"], parts[0].get("more_body", False)) == (b"", False)


async def test_no_shared_cache_is_told_to_keep_what_was_paid_for(shop: Shop) -> None:
    channel = await shop.opened()

    start, _ = await _sent(shop, "GET", "/page", shop.header(VoucherPayload(channel.sign(PRICE))))

    names = [name.lower() for name, _ in start["headers"]]
    assert [name for name in names if b"control" in name] == [b"cache-control"]
    assert dict(start["headers"])[b"cache-control"] == b"private"


async def test_breaking_a_request_off_beside_its_served_retry_gives_nothing_back(
    shop: Shop,
) -> None:
    channel = await shop.opened()
    first = asyncio.ensure_future(shop.pay(channel, PRICE, "/slow", key="k"))
    await shop.application.slow_arrived.get()
    second = asyncio.ensure_future(shop.pay(channel, PRICE, "/slow", key="k"))
    await shop.application.slow_arrived.get()

    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    shop.application.go_on.set()

    assert (await second).status_code == 200
    assert shop.spent(channel) == PRICE


async def test_a_top_up_counts_and_is_answered_without_content(shop: Shop) -> None:
    channel = await shop.opened(deposit=PRICE)
    assert (await shop.pay(channel, 2 * PRICE)).json()["code"] == "amount-exceeds-deposit"

    response = await shop.top_up(channel, shop.payer.top_up(channel, PRICE))

    assert (response.status_code, response.content) == (204, b"")
    assert receipt_of(response).channel_id == channel.id
    assert len([s for s in shop.application.scopes if s["method"] == "GET"]) == 0
    assert (await shop.pay(channel, 2 * PRICE)).status_code == 200


async def test_a_close_pays_the_payee_and_refunds_the_rest(shop: Shop) -> None:
    channel = await shop.opened()
    await shop.pay(channel, 5 * PRICE)

    response = await shop.close(channel, PRICE)

    body = response.json()
    assert (response.status_code, body["status"]) == (200, "closed")
    assert (body["settled"], body["refund"]) == (str(PRICE), str(DEPOSIT - PRICE))
    receipt = receipt_of(response)
    assert receipt.transaction_hash is not None
    assert body["txHash"] == "0x" + receipt.transaction_hash.hex()
    assert (await shop.pay(channel, 6 * PRICE)).json()["code"] == "channel-finalized"
    assert (await shop.close(channel, PRICE)).json()["code"] == "channel-finalized"


async def test_a_close_voucher_below_what_was_spent_does_not_shortchange_the_payee(
    shop: Shop,
) -> None:
    channel = await shop.opened()
    await shop.pay(channel, 2 * PRICE, "/dear")

    response = await shop.close(channel, PRICE)

    assert response.json()["settled"] == str(2 * PRICE)


async def test_a_voucher_with_the_other_v_buys_and_is_settled_with_the_right_one(
    shop: Shop,
) -> None:
    """A plain verification of a known key does not see v; the contract does."""
    channel = await shop.opened()
    flipped = VoucherHasher.with_other_v(channel.sign(PRICE))
    header = shop.header(VoucherPayload(flipped))
    assert (await shop.get("/page", header, key="one")).status_code == 200

    response = await shop.get("/page", shop.header(ClosePayload(flipped)))

    assert response.json()["settled"] == str(PRICE)


async def test_a_channel_on_which_nothing_was_bought_is_closed_for_nothing(shop: Shop) -> None:
    channel = await shop.opened()

    response = await shop.close(channel, 0)

    assert (response.json()["settled"], response.json()["refund"]) == ("0", str(DEPOSIT))


async def test_nothing_is_bought_beside_a_close(shop: Shop) -> None:
    channel = await shop.opened()
    await shop.pay(channel, PRICE)

    closing = asyncio.ensure_future(shop.close(channel, PRICE))
    answers: list[httpx2.Response] = []
    while not closing.done():
        answers.append(await shop.pay(channel, (len(answers) + 2) * PRICE))
        # A refusal waits for nothing; the close has to have its turn.
        await asyncio.sleep(0)
    settled = int((await closing).json()["settled"])

    served = [response for response in answers if response.status_code == 200]
    codes = {response.json()["code"] for response in answers if response.status_code != 200}
    assert settled == shop.spent(channel) == (1 + len(served)) * PRICE
    assert codes <= {"channel-closing", "channel-finalized"}


async def test_released_payments_stay_in_the_ledger(shop: Shop) -> None:
    channel = await shop.opened()
    await shop.pay(channel, PRICE, "/error")

    (payment,) = shop.payments(channel)

    assert payment.outcome is Outcome.RELEASED


async def test_a_browser_gets_a_page_that_says_what_to_do(shop: Shop) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

    response = await shop.get("/page?a=1&b=<2>", Accept=accept)

    assert response.status_code == 402
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert challenges_of(response)
    for piece in ("0.01 TUSD", "One page", "channelpay pay", "a=1&amp;b=%3C2%3E"):
        assert piece in response.text
    assert "<script" not in response.text
    assert "<2>" not in response.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html;q=0, */*"])
async def test_a_program_gets_problem_json(shop: Shop, accept: str) -> None:
    response = await shop.get("/page", Accept=accept)

    assert json.loads(response.content)["type"].endswith("/payment-required")
