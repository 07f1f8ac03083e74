"""A site with incentives and its reader, each a process: what a page costs, and what is settled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.programs import REPOSITORY, Workplace, url_in
from tests.e2e.world import Person, World

pytestmark = pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")

EXAMPLE = REPOSITORY / "examples" / "get_paid_discounts.py"
LIST = 10**15
LETTER = 10**13


def paid(reader: Person, *arguments: str) -> list[dict[str, Any]]:
    done = reader.do("pay", *arguments, "--max", "0.001", "--deposit", "0.01", "--json")
    return [json.loads(line) for line in done.errors.splitlines()]


def test_what_a_reader_pays_with_discounts_is_what_reaches_the_chain(
    world: World, reader: Person, workplace: Workplace
) -> None:
    with workplace.serving("python", EXAMPLE) as line:
        page = f"{url_in(line)}/articles"
        stranger = reader.do("offers", f"{page}/one", "--json").result
        first = paid(reader, *(f"{page}/{name}" for name in ("one", "two", "three")))
        before = reader.do("offers", f"{page}/four", "--json").result["yours"]
        held = reader.do("points", "show", f"{page}/four", "--json").result
        (fourth,) = paid(reader, f"{page}/four", "--points", "19")
        (shouted,) = paid(reader, f"{url_in(line)}/shout/hello")
        closed = reader.do("channel", "close", fourth["channelId"], "--json").result

    kinds = [one["kind"] for one in stranger["offers"]]
    assert kinds == ["per-request", "first-free", "volume", "cash-back", "points"]
    assert stranger["yours"] is None
    # The first is free; the third uses the credit of the second.
    assert [int(one["cost"]) for one in first] == [0, LIST, LIST * 9 // 10]
    assert [one["label"] for one in first[2]["why"]] == ["your credit"]
    # Two were paid in this month, so that the fourth has the discount, then credit; then points.
    credit = LIST * 9 // 100
    assert int(before["amount"]) == LIST * 8 // 10 - credit
    assert (int(held["points"]), int(held["credit"])) == (19, credit)
    assert int(fourth["cost"]) == LIST * 8 // 10 - credit - 19 * 5 * 10**12
    assert [one["label"] for one in fourth["why"]] == [
        "volume discount",
        "your credit",
        "loyalty points",
    ]
    assert int(shouted["cost"]) == 5 * LETTER
    total = sum(int(one["cost"]) for one in (*first, fourth, shouted))
    assert int(closed["settled"]) == total
