"""What the commands that get paid over HTTP share: options, the payee, workers and metrics."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, store_option
from channelpay.cli.carrying import GasOptions, carrying_options
from channelpay.cli.common import (
    connected,
    expected_chain_id,
    home,
    node_option,
    password_option,
    state_option,
    token_address,
)
from channelpay.cli.confirming import Confirming, confirmations_option
from channelpay.cli.output import Output
from channelpay.cli.passwords import password_of
from channelpay.cli.patience import wait_for_node
from channelpay.cli.qr import qr_option, show_qr
from channelpay.cli.settling import (
    Fees,
    Settling,
    alerts_of,
    amounts_by_token,
    amounts_in,
    fee_options,
    fee_policy_of,
    has_amounts,
    policy_of,
    settling_options,
)
from channelpay.errors import ConfigError
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount
    from rich.table import Table

    from channelpay.observe import Observer
    from channelpay.observe.alerts import Alerts
    from channelpay.payee.acceptance import Acceptance
    from channelpay.payee.asgi import App
    from channelpay.payee.payee import Payee
    from channelpay.payee.policy import SettlementPolicy
    from channelpay.payee.prices import PriceRule
    from channelpay.payee.server import Place
    from channelpay.payee.terms import Token

CHALLENGE_KEY = "challenge.key"
WORKERS_MAX = 64

_OPTIONS: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
    click.option(
        "--token",
        required=True,
        multiple=True,
        metavar="eth|NAME|ADDRESS",
        callback=lambda _context, _parameter, names: tuple(map(_token_text, names)),
        help="What is paid with; a NAME is one of the network's. Given several times, the reader"
        " chooses.",
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
        "--shares",
        type=click.Path(path_type=Path),
        help="A TOML file of those who share the income: their splitter is paid.",
    ),
    click.option(
        "--account",
        metavar="NAME",
        help="A keystore account that is paid, and closes channels with its key."
        "  [env var: CHANNELPAY_ACCOUNT, without --payee]",
    ),
    password_option,
    click.option(
        "--receipt-key",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Sign receipts with this key, which the payee authorised (default: with --account's).",
    ),
    node_option(required=True),
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
    store_option,
    click.option(
        "--suggested-deposit",
        metavar="AMOUNT",
        help="Told to clients, in units of the first token.",
    ),
    confirmations_option,
    click.option(
        "--risk-channel",
        multiple=True,
        metavar="[TOKEN=]AMOUNT",
        help="What a channel may have cost beyond what is settled, at most.",
    ),
    click.option(
        "--risk-total",
        multiple=True,
        metavar="[TOKEN=]AMOUNT",
        help="What all channels may have cost beyond what is settled, at most.",
    ),
    click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus may read metrics."),
    qr_option("the URL"),
    click.option("--access-log", is_flag=True, help="Log a line for each paid request."),
    settling_options,
    fee_options,
    carrying_options,
]


def _token_text(name: str) -> str:
    """As :meth:`channelpay.payee.payee.Payee.create` takes it."""
    address = token_address(name)
    return "eth" if address == NATIVE else to_hex(address)


@dataclass(frozen=True, slots=True)
class Serving:
    """The options of such a command, as they were given."""

    token: tuple[str, ...]
    price: tuple[str, ...]
    price_file: Path | None
    free: tuple[str, ...]
    payee: str | None
    shares: Path | None
    account: str | None
    password_file: Path | None
    receipt_key: Path | None
    rpc: str
    contract: str | None
    host: str
    port: int
    workers: int
    state: Path
    store: str | None
    suggested_deposit: str | None
    confirmations: Confirming
    risk_channel: tuple[str, ...]
    risk_total: tuple[str, ...]
    metrics: str | None
    qr: bool
    access_log: bool
    settling: Settling
    fees: Fees
    gas: GasOptions


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
            wait_for_node(serving.rpc)
            with (
                metrics_at(serving.metrics, serves=place.number == 0) as counted,
                alerts_of(serving.fees, counted) as alerts,
                closing(_payee(serving, terms, counted, alerts, place)) as payee,
            ):
                made = application(payee)
                if place.announces:
                    output.show(_members(shown, payee), lambda: _table(title, shown, payee))
                    if serving.qr:
                        show_qr(output, shown["url"])
                yield made

        serve(
            service,
            listening,
            serving.workers,
            believes_local_proxies=believes_local_proxies,
        )


def _terms(serving: Serving) -> dict[str, Any]:
    """What a payee is made of. Asks for the password, if there is an account."""
    from channelpay.payee.shares import read_shares

    account = serving.account
    if account is None and serving.payee is None and serving.shares is None:
        account = os.environ.get("CHANNELPAY_ACCOUNT")
    return {
        "rpc": serving.rpc,
        "chain_id": expected_chain_id(),
        "token": serving.token,
        "prices": _prices(serving),
        "payee": serving.payee,
        "shares": None if serving.shares is None else read_shares(serving.shares),
        "account": None if account is None else _account(account, serving.password_file),
        "contract": serving.contract,
        "suggested_deposit": serving.suggested_deposit,
        "receipt_key": serving.receipt_key,
    }


def _payee(
    serving: Serving, terms: Mapping[str, Any], counted: Observer, alerts: Alerts, place: Place
) -> Payee:
    from channelpay.observe import Observers
    from channelpay.observe.logs import AccessLog
    from channelpay.payee.payee import Payee
    from channelpay.payee.secret import kept_secret

    serving.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    tokens = _tokens(serving)
    acceptance = _acceptance(serving, tokens)
    return Payee.create(
        **terms,
        store=Books(serving.state, serving.store).url,
        settlement=_settlement(serving, tokens, acceptance),
        acceptance=acceptance,
        fees=fee_policy_of(serving.fees),
        alerts=alerts,
        carrying=serving.gas.carrying(tokens),
        challenge_secret=kept_secret(serving.state / CHALLENGE_KEY),
        observer=Observers([counted, AccessLog()]) if serving.access_log else counted,
        watches=place.number == 0,
    )


def _tokens(serving: Serving) -> list[Token]:
    """What amounts are in. The node is asked only where there are some."""
    from channelpay.payee.amounts import parse_token
    from channelpay.payee.payee import token_at
    from channelpay.payee.terms import ETHER

    addresses = [parse_token(name) for name in serving.token]
    risks = serving.risk_channel or serving.risk_total or serving.gas.carry_deposit
    asked = has_amounts(serving.settling) or risks or serving.confirmations.steps
    if addresses == [NATIVE] or not asked:
        return [ETHER]
    connection = connected(serving.rpc)
    return [token_at(connection, address) for address in addresses]


def _acceptance(serving: Serving, tokens: Sequence[Token]) -> Acceptance:
    from channelpay.payee.acceptance import Acceptance

    return Acceptance(
        confirmations=serving.confirmations.in_tokens(tokens),
        risk_max_per_channel=amounts_in(tokens, serving.risk_channel, "risk-channel"),
        risk_max_total=amounts_in(tokens, serving.risk_total, "risk-total"),
    )


def _settlement(
    serving: Serving, tokens: Sequence[Token], acceptance: Acceptance
) -> SettlementPolicy:
    """A reader is not to run into a risk limit before anybody settles."""
    from channelpay.payee.policy import settling_before

    asked = policy_of(serving.settling, serving.fees, tokens)
    return settling_before(asked, acceptance.risk_max_per_channel, acceptance.risk_max_total)


def _prices(serving: Serving) -> Path | list[PriceRule]:
    from channelpay.payee.site import flat_rules

    for_all = amounts_by_token(serving.price, "price")
    if serving.price_file is not None and for_all is None and not serving.free:
        return serving.price_file
    if for_all is not None and serving.price_file is None:
        return flat_rules(for_all, serving.free)
    raise ConfigError(
        "the prices are missing, or given twice",
        hint="Give --price AMOUNT (and --free PATTERN), or --prices FILE.",
    )


def _account(name: str, password_file: Path | None) -> LocalAccount:
    from channelpay.chain import keystore

    stored = keystore.find(home(), name)
    return keystore.load(home(), stored.name, password_of(stored, password_file))


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
