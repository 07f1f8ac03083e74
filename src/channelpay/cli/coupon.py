"""``channelpay coupon``: codes that a site gives away, and what readers do with them."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, books_options, opened
from channelpay.cli.common import (
    Setting,
    connected,
    format_amount_of,
    parse_duration,
    pass_output,
    rpc_option,
    token_option,
)
from channelpay.cli.output import Output, cells, facts_table, json_option
from channelpay.cli.passes import buyer, limit_options
from channelpay.cli.passes_shown import pass_facts, pass_members
from channelpay.errors import InputError
from channelpay.private_files import write_private
from channelpay.protocol.parse import parse_bytes
from channelpay.protocol.text import checksum_address, format_amount, parse_human_amount, to_hex
from channelpay.protocol.types import NATIVE, Address

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payee.selling.issue import Issue
    from channelpay.payee.terms import Token
    from channelpay.protocol.coupons import Batch, CodeHasher

_WHOLE = 10_000


@click.group(invoke_without_command=False)
def coupon() -> None:
    """Coupons: codes for credit, a discount or a pass, each redeemed once."""


@coupon.command(
    epilog="Example: channelpay coupon issue --value 0.01 --count 100 --expires 90d -o spring.csv"
)
@click.option("--value", metavar="AMOUNT", help="Credit of so much, in --token.")
@click.option("--percent", metavar="NUMBER", help="So much off the next sales of --sales.")
@click.option("--sales", type=click.IntRange(1, 10**6), default=1, help="How many (default: 1).")
@click.option("--pass", "plan", metavar="PLAN", help="A pass of the price file, by its id.")
@click.option("--count", type=click.IntRange(1, 10_000), required=True, help="How many codes.")
@click.option(
    "--expires",
    type=parse_duration,
    metavar="DURATION",
    help="Until when they can be redeemed, say 90d (default: for ever).",
)
@click.option("--per-payer", type=click.IntRange(1), help="How many one payer may redeem.")
@click.option("--label", default="", help="A name for your own list.")
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    help="A new CSV file for the codes, for your eyes alone.",
)
@click.option(
    "--qr",
    "folder",
    type=click.Path(path_type=Path),
    help="A new folder for a QR code of each, as SVG.",
)
@books_options
@token_option
@rpc_option
@json_option
@pass_output
def issue(  # noqa: PLR0913  each is one option
    output: Output,
    *,
    value: str | None,
    percent: str | None,
    sales: int,
    plan: str | None,
    count: int,
    expires: int | None,
    per_payer: int | None,
    label: str,
    file: Path,
    folder: Path | None,
    books: Books,
    token: Address,
    rpc: str | None,
) -> None:
    """Issue coupons for the site of these books.

    The codes are in the file alone: the books know them by a hash, which needs the site's secret in
    the folder of --state. The site takes coupons if its price file has a [coupons] table.
    """
    from channelpay.payee.selling.issue import issue as issue_codes

    _require_new(file, folder)
    described = _token(token, rpc)
    now = int(time.time() * 1000)
    wanted = _wanted(described, value, percent, plan, sales)
    until = 0 if expires is None else now + expires * 1000
    wanted = replace(wanted, count=count, expires=until, per_payer=per_payer or 0, label=label[:80])
    with opened(books) as store:
        issued = issue_codes(store, _hasher(books), wanted, now)
    worth = _worth(issued.batch, [described])
    write_private(file, _csv(issued.codes, worth, until))
    if folder is not None:
        _draw(issued.codes, folder)
    members = {"batch": to_hex(issued.batch_id), **_members(issued.batch), "file": str(file)}
    facts = {"Batch": to_hex(issued.batch_id), "Worth": worth, "Codes": f"{count} in {file}"}
    output.show(members, lambda: facts_table(facts))


@coupon.command("list", epilog="Example: channelpay coupon list --state shop")
@books_options
@json_option
@pass_output
def list_(output: Output, books: Books) -> None:
    """The batches of coupons that these books know; gifts among them."""
    from channelpay.payee.selling.issue import batches

    with opened(books) as store:
        found = list(batches(store))
    members = [{"batch": to_hex(one), **_members(batch)} for one, batch in found]
    output.show(members, lambda: _table(found))


@coupon.command(epilog="Example: channelpay coupon revoke 0x5b0c1d2e3f405162 --state shop")
@click.argument("batch")
@books_options
@json_option
@pass_output
def revoke(output: Output, batch: str, books: Books) -> None:
    """Take the rest of a batch back: none of its codes can be redeemed any more."""
    from channelpay.payee.selling.issue import revoke as revoke_batch
    from channelpay.protocol.coupons import BATCH_ID_BYTES

    batch_id = parse_bytes(batch, "batch", BATCH_ID_BYTES, BATCH_ID_BYTES)
    with opened(books) as store:
        revoked = revoke_batch(store, batch_id, int(time.time() * 1000))
    members = {"batch": batch, **_members(revoked)}
    output.show(members, lambda: _table([(batch_id, revoked)]))


@coupon.command(epilog="Example: channelpay coupon redeem https://example.org/ 7ZQ3M-8X0KD-…")
@click.argument("url")
@click.argument("code", required=False)
@limit_options
@json_option
@pass_output
def redeem(
    output: Output,
    url: str,
    code: str | None,
    *,
    setting: Setting,
    token: Address,
    **limits: str | None,
) -> None:
    """Redeem a code at the site of URL; without CODE it is read from standard input.

    It is for the owner of a channel with the site: --deposit opens one. A value becomes credit,
    which pays for what you buy next.
    """
    from channelpay.payer.buying import redeem as redeem_code

    typed = code or click.prompt("Code", err=True)
    with buyer(output, setting, token, limits) as (payer, described):
        got = redeem_code(payer, url, typed)
    if got.held is not None:
        held = got.held
        output.show(pass_members(held), lambda: pass_facts(held))
        return
    members: dict[str, Any] = {"worth": got.worth}
    if got.worth == "value":
        members |= {"amount": str(got.amount), "token": got.token}
        is_known = got.token.lower() == to_hex(described.address)
        shown = format_amount_of(got.amount, described if is_known else None)
        facts = {"Credit": shown}
    else:
        members |= {"percent": str(got.percent), "sales": str(got.sales)}
        facts = {"Discount": f"{_percent(got.percent)} off", "For": f"{got.sales} sales"}
    output.show(members, lambda: facts_table(facts))


@coupon.command(
    epilog="Example: channelpay coupon buy https://example.org/ --value 0.01 --max 0.01"
)
@click.argument("url")
@click.option("--value", metavar="AMOUNT", required=True, help="What it is worth, and costs.")
@limit_options
@json_option
@pass_output
def buy(
    output: Output,
    url: str,
    *,
    value: str,
    setting: Setting,
    token: Address,
    **limits: str | None,
) -> None:
    """Buy a coupon as a gift: whoever has the code redeems it at the site of URL.

    Run again after it was broken off, this goes on with the same purchase.
    """
    from channelpay.payer.buying import buy_gift

    with buyer(output, setting, token, limits) as (payer, described):
        amount = parse_human_amount(value, described.decimals, "--value")
        gift = buy_gift(payer, url, amount, token)
    members = {"code": gift.code, "amount": str(gift.amount), "expires": gift.expires}
    facts = {
        "Code": gift.code,
        "Worth": format_amount_of(gift.amount, described),
        "Until": gift.expires,
    }
    output.show(members, lambda: facts_table(facts))


def _wanted(
    token: Token, value: str | None, percent: str | None, plan: str | None, sales: int
) -> Issue:
    """What a code brings: one of the three."""
    from channelpay.payee.selling.issue import Issue
    from channelpay.protocol.coupons import Worth

    if sum(one is not None for one in (value, percent, plan)) != 1:
        raise InputError("say what a code brings: --value, --percent or --pass")
    if value is not None:
        amount = token.parse(value, "--value")
        if not amount:
            raise InputError("--value must be above 0")
        return Issue(Worth.VALUE, token.address, 0, amount=amount)
    if percent is not None:
        hundredths = parse_human_amount(percent, 2, "--percent")
        if not 0 < hundredths <= _WHOLE:
            raise InputError("--percent must be above 0, and 100 at most")
        return Issue(Worth.PERCENT, NATIVE, 0, percent=hundredths, sales=sales)
    return Issue(Worth.PASS, NATIVE, 0, plan=plan or "")


def _hasher(books: Books) -> CodeHasher:
    from channelpay.cli.serving import CHALLENGE_KEY
    from channelpay.payee.payee import REALM
    from channelpay.payee.secret import kept_secret
    from channelpay.payee.selling.desk import SELLING
    from channelpay.protocol.coupons import CodeHasher
    from channelpay.protocol.wire import ChallengeIssuer

    secret = kept_secret(books.state / CHALLENGE_KEY)
    return CodeHasher(ChallengeIssuer(secret, REALM).derived(SELLING))


def _token(address: Address, rpc: str | None) -> Token:
    from channelpay.payee.payee import token_at
    from channelpay.payee.terms import ETHER

    return ETHER if address == NATIVE else token_at(connected(rpc), address)


def _require_new(file: Path, folder: Path | None) -> None:
    """Before anything is issued: codes that cannot be kept are nobody's."""
    for path in (file, folder):
        if path is not None and path.exists():
            raise InputError(f"{path} is there already", hint="Name a new one.")
        if path is not None and not path.absolute().parent.is_dir():
            raise InputError(f"{path.parent} is no folder")


