"""``channelpay site``: any folder of files as a paid site, in a process of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    SITE_BOOKS,
    home,
    pass_output,
    password_option,
    read_password,
    state_option,
)
from channelpay.cli.output import Output, json_option
from channelpay.errors import ConfigError
from channelpay.protocol.text import checksum_address, to_hex

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount
    from rich.table import Table

    from channelpay.payee.asgi import App
    from channelpay.payee.payee import Payee
    from channelpay.payee.prices import HumanPrice, PriceRule
    from channelpay.payee.server import Place

_SECRET = "challenge.key"  # noqa: S105  a file name


@click.command(
    epilog="Example: channelpay site docs --token eth --price 0.0001 --account shop "
    "--free '/README.md' --rpc http://127.0.0.1:8545"
)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--token",
    required=True,
    multiple=True,
    metavar="eth|ADDRESS",
    help="What is paid with. Given several times, the reader chooses.",
)
@click.option(
    "--price",
    multiple=True,
    metavar="[TOKEN=]AMOUNT",
    help="The price of every file, in units of the token; without TOKEN it is in the first.",
)
@click.option(
    "--prices",
    "price_file",
    type=click.Path(path_type=Path),
    help="A TOML file of price rules. A change of it holds within a second.",
)
@click.option("--free", multiple=True, metavar="PATTERN", help="With --price: files that are free.")
@click.option("--payee", metavar="ADDRESS", help="Who is paid, if no --account is given.")
@click.option(
    "--account",
    metavar="NAME",
    help="A keystore account that is paid, and closes channels with its key."
    "  [env var: CHANNELPAY_ACCOUNT, without --payee]",
)
@password_option
@click.option("--rpc", envvar="CHANNELPAY_RPC", required=True, metavar="URL", help="The chain.")
@click.option("--contract", envvar="CHANNELPAY_CONTRACT", metavar="ADDRESS", help="The contract.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8402, show_default=True, help="0: a free one."
)
@state_option
@click.option(
    "--suggested-deposit", metavar="AMOUNT", help="Told to clients, in units of the first token."
)
@click.option(
    "--confirmations",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="What an open or top-up needs before it counts.",
)
@json_option
@pass_output
def site(  # noqa: PLR0913  each is one option
    output: Output,
    /,
    *,
    directory: Path,
    price: tuple[str, ...],
    price_file: Path | None,
    free: tuple[str, ...],
    account: str | None,
    password_file: Path | None,
    host: str,
    port: int,
    state: Path,
    **terms: Any,
) -> None:
    """Serve the files of DIRECTORY for payment.

    Markdown is shown as pages, everything else as it is; dot files are not shown. It runs until
    Ctrl-C or SIGTERM. On a pipe it prints one line of JSON, once it can be asked.
    """
    from channelpay.payee.folder import Folder
    from channelpay.payee.server import listen, serve, url_of_socket
    from channelpay.payee.site import PaidSite

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("channelpay").setLevel(logging.INFO)
    folder = Folder(directory, [state, *([price_file] if price_file else [])])
    terms["prices"] = _prices(price, price_file, free)
    if account is None and terms["payee"] is None:
        account = os.environ.get("CHANNELPAY_ACCOUNT")
    terms["account"] = None if account is None else _account(account, password_file)
    with listen(host, port) as listening:
        url = url_of_socket(listening)

        @contextmanager
        def service(place: Place) -> Iterator[App]:
            with closing(_payee(state, terms)) as payee:
                if place.announces:
                    output.show(_members(url, payee), lambda: _table(url, payee))
                yield PaidSite(folder, payee)

        serve(service, listening)


def _payee(state: Path, terms: dict[str, Any]) -> Payee:
    from channelpay.payee.payee import Payee
    from channelpay.payee.secret import kept_secret

    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = kept_secret(state / _SECRET)
    return Payee.create(**terms, store=f"sqlite:///{state / SITE_BOOKS}", challenge_secret=secret)


def _prices(
    price: tuple[str, ...], price_file: Path | None, free: tuple[str, ...]
) -> Path | list[PriceRule]:
    from channelpay.payee.site import flat_rules

    for_all = _by_token(price)
    if price_file is not None and for_all is None and not free:
        return price_file
    if for_all is not None and price_file is None:
        return flat_rules(for_all, free)
    raise ConfigError(
        "the prices are missing, or given twice",
        hint="Give --price AMOUNT (and --free PATTERN), or --prices FILE.",
    )


def _by_token(price: tuple[str, ...]) -> HumanPrice | None:
    """What was given as one ``AMOUNT``, or as ``TOKEN=AMOUNT`` for each token."""
    if not price:
        return None
    if len(price) == 1 and "=" not in price[0]:
        return price[0]
    amounts = dict(one.partition("=")[::2] for one in price if "=" in one)
    if len(amounts) < len(price):
        raise ConfigError(
            "--price must name a token for each amount, and each token once",
            hint="Say --price AMOUNT for the first token, or --price TOKEN=AMOUNT for each.",
        )
    return amounts


def _account(name: str, password_file: Path | None) -> LocalAccount:
    from channelpay.chain import keystore

    return keystore.load(home(), name, read_password(password_file, f"Password of {name}"))


def _members(url: str, payee: Payee) -> dict[str, object]:
    """What programs read; amounts are decimal strings in base units, by token."""
    terms = payee.terms
    return {
        "url": url,
        "payee": to_hex(terms.payee),
        "chainId": terms.deployment.chain_id,
        "contract": to_hex(terms.deployment.contract),
        "tokens": [
            {"address": to_hex(token.address), "symbol": token.symbol, "decimals": token.decimals}
            for token in terms.tokens
        ],
        "prices": [
            {
                "method": rule.method or "any",
                "path": rule.path,
                "unit": rule.unit,
                "amounts": {to_hex(price.token.address): str(price.amount) for price in prices},
            }
            for rule, prices in payee.prices.summary()
        ],
    }


def _table(url: str, payee: Payee) -> Table:
    from rich.table import Table

    from channelpay.payee.prices import format_prices

    terms = payee.terms
    table = Table(title="Paid site", show_header=False, caption="Ctrl-C stops it.")
    table.add_row("URL", url)
    table.add_row("Payee", checksum_address(terms.payee))
    table.add_row("Tokens", ", ".join(token.symbol for token in terms.tokens))
    table.add_row("Chain id", str(terms.deployment.chain_id))
    table.add_row("Contract", checksum_address(terms.deployment.contract), end_section=True)
    for rule, prices in payee.prices.summary():
        table.add_row(f"{rule.method or 'any'} {rule.path}", format_prices(prices, rule.unit))
    return table
