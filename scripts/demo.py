"""The whole of channelpay in one go: ``make demo``.

A local chain and a paid site run as processes of their own; a reader opens a channel from the
command line, pays for every page of this repository's documentation, and closes. Once in ether,
once in a token. It ends with what it cost, and fails if one base unit is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from eth_account import Account
from rich.console import Console
from rich.table import Table

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import format_amount, parse_human_amount
from channelpay.protocol.types import NATIVE, Address, abi_word
from channelpay.testing.rpc_client import rpc_call

REPOSITORY = Path(__file__).resolve().parent.parent
CHANNELPAY = Path(sys.executable).with_name("channelpay")
GAS_PRICE_GWEI = 20
ETHER_DECIMALS = 18
TRANSFER_SELECTOR = bytes.fromhex("a9059cbb")
READER, PUBLISHER, BYSTANDER = 1, 2, 3
"""Which of the chain's accounts plays which part."""

console = Console(width=max(100, Console().width))


@dataclass(frozen=True)
class Currency:
    """What one round of the demo pays in; amounts as a person types them."""

    option: str
    symbol: str
    decimals: int
    price: str
    deposit: str

    @property
    def token(self) -> Address:
        """The token's address, zero for ether."""
        return NATIVE if self.option == "eth" else parse_address(self.option)

    def show(self, base_units: int) -> str:
        """An amount for people."""
        return format_amount(base_units, self.decimals, self.symbol)

    def units(self, text: str) -> int:
        """A typed amount in base units."""
        return parse_human_amount(text, self.decimals)


