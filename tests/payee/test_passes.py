"""Passes, coupons and gifts as a site sells them, over HTTP: what they bring, and what does not."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import httpx2
import pytest

from channelpay.errors import ConfigError
from channelpay.payee import Coupons, PassPlan, PriceRule
from channelpay.payee.prices import PriceFile, PriceTable
from channelpay.payee.selling.desk import ATTEMPTS_MAX, SELLING
from channelpay.payee.selling.issue import Issue, issue
from channelpay.payee.terms import ETHER
from channelpay.protocol.coupons import CodeHasher, Worth, code_of
from channelpay.protocol.passes import GRACE_MS, TURN_MS, proof_place
from channelpay.protocol.rules import Payment
from channelpay.protocol.types import ChannelId
from channelpay.protocol.wire import ChallengeIssuer, ClosePayload, VoucherPayload
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer, Shop, challenges_of, opened_shop

pytestmark = pytest.mark.anyio

SECRET = b"s" * 32
PLACE = "/.well-known/channelpay"
PLANS = [
    PassPlan("safe", price="0.05", uses=3, paths="/p/**", proof=True),
    PassPlan("day", price="0.05", hours=24, paths="/p/**"),
    PassPlan("ten", price="0.05", uses=3, paths=["/p/**", "/error"], refund_days=7),
]
DEARER = 5 * PRICE


class Clock:
    """The payee's, to be turned on."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now

    def turn_on(self, milliseconds: float) -> None:
        self.now += milliseconds / 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seller(furnished: FurnishedChain, payer: Payer, tmp_path: Path, clock: Clock) -> Iterator[Shop]:
    with opened_shop(
        furnished,
        tmp_path,
        payer,
        passes=PLANS,
        coupons=Coupons(gift_max="1"),
        challenge_secret=SECRET,
    ) as shop:
        shop.payee.desk._now = clock
        yield shop


async def opened(shop: Shop) -> OpenChannel:
    """A channel whose payee knows it: it bought one page."""
    channel = shop.payer.open()
    response = await shop.get(
        "/page",
        shop.header(channel.open_payload(PRICE), source=channel.source),
        key=str(uuid4()),
    )
    assert response.status_code == 200
    return channel


async def post(
    shop: Shop, channel: OpenChannel, cumulative: int, place: str, key: str, **headers: str
) -> httpx2.Response:
    asked = await shop.request(f"{PLACE}/{place}", list(headers.items()), method="POST")
    assert asked.status_code == 402, asked.text
    challenge = challenges_of(asked)[0]
    credential = shop.header(VoucherPayload(channel.sign(cumulative)), challenge)
    sent = {"Authorization": credential, "Idempotency-Key": key, **headers}
    return await shop.request(f"{PLACE}/{place}", list(sent.items()), method="POST")


async def bought(shop: Shop, channel: OpenChannel, plan: str) -> httpx2.Response:
    return await post(shop, channel, PRICE + DEARER, f"passes/{plan}", "buy")


def token_of(response: httpx2.Response) -> str:
    return str(response.headers["payment-pass"]).partition(";")[0]


async def show(shop: Shop, token: str, path: str = "/p/1", **more: str) -> httpx2.Response:
    return await shop.get(path, f"PaymentPass {token}", **more)


def sold(shop: Shop, channel: OpenChannel) -> list[Payment]:
    return shop.payments(channel)


async def test_a_pass_for_a_time_serves_without_vouchers_until_its_end_and_not_after(
    seller: Shop, clock: Clock
) -> None:
    channel = await opened(seller)
    got = await bought(seller, channel, "day")
    again = await bought(seller, channel, "day")
    token = token_of(got)

    assert got.json()["pass"] == again.json()["pass"], "a retry buys the same pass"
    assert token_of(again) == token
    first = await show(seller, token)
    assert (first.status_code, first.content) == (200, b"content")
    assert "payment-receipt" not in first.headers
    assert first.headers["cache-control"].startswith("private")
    clock.turn_on(24 * 3_600_000 - 1)
    turned = token_of(await show(seller, token))
    assert turned != token
    clock.turn_on(1)
    late = await show(seller, turned)
    assert (late.status_code, late.json()["code"]) == (402, "pass-ended")
    assert challenges_of(late), "it can be paid by voucher"
    assert seller.spent(channel) == PRICE + DEARER
    assert [one.kind for one in sold(seller, channel)] == ["sale", "pass"]


