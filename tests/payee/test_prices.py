"""Which rule prices a request, and what a price file may say."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import ConfigError
from channelpay.payee.prices import PriceRule, PriceTable, Quote, read_price_file
from channelpay.payee.terms import Token
from channelpay.protocol.types import NATIVE, Address

TUSD = Token(Address(b"\x70" * 20), "TUSD", 6)


def asked(path: str, *rules: PriceRule, method: str = "GET") -> int | None:
    quote = PriceTable(rules, TUSD).quote(method, path)
    return None if quote is None else quote.asked


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/a", "/a", True),
        ("/a", "/ab", False),
        ("/a.b", "/aXb", False),
        ("/articles/*", "/articles/one", True),
        ("/articles/*", "/articles/one/two", False),
        ("/articles/*", "/articles/", True),
        ("/articles/*", "/articles", False),
        ("/articles/**", "/articles/one/two", True),
        ("/**", "/", True),
        ("/**", "/a/b", True),
        ("/**/", "/a/b/", True),
        ("/**/", "/a/b", False),
        ("/*.md", "/page.md", True),
        ("/*.md", "/docs/page.md", False),
        ("/**.md", "/docs/page.md", True),
        ("/page?", "/page1", True),
        ("/page?", "/page", False),
        ("/page?", "/page/x", False),
        ("/***", "/a/b", True),
        ("/**/x/*.md", "/a/x/b/x/c.md", True),
        ("/a*", "/a\nb", True),
    ],
)
def test_a_star_stays_in_a_segment_and_two_stars_cross_them(
    pattern: str, path: str, matches: bool
) -> None:
    assert (asked(path, PriceRule(pattern, "1")) is not None) == matches


@pytest.mark.parametrize(
    "path", ["//a/b", "/a//b", "/a/./b", "/x/../a/b", "/./a/b", "/../a/b", "/a/c/../b"]
)
def test_another_spelling_of_a_path_costs_the_same(path: str) -> None:
    assert asked(path, PriceRule("/a/b", "1")) == 1_000_000


@given(
    st.text(alphabet="ab/?*", max_size=8),
    st.text(alphabet="ab/", max_size=12).filter(lambda path: not path.endswith("/")),
)
def test_a_pattern_matches_what_the_same_regular_expression_matches(
    pattern: str, path: str
) -> None:
    pieces = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(pieces.get(one, one) for one in re.findall(r"\*\*|.", "/" + pattern))
    plain = re.sub("/+", "/", "/" + path)

    expected = re.fullmatch(expression, plain) is not None

    assert (asked(plain, PriceRule("/" + pattern, "1")) is not None) == expected


@pytest.mark.parametrize("path", ["/a/one.md/", "/a/one.md//", "/a/./one.md/"])
def test_a_trailing_slash_does_not_make_a_page_free(path: str) -> None:
    for rule in (PriceRule("/a/*.md", "1"), PriceRule("/a/one.md", "1")):
        assert asked(path, rule) == 1_000_000
        assert asked(path, PriceRule("/a/*/**", "0"), rule) == 1_000_000
        assert asked(path, PriceRule("/a/*/**", "2"), rule) == 2_000_000


@pytest.mark.parametrize("folder", ["/docs/", "/**/", "/*/"])
def test_a_rule_that_ends_in_a_slash_prices_folders_alone(folder: str) -> None:
    rules = [PriceRule(folder, "0"), PriceRule("/**", "1")]

    assert [asked(path, *rules) for path in ("/docs/", "/docs")] == [None, 1_000_000]


def test_an_overlong_path_costs_what_the_dearest_rule_of_its_method_says() -> None:
    rules = [
        PriceRule("/**", "0"),
        PriceRule("/dear", "2"),
        PriceRule("/dearer", "3", method="POST"),
    ]

    assert asked("/" + "a" * 4095, *rules) is None
    assert asked("/" + "a" * 4096, *rules) == 2_000_000


def test_a_path_made_to_match_slowly_is_matched_in_one_pass() -> None:
    rule = PriceRule("/" + "**-" * 12 + "x", "1")
    started = time.process_time()

    assert asked("/" + "-" * 4000, rule) is None

    assert time.process_time() - started < 1


def test_the_first_rule_that_matches_wins() -> None:
    rules = [PriceRule("/a/free", "0"), PriceRule("/a/*", "1"), PriceRule("/**", "2")]

    assert [asked(path, *rules) for path in ("/a/free", "/a/b", "/c")] == [
        None,
        1_000_000,
        2_000_000,
    ]


def test_what_no_rule_matches_is_free() -> None:
    assert asked("/b", PriceRule("/a", "1")) is None


def test_a_rule_with_a_method_is_for_that_method() -> None:
    rules = [PriceRule("/a", "1", method="POST"), PriceRule("/a", "2", method="GET")]

    prices = [asked("/a", *rules, method=method) for method in ("GET", "POST", "PUT")]

    assert prices == [2_000_000, 1_000_000, None]


@pytest.mark.parametrize("method", [None, "GET"])
def test_head_is_asked_the_price_of_get_and_charged_nothing(method: str | None) -> None:
    table = PriceTable([PriceRule("/a", "1", method=method)], TUSD)

    assert table.quote("HEAD", "/a") == Quote(asked=1_000_000, charged=0)


def test_a_rule_that_names_head_charges_it() -> None:
    table = PriceTable([PriceRule("/a", "1", method="HEAD")], TUSD)

    assert table.quote("HEAD", "/a") == Quote(asked=1_000_000, charged=1_000_000)
    assert table.quote("GET", "/a") is None


def test_a_preflight_is_free_unless_a_rule_names_it() -> None:
    assert asked("/a", PriceRule("/a", "1"), method="OPTIONS") is None
    assert asked("/a", PriceRule("/a", "1", method="OPTIONS"), method="OPTIONS") == 1_000_000


def test_ether_has_18_decimals() -> None:
    table = PriceTable([PriceRule("/a", "0.000000000000000001")], Token(NATIVE, "ETH", 18))

    assert table.quote("GET", "/a") == Quote(asked=1, charged=1)


@pytest.mark.parametrize(
    "rule",
    [
        PriceRule("a", "1"),
        PriceRule("/a", "1e"),
        PriceRule("/a", "-1"),
        PriceRule("/a", "0.0000001"),
        PriceRule("/a", "NaN"),
        PriceRule("/a", "1", method="get"),
        PriceRule("/a", "1", description=""),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: PriceRule) -> None:
    with pytest.raises(ConfigError, match="the price rule of"):
        PriceTable([rule], TUSD)


def test_a_price_file_holds_rules_in_order(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(
        """
        [[price]]
        path = "/free/**"
        price = 0

        [[price]]
        path = "/articles/*"
        price = 0.01
        method = "GET"
        description = "An article"

        [[price]]
        path = "/**"
        price = "0.123456"
        """
    )

    assert read_price_file(file) == [
        PriceRule("/free/**", "0"),
        PriceRule("/articles/*", "0.01", "GET", "An article"),
        PriceRule("/**", "0.123456"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "price = 1",
        "price = []",
        "[[price]]\npath = '/a'",
        "[[price]]\nprice = '1'",
        "[[price]]\npath = '/a'\nprice = true",
        "[[price]]\npath = 1\nprice = '1'",
        "[[price]]\npath = '/a'\nprice = '1'\npirce = '2'",
        "[[price]]\npath = '/a'\nprice = '1'\n[other]\n",
        "[[price]\n",
        "\x00",
    ],
)
def test_a_price_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=r"prices\.toml"):
        read_price_file(file)


def test_a_price_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        read_price_file(tmp_path / "nowhere.toml")
