"""Statements, and how they are shown: whatever the movements are, they add up; whatever texts are
in them, a page shows them as texts and a spreadsheet computes nothing.
"""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.cli.statement import month_period
from channelpay.cli.statement_shown import page, rows, statement_members
from channelpay.errors import InputError
from channelpay.payer.records import ETHER
from channelpay.protocol.statements import (
    Movement,
    Period,
    Sheet,
    Statement,
    group_of,
    statement,
)
from channelpay.protocol.types import NATIVE, Address, ChannelId

PARTIES = (Address(b"\x01" * 20), Address(b"\x02" * 20), NATIVE)
PATHS = st.sampled_from(["/a/one", "/a/two?x=1", "/b/one", "/", "/c", "/a/<b>&\"'"])
amounts = st.integers(0, 10**30)


@st.composite
def movements(draw: st.DrawFn) -> Movement:
    kind = draw(st.sampled_from(["sale", "tab", "tab-payment", "refund", "pass"]))
    amount, off, on_tab = draw(amounts), draw(amounts), draw(amounts)
    if kind == "refund":
        amount = -amount
    item = draw(PATHS.map(lambda path: f"GET https://site.example{path}") | st.text(max_size=30))
    return Movement(draw(st.integers(0, 100)), kind, item, amount, amount + off + on_tab, on_tab)


sheets = st.lists(
    st.builds(
        Sheet,
        st.binary(min_size=32, max_size=32).map(ChannelId),
        amounts,
        amounts,
        st.lists(movements(), max_size=12),
    ),
    max_size=3,
)
moments = st.none() | st.integers(0, 100)


def statement_of(found: list[Sheet], begin: int | None, end: int | None) -> Statement:
    return statement(PARTIES, found, Period(begin, end))


@given(sheets, st.integers(0, 100), moments)
def test_two_periods_add_up_to_both_and_each_to_the_books(
    found: list[Sheet], cut: int, begin: int | None
) -> None:
    first, second = statement_of(found, begin, cut), statement_of(found, cut, None)
    both = statement_of(found, None if begin is None else min(begin, cut), None)

    if begin is None or begin <= cut:
        assert first.total + second.total == both.total
    for one, sheet in zip(second.balances, found, strict=True):
        assert one.opening + one.amount == one.closing == sheet.spent
    for one, later in zip(first.balances, second.balances, strict=True):
        assert one.opening + one.amount == one.closing
        assert (begin is not None and begin > cut) or one.closing == later.opening
    for made in (first, second, both):
        assert made.total == sum(row.amount for row in made.balances)
        for line in made.lines:
            assert line.list_price - line.discount - line.on_tab == line.amount


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


HOSTILE = [
    "<script>alert(1)</script>",
    "GET https://site.example/<img src=x onerror=alert(1)>/",
    '"><svg onload=alert(1)>',
    "=1+1",
    "@SUM(A1)",
    "+1",
    "-2+3",
    "\t=1",
    'a,b"c\nd',
]


@pytest.mark.parametrize("item", HOSTILE)
def test_what_others_chose_is_data_wherever_it_is_shown(item: str) -> None:
    sheet = Sheet(ChannelId(b"\x07" * 32), 5, 0, [Movement(1, "sale", item, 5, 5)])
    one = statement_of([sheet], None, None)

    shown = Page(page([one], {NATIVE: ETHER}))
    listed = list(csv.reader(io.StringIO(rows([one]))))

    assert not shown.tags & {"script", "img", "svg"}
    assert f"sale: {group_of(item)}" in shown.cells
    assert not [cell for row in listed for cell in row if cell[:1] in ("=", "+", "@", "\t", "\r")]
    assert not [cell for row in listed for cell in row if cell[:1] == "-" and not is_number(cell)]
    assert group_of(item) in listed[1][5]
    assert json.loads(json.dumps(statement_members(one)))["lines"][0]["group"] == group_of(item)


def is_number(text: str) -> bool:
    return text.removeprefix("-").isdigit()


def test_a_group_is_the_first_part_of_a_path_and_the_same_for_each_query() -> None:
    assert group_of("GET https://s.example/a/one?x=1") == "GET https://s.example/a/*"
    assert group_of("GET https://s.example/a/b/two body=sha256:00") == "GET https://s.example/a/*"
    assert group_of("GET https://s.example/one") == "GET https://s.example/*"
    assert group_of("TAB what is owed") == "TAB what is owed"


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-00", "26-01", "2026-1", "1969-12"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        month_period(text)


def test_a_month_ends_where_the_next_one_begins() -> None:
    assert month_period("2026-12").end == month_period("2027-01").begin
