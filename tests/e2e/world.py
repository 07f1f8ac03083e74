"""The people of the end-to-end tests: each has a home, and uses the command line only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE, Address
from channelpay.testing.furnished import FurnishedChain
from channelpay.testing.rpc_client import rpc_call

CHANNELPAY = Path(sys.executable).with_name("channelpay")
PASSWORD = "for tests only"


@dataclass(frozen=True)
class Currency:
    """What a test pays in: as a person types it, and in base units."""

    token: Address
    price: str
    price_units: int
    deposit: str
    deposit_units: int

    @property
    def option(self) -> str:
        return "eth" if self.token == NATIVE else checksum_address(self.token)


ETH = Currency(NATIVE, "0.001", 10**15, "0.02", 2 * 10**16)


def TUSD(token: Address) -> Currency:  # noqa: N802  named as the token is
    return Currency(token, "0.5", 500_000, "10", 10_000_000)


@dataclass(frozen=True)
class Done:
    """A finished command: ``result`` is the JSON of its output, ``problem`` that of its error."""

    code: int
    output: str
    errors: str

    @property
    def result(self) -> Any:
        return json.loads(self.output)

    @property
    def problem(self) -> Any:
        return json.loads(self.errors.splitlines()[-1])


@dataclass(frozen=True)
class Site:
    """A running paid site."""

    url: str
    pid: int

    def page(self, name: str) -> str:
        return f"{self.url.rstrip('/')}/{name}"


class Person:
    """Somebody with an account, a home and the command line."""

    def __init__(self, world: World, name: str, address: Address) -> None:
        self.address = address
        self._home = world.homes / name
        self._home.mkdir(parents=True)
        self._environment = {
            **os.environ,
            "CHANNELPAY_HOME": str(self._home / "channelpay"),
            "CHANNELPAY_RPC": world.rpc_url,
            "CHANNELPAY_ACCOUNT": name,
            "CHANNELPAY_PASSWORD": PASSWORD,
        }

    @property
    def home(self) -> Path:
        """What ``CHANNELPAY_HOME`` names."""
        return self._home / "channelpay"

    def keep(self, name: str, private_key: bytes) -> None:
        """A key file as any wallet may have written it, cheap to open: each command does."""
        folder = self._home / "channelpay" / "keystore"
        folder.mkdir(mode=0o700, parents=True)
        folder.parent.chmod(0o700)
        file = folder / f"{name}.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(Account.encrypt(private_key, PASSWORD, iterations=2)))

    def run(self, *arguments: str) -> Done:
        """Run a command in this person's home, whatever comes of it."""
        done = subprocess.run(
            [CHANNELPAY, *arguments],
            env=self._environment,
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def do(self, *arguments: str) -> Done:
        """Run a command that has to succeed."""
        done = self.run(*arguments)
        assert done.code == 0, done.errors
        return done

    @contextmanager
    def doing(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on while something else happens."""
        process = subprocess.Popen(
            [CHANNELPAY, *arguments],
            env=self._environment,
            cwd=self._home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def file(self, name: str) -> str:
        return (self._home / name).read_text()

    @contextmanager
    def serving(self, folder: Path, currency: Currency, *options: str) -> Iterator[Site]:
        terms = ("--token", currency.option, "--price", currency.price, "--free", "/free.md")
        process = subprocess.Popen(
            [CHANNELPAY, "site", str(folder), *terms, "--port", "0", *options],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield Site(json.loads(process.stdout.readline())["url"], process.pid)
        finally:
            process.terminate()
            process.wait(timeout=30)
            process.stdout.close()


class World:
    """The chain, and who is on it."""

    def __init__(self, furnished: FurnishedChain, folder: Path) -> None:
        self.chain = furnished.chain
        self.rpc_url = furnished.chain.rpc_url
        self.grace_seconds = furnished.grace_seconds
        self.homes = folder / "homes"
        self.connection = connect(self.rpc_url)
        self.contract = PaymentChannelsContract(self.connection, furnished.deployment)

    def person(self, name: str, number: int) -> Person:
        """Somebody with the chain's account ``number`` in a keystore of their own."""
        account = self.chain.accounts[number]
        person = Person(self, name, account.address)
        person.keep(name, account.private_key)
        return person

    def balance(self, person: Person, currency: Currency) -> int:
        if currency.token == NATIVE:
            return self.connection.balance_wei(person.address)
        return Erc20(self.connection, currency.token).balance(person.address)

    def transactions_since(self, block: int) -> list[Any]:
        """Every transaction after ``block``, oldest first."""
        numbers = range(block + 1, self.block + 1)
        blocks: list[Any] = [
            rpc_call(self.rpc_url, "eth_getBlockByNumber", hex(n), True) for n in numbers
        ]
        return [transaction for block in blocks for transaction in block["transactions"]]

    def fee(self, transaction_hash: str, currency: Currency) -> int:
        """What a transaction's gas took from its sender's balance in this currency."""
        receipt = self.connection.receipt(bytes.fromhex(transaction_hash[2:]))
        assert receipt is not None
        return receipt.fee_wei if currency.token == NATIVE else 0

    @property
    def block(self) -> int:
        return self.connection.latest_block().number
