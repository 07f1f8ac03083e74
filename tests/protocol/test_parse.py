"""Values from outside: read strictly, or refused with an InputError that repeats little of them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import InputError
from channelpay.protocol.parse import (
    parse_address,
    parse_amount,
    parse_bytes32,
    parse_chain_id,
    parse_channel_id,
    parse_json_object,
    parse_signature,
    parse_text,
)
from channelpay.protocol.text import checksum_address, to_hex
from tests.protocol.strategies import addresses, amounts, bytes32, chain_ids

DETAIL_MAX = 200
HEX64 = "ab" * 32

NOT_AMOUNTS: list[object] = [
    *(None, True, 0, 7, 1.5, [], {}, "", " 1", "1 ", "1\n", "+1", "-1", "-0", "00", "01", "1.0"),
    *("1e5", "0x10", "1_000", "Infinity", "NaN", "\u0661", "\u00b2", "\uff11"),
    *(str(2**128), str(2**256), "9" * 39, "9" * 5000),
]
NOT_BYTES32: list[object] = [
    *(None, 0, b"", [], "", "0x", HEX64, "0X" + HEX64, "0x" + HEX64[:-1], "0x" + HEX64 + "00"),
    *("0x" + HEX64.upper(), "0x" + HEX64[:-1] + "g", "0x" + HEX64[:-1] + "\n", "0x" + "9" * 5000),
    *("0x" + HEX64[:-1] + "\u0661", "0x" + HEX64[:-2] + " 1", "0x" + HEX64[:-2] + "_1"),
]
NOT_CHAIN_IDS: list[object] = [None, True, "1", 1.0, 0, -1, 2**53, 10**400, [1], {}]
NOT_JSON_OBJECTS = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"7",
    b"{",
    b'{"a":1,}',
    b"{'a':1}",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1,"a":2}',
    b'{"a":{"b":1,"b":1}}',
    b'{"a":1,"\\u0061":1}',
    b'{"a":01}',
    b'{"a":"\n"}',
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b"\xef\xbb\xbf{}",
    '{"a":1}'.encode("utf-16"),
    b'{"a":' * 100_000,
    b"[" * 100_000,
    b'{"a":' + b"1" * 100_000 + b"}",
    b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
]


@given(addresses)
def test_address_is_read_in_any_case(address: bytes) -> None:
    lower = to_hex(address)
    assert parse_address(lower) == parse_address(checksum_address(address)) == address
    assert parse_address("0x" + lower[2:].upper()) == address


@given(bytes32)
def test_bytes32_round_trips(value: bytes) -> None:
    assert parse_channel_id(to_hex(value)) == parse_bytes32(to_hex(value), "salt") == value


@given(st.binary(min_size=65, max_size=65))
def test_signature_round_trips(value: bytes) -> None:
    assert parse_signature(to_hex(value)) == value


@given(amounts)
def test_amount_round_trips(amount: int) -> None:
    assert parse_amount(str(amount), "amount") == amount


@given(chain_ids)
def test_chain_id_is_a_number(chain_id: int) -> None:
    assert parse_chain_id(chain_id) == chain_id


@pytest.mark.parametrize("value", NOT_AMOUNTS)
def test_amount_is_a_canonical_decimal_string(value: object) -> None:
    refused(lambda: parse_amount(value, "amount"))


@pytest.mark.parametrize("value", NOT_BYTES32)
def test_channel_id_is_lower_case_hex_of_its_length(value: object) -> None:
    refused(lambda: parse_channel_id(value))


@pytest.mark.parametrize("value", NOT_CHAIN_IDS)
def test_chain_id_is_a_positive_whole_number(value: object) -> None:
    refused(lambda: parse_chain_id(value))


@pytest.mark.parametrize("data", NOT_JSON_OBJECTS, ids=lambda data: repr(data[:16]))
def test_json_is_one_object_in_utf8_with_unique_names(data: bytes) -> None:
    refused(lambda: parse_json_object(data, "credential"))


def test_json_may_hold_members_nobody_asked_for() -> None:
    assert parse_json_object(b'{"units":1.5,"amount":"7"}', "receipt")["amount"] == "7"


@pytest.mark.parametrize("value", [None, 7, b"a", "", "a" * 11, "\ud800", "ok\udfff"])
def test_text_is_short_and_can_be_written_as_utf8(value: object) -> None:
    refused(lambda: parse_text(value, "realm", 10))


def test_text_may_be_empty_where_the_field_says_so() -> None:
    assert parse_text("", "description", 10, at_least=0) == ""


def test_text_beyond_the_basic_plane_is_no_surrogate() -> None:
    escaped = json.dumps({"a": "\U0001f600"}).encode()
    assert parse_text(parse_json_object(escaped, "x")["a"], "a", 10) == "\U0001f600"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(anything)
def test_every_reader_reads_or_refuses(value: object) -> None:
    readers: list[Callable[[object], object]] = [
        parse_address,
        parse_channel_id,
        parse_signature,
        lambda value: parse_bytes32(value, "hash"),
        lambda value: parse_amount(value, "amount"),
        parse_chain_id,
        lambda value: parse_text(value, "text", 40),
    ]
    for reader in readers:
        read_or_refused(reader, value)


@given(st.binary() | st.text().map(lambda text: json.dumps({text: text}).encode()))
def test_json_is_read_or_refused(data: bytes) -> None:
    read_or_refused(lambda value: parse_json_object(data, "credential"), data)


def read_or_refused(reader: Callable[[object], object], value: object) -> None:
    refusal = refusal_of(reader, value)
    assert refusal is None or len(refusal.detail) < DETAIL_MAX


def refusal_of(reader: Callable[[object], object], value: object) -> InputError | None:
    try:
        reader(value)
    except InputError as error:
        return error
    return None


def refused(read: Callable[[], object]) -> None:
    with pytest.raises(InputError) as refusal:
        read()
    assert len(refusal.value.detail) < DETAIL_MAX