async def test_a_pass_that_counts_serves_exactly_what_was_bought_whatever_fails_or_is_retried(
    seller: Shop,
) -> None:
    channel = await opened(seller)
    token = token_of(await bought(seller, channel, "ten"))

    failed = await show(seller, token, "/error", key="e")
    one = await show(seller, token, key="a")
    same = await show(seller, token, key="a")
    rest = await asyncio.gather(*(show(seller, token, f"/p/{n}", key=str(n)) for n in range(5)))

    assert failed.status_code == 500
    assert one.headers["payment-pass"].endswith(";left=2")
    assert same.headers["payment-pass"].endswith(";left=2")
    assert sorted(response.status_code for response in rest) == [200, 200, 402, 402, 402]
    codes = {response.json()["code"] for response in rest if response.status_code == 402}
    assert codes == {"pass-ended"}
    uses = [one for one in sold(seller, channel) if one.kind == "pass-use"]
    assert sum(one.outcome.value == "charged" for one in uses) == 3
    assert seller.spent(channel) == PRICE + DEARER


async def test_a_pass_with_proof_is_good_for_a_minute_without_its_owners_key(
    seller: Shop, clock: Clock
) -> None:
    channel = await opened(seller)
    got = await bought(seller, channel, "safe")
    stolen = token_of(got)
    assert (await show(seller, stolen, key="a")).status_code == 200
    clock.turn_on(TURN_MS)

    refused = await show(seller, stolen, key="b")
    proof = proof_for(channel, got, refused)
    mine = await show(seller, stolen, key="c", **proof)
    replayed = await show(seller, stolen, key="d", **proof)

    assert (refused.status_code, refused.json()["code"]) == (402, "pass-suspended")
    assert mine.headers["payment-pass"].endswith(";left=1")
    assert replayed.status_code == 402
    assert (await show(seller, stolen, key="e")).status_code == 402
    assert (await show(seller, token_of(mine), key="f")).status_code == 200
    assert len([one for one in sold(seller, channel) if one.kind == "pass-use"]) == 3


def proof_for(
    channel: OpenChannel, bought: httpx2.Response, refused: httpx2.Response
) -> dict[str, str]:
    """The header of whoever has the channel's key."""
    nonce, pass_id = (
        bytes.fromhex(text[2:]) for text in (refused.json()["nonce"], bought.json()["pass"])
    )
    signed = channel.signer.sign(proof_place(channel.id, pass_id, nonce), 0)
    return {"Payment-Pass-Proof": f"0x{signed.signature.hex()}"}


async def test_a_copied_pass_is_suspended_and_only_its_owner_gets_it_back(
    seller: Shop, clock: Clock
) -> None:
    channel = await opened(seller)
    got = await bought(seller, channel, "day")
    stolen = token_of(got)
    clock.turn_on(TURN_MS)
    current = token_of(await show(seller, stolen))
    clock.turn_on(GRACE_MS)
    late = await show(seller, stolen)
    assert late.status_code == 200, "a request that was on its way"
    assert token_of(late) == stolen, "which is told no newer token"
    clock.turn_on(1)

    theft = await show(seller, stolen)
    assert (theft.status_code, theft.json()["code"]) == (402, "pass-suspended")
    clock.turn_on(TURN_MS)
    refused = await show(seller, current)
    assert refused.json()["code"] == "pass-suspended"

    forged = channel.signer.sign(ChannelId(os.urandom(32)), 0).signature
    bad = await show(seller, current, **{"Payment-Pass-Proof": f"0x{forged.hex()}"})
    assert bad.status_code == 402
    proof = proof_for(channel, got, refused)
    back = await show(seller, current, **proof)
    assert back.status_code == 200
    fresh = token_of(back)
    assert (await show(seller, fresh)).status_code == 200
    assert (await show(seller, current, **proof)).status_code == 402, "a proof works once"
    clock.turn_on(TURN_MS)
    # The thief's token is of the old line: it is refused, and does no harm any more.
    assert (await show(seller, stolen)).json()["code"] == "pass-suspended"
    assert (await show(seller, fresh)).status_code == 200


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda token: token[:-1], "pass-not-valid"),
        (lambda token: token[:20] + ("A" if token[20] != "A" else "B") + token[21:], None),
        (lambda token: "v1." + "A" * 67, "pass-not-valid"),
        (lambda _: "x" * 5000, "pass-not-valid"),
    ],
)
async def test_a_mistyped_or_foreign_token_is_refused_and_nothing_is_charged(
    seller: Shop, spoil: Callable[[str], str], code: str | None
) -> None:
    channel = await opened(seller)
    token = token_of(await bought(seller, channel, "day"))

    refused = await show(seller, spoil(token))

    assert refused.status_code == 402
    assert refused.json()["code"] == (code or "pass-not-valid")
    assert challenges_of(refused)
    assert len(sold(seller, channel)) == 2


