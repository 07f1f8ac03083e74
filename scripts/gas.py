"""Measure what each transaction costs, as the receipts say it.

Usage: python scripts/gas.py [--check]

Prints a table and writes `docs/gas.md` and `docs/gas.json`. `--check` writes nothing and exits with
1 if a figure has grown by more than 1 % over the one in `docs/gas.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel
from channelpay.testing import anvil_chain
from channelpay.testing.furnished import FurnishedChain, furnish

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLE_FILE = DOCS / "gas.md"
FIGURES_FILE = DOCS / "gas.json"
GROWTH_PERCENT_MAX = 1
UNLIMITED = 2**256 - 1
SALT = keccak256(b"a lane for measuring")[:28]
"""No zero bytes to speak of, as in the lanes that clients pick."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; all in gas. `floor` is what the opcodes cost that no design avoids."""

    name: str
    reach: int | None = None
    floor: int | None = None
    peer: int | None = None
    peer_name: str = ""


ROWS = (
    Row("open, ETH", 50_200, 46_000, 116_700, "Machinomy"),
    Row("re-open, ETH", 33_200),
    Row("top up, ETH", 31_500, peer=40_100),
    Row("settle, ETH"),
    Row("close, ETH", 53_900, 49_800, 56_800, "Machinomy"),
    Row("request close, ETH"),
    Row("withdraw, ETH"),
    Row("open, ERC-20", 69_200, 64_500, 69_300, "Tempo"),
    Row("re-open, ERC-20", 52_100),
    Row("top up, ERC-20", 52_400, peer=52_400),
    Row("settle, ERC-20", 52_600, peer=59_500, peer_name="µRaiden"),
    Row("close, ERC-20", 61_500, 55_300, 64_000, "Tempo"),
    Row("request close, ERC-20"),
    Row("withdraw, ERC-20"),
)


class Meter:
    """Sends transactions of one payer and one payee, and returns what each used."""

    def __init__(self, furnished: FurnishedChain) -> None:
        self._chain = furnished.chain
        self.token = furnished.token
        self._deployment = furnished.deployment
        connection = connect(furnished.chain.rpc_url)
        payer, payee, neighbour = furnished.chain.accounts[:3]
        self._contract = PaymentChannelsContract(connection, furnished.deployment)
        self._erc20 = Erc20(connection, furnished.token)
        self._payer = Sender(connection, Account.from_key(payer.private_key))
        self._payee = Sender(connection, Account.from_key(payee.private_key))
        self._signer = VoucherSigner(furnished.deployment, payer.private_key)
        self._parties = (payer.address, payee.address)
        self._neighbour = neighbour.address

    def prepare(self) -> None:
        """Nobody's token balance is zero, and the allowance has no limit: the usual case."""
        self._use(self._payer, self._erc20.approve(self._deployment.contract, UNLIMITED))
        other = Channel(self._parties[0], self._neighbour, self.token, ZERO_ADDRESS, bytes(32))
        self._use(self._payer, self._contract.open(other, 10**6))

    def measure(self, token: Address, unit: int) -> dict[str, int]:
        """Each action's gas in one token, with amounts of a few units of it."""
        channel = Channel(*self._parties, token, ZERO_ADDRESS, SALT + bytes(4))
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
        return used

    def _voucher(self, channel: Channel, cumulative: int) -> tuple[Channel, int, bytes]:
        voucher = self._signer.sign(channel.id(self._deployment), cumulative)
        return channel, cumulative, voucher.signature

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
        eth = one.measure(NATIVE, 10**17)
        erc20 = one.measure(one.token, 10**6)
    kinds = (("ETH", eth), ("ERC-20", erc20))
    return {f"{action}, {kind}": gas for kind, used in kinds for action, gas in used.items()}


def grown(figures: dict[str, int], committed: dict[str, int]) -> list[str]:
    """What costs more than it did, or was never written down."""
    return [
        f"{name}: {gas:,} gas, {committed.get(name, 0):,} in {FIGURES_FILE.name}"
        for name, gas in figures.items()
        if gas * 100 > committed.get(name, 0) * (100 + GROWTH_PERCENT_MAX)
    ]


def render(figures: dict[str, int]) -> str:
    """The table in Markdown."""
    lines = [
        "| transaction | gas used | floor | to reach | best peer |",
        "|---|---:|---:|---:|---:|",
        *(_line(row, figures[row.name]) for row in ROWS),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row, gas: int) -> str:
    goal = _cell(row.reach) + (" (missed)" if row.reach is not None and gas > row.reach else "")
    peer = f"{_cell(row.peer)} {row.peer_name}".strip()
    return f"| {row.name} | {gas:,} | {_cell(row.floor)} | {goal} | {peer} |"


def _cell(gas: int | None) -> str:
    return "" if gas is None else f"{gas:,}"


def page(figures: dict[str, int]) -> str:
    """The text of `docs/gas.md`."""
    return f"""# Gas

Written by `make gas`; a test fails when a figure grows by more than {GROWTH_PERCENT_MAX} %.

`gasUsed` of whole transactions, from the receipts of anvil under the rules of the Prague fork: a
plain ERC-20, unlimited allowance, no balance zero before, vouchers signed by the payer's own key,
`settle` and `close` sent by the payee, `close` with one voucher and a refund. A re-open uses the
storage slot of a finalized channel again.

{render(figures)}
The floor is the sum of the opcodes that no design avoids. The best peer is the cheapest of the
other contracts with a full implementation, measured in the same way.
"""


def main() -> int:
    """Measure, then write or compare."""
    parser = argparse.ArgumentParser(description="What each transaction costs.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    figures = measure()
    print(render(figures), end="")
    if arguments.check:
        worse = grown(figures, json.loads(FIGURES_FILE.read_text(encoding="utf-8")))
        print("".join(f"{line}\n" for line in worse), end="", file=sys.stderr)
        return 1 if worse else 0
    TABLE_FILE.write_text(page(figures), encoding="utf-8")
    FIGURES_FILE.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
