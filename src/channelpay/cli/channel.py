"""``channelpay channel``: open, list, show, top-up, close, withdraw."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from channelpay.cli.channels_shown import Shown, list_table
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
    token_option,
)
from channelpay.cli.consent import DRY_RUN_PASSED, Consent, consent_options
from channelpay.cli.explorer import link_facts, link_members, transaction_link
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.cli.outside import done_outside
from channelpay.cli.payer_previews import (
    preview_close,
    preview_open,
    preview_request_close,
    preview_top_up,
    preview_withdraw,
)
from channelpay.errors import (
    ChannelPayError,
    InputError,
    NetworkError,
    PaymentRefused,
    StoreUnavailable,
)
from channelpay.payer.records import ETHER, PayerChannel, Token
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelStatus

if TYPE_CHECKING:
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
@click.option("--gasless", is_flag=True, help="Have the site at URL open it and pay the gas.")
@token_option
@consent_options
@setting_options
@json_option
@pass_output
def open_(
    output: Output,
    target: str,
    deposit: str,
    token: Address,
    consent: Consent,
    setting: Setting,
    *,
    gasless: bool,
) -> int:
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
        carried_at = _carrying_url(url) if gasless else None
        if not consent.given(
            output,
            lambda: preview_open(
                payer, payee, amount, described, url, gasless=gasless or payer.is_outside
            ),
        ):
            return DRY_RUN_PASSED
        if payer.is_outside:
            planned = payer.outside.open(payee, token, amount, url)
            entry = done_outside(output, payer, planned, lambda one: one.is_usable)
            _show_one(output, Shown(entry, described, time.time()))
            return 0
        with output.waiting("Opening the channel", after_interrupt=LOOK_AT_CHANNELS):
            if carried_at is not None:
                entry = payer.open_carried(carried_at, amount, token)
            else:
                entry = payer.open_channel(payee, amount, token, url)
    _show_one(output, Shown(entry, described, time.time()))
    return 0


@channel.command("list", epilog="Example: channelpay channel list --rpc http://127.0.0.1:8545")
@setting_options
@json_option
@pass_output
def list_(output: Output, setting: Setting) -> int:
    """List the channels, where their money is, and what happens next; with --rpc as the chain has
    them now.

    An open that was interrupted is found again this way. If the node fails, the list is that of the
    books, and the code that of the failure.
    """
    stored = chosen_account(setting.account)
    with open_books() as state:
        seen = _look(setting, state, stored.address)
        entries = state.channels(stored.address)
        shown = [Shown(entry, _token_of(state, entry), seen.now) for entry in entries]
    output.show([one.members() for one in shown], lambda: list_table(shown))
    return _told(output, seen)


@channel.command(epilog="Example: channelpay channel show 0x1f2e3d4c")
@click.argument("channel_name", metavar="CHANNEL")
@setting_options
@json_option
@pass_output
def show(output: Output, channel_name: str, setting: Setting) -> int:
    """Show one channel; with --rpc as the chain has it now.

    If the node fails, it is shown as the books have it, and the code is that of the failure.
    """
    stored = chosen_account(setting.account)
    with open_books() as state:
        entry = _find(state, stored.address, channel_name)
        seen = _look(setting, state, stored.address, entry.channel.payee)
        entry = state.channel(entry.channel_id)
        token = _token_of(state, entry)
    _show_one(output, Shown(entry, token, seen.now))
    return _told(output, seen)


@channel.command("top-up", epilog="Example: channelpay channel top-up 0x1f2e3d4c 0.05")
@click.argument("channel_name", metavar="CHANNEL")
@click.argument("amount")
@click.option("--gasless", is_flag=True, help="Have its payee send it and pay the gas.")
@click.option("--url", metavar="URL", help="A paid address of the payee (default: the last used).")
@consent_options
@setting_options
@json_option
@pass_output
def top_up(
    output: Output,
    channel_name: str,
    amount: str,
    *,
    gasless: bool,
    url: str | None,
    consent: Consent,
    setting: Setting,
) -> int:
    """Add AMOUNT to a channel's deposit. Takes a close request back."""
    with open_payer(setting, output) as payer:
        entry = _find(payer.state, payer.address, channel_name)
        token = payer.wallet.token(entry.channel.token)
        base_units = parse_amount_of(amount, token, "amount")
        is_free = gasless or payer.is_outside
        if not consent.given(
            output, lambda: preview_top_up(payer, entry, token, base_units, is_free=is_free)
        ):
            return DRY_RUN_PASSED
        if payer.is_outside:
            planned = payer.outside.top_up(entry, base_units)
            target = entry.deposit + base_units
            done_outside(output, payer, planned, lambda one: one.deposit >= target)
        else:
            with output.waiting("Topping the channel up", after_interrupt=LOOK_AT_CHANNELS):
                if gasless:
                    payer.top_up_carried(entry.channel_id, base_units, url)
                else:
                    payer.top_up(entry.channel_id, base_units)
        grown = payer.state.channel(entry.channel_id)
    _show_one(output, Shown(grown, token, time.time()))
    return 0


@channel.command(epilog="Example: channelpay channel close 0x1f2e3d4c")
@click.argument("channel_name", metavar="CHANNEL")
@click.option("--url", metavar="URL", help="A paid address of the payee (default: the last used).")
@click.option("--request", is_flag=True, help="Start to close without the payee, on chain.")
@consent_options
@setting_options
@json_option
@pass_output
def close(
    output: Output,
    channel_name: str,
    url: str | None,
    *,
    request: bool,
    consent: Consent,
    setting: Setting,
) -> int:
    """Ask the payee to close a channel; what was not spent comes back at once.

    With --request the payee is not asked: it has the grace period to take what it is owed, and then
    'channelpay channel withdraw' takes the rest back.
    """
    with open_payer(setting, output) as payer:
        entry = _find(payer.state, payer.address, channel_name)
        token = payer.wallet.token(entry.channel.token)
        if request:
            if not consent.given(output, lambda: preview_request_close(payer, entry, token)):
                return DRY_RUN_PASSED
            _request_close(output, payer, entry, token)
        else:
            if not consent.given(output, lambda: preview_close(payer, entry, token, url)):
                return DRY_RUN_PASSED
            _close(output, payer, _Closing(entry, token, url))
    return 0


