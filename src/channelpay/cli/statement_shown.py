"""How a statement is shown: as a page to print, as rows for a spreadsheet, as JSON, and as a table.

What payers and sites chose (URLs, names of tokens) is data there: escaped in the page, and never a
formula in the rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from channelpay.cli.common import format_amount_of, short
from channelpay.cli.output import visible
from channelpay.payee.style import STYLE
from channelpay.protocol.statements import Line, Period, Statement
from channelpay.protocol.text import checksum_address, to_hex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from channelpay.payee.terms import Token as PayeeToken
    from channelpay.payer.records import Token
    from channelpay.protocol.types import Address

    Tokens = Mapping[Address, Token | PayeeToken]

_COLUMNS = ("What", "Number", "List price", "Taken off", "On the tab", "Amount")
_ROW = (
    "payer",
    "payee",
    "token",
    "row",
    "kind",
    "group",
    "count",
    "listPrice",
    "discount",
    "onTab",
    "opening",
    "amount",
    "closing",
    "settled",
    "time",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PRINTED = """
@media print { body { font-size: .8rem; } main { max-width: none; padding: 0; }
  section { break-after: page; } section:last-child { break-after: auto; }
  table { display: table; width: 100%; overflow: visible; } }
td.number, th.number { text-align: right; white-space: nowrap; }
tfoot td { font-weight: 600; }
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Statement</title>
<style>{style}</style>
</head>
<body>
<main>
{sections}
</main>
</body>
</html>
"""
_SECTION = """<section>
<p class="kicker">Statement, {period}</p>
<h1>{total}</h1>
<dl>
<dt>Payer</dt><dd><code>{payer}</code></dd>
<dt>Payee</dt><dd><code>{payee}</code></dd>
</dl>
<h2>What was sold</h2>
{lines}
<h2>Channels</h2>
{balances}
<h2>Settled on chain</h2>
{settlements}
</section>"""


# --- a page --------------------------------------------------------------------------------------


def page(statements: Sequence[Statement], tokens: Tokens) -> str:
    """A self-contained HTML document, one sheet of paper for each statement."""
    sections = "\n".join(_section(one, tokens) for one in statements)
    return _PAGE.format(style=STYLE + _PRINTED, sections=sections or "<p>Nothing was sold.</p>")


def _section(one: Statement, tokens: Tokens) -> str:
    def amount(number: int) -> str:
        return format_amount_of(number, tokens.get(one.token))

    lines = [(_words(line), *_cells(line, amount)) for line in one.lines]
    channels = [
        (to_hex(row.channel_id), *map(amount, (row.opening, row.amount, row.closing, row.settled)))
        for row in one.balances
    ]
    settled = [(_day(row.time), row.kind, to_hex(row.transaction_hash)) for row in one.settlements]
    return _SECTION.format(
        period=escape(period_text(one.period)),
        total=escape(amount(one.total)),
        payer=checksum_address(one.payer),
        payee=checksum_address(one.payee),
        lines=_html_table(_COLUMNS, lines, ("Total", *[""] * 4, amount(one.total))),
        balances=_html_table(("Channel", "Before", "Amount", "After", "Settled by now"), channels),
        settlements=(
            _html_table(("Sent", "What", "Transaction"), settled, numbers_from=3)
            if settled
            else "<p>No transaction is known here.</p>"
        ),
    )


def _html_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    foot: Sequence[str] = (),
    numbers_from: int = 1,
) -> str:
    def cells(tag: str, texts: Sequence[str]) -> str:
        words, numbers = texts[:numbers_from], texts[numbers_from:]
        made = [f"<{tag}>{escape(text)}</{tag}>" for text in words]
        made += [f'<{tag} class="number">{escape(text)}</{tag}>' for text in numbers]
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(cells("td", row) for row in rows)
    end = f"<tfoot>{cells('td', foot)}</tfoot>" if foot else ""
    return f"<table><thead>{cells('th', heads)}</thead><tbody>{body}</tbody>{end}</table>"


# --- rows ----------------------------------------------------------------------------------------


def rows(statements: Iterable[Statement]) -> str:
    """Comma-separated values (RFC 4180) in base units: a ``line`` for each group, a ``channel`` for
    each balance, a ``transaction`` for each settlement.
    """
    made = io.StringIO()
    writer = csv.DictWriter(made, _ROW, restval="")
    writer.writeheader()
    for one in statements:
        parties = {
            "payer": checksum_address(one.payer),
            "payee": checksum_address(one.payee),
            "token": checksum_address(one.token),
        }
        for row in _rows(one):
            writer.writerow(parties | {name: _cell(value) for name, value in row.items()})
    return made.getvalue()


def _rows(one: Statement) -> Iterator[dict[str, object]]:
    members = statement_members(one)
    yield from ({"row": "line", **line} for line in members["lines"])
    for row in members["channels"]:
        yield {"row": "channel", "group": row.pop("channelId"), **row}
    for row in members["transactions"]:
        hashed, kind, time = row["txHash"], row["kind"], row["time"]
        yield {"row": "transaction", "group": hashed, "kind": kind, "time": time}


def _cell(value: object) -> object:
    """A text that a spreadsheet does not take for a formula. Numbers below zero stay numbers."""
    if not isinstance(value, str) or value.removeprefix("-").isdigit():
        return value
    return f"'{value}" if value.startswith(_FORMULA) else value


# --- JSON and tables -----------------------------------------------------------------------------


def statement_members(one: Statement) -> dict[str, Any]:
    """What programs read; amounts are decimal strings in base units."""
    return {
        "payer": checksum_address(one.payer),
        "payee": checksum_address(one.payee),
        "token": checksum_address(one.token),
        "since": None if one.period.begin is None else _time(one.period.begin),
        "before": None if one.period.end is None else _time(one.period.end),
        "total": str(one.total),
        "lines": [
            {
                "kind": line.kind,
                "group": line.group,
                "count": line.count,
                "listPrice": str(line.list_price),
                "discount": str(line.discount),
                "onTab": str(line.on_tab),
                "amount": str(line.amount),
            }
            for line in one.lines
        ],
        "channels": [
            {
                "channelId": to_hex(row.channel_id),
                "opening": str(row.opening),
                "amount": str(row.amount),
                "closing": str(row.closing),
                "settled": str(row.settled),
            }
            for row in one.balances
        ],
        "transactions": [
            {
                "txHash": to_hex(row.transaction_hash),
                "kind": row.kind,
                "time": _time(row.time),
                "channels": [to_hex(channel) for channel in row.channel_ids],
            }
            for row in one.settlements
        ],
    }


def statements_table(statements: Sequence[Statement], tokens: Tokens) -> Table:
    from rich.table import Column, Table

    table = Table("Payer", Column(_COLUMNS[0], overflow="fold"), *_COLUMNS[1:])
    for one in statements:

        def amount(number: int, of: Statement = one) -> str:
            return format_amount_of(number, tokens.get(of.token))

        for line in one.lines:
            table.add_row(short(one.payer), visible(_words(line)), *_cells(line, amount))
        table.add_row(short(one.payer), "Total", *[""] * 4, amount(one.total), end_section=True)
    return table


def period_text(period: Period) -> str:
    """For people, in days of UTC."""
    since = "" if period.begin is None else f"from {_day(period.begin)}"
    until = "" if period.end is None else f"to {_day(period.end - 1)}"
    return f"{since} {until}".strip() or "all that is known"


def _words(line: Line) -> str:
    return f"{line.kind.replace('-', ' ')}: {line.group}"


def _cells(line: Line, amount: Any) -> tuple[str, ...]:
    return (
        str(line.count),
        *map(amount, (line.list_price, line.discount, line.on_tab, line.amount)),
    )


def _time(milliseconds: int) -> str:
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return moment.isoformat().replace("+00:00", "Z")


def _day(milliseconds: int) -> str:
    return _time(milliseconds)[:10]
