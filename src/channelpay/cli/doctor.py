"""``channelpay doctor``: what would keep a payment from working, and what to do about it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from channelpay.cli.common import (
    BOOKS,
    Setting,
    chosen_network,
    connected,
    contract_address,
    home,
    pass_output,
    setting_options,
)
from channelpay.cli.output import Output, json_option
from channelpay.errors import ChannelPayError, StoreUnavailable
from channelpay.private_files import require_private
from channelpay.protocol.text import checksum_address, format_amount
from channelpay.protocol.types import Address, Deployment

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.chain.connection import Connection

HEAD_AGE_SECONDS_MAX = 300
"""A node that is further behind, or a clock that is further off, is worth a look."""
GAS_OF_AN_OPEN = 120_000
"""What an open takes at most, an ERC-20's approval beside it."""
_DAMAGED = "Restore a backup, or find your channels again with: channelpay recover payer"


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``hint`` says what to do, where something is to be done."""

    check: str
    level: Level
    detail: str
    hint: str = ""


@click.command(epilog="Example: channelpay --network base doctor")
@setting_options
@json_option
@pass_output
def doctor(output: Output, setting: Setting) -> int:
    """Check settings, files, accounts, node, contract, balances and clock.

    Sends nothing and changes nothing. Ends with code 1 if there is a problem.
    """
    findings = [*_settings(), *_files(), *_chain(setting)]
    output.show(
        [
            {"check": f.check, "level": f.level.value, "detail": f.detail, "hint": f.hint}
            for f in findings
        ],
        lambda: _table(findings),
    )
    return int(any(finding.level is Level.PROBLEM for finding in findings))


def _settings() -> Iterator[Finding]:
    network = chosen_network(click.get_current_context())
    if network is None:
        detail, hint = "no network is chosen", "Choose one with: channelpay init --network NAME"
        yield Finding("settings", Level.WARNING, detail, hint)
    else:
        detail = f"network {network.name}, chain {network.chain_id}"
        yield Finding("settings", Level.OK, detail)


# --- files ---------------------------------------------------------------------------------------


def _files() -> Iterator[Finding]:
    from channelpay.chain.keystore import FOLDER

    folder = home()
    yield _private("home", folder)
    accounts = sorted((folder / FOLDER).glob("*.json"))
    yield from (_private(f"account {path.stem}", path) for path in accounts)
    if not accounts:
        hint = "Make one with: channelpay account new NAME"
        yield Finding("accounts", Level.WARNING, "there is no account", hint)
    else:
        yield _checked("accounts", _names)
    if (folder / BOOKS).exists():
        yield _private("books", folder / BOOKS)
        yield _checked("books", _whole_books)


def _names() -> str:
    """Reads all key files, which fails if one is damaged."""
    from channelpay.chain.keystore import list_accounts

    return ", ".join(account.name for account in list_accounts(home()))


def _private(check: str, path: Path) -> Finding:
    def found() -> str:
        require_private(path, path.stat().st_mode)
        return f"{path} is yours alone"

    return _checked(check, found)


def _whole_books() -> str:
    """Reads the file alone, so that it is found as it is."""
    file = (home() / BOOKS).absolute()
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as books:
            (found,) = books.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise StoreUnavailable(f"{file} is damaged: {found}", hint=_DAMAGED)
    return "the books are whole"


# --- the chain -----------------------------------------------------------------------------------


def _chain(setting: Setting) -> Iterator[Finding]:
    if setting.rpc is None:
        hint = "Name one with --rpc or CHANNELPAY_RPC, or choose a network."
        yield Finding("node", Level.WARNING, "no node is named", hint)
        return
    try:
        connection = connected(setting.rpc)
    except ChannelPayError as error:
        yield _problem("node", error)
        return
    yield _checked("node", lambda: _head(connection))
    yield _clock(connection)
    yield _checked("contract", lambda: _contract(connection, setting))
    yield from _balances(connection)


def _head(connection: Connection) -> str:
    return f"chain {connection.chain_id}, block {connection.latest_block().number}"


def _clock(connection: Connection) -> Finding:
    try:
        age = time.time() - connection.latest_block().timestamp
    except ChannelPayError as error:
        return _problem("clock", error)
    if abs(age) <= HEAD_AGE_SECONDS_MAX:
        return Finding("clock", Level.OK, f"the latest block is {age:.0f} s old")
    which = f"{age:.0f} s old" if age > 0 else f"{-age:.0f} s in the future"
    hint = "The node is behind, or this machine's clock is off: compare it with a time server."
    return Finding("clock", Level.WARNING, f"the latest block is {which}", hint)


def _contract(connection: Connection, setting: Setting) -> str:
    from channelpay.chain.contract import PaymentChannelsContract
    from channelpay.chain.create2 import predicted_address

    address = contract_address(setting) or predicted_address()
    deployment = Deployment(connection.chain_id, address)
    PaymentChannelsContract(connection, deployment).require_genuine()
    return f"{checksum_address(address)} is genuine"


def _balances(connection: Connection) -> Iterator[Finding]:
    from channelpay.chain.keystore import list_accounts

    with suppress(ChannelPayError):  # It was found with the files.
        for account in list_accounts(home()):
            yield _balance(connection, account.name, account.address)


def _balance(connection: Connection, name: str, address: Address) -> Finding:
    try:
        balance = connection.balance_wei(address)
        fee = connection.next_base_fee_wei() + connection.suggested_tip_wei()
    except ChannelPayError as error:
        return _problem(f"balance of {name}", error)
    detail = f"{format_amount(balance, 18, 'ETH')}"
    if balance >= GAS_OF_AN_OPEN * fee:
        return Finding(f"balance of {name}", Level.OK, detail)
    hint = f"Send ether to {checksum_address(address)}: an open takes gas."
    return Finding(f"balance of {name}", Level.WARNING, f"{detail} does not pay an open", hint)


def _checked(check: str, find: Callable[[], str]) -> Finding:
    try:
        return Finding(check, Level.OK, find())
    except ChannelPayError as error:
        return _problem(check, error)


def _problem(check: str, error: ChannelPayError) -> Finding:
    return Finding(check, Level.PROBLEM, error.detail, error.hint)


def _table(findings: list[Finding]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    marks = {Level.OK: "[green]ok[/]", Level.WARNING: "[yellow]look[/]"}
    table = Table("Check", "")
    # Paths, addresses and commands are to be copied.
    for title in ("Found", "What to do"):
        table.add_column(title, overflow="fold")
    for one in findings:
        mark = marks.get(one.level, "[red]problem[/]")
        table.add_row(escape(one.check), mark, escape(one.detail), escape(one.hint))
    return table
