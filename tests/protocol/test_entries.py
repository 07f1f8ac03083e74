"""Entries as the books keep them, and what a sale that is given back undoes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import ConfigError
from channelpay.protocol.entries import (
    Entries,
    EntryKey,
    EntryState,
    Undo,
    canonical,
    decode_state,
    decode_undo,
    encode_state,
    encode_undo,
    merged,
    undone,
)

KEYS = st.builds(EntryKey, st.sampled_from(["pass", "coupon"]), st.sampled_from([b"\0", b"\xff"]))
FIELDS = st.sampled_from(["n", "month", "credit"])
NUMBERS = st.dictionaries(FIELDS, st.integers(-(2**70), 2**70), max_size=3)
UNDO = st.lists(
    st.builds(Undo, KEYS, NUMBERS, st.dictionaries(FIELDS, st.integers(0, 1), max_size=1))
)
VALUES = st.recursive(st.integers() | st.text(), lambda some: st.lists(some, max_size=3))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("", b"x"),
        ("Pass", b"x"),
        ("a-b", b"x"),
        ("x" * 17, b"x"),
        ("pass", b""),
        ("pass", b"x" * 65),
    ],
)
def test_a_key_that_no_entry_can_have_is_refused(kind: str, name: bytes) -> None:
    with pytest.raises(ValueError, match="no entry"):
        EntryKey(kind, name)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_a_state_comes_back_as_it_was(state: EntryState) -> None:
    text = encode_state(state)

    assert decode_state(text) == state
    assert text.isascii()
    assert text.isprintable()


@given(st.dictionaries(st.text(), st.integers(), max_size=4))
def test_numbers_are_written_as_all_else_is(state: dict[str, int]) -> None:
    assert encode_state(state) == canonical(state)


def test_one_state_has_one_text() -> None:
    assert encode_state({"b": 1, "a": "é"}) == encode_state({"a": "é", "b": 1})
    assert canonical({"b": [1, "x"], "a": 2**70}) == '{"a":1180591620717411303424,"b":[1,"x"]}'


@pytest.mark.parametrize("value", [True, 1.0, None, b"x", {"a": 1}, [[False]]])
def test_what_no_entry_holds_is_refused(value: object) -> None:
    state: dict[str, object] = {"value": value}

    with pytest.raises(ConfigError):
        encode_state(state)  # type: ignore[arg-type]


@given(UNDO)
def test_what_is_to_be_undone_comes_back_as_it_was(undo: list[Undo]) -> None:
    text = encode_undo(undo)

    assert list(decode_undo(text)) == undo
    assert (text == "") == (not undo)
    if undo:
        assert len(json.loads(text)) == len(undo)


def test_differences_are_added_and_other_fields_stay() -> None:
    key, other = EntryKey("account", b"a"), EntryKey("account", b"b")
    entries: Entries = {key: {"n": 5, "name": "x", "month": 3}, other: {"n": 9}}

    changed = undone([Undo(key, {"n": -2, "new": 1}), Undo(key, {"n": -1})], entries)

    assert changed == {key: {"n": 2, "name": "x", "month": 3, "new": 1}}


def test_nothing_is_undone_where_the_entry_went_on_or_is_not_there() -> None:
    key, absent = EntryKey("account", b"a"), EntryKey("account", b"b")
    undo = [Undo(key, {"n": -1}, {"month": 2}), Undo(absent, {"n": -1})]

    assert undone(undo, {key: {"n": 5, "month": 3}}) == {}


def test_a_text_is_no_number_to_add_to() -> None:
    key = EntryKey("account", b"a")

    with pytest.raises(ConfigError):
        undone([Undo(key, {"n": 1})], {key: {"n": "5"}})


@given(st.dictionaries(KEYS, NUMBERS), UNDO)
def test_merged_differences_with_the_same_condition_undo_the_same(
    entries: dict[EntryKey, dict[str, int]], undo: list[Undo]
) -> None:
    unconditional = [Undo(one.key, one.add) for one in undo]

    assert undone(merged(unconditional), entries) == undone(unconditional, entries)
    assert len(merged(undo)) == len({(o.key, tuple(o.where.items())) for o in undo})
