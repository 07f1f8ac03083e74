"""Passes and coupons by themselves: when they end, what a token is, and which codes are read."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import ConfigError, CouponNotValid, PassNotValid
from channelpay.protocol.coupons import CodeHasher, code_of, parse_code
from channelpay.protocol.passes import Length, Pass, Sealer, Token

HOUR = 3_600_000
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TIMES = st.integers(0, 4_000_000_000_000)
TOKENS = st.builds(
    Token,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    TIMES,
    TIMES,
)
SEALER = Sealer(b"s" * 32)


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("begin", "months", "end"),
    [
        ((2026, 1, 15, 8), 1, (2026, 2, 15, 8)),
        ((2026, 1, 31, 8), 1, (2026, 2, 28, 8)),
        ((2027, 12, 31), 2, (2028, 2, 29)),
        ((2026, 3, 31), 12, (2027, 3, 31)),
    ],
)
def test_a_month_ends_on_the_same_day_or_the_last(
    begin: tuple[int, ...], months: int, end: tuple[int, ...]
) -> None:
    assert Length(months=months).end(ms(*begin) + 7) == ms(*end) + 7


@given(TIMES, st.integers(1, 120))
def test_a_month_is_28_days_at_least_and_31_at_most(begin: int, months: int) -> None:
    hours = (Length(months=months).end(begin) - begin) / HOUR

    assert months * 28 * 24 <= hours <= months * 31 * 24


def test_what_has_no_length_does_not_end() -> None:
    assert Length().end(5) == 0
    assert Length(hours=2).end(5) == 5 + 2 * HOUR


@given(TOKENS)
def test_a_token_is_read_as_it_was_written_by_its_site_for_its_host_alone(token: Token) -> None:
    text = SEALER.seal(token, "a.example")

    assert SEALER.open(text, "a.example") == token
    for other, host in ((SEALER, "b.example"), (Sealer(b"t" * 32), "a.example")):
        with pytest.raises(PassNotValid):
            other.open(text, host)


@given(TOKENS, st.integers(3, 69), st.sampled_from("Az09_-"))
def test_a_token_with_another_letter_is_none(token: Token, place: int, letter: str) -> None:
    text = SEALER.seal(token, "")
    spoiled = text[:place] + letter + text[place + 1 :]

    if spoiled[:69] != text[:69]:  # The last letter has bits that mean nothing.
        with pytest.raises(PassNotValid):
            SEALER.open(spoiled, "")


def test_a_nonce_is_for_one_line_of_one_pass() -> None:
    nonces = {SEALER.nonce(bytes([n]) * 16, line) for n in (1, 2) for line in (1, 2)}

    assert len(nonces) == 4


def test_a_state_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(PassNotValid):
        Pass.from_state(None)
    with pytest.raises(ConfigError):
        Pass.from_state({"plan": "x"})


@given(st.binary(min_size=12, max_size=12))
def test_a_code_is_read_however_it_is_typed(random: bytes) -> None:
    code = code_of(random)

    typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")

    assert parse_code(typed) == parse_code(code) == code


@given(st.binary(min_size=12, max_size=12), st.integers(0, 19), st.sampled_from(ALPHABET))
def test_one_wrong_character_of_a_code_shows(random: bytes, place: int, letter: str) -> None:
    digits = code_of(random).replace("-", "")
    mistyped = digits[:place] + letter + digits[place + 1 :]

    if mistyped != digits:
        with pytest.raises(CouponNotValid):
            parse_code(mistyped)


@pytest.mark.parametrize("text", ["", "A", "7" * 19, "7" * 21, "U" * 20, "é" * 20, "7" * 10_000])
def test_what_is_no_code_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(CouponNotValid):
        parse_code(text)


def test_a_gift_has_the_same_code_for_its_retries_alone() -> None:
    hashers = [CodeHasher(b"a" * 32), CodeHasher(b"b" * 32)]
    named = list(itertools.product(hashers, (b"c" * 32, b"d" * 32), ("key", "other")))

    codes = {hasher.gift(channel, key) for hasher, channel, key in named}

    assert len(codes) == len(named)
    assert all(parse_code(code) == code for code in codes)
    assert hashers[0].gift(b"c" * 32, "key") in codes
