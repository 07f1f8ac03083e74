"""A network of three sites with many readers, while its processes are killed: ``make hub-many``.

Each reader opens one channel with the network and buys on all three sites. Meanwhile the network
and the sites are killed and started again, and members are paid all the time. In the end everything
is settled and paid out, and has to agree to the base unit: what readers were charged, the shares in
the books, the signed statements, the payouts on the chain and the balances of the members. Printed
are the transactions and the gas of each sale, beside those of a channel for each site and of plain
transfers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx2
from eth_account import Account
from rich.console import Console
from rich.table import Table

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.create2 import payouts_creation
from channelpay.chain.deploy import create
from channelpay.chain.payouts import PaidRow, PayoutsContract
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.payee.hub.member import noted_sales
from channelpay.payee.hub.members import add_member, member_of, save_settings
from channelpay.payee.hub.statements import Checked, Clerk, check_statement
from channelpay.payee.secret import kept_secret
from channelpay.private_files import write_private
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.rules import Outcome
from channelpay.protocol.splits import NETWORK, Agreement, HubSettings, share_key
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel, Deployment
from channelpay.protocol.wire import (
    Challenge,
    Credential,
    OpenPayload,
    Payload,
    Source,
    VoucherPayload,
    parse_challenges,
)
from channelpay.store import open_store
from channelpay.testing import anvil_chain
from channelpay.testing.furnished import FurnishedChain, furnish

CHANNELPAY = Path(sys.executable).with_name("channelpay")
REPOSITORY = Path(__file__).resolve().parents[1]
FIGURES = REPOSITORY / "docs" / "gas.json"
NETWORK_ACCOUNT = 2
PASSWORD = "for tests only"  # noqa: S105
SITES = {
    "herald": "0.000010000000000007",
    "tribune": "0.000020000000000001",
    "gazette": "0.000030000000000009",
}
"""Three sites and their prices in ether: no part of them is a round number."""
PRICES = {name: int(price.replace(".", "")) for name, price in SITES.items()}
MEMBERS = [*SITES, "anna"]
"""Anna writes for all of them, and has no site."""
AGREEMENT = Agreement(author=2_000, referrer=500, network=300)
PATHS = ("/news/{}", "/anna/{}", "/news/{}?via=tribune")
AT_ONCE = 24
RETRY_SECONDS = 0.25
FAILS = 8
"""Every so many times, a reader asks for something that the site fails to deliver."""
WEI_EACH = 10**18

console = Console()


@dataclass
class Service:
    """A program that is killed, and started again on its port."""

    command: list[str]
    environment: dict[str, str]
    errors: Path
    process: subprocess.Popen[str] | None = None
    url: str = ""

    def start(self) -> Self:
        with self.errors.open("a", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                self.command,
                cwd=REPOSITORY,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, self.errors.read_text(encoding="utf-8")
        self.url = json.loads(line)["url"] if line.startswith("{") else line
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=60)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None


class Network:
    """The network's home, its processes and those of its members."""

    def __init__(self, furnished: FurnishedChain, folder: Path, store: str | None) -> None:
        self.folder = folder
        self.books = store or f"sqlite:///{folder / 'home' / 'site' / 'books.sqlite3'}"
        self.furnished = furnished
        account = furnished.accounts[NETWORK_ACCOUNT]
        self.address = account.address
        self.environment = {
            **os.environ,
            "CHANNELPAY_HOME": str(folder / "home"),
            "CHANNELPAY_RPC": furnished.rpc_url,
            "CHANNELPAY_CONTRACT": to_hex(furnished.contract),
            "CHANNELPAY_ACCOUNT": "network",
            "CHANNELPAY_PASSWORD": PASSWORD,
            "CHANNELPAY_STORE": self.books,
        }
        self._keep_key(account.private_key)
        self.receivers = {name: _receiver(name) for name in MEMBERS}

    def lines(self, *arguments: str) -> list[Any]:
        """Run a command that has to succeed; its JSON, line by line."""
        done = subprocess.run(
            [CHANNELPAY, *arguments, "--json"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def begin(self, every_seconds: int) -> None:
        """Found it."""
        (self.folder / "home" / "site").mkdir(mode=0o700)
        with closing(open_store(self.books)) as store:
            save_settings(store, HubSettings(AGREEMENT, {NATIVE: WEI_EACH}, {}, every_seconds))
            for name, receiver in self.receivers.items():
                write_private(self._key_file(name), add_member(store, name, receiver).encode())

    def hub(self, port: int = 0) -> Service:
        command = [str(CHANNELPAY), "hub", "run", "--port", str(port), "--json"]
        # Nothing is settled before the end, so that what that costs can be told.
        return self._service([*command, "--settle-age", "never", "--settle-used", "100"], "hub")

    def site(self, name: str, hub_url: str, port: int = 0) -> Service:
        facts = [hub_url, str(self._key_file(name)), str(port), SITES[name], str(self.log(name))]
        return self._service([sys.executable, "-m", "scripts.hub_site", *facts], name)

    def log(self, name: str) -> Path:
        """What a site notes of its sales."""
        return self.folder / f"{name}.jsonl"

    def _service(self, command: list[str], name: str) -> Service:
        return Service(command, self.environment, self.folder / f"{name}.log")

    def _key_file(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _keep_key(self, private_key: bytes) -> None:
        """A key file that is cheap to open: each command does."""
        folder = self.folder / "home" / "keystore"
        folder.mkdir(mode=0o700, parents=True)
        folder.parent.chmod(0o700)
        file = folder / "network.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(Account.encrypt(private_key, PASSWORD, iterations=2)))


def _receiver(name: str) -> Address:
    """An address that holds nothing yet."""
    return Address(keccak256(b"member " + name.encode())[12:])


# --- readers -------------------------------------------------------------------------------------


@dataclass
class Reader:
    """Somebody with one channel. ``signed`` is the voucher's amount, ``cost`` what was delivered,
    and ``lost`` what else was charged: a site that is killed gives nothing back.
    """

    number: int
    channel: Channel
    deployment: Deployment
    opened_by: bytes
    signer: VoucherSigner
    signed: int = 0
    cost: int = 0
    lost: int = 0
    is_known: bool = False
    retries: int = 0
    challenges: dict[str, Challenge] = field(default_factory=dict)

    def header(self, site: str, amount: int) -> str:
        """A credential for what costs ``amount`` at a site."""
        self.signed = max(self.signed, self.cost + self.lost + amount)
        voucher = self.signer.sign(self.channel.id(self.deployment), self.signed)
        payload: Payload = VoucherPayload(voucher)
        if not self.is_known:
            channel = self.channel
            payload = OpenPayload(self.opened_by, channel.salt, channel.authorized_signer, voucher)
        source = Source(self.deployment.chain_id, self.channel.payer)
        return Credential(self.challenges[site], payload, source).to_header()


class Crowd:
    """The readers, who buy one thing after the other. ``bought`` counts what was served."""

    def __init__(self, readers: Sequence[Reader], urls: dict[str, str]) -> None:
        self.readers = readers
        self.urls = urls
        self.bought = 0
        self.failed = 0
        self._step = asyncio.Condition()

    async def buy(self, sales: int) -> None:
        """Have all readers buy ``sales`` things together, on all sites in turn."""
        each = -(-sales // len(self.readers))
        limit = asyncio.Semaphore(AT_ONCE)
        async with httpx2.AsyncClient(timeout=30.0, trust_env=False) as client:

            async def read(reader: Reader) -> None:
                async with limit:
                    for number in range(each):
                        if number % FAILS == FAILS - 1:
                            await self._buy(client, reader, number, "/broken")
                        await self._buy(client, reader, number, PATHS[number % len(PATHS)])

            await asyncio.gather(*map(read, self.readers))

    async def has_bought(self, number: int) -> None:
        """Wait until so many things were served."""
        async with self._step:
            await self._step.wait_for(lambda: self.bought >= number)

    async def _buy(
        self, client: httpx2.AsyncClient, reader: Reader, number: int, path: str
    ) -> None:
        """One errand, in as many attempts as it takes."""
        site = [*SITES][(reader.number + number // len(PATHS)) % len(SITES)]
        path = path.format(number)
        key = str(uuid4())
        while True:
            try:
                if await self._asked(client, reader, site, path, key):
                    return
            except httpx2.TransportError:
                reader.retries += 1
            await asyncio.sleep(RETRY_SECONDS)

    async def _asked(
        self, client: httpx2.AsyncClient, reader: Reader, site: str, path: str, key: str
    ) -> bool:
        """Whether the errand is over."""
        url = self.urls[site] + path
        if site not in reader.challenges:
            answer = await client.get(url)
            if answer.status_code != 402:
                return False
            (reader.challenges[site],) = parse_challenges([answer.headers["www-authenticate"]])
        header = reader.header(site, PRICES[site])
        answer = await client.get(url, headers={"authorization": header, "idempotency-key": key})
        if answer.status_code == 503:
            reader.retries += 1
            return False
        if answer.status_code == 402:
            problem = answer.json()
            assert problem["code"] == "insufficient-balance", problem
            reader.lost = int(problem["spent"]) - reader.cost
            return False
        reader.is_known = True
        if path == "/broken":
            assert answer.status_code == 500, answer.text
            self.failed += 1
            return True
        assert answer.status_code == 200, answer.text
        reader.cost += PRICES[site]
        async with self._step:
            self.bought += 1
            self._step.notify_all()
        return True


def open_channels(furnished: FurnishedChain, count: int, most: int) -> tuple[list[Reader], int]:
    """Readers with a channel each that holds what ``most`` sales cost; and the gas of the opens."""
    connection = connect(furnished.rpc_url)
    contract = PaymentChannelsContract(connection, furnished.deployment)
    bank = Sender(connection, Account.from_key(furnished.accounts[0].private_key))
    deposit = most * max(PRICES.values())
    readers, gas = [], 0
    for number in range(count):
        secret = keccak256(b"reader %d" % number)
        account = Account.from_key(secret)
        payer = Address(bytes.fromhex(account.address[2:]))
        bank.send(ContractCall(payer, value_wei=WEI_EACH))
        payee = furnished.accounts[NETWORK_ACCOUNT].address
        channel = Channel(payer, payee, NATIVE, ZERO_ADDRESS, keccak256(secret))
        receipt = Sender(connection, account).send(contract.open(channel, deposit))
        signer = VoucherSigner(furnished.deployment, secret)
        readers.append(
            Reader(number, channel, furnished.deployment, receipt.transaction_hash, signer)
        )
        gas += receipt.gas_used
    return readers, gas


# --- kills ---------------------------------------------------------------------------------------


async def trouble(crowd: Crowd, services: Sequence[Service], kills: int, sales: int) -> int:
    """Kill one of the services each time the crowd has bought another part of ``sales``, and start
    it again. How many were killed.
    """
    for number in range(kills):
        await crowd.has_bought((number + 1) * sales * 3 // 4 // (kills + 1))
        victim = services[number % len(services)]
        await asyncio.to_thread(victim.end, signal.SIGKILL)
        await asyncio.to_thread(victim.start)
    return kills


async def busy(crowd: Crowd, services: Sequence[Service], kills: int, sales: int) -> None:
    """Buy and be killed."""
    killing = asyncio.create_task(trouble(crowd, services, kills, sales))
    buying = asyncio.create_task(crowd.buy(sales))
    try:
        await asyncio.gather(buying, killing)
    finally:
        for task in (killing, buying):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


# --- the reckoning -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """One run. Gas is that of all transactions of a kind; amounts are in wei."""

    readers: int
    sales: int
    given_back: int
    kills: int
    retries: int
    seconds: float
    charged: int
    rounds: int
    gas: dict[str, tuple[int, int]]

    @property
    def gas_per_sale(self) -> float:
        return sum(gas for _, gas in self.gas.values()) / self.sales


def settle_all(network: Network) -> tuple[int, int]:
    """Close every channel; how many transactions that took, and their gas."""
    taken = network.lines("payee", "close", "--all", "--yes")
    connection = connect(network.furnished.rpc_url)
    return _gas_of(connection, {one["txHash"] for one in taken})


def _gas_of(connection: Connection, hashes: set[str]) -> tuple[int, int]:
    receipts = [connection.receipt(bytes.fromhex(one[2:])) for one in hashes]
    return len(receipts), sum(one.gas_used for one in receipts if one is not None)


def check(network: Network, crowd: Crowd) -> list[PaidRow]:
    """Everything agrees to the base unit. Returns all payouts on the chain."""
    connection = connect(network.furnished.rpc_url)
    contract = PayoutsContract(connection)
    rows = contract.rows(network.address)
    earned = {}
    for name, receiver in network.receivers.items():
        said = check_member(network, name)
        on_chain = sum(row.amount for row in rows if row.receiver == receiver and row.paid)
        assert (said.paid, said.owed) == (on_chain, 0), (name, said)
        assert said.earned == on_chain
        assert connection.balance_wei(receiver) == on_chain
        earned[name] = on_chain
    with closing(open_store(network.books)) as store:
        records = store.records()
        share: Any = store.entry(share_key(NATIVE, NETWORK))
        lost = sum(
            stored.payment.price
            for record in records
            for stored in store.payments(record.channel_id)
            if stored.payment.outcome is Outcome.CHARGED and "/broken" in stored.payment.resource
        )
    charged = sum(record.spent for record in records)
    assert sum(earned.values()) + share["earned"] == charged
    assert charged == sum(reader.cost for reader in crowd.readers) + lost
    # A close takes all that was promised: also for what was given back and not bought again.
    settled = sum(record.chain.settled for record in records)
    assert settled == sum(reader.signed for reader in crowd.readers) >= charged
    return rows


def check_member(network: Network, name: str) -> Checked:
    """A member's statement, as the member itself checks it."""
    secret = kept_secret(network.folder / "home" / "site" / "hub.key")
    account = Account.from_key(network.furnished.accounts[NETWORK_ACCOUNT].private_key)
    clerk = Clerk(network.furnished.deployment, account, secret)
    with closing(open_store(network.books)) as store:
        said = clerk.statement(store, member_of(store, name), NATIVE)
    own = noted_sales(network.log(name)) if name in SITES else []
    contract = PayoutsContract(connect(network.furnished.rpc_url))
    addresses = {network.receivers[name]}
    return check_statement(said, network.address, addresses, contract, own, AGREEMENT)


# --- one run -------------------------------------------------------------------------------------


@contextmanager
def running(network: Network) -> Iterator[tuple[list[Service], dict[str, str]]]:
    """The network and its three sites, each a process, first the network."""
    with ExitStack() as stack:
        hub = network.hub().start()
        stack.callback(hub.end)
        hub.command[hub.command.index("--port") + 1] = hub.url.rpartition(":")[2]
        services, urls = [hub], {}
        for name in SITES:
            site = network.site(name, hub.url).start()
            stack.callback(site.end)
            site.command[site.command.index("0")] = site.url.rpartition(":")[2]
            services.append(site)
            urls[name] = site.url
        yield services, urls


def run(
    furnished: FurnishedChain,
    folder: Path,
    *,
    readers: int,
    sales: int,
    kills: int,
    every: int,
    store: str | None = None,
) -> Measured:
    """Found a network, sell, be killed, settle, pay out, and check everything."""
    connection = connect(furnished.rpc_url)
    bank = Sender(connection, Account.from_key(furnished.accounts[9].private_key))
    create(bank, payouts_creation())
    network = Network(furnished, folder, store)
    network.begin(every)
    people, opened_gas = open_channels(furnished, readers, 2 * -(-sales // readers) + 1)
    started = time.monotonic()
    with running(network) as (services, urls):
        crowd = Crowd(people, urls)
        asyncio.run(busy(crowd, services, kills, sales))
    seconds = time.monotonic() - started
    closes = settle_all(network)
    network.lines("hub", "payout")
    rows = check(network, crowd)
    payouts = _gas_of(connection, {to_hex(row.transaction_hash) for row in rows})
    return Measured(
        readers,
        crowd.bought,
        crowd.failed,
        kills,
        sum(one.retries for one in people),
        seconds,
        sum(one.cost for one in people),
        payouts[0],
        {"opens": (readers, opened_gas), "closes": closes, "payouts": payouts},
    )


def show(measured: Measured) -> None:
    figures = json.loads(FIGURES.read_text())
    one_channel = figures["open, ETH"] + figures["close, ETH"]
    sites = len(SITES)
    per_sale = measured.readers * sites * one_channel / measured.sales
    table = Table(title=f"{measured.sales:,} sales to {measured.readers} readers on {sites} sites")
    for name in ("", "transactions", "gas", "gas per sale"):
        table.add_column(name, justify="left" if not name else "right")
    for name, (count, gas) in measured.gas.items():
        table.add_row(name, f"{count:,}", f"{gas:,}", f"{gas / measured.sales:,.1f}")
    count, gas = (sum(one) for one in zip(*measured.gas.values(), strict=True))
    table.add_row("the network", f"{count:,}", f"{gas:,}", f"{measured.gas_per_sale:,.1f}")
    channels = measured.readers * sites
    table.add_row(
        "a channel for each site",
        f"{2 * channels:,}",
        f"{channels * one_channel:,}",
        f"{per_sale:,.1f}",
    )
    plain = figures["plain transfer, ETH"]
    total = f"{plain * measured.sales:,}"
    table.add_row("plain transfers", f"{measured.sales:,}", total, f"{plain:,.1f}")
    console.print(table)
    console.print(
        f"{measured.kills} kills, {measured.retries} retries, {measured.given_back} sales given"
        f" back, {measured.sales / measured.seconds:.0f} sales/s; all agree to the wei."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="A network of sites, while it is killed.")
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--sales", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--every", type=int, default=30, help="seconds between payouts")
    parser.add_argument("--store", metavar="URL", help="empty books (default: an SQLite file)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, anvil_chain() as chain:
        show(run(furnish(chain), Path(folder), **vars(arguments)))


if __name__ == "__main__":
    main()