async def test_a_pass_is_for_its_paths_and_its_host(seller: Shop) -> None:
    channel = await opened(seller)
    token = token_of(await bought(seller, channel, "day"))

    outside = await show(seller, token, "/page")
    sneaky = await show(seller, token, "/p/../page")
    elsewhere = await show(seller, token, Host="other.example")

    assert outside.json()["code"] == sneaky.json()["code"] == "pass-not-covering"
    assert elsewhere.json()["code"] == "pass-not-valid"


async def test_what_is_left_of_a_pass_comes_back_once_and_ends_it(
    seller: Shop, clock: Clock
) -> None:
    channel = await opened(seller)
    got = await bought(seller, channel, "ten")
    name, token = got.json()["pass"], token_of(got)
    await show(seller, token, key="a")
    stranger = await opened(seller)

    theirs = await post(seller, stranger, PRICE, f"pass/{name}/refund", "r")
    refund = await post(seller, channel, PRICE + DEARER, f"pass/{name}/refund", "r")
    again = await post(seller, channel, PRICE + DEARER, f"pass/{name}/refund", "s")

    assert theirs.status_code == 402
    assert refund.json()["refunded"] == str(DEARER * 2 // 3)
    assert refund.json()["settled"] == "0", "all of it would come home"
    assert again.json()["code"] == "pass-ended"
    assert seller.spent(channel) == PRICE + DEARER - DEARER * 2 // 3
    assert (await show(seller, token)).json()["code"] == "pass-ended"


async def test_a_refund_of_what_was_settled_says_that_it_does_not_come_home(seller: Shop) -> None:
    channel, paid = await opened(seller), PRICE + DEARER
    got = await bought(seller, channel, "ten")
    signature = channel.sign(paid).signature
    seller.payer.sender.send(seller.payer.contract.settle(channel.channel, paid, signature))
    (view,) = seller.verifier._link.views([channel.channel])
    seller.verifier._store.update_chain(channel.id, view).result()

    refund = await post(seller, channel, paid + 1, f"pass/{got.json()['pass']}/refund", "r")
    challenge = seller.challenge()
    last = seller.header(ClosePayload(channel.sign(PRICE)), challenge)
    closed = await seller.get("/page", last, **channel.proof(challenge))

    told = refund.json()
    assert (told["refunded"], told["settled"]) == (str(DEARER), str(DEARER))
    assert closed.json()["refund"] == str(DEPOSIT - paid)


async def test_a_refund_reads_no_payments_but_the_one_of_the_pass(seller: Shop) -> None:
    channel = await opened(seller)
    got = await bought(seller, channel, "ten")
    store = seller.payee.register._store

    with patch.object(store, "payments", side_effect=AssertionError("a whole ledger is read")):
        refund = await post(
            seller, channel, PRICE + DEARER, f"pass/{got.json()['pass']}/refund", "r"
        )

    assert refund.json()["refunded"] == str(DEARER)


async def test_a_pass_that_is_refunded_is_bought_with_a_key(seller: Shop) -> None:
    channel = await opened(seller)
    asked = await seller.request(f"{PLACE}/passes/ten", [], method="POST")
    credential = VoucherPayload(channel.sign(PRICE + DEARER))
    header = seller.header(credential, challenges_of(asked)[0])

    refused = await seller.request(
        f"{PLACE}/passes/ten", [("Authorization", header)], method="POST"
    )

    assert (refused.status_code, seller.spent(channel)) == (400, PRICE)
    assert "Idempotency-Key" in refused.json()["detail"]


async def test_a_channel_that_was_used_for_a_pass_alone_is_closed_there(seller: Shop) -> None:
    """A client closes a channel at the last place where it was used."""
    channel = await opened(seller)
    await bought(seller, channel, "day")
    place = f"{PLACE}/passes/day"

    asked = await seller.get(place)
    last = ClosePayload(channel.sign(PRICE + DEARER))
    closed = await seller.get(place, seller.header(last, challenges_of(asked)[0]))

    assert closed.json()["settled"] == str(PRICE + DEARER)


async def test_a_pass_that_is_not_refundable_any_more_says_so(seller: Shop, clock: Clock) -> None:
    channel = await opened(seller)
    got = await bought(seller, channel, "ten")
    clock.turn_on(7 * 86_400_000)

    late = await post(seller, channel, PRICE + DEARER, f"pass/{got.json()['pass']}/refund", "r")

    assert late.json()["code"] == "pass-ended"
    assert seller.spent(channel) == PRICE + DEARER


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hours": 1}, "price: missing"),
        ({"price": "0", "hours": 1}, "price: must be above 0"),
        ({"price": "1"}, "uses: missing"),
        ({"price": "1", "hours": 1, "days": 1}, "days: only one of"),
        ({"price": "1", "hours": 0}, "hours: must be a whole number"),
        ({"price": "1", "uses": 10**7}, "uses: is 1000000 at most"),
        ({"price": "1", "hours": 1, "refund_days": 1}, "refund_days: is for passes with uses"),
        ({"price": "1", "hours": 1, "renew": "yes"}, "renew: must be true or false"),
        ({"price": "1", "hours": 1, "paths": "articles"}, "paths: must be"),
        ({"price": "1", "hours": 1, "minutes": 5}, "minutes: no such key"),
    ],
)
def test_a_pass_that_makes_no_sense_is_refused_with_its_key(
    settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"pass 1 .*, {said}"):
        PriceTable([PriceRule("/**", "1")], [ETHER], passes=[PassPlan("day", **settings)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[pass]]\nprice = "1"', "pass 1, id: missing"),
        ("[pass]\nid = 1", "must be "),
        ("[coupons]\ngift = 1", "gift: no such key"),
        ("[coupons]\ngift_days = 0", "gift_days: must be"),
        ('[coupons]\ngift_max = "0"', "gift_max: must be above 0"),
    ],
)
def test_a_price_file_with_a_broken_pass_or_coupons_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(f'[[price]]\npath = "/**"\nprice = "1"\n{text}\n')

    with pytest.raises(ConfigError, match=said):
        PriceFile(file, [ETHER])


