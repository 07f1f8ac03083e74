"""``channelpay recover``: books that were lost, or restored from a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from channelpay.cli.books import Books, books_options
from channelpay.cli.common import (
    BOOKS,
    Setting,
    chosen_account,
    connected,
    contract_address,
    home,
    observer_of,
    open_books,
    pass_output,
    setting_options,
)
from channelpay.cli.confirming import confirmations_of_network
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.errors import InputError
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, ChannelId, Deployment


@click.group()
def recover() -> None:
    """Find your channels again: a payer's, or those of a site.

    The chain knows every channel, and not what was promised over it. So channels that are found
    again are in doubt, until payer and payee have told each other, with the payer's signatures as
    the proof. Nothing is lost that is not named in docs/safety.md.
    """


def _recovery_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--from-block",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            metavar="BLOCK",
            help="Where to begin to read: before your first channel was opened.",
        ),
        click.option(
            "--restored",
            is_flag=True,
            help="The books are a copy that was put back by other means, say a disk snapshot.",
        ),
        click.option(
            "--backup",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Put this copy in the place of books that are lost; never over others.",
        ),
    ):
        command = option(command)
    return command


@recover.command(epilog="Example: channelpay recover payer --from-block 21000000")
@_recovery_options
@setting_options
@json_option
@pass_output
def payer(
    output: Output, *, backup: Path | None, restored: bool, from_block: int, setting: Setting
) -> None:
    """Find the channels that you opened.

    What the books say of a channel stays. With --restored they are put in doubt, as a copy made by
    'channelpay backup' is by itself. Before anything more is signed over a channel in doubt, its
    payee is asked what it holds.
    """
    from channelpay.payer.backup import back_up
    from channelpay.payer.recovery import rebuild

    if backup is not None:
        back_up(backup, home() / BOOKS)
    stored = chosen_account(setting.account)
    with open_books() as state:
        marked = state.mark_in_doubt() if restored else 0
        observer = observer_of(setting, state, stored.address)
        contract = observer.contract_at(_deployment(setting, observer.chain_id))
        rebuilt = rebuild(contract, stored.address, state, from_block)
        observer.refresh()
    _show(output, rebuilt.found, rebuilt.known, marked)


@recover.command(
    epilog="Example: channelpay recover payee --payee 0xYourAddress --from-block 21000000"
)
@click.option(
    "--payee",
    "address",
    metavar="ADDRESS",
    help="Who is paid (default: the address of the account).",
)
@_recovery_options
@books_options
@setting_options
@json_option
@pass_output
def payee(
    output: Output,
    *,
    address: str | None,
    backup: Path | None,
    restored: bool,
    from_block: int,
    books: Books,
    setting: Setting,
) -> None:
    """Find the channels that pay a site, before it serves again.

    The vouchers come back from the payers: the next request of each has one for at least all that
    it ever signed. All that was promised before then counts as charged. A deposit counts from the
    confirmations of the network's settings on. With --restored, all channels of the books are put
    in doubt, as in a copy made by 'channelpay payee backup'; a PostgreSQL database that was
    restored needs it.
    """
    from channelpay.chain.contract import PaymentChannelsContract
    from channelpay.payee.acceptance import Confirmations
    from channelpay.payee.chain_link import ChainLink
    from channelpay.payee.recovery import rebuild
    from channelpay.store import open_store

    connection = connected(setting.rpc)
    recipient = _recipient(address, setting)
    contract = PaymentChannelsContract(connection, _deployment(setting, connection.chain_id))
    needed = confirmations_of_network(click.get_current_context())
    link = ChainLink(contract, Confirmations(needed))
    _restore_books(books, backup)
    with closing(open_store(books.url)) as store:
        rebuilt = rebuild(link, store, recipient, from_block, restored=restored)
    _show(output, rebuilt.found, rebuilt.known, rebuilt.marked)


# --- steps of the commands -----------------------------------------------------------------------


def _deployment(setting: Setting, chain_id: int) -> Deployment:
    from channelpay.chain.create2 import predicted_address

    return Deployment(chain_id, contract_address(setting) or predicted_address())


def _recipient(address: str | None, setting: Setting) -> Address:
    if address is not None:
        return parse_address(address, "payee")
    return chosen_account(setting.account).address


def _restore_books(books: Books, backup: Path | None) -> None:
    from channelpay.store import sqlite_file
    from channelpay.store.backup import back_up

    file = sqlite_file(books.url)
    if file is not None:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if backup is None:
        return
    if file is None:
        raise InputError(
            "a backup file is of SQLite books",
            hint="Restore PostgreSQL with its own tools, then give --restored.",
        )
    back_up(backup, file)


def _show(output: Output, found: Sequence[ChannelId], known: int, marked: int) -> None:
    ids = [to_hex(one) for one in found]
    shown = {"Found": "\n".join(ids) or "none", "Known before": str(known)}
    if marked:
        shown["Put in doubt"] = str(marked)
    members = {"found": ids, "known": known, "marked": marked}
    output.show(members, lambda: facts_table(shown))
