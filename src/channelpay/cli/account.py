"""``channelpay account``: the keys of the keystore. No command prints a key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from channelpay.cli.common import (
    Setting,
    chosen_account,
    format_amount_of,
    home,
    observer_of,
    open_books,
    pass_output,
    password_option,
    read_password,
    read_secret_file,
    setting_options,
    token_option,
)
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address

if TYPE_CHECKING:
    from rich.table import Table


@click.group()
def account() -> None:
    """Keep keys: new, import, list, show.

    They are encrypted in CHANNELPAY_HOME/keystore, one file each, as other wallets read them.
    """


@account.command(epilog="Example: channelpay account new main --password-file secret.txt")
@click.argument("name")
@password_option
@json_option
@pass_output
def new(output: Output, name: str, password_file: Path | None) -> None:
    """Make an account with a fresh key."""
    from channelpay.chain import keystore

    password = read_password(password_file, f"Password for {name}", confirm=True)
    _show_stored(output, name, keystore.create(home(), name, password))


@account.command("import", epilog="Example: channelpay account import dev --secret-file dev.key")
@click.argument("name")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds the private key or the mnemonic; else standard input or a prompt.",
)
@password_option
@json_option
@pass_output
def import_(
    output: Output, name: str, secret_file: Path | None, password_file: Path | None
) -> None:
    """Store a private key (hex) or the first account of a mnemonic.

    Secrets are not taken as arguments: others could see them in the list of processes.
    """
    from channelpay.chain import keystore

    secret = _read_secret(secret_file)
    password = read_password(password_file, f"Password for {name}", confirm=True)
    _show_stored(output, name, keystore.import_key(home(), name, secret, password))


@account.command("list", epilog="Example: channelpay account list --json")
@json_option
@pass_output
def list_(output: Output) -> None:
    """List the accounts."""
    from channelpay.chain import keystore

    accounts = keystore.list_accounts(home())
    members = [{"name": a.name, "address": checksum_address(a.address)} for a in accounts]
    output.show(members, lambda: _table(members))


@account.command(epilog="Example: channelpay account show main --rpc http://127.0.0.1:8545")
@click.argument("name", required=False)
@setting_options
@token_option
@json_option
@pass_output
def show(output: Output, name: str | None, setting: Setting, token: Address) -> None:
    """Show an account; with --rpc also what it holds outside of channels."""
    stored = chosen_account(name or setting.account)
    members = {
        "name": stored.name,
        "address": checksum_address(stored.address),
        "file": str(stored.path),
    }
    shown = dict(members)
    if setting.rpc is not None:
        with open_books() as state:
            observer = observer_of(setting, state, stored.address)
            balance, described = observer.balance(token), observer.token(token)
        members |= {"balance": str(balance), "tokenSymbol": described.symbol}
        shown["balance"] = format_amount_of(balance, described)
    output.show(members, lambda: facts_table(shown))


def _read_secret(file: Path | None) -> str:
    if file is not None:
        return read_secret_file(file)
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    secret: str = click.prompt("Private key or mnemonic", hide_input=True, err=True)
    return secret


def _show_stored(output: Output, name: str, address: Address) -> None:
    members = {"name": name, "address": checksum_address(address)}
    output.show(members, lambda: _table([members]))


def _table(accounts: list[dict[str, str]]) -> Table:
    from rich.table import Table

    table = Table("Name", "Address")
    for one in accounts:
        table.add_row(one["name"], one["address"])
    return table
