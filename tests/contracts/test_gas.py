"""No transaction costs more than 1 % above ``docs/gas.json``, and the table shows that file."""

from __future__ import annotations

import json

import pytest

from scripts import gas


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
    assert {row.name for row in gas.ROWS} == set(figures)


def test_the_page_says_what_the_figures_say(committed: dict[str, int]) -> None:
    assert gas.TABLE_FILE.read_text(encoding="utf-8") == gas.page(committed)


@pytest.mark.parametrize(("row", "gas_max"), [("open, ETH", 51_000), ("close, ETH", 56_000)])
def test_a_channel_stays_cheap(figures: dict[str, int], row: str, gas_max: int) -> None:
    assert figures[row] <= gas_max


def test_growth_over_one_percent_is_reported() -> None:
    assert gas.grown({"open, ETH": 1010}, {"open, ETH": 1000}) == []
    assert gas.grown({"open, ETH": 1011}, {"open, ETH": 1000}) != []
    assert gas.grown({"something new": 1}, {}) != []
