"""``channelpay dev``: a local chain with the contract, a test token and funded accounts."""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from channelpay.cli.common import duration_text, grace_period
from channelpay.protocol.text import checksum_address, format_amount, to_hex
from channelpay.testing.accounts import BALANCE_WEI, TOKENS_EACH
from channelpay.testing.devchain import anvil_chain, embedded_chain

if TYPE_CHECKING:
    from channelpay.testing.furnished import FurnishedChain

_ETHER_DECIMALS = 18
_TABLE_COLUMNS = 148
_KEY_WARNING = (
    "These are public test keys that anybody can spend from: for local chains only. "
    "Ctrl-C stops the chain."
)


@click.command()
@click.option("--anvil", is_flag=True, help="Run anvil instead of the embedded chain.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8545,
    show_default=True,
    help="Loopback port; 0 picks a free one.",
)
@click.option(
    "--grace-period",
    "grace_seconds",
    callback=grace_period,
    default="1d",
    show_default=True,
    metavar="DURATION",
    help="From a close request to the earliest withdrawal.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line, also on a terminal.")
def dev(*, anvil: bool, port: int, grace_seconds: int, as_json: bool) -> None:
    """Run a local chain with the contract, a test token and funded accounts.

    It runs until Ctrl-C. Whatever speaks Ethereum JSON-RPC can use it, several programs at once.
    On a pipe it prints one line of JSON, once everything is there.
    """
    # Imports web3, for which no other command should wait.
    from channelpay.testing.furnished import furnish

    stopped = _stop_on_signals()
    with (anvil_chain if anvil else embedded_chain)(port) as chain:
        furnished = furnish(chain, grace_seconds)
        if as_json or not sys.stdout.isatty():
            click.echo(json.dumps(_members(furnished)))
        else:
            _print_tables(furnished)
        stopped.wait()


def _stop_on_signals() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


def _members(furnished: FurnishedChain) -> dict[str, object]:
    """What programs read; balances are decimal strings in wei and in base units of the token."""
    return {
        "rpcUrl": furnished.chain.rpc_url,
        "chainId": furnished.deployment.chain_id,
        "contract": to_hex(furnished.deployment.contract),
        "token": to_hex(furnished.token),
        "tokenSymbol": furnished.token_symbol,
        "tokenDecimals": furnished.token_decimals,
        "gracePeriodSeconds": furnished.grace_seconds,
        "accounts": [
            {
                "address": to_hex(account.address),
                "privateKey": to_hex(account.private_key),
                "balance": str(BALANCE_WEI),
                "tokenBalance": str(TOKENS_EACH),
            }
            for account in furnished.chain.accounts
        ],
    }


def _print_tables(furnished: FurnishedChain) -> None:
    # A key that is cut or wrapped by us cannot be copied; the terminal's own wrapping does no harm.
    console = Console(width=max(Console().width, _TABLE_COLUMNS))
    console.print(_chain_table(furnished), _accounts_table(furnished), _KEY_WARNING, sep="\n")


def _chain_table(furnished: FurnishedChain) -> Table:
    table = Table(title="Development chain", show_header=False)
    table.add_row("RPC URL", furnished.chain.rpc_url)
    table.add_row("Chain id", str(furnished.deployment.chain_id))
    table.add_row("Contract", checksum_address(furnished.deployment.contract))
    table.add_row(f"Token {furnished.token_symbol}", checksum_address(furnished.token))
    table.add_row("Grace period", duration_text(furnished.grace_seconds))
    return table


def _accounts_table(furnished: FurnishedChain) -> Table:
    ether = format_amount(BALANCE_WEI, _ETHER_DECIMALS, "ETH")
    tokens = format_amount(TOKENS_EACH, furnished.token_decimals, furnished.token_symbol)
    table = Table("Address", "Balance", "Public test key", title="Accounts")
    for account in furnished.chain.accounts:
        table.add_row(
            checksum_address(account.address), f"{ether}, {tokens}", to_hex(account.private_key)
        )
    return table