@channel.command(epilog="Example: channelpay channel withdraw --all")
@click.argument("channel_name", metavar="[CHANNEL]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every channel that can be withdrawn now.")
@consent_options
@setting_options
@json_option
@pass_output
def withdraw(
    output: Output,
    channel_name: str | None,
    *,
    everything: bool,
    consent: Consent,
    setting: Setting,
) -> int:
    """Take back what was not settled, once the grace period of a requested close is over.

    With --all, one that fails does not stop the others, and it is fine if there is none: run it
    daily, and no deposit is forgotten.
    """
    if (channel_name is None) != everything:
        raise InputError("name a channel, or give --all", hint="List them: channelpay channel list")
    with open_payer(setting, output) as payer:
        if everything:
            return _withdraw_all(output, payer, consent)
        entry = _find(payer.state, payer.address, str(channel_name))
        if not consent.given(output, lambda: preview_withdraw(payer, [entry])):
            return DRY_RUN_PASSED
        _withdraw(output, payer, entry)
        return 0


# --- steps of the commands -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """A look at the chain: its time (Unix seconds), else ours, and what kept it from being one."""

    now: float
    failure: NetworkError | None = None


def _look(
    setting: Setting, state: PayerState, payer: Address, payee: Address | None = None
) -> _Look:
    """Bring the books up to date, if a node is named and answers: they are of use without, too."""
    if setting.rpc is None:
        return _Look(time.time())
    try:
        observer = observer_of(setting, state, payer)
        observer.refresh(payee)
        return _Look(observer.chain_time())
    except StoreUnavailable:
        raise
    except NetworkError as error:
        return _Look(time.time(), error)


def _told(output: Output, seen: _Look) -> int:
    """The exit code, after a word about what is shown if it may be out of date."""
    if seen.failure is None:
        return 0
    seen.failure.hint = f"What is shown is what the books say. {seen.failure.hint}".rstrip()
    output.error(seen.failure)
    return seen.failure.exit_code


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


def _carrying_url(url: str | None) -> str:
    if url is None:
        raise InputError(
            "an address cannot pay gas", hint="Name a URL of the site that carries the gas."
        )
    return url


def _option_of(token: Address) -> str:
    return "eth" if token == NATIVE else checksum_address(token)


def _find(state: PayerState, payer: Address, name: str) -> PayerChannel:
    return named_channel(state.channels(payer), name, "channelpay channel list")


def _withdraw(output: Output, payer: Payer, entry: PayerChannel) -> None:
    token = payer.wallet.token(entry.channel.token)
    if payer.is_outside:
        planned = payer.outside.withdraw(entry)
        entry = done_outside(
            output, payer, planned, lambda one: one.status is ChannelStatus.FINALIZED
        )
        _show_one(output, Shown(entry, token, time.time()))
        return
    with output.waiting("Withdrawing", after_interrupt=LOOK_AT_CHANNELS):
        transaction_hash = payer.withdraw(entry.channel_id)
    _show_closed(output, payer.state.channel(entry.channel_id), token, transaction_hash)


def _withdraw_all(output: Output, payer: Payer, consent: Consent) -> int:
    """Returns the exit code: that of the first failure, or 0."""
    entries = payer.withdrawable()
    if not entries:
        output.note("There is nothing to withdraw now.", {"withdrawable": 0})
        return DRY_RUN_PASSED if consent.dry_run else 0
    failures = _Failures(output)
    if consent.looks_first(output):
        entries = [
            entry
            for entry in entries
            if failures.is_done(entry, partial(preview_withdraw, payer, [entry]))
        ]
        if not entries:
            return failures.code
        if not consent.given(output, lambda: preview_withdraw(payer, entries)):
            return failures.code or DRY_RUN_PASSED
    for entry in entries:
        failures.is_done(entry, partial(_withdraw, output, payer, entry))
    return failures.code


class _Failures:
    """Of one channel, which do not stop the others. ``code`` is the exit code of the first."""

    def __init__(self, output: Output) -> None:
        self.code = 0
        self._output = output

    def is_done(self, entry: PayerChannel, deed: Callable[[], object]) -> bool:
        """Whether it did not fail."""
        try:
            deed()
        except ChannelPayError as error:
            error.context.setdefault("channelId", to_hex(entry.channel_id))
            self._output.error(error)
            self.code = self.code or error.exit_code
            return False
        return True


def _request_close(output: Output, payer: Payer, entry: PayerChannel, token: Token) -> None:
    if payer.is_outside:
        planned = payer.outside.request_close(entry)
        done_outside(output, payer, planned, lambda one: one.status is not ChannelStatus.OPEN)
    else:
        with output.waiting("Requesting the close", after_interrupt=LOOK_AT_CHANNELS):
            payer.request_close(entry.channel_id)
    entry, now = payer.state.channel(entry.channel_id), payer.wallet.chain_time()
    _show_one(output, Shown(entry, token, now))


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


def _show_one(output: Output, shown: Shown) -> None:
    output.show(shown.members(), lambda: facts_table(shown.facts()))


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
    link = transaction_link(transaction_hash, entry.deployment.chain_id)
    output.show(members | link_members(link), lambda: facts_table(shown | link_facts(link)))
