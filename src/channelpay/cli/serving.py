"""What the commands that get paid over HTTP share: options, the payee, workers and metrics."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click
from click.core import ParameterSource

from channelpay.cli.common import SITE_BOOKS, home, password_option, read_password, state_option
from channelpay.cli.output import Output
from channelpay.errors import ConfigError
from channelpay.protocol.text import checksum_address, to_hex

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount
    from rich.table import Table

    from channelpay.observe import Observer
    from channelpay.payee.asgi import App
    from channelpay.payee.payee import Payee
    from channelpay.payee.prices import HumanPrice, PriceRule
    from channelpay.payee.server import Place

_SECRET = "challenge.key"  # noqa: S105  a file name
WORKERS_MAX = 64

_OPTIONS: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
    click.option(
        "--token",
        required=True,
        multiple=True,
        metavar="eth|ADDRESS",
        help="What is paid with. Given several times, the reader chooses.",
    ),
    click.option(
        "--price",
        multiple=True,
        metavar="[TOKEN=]AMOUNT",
        help="The price of everything, in units of the token; without TOKEN it is in the first.",
    ),
    click.option(
        "--prices",
        "price_file",
        type=click.Path(path_type=Path),
        help="A TOML file of price rules. A change of it holds within a second.",
    ),
    click.option(
        "--free", multiple=True, metavar="PATTERN", help="With --price: paths that are free."
    ),
    click.option("--payee", metavar="ADDRESS", help="Who is paid, if no --account is given."),
    click.option(
        "--account",
        metavar="NAME",
        help="A keystore account that is paid, and closes channels with its key."
        "  [env var: CHANNELPAY_ACCOUNT, without --payee]",
    ),
    password_option,
    click.option("--rpc", envvar="CHANNELPAY_RPC", required=True, metavar="URL", help="The chain."),
    click.option(
        "--contract", envvar="CHANNELPAY_CONTRACT", metavar="ADDRESS", help="The contract."
    ),
    click.option(
        "--host", default="127.0.0.1", show_default=True, help="The address to listen on."
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=8402,
        show_default=True,
        help="0: a free one.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1, WORKERS_MAX),
        default=1,
        show_default=True,
        help="Processes that answer requests.",
    ),
    state_option,
    click.option(
        "--store",
        envvar="CHANNELPAY_STORE",
        metavar="URL",
        help="The books (default: an SQLite file in the folder of --state).",
    ),
    click.option(
        "--suggested-deposit",
        metavar="AMOUNT",
        help="Told to clients, in units of the first token.",
    ),
    click.option(
        "--confirmations",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="What an open or top-up needs before it counts.",
    ),
    click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus may read metrics."),
    click.option("--access-log", is_flag=True, help="Log a line for each paid request."),
]


@dataclass(frozen=True, slots=True)
class Serving:
    """The options of such a command, as they were given."""

    token: tuple[str, ...]
    price: tuple[str, ...]
    price_file: Path | None
    free: tuple[str, ...]
    payee: str | None
    account: str | None
    password_file: Path | None
    rpc: str
    contract: str | None
    host: str
    port: int
    workers: int
    state: Path
    store: str | None
    suggested_deposit: str | None
    confirmations: int
    metrics: str | None
    access_log: bool


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that gets paid over HTTP, which it gets as ``serving``."""

    @wraps(command)
    def with_serving(*arguments: Any, **options: Any) -> Any:
        chosen = {field.name: options.pop(field.name) for field in fields(Serving)}
        return command(*arguments, serving=Serving(**chosen), **options)

    decorated: Callable[..., Any] = with_serving
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def serve_paid(
    output: Output,
    serving: Serving,
    title: str,
    application: Callable[[Payee], App],
    *,
    facts: Mapping[str, str] | None = None,
    believes_local_proxies: bool = True,
) -> None:
    """Serve what ``application`` makes of a payee until a signal comes, and announce it first.

    ``facts`` are shown beside what all such commands show. See
    :func:`channelpay.payee.server.serve` for ``believes_local_proxies``.
    """
    from channelpay.observe.logs import configure_logging
    from channelpay.observe.scrape import metrics_at, shared_metrics
    from channelpay.payee.server import listen, serve, url_of_socket

    configure_logging(sys.stderr, as_json=not sys.stderr.isatty())
    terms = _terms(serving)
    shares_metrics = serving.metrics is not None and serving.workers > 1
    with (
        listen(serving.host, serving.port) as listening,
        shared_metrics() if shares_metrics else nullcontext(),
    ):
        shown = {"url": url_of_socket(listening), **(facts or {})}

        @contextmanager
        def service(place: Place) -> Iterator[App]:
            with (
                metrics_at(serving.metrics, serves=place.number == 0) as counted,
                closing(_payee(serving, terms, counted, place)) as payee,
            ):
                made = application(payee)
                if place.announces:
                    output.show(_members(shown, payee), lambda: _table(title, shown, payee))
                yield made

        serve(
            service,
            listening,
            serving.workers,
            believes_local_proxies=believes_local_proxies,
        )


