"""Which rule prices a request, in which tokens and units, and what a price file may say."""

from __future__ import annotations

import logging
import os
import posixpath
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from channelpay.errors import ConfigError, InputError, UnclearRequest
from channelpay.payee.amounts import Price, parse_price
from channelpay.payee.prices import (
    KNOWN_CHARACTERS_MAX,
    KNOWN_PATHS_MAX,
    PriceFile,
    PriceRule,
    PriceTable,
    Quote,
    read_price_file,
)
from channelpay.payee.request import Request
from channelpay.payee.terms import ETHER, Terms, Token
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel, Deployment
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import Payer, opened_shop

TUSD = Token(Address(b"\x70" * 20), "TUSD", 6)
TUSD_ADDRESS = to_hex(TUSD.address)
STRANGE = "0x" + "99" * 20


def quoted(path: str, *rules: PriceRule, method: str = "GET", **more: Any) -> Quote | None:
    return PriceTable(rules, [TUSD, ETHER]).quote(Request(method, path, **more))


def asked(path: str, *rules: PriceRule, method: str = "GET") -> int | None:
    quote = quoted(path, *rules, method=method)
    return None if quote is None else quote.price_in(TUSD.address)


def quote_of(amount: int, **more: Any) -> Quote:
    return Quote((Price(TUSD, amount),), **more)


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


@pytest.mark.parametrize(
    "path", ["/item/5/..", "/item/5/.", "/item/../..", "/item//x", "/item/5/../", "/other/../../x"]
)
def test_a_path_that_the_application_takes_as_it_is_costs_what_it_matches(path: str) -> None:
    rules = [PriceRule("/item/*/*", "1"), PriceRule("/item/*/*/", "1"), PriceRule("/other/**", "1")]

    assert asked(path, *rules) == 1_000_000


@pytest.mark.parametrize(
    "path", ["/free/../dear", "/free//../../dear", "/dear/../free", "//free/dear", "//free//dear"]
)
def test_of_all_readings_of_a_path_the_dearest_counts(path: str) -> None:
    rules = [PriceRule("/free/**", "0"), PriceRule("/dear**", "2"), PriceRule("/**", "1")]

    assert asked(path, *rules) == 2_000_000


def test_readings_of_a_path_that_cannot_be_compared_are_refused() -> None:
    rules = [PriceRule("/item/*/*", {"eth": "1"}), PriceRule("/item/*", {TUSD_ADDRESS: "1"})]

    with pytest.raises(UnclearRequest, match="cannot be compared"):
        quoted("/item/5/..", *rules)


PATHS = st.lists(st.sampled_from(["", ".", "..", "a", "b"]), min_size=1, max_size=6).map(
    lambda segments: "/" + "/".join(segments)
)
SITE = "http://site.example"
READERS: list[Callable[[str], str]] = [
    str,
    posixpath.normpath,
    lambda path: re.sub("/+", "/", path),
    lambda path: posixpath.normpath(re.sub("/+", "/", path)),
    lambda path: urljoin(SITE + "/", path).removeprefix(SITE),
    lambda path: path.rstrip("/") or "/",
]


@example("////b", READERS[4], "/*/b")
@given(PATHS, st.sampled_from(READERS), st.sampled_from(["/a/b", "/a", "/a/*", "/a/**", "/*/b"]))
def test_no_reader_gets_a_paid_page_for_nothing(
    path: str, read: Callable[[str], str], pattern: str
) -> None:
    pieces = {"**": ".*", "*": "[^/]*"}
    expression = "".join(pieces.get(one, one) for one in re.findall(r"\*\*|.", pattern))

    if re.fullmatch(expression, read(path)):
        assert asked(path, PriceRule(pattern, "1")) == 1_000_000


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
    rule = PriceRule("/a", "1", method=method)

    assert quoted("/a", rule, method="HEAD") == quote_of(1_000_000, charged=False)


def test_a_rule_that_names_head_charges_it() -> None:
    rule = PriceRule("/a", "1", method="HEAD")

    assert quoted("/a", rule, method="HEAD") == quote_of(1_000_000)
    assert quoted("/a", rule) is None


