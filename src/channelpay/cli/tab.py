"""``channelpay tab``: what a payer owes for what it read already, and what a payee is owed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, books_options, opened
from channelpay.cli.common import (
    Setting,
    account_option,
    chosen_account,
    format_amount_of,
    open_books,
    open_payer,
    parse_amount_of,
    parse_duration,
    pass_output,
    rpc_option,
    setting_options,
    short,
    token_address,
)
from channelpay.cli.output import Output, facts_table, json_option, visible
from channelpay.cli.over_limit import token_of
from channelpay.cli.payee_views import tokens_at
from channelpay.cli.tabs_shown import due_text, tab_members, tab_text
from channelpay.errors import ChannelPayError, NotFound
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from channelpay.payee.terms import Token as PayeeToken
    from channelpay.payer.records import PayerChannel, Token
    from channelpay.payer.state import PayerState
    from channelpay.payer.tab_payment import TabAsked
    from channelpay.payer.tabs import OwnTab
    from channelpay.protocol.tabs import Tab
    from channelpay.store import Store

ADDRESS_BYTES = 20
LISTED_AT_ONCE = 1000
WRITTEN_OFF = "TAB written off"


@click.group()
def tab() -> None:
    """Read first, pay later: what you owe (show, pay), what is owed to you (list, write-off)."""


# --- the payer's side ----------------------------------------------------------------------------


@tab.command(epilog="Example: channelpay tab show")
@account_option
@json_option
@pass_output
def show(output: Output, *, account: str | None) -> None:
    """What you owe, by your own books: they know no tab that you did not agree to."""
    payer = chosen_account(account).address
    with open_books() as state:
        # The newest channel stands for all of those to a payee.
        channels = {
            (entry.deployment, entry.channel.payee, entry.channel.token): entry
            for entry in state.channels(payer)
        }
        found = [
            (entry, own, _token(state, entry))
            for entry in channels.values()
            if (own := state.tabs.tab(entry)).owed
        ]
    output.show([_own_members(entry, own) for entry, own, _ in found], lambda: _own_table(found))


@tab.command(epilog="Example: channelpay tab pay https://example.org/page")
@click.argument("url")
@click.option("--max", "most", metavar="AMOUNT", help="Pay up to this, whatever your books say.")
@click.option("--ask", "asks", is_flag=True, help="Only ask what is owed; nothing is signed.")
@click.option("--keep", is_flag=True, help="Keep it in your books, for your statements.")
@click.option("--token", default="eth", metavar="eth|NAME|ADDRESS", help="The token it is in.")
@setting_options
@json_option
@pass_output
def pay(
    output: Output,
    *,
    url: str,
    most: str | None,
    asks: bool,
    keep: bool,
    token: str,
    setting: Setting,
) -> None:
    """Pay what you owe to the site of URL, which is a page of it that costs something.

    What the site says is paid as far as your own books explain it, or up to --max.
    """
    from channelpay.payer.limits import Limits

    address = token_address(token)
    with open_payer(setting, output, (Limits(address, price_max=2**128 - 1),)) as payer:
        payer.state.purchases.are_kept = keep
        described = token_of(payer, address)
        if asks:
            asked = payer.ask_tab(url)
            output.show(_asked_members(asked), lambda: _asked_table(asked, described))
            return
        pay_max = None if most is None else parse_amount_of(most, described, "--max")
        done = payer.pay_tab(url, pay_max)
    members = {
        "url": url,
        "channelId": to_hex(done.channel.channel_id),
        "paid": str(done.paid),
        "tab": tab_members(done.note),
    }
    facts = {
        "Paid": format_amount_of(done.paid, described),
        "Tab": tab_text(done.note, described),
    }
    output.show(members, lambda: facts_table(facts))


def _token(state: PayerState, entry: PayerChannel) -> Token | None:
    from channelpay.payer.records import ETHER

    address = entry.channel.token
    return ETHER if address == NATIVE else state.token(entry.deployment.chain_id, address)


def _own_members(entry: PayerChannel, own: OwnTab) -> dict[str, Any]:
    return {
        "channelId": to_hex(entry.channel_id),
        "payee": checksum_address(entry.channel.payee),
        "token": checksum_address(entry.channel.token),
        "url": entry.url,
        "owed": str(own.owed),
        "limit": str(own.room),
        "dueAt": due_text(own.due_at) or None,
    }


def _own_table(found: list[tuple[PayerChannel, OwnTab, Token | None]]) -> Table:
    from rich.table import Table

    table = Table("Channel", "Used at", "Owed", "Up to", "Due")
    for entry, own, token in found:
        amounts = (format_amount_of(own.owed, token), format_amount_of(own.room, token))
        place = visible(entry.url or "")
        table.add_row(short(entry.channel_id), place, *amounts, due_text(own.due_at))
    return table


def _asked_members(asked: TabAsked) -> dict[str, Any]:
    return {
        "channelId": to_hex(asked.channel.channel_id),
        "tab": tab_members(asked.note),
        "known": str(asked.known),
    }


def _asked_table(asked: TabAsked, token: Token) -> Table:
    return facts_table(
        {
            "The site says": tab_text(asked.note, token),
            "Your books say": format_amount_of(asked.known, token),
        }
    )


# --- the payee's side ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Owing:
    payer: Address
    token: Address
    tab: Tab


@tab.command("list", epilog="Example: channelpay tab list --rpc http://127.0.0.1:8545")
@books_options
@rpc_option
@json_option
@pass_output
def list_(output: Output, *, books: Books, rpc: str | None) -> None:
    """Who owes you, since when, and what you have written off.

    Works without a node; with --rpc amounts are in the units of every token.
    """
    with opened(books) as store:
        found = [one for one in _tabs(store) if one.tab.unpaid]
    output.show([_owing_members(one) for one in found], lambda: _owing_table(found, rpc))


@tab.command("write-off", epilog="Example: channelpay tab write-off 0x7099… --older-than 90d")
@click.argument("payer")
@click.option("--token", default="eth", metavar="eth|NAME|ADDRESS", help="The token it is in.")
@click.option(
    "--older-than",
    type=parse_duration,
    metavar="DURATION",
    default="0s",
    help="Only what has been owed for so long, such as 90d.",
)
@books_options
@json_option
@pass_output
def write_off(output: Output, *, payer: str, token: str, older_than: int, books: Books) -> None:
    """Give up what PAYER owes; that is a row of your ledger.

    Who was written off gets no more credit before it has paid that nevertheless.
    """
    from channelpay.protocol.rules import Amend
    from channelpay.protocol.tabs import TabKeys, WritesOff

    address, currency = parse_address(payer, "payer"), token_address(token)
    now = int(time.time() * 1000)
    with opened(books) as store:
        channels = [
            one.channel_id
            for one in store.records()
            if (one.channel.payer, one.channel.token) == (address, currency)
        ]
        if not channels:
            raise NotFound(f"no channel of {checksum_address(address)} in these books")
        keys = TabKeys.of(address, currency)
        terms = WritesOff(keys, now - older_than * 1000)
        (answer,) = store.accept([Amend(channels[-1], terms, WRITTEN_OFF, now)]).result()
    if isinstance(answer, ChannelPayError):
        raise answer
    lost = answer.entries[keys.tab]["written_off"]
    members = {"payer": checksum_address(address), "writtenOff": str(lost)}
    facts = {"Payer": checksum_address(address), "Written off in all": f"{lost} base units"}
    output.show(members, lambda: facts_table(facts))


def _tabs(store: Store) -> list[_Owing]:
    from channelpay.protocol.tabs import TAB, Tab

    found: list[_Owing] = []
    after = b""
    while rows := store.entries(TAB, after=after, limit=LISTED_AT_ONCE):
        for key, state in rows:
            payer, token = key.name[:ADDRESS_BYTES], key.name[ADDRESS_BYTES:]
            found.append(_Owing(Address(payer), Address(token), Tab.from_state(state)))
        after = rows[-1][0].name
    return found


def _owing_members(one: _Owing) -> dict[str, Any]:
    return {
        "payer": checksum_address(one.payer),
        "token": checksum_address(one.token),
        "owed": str(max(0, one.tab.owed)),
        "since": due_text(one.tab.since // 1000) if one.tab.owed > 0 else None,
        "writtenOff": str(one.tab.written_off),
        "paidOnTime": str(one.tab.on_time),
    }


def _owing_table(found: list[_Owing], rpc: str | None) -> Table:
    from rich.table import Table

    tokens: Mapping[Address, PayeeToken] = tokens_at({one.token for one in found}, rpc)
    table = Table("Payer", "Owed", "Since", "Written off", "Paid on time")
    for one in found:
        amounts = (max(0, one.tab.owed), one.tab.written_off, one.tab.on_time)
        owed, lost, paid = (format_amount_of(it, tokens.get(one.token)) for it in amounts)
        since = due_text(one.tab.since // 1000) if one.tab.owed > 0 else ""
        table.add_row(checksum_address(one.payer), owed, since, lost, paid)
    return table
