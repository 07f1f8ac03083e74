"""``channelpay receipt``: receipts that prove a payment, and the key that a site signs with."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    Setting,
    account_option,
    chosen_account,
    format_amount_of,
    open_books,
    open_payer,
    parse_duration,
    pass_output,
    setting_options,
    short,
)
from channelpay.cli.output import Output, facts_table, json_option, visible
from channelpay.errors import InputError, NotFound
from channelpay.protocol.receipts import RECEIPT_CHARACTERS_MAX, SignedReceipt
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE
from channelpay.protocol.wire import format_time

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payer.purchased import Purchased
    from channelpay.payer.records import Token


@click.group()
def receipt() -> None:
    """Receipts that a payee signed: they prove a payment to others, without a node."""


@receipt.command(epilog="Example: channelpay receipt show 1 | channelpay receipt verify -")
@click.argument("file", metavar="FILE|-")
@json_option
@pass_output
def verify(output: Output, *, file: str) -> None:
    """Check that the payee of its channel signed a receipt, offline.

    It proves that the payee says so: that this was charged for this resource, over a channel of
    this payer. Compare the payee and the contract with those that you expect.
    """
    found = SignedReceipt.from_json(_read(file))
    found.check()
    output.show(_members(found), lambda: facts_table(_facts(found)))


@receipt.command("list", epilog="Example: channelpay receipt list")
@account_option
@json_option
@pass_output
def list_(output: Output, *, account: str | None) -> None:
    """What you bought and kept: see 'channelpay pay --keep'."""
    from channelpay.payer.records import ETHER

    payer = chosen_account(account).address
    found: list[tuple[Purchased, Token | None]] = []
    with open_books() as state:
        for entry in state.channels(payer):
            address = entry.channel.token
            known = state.token(entry.deployment.chain_id, address)
            token = ETHER if address == NATIVE else known
            kept = state.purchases.of_channel(entry.channel_id)
            found += [(one, token) for one in kept]
    found.sort(key=lambda pair: pair[0].number)
    output.show([_kept_members(one) for one, _ in found], lambda: _kept_table(found))


@receipt.command(epilog="Example: channelpay receipt show 1 > receipt.json")
@click.argument("number", type=int)
@json_option
@pass_output
def show(output: Output, *, number: int) -> None:
    """Print the signed receipt of a purchase as JSON, for whoever wants a proof."""
    with open_books() as state:
        one = state.purchases.one(number)
    if one.receipt is None:
        raise NotFound(
            f"no signed receipt of purchase {number} is kept",
            hint=f"Ask the site for it with: channelpay receipt fetch {number}",
        )
    _show(output, SignedReceipt.from_json(one.receipt.encode()))


@receipt.command(epilog="Example: channelpay receipt fetch 1")
@click.argument("number", type=int)
@setting_options
@json_option
@pass_output
def fetch(output: Output, *, number: int, setting: Setting) -> None:
    """Have the site sign the receipt of a purchase, and keep it.

    For one that came without, or that was given back in part since. The site signs what its books
    say now; your account's key says who asks.
    """
    with open_payer(setting, output) as payer:
        found = payer.fetch_receipt(number)
    _show(output, found)


@receipt.command(epilog="Example: channelpay receipt key receipts.key --account publisher")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--lasts",
    metavar="DURATION",
    default="90d",
    show_default=True,
    callback=lambda _context, _parameter, text: parse_duration(text),
    help="How long it may sign.",
)
@setting_options
@json_option
@pass_output
def key(output: Output, *, file: Path, lasts: int, setting: Setting) -> None:
    """Make a key that signs receipts in the name of --account, for a site that runs without the
    key of its payee (--receipt-key FILE). It can do nothing else.
    """
    from channelpay.cli.office import Place
    from channelpay.payee.selling.receipts import make_receipt_key

    place = Place.of(setting)
    until = int(time.time()) + lasts
    made = make_receipt_key(file, place.deployment, bytes(place.account.key), until)
    members = {
        "file": str(file),
        "address": checksum_address(made.address),
        "payee": checksum_address(place.own),
        "validUntil": format_time(until),
    }
    names = {"file": "File", "address": "Key", "payee": "Payee", "validUntil": "Valid until"}
    output.show(members, lambda: facts_table({names[name]: it for name, it in members.items()}))


def _read(file: str) -> bytes:
    limit = RECEIPT_CHARACTERS_MAX + 1
    if file == "-":
        return sys.stdin.buffer.read(limit).strip()
    try:
        with Path(file).open("rb") as opened:
            return opened.read(limit).strip()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error


def _show(output: Output, found: SignedReceipt) -> None:
    """The receipt itself, or what it says."""
    if output.as_json:
        click.echo(found.to_json())
        return
    output.show({}, lambda: facts_table(_facts(found)))


def _members(found: SignedReceipt) -> dict[str, Any]:
    channel = found.channel
    return {
        "valid": True,
        "payee": checksum_address(channel.payee),
        "payer": checksum_address(channel.payer),
        "token": checksum_address(channel.token),
        "chainId": found.deployment.chain_id,
        "contract": checksum_address(found.deployment.contract),
        "channelId": to_hex(found.channel_id),
        "paymentId": str(found.payment_id),
        "amount": str(found.amount),
        "spent": str(found.spent),
        "resource": found.resource,
        "time": format_time(found.time // 1000),
    }


def _facts(found: SignedReceipt) -> dict[str, str]:
    members = _members(found)
    return {
        "Payee": members["payee"],
        "Payer": members["payer"],
        "For": members["resource"],
        "Amount": f"{found.amount} base units of {members['token']}",
        "Spent in all": str(found.spent),
        "Time": members["time"],
        "Channel": members["channelId"],
        "Contract": f"{members['contract']} on chain {members['chainId']}",
    }


def _kept_members(one: Purchased) -> dict[str, Any]:
    return {
        "number": one.number,
        "channelId": to_hex(one.channel_id),
        "time": format_time(one.time // 1000),
        "url": one.url,
        "kind": one.kind,
        "cost": str(one.cost),
        "onTab": str(one.on_tab),
        "signed": one.receipt is not None,
    }


def _kept_table(found: list[tuple[Purchased, Token | None]]) -> Table:
    from rich.table import Table

    table = Table("Number", "Time", "What", "Kind", "Cost", "On the tab", "Channel", "Signed")
    for one, token in found:
        table.add_row(
            str(one.number),
            format_time(one.time // 1000),
            visible(one.url),
            one.kind,
            format_amount_of(one.cost, token),
            format_amount_of(one.on_tab, token),
            short(one.channel_id),
            "" if one.receipt is None else "yes",
        )
    return table
