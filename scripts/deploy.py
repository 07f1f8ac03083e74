"""Deploy PaymentChannels: the same address on every chain, unless it is there already.

    python scripts/deploy.py --rpc URL --home DIRECTORY --account NAME
    ape run deploy --network ethereum:sepolia:node

Both do what `channelpay.chain.deploy` does. The first pays from an account of channelpay's keystore
and asks for its password, the second from one of Ape's accounts.
"""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Any, cast

import click

from channelpay.chain import keystore
from channelpay.chain.connection import checksum, connect
from channelpay.chain.create2 import predicted_address
from channelpay.chain.deploy import Deployed, deploy
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.errors import ChannelPayError
from channelpay.protocol.types import GRACE_SECONDS_CANONICAL, Address


@click.command()
@click.option("--rpc", "rpc_url", required=True, help="JSON-RPC address of the chain.")
@click.option("--account", required=True, help="The account that pays, by name or address.")
@click.option(
    "--home",
    envvar="CHANNELPAY_HOME",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder that holds the account's keystore.",
)
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The account's password; asked for without it.",
)
@click.option(
    "--grace-seconds",
    default=GRACE_SECONDS_CANONICAL,
    show_default=True,
    help="Grace period; another one is another address.",
)
def deploy_over_rpc(
    rpc_url: str, account: str, home: Path, password_file: Path | None, grace_seconds: int
) -> None:
    """Deploy PaymentChannels to the chain behind a JSON-RPC address."""
    try:
        click.echo(f"address {checksum(predicted_address(grace_seconds))}")
        signer = keystore.load(home, account, read_password(password_file))
        report(deploy(Sender(connect(rpc_url), signer), grace_seconds=grace_seconds))
    except ChannelPayError as error:
        click.echo(f"{error}\n{error.hint}", err=True)
        sys.exit(error.exit_code)


def read_password(password_file: Path | None) -> str:
    """From the file, else from a prompt that shows nothing."""
    return password_file.read_text().rstrip("\n") if password_file else getpass.getpass()


def report(deployed: Deployed) -> None:
    """Say where the contract is and what put it there."""
    if deployed.transaction_hash is None:
        click.echo("already there")
    else:
        click.echo(f"deployed by transaction 0x{deployed.transaction_hash.hex()}")


class ApeSender:
    """What `deploy` needs of a sender and its connection, through Ape's provider and account."""

    def __init__(self, provider: Any, account: Any) -> None:
        self.connection = self
        self._provider = provider
        self._account = account

    def code(self, account: Address) -> bytes:
        return bytes(self._provider.get_code(checksum(account)))

    def balance_wei(self, account: Address) -> int:
        return int(self._provider.get_balance(checksum(account)))

    def send_raw_transaction(self, raw_transaction: bytes) -> bytes:
        return bytes(self._provider.web3.eth.send_raw_transaction(raw_transaction))

    def send(self, call: ContractCall) -> ApeReceipt:
        transaction = self._provider.network.ecosystem.create_transaction(
            receiver=checksum(call.to), data=call.data, value=call.value_wei
        )
        return ApeReceipt(self._account.call(transaction))

    def wait(self, transaction_hash: bytes, _call: ContractCall) -> None:
        self._provider.get_receipt(f"0x{transaction_hash.hex()}").raise_for_status()


class ApeReceipt:
    """A transaction that Ape has sent and seen mined."""

    def __init__(self, receipt: Any) -> None:
        self.transaction_hash = bytes.fromhex(receipt.txn_hash[2:])


def main() -> None:
    """Deploy to the network that Ape is connected to."""
    from ape import accounts, networks
    from ape.cli import select_account

    provider = networks.provider
    account = accounts.test_accounts[0] if provider.network.is_local else select_account()
    click.echo(f"address {checksum(predicted_address())}")
    report(deploy(cast("Sender", ApeSender(provider, account))))


if __name__ == "__main__":
    deploy_over_rpc()
