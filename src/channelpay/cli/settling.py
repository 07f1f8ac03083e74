"""What the commands that settle share: the options of the policy and of alerts, and the daemon."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import duration_text, parse_duration, token_address
from channelpay.cli.passwords import read_secret_file
from channelpay.errors import ConfigError
from channelpay.protocol.text import parse_human_amount

if TYPE_CHECKING:
    from channelpay.chain.fees import FeePolicy
    from channelpay.observe import Observer
    from channelpay.observe.alerts import Alerts
    from channelpay.payee.amounts import HumanPrice
    from channelpay.payee.daemon import Daemon
    from channelpay.payee.policy import SettlementPolicy
    from channelpay.payee.terms import Token
    from channelpay.protocol.types import Address

WEBHOOK = "CHANNELPAY_ALERT_WEBHOOK"
GWEI_DECIMALS = 9
AGE_SECONDS = 7 * 86_400
URGENT_SECONDS = 6 * 3600
FEE_MAX_GWEI = "300"
NEVER = "never"
ONCE_SECONDS = 600.0
"""How long a daemon that works once waits for what is under way."""


def _duration(_: click.Context, __: click.Parameter, text: str) -> int | None:
    return None if text == NEVER else parse_duration(text)


def _gwei(_: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    return None if text is None else parse_human_amount(text, GWEI_DECIMALS, str(parameter.name))


_POLICY_OPTIONS: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
    click.option(
        "--settle-value",
        multiple=True,
        metavar="[TOKEN=]AMOUNT",
        help="Settle a channel once so much of it is unsettled.",
    ),
    click.option(
        "--settle-total",
        multiple=True,
        metavar="[TOKEN=]AMOUNT",
        help="Settle all channels once so much is unsettled together.",
    ),
    click.option(
        "--settle-age",
        default=duration_text(AGE_SECONDS),
        show_default=True,
        metavar="TIME",
        callback=_duration,
        help="Settle what has waited for so long (1d, 12h, 90m; or 'never').",
    ),
    click.option(
        "--settle-gas",
        metavar="GWEI",
        callback=_gwei,
        help="Settle whenever the base fee is this low.",
    ),
    click.option(
        "--settle-used",
        type=click.IntRange(1, 100),
        default=90,
        show_default=True,
        metavar="PERCENT",
        help="Settle when vouchers pass this share of a deposit.",
    ),
    click.option(
        "--margin",
        type=click.IntRange(0, 100_000),
        default=100,
        show_default=True,
        metavar="PERCENT",
        help="What is settled is worth so much more than its gas.",
    ),
    click.option(
        "--ether-price",
        multiple=True,
        metavar="TOKEN=AMOUNT",
        help="How much of a token is worth one ether, to compare it with gas.",
    ),
    click.option(
        "--batch-rows",
        type=click.IntRange(1, 500),
        default=100,
        show_default=True,
        help="Channels in one transaction, at most.",
    ),
]
_FEE_OPTIONS: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
    click.option(
        "--urgent-before",
        default=duration_text(URGENT_SECONDS),
        show_default=True,
        metavar="TIME",
        callback=_duration,
        help="When fees begin to rise before the end of a grace period.",
    ),
    click.option(
        "--fee-max",
        default=FEE_MAX_GWEI,
        show_default=True,
        metavar="GWEI",
        callback=_gwei,
        help="What a unit of gas may cost, however urgent it is.",
    ),
    click.option(
        "--alert-webhook-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Holds a URL that alerts are posted to.  [env var for the URL itself: {WEBHOOK}]",
    ),
]


@dataclass(frozen=True, slots=True)
class Fees:
    """What every daemon is told: what may be paid for gas, and who hears of trouble."""

    urgent_before: int
    fee_max: int
    alert_webhook_file: Path | None


@dataclass(frozen=True, slots=True)
class Settling:
    """The options of the settlement policy, as they were given."""

    settle_value: tuple[str, ...]
    settle_total: tuple[str, ...]
    settle_age: int | None
    settle_gas: int | None
    settle_used: int
    margin: int
    ether_price: tuple[str, ...]
    batch_rows: int


def settling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of the policy; the command gets them as ``settling``."""
    return _gathered(command, "settling", Settling, _POLICY_OPTIONS)