def _csv(codes: Sequence[str], worth: str, expires: int) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["code", "worth", "expires"])
    rows.writerows([code, worth, _time(expires)] for code in codes)
    return text.getvalue().encode()


def _draw(codes: Sequence[str], folder: Path) -> None:
    import segno

    folder.mkdir(mode=0o700)
    for code in codes:
        picture = io.BytesIO()
        segno.make(code, error="m", micro=False).save(picture, kind="svg", scale=4)
        write_private(folder / f"{code}.svg", picture.getvalue())


def _worth(batch: Batch, tokens: Sequence[Token] = ()) -> str:
    from channelpay.payee.terms import ETHER
    from channelpay.protocol.coupons import Worth

    if batch.worth is Worth.PERCENT:
        return f"{_percent(batch.percent)} off {batch.sales} sales"
    if batch.worth is Worth.PASS:
        return f"pass {batch.plan}"
    known = {one.address: one for one in (ETHER, *tokens)}
    return format_amount_of(batch.amount, known.get(batch.token))


def _members(batch: Batch) -> dict[str, Any]:
    return {
        "worth": batch.worth.value,
        "amount": str(batch.amount),
        "token": checksum_address(batch.token),
        "percent": str(batch.percent),
        "sales": batch.sales,
        "plan": batch.plan or None,
        "label": batch.label,
        "count": batch.count,
        "redeemed": batch.redeemed,
        "perPayer": batch.per_payer or None,
        "expires": _time(batch.expires) or None,
        "revoked": _time(batch.revoked) or None,
        "steps": [{"time": _time(at), "what": what} for at, what in batch.steps],
    }


def _table(found: Sequence[tuple[bytes, Batch]]) -> Table:
    from rich.table import Table

    table = Table("Batch", "Label", "Worth", "Redeemed", "Until")
    for batch_id, batch in found:
        until = "revoked" if batch.revoked else _time(batch.expires)
        number = f"{batch.redeemed} of {batch.count}"
        table.add_row(*cells(to_hex(batch_id), batch.label, _worth(batch), number, until))
    return table


def _percent(hundredths: int) -> str:
    return f"{format_amount(hundredths, 2)} %"


def _time(milliseconds: int) -> str:
    if not milliseconds:
        return ""
    at = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return at.isoformat().replace("+00:00", "Z")
