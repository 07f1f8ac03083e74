"""What a site says of its prices, as people see it: others' words never act."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from channelpay.cli.budget import _Standing
from channelpay.cli.budget import _table as budget_table
from channelpay.cli.offers import _table as offers_table
from channelpay.cli.offers import price_lines
from channelpay.payer.asking import Offered
from channelpay.payer.budgets import Purse, Spending
from channelpay.payer.records import ETHER
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.types import NATIVE, Address

MARKUP = "[/sale] [link=https://other.example]now[/link]"


def shown(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("member", ["kind", "label", "terms"])
def test_markup_of_a_site_is_shown_as_it_stands(member: str) -> None:
    texts = {"kind": "sale", "label": "a sale", "terms": "today", member: MARKUP}
    offered = Offered("1", amounts={NATIVE: 1}, **texts)

    assert MARKUP in shown(offers_table("https://site.example/", [offered], None, None))


def test_an_origin_is_no_markup() -> None:
    origin = "http://[fe80::1]:80"
    purse = Purse(Address(b"\x01" * 20), 1, NATIVE)
    limits = dict.fromkeys(("request", "origin_day", "day", "total"))
    standing = _Standing(purse, ETHER, limits, [Spending(origin)], 0)

    assert origin in shown(budget_table([standing]))


def test_a_reason_of_a_price_stays_on_its_line() -> None:
    note = PriceNote(2, 1, (("sale\npaid 0 ETH: https://site.example/", -1),))

    assert [line.count("\n") for line in price_lines(note, None)] == [0]
