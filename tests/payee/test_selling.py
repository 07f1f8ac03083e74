"""Sales under incentives: decided with the charge, told in the receipt, bounded, and undone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from channelpay.payee import Incentive, PaymentMiddleware, PriceRule
from channelpay.protocol.accounts import Account, account_key
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address
from channelpay.protocol.wire import VoucherPayload
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import (
    DEPOSIT,
    PRICE,
    OpenChannel,
    Payer,
    Shop,
    opened_shop,
    receipt_of,
)

pytestmark = pytest.mark.anyio

WELCOME = Incentive("first-free", count=3, deposit_min="1", day_max=100)
CASH_BACK = Incentive("cash-back", percent=10)
POINTS = Incentive("points", per="0.001", worth="0.0002", label="your stars")
FRIENDS = Incentive("referral", reward="0.004", deposit_min="0", day_max=10)
NIGHT = Incentive("window", percent=20, begin="22:00", end="06:00", utc_offset="+01:00")

Open = Callable[..., Shop]


@pytest.fixture
def open_shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def opened(*incentives: Incentive, **settings: Any) -> Shop:
            return stack.enter_context(
                opened_shop(furnished, tmp_path, payer, incentives=incentives, **settings)
            )

        yield opened


async def buy(shop: Shop, channel: OpenChannel, path: str = "/page", **more: Any) -> int:
    """Buy one page with a voucher that covers its list price; what it cost."""
    before = shop.spent(channel)
    response = await shop.pay(channel, before + PRICE, path, **more)
    assert response.status_code == 200, response.text
    assert receipt_of(response).spent == shop.spent(channel)
    return shop.spent(channel) - before


def account(shop: Shop, payer: Address) -> Account:
    with closing(SqliteStore(shop.books)) as store:
        key = account_key(payer, shop.payee.terms.tokens[0].address)
        return Account.from_state(store.entry(key))


def note_of(response: httpx2.Response) -> PriceNote:
    note = receipt_of(response).price
    assert note is not None
    return note


async def test_what_is_free_is_a_payment_of_nothing_that_says_why(open_shop: Open) -> None:
    shop = open_shop(WELCOME)
    channel = await shop.opened()

    response = await shop.pay(channel, PRICE)

    label = "the first 3 are free"
    assert note_of(response) == PriceNote(PRICE, 0, ((label, -PRICE),), credit=0, points=0)
    (payment,) = shop.payments(channel)
    assert (payment.price, payment.sold.kind, shop.spent(channel)) == (0, "sale", 0)
    offer = (await shop.get("/page")).json()["offers"][0]
    assert json.loads(payment.sold.details) == {
        "earned": {},
        "list": str(PRICE),
        "offer": offer["id"],
        "steps": [["first-free", str(-PRICE)]],
    }


async def test_requests_at_once_get_no_more_than_is_given(open_shop: Open) -> None:
    shop = open_shop(WELCOME)
    channel = await shop.opened()

    paying = (shop.pay(channel, n * PRICE) for n in range(1, 11))
    responses = await asyncio.gather(*paying)

    assert [one.status_code for one in responses] == [200] * 10
    assert sorted(note_of(one).amount for one in responses) == [0] * 3 + [PRICE] * 7
    assert shop.spent(channel) == 7 * PRICE


async def test_a_retry_is_told_the_same_and_counts_once(open_shop: Open) -> None:
    shop = open_shop(WELCOME)
    channel = await shop.opened()

    first = await shop.pay(channel, PRICE, key="the same")
    again = await shop.pay(channel, PRICE, key="the same")

    assert note_of(again).why == note_of(first).why
    assert note_of(again).credit is None
    assert account(shop, channel.channel.payer).counter("first-free") == 1


async def test_what_was_not_delivered_is_given_back_with_all_it_changed(open_shop: Open) -> None:
    shop = open_shop(WELCOME, CASH_BACK, POINTS)
    channel = await shop.opened()
    for _ in range(4):
        await buy(shop, channel)
    before = account(shop, channel.channel.payer)

    failed = await shop.pay(channel, 3 * PRICE, "/error", **{"Payment-Points": "10"})

    assert failed.status_code == 500
    after = account(shop, channel.channel.payer)
    assert (after.pending, after.pending_paid) == (0, 0)
    assert after._replace(pending=1, pending_paid=PRICE, last_sale=before.last_sale) == before
    assert shop.spent(channel) == PRICE
    assert await buy(shop, channel) == PRICE - before.credit


async def test_a_small_channel_gets_nothing_for_nothing(open_shop: Open) -> None:
    shop = open_shop(WELCOME)
    channel = await shop.opened(deposit=DEPOSIT - 1)

    assert await buy(shop, channel) == PRICE


async def test_all_payers_together_get_no_more_than_the_cap_of_a_day(
    open_shop: Open, furnished: FurnishedChain
) -> None:
    shop = open_shop(Incentive("first-free", count=3, deposit_min="0", day_max=4))
    one = await shop.opened()
    shop.payer = Payer(furnished, 3)
    other = await shop.opened()

    costs = [await buy(shop, channel) for channel in (one, other) for _ in range(3)]

    assert costs == [0, 0, 0, 0, PRICE, PRICE]


async def test_another_channel_of_the_same_payer_is_no_new_payer(open_shop: Open) -> None:
    shop = open_shop(WELCOME)
    first, second = await shop.opened(), await shop.opened()

    costs = [await buy(shop, channel) for channel in (first, second, first, second)]

    assert costs == [0, 0, 0, PRICE]


async def test_cash_back_pays_for_the_next_page(open_shop: Open) -> None:
    shop = open_shop(CASH_BACK)
    channel = await shop.opened()

    first = await shop.pay(channel, PRICE)
    second = await shop.pay(channel, 2 * PRICE)

    assert (note_of(first).amount, note_of(first).credit) == (PRICE, PRICE // 10)
    credit = ("your credit", -PRICE // 10)
    assert note_of(second).why == (credit,)
    assert note_of(second).credit == (PRICE - PRICE // 10) // 10
    assert shop.spent(channel) == 2 * PRICE - PRICE // 10


async def test_points_are_spent_when_the_payer_says_so(open_shop: Open) -> None:
    shop = open_shop(POINTS)
    channel = await shop.opened()
    await buy(shop, channel)

    kept = await shop.pay(channel, 2 * PRICE)
    spent = await shop.pay(channel, 3 * PRICE, **{"Payment-Points": "15"})

    assert (note_of(kept).amount, note_of(kept).points) == (PRICE, 20)
    assert note_of(spent).why == (("your stars", -15 * 200),)
    assert note_of(spent).points == 20 - 15 + 7


@pytest.mark.parametrize("text", ["-1", "all", "1.5", "9" * 19, ""])
async def test_points_that_are_no_number_are_refused(open_shop: Open, text: str) -> None:
    shop = open_shop(POINTS)
    channel = await shop.opened()

    response = await shop.pay(channel, PRICE, **{"Payment-Points": text})

    assert response.status_code == 400
    assert shop.payments(channel) == []


async def test_whoever_brings_a_reader_is_rewarded_once(
    open_shop: Open, furnished: FurnishedChain
) -> None:
    shop = open_shop(FRIENDS)
    old = await shop.opened()
    await buy(shop, old)
    link = f"/page?ref={to_hex(old.channel.payer)}"
    shop.payer = Payer(furnished, 3)
    new = await shop.opened()

    costs = [await buy(shop, new, path) for path in ("/page?ref=nobody", link, link)]

    assert costs == [PRICE] * 3
    assert account(shop, old.channel.payer).credit == 0
    shop.payer = Payer(furnished, 4)
    newer = await shop.opened()
    await buy(shop, newer, link)
    await buy(shop, newer, link)
    assert account(shop, old.channel.payer).credit == 4_000
    assert await buy(shop, old) == PRICE - 4_000


async def test_nobody_brings_itself_nor_is_rewarded_who_never_bought(
    open_shop: Open, furnished: FurnishedChain
) -> None:
    shop = open_shop(FRIENDS)
    channel = await shop.opened()
    stranger = furnished.chain.accounts[5].address

    await buy(shop, channel, f"/page?ref={to_hex(channel.channel.payer)}")
    shop.payer = Payer(furnished, 3)
    other = await shop.opened()
    await buy(shop, other, f"/page?ref={to_hex(stranger)}")

    assert account(shop, channel.channel.payer).credit == 0
    assert account(shop, stranger) == Account()


async def test_a_reward_goes_back_with_a_sale_that_failed(
    open_shop: Open, furnished: FurnishedChain
) -> None:
    shop = open_shop(FRIENDS)
    old = await shop.opened()
    await buy(shop, old)
    shop.payer = Payer(furnished, 3)
    new = await shop.opened()
    link = f"?ref={to_hex(old.channel.payer)}"

    failed = await shop.pay(new, PRICE, f"/error{link}")

    assert failed.status_code == 500
    assert account(shop, old.channel.payer).credit == 0
    await buy(shop, new, f"/page{link}")
    assert account(shop, old.channel.payer).credit == 4_000


@pytest.mark.parametrize(
    "incentive",
    [
        CASH_BACK,
        POINTS,
        Incentive("nth-free", every=4),
        Incentive("volume", tiers=[{"count": 4, "percent": 50}]),
    ],
    ids=lambda one: one.kind,
)
async def test_what_is_not_delivered_yet_earned_nothing_that_can_be_spent(
    open_shop: Open, incentive: Incentive
) -> None:
    shop = open_shop(incentive)
    channel = await shop.opened()
    slow = [
        asyncio.ensure_future(shop.pay(channel, n * PRICE, "/slow-error")) for n in range(1, 12)
    ]
    for _ in slow:
        await shop.application.slow_arrived.get()

    meanwhile = await buy(shop, channel, **{"Payment-Points": "10"})
    shop.application.go_on.set()
    failed = await asyncio.gather(*slow)

    assert (meanwhile, {one.status_code for one in failed}) == (PRICE, {500})
    assert shop.spent(channel) == PRICE
    own = account(shop, channel.channel.payer)
    assert min(own.credit, own.points, own.pending, own.pending_paid) >= 0


async def test_a_reward_can_be_spent_once_what_it_is_for_was_delivered(
    open_shop: Open, furnished: FurnishedChain
) -> None:
    shop = open_shop(Incentive("referral", reward="0.004", deposit_min="0", day_max=1))
    old = await shop.opened()
    await buy(shop, old)
    link = f"ref={to_hex(old.channel.payer)}"
    shop.payer = Payer(furnished, 3)
    new = await shop.opened()
    slow = asyncio.ensure_future(shop.pay(new, PRICE, f"/slow-error?{link}"))
    await shop.application.slow_arrived.get()

    meanwhile = await buy(shop, old)
    shop.application.go_on.set()
    await slow

    assert (meanwhile, account(shop, old.channel.payer).credit) == (PRICE, 0)
    assert await buy(shop, new, f"/page?{link}") == PRICE
    assert await buy(shop, old) == PRICE - 4_000


async def test_what_a_refused_request_knew_of_deliveries_is_not_lost(open_shop: Open) -> None:
    shop = open_shop(CASH_BACK)
    channel = await shop.opened()
    await buy(shop, channel)

    refused = await shop.pay(channel, PRICE)
    again = [await shop.pay(channel, 2 * PRICE, key="again") for _ in range(2)]

    assert (refused.status_code, [one.status_code for one in again]) == (402, [200, 200])
    assert note_of(again[0]).amount == PRICE - PRICE // 10
    assert await buy(shop, channel) == PRICE - (PRICE - PRICE // 10) // 10


async def test_a_head_tells_the_own_price_and_changes_nothing(open_shop: Open) -> None:
    shop = open_shop(CASH_BACK, Incentive("nth-free", every=3))
    channel = await shop.opened()
    await buy(shop, channel)
    before = shop.dump()

    head = await shop.pay(channel, PRICE, method="HEAD")

    credit = PRICE // 10
    assert note_of(head) == PriceNote(
        PRICE, PRICE - credit, (("your credit", -credit),), credit=credit, points=0
    )
    assert shop.dump() == before
    assert account(shop, channel.channel.payer).credit == credit


async def test_the_price_never_passes_what_the_challenge_said(open_shop: Open) -> None:
    shop = open_shop(WELCOME)
    channel = await shop.opened()

    header = shop.header(VoucherPayload(channel.sign(2 * PRICE)))
    response = await shop.get("/dear", header, key=str(uuid4()))

    assert response.status_code == 402
    assert response.json()["code"] == "payment-insufficient"
    assert account(shop, channel.channel.payer) == Account()


async def test_a_site_without_incentives_keeps_no_accounts(shop: Shop) -> None:
    channel = await shop.opened()

    response = await shop.pay(channel, PRICE)

    assert receipt_of(response).price is None
    assert account(shop, channel.channel.payer) == Account()
    (payment,) = shop.payments(channel)
    assert (payment.sold.details, payment.sold.undo_text) == ("", "")


async def test_the_402_lists_what_is_offered(open_shop: Open) -> None:
    shop = open_shop(WELCOME, NIGHT)

    body = (await shop.get("/page")).json()
    page = (await shop.get("/page", Accept="text/html")).text

    token = checksum_address(shop.payee.terms.tokens[0].address)
    price, free, night = body["offers"]
    assert (price["kind"], price["label"], price["terms"]) == (
        "per-request",
        "0.01 TUSD",
        "One page",
    )
    assert [one["amounts"] for one in (price, free, night)] == [
        {token: "10000"},
        {token: "0"},
        {token: "8000"},
    ]
    assert night["terms"] == "20 % off from 22:00 to 06:00 (UTC+01:00)"
    assert len({one["id"] for one in body["offers"]}) == 3
    assert "on a channel that holds 1 TUSD at least; 100 a day in all." in page
    assert "20 % off from 22:00 to 06:00 (UTC+01:00)." in page


async def test_incentives_of_a_file_change_with_it(open_shop: Open, tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    rule = '[[price]]\npath = "/**"\nprice = "0.01"\n'
    half = '[[incentive]]\nkind = "window"\npercent = 50\nbegin = "00:00"\nend = "24:00"\n'
    file.write_text(f'{rule}{half}utc_offset = "+00:00"\n')
    shop = open_shop(prices=file)
    channel = await shop.opened()
    assert await buy(shop, channel) == PRICE // 2

    draft = tmp_path / "draft.toml"
    draft.write_text(rule)
    draft.replace(file)
    deadline = time.monotonic() + 10
    while len((await shop.get("/page")).json()["offers"]) > 1:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)

    assert await buy(shop, channel) == PRICE


# --- up to a ceiling ---------------------------------------------------------------------------

CEILING = 5 * PRICE
RENDER = [PriceRule("/render", "0.05", up_to=True), PriceRule("/**", "0.01")]


def _rendering(*amounts: int) -> Starlette:
    async def render(request: Request) -> Response:
        for amount in amounts:
            await request.scope["channelpay"].charge(amount)
        return PlainTextResponse("rendered")

    return Starlette(routes=[Route("/render", render)])


async def _render(shop: Shop, app: Starlette, channel: OpenChannel, **more: Any) -> httpx2.Response:
    shop.middleware = PaymentMiddleware(app, shop.payee)
    (challenge,) = shop.challenges("/render")
    header = shop.header(VoucherPayload(channel.sign(CEILING)), challenge)
    return await shop.get("/render", header, key=str(uuid4()), **more)


@pytest.mark.parametrize("used", [(), (1,), (PRICE, PRICE), (CEILING,)])
async def test_up_to_a_ceiling_what_was_used_is_charged(
    open_shop: Open, used: tuple[int, ...]
) -> None:
    shop = open_shop(prices=RENDER)
    channel = await shop.opened()

    response = await _render(shop, _rendering(*used), channel)

    assert response.text == "rendered"
    assert receipt_of(response).spent == sum(used) == shop.spent(channel)


async def test_more_than_the_ceiling_is_not_charged(open_shop: Open) -> None:
    shop = open_shop(prices=RENDER)
    channel = await shop.opened()

    response = await _render(shop, _rendering(CEILING, 1), channel)

    assert response.status_code == 500
    assert shop.spent(channel) == 0


async def test_the_ceiling_has_to_be_covered(open_shop: Open) -> None:
    shop = open_shop(prices=RENDER)
    channel = await shop.opened()
    (challenge,) = shop.challenges("/render")

    header = shop.header(VoucherPayload(channel.sign(CEILING - 1)), challenge)
    response = await shop.get("/render", header)

    assert response.json()["code"] == "insufficient-balance"


async def test_what_was_used_is_charged_before_the_response_begins(open_shop: Open) -> None:
    shop = open_shop(prices=RENDER)
    channel = await shop.opened()
    late: list[Exception] = []

    async def parts(request: Request) -> Any:
        yield "rendered"
        try:
            await request.scope["channelpay"].charge(1)
        except Exception as error:  # noqa: BLE001  which one is the question
            late.append(error)

    async def render(request: Request) -> Response:
        return StreamingResponse(parts(request))

    response = await _render(shop, Starlette(routes=[Route("/render", render)]), channel)

    assert response.text == "rendered"
    assert "with the head" in str(late[0])
    assert shop.spent(channel) == 0


async def test_a_head_asks_for_the_ceiling_and_is_charged_nothing(open_shop: Open) -> None:
    shop = open_shop(prices=RENDER)
    channel = await shop.opened()

    response = await _render(shop, _rendering(1), channel, method="HEAD")
    offer = (await shop.get("/render")).json()["offers"][0]

    assert response.status_code == 204
    assert (offer["kind"], offer["label"]) == ("up-to", "up to 0.05 TUSD")
