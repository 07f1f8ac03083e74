"""What a price file may say of incentives, which paths they are for, and how they are put."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from channelpay.errors import ConfigError
from channelpay.payee.paths import PATH_CHARACTERS_MAX
from channelpay.payee.prices import PriceFile, PriceRule, PriceTable, Quote, read_incentives
from channelpay.payee.request import Request
from channelpay.payee.selling.deal import NO_WISH, Uncounted, given_key
from channelpay.payee.selling.incentives import Incentive, IncentiveRow, incentive_rows
from channelpay.payee.selling.offers import offers_of
from channelpay.payee.terms import ETHER, Token
from channelpay.protocol import pricing
from channelpay.protocol.pricing import Measure, Rules
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
)

TUSD = Token(Address(b"\x70" * 20), "TUSD", 6)
TUSD_NAME = to_hex(TUSD.address)
FILE = """
[[price]]
path = "/**"
price = "0.01"

[[incentive]]
kind = "first-free"
count = 3
deposit_min = 1
day_max = 500
value_max = "0.05"
paths = ["/articles/**", "/news/*"]

[[incentive]]
kind = "window"
name = "weekend"
label = "half price at weekends"
percent = 50
begin = "00:00"
end = "24:00"
utc_offset = "+01:00"
days = ["sat", "sun"]

[[incentive]]
kind = "volume"
tiers = [{ count = 10, percent = 5 }, { count = 50, percent = 12.5 }]

[[incentive]]
kind = "points"
per = "0.001"
worth = "0.00001"

