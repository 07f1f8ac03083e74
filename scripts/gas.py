"""Measure what each transaction costs, as the receipts say it.

Usage: python scripts/gas.py [--check]

Prints the tables and writes `docs/gas.md` and `docs/gas.json`. `--check` writes nothing and exits
with 1 if a figure has grown by more than 1 % over the one in `docs/gas.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.create2 import payouts_creation
from channelpay.chain.deploy import create
from channelpay.chain.payouts import PayoutsContract
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.protocol.eip712 import VoucherSigner, sign_close_authorization
from channelpay.protocol.funding import FundingMethod, SignedAuthorization, open_authorization
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel, Voucher
from channelpay.testing import anvil_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from channelpay.testing.token import (
    NO_DEADLINE,
    UNLIMITED,
    sign_authorization,
    sign_permit,
    transfer,
)
from scripts.gas_page import page, tables

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLE_FILE = DOCS / "gas.md"
FIGURES_FILE = DOCS / "gas.json"
GROWTH_PERCENT_MAX = 1
BATCH_ROWS = 10
SALT = keccak256(b"a lane for measuring")[:28]
"""No zero bytes to speak of, as in the lanes that clients pick."""


class Meter:
    """Sends transactions of one payer and one payee, and returns what each used."""

    def __init__(self, furnished: FurnishedChain) -> None:
        self._chain = furnished.chain
        self.token = furnished.token
        self._deployment = furnished.deployment
        self._connection = connect(furnished.chain.rpc_url)
        self._payer_account, payee, self._neighbour = furnished.chain.accounts[:3]
        self._contract = PaymentChannelsContract(self._connection, furnished.deployment)
        self._erc20 = Erc20(self._connection, furnished.token)
        self._payouts = PayoutsContract(self._connection)
        self._payer = Sender(self._connection, Account.from_key(self._payer_account.private_key))
        self._payee = Sender(self._connection, Account.from_key(payee.private_key))
        self._signer = VoucherSigner(furnished.deployment, self._payer_account.private_key)
        self._payee_secret = payee.private_key
        self._parties = (self._payer_account.address, payee.address)

    def prepare(self) -> None:
        """Nobody's token balance is zero, and the allowance has no limit: the usual case."""
        self._use(self._payer, self._erc20.approve(self._deployment.contract, UNLIMITED))
        other = Channel(
            self._parties[0], self._neighbour.address, self.token, ZERO_ADDRESS, bytes(32)
        )
        self._use(self._payer, self._contract.open(other, 10**6))
        create(self._payee, payouts_creation())
        self._use(self._payee, self._erc20.approve(self._payouts.address, UNLIMITED))

    def measure(self, token: Address, unit: int) -> dict[str, int]:
        """Each action's gas in one token, with amounts of a few units of it."""
        channel = self._channel(token, SALT)
        contract = self._contract
        used = {
            "open": self._use(self._payer, contract.open(channel, 10 * unit)),
            "top up": self._use(self._payer, contract.top_up(channel, 5 * unit)),
            "settle": self._use(self._payee, contract.settle(*self._voucher(channel, 4 * unit))),
            "request close": self._use(self._payer, contract.request_close(channel)),
        }
        self._chain.increase_time(contract.grace_period_seconds())
        used["withdraw"] = self._use(self._payer, contract.withdraw(channel))
        again = channel.with_epoch(1)
        used["re-open"] = self._use(self._payer, contract.open(again, 10 * unit))
        used["close"] = self._use(self._payee, contract.close(*self._voucher(again, 4 * unit)))
        return used | self._measure_authorized_close(channel.with_epoch(2), unit)

    def measure_batches(self, token: Address, unit: int) -> dict[str, int]:
        """What one row more costs."""
        rows = [self._open_row(token, number, unit) for number in range(BATCH_ROWS)]
        settle = self._contract.settle_batch
        one = self._use(self._payee, settle(self._parties[1], token, rows[:1]))
        rest = self._use(self._payee, settle(self._parties[1], token, rows[1:]))
        closes = [(channel, self._sign(channel, 8 * unit)) for channel, _ in rows]
        close_one = self._use(self._payee, self._contract.close_batch(token, closes[:1]))
        close_rest = self._use(self._payee, self._contract.close_batch(token, closes[1:]))
        more_rows = BATCH_ROWS - 2
        return {
            "settle a batch of one": one,
            "one more settlement in a batch": round((rest - one) / more_rows),
            "close a batch of one": close_one,
            "one more close in a batch": round((close_rest - close_one) / more_rows),
        }

    def measure_payouts(self, token: Address, unit: int) -> dict[str, int]:
        """Of receivers that hold something already, in rounds that are not the first."""
        receivers = [Address(bytes([number]) * 20) for number in range(1, BATCH_ROWS + 1)]
        rows = [(receiver, unit) for receiver in receivers]
        pay, number = self._payouts.pay, self._payouts.rounds(self._parties[1])
        self._use(self._payee, pay(token, number, rows))
        one = self._use(self._payee, pay(token, number + 1, rows[:1]))
        many = self._use(self._payee, pay(token, number + 2, rows))
        return {
            "payout to one": one,
            "one more receiver in a payout": round((many - one) / (BATCH_ROWS - 1)),
        }

    def measure_signed_funding(self) -> dict[str, int]:
        """Opens whose money comes by a signature, from a payer who allowed nothing before."""
        approve = self._erc20.approve
        self._use(self._payer, approve(self._deployment.contract, 0))
        return {
            "open with permit, ERC-20": self._use(self._payer, self._permitted_open()),
            "open with authorization, ERC-20": self._use(self._payee, self._authorized_open()),
            "approve, ERC-20": self._use(
                self._payer, approve(self._deployment.contract, UNLIMITED)
            ),
        }

    def measure_plain(self) -> dict[str, int]:
        """What a payment costs without a channel."""
        payee = self._parties[1]
        token_transfer = transfer(self._connection, self.token, payee, 10**6)
        return {
            "plain transfer, ETH": self._use(self._payer, ContractCall(payee, value_wei=10**15)),
            "plain transfer, ERC-20": self._use(self._payer, token_transfer),
        }

    def _measure_authorized_close(self, channel: Channel, unit: int) -> dict[str, int]:
        self._use(self._payer, self._contract.open(channel, 10 * unit))
        amount = 4 * unit
        voucher = self._sign(channel, amount)
        authorization = sign_close_authorization(
            self._deployment, self._payee_secret, voucher.channel_id, amount
        )
        call = self._contract.close_with_authorization(
            channel, amount, voucher.signature, authorization
        )
        return {"close with authorization": self._use(self._payer, call)}

    def _open_row(self, token: Address, number: int, unit: int) -> tuple[Channel, Voucher]:
        channel = self._channel(token, keccak256(b"row" + bytes([number]))[:28])
        self._use(self._payer, self._contract.open(channel, 10 * unit))
        return channel, self._sign(channel, 4 * unit)

    def _permitted_open(self) -> ContractCall:
        channel, deposit = self._channel(self.token, keccak256(b"permit")[:28]), 10**7
        contract = self._deployment.contract
        signature = sign_permit(
            self._connection, self.token, self._payer_account, contract, deposit
        )
        return self._contract.open_with_permit(channel, deposit, NO_DEADLINE, signature)

    def _authorized_open(self) -> ContractCall:
        channel, deposit = self._channel(self.token, keccak256(b"authorization")[:28]), 10**7
        contract, nonce = self._deployment.contract, channel.authorization_nonce
        signature = sign_authorization(
            self._connection, self.token, self._payer_account, contract, deposit, nonce
        )
        authorization = open_authorization(
            FundingMethod.EIP3009, self._deployment, channel, deposit, NO_DEADLINE
        )
        return self._contract.open_signed(channel, SignedAuthorization(authorization, signature))

    def _channel(self, token: Address, lane_salt: bytes) -> Channel:
        return Channel(*self._parties, token, ZERO_ADDRESS, lane_salt + bytes(4))

    def _voucher(self, channel: Channel, cumulative: int) -> tuple[Channel, int, bytes]:
        return channel, cumulative, self._sign(channel, cumulative).signature

    def _sign(self, channel: Channel, cumulative: int) -> Voucher:
        return self._signer.sign(channel.id(self._deployment), cumulative)

    def _use(self, sender: Sender, call: ContractCall) -> int:
        return sender.send(call).gas_used


