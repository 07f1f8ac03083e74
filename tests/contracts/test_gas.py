"""No transaction costs more than 1 % above ``docs/gas.json``, and the table shows that file."""

from __future__ import annotations

import json
import re

import pytest

from scripts import gas, gas_page


@pytest.fixture(scope="module")
def figures() -> dict[str, int]:
    """Measured anew."""
    return gas.measure()


@pytest.fixture(scope="module")
def committed() -> dict[str, int]:
    """As written down."""
    figures: dict[str, int] = json.loads(gas.FIGURES_FILE.read_text(encoding="utf-8"))
    return figures


def test_no_transaction_costs_more_than_is_written_down(
    figures: dict[str, int], committed: dict[str, int]
) -> None:
    assert gas.grown(figures, committed) == []


def test_every_row_of_the_table_is_measured(figures: dict[str, int]) -> None:
    assert {row.name for row in gas_page.ROWS} == set(figures)


def test_the_page_says_what_the_figures_say(committed: dict[str, int]) -> None:
    assert gas.TABLE_FILE.read_text(encoding="utf-8") == gas_page.page(committed)


CONTRACT_PAGE = gas.DOCS / "contract.md"
COST = re.compile(r"^\| ([a-z -]+) \| ([\d,]*) ?\| ([\d,]+) \|$", re.MULTILINE)


def test_the_page_of_the_contract_says_what_the_figures_say(committed: dict[str, int]) -> None:
    said = COST.findall(CONTRACT_PAGE.read_text(encoding="utf-8"))

    assert len(said) == 12
    for call, in_eth, in_erc20 in said:
        assert in_erc20 == f"{committed[f'{call}, ERC-20']:,}"
        assert in_eth == (f"{committed[key]:,}" if (key := f"{call}, ETH") in committed else "")


@pytest.mark.parametrize(
    "row", [row for row in gas_page.ROWS if row.reach], ids=lambda row: row.name
)
def test_the_figures_to_reach_are_reached(figures: dict[str, int], row: gas_page.Row) -> None:
    assert row.reach is not None
    assert figures[row.name] <= row.reach


def test_break_even_is_the_first_count_that_costs_less() -> None:
    count = gas_page.break_even(102_321, 21_000)
    assert (count - 1) * 21_000 <= 102_321 < count * 21_000


def test_the_estimate_replaces_the_charges_of_today() -> None:
    """A cold new slot costs 2,100 + 20,000 today and 2,100 + 100 + 10,000 + 64 x 1,530 then."""
    new_slot = gas_page.StateUse("", 1, 0, 0)
    changed_slot = gas_page.StateUse("", 0, 1, 0)
    assert gas_page.repriced(new_slot, 22_100) == 2_100 + 100 + 10_000 + 64 * 1_530
    assert gas_page.repriced(changed_slot, 5_000) == 2_100 + 100 + 10_000


def test_growth_over_one_percent_is_reported() -> None:
    assert gas.grown({"open, ETH": 1010}, {"open, ETH": 1000}) == []
    assert gas.grown({"open, ETH": 1011}, {"open, ETH": 1000}) != []
    assert gas.grown({"something new": 1}, {}) != []