[[incentive]]
kind = "cash-back"
percent = "2.5"
"""
WINDOW = {"percent": 5, "begin": "22:00", "end": "06:00", "utc_offset": "+00:00"}
FREE = {"count": 3, "deposit_min": "1", "day_max": 10}


def rows(*incentives: Incentive) -> tuple[IncentiveRow, ...]:
    return incentive_rows(incentives, [TUSD, ETHER])


def quoted(path: str, *incentives: Incentive, **more: Any) -> Quote:
    table = PriceTable([PriceRule("/**", "0.01", **more)], [TUSD, ETHER], incentives)
    quote = table.quote(Request("GET", path))
    assert quote is not None
    return quote


def names(quote: Quote | None) -> list[str]:
    if quote is None or quote.selling is None:
        return []
    return [row.name for row in quote.selling.rows]


def test_a_price_file_says_what_comes_with_its_prices(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(FILE)

    read = rows(*read_incentives(file))

    assert [row.rules[TUSD.address] for row in read] == [
        pricing.FirstFree("first-free", "the first 3 are free", 3, 1_000_000, 500, 50_000),
        pricing.Window("weekend", "half price at weekends", 5000, 0, 1440, 60, frozenset({5, 6})),
        pricing.Volume("volume", "volume discount", Measure.COUNT, ((10, 500), (50, 1250))),
        pricing.Points("points", "loyalty points", 1000, 10),
        pricing.CashBack("cash-back", "2.5 % back as credit", 250),
    ]
    words = [row.terms[TUSD.address] for row in read]
    assert words[0].startswith("the first 3 for each payer are free up to 0.05 TUSD, on a channel")
    assert words[1] == "50 % off from 00:00 to 24:00 (UTC+01:00) on sat, sun"
    assert words[2] == "5 % off after 10 sales, 12.5 % off after 50 sales in a calendar month (UTC)"


@pytest.mark.parametrize(
    ("kind", "settings", "complaint"),
    [
        ("lottery", {}, "kind: must be one of first-free, "),
        ("first-free", {"count": 3, "day_max": 1}, "deposit_min: missing"),
        ("first-free", {**FREE, "count": 0}, "count: must be a whole number"),
        ("first-free", {**FREE, "count": True}, "count: must be a whole number"),
        ("first-free", {**FREE, "count": "3"}, "count: must be a whole number"),
        ("first-free", {**FREE, "value_max": "0"}, "value_max: must be above 0"),
        ("first-free", {**FREE, "deposit_min": "-1"}, "deposit_min '-1' is not a plain"),
        ("first-free", {**FREE, "deposit_min": {"dai": "1"}}, "deposit_min.dai must be 0x"),
        ("first-free", {**FREE, "coutn": 1}, "coutn: no such key"),
        ("nth-free", {"every": 1}, "every: must be a whole number from 2"),
        ("window", {**WINDOW, "percent": 0}, "percent: must be a number up to 100"),
        ("window", {**WINDOW, "percent": "100.01"}, "percent: must be a number up to 100"),
        ("window", {**WINDOW, "percent": "1e1"}, "percent: must be a number up to 100"),
        ("window", {**WINDOW, "percent": None}, "percent: must be a number up to 100"),
        ("window", {**WINDOW, "begin": "24:01"}, "begin: must be a time of day"),
        ("window", {**WINDOW, "begin": "9:00"}, "begin: must be a time of day"),
        ("window", {**WINDOW, "begin": "06:00"}, "begin: must be before the end"),
        ("window", {**WINDOW, "utc_offset": "CET"}, "utc_offset: must be an offset"),
        ("window", {"percent": 5, "begin": "01:00", "end": "02:00"}, "utc_offset: missing"),
        ("window", {**WINDOW, "days": ["Sunday"]}, "days: must be among mon, "),
        ("window", {**WINDOW, "days": []}, "days: must be a text or a list"),
        ("volume", {"tiers": []}, "tiers: must be a list of tables"),
        ("volume", {"tiers": [{"count": 1}]}, "tiers 1, percent: missing"),
        ("volume", {"tiers": [{"count": 1, "percent": 5, "x": 1}]}, "tiers 1, x: no such key"),
        (
            "volume",
            {"tiers": [{"count": 9, "percent": 5}, {"count": 9, "percent": 6}]},
            "tiers: must rise",
        ),
        (
            "volume",
            {"tiers": [{"count": 1, "percent": 5}, {"amount": "9", "percent": 6}]},
            "tiers 2, count: missing",
        ),
        ("points", {"per": "0.001", "worth": "0.002"}, "worth: must not be above"),
        ("cash-back", {"percent": 16**5000}, "percent: must be a number up to 100"),
        ("points", {"per": 16**5000, "worth": "1"}, "per must be a string"),
        ("cash-back", {"percent": 5, "name": "Five"}, "name: must be a short text"),
        ("cash-back", {"percent": 5, "label": "a\nb"}, "label: must be a short text"),
        ("cash-back", {"percent": 5, "paths": "articles"}, "paths: must begin with /"),
        (
            "referral",
            {"reward": "1", "deposit_min": "0", "day_max": 1, "parameter": "a=b"},
            "parameter: must be a short text",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_key(
    kind: str, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)) as raised:
        rows(Incentive("cash-back", percent=1, name="first"), Incentive(kind, **settings))

    assert raised.value.detail.startswith(f"incentive 2 ('{kind}'), ")


@pytest.mark.parametrize("name", ["cash-back", "credit"])
def test_a_name_is_of_one_incentive_alone(name: str) -> None:
    with pytest.raises(ConfigError, match="is taken"):
        rows(Incentive("cash-back", percent=5), Incentive("nth-free", every=3, name=name))


def test_there_is_one_kind_of_points() -> None:
    stars = Incentive("points", per="0.001", worth="0.0001")

    with pytest.raises(ConfigError, match="one kind of points"):
        rows(stars, Incentive("points", name="miles", per="0.001", worth="0.0001"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[incentive]]\ncount = 3\n", "incentive 1, kind: missing"),
        ('[incentive]\nkind = "points"\n', "must hold one or more"),
        ('[[discount]]\nkind = "points"\n', "must hold one or more"),
        ("incentive = [3]\n", "incentive 1, kind: missing"),
        ("[[price]]\npath = '/'\nprice = " + 5000 * "9" + "\n", "is not TOML"),
        ("[[price]]\npath = '/'\nprice = 0x" + 5000 * "f" + "\n", "must be an amount"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text + '[[price]]\npath = "/"\nprice = "1"\n')

    with pytest.raises(ConfigError, match=re.escape(complaint)) as raised:
        read_incentives(file)

    assert str(file) in raised.value.detail


@pytest.mark.parametrize(
    ("path", "applies"),
    [
        ("/articles/one", True),
        ("/articles/../dear", False),
        ("/x/../articles/one", False),
        ("/articles//one", True),
        ("/articles", False),
        ("/articles/" + "a" * PATH_CHARACTERS_MAX, False),
    ],
)
def test_a_path_that_may_be_another_has_only_what_both_have(path: str, *, applies: bool) -> None:
    quote = quoted(path, Incentive("cash-back", percent=5, paths="/articles/**"))

    assert bool(names(quote)) is applies


def test_a_folder_that_costs_what_its_page_does_has_only_what_the_page_has() -> None:
    """Some applications serve ``/articles/`` like ``/articles``."""
    rules = [PriceRule("/articles", "1"), PriceRule("/articles/*", "0.01")]
    table = PriceTable(rules, [TUSD], [Incentive("cash-back", percent=5, paths="/articles/*")])

    assert names(table.quote(Request("GET", "/articles/one"))) == ["cash-back"]
    assert names(table.quote(Request("GET", "/articles/"))) == []


@pytest.mark.parametrize("more", [{"unit": "word"}, {"up_to": True}])
def test_what_is_charged_as_it_goes_has_no_incentives(more: dict[str, Any]) -> None:
    assert names(quoted("/page", Incentive("cash-back", percent=5), **more)) == []


def test_a_price_by_a_function_has_incentives_as_well() -> None:
    incentive = Incentive("cash-back", percent=5)
    table = PriceTable([PriceRule("/**", lambda _: "0.02")], [TUSD, ETHER], [incentive])

    quote = table.quote(Request("GET", "/page"))

    assert quote is not None
    assert names(quote) == ["cash-back"]


def test_an_incentive_is_for_the_tokens_that_its_amounts_name() -> None:
    both = {"eth": "0.001", TUSD_NAME: "0.01"}
    stars = Incentive("points", per={"eth": "0.001"}, worth={"eth": "0.0001"})
    table = PriceTable([PriceRule("/**", both)], [TUSD, ETHER], [stars])

    quote = table.quote(Request("GET", "/page"))

    assert quote is not None
    assert quote.selling is not None
    assert quote.selling.rules[TUSD.address] == Rules()
    assert quote.selling.rules[NATIVE].points is not None
    assert "0.001 ETH" in offers_of(quote)[1]["terms"]


def test_only_what_gives_something_away_needs_the_count_that_all_buyers_share() -> None:
    welcome = Incentive("first-free", count=1, deposit_min="0", day_max=1)
    selling = quoted("/page", welcome).selling
    assert selling is not None
    channel = Channel(Address(b"\x01" * 20), Address(b"\x02" * 20), NATIVE, ZERO_ADDRESS, b"s" * 32)
    state = ChannelState(ChannelStatus.OPEN, 1000)
    record = ChannelRecord(ChannelId(b"c" * 32), channel, state, accepted=1000)
    deal = selling.deal(channel.payer, TUSD.address, 1_767_614_400_000, NO_WISH)

    with pytest.raises(Uncounted):
        deal.sell(10, record, {})

    first = deal.counted().sell(10, record, {})
    assert first.price == 0
    second = deal.sell(10, record, {deal.account: first.entries[deal.account]})
    assert second.price == 10
    assert set(second.entries) == {deal.account} == set(deal.keys)
    assert set(first.entries) == {deal.account, given_key("first-free")}


def test_an_offer_has_the_same_id_until_it_is_another_one() -> None:
    five = offers_of(quoted("/page", Incentive("cash-back", percent=5)))
    again = offers_of(quoted("/other", Incentive("cash-back", percent=5)))
    six = offers_of(quoted("/page", Incentive("cash-back", percent=6)))

    assert five == again
    assert five[0]["id"] == six[0]["id"]
    assert five[1]["id"] != six[1]["id"]
    assert all(re.fullmatch("[0-9a-f]{16}", one["id"]) for one in five)


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ('up_to = "yes"', "up_to: must be true or false"),
        ('up_to = true\nunit = "word"', "up_to: is for a request"),
    ],
)
def test_a_ceiling_is_for_one_request(tmp_path: Path, rule: str, complaint: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(f'[[price]]\npath = "/"\nprice = "1"\n{rule}\n')

    with pytest.raises(ConfigError, match=complaint):
        PriceFile(file, [TUSD])
