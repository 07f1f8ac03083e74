"""``channelpay channel``: open, list, show, top-up, close, withdraw."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    LOOK_AT_CHANNELS,
    Setting,
    chosen_account,
    contract_address,
    format_amount_of,
    named_channel,
    observer_of,
    open_books,
    open_payer,
    parse_amount_of,
    pass_output,
    setting_options,
    short,
    token_option,
)
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.errors import InputError, PaymentRefused
from channelpay.payer.records import ETHER, PayerChannel, Token
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelId, ChannelStatus

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.payer.client import Payer
    from channelpay.payer.state import PayerState


@click.group()
def channel() -> None:
    """Payment channels: open, list, show, top-up, close, withdraw.

    A CHANNEL is named by its id or the first digits of it.
    """


@channel.command(
    "open", epilog="Example: channelpay channel open https://example.org/page --deposit 0.05"
)
@click.argument("target", metavar="URL|PAYEE")
@click.option("--deposit", required=True, metavar="AMOUNT", help="How much to lock, say 0.05.")
@token_option
@setting_options
@json_option
@pass_output
def open_(output: Output, target: str, deposit: str, token: Address, setting: Setting) -> None:
    """Open a channel to whom a URL has to be paid, or to an address.

    The deposit is locked in the contract; what is not spent comes back when the channel is closed.
    """
    payee = None if "://" in target else parse_address(target, "payee")
    with open_payer(setting, output) as payer:
        url = None
        if payee is None:
            payee, url = _payee_of(target, token, setting), target
        described = payer.wallet.token(token)
        amount = parse_amount_of(deposit, described, "deposit")
        with output.waiting("Opening the channel", after_interrupt=LOOK_AT_CHANNELS):
            entry = payer.open_channel(payee, amount, token, url)
    _show_one(output, entry, described)


@channel.command("list", epilog="Example: channelpay channel list --rpc http://127.0.0.1:8545")
@setting_options
@json_option
@pass_output
def list_(output: Output, setting: Setting) -> None:
    """List the channels; with --rpc as the chain has them now.

    An open that was interrupted is found again this way.
    """
    stored = chosen_account(setting.account)
    with open_books() as state:
        if setting.rpc is not None:
            observer_of(setting, state, stored.address).refresh()
        entries = state.channels(stored.address)
        tokens = {entry.channel_id: _token_of(state, entry) for entry in entries}
    output.show([_members(entry) for entry in entries], lambda: _table(entries, tokens))


@channel.command(epilog="Example: channelpay channel show 0x1f2e3d4c")
@click.argument("channel_name", metavar="CHANNEL")
@setting_options
@json_option
@pass_output
def show(output: Output, channel_name: str, setting: Setting) -> None:
    """Show one channel; with --rpc as the chain has it now."""
    stored = chosen_account(setting.account)
    withdrawable_at = None
    with open_books() as state:
        entry = _find(state, stored.address, channel_name)
        if setting.rpc is not None:
            observer = observer_of(setting, state, stored.address)
            observer.refresh(entry.channel.payee)
            entry = state.channel(entry.channel_id)
            withdrawable_at = observer.withdrawable_at(entry)
        token = _token_of(state, entry)
    _show_one(output, entry, token, withdrawable_at)


@channel.command("top-up", epilog="Example: channelpay channel top-up 0x1f2e3d4c 0.05")
@click.argument("channel_name", metavar="CHANNEL")
@click.argument("amount")
@setting_options
@json_option
@pass_output
def top_up(output: Output, channel_name: str, amount: str, setting: Setting) -> None:
    """Add AMOUNT to a channel's deposit. Takes a close request back."""
    with open_payer(setting, output) as payer:
        entry = _find(payer.state, payer.address, channel_name)
        token = payer.wallet.token(entry.channel.token)
        base_units = parse_amount_of(amount, token, "amount")
        with output.waiting("Topping the channel up", after_interrupt=LOOK_AT_CHANNELS):
            payer.top_up(entry.channel_id, base_units)
        entry = payer.state.channel(entry.channel_id)
    _show_one(output, entry, token)


@channel.command(epilog="Example: channelpay channel close 0x1f2e3d4c")
@click.argument("channel_name", metavar="CHANNEL")
@click.option("--url", metavar="URL", help="A paid address of the payee (default: the last used).")
@click.option("--request", is_flag=True, help="Start to close without the payee, on chain.")
@setting_options
@json_option
@pass_output
def close(
    output: Output, channel_name: str, url: str | None, *, request: bool, setting: Setting
) -> None:
    """Ask the payee to close a channel; what was not spent comes back at once.

    With --request the payee is not asked: it has the grace period to take what it is owed, and then
    'channelpay channel withdraw' takes the rest back.
    """
    with open_payer(setting, output) as payer:
        entry = _find(payer.state, payer.address, channel_name)
        token = payer.wallet.token(entry.channel.token)
        if request:
            _request_close(output, payer, entry, token)
        else:
            _close(output, payer, _Closing(entry, token, url))


@channel.command(epilog="Example: channelpay channel withdraw 0x1f2e3d4c")
@click.argument("channel_name", metavar="CHANNEL")
@setting_options
@json_option
@pass_output
def withdraw(output: Output, channel_name: str, setting: Setting) -> None:
    """Take back what was not settled, once the grace period of a requested close is over."""
    with open_payer(setting, output) as payer:
        entry = _find(payer.state, payer.address, channel_name)
        token = payer.wallet.token(entry.channel.token)
        with output.waiting("Withdrawing", after_interrupt=LOOK_AT_CHANNELS):
            transaction_hash = payer.withdraw(entry.channel_id)
        entry = payer.state.channel(entry.channel_id)
    _show_closed(output, entry, token, transaction_hash)


