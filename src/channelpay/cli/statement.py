"""``channelpay statement``: what was bought in a period, in few lines, for people and for books."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, books_options, opened
from channelpay.cli.common import (
    account_option,
    chosen_account,
    open_books,
    pass_output,
    rpc_option,
)
from channelpay.cli.output import Output, json_option
from channelpay.cli.payee_views import tokens_at
from channelpay.errors import InputError
from channelpay.protocol.accounts import DAY_MS
from channelpay.protocol.parse import parse_address
from channelpay.protocol.statements import Period

if TYPE_CHECKING:
    from channelpay.cli.statement_shown import Tokens
    from channelpay.protocol.statements import Statement

_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The options that both sides have, as they were given."""

    month: str | None
    since: str | None
    until: str | None
    html: Path | None
    csv: Path | None

    def period(self) -> Period:
        if self.month is not None:
            if self.since or self.until:
                raise InputError("the period is given twice: name a month, or its days")
            return month_period(self.month)
        begin = None if self.since is None else _day(self.since)
        end = None if self.until is None else _day(self.until) + DAY_MS
        return Period(begin, end)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both sides have; the command gets it as ``wanted``."""

    @wraps(command)
    def with_wanted(*arguments: Any, **options: Any) -> Any:
        names = ("month", "since", "until", "html", "csv")
        chosen = {name: options.pop(name) for name in names}
        return command(*arguments, wanted=_Wanted(**chosen), **options)

    file = click.Path(path_type=Path, dir_okay=False)
    decorated: Callable[..., Any] = with_wanted
    for option in (
        click.option("--csv", type=file, metavar="FILE", help="Write rows for a spreadsheet."),
        click.option("--html", type=file, metavar="FILE", help="Write a page to print."),
        click.option("--until", metavar="DATE", help="To this day of UTC, such as 2026-03-31."),
        click.option("--since", metavar="DATE", help="From this day of UTC, such as 2026-01-01."),
        click.option("--month", metavar="YYYY-MM", help="A calendar month of UTC."),
    ):
        decorated = option(decorated)
    return decorated


@click.group()
def statement() -> None:
    """What was bought in a period: many small sales in few lines that add up to the books.

    As a table or JSON, as an HTML page to print (--html) or as rows for a spreadsheet (--csv).
    Without a period it is all that the books know.
    """


@statement.command(
    "payee", epilog="Example: channelpay statement payee --month 2026-03 --html m.html"
)
@click.option("--payer", metavar="ADDRESS", help="Only what this payer bought.")
@_options
@books_options
@rpc_option
@json_option
@pass_output
def of_payee(
    output: Output, *, payer: str | None, wanted: _Wanted, books: Books, rpc: str | None
) -> None:
    """What each payer bought from a site, from its books: a statement for each.

    Works without a node; with --rpc amounts are in the units of every token.
    """
    from channelpay.payee.selling.statements import statements

    address = None if payer is None else parse_address(payer, "payer")
    with opened(books) as store:
        found = statements(store, wanted.period(), address)
    _show(output, found, wanted, tokens_at({one.token for one in found}, rpc))


@statement.command("payer", epilog="Example: channelpay statement payer --since 2026-01-01")
@_options
@account_option
@json_option
@pass_output
def of_payer(output: Output, *, wanted: _Wanted, account: str | None) -> None:
    """What an account of yours bought, from your own books: a statement for each payee.

    Purchases are listed that were kept: see 'channelpay pay --keep'. What others cost is in the
    sums of their channels.
    """
    from channelpay.payer.statements import statements, tokens_of

    address = chosen_account(account).address
    with open_books() as state:
        found = statements(state, address, wanted.period())
        tokens = tokens_of(state, address, {one.token for one in found})
    _show(output, found, wanted, tokens)


def month_period(text: str) -> Period:
    """A calendar month of UTC, from ``2026-03``. Raises :class:`InputError`."""
    match = _MONTH.match(text)
    if match is None or not 1 <= int(match[2]) <= 12 or int(match[1]) < 1970:
        raise InputError(f"{text[:20]!r} is not a month such as 2026-03")
    year, month = int(match[1]), int(match[2])
    following = (year, month + 1) if month < 12 else (year + 1, 1)
    return Period(_milliseconds(year, month), _milliseconds(*following))


def _milliseconds(year: int, month: int, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1000


def _day(text: str) -> int:
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise InputError(f"{text[:20]!r} is not a day such as 2026-03-31") from error
    return int(found.timestamp()) * 1000


def _show(output: Output, found: Sequence[Statement], wanted: _Wanted, tokens: Tokens) -> None:
    from channelpay.cli.statement_shown import page, rows, statement_members, statements_table

    if wanted.html is not None:
        _write(wanted.html, page(found, tokens))
    if wanted.csv is not None:
        _write(wanted.csv, rows(found))
    output.show([statement_members(one) for one in found], lambda: statements_table(found, tokens))


def _write(path: Path, text: str) -> None:
    """Private, since it says who read what; in the place of an older one."""
    from channelpay.private_files import write_private

    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write_private(draft, text.encode())
        draft.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
