"""``channelpay account``: the keys of the keystore. They leave it by ``export`` alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from channelpay.cli.agreement import require_name
from channelpay.cli.common import (
    BOOKS,
    Setting,
    chosen_account,
    format_amount_of,
    home,
    observer_of,
    open_books,
    pass_output,
    password_option,
    setting_options,
    token_option,
)
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.cli.passwords import (
    forget_password,
    password_of,
    read_password,
    read_secret_file,
    remember,
)
from channelpay.cli.qr import qr_option, show_qr
from channelpay.errors import ConfigError, InputError, NetworkError
from channelpay.private_files import write_private
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address, ChannelStatus

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.chain.keystore import StoredAccount

_path_option = click.option(
    "--path",
    metavar="PATH",
    help="Where the key is derived (default: m/44'/60'/0'/0/0, the first account).",
)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


@click.group()
def account() -> None:
    """Keep keys: new, import, ledger, wallet, list, show, remember, export, delete.

    They are encrypted in CHANNELPAY_HOME/keystore, one file each, as other wallets read them.
    """


# --- keys come in --------------------------------------------------------------------------------


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
@_path_option
@password_option
@json_option
@pass_output
def import_(
    output: Output,
    name: str,
    secret_file: Path | None,
    path: str | None,
    password_file: Path | None,
) -> None:
    """Store a private key (hex) or an account of a mnemonic.

    Secrets are not taken as arguments: others could see them in the list of processes.
    """
    from channelpay.chain import keystore

    secret = _read_secret(secret_file)
    password = read_password(password_file, f"Password for {name}", confirm=True)
    _show_stored(output, name, keystore.import_key(home(), name, secret, password, path))


@account.command(epilog="Example: channelpay account ledger cold --path \"m/44'/60'/1'/0/0\"")
@click.argument("name")
@_path_option
@password_option
@json_option
@pass_output
def ledger(output: Output, name: str, path: str | None, password_file: Path | None) -> None:
    """Use an account of a Ledger: its key stays in the device, which signs transactions alone.

    Vouchers are signed by session keys. They come from a secret that is made now and kept in the
    keystore under the password: copy that file, as for any account.
    """
    from channelpay.chain import keystore
    from channelpay.chain.ledger import address_at

    chosen = path or keystore.DEFAULT_PATH
    address = address_at(chosen)
    password = read_password(password_file, f"Password for {name}", confirm=True)
    keystore.add_ledger(home(), name, address, chosen, password)
    _show_stored(output, name, address)


@account.command(epilog="Example: channelpay account wallet safe 0xYourWallet")
@click.argument("name")
@click.argument("address", metavar="ADDRESS")
@password_option
@json_option
@pass_output
def wallet(output: Output, name: str, address: str, password_file: Path | None) -> None:
    """Pay out of another wallet, a smart-contract wallet say: there is no key of it here.

    What it has to send is shown: channel open, top-up, close --request and withdraw say it and wait
    until the chain has it. Vouchers are signed by session keys. They come from a secret that is
    made now and kept in the keystore under the password: copy that file, as for any account.
    """
    from channelpay.chain import keystore

    place = parse_address(address, "address")
    password = read_password(password_file, f"Password for {name}", confirm=True)
    keystore.add_outside(home(), name, place, password)
    _show_stored(output, name, place)


# --- what is there -------------------------------------------------------------------------------


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
@qr_option("the address")
@setting_options
@token_option
@json_option
@pass_output
def show(output: Output, name: str | None, *, qr: bool, setting: Setting, token: Address) -> None:
    """Show an account; with --rpc also what it holds outside of channels."""
    stored = chosen_account(name or setting.account)
    members: dict[str, str | None] = {
        "name": stored.name,
        "address": checksum_address(stored.address),
        "file": str(stored.path),
    }
    if stored.is_outside:
        members["key"] = "in another wallet"
    if stored.ledger_path is not None:
        members["ledgerPath"] = stored.ledger_path
    facts = {name: text for name, text in members.items() if text is not None}
    if setting.rpc is not None:
        balance, facts["balance"] = _balance(output, setting, stored, token)
        members |= balance
    output.show(members, lambda: facts_table(facts))
    if qr:
        show_qr(output, checksum_address(stored.address))


def _balance(
    output: Output, setting: Setting, stored: StoredAccount, token: Address
) -> tuple[dict[str, str | None], str]:
    """For programs and for people; without a node that answers, it is unknown."""
    try:
        with open_books() as state:
            observer = observer_of(setting, state, stored.address)
            balance, described = observer.balance(token), observer.token(token)
    except NetworkError as error:
        output.error(error)
        return {"balance": None, "tokenSymbol": None}, "unknown"
    members: dict[str, str | None] = {"balance": str(balance), "tokenSymbol": described.symbol}
    return members, format_amount_of(balance, described)


@account.command("remember", epilog="Example: channelpay account remember main")
@click.argument("name")
@click.option("--undo", is_flag=True, help="Have the keyring forget it.")
@password_option
@json_option
@pass_output
def remember_(output: Output, name: str, *, undo: bool, password_file: Path | None) -> None:
    """Put an account's password into the system's keyring, so that it is not asked any more.

    Whoever is logged in as you can pay from then on. Needs the extra 'keyring'.
    """
    from channelpay.chain import keystore

    stored = keystore.find(home(), name)
    if undo:
        forget_password(stored)
    else:
        password = read_password(password_file, f"Password of {stored.name}")
        _require_opens(stored, password)
        remember(stored, password)
    _show_stored(output, stored.name, stored.address)


# --- keys go out ---------------------------------------------------------------------------------


@account.command(epilog="Example: channelpay account export main --to main.json")
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="A new file.")
@click.option("--show", "is_shown", is_flag=True, help="Print it instead.")
@click.option("--key", "as_key", is_flag=True, help="The bare key: whoever reads it has it all.")
@_yes_option
@password_option
@json_option
@pass_output
def export(
    output: Output,
    name: str,
    *,
    to: Path | None,
    is_shown: bool,
    as_key: bool,
    yes: bool,
    password_file: Path | None,
) -> None:
    """Copy an account out of the keystore: encrypted under its password, or (--key) as bare key.

    The file is made with mode 0600, and never over another.
    """
    from channelpay.chain import keystore

    if (to is None) != is_shown:
        raise InputError("name a new file with --to, or say --show")
    stored = keystore.find(home(), name)
    what = "bare key" if as_key else "encrypted key"
    require_name(stored.name, f"This copies the {what} of {stored.name}", is_agreed=yes)
    text = _key(stored, password_file) if as_key else keystore.encrypted_text(stored)
    if to is None:
        click.echo(text)
        return
    _write_export(to, text)
    _show_stored(output, stored.name, stored.address)


@account.command(epilog="Example: channelpay account delete old")
@click.argument("name")
@click.option(
    "--lose-channels", is_flag=True, help="Also while channels are open: their deposits are lost."
)
@_yes_option
@json_option
@pass_output
def delete(output: Output, name: str, *, lose_channels: bool, yes: bool) -> None:
    """Delete an account from the keystore. Without another copy of its key, all it has is lost.

    It is refused while the books have channels of the account that are not finalized.
    """
    from channelpay.chain import keystore

    stored = keystore.find(home(), name)
    if not lose_channels:
        _require_no_channels(stored)
    require_name(stored.name, f"This deletes the key of {stored.name}", is_agreed=yes)
    keystore.delete(stored)
    forget_password(stored)
    _show_stored(output, stored.name, stored.address)


# --- inside the commands -------------------------------------------------------------------------


def _read_secret(file: Path | None) -> str:
    if file is not None:
        return read_secret_file(file)
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    secret: str = click.prompt("Private key or mnemonic", hide_input=True, err=True)
    return secret


def _key(stored: StoredAccount, password_file: Path | None) -> str:
    from channelpay.chain import keystore

    password = password_of(stored, password_file)
    return to_hex(keystore.load(home(), stored.name, password).key)


def _write_export(to: Path, text: str) -> None:
    try:
        write_private(to, text.encode() + b"\n")
    except FileExistsError:
        raise InputError(f"there is a file at {to}", hint="Name a new one.") from None
    except OSError as error:
        raise ConfigError(f"{to} cannot be written: {error.strerror}") from error


def _require_opens(stored: StoredAccount, password: str) -> None:
    from channelpay.chain import keystore

    if stored.has_key:
        keystore.load(home(), stored.name, password)
    else:
        keystore.load_session_secret(home(), stored.name, password)


def _require_no_channels(stored: StoredAccount) -> None:
    """Books that are not there have none."""
    if not (home() / BOOKS).exists():
        return
    with open_books() as state:
        entries = state.channels(stored.address)
    count = sum(entry.status is not ChannelStatus.FINALIZED for entry in entries)
    if count:
        raise ConfigError(
            f"{stored.name} has {count} channel{'s'[: count > 1]} that may hold its money",
            hint="Close them first: channelpay channel list. Or give --lose-channels.",
        )


def _show_stored(output: Output, name: str, address: Address) -> None:
    members = {"name": name, "address": checksum_address(address)}
    output.show(members, lambda: _table([members]))


def _table(accounts: list[dict[str, str]]) -> Table:
    from rich.table import Table

    table = Table("Name", "Address")
    for one in accounts:
        table.add_row(one["name"], one["address"])
    return table
