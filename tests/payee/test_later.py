"""A site that gives credit and signs receipts: over HTTP, at once, and where something fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx2
import pytest
from eth_account import Account

from channelpay.errors import ConfigError
from channelpay.payee import Incentive, TabPlan
from channelpay.payee.prices import PriceFile
from channelpay.payee.selling.receipts import make_receipt_key, read_receipt_key
from channelpay.payee.selling.tabs import credit_of
from channelpay.payee.terms import ETHER
from channelpay.protocol.receipts import ASKING_HEADER, HEADER, SIGNED, SignedReceipt
from channelpay.protocol.rules import Order, Outcome
from channelpay.protocol.tabs import ACCEPTED, PAYMENT, TAB, PaysTab, Tab, TabKeys, TabNote
from channelpay.protocol.tabs import HEADER as TAB_HEADER
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import PRICE, OpenChannel, Payer, Shop, opened_shop, receipt_of

pytestmark = pytest.mark.anyio

PLAN: dict[str, Any] = {
    "limit_start": "0.05",
    "limit_max": "0.1",
    "grows": 50,
    "total_max": "1",
    "due_days": 7,
}
AGREES = {TAB_HEADER: ACCEPTED}
Open = Callable[..., Shop]


@pytest.fixture
def open_shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def opened(**settings: Any) -> Shop:
            settings.setdefault("tab", TabPlan(**PLAN))
            return stack.enter_context(opened_shop(furnished, tmp_path, payer, **settings))

        yield opened


def tab_of(shop: Shop, channel: OpenChannel) -> Tab:
    with closing(SqliteStore(shop.books)) as store:
        token = shop.payee.terms.tokens[0].address
        return Tab.from_state(store.entry(TabKeys.of(channel.channel.payer, token).tab))


def note_of(response: httpx2.Response) -> TabNote:
    note = receipt_of(response).tab
    assert note is not None
    return note


async def test_who_agrees_reads_first_and_its_next_voucher_pays_that_first(
    open_shop: Open,
) -> None:
    shop = open_shop()
    channel = await shop.opened()

    first = await shop.pay(channel, 0, **AGREES)
    not_enough = await shop.pay(channel, PRICE)
    enough = await shop.pay(channel, 2 * PRICE)

    assert first.status_code == 200
    assert note_of(first) == TabNote(PRICE, PRICE, 5 * PRICE, note_of(first).due_at)
    assert (not_enough.status_code, not_enough.json()["code"]) == (402, "insufficient-balance")
    assert (enough.status_code, shop.spent(channel)) == (200, 2 * PRICE)
    assert tab_of(shop, channel) == Tab(0, tab_of(shop, channel).since, PRICE, 0)


async def test_who_does_not_agree_is_refused_as_anywhere(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened()

    for headers in ({}, {TAB_HEADER: "yes"}):
        refused = await shop.pay(channel, 0, **headers)
        assert (refused.status_code, refused.json()["code"]) == (402, "insufficient-balance")
    assert tab_of(shop, channel) == Tab()


async def test_a_head_pays_what_is_owed_and_says_what_is_left(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened()
    for _ in range(3):
        await shop.pay(channel, 0, **AGREES)

    asked = await shop.pay(channel, 0, method="HEAD")
    paid = await shop.pay(channel, 2 * PRICE, method="HEAD")

    assert (note_of(asked).owed, note_of(paid).owed) == (3 * PRICE, PRICE)
    assert (shop.spent(channel), note_of(paid).limit) == (2 * PRICE, 6 * PRICE)


@pytest.mark.parametrize("path", ["/page", "/missing", "/error"])
async def test_what_paid_a_tab_stays_whatever_the_application_makes_of_the_head(
    open_shop: Open, path: str
) -> None:
    """As with a framework that answers 405 where only GET has a handler."""
    shop = open_shop()
    channel = await shop.opened()
    for _ in range(3):
        await shop.pay(channel, 0, **AGREES)

    paid = await shop.pay(channel, 3 * PRICE, path, method="HEAD")

    assert (paid.status_code, note_of(paid).owed) == (204, 0)
    assert [(one.kind, one.outcome) for one in shop.payments(channel)][-1] == (
        PAYMENT,
        Outcome.CHARGED,
    )
    assert (shop.spent(channel), tab_of(shop, channel).on_time) == (3 * PRICE, 3 * PRICE)


async def test_a_client_that_hangs_up_takes_no_payment_of_its_tab_back(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened()
    await shop.pay(channel, 0, **AGREES)
    store = shop.payee.register._store
    accept = store.accept

    def accept_and_hang_up(orders: Sequence[Order]) -> Any:
        if any(isinstance(one.terms, PaysTab) for one in orders):
            paying.cancel()
        return accept(orders)

    with patch.object(store, "accept", accept_and_hang_up):
        paying = asyncio.ensure_future(shop.pay(channel, PRICE, method="HEAD"))
        with pytest.raises(asyncio.CancelledError):
            await paying
    # What is handed in after that is decided after it, and after what it would give back.
    for _ in range(2):
        await shop.pay(channel, PRICE, method="HEAD")

    kinds = [(one.kind, one.outcome) for one in shop.payments(channel)]
    assert kinds == [(TAB, Outcome.CHARGED), (PAYMENT, Outcome.CHARGED)]


async def test_requests_at_once_get_no_more_than_the_limit(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened()

    answers = await asyncio.gather(*(shop.pay(channel, 0, **AGREES) for _ in range(9)))

    assert sorted(one.status_code for one in answers) == [200] * 5 + [402] * 4
    refusal = next(one.json() for one in answers if one.status_code == 402)
    assert (refusal["code"], refusal["owed"]) == ("tab-full", str(5 * PRICE))
    assert refusal["requiredCumulative"] == str(6 * PRICE)
    assert tab_of(shop, channel).owed == 5 * PRICE


async def test_a_retry_is_put_on_the_tab_once_and_told_the_same(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened()

    answers = [await shop.pay(channel, 0, key="again", **AGREES) for _ in range(2)]

    assert [note_of(one).added for one in answers] == [PRICE] * 2
    assert tab_of(shop, channel).owed == PRICE


async def test_what_was_not_delivered_is_not_owed(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened()

    failed = await shop.pay(channel, 0, "/error", **AGREES)

    assert failed.status_code == 500
    assert tab_of(shop, channel).owed == 0


async def test_a_discount_holds_on_the_tab_as_well(open_shop: Open) -> None:
    incentives = [Incentive("nth-free", every=2), Incentive("volume", tiers=[HALF])]
    shop = open_shop(incentives=incentives)
    channel = await shop.opened()

    owed = [note_of(await shop.pay(channel, 0, **AGREES)).owed]
    free = await shop.pay(channel, 0, **AGREES)
    owed += [note_of(await shop.pay(channel, 0, **AGREES)).owed]

    assert receipt_of(free).tab is None
    assert owed == [PRICE, PRICE + PRICE // 2]
    kinds = [(one.kind, one.price) for one in shop.payments(channel)]
    assert kinds == [(TAB, 0), ("sale", 0), (TAB, 0)]


HALF = {"count": 1, "percent": 50}


async def test_no_more_is_owed_than_the_channel_holds(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened(deposit=2 * PRICE)

    answers = [await shop.pay(channel, 0, **AGREES) for _ in range(3)]

    assert [one.status_code for one in answers] == [200, 200, 402]
    assert answers[2].json()["code"] == "tab-full"


async def test_the_402_offers_the_tab(open_shop: Open) -> None:
    offers = (await open_shop().get("/page")).json()["offers"]

    (tab,) = [one for one in offers if one["kind"] == "tab"]
    assert "7 days" in tab["terms"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"limit_start": "0"}, "limit_start"),
        ({"limit_start": "0.2"}, "limit_max"),
        ({"total_max": "0.01"}, "limit_max"),
        ({"grows": -1}, "grows"),
        ({"grows": "5"}, "grows"),
        ({"due_days": 0}, "due_days"),
        ({"due_days": 366}, "due_days"),
        ({"limit": "1"}, "limit"),
        ({"due_days": None}, "due_days"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_by_its_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"tab, {key}:"):
        credit_of(TabPlan(**(PLAN | change)), [ETHER])


def test_the_tab_of_a_price_file_is_one(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    text = '[[price]]\npath = "/**"\nprice = "0.001"\n'
    file.write_text(text + '[tab]\nlimit_start = "0.05"\n')

    with pytest.raises(ConfigError, match=r"prices\.toml, tab, limit_max: missing"):
        PriceFile(file, [ETHER])


# --- signed receipts -----------------------------------------------------------------------------

ASKS = {ASKING_HEADER: SIGNED}


async def test_a_receipt_is_signed_where_one_asks_for_it(open_shop: Open) -> None:
    shop = open_shop()
    channel = await shop.opened()

    plain = await shop.pay(channel, PRICE)
    signed = [await shop.pay(channel, 2 * PRICE, key="once", **ASKS) for _ in range(2)]

    assert HEADER not in plain.headers
    first, again = (SignedReceipt.from_header(one.headers[HEADER]) for one in signed)
    first.check()
    assert first == again
    assert (first.amount, first.spent, first.channel) == (PRICE, 2 * PRICE, channel.channel)
    assert first.resource == "GET http://shop.example/page"


async def test_a_site_without_the_payees_key_signs_with_one_that_it_authorised(
    open_shop: Open, furnished: FurnishedChain, tmp_path: Path
) -> None:
    account = Account.from_key(furnished.chain.accounts[2].private_key)
    file = tmp_path / "receipts.key"
    make_receipt_key(file, furnished.deployment, bytes(account.key), 2**40)
    payee = to_hex(furnished.chain.accounts[2].address)
    shop = open_shop(account=None, payee=payee, receipt_key=file)
    channel = await shop.opened()

    answer = await shop.pay(channel, PRICE, **ASKS)
    receipt = SignedReceipt.from_header(answer.headers[HEADER])

    receipt.check()
    assert receipt.key is not None
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_site_without_any_key_gives_plain_receipts(
    open_shop: Open, furnished: FurnishedChain
) -> None:
    payee = to_hex(furnished.chain.accounts[2].address)
    shop = open_shop(account=None, payee=payee)
    channel = await shop.opened()

    answer = await shop.pay(channel, PRICE, **ASKS)

    assert (answer.status_code, HEADER in answer.headers) == (200, False)


def test_the_receipt_key_of_another_payee_or_of_nobody_is_refused(
    furnished: FurnishedChain, tmp_path: Path
) -> None:
    file, broken = tmp_path / "receipts.key", tmp_path / "broken.key"
    make_receipt_key(file, furnished.deployment, b"\x11" * 32, 2**40)
    broken.write_text('{"secret": "0x00"}')
    broken.chmod(0o600)
    payee = Address(furnished.chain.accounts[2].address)

    for path, reason in (
        (file, "no key for receipts of"),
        (broken, "no receipt key"),
        (tmp_path / "x", "No such"),
    ):
        with pytest.raises(ConfigError, match=reason):
            read_receipt_key(path, furnished.deployment, payee)
    with pytest.raises(ConfigError, match="cannot be made"):
        make_receipt_key(file, furnished.deployment, b"\x11" * 32, 2**40)
