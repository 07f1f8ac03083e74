"""``channelpay pay URL…``: fetch what costs something, as curl would."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

import click

from channelpay.cli.common import (
    Setting,
    chosen_network,
    format_amount_of,
    open_payer,
    parse_amount_of,
    pass_output,
    setting_options,
    short,
    token_option,
)
from channelpay.cli.config import read_settings
from channelpay.cli.consent import dry_run_option
from channelpay.cli.limits import BudgetSettings, TokenBudget, default_budget
from channelpay.cli.networks import Network
from channelpay.cli.offers import price_lines, price_members
from channelpay.cli.output import Output
from channelpay.cli.over_limit import Asking, in_units, token_of
from channelpay.cli.passes_shown import report_pass
from channelpay.cli.pay_preview import preview_payments
from channelpay.cli.tabs_shown import tab_members, tab_text
from channelpay.errors import BudgetExceeded, InputError
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address

if TYPE_CHECKING:
    import httpx2

    from channelpay.payer.budgets import Question
    from channelpay.payer.client import Payer
    from channelpay.payer.limits import Limits
    from channelpay.payer.records import Token
    from channelpay.payer.steps import Paid


_OPTIONS = {
    "request": "--max",
    "metered": "--max-cost",
    "day": "--max-day",
    "deposit": "--deposit",
    "channel": "--max-deposit",
    "tab": "--max-tab",
}
"""The options that count before the limits of the settings file."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options allow, as text: amounts need the token's decimals."""

    options: Mapping[str, str | None]
    settings: BudgetSettings = field(default_factory=BudgetSettings)
    network: Network | None = None

    def limits(self, token: Token) -> Limits:
        from channelpay.payer.limits import Limits

        budget = self._budget_of(token)

        def amount(name: str, option: str = "") -> int | None:
            text = self.options.get(option or name)
            if text is not None:
                return parse_amount_of(text, token, _OPTIONS[option or name])
            return None if budget is None else budget.amount(name, token)

        deposit, deposit_max = amount("deposit") or 0, amount("channel") or 0
        return Limits(
            token=token.address,
            price_max=amount("request") or 0,
            deposit_max=max(deposit, deposit_max),
            deposit=deposit,
            top_up=deposit if deposit_max > deposit else 0,
            total_max=amount("total"),
            metered_max=amount("metered"),
            day_max=amount("day"),
            origin_day_max=amount("origin_day", "day"),
            tab_max=self._tab_max(token),
        )

    def _tab_max(self, token: Token) -> int:
        text = self.options.get("tab")
        return 0 if text is None else parse_amount_of(text, token, _OPTIONS["tab"])

    def _budget_of(self, token: Token) -> TokenBudget | None:
        """Defaults are for who says nothing of a price at all."""
        found = self.settings.of(token.address, self.network)
        if found is None and not self.options.get("request") and not self.options.get("metered"):
            return default_budget(token.address, self.network)
        return found


@click.command(
    epilog="Example: channelpay pay https://example.org/page --max 0.001 --deposit 0.05 -O"
)
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("-o", "--output", "file", type=click.Path(path_type=Path), help="Write to this file.")
@click.option("-O", "--remote-name", is_flag=True, help="Write to files named as in the URLs.")
@click.option(
    "--max", "request", metavar="AMOUNT", help="Most that one may cost (default: the budget's)."
)
@click.option(
    "--max-cost",
    "metered",
    metavar="AMOUNT",
    help="Most that one may cost whose price is by the unit, a stream for example (else --max).",
)
@click.option(
    "--max-day",
    "day",
    metavar="AMOUNT",
    help="Most to promise today, with what was before (default: the budget's).",
)
@click.option("--deposit", metavar="AMOUNT", help="Open a channel with this much, if none is open.")
@click.option(
    "--max-deposit",
    "channel",
    metavar="AMOUNT",
    help="Top the channel up by --deposit when it is used up, to this much at most.",
)
@click.option(
    "--gasless",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Have a site that offers it pay the gas; auto: if the account has no ether for it.",
)
@click.option(
    "--points", type=click.IntRange(0, 10**18 - 1), help="Spend so many loyalty points on each."
)
@click.option(
    "--max-tab",
    "tab",
    metavar="AMOUNT",
    help="Owe a site that gives credit up to this much, and pay it when it is due.",
)
@click.option(
    "--keep",
    is_flag=True,
    help="Keep what you buy in your books, with a receipt that the site signed, if it does.",
)
@dry_run_option
@token_option
@setting_options
@click.option("--json", "as_json", is_flag=True, help="The receipts on stderr as JSON lines.")
@pass_output
def pay(  # noqa: PLR0913  each is one option
    output: Output,
    urls: tuple[str, ...],
    file: Path | None,
    *,
    remote_name: bool,
    gasless: str,
    points: int | None,
    keep: bool,
    dry_run: bool,
    token: Address,
    setting: Setting,
    as_json: bool,
    **limits: str | None,
) -> int:
    """Fetch URLs and pay for them over one channel.

    The content goes to standard output or to files as it comes, what was paid to standard error.
    Nothing is paid beyond --max for each URL, or beyond --max-cost where the price is that of a
    unit; there it ends when the limit is reached. Where neither is given, the budget of the
    settings file holds, or a small one. Beyond a limit you are asked at a terminal, and refused in
    a program. No channel is opened without a deposit, here or in the settings. The first URL that
    fails ends it. With --dry-run each URL is asked for without paying, and seen by itself.
    """
    output.as_json = as_json
    if file is not None and (remote_name or len(urls) > 1):
        raise InputError("--output takes the content of one URL", hint="Use -O for several.")
    network = chosen_network(click.get_current_context())
    wish = Wish(limits, read_settings().budget, network)
    with paying(setting, output, token, wish, gasless) as (payer, described):
        if dry_run:
            return preview_payments(output, payer, urls, described, gasless)
        payer.state.purchases.are_kept = keep
        for url in urls:
            target = Path(_remote_name(url)) if remote_name else file
            _fetch(output, payer, described, _Wanted(url, target, _headers(points)))
    return 0


