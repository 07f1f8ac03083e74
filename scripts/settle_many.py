"""What it costs to settle many channels: ``make settle-many``.

A thousand channels are opened on a local anvil and pay something; then the settler takes the money
as it would for a site, in batches. Printed are the transactions, their gas, the time, and the cost
per channel beside the floor that no design gets below (docs/gas.md). Fails if a base unit is
missing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from eth_account import Account
from rich.console import Console
from rich.table import Table

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.sender import Sender
from channelpay.observe.alerts import Alerts
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.policy import SettlementPolicy
from channelpay.payee.settler import Settler
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.rules import Purchase
from channelpay.protocol.transactions import TransactionStatus
from channelpay.protocol.types import ZERO_ADDRESS, Channel
from channelpay.store import Store, open_store
from channelpay.testing import anvil_chain
from channelpay.testing.furnished import FurnishedChain, furnish

FLOOR_GAS = 11_900
"""One more settlement in a batch: the opcodes that no design avoids."""
PAYER, PAYEE = 1, 2
DEPOSIT = 1_000
PRICE = 600
POLL_SECONDS = 0.05

console = Console()


@dataclass(frozen=True)
class Measured:
    """One run: gas of each transaction, and the seconds of all of them."""

    channels: int
    gas: tuple[int, ...]
    opened_seconds: float
    settled_seconds: float

    @property
    def per_channel(self) -> float:
        return sum(self.gas) / self.channels


class Scene:
    """A chain with a payer who has opened channels, and the payee's books with the vouchers."""

    def __init__(self, furnished: FurnishedChain, store: Store) -> None:
        self.furnished = furnished
        self.store = store
        self.connection: Connection = connect(furnished.chain.rpc_url)
        self.contract = PaymentChannelsContract(self.connection, furnished.deployment)
        payer = furnished.chain.accounts[PAYER]
        self.payee = furnished.chain.accounts[PAYEE]
        self._sender = Sender(self.connection, Account.from_key(payer.private_key))
        self._signer = VoucherSigner(furnished.deployment, payer.private_key)

    def open(self, count: int) -> None:
        """Open channels, enter them and accept a voucher for each."""
        channels = [self._channel(number) for number in range(count)]
        for channel in channels:
            self._sender.send(self.contract.open(channel, DEPOSIT))
        link = ChainLink(self.contract)
        for start in range(0, count, 100):
            some = channels[start : start + 100]
            for channel, view in zip(some, link.views(some), strict=True):
                channel_id = channel.id(self.furnished.deployment)
                self.store.add_channel(channel_id, channel, view).result()
        self._pay(channels)

    def settle(self, rows: int) -> tuple[int, ...]:
        """Let the settler work until nothing is left; the gas of each transaction."""
        account = Account.from_key(self.payee.private_key)
        sender = TransactionSender(self.connection, account, self.store)
        closer = Closer(ChainLink(self.contract), sender, self.store)
        policy = SettlementPolicy(value_min={self.furnished.token: PRICE}, batch_rows_max=rows)
        settler = Settler(closer, self.payee.address, policy, Alerts())
        settler.step()
        while settler.has_work or self.store.owed():
            time.sleep(POLL_SECONDS)
            settler.step()
        return tuple(map(self._gas_of, self._mined()))

    @property
    def payee_tokens(self) -> int:
        return Erc20(self.connection, self.furnished.token).balance(self.payee.address)

    def _channel(self, number: int) -> Channel:
        # Few zero bytes, as in the lanes that clients pick: a zero costs less gas.
        salt = keccak256(number.to_bytes(4, "big"))[:28] + bytes(4)
        token, payer = self.furnished.token, self._sender.address
        return Channel(payer, self.payee.address, token, ZERO_ADDRESS, salt)

    def _pay(self, channels: Sequence[Channel]) -> None:
        now = int(time.time() * 1000)
        ids = [channel.id(self.furnished.deployment) for channel in channels]
        vouchers = [self._signer.sign(channel_id, PRICE) for channel_id in ids]
        self.store.accept(
            [Purchase(voucher, PRICE, "GET /page", now, "key") for voucher in vouchers]
        ).result()

    def _mined(self) -> list[bytes]:
        sent = self.store.transactions(10_000)
        return [
            one.mined
            for one in reversed(sent)
            if one.status is TransactionStatus.CONFIRMED and one.mined is not None
        ]

    def _gas_of(self, transaction_hash: bytes) -> int:
        receipt = self.connection.receipt(transaction_hash)
        return 0 if receipt is None else receipt.gas_used


def measure(channels: int, rows: int) -> Measured:
    """Open and settle ``channels``, at most ``rows`` in one transaction."""
    with (
        tempfile.TemporaryDirectory() as folder,
        anvil_chain() as chain,
        closing(open_store(f"sqlite:///{Path(folder) / 'books.sqlite3'}")) as store,
    ):
        scene = Scene(furnish(chain), store)
        began = time.monotonic()
        scene.open(channels)
        opened, before = time.monotonic(), scene.payee_tokens
        gas = scene.settle(rows)
        settled = time.monotonic()
        if scene.payee_tokens - before != channels * PRICE:
            sys.exit("the payee did not get what the vouchers promise")
        return Measured(channels, gas, opened - began, settled - opened)


def show(measured: Measured) -> None:
    table = Table(title=f"{measured.channels:,} channels settled", show_header=False)
    over = measured.per_channel / FLOOR_GAS - 1
    rows = {
        "Transactions": f"{len(measured.gas):,}",
        "Gas of all": f"{sum(measured.gas):,}",
        "Gas of the largest": f"{max(measured.gas):,}",
        "Gas per channel": f"{measured.per_channel:,.0f}",
        "The floor": f"{FLOOR_GAS:,} ({over:+.0%})",
        "Seconds to settle": f"{measured.settled_seconds:.1f}",
        "Seconds to open, before": f"{measured.opened_seconds:.1f}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to settle many channels.")
    parser.add_argument("--channels", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=100, help="channels in one transaction")
    chosen = parser.parse_args()
    show(measure(chosen.channels, chosen.rows))


if __name__ == "__main__":
    main()