class Command:
    """The command line as one person uses it, with a home of its own."""

    def __init__(self, home: Path, rpc: str) -> None:
        self.folder = home.parent
        self.folder.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ,
            "CHANNELPAY_HOME": str(home),
            "CHANNELPAY_RPC": rpc,
            "CHANNELPAY_PASSWORD": "demo",
        }

    def run(self, *arguments: str, secret: str | None = None) -> Any:
        """Run to the end; the JSON that it prints, if any."""
        lines = list(self.lines(*arguments, secret=secret))
        return json.loads(lines[-1]) if lines else None

    def lines(self, *arguments: str, secret: str | None = None) -> Iterator[str]:
        """Run, and yield each line of its output as it comes; receipts come on stderr."""
        shown = " ".join(_shortened(arguments))
        console.print(f"[dim]$ channelpay {shown}[/dim]", highlight=False, soft_wrap=True)
        process = subprocess.Popen(
            [CHANNELPAY, *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin:
            process.stdin.write(secret or "")
        yield from process.stdout
        if process.wait() != 0:
            raise SystemExit(f"channelpay {arguments[0]} failed, see above")

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[Any]:
        """Run in the background; yields the line of JSON that says it is ready."""
        process = subprocess.Popen(
            [CHANNELPAY, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"channelpay {arguments[0]} did not start")
            yield json.loads(line)
        finally:
            process.terminate()
            process.wait(timeout=20)


@dataclass(frozen=True)
class Stage:
    """What a round is played on."""

    chain: dict[str, Any]
    connection: Connection
    folder: Path
    homes: Path

    def address(self, part: int) -> Address:
        return parse_address(self.chain["accounts"][part]["address"])

    def key(self, part: int) -> str:
        return str(self.chain["accounts"][part]["privateKey"])

    def holdings(self, token: Address) -> dict[int, int]:
        """What reader, publisher and (as -1) the contract have of ``token``, in base units."""
        contract = parse_address(self.chain["contract"])
        accounts = {part: self.address(part) for part in (READER, PUBLISHER)} | {-1: contract}
        if token == NATIVE:
            return {part: self.connection.balance_wei(who) for part, who in accounts.items()}
        erc20 = Erc20(self.connection, token)
        return {part: erc20.balance(who) for part, who in accounts.items()}


@dataclass(frozen=True)
class Round:
    """What happened in one round."""

    currency: Currency
    pages: int
    vouchers: int
    paid: int
    before: dict[int, int]
    after: dict[int, int]
    gas: dict[str, int]
    fees_wei: dict[int, int]
    transactions: int
    gas_of_transfer: int

    def fee(self, part: int) -> int:
        """What gas took from this account's balance in the round's own currency."""
        return self.fees_wei[part] if self.currency.token == NATIVE else 0

    def adds_up(self) -> bool:
        """Whether every base unit is where it belongs."""
        reader = self.before[READER] - self.after[READER]
        publisher = self.after[PUBLISHER] - self.before[PUBLISHER]
        return (
            reader == self.paid + self.fee(READER)
            and publisher == self.paid - self.fee(PUBLISHER)
            and self.before[-1] == self.after[-1]
            and self.paid == self.pages * self.currency.units(self.currency.price)
            and self.transactions == len(self.gas) == 2
        )


def play(stage: Stage, currency: Currency) -> Round:
    """One round: open, pay for every page, close."""
    console.rule(f"[bold]paying in {currency.symbol}")
    homes = stage.homes / currency.symbol
    reader = _person(homes / "reader", stage, "reader", READER)
    publisher = _person(homes / "publisher", stage, "publisher", PUBLISHER)
    before, first_block = stage.holdings(currency.token), stage.connection.latest_block().number
    site_options = ("--token", currency.option, "--price", currency.price, "--port", "0")
    with publisher.serving("site", str(stage.folder), *site_options) as site:
        console.print(f"the publisher serves {stage.folder.name}/ at {site['url']}")
        urls = _page_urls(stage.folder, site["url"])
        paying = ("--token", currency.option)
        opened = reader.run("channel", "open", urls[0], "--deposit", currency.deposit, *paying)
        receipts = _read_all(reader, urls, currency, paying)
        closed = reader.run("channel", "close", opened["channelId"])
    hashes = {"open": opened["openTxHash"], "close": closed["txHash"]}
    mined = {name: stage.connection.receipt(_bytes(value)) for name, value in hashes.items()}
    fees = {name: receipt.fee_wei for name, receipt in mined.items() if receipt is not None}
    return Round(
        currency=currency,
        pages=len(urls),
        vouchers=len(receipts) + 1,
        paid=int(closed["settled"]),
        before=before,
        after=stage.holdings(currency.token),
        gas={name: receipt.gas_used for name, receipt in mined.items() if receipt is not None},
        fees_wei={READER: fees["open"], PUBLISHER: fees["close"]},
        transactions=_transactions_since(stage, first_block),
        gas_of_transfer=_gas_of_transfer(stage, currency),
    )


def _read_all(
    reader: Command, urls: list[str], currency: Currency, paying: tuple[str, ...]
) -> list[Any]:
    """Pay for every page with one command; its receipts."""
    receipts = []
    for line in reader.lines("pay", *urls, "--max", currency.price, *paying, "-O", "--json"):
        receipt = json.loads(line)
        cost, spent = (currency.show(int(receipt[name])) for name in ("cost", "spent"))
        page = reader.folder / PurePosixPath(receipt["url"]).name
        console.print(
            f"  {page.stat().st_size:>6,} bytes for {cost}, {spent} so far: {page.name}",
            highlight=False,
        )
        receipts.append(receipt)
    return receipts


def _person(home: Path, stage: Stage, name: str, part: int) -> Command:
    command = Command(home, stage.chain["rpcUrl"])
    command.run("account", "import", name, secret=stage.key(part))
    command.environment["CHANNELPAY_ACCOUNT"] = name
    return command


def _page_urls(folder: Path, site: str) -> list[str]:
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [f"{site.rstrip('/')}/{file.as_posix()}" for file in files]


def _transactions_since(stage: Stage, block: int) -> int:
    """How many transactions the chain took after ``block``, whoever sent them."""
    numbers = range(block + 1, stage.connection.latest_block().number + 1)
    return sum(_transactions_in(stage.chain["rpcUrl"], number) for number in numbers)


def _transactions_in(rpc_url: str, number: int) -> int:
    block: Any = rpc_call(rpc_url, "eth_getBlockByNumber", hex(number), False)
    return len(block["transactions"])


def _gas_of_transfer(stage: Stage, currency: Currency) -> int:
    """What the same payment costs as a plain transfer, from a receipt."""
    account = Account.from_key(stage.key(BYSTANDER))
    to, amount = stage.address(PUBLISHER), currency.units(currency.price)
    if currency.token == NATIVE:
        call = ContractCall(to, value_wei=amount)
    else:
        call = ContractCall(
            currency.token, TRANSFER_SELECTOR + abi_word(to) + amount.to_bytes(32, "big")
        )
    return Sender(stage.connection, account).send(call).gas_used


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _shortened(arguments: Sequence[str]) -> Iterator[str]:
    """Addresses and ids by their first digits, URLs by their path, many URLs by their number."""
    urls = [argument for argument in arguments if argument.startswith("http")]
    for argument in arguments:
        if argument in urls[1:]:
            continue
        if argument.startswith("http"):
            yield "…" + urlsplit(argument).path
            if len(urls) > 1:
                yield f"… ({len(urls)} pages)"
        else:
            yield argument[:10] + "…" if len(argument) > 20 else argument


def summary(rounds: list[Round]) -> Table:
    """The table at the end, one column a round."""
    table = Table(title="what happened", show_lines=False)
    table.add_column("")
    for played in rounds:
        table.add_column(f"in {played.currency.symbol}", justify="right")
    for heading, cells in _lines(rounds):
        table.add_row(heading, *cells)
    return table


def _lines(rounds: list[Round]) -> Iterator[tuple[str, list[str]]]:
    def ether(gas: int) -> str:
        return format_amount(gas * GAS_PRICE_GWEI * 10**9, ETHER_DECIMALS, "ETH")

    def line(heading: str, cell: Any) -> tuple[str, list[str]]:
        return heading, [str(cell(played)) for played in rounds]

    yield line("pages read", lambda r: r.pages)
    yield line("paid", lambda r: r.currency.show(r.paid))
    yield line("vouchers signed (the last one closes)", lambda r: r.vouchers)
    yield line("transactions on chain", lambda r: r.transactions)
    yield line("gas: open", lambda r: f"{r.gas['open']:,}")
    yield line("gas: close", lambda r: f"{r.gas['close']:,}")
    price = f"at {GAS_PRICE_GWEI} gwei"
    yield line(f"gas {price}", lambda r: ether(sum(r.gas.values())))
    yield line(
        f"as {rounds[0].pages} plain transfers", lambda r: ether(r.pages * r.gas_of_transfer)
    )
    for part, name in ((READER, "reader"), (PUBLISHER, "publisher"), (-1, "contract")):
        yield line(f"{name} before", lambda r, p=part: r.currency.show(r.before[p]))
        yield line(f"{name} after", lambda r, p=part: r.currency.show(r.after[p]))
        if part != -1:
            yield line("  of that, gas", lambda r, p=part: r.currency.show(r.fee(p)))
    yield line("adds up to the base unit", lambda r: "yes" if r.adds_up() else "NO")


def main() -> None:
    """Play both rounds; exit code 0 only if every base unit is accounted for."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="channelpay-demo-")))
        folder = work / "library"
        shutil.copytree(REPOSITORY / "docs", folder / "docs")
        shutil.copy(REPOSITORY / "README.md", folder)
        chain = stack.enter_context(Command(work, "").serving("dev", "--port", "0"))
        console.print(
            f"a local chain runs at {chain['rpcUrl']}, the contract is {chain['contract']}"
        )
        stage = Stage(chain, connect(chain["rpcUrl"]), folder, work)
        currencies = (
            Currency("eth", "ETH", ETHER_DECIMALS, "0.0001", "0.01"),
            Currency(chain["token"], chain["tokenSymbol"], chain["tokenDecimals"], "0.25", "25"),
        )
        rounds = [play(stage, currency) for currency in currencies]
    console.print(summary(rounds))
    if not all(played.adds_up() for played in rounds):
        raise SystemExit("the balances do not add up")


if __name__ == "__main__":
    main()
