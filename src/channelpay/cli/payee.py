"""``channelpay payee``: list, status, settle, close, export, run, backup. The books are those of a
site, which may run meanwhile or not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, books_options, opened
from channelpay.cli.common import (
    Setting,
    contract_option,
    named_channel,
    pass_output,
    rpc_option,
    setting_options,
    short,
)
from channelpay.cli.confirming import Confirming, confirmations_option
from channelpay.cli.consent import DRY_RUN_PASSED, Consent, consent_options, dry_run_option
from channelpay.cli.office import Office, Place, office_over, reached
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.cli.patience import wait_for_node
from channelpay.cli.payee_views import (
    Tokens,
    channel_members,
    channels_table,
    plans_members,
    plans_table,
    show_plans,
    show_taken,
    status_members,
    status_of,
    status_table,
    tokens_on,
)
from channelpay.cli.settling import (
    Fees,
    Settling,
    alerts_of,
    fee_options,
    settling_options,
    work,
)
from channelpay.errors import ChannelPayError, ConfigError, InputError, PaymentRefused
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import ChannelStatus, Deployment

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payee.closer import Taken
    from channelpay.payee.policy import Plan
    from channelpay.payee.settler import Settler, Untaken
    from channelpay.protocol.rules import ChannelRecord
    from channelpay.store import Store

LIST = "channelpay payee list"
AGAIN = "Run the command again: nothing is taken twice."


@click.group()
def payee() -> None:
    """Take what is owed to you: list, settle and close the channels of a site, and keep its books.

    The site may run meanwhile, or be down. A CHANNEL is named by its id or the first digits of it.
    """


@payee.command("list", epilog="Example: channelpay payee list --rpc http://127.0.0.1:8545")
@books_options
@rpc_option
@json_option
@pass_output
def list_(output: Output, *, books: Books, rpc: str | None) -> None:
    """List the channels in the books.

    Works without a node; with --rpc the table has the amounts of every token in its own units.
    """
    with opened(books) as store:
        records = store.records()
    output.show([*map(channel_members, records)], lambda: channels_table(records, rpc))


@payee.command(epilog="Example: channelpay payee status --rpc http://127.0.0.1:8545")
@books_options
@rpc_option
@contract_option
@json_option
@pass_output
def status(output: Output, *, books: Books, rpc: str | None, contract: str | None) -> int:
    """Show what is owed, what is under way, and which channels have to be answered by when.

    Works without a node, but then does not know deadlines. Exits with 1 if the urgent part of a
    grace period has begun.
    """
    with opened(books) as store:
        found = status_of(store, rpc, contract)
    output.show(status_members(found), lambda: status_table(found, rpc))
    return int(any(one.is_late for one in found.closing))


def _taking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        pass_output,
        json_option,
        fee_options,
        confirmations_option,
        setting_options,
        books_options,
        consent_options,
        click.option("--all", "everything", is_flag=True, help="Every channel of the books."),
        click.argument("names", metavar="[CHANNEL]...", nargs=-1),
    ):
        command = option(command)
    return command


@payee.command(epilog="Example: channelpay payee settle --all --account publisher --dry-run")
@_taking_options
def settle(output: Output, *, names: tuple[str, ...], everything: bool, **given: Any) -> int:
    """Take what the best vouchers promise, many channels in one transaction; they stay open.

    A channel with nothing to take is left alone. One that fails does not stop the others. Any
    account can settle: it pays the gas, and the money goes to the payee.
    """
    return _take(output, _Choice(names, everything, **given), _SETTLE)


@payee.command(epilog="Example: channelpay payee close 0x1f2e3d4c --account publisher")
@_taking_options
def close(output: Output, *, names: tuple[str, ...], everything: bool, **given: Any) -> int:
    """Take what the best vouchers promise and close the channels; their payers get the rest.

    Many channels go into one transaction. One that fails does not stop the others.
    """
    return _take(output, _Choice(names, everything, **given), _CLOSE)


@payee.command(epilog="Example: channelpay payee export vouchers.jsonl")
@click.argument("to", metavar="TO", type=click.Path(path_type=Path))
@books_options
@rpc_option
@contract_option
@json_option
@pass_output
def export(output: Output, *, to: Path, books: Books, rpc: str | None, contract: str | None) -> int:
    """Write the best voucher of each channel that has something unsettled into the file TO.

    That is what 'channelpay watch' needs to answer for you; it can take money for nobody but the
    payee. The file is replaced at once. Export again whenever vouchers came, say each minute.
    """
    from channelpay.payee.watchtower import write_export

    _, deployment = reached(rpc, contract)
    with opened(books) as store:
        owed = [one for one in store.owed() if one.unsettled and _is_at(one, deployment)]
    lines, code = _export_lines(output, owed, deployment)
    write_export(lines, to)
    members = {"export": str(to), "vouchers": len(lines)}
    output.show(members, lambda: facts_table({"Export": str(to), "Vouchers": str(len(lines))}))
    return code


@payee.command(epilog="Example: channelpay payee run --account publisher --settle-value eth=0.05")
@books_options
@setting_options
@click.option("--payee", "recipient", metavar="ADDRESS", help="Who is paid, if not --account.")
@confirmations_option
@settling_options
@fee_options
@click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus may read metrics.")
@click.option("--once", is_flag=True, help="Do what is due, wait for it, and end.")
@dry_run_option
@json_option
@pass_output
def run(output: Output, /, *, metrics: str | None, **given: Any) -> int:
    """Follow the chain and settle, until Ctrl-C or SIGTERM.

    It answers every requested close before the grace period ends, and settles the rest when the
    policy says so. A site with --account does the same in its own process: this is for books whose
    site has no key, is down, or runs elsewhere. Several may run; one works, the others stand by.
    With --payee the account only pays the gas: channels are settled, never closed.

    Exits with 0, or with the code of what is wrong at the end (docs/settlement.md).
    """
    from channelpay.observe.logs import configure_logging
    from channelpay.observe.scrape import metrics_at

    duty = _Duty(**given)
    configure_logging(sys.stderr, as_json=output.as_json)
    if not (duty.once or duty.dry_run):
        wait_for_node(duty.setting.rpc)
    with opened(duty.books) as store, metrics_at(metrics) as observer:
        place = Place.of(duty.setting)
        recipient = parse_address(duty.recipient, "payee") if duty.recipient else place.own
        with office_over(
            store,
            place,
            recipient,
            duty.fees,
            confirming=duty.confirmations,
            observer=observer,
        ) as office:
            return _run(output, office, duty)


@payee.command(epilog="Example: channelpay payee backup /mnt/backup/books-monday.sqlite3")
@click.argument("to", metavar="TO", type=click.Path(path_type=Path))
@books_options
@json_option
@pass_output
def backup(output: Output, *, to: Path, books: Books) -> None:
    """Copy the books into the new file TO, as they are at this moment.

    The copy is checked, and on the disk when the command ends. It has every voucher that you can
    still take money for: keep it as safe as the books.
    """
    from channelpay.store import sqlite_file
    from channelpay.store.backup import back_up

    file = sqlite_file(books.url)
    if file is None:
        raise ConfigError(
            "books in PostgreSQL are copied by its own tools",
            hint="Use pg_dump; docs/stores.md says how.",
        )
    back_up(file, to)
    members = {"backup": str(to), "bytes": to.stat().st_size}
    output.show(members, lambda: facts_table({"Backup": str(to), "Bytes": str(members["bytes"])}))


# --- the daemon ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Duty:
    """The options of ``run``, as they were given."""

    books: Books
    setting: Setting
    recipient: str | None
    confirmations: Confirming
    settling: Settling
    fees: Fees
    once: bool
    dry_run: bool


def _run(output: Output, office: Office, duty: _Duty) -> int:
    from channelpay.payee.follower import Follower
    from channelpay.payee.terms import Terms

    policy = office.policy(duty.settling, duty.fees)
    with alerts_of(duty.fees, office.observer) as alerts:
        settler = office.settler(policy, alerts)
        if duty.dry_run:
            show_plans(output, settler.plan(), office.place.connection)
            return DRY_RUN_PASSED
        terms = Terms(office.place.deployment, office.payee, ())
        follower = Follower(terms, office.link, office.store, office.observer)
        announce(output, office)
        return work(office.daemon(follower, settler, alerts, once=duty.once), once=duty.once)


def announce(output: Output, office: Office) -> None:
    """Say for whom it works now."""
    facts: dict[str, Any] = {
        "payee": checksum_address(office.payee),
        "account": office.place.account.address,
        "contract": checksum_address(office.place.deployment.contract),
        "chainId": office.place.deployment.chain_id,
    }
    shown = {
        "Payee": facts["payee"],
        "Account": facts["account"],
        "Contract": facts["contract"],
        "Chain id": str(facts["chainId"]),
    }

    def table() -> Table:
        made = facts_table(shown)
        made.caption = "Ctrl-C stops it."
        return made

    output.show(facts, table)


def _export_lines(
    output: Output, owed: Sequence[ChannelRecord], deployment: Deployment
) -> tuple[list[str], int]:
    """The lines, and the exit code: one voucher that is void does not stop the others."""
    from channelpay.payee.watchtower import export_line

    lines, code = [], 0
    for record in owed:
        try:
            lines.append(export_line(record, deployment))
        except PaymentRefused as error:
            error.context.setdefault("channelId", to_hex(record.channel_id))
            output.error(error)
            code = error.exit_code
    return lines, code


# --- taking by hand ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Choice:
    """What was asked for on the command line."""

    names: tuple[str, ...]
    everything: bool
    consent: Consent
    books: Books
    setting: Setting
    confirmations: Confirming
    fees: Fees


@dataclass(frozen=True, slots=True)
class _Deed:
    """One of the two ways to take money. ``obstacle`` says why there is nothing to do."""

    progress: str
    kind: str
    obstacle: Callable[[ChannelRecord], str | None]


def _closed_already(record: ChannelRecord) -> str | None:
    over = record.chain.status is ChannelStatus.FINALIZED
    return "it is closed already" if over else None


def _nothing_to_take(record: ChannelRecord) -> str | None:
    return _closed_already(record) or (None if record.unsettled else "there is nothing to take")


_SETTLE = _Deed("Settling", "settle", _nothing_to_take)
_CLOSE = _Deed("Closing", "close", _closed_already)


def _take(output: Output, choice: _Choice, deed: _Deed) -> int:
    """Returns the exit code: that of the first failure, or 0, or 10 after a dry run."""
    from channelpay.observe.alerts import Alerts
    from channelpay.payee.policy import Kind, SettlementPolicy

    if bool(choice.names) == choice.everything:
        raise InputError("name the channels, or give --all", hint=f"List them with: {LIST}")
    with opened(choice.books) as store, _office(output, store, choice) as office:
        settler = office.settler(SettlementPolicy(), Alerts(()))
        till = _Till(output, office, settler, deed.progress)
        chosen = _chosen(output, office, choice)
        if deed is _CLOSE:
            _require_own(chosen, office)
        if not choice.consent.dry_run:
            till.take_pending(chosen)
        due = _due(output, office, till, chosen, deed)
        plans = settler.asked(due, Kind(deed.kind))
        if choice.consent.looks_first(output):
            plans = till.tried(plans)
            if not _is_agreed(output, choice.consent, office, plans):
                return till.code or DRY_RUN_PASSED
        till.take(plans)
        return till.code


def _is_agreed(output: Output, consent: Consent, office: Office, plans: Sequence[Plan]) -> bool:
    """Where there is nothing to do, nobody is asked."""
    if not plans and not consent.dry_run:
        return True
    count = "this transaction" if len(plans) == 1 else f"these {len(plans)} transactions"
    return consent.given_to(
        output,
        plans_members(plans),
        lambda: plans_table(plans, office.place.connection),
        f"Send {count}?",
    )


@contextmanager
def _office(output: Output, store: Store, choice: _Choice) -> Iterator[Office]:
    place = Place.of(choice.setting)
    with office_over(
        store,
        place,
        place.own,
        choice.fees,
        confirming=choice.confirmations,
        listener=output.told,
    ) as office:
        yield office


def _chosen(output: Output, office: Office, choice: _Choice) -> list[ChannelRecord]:
    """The named channels, or all that are not closed, as far as the books know."""
    records, deployment = office.store.records(), office.place.deployment
    if choice.names:
        named = [named_channel(records, name, LIST) for name in choice.names]
        for record in named:
            _check_place(record, deployment)
        return list({record.channel_id: record for record in named}.values())
    live = [record for record in records if record.chain.status is not ChannelStatus.FINALIZED]
    for record in live:
        if not _is_at(record, deployment):
            _skip(output, record, "it belongs to another contract or chain")
    return [record for record in live if _is_at(record, deployment)]


def _is_at(record: ChannelRecord, deployment: Deployment) -> bool:
    """Books may hold channels of an earlier contract."""
    return record.channel.id(deployment) == record.channel_id


def _check_place(record: ChannelRecord, deployment: Deployment) -> None:
    if not _is_at(record, deployment):
        raise InputError(
            f"{to_hex(record.channel_id)} belongs to another contract or chain",
            hint="Name its contract with --contract, and a node of its chain with --rpc.",
        )


def _require_own(records: Sequence[ChannelRecord], office: Office) -> None:
    for record in records:
        if record.channel.payee != office.payee:
            raise InputError(
                f"{to_hex(record.channel_id)} can only be closed by its payee"
                f" {checksum_address(record.channel.payee)}",
                hint="Choose the payee's --account, or settle it.",
            )


def _due(
    output: Output, office: Office, till: _Till, chosen: Sequence[ChannelRecord], deed: _Deed
) -> list[ChannelRecord]:
    """Those with something to do, as the chain says now: no site may have followed it."""
    due = []
    for seen in office.closer.look(chosen):
        obstacle = deed.obstacle(seen.record)
        if obstacle is not None:
            _skip(output, seen.record, obstacle)
        elif till.is_good(seen.record):
            due.append(seen.record)
    return due


class _Till:
    """Takes money and shows what came of it. ``code`` is the exit code of the first failure."""

    def __init__(self, output: Output, office: Office, settler: Settler, progress: str) -> None:
        self.code = 0
        self._settler = settler
        self._output = output
        self._office = office
        self._connection = office.place.connection
        self._progress = progress
        self._tokens: Tokens = {}

    def is_good(self, record: ChannelRecord) -> bool:
        """Whether the contract takes its voucher: one that is void does not stop the others."""
        try:
            self._office.closer.require_good(record)
        except PaymentRefused as error:
            self._fail(record, error)
            return False
        return True

    def tried(self, plans: Sequence[Plan]) -> list[Plan]:
        """Those of which a trial succeeds, with the gas that it used. One channel that fails does
        not stop the others.
        """
        return [passed for plan in plans for passed in self._tried(plan)]

    def _tried(self, plan: Plan) -> Sequence[Plan]:
        try:
            trial = self._office.closer.trial(plan.kind, plan.records)
        except ChannelPayError as error:
            if len(plan.records) > 1:
                return self.tried([plan.part([one], plan.kind) for one in plan.records])
            self._fail(plan.records[0], error)
            return ()
        return [replace(plan, gas=trial.gas, cost_wei=trial.cost_wei)]

    def take_pending(self, records: Sequence[ChannelRecord]) -> None:
        """What an earlier command, or a daemon, has begun comes first."""
        self._show_all(self._settler.take_pending(records), "Waiting")

    def take(self, plans: Sequence[Plan]) -> None:
        # Asked before money moves, so that afterwards nothing can fail but what is nice to know.
        self._tokens = tokens_on((plan.token for plan in plans), self._connection)
        for plan in plans:
            some = short(plan.records[0].channel_id)
            if len(plan.records) > 1:
                some = f"{len(plan.records)} channels"
            self._show_all(self._settler.take(plan), f"{self._progress} {some}")

    def _show_all(self, results: Iterator[Taken | Untaken], progress: str) -> None:
        with self._output.waiting(progress, after_interrupt=AGAIN):
            done = list(results)
        for one in done:
            self._show(one)

    def _show(self, result: Taken | Untaken) -> None:
        from channelpay.payee.settler import Untaken

        if isinstance(result, Untaken):
            self._fail(result.record, result.error)
            return
        address = result.record.channel.token
        if address not in self._tokens:
            self._tokens = tokens_on([address], self._connection)
        show_taken(self._output, result, self._tokens[address])

    def _fail(self, record: ChannelRecord, error: ChannelPayError) -> None:
        error.context["channelId"] = to_hex(record.channel_id)
        self._output.error(error)
        self.code = self.code or error.exit_code


def _skip(output: Output, record: ChannelRecord, reason: str) -> None:
    channel_id = to_hex(record.channel_id)
    output.note(f"Left {channel_id} alone: {reason}.", {"channelId": channel_id, "skipped": reason})
