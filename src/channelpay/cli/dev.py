"""``channelpay dev``: a local chain with the contract, a test token and funded accounts, and the
commands that steer it while it runs.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from channelpay.cli.common import (
    chosen_account,
    duration_text,
    grace_period,
    parse_duration,
    pass_output,
)
from channelpay.cli.output import Output, facts_table, json_option
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import (
    checksum_address,
    format_amount,
    parse_human_amount,
    to_hex,
)
from channelpay.protocol.types import Address
from channelpay.testing.accounts import BALANCE_WEI, TOKENS_EACH

if TYPE_CHECKING:
    from rich.table import Table

    from channelpay.testing.devchain import DevChain
    from channelpay.testing.furnished import FurnishedChain
    from channelpay.testing.status import ChainStatus, StatusPage

_ETHER_DECIMALS = 18
_TABLE_COLUMNS = 77
"""A key of 66 characters beside the number of its account."""
_KEY_WARNING = (
    "These are public test keys that anybody can spend from: for local chains only.\n"
    "Ctrl-C stops the chain."
)
_EXAMPLES = """\b
Examples:
  channelpay dev
  channelpay dev --anvil --port 0 --grace-period 10m
  channelpay dev advance 1d
  channelpay dev faucet alice
"""


@click.group(invoke_without_command=True, epilog=_EXAMPLES)
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
@json_option
@pass_output
@click.pass_context
def dev(ctx: click.Context, output: Output, *, anvil: bool, port: int, grace_seconds: int) -> None:
    """Run a local chain with the contract, a test token and funded accounts.

    It runs until Ctrl-C. Whatever speaks Ethereum JSON-RPC can use it, several programs at once;
    a browser finds a status page. On a pipe it prints one line of JSON, once everything is there.
    The commands below steer a chain that runs already.
    """
    if ctx.invoked_subcommand is not None:
        return
    # Imports web3, for which no other command should wait.
    from channelpay.testing.furnished import furnish
    from channelpay.testing.status import StatusPage

    stopped, page = _stop_on_signals(), StatusPage()
    with _chain(page, port, anvil=anvil) as (chain, status_url):
        furnished = furnish(chain, grace_seconds)
        page.show(furnished)
        if output.as_json:
            output.show(_members(furnished, status_url), lambda: facts_table({}))
        else:
            _print_tables(furnished, status_url)
        stopped.wait()


def _stop_on_signals() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


@contextmanager
def _chain(page: StatusPage, port: int, *, anvil: bool) -> Iterator[tuple[DevChain, str]]:
    """The chain and the URL of its page: its own, or a port beside anvil."""
    from channelpay.testing.devchain import anvil_chain, embedded_chain
    from channelpay.testing.http_server import serving

    if anvil:
        with anvil_chain(port) as chain, serving(None, page=page) as status_url:
            yield chain, status_url
    else:
        with embedded_chain(port, page) as chain:
            yield chain, chain.rpc_url


def _members(furnished: FurnishedChain, status_url: str) -> dict[str, object]:
    """What programs read; balances are decimal strings in wei and in base units of the token."""
    return {
        "rpcUrl": furnished.chain.rpc_url,
        "statusUrl": status_url,
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


def _print_tables(furnished: FurnishedChain, status_url: str) -> None:
    from rich.console import Console

    # A key that is cut or wrapped by us cannot be copied; the terminal's own wrapping does no harm.
    console = Console(width=max(Console().width, _TABLE_COLUMNS))
    tables = _chain_table(furnished, status_url), _accounts_table(furnished)
    console.print(*tables, _KEY_WARNING, sep="\n")


def _chain_table(furnished: FurnishedChain, status_url: str) -> Table:
    table = facts_table(
        {
            "RPC URL": furnished.chain.rpc_url,
            "Status page": status_url,
            "Chain id": str(furnished.deployment.chain_id),
            "Contract": checksum_address(furnished.deployment.contract),
            f"Token {furnished.token_symbol}": checksum_address(furnished.token),
            "Grace period": duration_text(furnished.grace_seconds),
        }
    )
    table.title = "Development chain"
    return table


def _accounts_table(furnished: FurnishedChain) -> Table:
    """The number of each account, its address and below that its key."""
    from rich.table import Table

    ether = format_amount(BALANCE_WEI, _ETHER_DECIMALS, "ETH")
    tokens = format_amount(TOKENS_EACH, furnished.token_decimals, furnished.token_symbol)
    table = Table("", "Address\nPublic test key", title=f"Accounts, each with {ether} and {tokens}")
    for number, account in enumerate(furnished.chain.accounts):
        table.add_row(
            str(number), f"{checksum_address(account.address)}\n{to_hex(account.private_key)}"
        )
    return table


# --- steering a chain that runs ----------------------------------------------------------------


def _running_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--rpc",
        envvar="CHANNELPAY_RPC",
        default="http://127.0.0.1:8545",
        show_default=True,
        metavar="URL",
        callback=lambda _ctx, _parameter, urls: urls.partition(",")[0],
        help="The development chain to steer.",
    )(command)


@dev.command(epilog="Example: channelpay dev advance 1d")
@click.argument("duration")
@_running_option
@json_option
@pass_output
def advance(output: Output, duration: str, rpc: str) -> None:
    """Let the chain's time pass.

    DURATION is 1d, 12h, 90m, 5400s or 5400. A block is mined.
    """
    from channelpay.testing.devchain import dev_chain_at

    chain, seconds = dev_chain_at(rpc), parse_duration(duration)
    chain.increase_time(seconds)
    number, time = chain.latest_block()
    members = {"advancedSeconds": seconds, "block": number, "time": time}
    facts = {"Advanced by": duration_text(seconds)} | _place(number, time)
    output.show(members, lambda: facts_table(facts))


@dev.command(epilog="Example: channelpay dev snapshot")
@_running_option
@json_option
@pass_output
def snapshot(output: Output, rpc: str) -> None:
    """Remember the chain's state.

    Go back to it, once, with: channelpay dev revert ID
    """
    from channelpay.testing.devchain import dev_chain_at

    chain = dev_chain_at(rpc)
    name, (number, _) = chain.snapshot(), chain.latest_block()
    facts = {"Snapshot": name, "Block": str(number)}
    output.show({"snapshot": name, "block": number}, lambda: facts_table(facts))


@dev.command(epilog="Example: channelpay dev revert 0x1")
@click.argument("snapshot_id", metavar="ID")
@_running_option
@json_option
@pass_output
def revert(output: Output, snapshot_id: str, rpc: str) -> None:
    """Go back to a snapshot.

    That uses up it and all later ones. Programs that use the chain see a reorganisation.
    """
    from channelpay.testing.devchain import dev_chain_at

    chain = dev_chain_at(rpc)
    chain.revert(snapshot_id)
    number, time = chain.latest_block()
    facts = {"Reverted to": snapshot_id} | _place(number, time)
    members = {"snapshot": snapshot_id, "block": number, "time": time}
    output.show(members, lambda: facts_table(facts))


@dev.command(
    epilog="Example: channelpay dev faucet 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 --eth 5"
)
@click.argument("receiver", metavar="NAME|ADDRESS")
@click.option("--eth", default="100", show_default=True, metavar="AMOUNT", help="Ether to give.")
@click.option(
    "--tokens", default="1000", show_default=True, metavar="AMOUNT", help="Test tokens to give."
)
@_running_option
@json_option
@pass_output
def faucet(output: Output, receiver: str, eth: str, tokens: str, rpc: str) -> None:
    """Give an account ether and test tokens.

    It is one of the keystore by its NAME, or any ADDRESS.
    """
    from channelpay.chain.connection import connect
    from channelpay.chain.contract import Erc20
    from channelpay.testing.furnished import furnished_at, give

    to = _address_of(receiver)
    furnished = furnished_at(rpc)
    ether_wei = parse_human_amount(eth, _ETHER_DECIMALS, "--eth")
    units = parse_human_amount(tokens, furnished.token_decimals, "--tokens")
    give(furnished, to, ether_wei, units)
    connection = connect(rpc)
    balance, held = connection.balance_wei(to), Erc20(connection, furnished.token).balance(to)
    members = {"address": to_hex(to), "balance": str(balance), "tokenBalance": str(held)}
    token_text = format_amount(held, furnished.token_decimals, furnished.token_symbol)
    facts = {
        "Address": checksum_address(to),
        "Ether now": format_amount(balance, _ETHER_DECIMALS, "ETH"),
        "Tokens now": token_text,
    }
    output.show(members, lambda: facts_table(facts))


def _address_of(receiver: str) -> Address:
    if receiver[:2].lower() == "0x":
        return parse_address(receiver, "address")
    return chosen_account(receiver).address


@dev.command(epilog="Example: channelpay dev status --json")
@_running_option
@json_option
@pass_output
def status(output: Output, rpc: str) -> None:
    """Show the chain: block, time, accounts and channels."""
    from channelpay.testing.furnished import furnished_at
    from channelpay.testing.status import read_status

    found = read_status(furnished_at(rpc))
    output.show(found.as_json(), lambda: _status_table(found))


def _status_table(found: ChainStatus) -> Table:
    furnished = found.furnished
    facts = {
        "RPC URL": furnished.rpc_url,
        "Chain id": str(furnished.deployment.chain_id),
        "Block": str(found.block),
        "Time": found.time_text,
        "Contract": checksum_address(furnished.contract),
        f"Token {furnished.token_symbol}": checksum_address(furnished.token),
        "Grace period": duration_text(furnished.grace_seconds),
        "Channels": str(found.channel_count),
    }
    for one in found.channels:
        deposit = found.amount(one.channel.token, one.state.deposit)
        settled = found.amount(one.channel.token, one.state.settled)
        text = f"{found.state_text(one)}, {settled} of {deposit} settled"
        facts[to_hex(one.id)[:10]] = text
    return facts_table(facts)


def _place(block: int, time: int) -> dict[str, str]:
    from channelpay.testing.status import moment_text

    return {"Block": str(block), "Time": moment_text(time)}
