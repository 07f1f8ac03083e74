"""``channelpay pass``: passes to sites, which pay for pages without further vouchers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    Setting,
    account_option,
    chosen_account,
    chosen_network,
    format_amount_of,
    open_books,
    pass_output,
    setting_options,
    token_option,
)
from channelpay.cli.config import read_settings
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.cli.over_limit import in_units
from channelpay.cli.passes_shown import pass_facts, pass_list, pass_members
from channelpay.cli.pay import Wish, paying
from channelpay.errors import BudgetExceeded
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address

if TYPE_CHECKING:
    from channelpay.payer.client import Payer
    from channelpay.payer.records import Token


@click.group("pass", invoke_without_command=False)
def passes() -> None:
    """Passes: bought once, then nothing is signed for a time, or for a number of pages.

    'channelpay pay' and programs with the same books show them by themselves.
    """


def limit_options(command: Any) -> Any:
    """``--max --deposit --token``, and what every command that pays takes."""
    for option in (
        setting_options,
        token_option,
        click.option(
            "--deposit", metavar="AMOUNT", help="Open a channel with this much, if none is open."
        ),
        click.option(
            "--max", "request", metavar="AMOUNT", help="Most to pay (default: the budget's)."
        ),
    ):
        command = option(command)
    return command


@contextmanager
def buyer(
    output: Output, setting: Setting, token: Address, limits: dict[str, str | None]
) -> Iterator[tuple[Payer, Token]]:
    """The payer within these limits, and the token of the amounts."""
    network = chosen_network(click.get_current_context())
    wish = Wish(limits, read_settings().budget, network)
    with paying(setting, output, token, wish, "auto") as (payer, described):
        try:
            yield payer, described
        except BudgetExceeded as over:
            raise in_units(over, described) from over


@passes.command(epilog="Example: channelpay pass buy https://example.org/ day --max 0.005")
@click.argument("url")
@click.argument("plan")
@click.option("--renew", is_flag=True, help="Buy it again when it ends, for this price at most.")
@limit_options
@json_option
@pass_output
def buy(
    output: Output,
    url: str,
    plan: str,
    *,
    renew: bool,
    setting: Setting,
    token: Address,
    **limits: str | None,
) -> None:
    """Buy the pass PLAN of the site of URL.

    'channelpay offers' lists the passes of a page. Run again after it was broken off, this goes on
    with the same purchase.
    """
    from channelpay.payer.buying import buy_pass

    with buyer(output, setting, token, limits) as (payer, _):
        held = buy_pass(payer, url, plan, renews=renew)
    output.show(pass_members(held), lambda: pass_facts(held))


@passes.command("list", epilog="Example: channelpay pass list --json")
@account_option
@json_option
@pass_output
def list_(output: Output, account: str | None) -> None:
    """The passes of the account, those that ended among them."""
    payer = chosen_account(account).address
    with open_books() as state:
        held = state.passes.all(payer)
    output.show([pass_members(one) for one in held], lambda: pass_list(held))


@passes.command(epilog="Example: channelpay pass show day")
@click.argument("name", metavar="PASS")
@account_option
@json_option
@pass_output
def show(output: Output, name: str, account: str | None) -> None:
    """One pass, as the last answer of its site told it."""
    from channelpay.payer.buying import pass_named

    payer = chosen_account(account).address
    with open_books() as state:
        held = pass_named(state.passes.all(payer), name)
    output.show(pass_members(held), lambda: pass_facts(held))


@passes.command(epilog="Example: channelpay pass renew day --no")
@click.argument("name", metavar="PASS")
@click.option("--yes/--no", "renews", default=True, help="Whether it is to renew itself.")
@account_option
@json_option
@pass_output
def renew(output: Output, name: str, *, renews: bool, account: str | None) -> None:
    """Whether a pass is bought again when it ends, with the first page that needs it then.

    It never costs more than it did, and stays within your budgets: else the page is paid for alone.
    """
    from channelpay.payer.buying import pass_named

    payer = chosen_account(account).address
    with open_books() as state:
        held = pass_named(state.passes.all(payer), name)
        state.passes.renew(held.pass_id, renews=renews)
        held = pass_named(state.passes.all(payer), name)
    output.show(pass_members(held), lambda: pass_facts(held))


@passes.command(epilog="Example: channelpay pass refund day")
@click.argument("name", metavar="PASS")
@limit_options
@json_option
@pass_output
def refund(
    output: Output, name: str, setting: Setting, token: Address, **limits: str | None
) -> None:
    """Give a pass back for what is left of it, if its site does that.

    What comes back is on the channel, to be spent there. It also comes home when the channel is
    closed, unless the site has settled it on chain by then.
    """
    from channelpay.payer.buying import pass_named, refund_pass

    with buyer(output, setting, token, limits) as (payer, described):
        held = pass_named(payer.state.passes.all(payer.address), name)
        amount = refund_pass(payer, held)
    members = {"pass": to_hex(held.pass_id), "refunded": str(amount)}
    shown = {"Came back": format_amount_of(amount, described)}
    output.show(members, lambda: facts_table(shown))