def fee_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options about gas and alerts; the command gets them as ``fees``."""
    return _gathered(command, "fees", Fees, _FEE_OPTIONS)


def _gathered(
    command: Callable[..., Any],
    name: str,
    kind: type[Fees | Settling],
    options: Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]],
) -> Callable[..., Any]:
    @wraps(command)
    def with_options(*arguments: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) for field in fields(kind)}
        return command(*arguments, **{name: kind(**chosen)}, **given)

    decorated: Callable[..., Any] = with_options
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def policy_of(settling: Settling, fees: Fees, tokens: Sequence[Token]) -> SettlementPolicy:
    """The policy in base units. An amount that names no token is in the first one."""
    from channelpay.payee.policy import SettlementPolicy

    return SettlementPolicy(
        value_min=amounts_in(tokens, settling.settle_value, "settle-value"),
        total_min=amounts_in(tokens, settling.settle_total, "settle-total"),
        age_max_seconds=settling.settle_age,
        base_fee_max_wei=settling.settle_gas,
        deposit_used_percent=settling.settle_used,
        margin_percent=settling.margin,
        eth_price=amounts_in(tokens, settling.ether_price, "ether-price"),
        batch_rows_max=settling.batch_rows,
        urgent_before_seconds=fees.urgent_before,
    )


def fee_policy_of(fees: Fees) -> FeePolicy:
    from channelpay.chain.fees import FeePolicy

    return FeePolicy(fee_per_gas_wei_max=fees.fee_max)


def amounts_in(tokens: Sequence[Token], given: tuple[str, ...], option: str) -> dict[Address, int]:
    """Base units by token. An amount that names no token is in the first one."""
    from channelpay.payee.amounts import parse_price

    by_token = amounts_by_token(given, option)
    if by_token is None:
        return {}
    return {price.token.address: price.amount for price in parse_price(by_token, tokens, option)}


def amounts_by_token(given: tuple[str, ...], option: str) -> HumanPrice | None:
    """What was given as one ``AMOUNT``, or as ``TOKEN=AMOUNT`` for each token."""
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    amounts = dict(one.partition("=")[::2] for one in given if "=" in one)
    if len(amounts) < len(given):
        raise ConfigError(
            f"--{option} must name a token for each amount, and each token once",
            hint=f"Say --{option} AMOUNT for the first token, or --{option} TOKEN=AMOUNT for each.",
        )
    return amounts


def has_amounts(settling: Settling) -> bool:
    """Whether an option has an amount, which means something in units of its token only."""
    return bool(settling.settle_value or settling.settle_total or settling.ether_price)


def tokens_named(settling: Settling) -> set[Address]:
    """The tokens that the options name."""
    given = (*settling.settle_value, *settling.settle_total, *settling.ether_price)
    return {token_address(one.partition("=")[0]) for one in given if "=" in one}


@contextmanager
def alerts_of(fees: Fees, observer: Observer) -> Iterator[Alerts]:
    """Alerts to the log, and to the webhook if there is one."""
    from channelpay.observe.alerts import AlertLog, Alerts, Webhook

    url = _webhook_url(fees)
    if url is None:
        yield Alerts([AlertLog()], observer)
        return
    webhook = Webhook(url)
    try:
        yield Alerts([AlertLog(), webhook], observer)
    finally:
        webhook.close()


def _webhook_url(fees: Fees) -> str | None:
    if fees.alert_webhook_file is not None:
        return read_secret_file(fees.alert_webhook_file)
    return os.environ.get(WEBHOOK) or None


def work(daemon: Daemon, *, once: bool) -> int:
    """Let a daemon work until a signal comes, or what is due is done; returns the exit code, that
    of what is wrong at the end.
    """

    def stop(_: int, __: FrameType | None) -> None:
        daemon.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if once:
            daemon.run_once(ONCE_SECONDS)
        else:
            daemon.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return daemon.alerts.exit_code