def _terms(serving: Serving) -> dict[str, Any]:
    """What a payee is made of. Asks for the password, if there is an account."""
    account = serving.account
    if account is None and serving.payee is None:
        account = os.environ.get("CHANNELPAY_ACCOUNT")
    return {
        "rpc": serving.rpc,
        "token": serving.token,
        "prices": _prices(serving),
        "payee": serving.payee,
        "account": None if account is None else _account(account, serving.password_file),
        "contract": serving.contract,
        "suggested_deposit": serving.suggested_deposit,
        "confirmations": serving.confirmations,
    }


def _payee(serving: Serving, terms: Mapping[str, Any], counted: Observer, place: Place) -> Payee:
    from channelpay.observe import Observers
    from channelpay.observe.logs import AccessLog
    from channelpay.payee.payee import Payee
    from channelpay.payee.secret import kept_secret

    serving.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Payee.create(
        **terms,
        store=_store(serving) or f"sqlite:///{serving.state / SITE_BOOKS}",
        challenge_secret=kept_secret(serving.state / _SECRET),
        observer=Observers([counted, AccessLog()]) if serving.access_log else counted,
        watches=place.number == 0,
    )


def _store(serving: Serving) -> str | None:
    """What was said of the books; a password in it may not come from the command line, where every
    user of the machine can read it.
    """
    source = click.get_current_context().get_parameter_source("store")
    url = urlsplit(serving.store or "")
    secret = url.password is not None or "password=" in url.query
    if source is ParameterSource.COMMANDLINE and secret:
        raise ConfigError(
            "the URL of --store has a password in it",
            hint="Put the URL into CHANNELPAY_STORE, or the password into ~/.pgpass.",
        )
    return serving.store


def _prices(serving: Serving) -> Path | list[PriceRule]:
    from channelpay.payee.site import flat_rules

    for_all = _by_token(serving.price)
    if serving.price_file is not None and for_all is None and not serving.free:
        return serving.price_file
    if for_all is not None and serving.price_file is None:
        return flat_rules(for_all, serving.free)
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


def _members(shown: Mapping[str, str], payee: Payee) -> dict[str, object]:
    """What programs read; amounts are decimal strings in base units, by token."""
    terms = payee.terms
    return {
        **shown,
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


def _table(title: str, shown: Mapping[str, str], payee: Payee) -> Table:
    from rich.table import Table

    from channelpay.payee.prices import format_prices

    terms = payee.terms
    table = Table(title=title, show_header=False, caption="Ctrl-C stops it.")
    for name, value in shown.items():
        table.add_row("URL" if name == "url" else name.capitalize(), value)
    table.add_row("Payee", checksum_address(terms.payee))
    table.add_row("Tokens", ", ".join(token.symbol for token in terms.tokens))
    table.add_row("Chain id", str(terms.deployment.chain_id))
    table.add_row("Contract", checksum_address(terms.deployment.contract), end_section=True)
    for rule, prices in payee.prices.summary():
        table.add_row(f"{rule.method or 'any'} {rule.path}", format_prices(prices, rule.unit))
    return table