def test_a_preflight_is_free_unless_a_rule_names_it() -> None:
    assert asked("/a", PriceRule("/a", "1"), method="OPTIONS") is None
    assert asked("/a", PriceRule("/a", "1", method="OPTIONS"), method="OPTIONS") == 1_000_000


@pytest.mark.parametrize(
    ("rules", "hidden"),
    [
        ([PriceRule("/a", "1")], True),
        ([PriceRule("/a", "1", method="GET")], True),
        ([PriceRule("/a", "1", method="POST")], True),
        ([PriceRule("/a", "1", method="GET"), PriceRule("/a", "0")], True),
        ([PriceRule("/a", "0", method="GET"), PriceRule("/a", "1")], True),
        ([PriceRule("/a", "0", method="OPTIONS"), PriceRule("/a", "1")], True),
        ([PriceRule("/a", lambda _: None)], True),
        ([PriceRule("/a", {"eth": "1"}), PriceRule("/A", {TUSD_ADDRESS: "1"})], True),
        ([PriceRule("/a", "0"), PriceRule("/**", "1")], False),
        ([PriceRule("/b", "1")], False),
        ([PriceRule("/a", "1", method="OPTIONS")], False),
    ],
)
def test_a_preflight_brings_no_body_where_another_method_may_cost(
    rules: list[PriceRule], hidden: bool
) -> None:
    assert PriceTable(rules, [TUSD, ETHER]).hides_body(Request("OPTIONS", "/a")) is hidden


@pytest.mark.parametrize("path", ["/item/5/..", "/x/../item/5", "//item//5", "/item/5/"])
def test_a_preflight_brings_no_body_whatever_the_spelling_of_the_path(path: str) -> None:
    table = PriceTable([PriceRule("/item/5", "1"), PriceRule("/item/5/..", "1")], [TUSD])

    assert table.hides_body(Request("OPTIONS", path))


@pytest.mark.parametrize("method", ["GET", "TRACE", "HEAD"])
def test_only_a_preflight_comes_without_its_body(method: str) -> None:
    table = PriceTable([PriceRule("/a", "1", method="POST")], [TUSD])

    assert not table.hides_body(Request(method, "/a"))


def test_a_rule_with_a_method_leaves_all_others_free() -> None:
    rule = PriceRule("/a", "1", method="GET")

    assert [asked("/a", rule, method=method) for method in ("TRACE", "PUT", "X")] == [None] * 3


# --- tokens ------------------------------------------------------------------------------------


def test_a_price_that_names_no_token_is_in_the_first() -> None:
    rule = PriceRule("/a", "0.000001")
    of_dollars, of_ether = PriceTable([rule], [TUSD, ETHER]), PriceTable([rule], [ETHER, TUSD])

    assert of_dollars.quote(Request("GET", "/a")) == Quote((Price(TUSD, 1),))
    assert of_ether.quote(Request("GET", "/a")) == Quote((Price(ETHER, 10**12),))


@pytest.mark.parametrize("ether", ["eth", "ETH", to_hex(NATIVE)])
@pytest.mark.parametrize("dollar", [TUSD_ADDRESS, "0x" + TUSD_ADDRESS[2:].upper()])
def test_a_price_in_several_tokens_is_quoted_in_the_order_of_the_payee(
    ether: str, dollar: str
) -> None:
    quote = quoted("/a", PriceRule("/a", {ether: "0.000000000000000004", dollar: "0.01"}))

    assert quote == Quote((Price(TUSD, 10_000), Price(ETHER, 4)))
    assert (quote.price_in(TUSD.address), quote.price_in(NATIVE)) == (10_000, 4)


def test_a_price_may_leave_out_a_token_of_the_payee() -> None:
    quote = quoted("/a", PriceRule("/a", {"eth": "1"}))

    assert quote is not None
    assert quote.price_in(TUSD.address) is None


