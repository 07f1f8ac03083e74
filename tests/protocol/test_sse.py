"""Event streams: what a reader by the letter of the standard sees, and every byte handed on."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import InputError
from channelpay.protocol.sse import (
    EVENT_BYTES_MAX,
    NEED_VOUCHER,
    RECEIPT,
    Event,
    EventReader,
    NeedVoucher,
    need_voucher_event,
    receipt_event,
)
from channelpay.protocol.types import ChannelId
from channelpay.protocol.wire import CREDENTIAL_BYTES_MAX, Receipt
from tests.protocol.strategies import amounts, channel_ids, receipts

needs = st.builds(NeedVoucher, channel_ids, amounts, amounts, amounts)
fragments = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n"),
        *(b"data:", b"data: x", b"data", b"data:  two", b"dataset: x", b": comment", b"id: 7"),
        *(b"event: payment-receipt", b"event:tick", b"event", b"retry: 10", b"\xef\xbb\xbf"),
        *("é€😀".encode(), b"\xff\xfe", b"\0", b" ", b"x" * 50),
    ]
)
streams = st.lists(fragments, max_size=40).map(b"".join)


def read(*chunks: bytes) -> list[Event]:
    reader = EventReader()
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    rest = reader.close()
    return events if rest is None else [*events, rest]


def dispatched(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.name, event.data) for event in events if event.data is not None]


def by_the_standard(stream: bytes) -> list[tuple[str, str]]:
    """The standard's algorithm over a whole stream: decode, split into lines, fill the buffers."""
    text = stream.decode(errors="replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found = []
    name, data = "", ""
    for line in lines[:-1]:
        if not line:
            if data:
                found.append((name, data.removesuffix("\n")))
            name, data = "", ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
    return found


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted({place % (len(stream) + 1) for place in places}), len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds)]


@given(streams, st.lists(st.integers(0, 10_000), max_size=20))
def test_events_are_those_of_the_standard_wherever_the_stream_is_cut(
    stream: bytes, places: list[int]
) -> None:
    assert dispatched(read(*cut(stream, places))) == by_the_standard(stream)


@given(streams, st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_handed_on_is_the_stream_to_the_byte(stream: bytes, places: list[int]) -> None:
    events = read(*cut(stream, places))
    assert b"".join(event.raw for event in events) == stream


@given(streams)
def test_byte_by_byte_the_same_names_own_the_same_bytes(stream: bytes) -> None:
    def owned(events: list[Event]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for event in events:
            found[event.name] = found.get(event.name, b"") + event.raw
        return found

    single = [stream[index : index + 1] for index in range(len(stream))]
    assert owned(read(*single)) == owned(read(stream))


@given(needs)
def test_a_need_for_a_voucher_comes_through_as_it_was(need: NeedVoucher) -> None:
    (event,) = read(need_voucher_event(need))
    assert event.name == NEED_VOUCHER
    assert event.data is not None
    assert NeedVoucher.from_json(event.data) == need


@given(receipts)
def test_a_receipt_comes_through_as_it_was(receipt: Receipt) -> None:
    (event,) = read(receipt_event(receipt))
    assert event.name == RECEIPT
    assert event.data is not None
    assert Receipt.from_json(event.data) == receipt
    assert json.loads(event.data)["status"] == "success"


def test_the_example_of_the_draft_is_read_with_its_line_breaks() -> None:
    channel_id = "0x" + "6d" * 32
    stream = (
        f'event: payment-need-voucher\ndata: {{"channelId":"{channel_id}",\n'
        'data:   "requiredCumulative":"250025",\ndata:   "acceptedCumulative":"250000",\n'
        'data:   "deposit":"500000"}\n\n'
    )
    (event,) = read(stream.encode())
    assert event.data is not None
    expected = NeedVoucher(ChannelId(b"\x6d" * 32), 250_025, 250_000, 500_000)
    assert NeedVoucher.from_json(event.data) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channelId", "0x" + "6D" * 32),
        ("channelId", None),
        ("requiredCumulative", 250_025),
        ("requiredCumulative", "-1"),
        ("acceptedCumulative", "01"),
        ("deposit", str(2**128)),
        ("deposit", ""),
    ],
)
def test_a_need_with_a_malformed_member_is_refused(name: str, value: object) -> None:
    need = NeedVoucher(ChannelId(b"\x6d" * 32), 2, 1, 3)
    members = json.loads(need.to_json()) | {name: value}
    with pytest.raises(InputError):
        NeedVoucher.from_json(json.dumps(members))


def test_a_receipt_over_the_limit_is_refused() -> None:
    with pytest.raises(InputError, match="too large"):
        Receipt.from_json(" " * (CREDENTIAL_BYTES_MAX + 1))


def test_an_event_is_there_with_its_empty_line_whatever_may_follow() -> None:
    reader = EventReader()
    (event,) = reader.feed(b"event: a\rdata: b\r\r")
    assert (event.name, event.data) == ("a", "b")
    (second_half,) = reader.feed(b"\n")
    assert second_half == Event("a", None, b"\n")


def test_an_event_without_its_empty_line_is_none() -> None:
    (rest,) = read(b"event: payment-receipt\ndata: {}\n")
    assert rest == Event(RECEIPT, None, b"event: payment-receipt\ndata: {}\n")


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_event_that_is_too_large_is_handed_on_in_parts_and_the_next_one_read(size: int) -> None:
    stream = b"data: " + b"x" * (3 * EVENT_BYTES_MAX) + b"\ndata: y\n\nevent: b\ndata: c\n\n"
    events = read(*(stream[at : at + size] for at in range(0, len(stream), size)))
    assert b"".join(event.raw for event in events) == stream
    assert dispatched(events) == [("b", "c")]
    assert max(len(event.raw) for event in events) <= EVENT_BYTES_MAX + size


def test_an_event_too_large_for_its_many_lines_is_not_told_either() -> None:
    line = b"data: x\n"
    events = read(*[line] * (EVENT_BYTES_MAX // len(line) + 1), b"\n", b"data: y\n\n")
    assert dispatched(events) == [("", "y")]


def test_the_name_of_a_too_large_event_stays_with_all_its_parts() -> None:
    stream = b"event: payment-receipt\ndata: " + b"x" * (2 * EVENT_BYTES_MAX) + b"\r\n\r\n"
    events = read(*(stream[at : at + 100] for at in range(0, len(stream), 100)))
    assert {event.name for event in events} == {RECEIPT}