@contextmanager
def meter() -> Iterator[Meter]:
    """A meter on a fresh anvil."""
    with anvil_chain() as chain:
        meter_ = Meter(furnish(chain))
        meter_.prepare()
        yield meter_


def measure() -> dict[str, int]:
    """Gas used by the name of each row."""
    with meter() as one:
        kinds = (("ETH", NATIVE, 10**17), ("ERC-20", one.token, 10**6))
        actions = {kind: one.measure(token, unit) for kind, token, unit in kinds}
        batches = {kind: one.measure_batches(token, unit) for kind, token, unit in kinds}
        payouts = {kind: one.measure_payouts(token, unit) for kind, token, unit in kinds}
        rest = one.measure_plain() | one.measure_signed_funding()
    named = {
        f"{action}, {kind}": gas
        for measured in (actions, batches, payouts)
        for kind, used in measured.items()
        for action, gas in used.items()
    }
    return named | rest


def grown(figures: dict[str, int], committed: dict[str, int]) -> list[str]:
    """What costs more than it did, or was never written down."""
    return [
        f"{name}: {gas:,} gas, {committed.get(name, 0):,} in {FIGURES_FILE.name}"
        for name, gas in figures.items()
        if gas * 100 > committed.get(name, 0) * (100 + GROWTH_PERCENT_MAX)
    ]


def main() -> int:
    """Measure, then write or compare."""
    parser = argparse.ArgumentParser(description="What each transaction costs.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    figures = measure()
    print(tables(figures), end="")
    if arguments.check:
        worse = grown(figures, json.loads(FIGURES_FILE.read_text(encoding="utf-8")))
        print("".join(f"{line}\n" for line in worse), end="", file=sys.stderr)
        return 1 if worse else 0
    TABLE_FILE.write_text(page(figures), encoding="utf-8")
    FIGURES_FILE.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