# --- coupons -------------------------------------------------------------------------------------


def issued(shop: Shop, clock: Clock, count: int = 1, **what: Any) -> list[str]:
    token = shop.payee.terms.tokens[0].address
    chosen: dict[str, Any] = {"worth": Worth.VALUE, "token": token, "count": count} | what
    with closing(SqliteStore(shop.books)) as store:
        secret = ChallengeIssuer(SECRET, "any").derived(SELLING)
        codes = CodeHasher(secret)
        return issue(store, codes, Issue(**chosen), int(clock.now * 1000)).codes


async def redeemed(
    shop: Shop, channel: OpenChannel, code: str, key: str, cumulative: int = PRICE
) -> httpx2.Response:
    return await post(shop, channel, cumulative, "coupons/redeem", key, **{"Payment-Coupon": code})


async def test_a_coupon_of_a_value_pays_for_pages_once(seller: Shop, clock: Clock) -> None:
    (code,) = issued(seller, clock, amount=PRICE + 1)
    channel, other = await opened(seller), await opened(seller)

    got, reused = (
        await redeemed(seller, channel, code.lower().replace("-", " "), "k"),
        await redeemed(seller, other, code, "k"),
    )
    retried = await redeemed(seller, channel, code, "k")
    page = await seller.pay(channel, PRICE)
    half = await seller.pay(channel, 2 * PRICE)

    assert got.json() == retried.json()
    assert got.json()["amount"] == str(PRICE + 1)
    assert reused.json()["code"] == "coupon-used"
    assert page.status_code == half.status_code == 200
    assert seller.spent(channel) == PRICE + PRICE - 1


