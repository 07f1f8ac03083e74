"""What a network pays its members: ``channelpay hub payout`` and ``hub recover``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, books_options, opened
from channelpay.cli.common import (
    Setting,
    account_option,
    chosen_account,
    connected,
    pass_output,
    rpc_option,
    setting_options,
    token_option,
)
from channelpay.cli.confirming import confirmations_of_network
from channelpay.cli.consent import DRY_RUN_PASSED, Consent, Preview, consent_options
from channelpay.cli.office import Place
from channelpay.cli.output import Output, json_option
from channelpay.cli.payee_views import tokens_on
from channelpay.cli.settling import Fees, fee_options, fee_policy_of
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.chain.connection import Connection
    from channelpay.chain.types import Listener
    from channelpay.payee.hub.paymaster import Paymaster
    from channelpay.payee.hub.rounds import Round
    from channelpay.store import Store


@click.command(epilog="Example: channelpay hub payout --account network --token eth --dry-run")
@consent_options
@books_options
@setting_options
@token_option
@fee_options
@json_option
@pass_output
def payout(
    output: Output,
    /,
    *,
    consent: Consent,
    books: Books,
    setting: Setting,
    token: Address,
    fees: Fees,
) -> int:
    """Pay all members now what they are owed, many in one transaction.

    A round that was begun before, and interrupted, is finished first: no round is paid twice. A
    member that cannot be paid is skipped, is owed the money still, and is held until its address
    was looked at (channelpay hub member move).
    """
    place = Place.of(setting)
    with opened(books) as store:
        paymaster = paymaster_of(store, place, fees, output.told)
        planned = paymaster.plan(token) if consent.looks_first(output) else []
        # Where there is nothing to do, nobody is asked.
        if (planned or consent.dry_run) and not consent.given(
            output, lambda: _preview(paymaster, planned, place.connection)
        ):
            return DRY_RUN_PASSED
        with output.waiting("Paying members", after_interrupt="Run the command again."):
            ended = paymaster.pay(token)
    _show(output, ended, place.connection, "Nobody is owed anything.")
    return 0


@click.command(epilog="Example: channelpay hub recover --account network")
@click.option(
    "--from-block",
    type=click.IntRange(min=0),
    metavar="BLOCK",
    help="Where to begin to read (default: at the newest payout that the books know).",
)
@books_options
@rpc_option
@account_option
@json_option
@pass_output
def recover(
    output: Output, /, *, from_block: int | None, books: Books, rpc: str | None, account: str | None
) -> None:
    """Take in the payouts that the chain has and the books do not, before the network runs again.

    For books that were restored from a copy, after 'channelpay recover payee'. What members were
    paid since the copy counts as earned: their statements have a row for it, in the place of the
    sales that were lost. Nothing is sent, and running it again changes nothing.
    """
    from channelpay.chain.payouts import PayoutsContract
    from channelpay.payee.hub.members import settings_of
    from channelpay.payee.hub.recovery import recover_rounds

    network = chosen_account(account).address
    connection = connected(rpc)
    with opened(books) as store:
        settings_of(store)
        taken = recover_rounds(
            store,
            PayoutsContract(connection),
            network,
            confirmations=confirmations_of_network(click.get_current_context()),
            from_block=from_block,
        )
    _show(output, taken, connection, "The books know all payouts.")


def paymaster_of(
    store: Store, place: Place, fees: Fees, listener: Listener | None = None
) -> Paymaster:
    """Raises :class:`~channelpay.errors.ConfigError` for books that are older than the chain."""
    from channelpay.chain.outgoing import TransactionSender
    from channelpay.chain.types import unheard
    from channelpay.payee.hub.paymaster import Paymaster

    policy = fee_policy_of(fees)
    sender = TransactionSender(
        place.connection, place.account, store, policy, listener=listener or unheard
    )
    paymaster = Paymaster(store, sender)
    paymaster.require_ready()
    return paymaster


def _preview(paymaster: Paymaster, planned: Sequence[Round], connection: Connection) -> Preview:
    tokens = tokens_on((one.token for one in planned), connection)
    rows = [member for one in planned for member in _members(one)]
    count = "one member" if len(rows) == 1 else f"{len(rows)} members"
    facts = {"Would": f"pay {count}"}
    for one in planned:
        amounts = (f"{row.name} {tokens[one.token].format(row.amount)}" for row in one.rows)
        facts[f"Round {one.number}"] = ", ".join(amounts)
    return Preview("payout", paymaster.trials(planned), {"rows": rows}, facts, f"Pay {count}?")


def _members(one: Round) -> Iterator[dict[str, Any]]:
    """A row for each member, with its fate once the round ended."""
    for row in one.rows:
        planned = {
            "round": one.number,
            "member": row.name,
            "address": checksum_address(row.address),
            "token": to_hex(one.token),
            "amount": str(row.amount),
        }
        fate = {"paid": row.is_paid, "txHash": to_hex(one.transaction_hash)}
        yield planned | fate if one.is_ended else planned


def _show(output: Output, rounds: Sequence[Round], connection: Connection, otherwise: str) -> None:
    rows = [member for one in rounds for member in _members(one)]
    output.show(rows, lambda: _table(rounds, connection, otherwise))


def _table(rounds: Sequence[Round], connection: Connection, otherwise: str) -> Table:
    from rich.table import Table

    tokens = tokens_on((one.token for one in rounds), connection)
    table = Table(caption="" if rounds else otherwise)
    for name in ("Round", "Member", "Amount", "", "Transaction"):
        table.add_column(name, overflow="fold")
    for one in rounds:
        for row in one.rows:
            fate = "paid" if row.is_paid else "skipped"
            amount = tokens[one.token].format(row.amount)
            table.add_row(str(one.number), row.name, amount, fate, to_hex(one.transaction_hash))
    return table
