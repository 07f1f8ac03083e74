"""``channelpay watch``: a watchtower, which answers close requests from exported vouchers."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import Setting, home, parse_duration, pass_output, setting_options
from channelpay.cli.confirming import Confirming
from channelpay.cli.consent import DRY_RUN_PASSED, dry_run_option
from channelpay.cli.office import Office, Place, office_over
from channelpay.cli.output import Output, json_option
from channelpay.cli.patience import wait_for_node
from channelpay.cli.payee import announce
from channelpay.cli.payee_views import show_plans
from channelpay.cli.settling import Fees, alerts_of, fee_options, work
from channelpay.errors import ConfigError, NotFound
from channelpay.protocol.parse import parse_address

if TYPE_CHECKING:
    from channelpay.observe.alerts import Alerts
    from channelpay.payee.policy import SettlementPolicy
    from channelpay.payee.watchtower import ExportReader, Watchtower
    from channelpay.protocol.types import Address
    from channelpay.store import Store

BOOKS = "watch.sqlite3"
WAIT_PERCENT = 25
OLD = "6h"


@dataclass(frozen=True, slots=True)
class _Watch:
    """The options, as they were given."""

    vouchers: Path
    setting: Setting
    recipient: str | None
    fees: Fees
    wait: int
    old_after: int
    state: Path
    once: bool
    dry_run: bool


@click.command(epilog="Example: channelpay watch vouchers.jsonl --account gas")
@click.argument("vouchers", type=click.Path(path_type=Path))
@setting_options
@click.option("--payee", "recipient", metavar="ADDRESS", help="Whose channels, if of several.")
@fee_options
@click.option(
    "--wait",
    type=click.IntRange(0, 50),
    default=WAIT_PERCENT,
    show_default=True,
    metavar="PERCENT",
    help="The share of the grace period that is left to the payee itself.",
)
@click.option(
    "--old-after",
    default=OLD,
    show_default=True,
    metavar="TIME",
    type=parse_duration,
    help="Alert when the vouchers were not written for so long.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    callback=lambda _ctx, _parameter, folder: folder or home() / "watch",
    help="The folder of its own books (default: CHANNELPAY_HOME/watch).",
)
@click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus may read metrics.")
@click.option("--once", is_flag=True, help="Do what is due, wait for it, and end.")
@dry_run_option
@json_option
@pass_output
def watch(output: Output, /, *, metrics: str | None, **given: Any) -> int:
    """Answer close requests for a payee that may be down, until Ctrl-C or SIGTERM.

    VOUCHERS is a file that 'channelpay payee export' wrote, or a folder of such files (*.jsonl); it
    is read again whenever it changes. The account pays the gas and nothing else: the money goes to
    the payee, whose key is not needed. Run it on another machine, with another node.

    Exits with 0, or with the code of what is wrong at the end (docs/settlement.md).
    """
    from channelpay.observe.logs import configure_logging
    from channelpay.observe.scrape import metrics_at
    from channelpay.payee.watchtower import ExportReader

    duty = _Watch(**given)
    if not duty.vouchers.exists():
        raise NotFound(
            f"there is no {duty.vouchers}", hint="Write it with: channelpay payee export"
        )
    configure_logging(sys.stderr, as_json=output.as_json)
    if not (duty.once or duty.dry_run):
        wait_for_node(duty.setting.rpc)
    place = Place.of(duty.setting)
    with metrics_at(metrics) as observer, alerts_of(duty.fees, observer) as alerts:
        reader = ExportReader(duty.vouchers, alerts)
        reader.read()
        with (
            closing(_own_books(duty.state)) as store,
            office_over(
                store,
                place,
                _payee(duty, reader, place),
                duty.fees,
                confirming=Confirming(1),
                observer=observer,
            ) as office,
        ):
            return _watch(output, office, duty, reader, alerts)


def _watch(
    output: Output, office: Office, duty: _Watch, reader: ExportReader, alerts: Alerts
) -> int:
    tower = _tower(office, duty, reader, alerts)
    settler = office.settler(_policy(duty), alerts)
    if duty.dry_run:
        tower.step()
        show_plans(output, settler.plan(), office.place.connection)
        return DRY_RUN_PASSED
    announce(output, office)
    return work(office.daemon(tower, settler, alerts, once=duty.once), once=duty.once)


def _tower(office: Office, duty: _Watch, reader: ExportReader, alerts: Alerts) -> Watchtower:
    from channelpay.payee.watchtower import Watchtower

    books = office.store, alerts, office.observer
    return Watchtower(reader, office.payee, office.link, *books, duty.old_after)


def _policy(duty: _Watch) -> SettlementPolicy:
    from channelpay.payee.policy import SettlementPolicy, watchtower_policy

    asked = SettlementPolicy(urgent_before_seconds=duty.fees.urgent_before)
    return watchtower_policy(asked, duty.wait)


def _payee(duty: _Watch, reader: ExportReader, place: Place) -> Address:
    from channelpay.payee.watchtower import sole_payee

    if duty.recipient is not None:
        return parse_address(duty.recipient, "payee")
    return sole_payee(reader.best.values(), place.deployment)


def _own_books(state: Path) -> Store:
    from channelpay.store import open_store

    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{state} cannot be used: {error.strerror}", hint="Name another folder with --state."
        ) from error
    return open_store(f"sqlite:///{state / BOOKS}")
