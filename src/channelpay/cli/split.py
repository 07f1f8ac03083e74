"""``channelpay split``: a payee that is a group. Its address, create, release, close."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.books import Books, books_options, opened
from channelpay.cli.common import (
    Setting,
    connected,
    named_channel,
    pass_output,
    paying_account,
    setting_options,
    token_option,
)
from channelpay.cli.consent import DRY_RUN_PASSED, Consent, Preview, consent_options
from channelpay.cli.office import reached
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.errors import NotFound, PaymentRefused
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.chain.connection import Connection
    from channelpay.chain.splitters import Shares, SplitterContract
    from channelpay.chain.types import ContractCall, TransactionReceipt

_AGAIN = "Run the command again: nothing is done twice."
_file = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


@click.group()
def split() -> None:
    """Share what a site earns on chain: its payee is a contract that pays each party its part.

    FILE says who shares: docs/how-to/split.md.
    """


@split.command(epilog="Example: channelpay split address shares.toml")
@_file
@json_option
@pass_output
def address(output: Output, /, *, file: Path) -> None:
    """Say where the splitter of these shares is on every chain, without asking a node.

    It can be named as payee, and be paid, before it is created.
    """
    from channelpay.chain.splitters import splitter_address
    from channelpay.payee.shares import read_shares

    shares = read_shares(file)
    place = checksum_address(splitter_address(shares))
    members = {"address": place, "shares": _share_members(shares)}
    facts = {"Address": place}
    facts |= {checksum_address(one): f"{part / 100:g} %" for one, part in shares.parties}
    output.show(members, lambda: facts_table(facts))


@split.command(epilog="Example: channelpay split create shares.toml --account main --yes")
@_file
@consent_options
@setting_options
@json_option
@pass_output
def create(output: Output, /, *, file: Path, consent: Consent, setting: Setting) -> int:
    """Put the splitter on a chain, unless it is there. It needs to be there to pay its parties."""
    connection, splitter = _splitter(file, setting.rpc)
    if not splitter.has_factory():
        raise NotFound(
            "the chain lacks the factory of splitters",
            hint="Put it there, once for everybody: channelpay contract deploy"
            " revenue-splitter-factory",
        )
    members: dict[str, Any] = {"address": checksum_address(splitter.address)}
    if splitter.is_there():
        _show(output, members | {"alreadyThere": True})
        return DRY_RUN_PASSED if consent.dry_run else 0
    receipt = _sent(output, connection, setting, consent, "create", splitter.create(), members)
    if receipt is None:
        return DRY_RUN_PASSED
    _show(output, members | {"alreadyThere": False, "txHash": to_hex(receipt.transaction_hash)})
    return 0


@split.command(epilog="Example: channelpay split release shares.toml --token eth --account main")
@_file
@consent_options
@setting_options
@token_option
@json_option
@pass_output
def release(
    output: Output, /, *, file: Path, consent: Consent, setting: Setting, token: Address
) -> int:
    """Pay every party what it can be paid now. Any account may; it pays the gas.

    A party that cannot receive does not stop the others; it can name another receiver itself
    (releaseTo).
    """
    connection, splitter = _splitter(file, setting.rpc)
    if not splitter.is_there():
        raise NotFound(
            "the splitter is not created yet", hint=f"Run: channelpay split create {file}"
        )
    rows, code = [], 0
    for party, amount in splitter.releasable(token):
        if not amount:
            continue
        row: dict[str, Any] = {"account": checksum_address(party), "amount": str(amount)}
        call = splitter.release(token, party)
        receipt = _sent(output, connection, setting, consent, "release", call, row)
        if receipt is None:
            code = DRY_RUN_PASSED
            continue
        rows.append(row | {"txHash": to_hex(receipt.transaction_hash)})
    if not consent.dry_run:
        output.show(rows, lambda: _rows_table(rows))
    return code


@split.command(epilog="Example: channelpay split close shares.toml 0x1f2e3d4c --account operator")
@_file
@click.argument("name", metavar="CHANNEL")
@consent_options
@books_options
@setting_options
@json_option
@pass_output
def close(
    output: Output,
    /,
    *,
    file: Path,
    name: str,
    consent: Consent,
    books: Books,
    setting: Setting,
) -> int:
    """Close a channel to the group with its best voucher; the payer gets the rest.

    Only the operator that FILE names can. A contract signs nothing, so that payers' own requests to
    close at once are refused: they request a close on the chain instead, and wait.
    """
    connection, deployment = reached(setting.rpc, setting.contract)
    _, splitter = _splitter(file, setting.rpc)
    with opened(books) as store:
        record = named_channel(store.records(), name, "channelpay payee list")
    if record.channel.payee != splitter.address:
        raise PaymentRefused("the channel is not one to this group")
    amount, signature = (record.accepted, record.signature) if record.signature else (0, b"")
    call = splitter.close(deployment.contract, record.channel, amount, signature)
    members = {"channelId": to_hex(record.channel_id), "settled": str(amount)}
    receipt = _sent(output, connection, setting, consent, "close", call, members)
    if receipt is None:
        return DRY_RUN_PASSED
    _show(output, members | {"txHash": to_hex(receipt.transaction_hash)})
    return 0


def _splitter(file: Path, rpc: str | None) -> tuple[Connection, SplitterContract]:
    from channelpay.chain.splitters import SplitterContract
    from channelpay.payee.shares import read_shares

    shares = read_shares(file)
    connection = connected(rpc)
    return connection, SplitterContract(connection, shares)


def _sent(
    output: Output,
    connection: Connection,
    setting: Setting,
    consent: Consent,
    action: str,
    call: ContractCall,
    members: dict[str, Any],
) -> TransactionReceipt | None:
    """The receipt; None after a dry run."""
    from channelpay.chain.sender import Sender, SendPolicy

    account = paying_account(setting, output).signer
    sender = Sender(connection, account, SendPolicy(listener=output.told))

    def preview() -> Preview:
        from channelpay.chain.types import Tried

        facts = {"Would": action} | {name: str(value) for name, value in members.items()}
        return Preview(action, [Tried(action, sender.trial(call))], members, facts, "Send it?")

    if not consent.given(output, preview):
        return None
    with output.waiting("Waiting for the chain", after_interrupt=_AGAIN):
        return sender.send(call)


def _share_members(shares: Shares) -> list[dict[str, Any]]:
    return [{"account": checksum_address(one), "basisPoints": part} for one, part in shares.parties]


def _show(output: Output, members: dict[str, Any]) -> None:
    output.show(members, lambda: facts_table({key: str(one) for key, one in members.items()}))


def _rows_table(rows: Sequence[dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table(caption="" if rows else "There is nothing to pay.")
    for name in ("Account", "Base units", "Transaction"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(row["account"], row["amount"], row["txHash"])
    return table
