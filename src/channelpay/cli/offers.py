"""``channelpay offers URL`` and ``channelpay points show URL``: what a site offers, and what you
have there, before anything is signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    account_option,
    chosen_account,
    format_amount_of,
    open_books,
    pass_output,
    short,
)
from channelpay.cli.output import Output, cells, facts_table, json_option, visible
from channelpay.errors import ConfigError, NotFound
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payer.asking import Offered, Own
    from channelpay.payer.records import Token
    from channelpay.payer.steps import Answer


@click.command(epilog="Example: channelpay offers https://example.org/page")
@click.argument("url")
@account_option
@json_option
@pass_output
def offers(output: Output, url: str, account: str | None) -> None:
    """What a URL costs, and how it can cost less.

    Nothing is signed or promised. Where a channel of yours has paid that site before, it is asked
    what it would cost you now.
    """
    from channelpay.payer.asking import offers_in

    with _asked(url, account) as (answer, own, token):
        listed = offers_in(answer)
        yours = None if own is None else _price_members(own)
        members = {"url": url, "offers": [_members(one) for one in listed], "yours": yours}
        output.show(members, lambda: _table(url, listed, own, token))


@click.group(invoke_without_command=False)
def points() -> None:
    """Loyalty points and credit at a site."""


@points.command(epilog="Example: channelpay points show https://example.org/page")
@click.argument("url")
@account_option
@json_option
@pass_output
def show(output: Output, url: str, account: str | None) -> None:
    """How many points and how much credit you have at a site; URL is a page of it that costs
    something.

    Credit pays for what you buy by itself. Points are spent with: channelpay pay --points.
    """
    with _asked(url, account) as (_, own, token):
        if own is None or own.price.credit is None or own.price.points is None:
            raise NotFound(
                "the site says nothing of points or credit of yours",
                hint="They come with what you buy. See what it offers with: channelpay offers URL",
            )
        members = {
            "url": url,
            "channelId": to_hex(own.channel.channel_id),
            "token": checksum_address(own.channel.channel.token),
            "points": str(own.price.points),
            "credit": str(own.price.credit),
        }
        output.show(members, lambda: _balance(own, token))


@contextmanager
def _asked(url: str, account: str | None) -> Iterator[tuple[Answer, Own | None, Token | None]]:
    """The answer to an unpaid request, and what the account's channels are told, if it has one."""
    from channelpay.payer.asking import Asking
    from channelpay.payer.httpx import run_bare_alone, unpaid
    from channelpay.payer.records import ETHER

    answer = unpaid(url)
    with open_books() as state:
        own = token = None
        if (payer := _payer(account)) is not None:
            own = run_bare_alone(answer.url, Asking(state, payer, answer).run())
        if own is not None:
            address = own.channel.channel.token
            known = state.token(own.channel.deployment.chain_id, address)
            token = ETHER if address == NATIVE else known
        yield answer, own, token


def _payer(account: str | None) -> Any:
    """The chosen account's address; None where none is chosen and none is needed."""
    try:
        return chosen_account(account).address
    except ConfigError:
        if account is not None:
            raise
        return None


def _members(one: Offered) -> dict[str, Any]:
    amounts = {checksum_address(token): str(amount) for token, amount in one.amounts.items()}
    return {
        "id": one.id,
        "kind": one.kind,
        "label": one.label,
        "amounts": amounts,
        "terms": one.terms,
        "plan": one.plan or None,
    }


def _price_members(own: Own) -> dict[str, Any]:
    return {
        "channelId": to_hex(own.channel.channel_id),
        "token": checksum_address(own.channel.channel.token),
        "amount": str(own.price.amount),
        **price_members(own.price),
    }


def _table(url: str, listed: list[Offered], own: Own | None, token: Token | None) -> Table:
    from rich.table import Table

    (title,) = cells(url if listed else f"{url} is free")
    table = Table("Offer", "What", "Terms", title=title)
    for one in listed:
        table.add_row(*cells(f"{one.kind} {one.plan}", one.label, one.terms))
    if own is not None:
        table.add_section()
        amount = format_amount_of(own.price.amount, token)
        why = _reasons(own.price.why, token) or "the list price"
        channel = short(own.channel.channel_id)
        table.add_row(*cells("yours now", amount, f"{why} (channel {channel})"))
    return table


def _balance(own: Own, token: Token | None) -> Table:
    credit = format_amount_of(own.price.credit or 0, token)
    return facts_table({"Points": str(own.price.points), "Credit": credit})


def price_members(price: PriceNote) -> dict[str, Any]:
    """Why something costs what it does, for programs."""
    return {
        "list": str(price.list_price),
        "why": [{"label": label, "delta": str(delta)} for label, delta in price.why],
        "credit": None if price.credit is None else str(price.credit),
        "points": None if price.points is None else str(price.points),
    }


def price_lines(price: PriceNote, token: Token | None) -> list[str]:
    """The same for people: what the site says, which nobody else vouches for."""
    lines = []
    if price.why:
        listed = format_amount_of(price.list_price, token)
        lines.append(f"  list price {listed}: {_reasons(price.why, token)}")
    held = []
    if price.credit:
        held.append(f"credit {format_amount_of(price.credit, token)}")
    if price.points:
        held.append(f"{price.points} points")
    if held:
        lines.append(f"  you have {' and '.join(held)} there")
    return lines


def _reasons(why: tuple[tuple[str, int], ...], token: Token | None) -> str:
    """On one line: a label could bring lines that look like ours."""
    steps = (f"{label} {format_amount_of(delta, token)}" for label, delta in why)
    return " ".join(visible(", ".join(steps)).split())