async def test_a_percentage_comes_off_so_many_sales(seller: Shop, clock: Clock) -> None:
    first, second = issued(seller, clock, 2, worth=Worth.PERCENT, percent=2500, sales=1, amount=0)
    channel = await opened(seller)

    assert (await redeemed(seller, channel, first, "a")).json()["percent"] == "2500"
    assert (await redeemed(seller, channel, second, "b")).json()["code"] == "coupon-used"
    await seller.pay(channel, 2 * PRICE)
    await seller.pay(channel, 3 * PRICE)

    assert seller.spent(channel) == PRICE + PRICE * 3 // 4 + PRICE


async def test_a_coupon_for_a_pass_brings_one(seller: Shop, clock: Clock) -> None:
    (code,) = issued(seller, clock, worth=Worth.PASS, plan="day", amount=0)
    channel = await opened(seller)

    got = await redeemed(seller, channel, code, "k")

    assert got.json()["plan"] == "day"
    assert (await show(seller, token_of(got))).status_code == 200
    assert seller.spent(channel) == PRICE


async def test_a_coupon_ends_is_revoked_or_has_its_limit_and_nothing_is_redeemed_then(
    seller: Shop, clock: Clock
) -> None:
    now = int(clock.now * 1000)
    old = issued(seller, clock, amount=5, expires=now + 1)[0]
    two = issued(seller, clock, 2, amount=5, per_payer=1)
    channel = await opened(seller)
    clock.turn_on(1)

    assert (await redeemed(seller, channel, old, "a")).json()["code"] == "coupon-ended"
    assert (await redeemed(seller, channel, two[0], "b")).status_code == 200
    assert (await redeemed(seller, channel, two[1], "c")).json()["code"] == "coupon-used"


async def test_who_guesses_codes_gets_nothing_and_has_to_stop(seller: Shop, clock: Clock) -> None:
    (good,) = issued(seller, clock, amount=5)
    channel = await opened(seller)
    wrong = [code_of(os.urandom(12)) for _ in range(ATTEMPTS_MAX)]

    typo = await seller.request(
        f"{PLACE}/coupons/redeem", [("Payment-Coupon", good[:-1])], method="POST"
    )
    codes = [(await redeemed(seller, channel, one, one)).json()["code"] for one in wrong]
    barred = await redeemed(seller, channel, good, "k")

    assert typo.status_code == 402
    assert set(codes) == {"coupon-not-valid"}
    assert (barred.status_code, barred.json()["code"]) == (429, "too-many-attempts")
    clock.turn_on(3_600_000)
    assert (await redeemed(seller, channel, good, "k")).status_code == 200


async def test_one_code_is_redeemed_once_at_the_same_moment(seller: Shop, clock: Clock) -> None:
    (code,) = issued(seller, clock, amount=5)
    channels = [await opened(seller) for _ in range(4)]

    answers = await asyncio.gather(*(redeemed(seller, one, code, "k") for one in channels))

    assert sorted(one.status_code for one in answers) == [200, 402, 402, 402]


async def test_a_gift_is_paid_for_and_its_code_is_worth_that_to_whoever_has_it(
    seller: Shop,
) -> None:
    giver, friend = await opened(seller), await opened(seller)
    token = f"0x{seller.payee.terms.tokens[0].address.hex()}"
    place = f"coupons/gift?amount={PRICE}&token={token}"

    gift = await post(seller, giver, 2 * PRICE, place, "g")
    again = await post(seller, giver, 2 * PRICE, place, "g")
    dear = await seller.request(
        f"{PLACE}/coupons/gift?amount=1{'0' * 9}&token={token}", [], method="POST"
    )
    got = await redeemed(seller, friend, gift.json()["code"], "k")
    page = await seller.pay(friend, PRICE)

    assert gift.json() == again.json()
    assert dear.status_code == 400
    assert got.json()["amount"] == str(PRICE)
    assert page.status_code == 200
    assert (seller.spent(giver), seller.spent(friend)) == (2 * PRICE, PRICE)
    books = json.dumps([str(one) for one in sold(seller, giver)])
    assert gift.json()["code"] not in books