# --- steps of the commands -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Closing:
    entry: PayerChannel
    token: Token
    url: str | None


def _payee_of(url: str, token: Address, setting: Setting) -> Address:
    """Who is paid for a URL, in this token through the trusted contract."""
    from channelpay.payer.client import canonical_contract
    from channelpay.payer.httpx import asked_by

    trusted = contract_address(setting) or canonical_contract()
    requests = asked_by(url)
    if not requests:
        raise InputError(f"{url} asks for no payment that this program can make")
    for request in requests:
        if (request.currency, request.deployment.contract) == (token, trusted):
            return request.recipient
    first = requests[0]
    if first.currency != token:
        raise InputError(
            f"the site takes payments in {_option_of(first.currency)}",
            hint=f"If you want to pay in it: --token {_option_of(first.currency)}",
        )
    raise PaymentRefused(
        f"the site uses the contract {checksum_address(first.deployment.contract)}, which is not"
        " the trusted one",
        hint="Check who runs that contract before you name it with --contract.",
    )


def _option_of(token: Address) -> str:
    return "eth" if token == NATIVE else checksum_address(token)


def _find(state: PayerState, payer: Address, name: str) -> PayerChannel:
    return named_channel(state.channels(payer), name, "channelpay channel list")


def _request_close(output: Output, payer: Payer, entry: PayerChannel, token: Token) -> None:
    with output.waiting("Requesting the close", after_interrupt=LOOK_AT_CHANNELS):
        withdrawable_at = payer.request_close(entry.channel_id)
    _show_one(output, payer.state.channel(entry.channel_id), token, withdrawable_at)


def _close(output: Output, payer: Payer, closing: _Closing) -> None:
    channel_id = closing.entry.channel_id
    with output.waiting("The payee closes the channel", after_interrupt=LOOK_AT_CHANNELS):
        closed = payer.close_channel(channel_id, closing.url)
    entry = payer.state.channel(channel_id)
    _show_closed(output, entry, closing.token, closed.transaction_hash)


# --- what is shown -------------------------------------------------------------------------------


def _token_of(state: PayerState, entry: PayerChannel) -> Token | None:
    if entry.channel.token == NATIVE:
        return ETHER
    return state.token(entry.deployment.chain_id, entry.channel.token)


def _members(entry: PayerChannel) -> dict[str, Any]:
    """What programs read; amounts are decimal strings in base units."""
    described, opened = entry.channel, entry.open_transaction
    return {
        "channelId": to_hex(entry.channel_id),
        "status": entry.status.value,
        "payer": checksum_address(described.payer),
        "payee": checksum_address(described.payee),
        "token": checksum_address(described.token),
        "chainId": entry.deployment.chain_id,
        "contract": checksum_address(entry.deployment.contract),
        "deposit": str(entry.deposit),
        "signed": str(entry.signed),
        "spent": str(entry.spent),
        "settled": str(entry.settled),
        "url": entry.url,
        "refused": entry.refused,
        "openTxHash": None if opened is None else to_hex(opened),
        "closeRequestedAt": entry.close_requested_at or None,
    }


def _show_one(
    output: Output, entry: PayerChannel, token: Token | None, withdrawable_at: int | None = None
) -> None:
    members = _members(entry)
    if withdrawable_at is not None:
        members["withdrawableAt"] = withdrawable_at
    output.show(members, lambda: _facts(entry, token, withdrawable_at))


def _show_closed(
    output: Output, entry: PayerChannel, token: Token, transaction_hash: bytes
) -> None:
    refund = entry.deposit - entry.settled
    members = {
        "channelId": to_hex(entry.channel_id),
        "status": entry.status.value,
        "txHash": to_hex(transaction_hash),
        "settled": str(entry.settled),
        "refund": str(refund),
    }
    shown = {
        "Channel": to_hex(entry.channel_id),
        "Status": entry.status.value,
        "Paid": format_amount_of(entry.settled, token),
        "Back": format_amount_of(refund, token),
        "Transaction": to_hex(transaction_hash),
    }
    output.show(members, lambda: _two_columns(shown))


def _facts(entry: PayerChannel, token: Token | None, withdrawable_at: int | None) -> Table:
    shown = {
        "Channel": to_hex(entry.channel_id),
        "Status": _status(entry),
        "Payee": checksum_address(entry.channel.payee),
        "Deposit": format_amount_of(entry.deposit, token),
        "Spent": format_amount_of(entry.spent, token),
        "Signed": format_amount_of(entry.signed, token),
        "Settled": format_amount_of(entry.settled, token),
        "URL": entry.url or "",
        "Opened by": "" if entry.open_transaction is None else to_hex(entry.open_transaction),
    }
    if withdrawable_at is not None:
        shown["Withdraw from"] = datetime.fromtimestamp(withdrawable_at, UTC).isoformat(" ")
    return _two_columns(shown)


def _two_columns(shown: dict[str, str]) -> Table:
    """Without what there is nothing to say about."""
    return facts_table({name: value for name, value in shown.items() if value})


def _table(entries: list[PayerChannel], tokens: dict[ChannelId, Token | None]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("Channel", "Status", "Payee", "Deposit", "Spent", "URL")
    for entry in entries:
        token = tokens[entry.channel_id]
        cells = (
            short(entry.channel_id),
            _status(entry),
            short(entry.channel.payee),
            format_amount_of(entry.deposit, token),
            format_amount_of(entry.spent, token),
            entry.url or "",
        )
        table.add_row(*map(escape, cells))
    return table


def _status(entry: PayerChannel) -> str:
    over = entry.status is ChannelStatus.FINALIZED
    return entry.status.value + ("" if over or entry.refused is None else " (refused)")