@contextmanager
def paying(
    setting: Setting, output: Output, token: Address, wish: Wish, gasless: str
) -> Iterator[tuple[Payer, Token]]:
    """The payer, and the token in which the amounts were given."""
    asking = Asking(output)

    def confirm(question: Question) -> bool:
        return asking.confirm(payer, question)

    with open_payer(setting, output, confirm=confirm, gasless=gasless) as payer:
        described = token_of(payer, token)
        payer.allow(wish.limits(described))
        yield payer, described


class _Wanted(NamedTuple):
    """What is fetched, and where it goes."""

    url: str
    target: Path | None
    headers: dict[str, str]


def _fetch(output: Output, payer: Payer, token: Token, wanted: _Wanted) -> None:
    from channelpay.payer.httpx import error_of_response, is_final, paid_get

    url, target = wanted.url, wanted.target
    try:
        # The file comes first: nothing is paid for what cannot be kept.
        with payer.purchase(url) as purchase:
            got = paid_get(payer, url, purchase.key, wanted.headers)
            with _opened(target) as sink, got as response:
                if not response.is_success:
                    purchase.is_over = is_final(response)
                    error = error_of_response(response, payer)
                    error.detail = f"{url}: {error.detail}"
                    raise error
                for chunk in response.iter_bytes():
                    with _writing(target):
                        sink.write(chunk)
                        sink.flush()
            purchase.is_over = True
    except BudgetExceeded as over:
        raise in_units(over, token) from over
    _report(output, payer, token, url, response)


def _headers(points: int | None) -> dict[str, str]:
    """What a site that has loyalty points understands."""
    return {} if points is None else {"Payment-Points": str(points)}


@contextmanager
def _opened(target: Path | None) -> Iterator[IO[bytes]]:
    """Where the content goes: a file, complete or not there at all; a pipe or device as it is; or
    standard output.
    """
    if target is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with _writing(target):
        direct = target.exists() and not target.is_file()
        draft = target if direct else target.with_name(f".{target.name}.{os.getpid()}")
        file = draft.open("wb" if direct else "xb")
    try:
        yield file
        with _writing(target):
            file.close()
            if not direct:
                draft.replace(target)
    finally:
        with suppress(OSError):
            file.close()
        if not direct:
            draft.unlink(missing_ok=True)


@contextmanager
def _writing(target: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if target is None:
            raise
        raise InputError(f"{target} cannot be written: {error.strerror}") from error


def _remote_name(url: str) -> str:
    """The last part of the URL's path; never one that leaves the folder."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        return "index.html"
    return name


def _report(
    output: Output, payer: Payer, token: Token, url: str, response: httpx2.Response
) -> None:
    paid: Paid | None = response.extensions["channelpay"]
    if paid is not None and paid.by_pass is not None:
        report_pass(output, url, response.status_code, paid.by_pass)
        return
    if paid is None:
        output.note(f"free: {url}", {"url": url, "status": response.status_code, "cost": "0"})
        return
    entry = payer.state.channel(paid.channel_id)
    members = {
        "url": url,
        "status": response.status_code,
        "cost": str(paid.cost),
        "channelId": to_hex(paid.channel_id),
        "spent": str(entry.spent),
        "deposit": str(entry.deposit),
    }
    cost, spent, deposit = (
        format_amount_of(amount, token) for amount in (paid.cost, entry.spent, entry.deposit)
    )
    text = f"paid {cost}: {url} ({spent} of {deposit} spent in channel {short(paid.channel_id)})"
    lines = [text]
    if paid.price is not None:
        members |= price_members(paid.price)
        lines += price_lines(paid.price, token)
    if paid.tab is not None:
        members |= {"tab": tab_members(paid.tab)}
        lines.append(f"  {tab_text(paid.tab, token)}")
    output.note("\n".join(lines), members)
