"""Deploy PaymentChannels with Ape: `ape run deploy --network ethereum:sepolia:node`.

It pays from one of Ape's accounts, and does otherwise what `channelpay contract deploy` does.
"""

from __future__ import annotations

from typing import Any, cast

import click

from channelpay.chain.connection import checksum
from channelpay.chain.create2 import predicted_address
from channelpay.chain.deploy import deploy
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.protocol.types import Address


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
    receipt = deploy(cast("Sender", ApeSender(provider, account))).receipt
    if receipt is None:
        click.echo("already there")
    else:
        click.echo(f"deployed by transaction 0x{receipt.transaction_hash.hex()}")
