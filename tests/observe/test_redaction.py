"""No secret comes through, however it is written; what is public does."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.observe.redaction import REDACTED, TEXT_CHARS_MAX, redacted
from channelpay.protocol.text import checksum_address, to_hex
from tests.observe.written import SECRETS, Written, shown_parts

AROUND = st.text(max_size=30)


@given(written=SECRETS, before=AROUND, after=AROUND)
def test_no_secret_comes_through(written: Written, before: str, after: str) -> None:
    shown = redacted(f"{before} {written.text} {after}")
    assert set(shown_parts(written, shown)) <= set(shown_parts(written, before + after)), shown


@given(written=SECRETS, control=st.sampled_from("\n\r\t\0\x1b\x7f\u2028\u202e"))
def test_a_control_character_beside_it_hides_no_secret(written: Written, control: str) -> None:
    shown = redacted(f"a{control}{written.text}{control}b")
    assert shown_parts(written, shown) == [], shown


@given(st.text())
def test_a_text_becomes_one_line_that_can_be_printed(text: str) -> None:
    assert redacted(text).isprintable()


@given(st.text(max_size=300))
def test_a_text_that_went_through_does_not_change_again_in_what_it_hides(text: str) -> None:
    once = redacted(text)
    assert redacted(once).count(REDACTED) >= once.count(REDACTED)


ADDRESS = bytes.fromhex("70997970c51812dc3a010c7d01b50e0d17dc79c8")


@pytest.mark.parametrize(
    "text",
    [
        "the chain could not be followed: connection refused",
        f"paid by {checksum_address(ADDRESS)} in {to_hex(ADDRESS)}",
        f"accepted {2**128 - 1} base units",
        "payment required: this costs 0.01 TUSD",
        "GET /articles/2024/how-to-pay-for-a-page.md 200 paid",
        "listening on http://127.0.0.1:8402",
        "the secret is kept; the authorization was refused",
        "/var/lib/channelpay/site/books.sqlite3 is full",
        "f1c0ffee-1234-4678-9abc-def012345678 was used twice",
        "b'content' was sent",
        "Größe 25 µs … ✓",
    ],
)
def test_what_is_public_is_shown_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_an_id_keeps_the_digits_that_name_it() -> None:
    assert redacted(f"closed {to_hex(bytes(range(32)))} now") == "closed 0x00010203… now"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://shop:pw@db:5432/books", "postgresql://[redacted]@db:5432/books"),
        ("https://key@rpc.example/", "https://[redacted]@rpc.example/"),
        ("https://rpc.example/v1?apikey=x&a=1", "https://rpc.example/v1?[redacted]"),
        ("https://rpc.example/v3/0123456789abcdef0123", "https://rpc.example/v3/[redacted]"),
        ("/page?key=x&a=1 200", "/page?key=[redacted]&a=[redacted] 200"),
    ],
)
def test_of_a_url_the_place_stays(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sent Payment abcdefghijklmnop now", "sent Payment [redacted] now"),
        ("sent Bearer abcd1234 now", "sent Bearer [redacted] now"),
        ("sent Basic dXNlcjpwdw== now", "sent Basic [redacted] now"),
        ("got eyJhbGciOiJIUzI1NiJ9 now", "got [redacted] now"),
        ("secret=s3", "secret= [redacted]"),
        ("PWD: s3", "PWD: [redacted]"),
        ("auth-token: s3", "auth-token: [redacted]"),
        ("access_token=s3", "access_token= [redacted]"),
        (r"""'{\'password\': "a'b"}'""", r"""'{\'password\': [redacted]"""),
    ],
)
def test_a_short_secret_is_known_by_what_stands_before_it(text: str, expected: str) -> None:
    assert redacted(text) == expected


def test_control_characters_are_written_as_escapes() -> None:
    shown = redacted("a\nINFO forged\r\x1b[31m\u202ered\x00\udc80")
    assert shown == r"a\nINFO forged\r\x1b[31m\u202ered\x00\udc80"


def test_a_long_text_is_cut_before_a_word_and_not_in_a_secret() -> None:
    secret = "postgresql://shop:hunter2" + "x" * 100 + "@db"
    shown = redacted("y " * (TEXT_CHARS_MAX // 2 - 20) + secret)
    assert "hunter2" not in shown
    assert shown.endswith("y [cut]")


@pytest.mark.parametrize(
    "piece",
    ["a", "://", "a://", "b'", "1, ", "?a", "&a=", "password", "eyJ", "0x", "f", "payment ", "@"],
)
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * TEXT_CHARS_MAX)[:TEXT_CHARS_MAX]
    begun = time.perf_counter()
    redacted(text)
    assert time.perf_counter() - begun < 1.0