def test_a_token_that_the_payee_does_not_take_is_refused_with_those_it_takes() -> None:
    with pytest.raises(ConfigError, match=r"price\.0x9999") as refused:
        quoted("/a", PriceRule("/a", {STRANGE: "1"}))

    taken = refused.value.detail.partition("it takes")[2]
    assert taken == f" {TUSD_ADDRESS} (TUSD), eth (ETH)"


@pytest.mark.parametrize(
    ("price", "key"),
    [
        ({}, "price"),
        ({"eth": "1", "ETH": "1"}, "price.ETH"),
        ({"eth": "1", to_hex(NATIVE): "1"}, f"price.{to_hex(NATIVE)}"),
        ({"usd": "1"}, "price.usd"),
        ({"eth": "1e-3"}, "price.eth"),
        ({TUSD_ADDRESS: "0.0000001"}, f"price.{TUSD_ADDRESS}"),
        ({"eth": 1}, "price.eth"),
        (0.01, "price"),
        ({"eth": "0", TUSD_ADDRESS: "1"}, "price"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused_by_rule_and_key(price: Any, key: str) -> None:
    rules = [PriceRule("/fine", "1"), PriceRule("/a", price)]

    with pytest.raises(ConfigError) as refused:
        PriceTable(rules, [TUSD, ETHER])

    assert refused.value.detail.startswith(f"price rule 2 ('/a'), {key}")


def test_a_price_of_nothing_in_every_token_is_free() -> None:
    assert quoted("/a", PriceRule("/a", {"eth": "0", TUSD_ADDRESS: "0.0"})) is None


@given(
    st.integers(0, 2**128 - 1),
    st.integers(0, 77),
    st.integers(0, 77),
)
def test_an_amount_is_the_same_in_whatever_decimals_a_token_has(
    amount: int, decimals: int, more: int
) -> None:
    token = Token(Address(b"\x71" * 20), "T", decimals)
    digits = str(amount).rjust(decimals + 1, "0")
    whole, fraction = digits[: len(digits) - decimals], digits[len(digits) - decimals :]
    text = whole + (f".{fraction}{'0' * min(more, 80 - decimals)}" if fraction else "")

    assert parse_price(text, [token], "price") == (Price(token, amount),)


# --- units -------------------------------------------------------------------------------------


def test_a_price_is_per_request_unless_a_unit_is_named() -> None:
    plain = quoted("/a", PriceRule("/a", "1"))
    metered = quoted("/a", PriceRule("/a", "1", unit="kilobyte"))

    assert plain is not None
    assert metered is not None
    assert (plain.unit, plain.metered) == ("request", False)
    assert (metered.unit, metered.metered) == ("kilobyte", True)


def test_a_quote_reads_like_a_sentence() -> None:
    rule = PriceRule("/a", {"eth": "0.000004", TUSD_ADDRESS: "0.01"}, unit="token")
    metered, plain = quoted("/a", rule), quoted("/a", PriceRule("/a", "0.010"))

    assert metered is not None
    assert plain is not None
    assert metered.format() == "0.01 TUSD or 0.000004 ETH per token"
    assert plain.format() == "0.01 TUSD"


# --- functions ---------------------------------------------------------------------------------


def by_size(request: Request) -> str | None:
    sizes = request.query_values("size")
    return None if sizes == ["small"] else "2" if "large" in sizes else "1"


@pytest.mark.parametrize(
    ("query", "amount"),
    [
        (b"", 1_000_000),
        (b"size=large", 2_000_000),
        (b"size=small", None),
        (b"size=small&size=large", 2_000_000),
        (b"size=%6Carge", 2_000_000),
    ],
)
def test_a_function_prices_each_request_by_its_query(query: bytes, amount: int | None) -> None:
    table = PriceTable([PriceRule("/image", by_size)], [TUSD])
    quotes = [table.quote(Request("GET", "/image", query=query)) for _ in range(2)]

    assert quotes == [None if amount is None else quote_of(amount)] * 2


def test_a_function_prices_by_headers_in_several_tokens() -> None:
    def price(request: Request) -> dict[str, str]:
        per_page = {"de": "2", "fr": "3"}.get("".join(request.header_values("Accept-Language")))
        return {"eth": per_page or "1", TUSD_ADDRESS: per_page or "1"}

    quote = quoted(
        "/a", PriceRule("/a", price, unit="token"), headers=[(b"accept-language", b"fr")]
    )

    assert quote == Quote((Price(TUSD, 3_000_000), Price(ETHER, 3 * 10**18)), unit="token")


@pytest.mark.parametrize("answer", [None, "0", {"eth": "0"}])
def test_a_function_may_give_a_request_away(answer: Any) -> None:
    assert quoted("/a", PriceRule("/a", lambda _: answer), PriceRule("/a", "1")) is None


def test_what_a_function_raises_is_raised_as_it_is() -> None:
    error = RuntimeError("no database")

    def price(_: Request) -> str:
        raise error

    with pytest.raises(RuntimeError) as raised:
        quoted("/a", PriceRule("/a", price))

    assert raised.value is error


@pytest.mark.parametrize("answer", [0.01, "0.01 TUSD", {STRANGE: "1"}, {}])
def test_what_a_function_returns_is_checked_and_its_rule_is_named(answer: Any) -> None:
    table = PriceTable([PriceRule("/b", "1"), PriceRule("/a", lambda _: answer)], [TUSD])

    with pytest.raises(ConfigError, match=r"price rule 2 \('/a'\), price"):
        table.quote(Request("GET", "/a"))


def test_a_function_sees_each_reading_of_a_path_and_head_as_get() -> None:
    seen: list[tuple[str, str]] = []

    def price(request: Request) -> str:
        seen.append((request.method, request.path))
        return "1"

    for method in ("GET", "HEAD", "POST"):
        quoted("/a", PriceRule("/**", price), method=method)
    quoted("/a", PriceRule("/**", price, method="HEAD"), method="HEAD")

    assert seen == [("GET", "/a"), ("GET", "/a"), ("POST", "/a"), ("HEAD", "/a")]
    seen.clear()
    quoted("/x/..//a", PriceRule("/**", price))
    assert {path for _, path in seen} == {"/x/..//a", "/x/../a", "//a", "/a"}


def test_a_function_cannot_be_outwitted_by_a_trailing_slash() -> None:
    rule = PriceRule("/**", lambda request: "2" if request.path == "/dear" else None)

    assert asked("/dear/", rule) == asked("/dear", rule) == 2_000_000


@given(st.text(alphabet="ab/.", max_size=8), st.binary(max_size=8), st.sampled_from("GP"))
def test_a_function_that_always_says_the_same_is_the_same_as_a_fixed_price(
    path: str, query: bytes, letter: str
) -> None:
    method = {"G": "GET", "P": "POST"}[letter]
    rest = [PriceRule("/a/**", "3"), PriceRule("/**/", "4")]
    fixed = quoted("/" + path, PriceRule("/a*", "1"), *rest, method=method)
    function = PriceRule("/a*", lambda _: "1")

    assert quoted("/" + path, function, *rest, method=method, query=query) == fixed


# --- which of two prices is dearer -------------------------------------------------------------


def test_two_readings_of_a_path_cost_the_higher_amount_in_the_tokens_of_both() -> None:
    rules = [
        PriceRule("/a/**", {"eth": "5", TUSD_ADDRESS: "1"}, description="folder"),
        PriceRule("/a", {"eth": "3", TUSD_ADDRESS: "2"}, description="page"),
    ]

    quote = quoted("/a/", *rules)

    assert quote == Quote((Price(TUSD, 2_000_000), Price(ETHER, 5 * 10**18)), description="page")


def test_a_token_that_only_one_reading_takes_does_not_pay_for_both() -> None:
    rules = [PriceRule("/a/**", {"eth": "5", TUSD_ADDRESS: "1"}), PriceRule("/a", {"eth": "7"})]

    assert quoted("/a/", *rules) == Quote((Price(ETHER, 7 * 10**18),))


@pytest.mark.parametrize(
    "page", [PriceRule("/a", {"eth": "5"}), PriceRule("/a", "1", unit="kilobyte")]
)
def test_two_readings_that_cannot_be_compared_are_refused(page: PriceRule) -> None:
    rules = [PriceRule("/a/**", {TUSD_ADDRESS: "1"}), page]

    with pytest.raises(UnclearRequest, match="cannot be compared"):
        quoted("/a/", *rules)

    assert quoted("/a", *rules) is not None
    assert quoted("/a/b", *rules) is not None


AMOUNTS = st.dictionaries(
    st.sampled_from(["eth", TUSD_ADDRESS]), st.sampled_from(["1", "2", "3"]), min_size=1
)


@given(AMOUNTS, AMOUNTS)
def test_a_trailing_slash_never_makes_a_page_cheaper_in_any_token(
    folder: dict[str, str], page: dict[str, str]
) -> None:
    rules = [PriceRule("/a/**", folder), PriceRule("/a", page)]
    plain = quoted("/a", *rules)
    assert plain is not None
    try:
        slashed = quoted("/a/", *rules)
    except UnclearRequest:
        assert not folder.keys() & page.keys()
        return

    assert slashed is not None
    for price in slashed.prices:
        cost = plain.price_in(price.token.address)
        assert cost is not None
        assert price.amount >= cost


# --- remembering -------------------------------------------------------------------------------


def test_a_known_path_is_quoted_in_a_moment() -> None:
    rules = [PriceRule(f"/{number}/**", "1") for number in range(1000)]
    table = PriceTable([*rules, PriceRule("/a", {"eth": "1", TUSD_ADDRESS: "1"})], [TUSD, ETHER])
    request = Request("GET", "/a")
    table.quote(request)
    started = time.process_time()

    for _ in range(10_000):
        table.quote(request)

    assert time.process_time() - started < 0.1  # 10 µs each; looking it up takes 500 µs


@pytest.mark.parametrize("length", [KNOWN_CHARACTERS_MAX - 3, KNOWN_CHARACTERS_MAX])
def test_long_paths_are_not_remembered_and_cost_the_same(length: int) -> None:
    table = PriceTable([PriceRule("/**", "1")], [TUSD])
    path = "/".ljust(length, "a")

    quotes = [table.quote(Request("GET", path)) for _ in range(3)]

    assert quotes == [quote_of(1_000_000)] * 3
    remembered = len(path) + len("GET") <= KNOWN_CHARACTERS_MAX
    assert table._known.cache_info().currsize == remembered


def test_no_more_paths_are_remembered_than_the_bound() -> None:
    table = PriceTable([PriceRule("/**", "1")], [TUSD])

    for number in range(KNOWN_PATHS_MAX + 10):
        table.quote(Request("GET", f"/{number}"))

    assert table._known.cache_info().currsize == KNOWN_PATHS_MAX


# --- rules and files ---------------------------------------------------------------------------


def test_ether_has_18_decimals() -> None:
    table = PriceTable([PriceRule("/a", "0.000000000000000001")], [Token(NATIVE, "ETH", 18)])

    assert table.quote(Request("GET", "/a")) == Quote((Price(ETHER, 1),))


@pytest.mark.parametrize(
    ("rule", "key"),
    [
        (PriceRule("a", "1"), "path"),
        (PriceRule("", "1"), "path"),
        (PriceRule("/a", "1e"), "price"),
        (PriceRule("/a", "-1"), "price"),
        (PriceRule("/a", "0.0000001"), "price"),
        (PriceRule("/a", "NaN"), "price"),
        (PriceRule("/a", "1", method="get"), "method"),
        (PriceRule("/a", "1", description=""), "description"),
        (PriceRule("/a", "1", unit=""), "unit"),
        (PriceRule("/a", "1", unit="Token"), "unit"),
        (PriceRule("/a", "1", unit="two words"), "unit"),
        (PriceRule("/a", "1", unit="u" * 33), "unit"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: PriceRule, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^price rule 1 \('/?a?'\), {key}\b"):
        PriceTable([rule], [TUSD])


def test_a_summary_lists_the_rules_whose_prices_are_fixed() -> None:
    rules = [PriceRule("/free", "0"), PriceRule("/b", lambda _: "1"), PriceRule("/**", "1")]

    assert PriceTable(rules, [TUSD]).summary() == [
        (rules[0], ()),
        (rules[2], (Price(TUSD, 1_000_000),)),
    ]


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
        path = "/chat"
        price = { eth = 0.000004, "0x7070707070707070707070707070707070707070" = "0.01" }
        unit = "token"

        [[price]]
        path = "/**"
        price = "0.123456"
        """
    )

    assert read_price_file(file) == [
        PriceRule("/free/**", "0"),
        PriceRule("/articles/*", "0.01", "GET", description="An article"),
        PriceRule("/chat", {"eth": "0.000004", TUSD_ADDRESS: "0.01"}, unit="token"),
        PriceRule("/**", "0.123456"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must hold"),
        ("price = 1", "must hold"),
        ("price = []", "must hold"),
        ("price = [1]", "price rule 1 is not a table"),
        ("[[price]]\npath = '/a'", "price rule 1, price: missing"),
        ("[[price]]\nprice = '1'", "price rule 1, path: missing"),
        ("[[price]]\npath = '/a'\nprice = true", "price rule 1, price: must"),
        ("[[price]]\npath = '/a'\nprice = ['1']", "price rule 1, price: must"),
        ("[[price]]\npath = '/a'\nprice = { eth = true }", "price rule 1, price.eth: must"),
        ("[[price]]\npath = '/a'\nprice = { eth.x = '1' }", "price rule 1, price.eth: must"),
        ("[[price]]\npath = 1\nprice = '1'", "price rule 1, path: must"),
        ("[[price]]\npath = '/a'\nprice = '1'\nunit = 1", "price rule 1, unit: must"),
        ("[[price]]\npath = '/a'\nprice = '1'\npirce = '2'", "price rule 1, pirce: no such key"),
        ("[[price]]\npath = '/a'\nprice = '1'\n[other]\n", "must hold"),
        ("[[price]\n", "is not TOML"),
        ("\x00", "is not TOML"),
        ("a = " + "[" * 2_000, "is not TOML"),
        # What only the payee's tokens tell.
        ("[[price]]\npath = '/a'\nprice = 'x'", "price rule 1 ('/a'), price"),
        ("[[price]]\npath = '/a'\nprice = { usd = '1' }", "price rule 1 ('/a'), price.usd"),
        (
            f"[[price]]\npath = '/a'\nprice = '1'\n[[price]]\npath = '/b'\nprice.{STRANGE} = 1",
            f"price rule 2 ('/b'), price.{STRANGE}: the payee does not take this token",
        ),
    ],
)
def test_a_mistake_in_a_price_file_is_told_by_file_rule_and_key(
    tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)

    with pytest.raises(ConfigError) as refused:
        PriceFile(file, [TUSD, ETHER])

    assert refused.value.detail.startswith(str(file))
    assert problem in refused.value.detail


def test_a_price_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        read_price_file(tmp_path / "nowhere.toml")


# --- reloading ---------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class WatchedFile:
    """A price file of one rule, and its reader on a clock of its own."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.clock = Clock()
        self.write("1")
        self.prices = PriceFile(file, [TUSD], self.clock)

    def write(self, price: str) -> None:
        """Another file takes the place of the file, as it should be."""
        beside = self.file.with_suffix(".new")
        beside.write_text(f'[[price]]\npath = "/**"\nprice = "{price}"\n')
        beside.replace(self.file)

    def price_now(self) -> int | None:
        """In whole TUSD."""
        quote = self.prices.quote(Request("GET", "/a"))
        return None if quote is None else quote.prices[0].amount // 1_000_000

    def price_after(self, seconds: float) -> int | None:
        self.clock.seconds += seconds
        return self.price_now()


@pytest.fixture
def watched(tmp_path: Path) -> WatchedFile:
    return WatchedFile(tmp_path / "prices.toml")


def test_a_changed_price_file_holds_within_a_second(watched: WatchedFile) -> None:
    assert watched.price_now() == 1

    watched.write("2")

    assert watched.price_after(0.9) == 1
    assert watched.price_after(0.1) == 2
    assert watched.prices.summary()[0][1] == (Price(TUSD, 2_000_000),)


def test_a_changed_price_file_tells_anew_whose_body_is_hidden(watched: WatchedFile) -> None:
    preflight = Request("OPTIONS", "/a")
    assert watched.prices.hides_body(preflight)

    watched.write("0")
    watched.clock.seconds += 1

    assert not watched.prices.hides_body(preflight)


def rewrite_longer(file: Path) -> None:
    stamp = file.stat()
    file.write_text(file.read_text().replace('"1"', '"2.0"'))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def rewrite_later(file: Path) -> None:
    stamp = file.stat()
    file.write_text(file.read_text().replace('"1"', '"2"'))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 1))


def replace_alike(file: Path) -> None:
    stamp = file.stat()
    beside = file.with_suffix(".new")
    beside.write_text(file.read_text().replace('"1"', '"2"'))
    os.utime(beside, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    beside.replace(file)


@pytest.mark.parametrize("change", [rewrite_longer, rewrite_later, replace_alike])
def test_size_time_and_inode_each_tell_a_change(
    watched: WatchedFile, change: Callable[[Path], None]
) -> None:
    change(watched.file)

    assert watched.price_after(1) == 2


def test_a_price_file_is_looked_at_once_a_second_at_most(
    watched: WatchedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    stat = Path.stat

    def look(path: Path) -> os.stat_result:
        looks.append(path)
        return stat(path)

    monkeypatch.setattr(Path, "stat", look)

    for _ in range(1000):
        watched.price_after(0.01)

    assert len(looks) in (9, 10, 11)


def test_an_unchanged_price_file_is_not_read_again(
    watched: WatchedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("the file was read")

    monkeypatch.setattr(Path, "read_text", refuse)

    assert watched.price_after(5) == 1


def broken(watched: WatchedFile) -> None:
    watched.write("a lot")


def gone(watched: WatchedFile) -> None:
    watched.file.unlink()


def emptied(watched: WatchedFile) -> None:
    watched.file.write_text("")


def a_folder(watched: WatchedFile) -> None:
    watched.file.unlink()
    watched.file.mkdir()


@pytest.mark.parametrize("spoil", [broken, gone, emptied, a_folder])
def test_a_spoilt_price_file_is_logged_once_and_the_old_prices_stay(
    watched: WatchedFile, spoil: Callable[[WatchedFile], None], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(watched)

    assert [watched.price_after(1) for _ in range(5)] == [1] * 5

    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "prices.toml" in error.getMessage()


def test_a_price_file_spoilt_in_two_ways_is_logged_twice_and_mended_again(
    watched: WatchedFile, caplog: pytest.LogCaptureFixture
) -> None:
    for price in ("a lot", "even more"):
        watched.write(price)
        assert [watched.price_after(1), watched.price_after(1)] == [1, 1]
    watched.write("3")

    assert watched.price_after(1) == 3
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 2


# --- behind the middleware ---------------------------------------------------------------------


def by_answer(request: Request) -> Any:
    (answer,) = request.query_values("answer")
    if answer == "refuse":
        raise InputError("there is no such size")
    return {"1": "0.01", "2": "0.02", "free": None, "number": 0.01}[answer]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "status", "detail"),
    [
        ("1", 402, "this costs 0.01 TUSD"),
        ("2", 402, "this costs 0.02 TUSD"),
        ("free", 200, None),
        ("refuse", 400, "there is no such size"),
        ("number", 503, "the payment could not be checked; the fault is the site's"),
        ("broken", 503, "the payment could not be checked; the fault is the site's"),
    ],
)
async def test_what_a_function_does_is_what_the_client_is_answered(
    furnished: FurnishedChain,
    payer: Payer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    answer: str,
    status: int,
    detail: str | None,
) -> None:
    with opened_shop(furnished, tmp_path, payer, prices=[PriceRule("/**", by_answer)]) as shop:
        response = await shop.get(f"/page?answer={answer}")

    assert response.status_code == status
    assert detail is None or response.json()["detail"] == detail
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == (status == 503)


@pytest.mark.anyio
async def test_a_path_that_cannot_be_compared_is_told_to_the_client(
    furnished: FurnishedChain, payer: Payer, tmp_path: Path
) -> None:
    rules = [PriceRule("/a/**", "1"), PriceRule("/a", "1", unit="kilobyte")]
    with opened_shop(furnished, tmp_path, payer, prices=rules) as shop:
        response = await shop.get("/a/")

    assert (response.status_code, response.json()["code"]) == (400, "unclear-request")


# --- terms and requests ------------------------------------------------------------------------

DEPLOYMENT = Deployment(1, Address(b"\x0c" * 20))
PAYEE, PAYER, STRANGER = (Address(bytes([byte]) * 20) for byte in (1, 2, 3))
TERMS = Terms(DEPLOYMENT, PAYEE, (TUSD, ETHER), {TUSD.address: 5_000_000})


def test_a_challenge_asks_one_price_of_a_quote_per_unit() -> None:
    rule = PriceRule("/a", {"eth": "1", TUSD_ADDRESS: "0.01"}, unit="token", description="A word")
    quote = quoted("/a", rule)
    assert quote is not None

    dollars, ether = (TERMS.request(price, quote) for price in quote.prices)

    assert (dollars.currency, dollars.amount, dollars.suggested_deposit) == (
        TUSD.address,
        10_000,
        5_000_000,
    )
    assert (ether.currency, ether.amount, ether.suggested_deposit) == (NATIVE, 10**18, None)
    for request in (dollars, ether):
        assert (request.unit_type, request.description) == ("token", "A word")
        assert (request.deployment, request.recipient) == (DEPLOYMENT, PAYEE)
        assert TERMS.are_those_of(request)


def test_terms_are_of_this_payee_and_its_tokens_alone() -> None:
    quote = quote_of(1)
    request = TERMS.request(quote.prices[0], quote)
    others = [
        Terms(Deployment(2, DEPLOYMENT.contract), PAYEE, (TUSD,)),
        Terms(DEPLOYMENT, STRANGER, (TUSD,)),
        Terms(DEPLOYMENT, PAYEE, (ETHER,)),
    ]

    assert [terms.are_those_of(request) for terms in (TERMS, *others)] == [True] + [False] * 3


@pytest.mark.parametrize(
    ("payee", "token", "ours"),
    [
        (PAYEE, TUSD.address, True),
        (PAYEE, NATIVE, True),
        (PAYEE, STRANGER, False),
        (STRANGER, TUSD.address, False),
    ],
)
def test_terms_apply_to_channels_of_this_payee_in_its_tokens(
    payee: Address, token: Address, ours: bool
) -> None:
    assert TERMS.apply_to(Channel(PAYER, payee, token, ZERO_ADDRESS, bytes(32))) is ours


def test_a_channel_of_the_terms_pays_the_payee_in_the_token_that_was_named() -> None:
    channel = TERMS.channel(PAYER, NATIVE, STRANGER, bytes(32))

    assert channel == Channel(PAYER, PAYEE, NATIVE, STRANGER, bytes(32))
    assert TERMS.token(NATIVE) == ETHER
    assert TERMS.token(STRANGER) is None


def test_a_request_tells_every_value_of_a_header_and_of_a_query_parameter() -> None:
    headers = [(b"Accept", b"a"), (b"host", b"x"), (b"accept", b"b\xe9")]
    request = Request("GET", "/", query=b"a=1&b=&a=%C3%A9+x&c", headers=headers)

    assert request.header_values("ACCEPT") == ["a", "b\xe9"]
    assert request.header_values("cookie") == []
    assert request.query_values("a") == ["1", "é x"]
    assert [request.query_values(name) for name in "bcd"] == [[""], [""], []]
