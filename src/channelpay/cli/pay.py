"""``channelpay pay URL…``: fetch what costs something, as curl would."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import click

from channelpay.cli.common import (
    Setting,
    format_amount_of,
    open_payer,
    parse_amount_of,
    pass_output,
    setting_options,
    short,
    token_option,
)
from channelpay.cli.output import Output
from channelpay.errors import BudgetExceeded, InputError
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address

if TYPE_CHECKING:
    import httpx2

    from channelpay.payer.client import Payer
    from channelpay.payer.limits import Limits
    from channelpay.payer.records import Token
    from channelpay.payer.steps import Paid


@dataclass(frozen=True, slots=True)
class _Wish:
    """What the options allow, as text: amounts need the token's decimals."""

    price_max: str
    deposit: str | None
    deposit_max: str | None
    cost_max: str | None = None

    def limits(self, token: Token) -> Limits:
        from channelpay.payer.limits import Limits

        def amount(text: str | None, field: str) -> int:
            return 0 if text is None else parse_amount_of(text, token, field)

        deposit = amount(self.deposit, "--deposit")
        deposit_max = amount(self.deposit_max, "--max-deposit")
        return Limits(
            token=token.address,
            price_max=amount(self.price_max, "--max"),
            deposit_max=max(deposit, deposit_max),
            deposit=deposit,
            top_up=deposit if deposit_max > deposit else 0,
            metered_max=None if self.cost_max is None else amount(self.cost_max, "--max-cost"),
        )


@click.command(
    epilog="Example: channelpay pay https://example.org/page --max 0.001 --deposit 0.05 -O"
)
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option("-o", "--output", "file", type=click.Path(path_type=Path), help="Write to this file.")
@click.option("-O", "--remote-name", is_flag=True, help="Write to files named as in the URLs.")
@click.option("--max", "price_max", default="0", metavar="AMOUNT", help="Most that one may cost.")
@click.option(
    "--max-cost",
    "cost_max",
    metavar="AMOUNT",
    help="Most that one may cost whose price is by the unit, a stream for example (else --max).",
)
@click.option("--deposit", metavar="AMOUNT", help="Open a channel with this much, if none is open.")
@click.option(
    "--max-deposit",
    "deposit_max",
    metavar="AMOUNT",
    help="Top the channel up by --deposit when it is used up, to this much at most.",
)
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
    price_max: str,
    cost_max: str | None,
    deposit: str | None,
    deposit_max: str | None,
    token: Address,
    setting: Setting,
    as_json: bool,
) -> None:
    """Fetch URLs and pay for them over one channel.

    The content goes to standard output or to files as it comes, what was paid to standard error.
    Nothing is paid beyond --max for each URL, or beyond --max-cost where the price is that of a
    unit; there it ends when the limit is reached. No channel is opened without --deposit. The first
    URL that fails ends it.
    """
    output.as_json = as_json
    if file is not None and (remote_name or len(urls) > 1):
        raise InputError("--output takes the content of one URL", hint="Use -O for several.")
    wish = _Wish(price_max, deposit, deposit_max, cost_max)
    with _payer(setting, output, token, wish) as (payer, described):
        for url in urls:
            target = Path(_remote_name(url)) if remote_name else file
            _fetch(output, payer, described, url, target)


@contextmanager
def _payer(
    setting: Setting, output: Output, token: Address, wish: _Wish
) -> Iterator[tuple[Payer, Token]]:
    """The payer, and the token in which the amounts were given."""
    from channelpay.payer.records import ETHER

    with open_payer(setting, output) as payer:
        described = ETHER if token == NATIVE else payer.token(token)
        payer.allow(wish.limits(described))
        yield payer, described


def _fetch(output: Output, payer: Payer, token: Token, url: str, target: Path | None) -> None:
    from channelpay.payer.httpx import error_of_response, paid_get

    try:
        # The file comes first: nothing is paid for what cannot be kept.
        with _opened(target) as sink, paid_get(payer, url) as response:
            if not response.is_success:
                error = error_of_response(response, payer)
                error.detail = f"{url}: {error.detail}"
                raise error
            for chunk in response.iter_bytes():
                with _writing(target):
                    sink.write(chunk)
                    sink.flush()
    except BudgetExceeded as over:
        raise _in_units(over, token) from over
    _report(output, payer, token, url, response)


def _in_units(error: BudgetExceeded, token: Token) -> BudgetExceeded:
    """The same in human units, where it is about the price or the cost."""
    context = error.context

    def amount(member: str) -> str:
        return format_amount_of(int(context[member]), token)

    if "price" in context:
        option = amount("price").partition(" ")[0]
        return BudgetExceeded(
            f"it costs {amount('price')}, and the limit is {amount('limit')}",
            hint=f"If it is worth that much to you: --max {option}, or --max-cost where the price"
            " is that of a unit. Nothing was paid.",
            **context,
        )
    if "paid" in context:
        reason = error.__cause__ or f"the limit is {amount('limit')}"
        return BudgetExceeded(
            f"stopped when it had cost up to {amount('paid')}: {reason}",
            hint="If more of it is worth more to you, raise --max-cost or the deposit.",
            **context,
        )
    return error


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
    output.note(text, members)
