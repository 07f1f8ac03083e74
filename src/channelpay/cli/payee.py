"""``channelpay payee``: list, settle, close, backup. The books are those of a site, which may run
meanwhile or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    SITE_BOOKS,
    Setting,
    connected,
    contract_address,
    format_amount_of,
    named_channel,
    pass_output,
    rpc_option,
    setting_options,
    short,
    state_option,
    unlocked_account,
)
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.errors import ChannelPayError, InputError, NetworkError, NotFound
from channelpay.protocol.text import checksum_address, format_amount, to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelStatus, Deployment

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payee.chain_link import ChainLink
    from channelpay.payee.closer import Closer, Taken
    from channelpay.payee.terms import Token
    from channelpay.protocol.rules import ChannelRecord
    from channelpay.store import Store

LIST = "channelpay payee list"
AGAIN = "A transaction may still be mined. Run the command again: nothing is taken twice."


@click.group()
def payee() -> None:
    """Take what is owed to you: list, settle and close the channels of a site, and keep its books.

    The site may run meanwhile, or be down. A CHANNEL is named by its id or the first digits of it.
    """


@payee.command("list", epilog="Example: channelpay payee list --rpc http://127.0.0.1:8545")
@state_option
@rpc_option
@json_option
@pass_output
def list_(output: Output, state: Path, rpc: str | None) -> None:
    """List the channels in the books.

    Works without a node; with --rpc the table has the amounts of every token in its own units.
    """
    with _open_books(state) as store:
        records = store.records()
    output.show([_members(record) for record in records], lambda: _table(records, rpc))


def _taking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        pass_output,
        json_option,
        setting_options,
        state_option,
        click.option("--all", "everything", is_flag=True, help="Every channel of the books."),
        click.argument("names", metavar="[CHANNEL]...", nargs=-1),
    ):
        command = option(command)
    return command


@payee.command(epilog="Example: channelpay payee settle --all --account publisher")
@_taking_options
def settle(
    output: Output, *, names: tuple[str, ...], everything: bool, state: Path, setting: Setting
) -> int:
    """Take what the best vouchers promise, one transaction for each channel; they stay open.

    A channel with nothing to take is left alone. One that fails does not stop the others.
    """
    _check_choice(names, everything=everything)
    with _open_desk(state, setting) as desk:
        return _take(output, desk, names, _SETTLE)


@payee.command(epilog="Example: channelpay payee close 0x1f2e3d4c --account publisher")
@_taking_options
def close(
    output: Output, *, names: tuple[str, ...], everything: bool, state: Path, setting: Setting
) -> int:
    """Take what the best vouchers promise and close the channels; their payers get the rest.

    One transaction for each channel. One that fails does not stop the others.
    """
    _check_choice(names, everything=everything)
    with _open_desk(state, setting) as desk:
        return _take(output, desk, names, _CLOSE)


@payee.command(epilog="Example: channelpay payee backup /mnt/backup/books-monday.sqlite3")
@click.argument("to", metavar="TO", type=click.Path(path_type=Path))
@state_option
@json_option
@pass_output
def backup(output: Output, to: Path, state: Path) -> None:
    """Copy the books into the new file TO, as they are at this moment.

    The copy is checked, and on the disk when the command ends. It has every voucher that you can
    still take money for: keep it as safe as the books.
    """
    from channelpay.store.backup import back_up

    back_up(state / SITE_BOOKS, to)
    members = {"backup": str(to), "bytes": to.stat().st_size}
    output.show(members, lambda: facts_table({"Backup": str(to), "Bytes": str(members["bytes"])}))


# --- steps of the commands -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Desk:
    """What taking money needs: the books, the chain and the key."""

    deployment: Deployment
    store: Store
    link: ChainLink
    closer: Closer


@dataclass(frozen=True, slots=True)
class _Deed:
    """One of the two ways to take money. ``obstacle`` says why there is nothing to do."""

    progress: str
    obstacle: Callable[[ChannelRecord], str | None]
    perform: Callable[[Closer, ChannelRecord], Taken]


def _closed_already(record: ChannelRecord) -> str | None:
    over = record.chain.status is ChannelStatus.FINALIZED
    return "it is closed already" if over else None


def _nothing_to_take(record: ChannelRecord) -> str | None:
    return _closed_already(record) or (None if _unsettled(record) else "there is nothing to take")


_SETTLE = _Deed("Settling", _nothing_to_take, lambda closer, record: closer.settle(record))
_CLOSE = _Deed("Closing", _closed_already, lambda closer, record: closer.close(record))


@contextmanager
def _open_books(state: Path) -> Iterator[Store]:
    from channelpay.store import open_store

    books = state / SITE_BOOKS
    if not books.exists():
        raise NotFound(
            f"there are no books at {books}", hint="Name the folder of a site with --state."
        )
    with closing(open_store(f"sqlite:///{books}")) as store:
        yield store


@contextmanager
def _open_desk(state: Path, setting: Setting) -> Iterator[_Desk]:
    with _open_books(state) as store:
        connection = connected(setting.rpc)
        from channelpay.chain.contract import PaymentChannelsContract
        from channelpay.chain.create2 import predicted_address
        from channelpay.chain.sender import Sender
        from channelpay.payee.chain_link import ChainLink
        from channelpay.payee.closer import Closer

        contract = contract_address(setting) or predicted_address()
        deployment = Deployment(connection.chain_id, contract)
        link = ChainLink(PaymentChannelsContract(connection, deployment))
        sender = Sender(connection, unlocked_account(setting))
        yield _Desk(deployment, store, link, Closer(link, sender, store))


def _check_choice(names: tuple[str, ...], *, everything: bool) -> None:
    if bool(names) == everything:
        raise InputError("name the channels, or give --all", hint=f"List them with: {LIST}")


def _take(output: Output, desk: _Desk, names: tuple[str, ...], deed: _Deed) -> int:
    """Returns the exit code: that of the first failure, or 0."""
    code = 0
    for record in _chosen(output, desk, names):
        try:
            _take_one(output, desk, record, deed)
        except ChannelPayError as error:
            error.context.setdefault("channelId", to_hex(record.channel_id))
            output.error(error)
            code = code or error.exit_code
    return code


def _chosen(output: Output, desk: _Desk, names: tuple[str, ...]) -> list[ChannelRecord]:
    """The named channels, or all that are not closed, as far as the books know."""
    records = desk.store.records()
    if names:
        named = [named_channel(records, name, LIST) for name in names]
        for record in named:
            _check_place(record, desk.deployment)
        return named
    live = [record for record in records if record.chain.status is not ChannelStatus.FINALIZED]
    for record in live:
        if not _is_at(record, desk.deployment):
            _skip(output, record, "it belongs to another contract or chain")
    return [record for record in live if _is_at(record, desk.deployment)]


def _is_at(record: ChannelRecord, deployment: Deployment) -> bool:
    """Books may hold channels of an earlier contract."""
    return record.channel.id(deployment) == record.channel_id


def _check_place(record: ChannelRecord, deployment: Deployment) -> None:
    if not _is_at(record, deployment):
        raise InputError(
            f"{to_hex(record.channel_id)} belongs to another contract or chain",
            hint="Name its contract with --contract, and a node of its chain with --rpc.",
        )


def _take_one(output: Output, desk: _Desk, known: ChannelRecord, deed: _Deed) -> None:
    from channelpay.payee.payee import token_at

    # No site may have watched it.
    record = desk.closer.refreshed(known)
    obstacle = deed.obstacle(record)
    if obstacle is not None:
        _skip(output, record, obstacle)
        return
    # Asked before money moves, so that afterwards nothing can fail but what is nice to know.
    token = token_at(desk.link.contract.connection, record.channel.token)
    progress = f"{deed.progress} {short(record.channel_id)}"
    with output.waiting(progress, after_interrupt=AGAIN):
        taken = deed.perform(desk.closer, record)
    amount = taken.record.chain.settled - record.chain.settled
    _show_taken(output, _Taking(taken, amount, token, _fee_wei(desk.link, taken)))


def _fee_wei(link: ChainLink, taken: Taken) -> int | None:
    """What the gas cost, if the node tells: the money is taken in any case."""
    try:
        receipt = link.contract.connection.receipt(taken.transaction_hash)
    except NetworkError:
        return None
    return None if receipt is None else receipt.fee_wei


# --- what is shown -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Taking:
    """What one transaction brought, in base units of ``token``, and what its gas cost."""

    taken: Taken
    amount: int
    token: Token
    fee_wei: int | None


def _unsettled(record: ChannelRecord) -> int:
    """What can still be taken: nothing once the channel is closed."""
    over = record.chain.status is ChannelStatus.FINALIZED
    return 0 if over else max(0, record.accepted - record.chain.settled)


def _members(record: ChannelRecord) -> dict[str, Any]:
    """What programs read; amounts are decimal strings in base units."""
    return {
        "channelId": to_hex(record.channel_id),
        "status": record.chain.status.value,
        "payer": checksum_address(record.channel.payer),
        "payee": checksum_address(record.channel.payee),
        "token": checksum_address(record.channel.token),
        "deposit": str(record.chain.deposit),
        "accepted": str(record.accepted),
        "spent": str(record.spent),
        "settled": str(record.chain.settled),
        "unsettled": str(_unsettled(record)),
    }


def _table(records: list[ChannelRecord], rpc: str | None) -> Table:
    from rich.markup import escape
    from rich.table import Table

    tokens = _tokens({record.channel.token for record in records}, rpc)
    columns = ("Channel", "Payer", "Status", "Deposit", "Accepted", "Spent", "Settled", "Unsettled")
    table = Table(*columns)
    for record in records:
        chain = record.chain
        amounts = (chain.deposit, record.accepted, record.spent, chain.settled, _unsettled(record))
        cells = (
            short(record.channel_id),
            short(record.channel.payer),
            chain.status.value,
            *(format_amount_of(amount, tokens.get(record.channel.token)) for amount in amounts),
        )
        table.add_row(*map(escape, cells))
    return table


def _tokens(addresses: set[Address], rpc: str | None) -> dict[Address, Token]:
    """What is known of these tokens: without a node, ether only."""
    from channelpay.payee.payee import token_at
    from channelpay.payee.terms import ETHER

    if rpc is None or addresses <= {NATIVE}:
        return {NATIVE: ETHER}
    connection = connected(rpc)
    return {address: token_at(connection, address) for address in addresses}


def _skip(output: Output, record: ChannelRecord, reason: str) -> None:
    channel_id = to_hex(record.channel_id)
    output.note(f"Left {channel_id} alone: {reason}.", {"channelId": channel_id, "skipped": reason})


def _show_taken(output: Output, taking: _Taking) -> None:
    record, fee_wei = taking.taken.record, taking.fee_wei
    transaction_hash = to_hex(taking.taken.transaction_hash)
    members = {
        "channelId": to_hex(record.channel_id),
        "status": record.chain.status.value,
        "txHash": transaction_hash,
        "amount": str(taking.amount),
        "feeWei": None if fee_wei is None else str(fee_wei),
    }
    shown = {
        "Channel": to_hex(record.channel_id),
        "Status": record.chain.status.value,
        "Taken": taking.token.format(taking.amount),
        "Gas fee": "unknown" if fee_wei is None else format_amount(fee_wei, 18, "ETH"),
        "Transaction": transaction_hash,
    }
    output.show(members, lambda: facts_table(shown))
