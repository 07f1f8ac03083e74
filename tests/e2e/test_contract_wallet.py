"""A smart-contract wallet is the payer: its owner opens the channel through it, a session key signs
the vouchers, and what is not spent comes back to the wallet.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain.create2 import DEPLOYER, SALT
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address
from channelpay.testing.furnished import FurnishedChain, give
from scripts import build_contracts
from tests.contracts.abi import Abi
from tests.e2e.world import ETH, Currency, Done, Person, Site, World

SOURCE = "contracts/mocks/OwnedWallet.sol"
Serve = Callable[[Currency], Site]

pytestmark = pytest.mark.parametrize("whole_chain", ["embedded"], indirect=True, scope="session")


@cache
def compiled() -> tuple[Abi, bytes]:
    sources = {SOURCE: build_contracts.read_sources()[SOURCE]}
    outputs = {SOURCE: build_contracts.CODE_OUTPUTS}
    contract = build_contracts.compile_sources(sources, outputs)["contracts"][SOURCE]["OwnedWallet"]
    return Abi(contract["abi"]), bytes.fromhex(contract["evm"]["bytecode"]["object"])


class Owner:
    """Who owns the wallet at ``address``, and has it do what a command asks for."""

    def __init__(self, world: World, chain: FurnishedChain) -> None:
        account = chain.accounts[1]
        self._abi, bytecode = compiled()
        self._sender = Sender(world.connection, Account.from_key(account.private_key))
        init_code = bytecode + bytes(12) + account.address
        self._sender.send(ContractCall(DEPLOYER, SALT + init_code))
        self.address = Address(keccak256(b"\xff" + DEPLOYER + SALT + keccak256(init_code))[12:])
        assert world.connection.code(self.address)

    def send(self, asked: dict[str, Any]) -> None:
        target, data = asked["to"], bytes.fromhex(asked["data"][2:])
        call = self._abi.encode("execute", target, int(asked["value"]), data)
        self._sender.send(ContractCall(self.address, call))


@pytest.fixture
def owner(world: World, furnished: FurnishedChain) -> Owner:
    owner = Owner(world, furnished)
    give(furnished, owner.address, ETH.deposit_units * 3, 30_000_000)
    return owner


@pytest.fixture
def safe(world: World, owner: Owner) -> Person:
    """A home that knows the wallet's address, and no key of it."""
    person = Person(world, "safe", owner.address)
    person.do("account", "wallet", "safe", checksum_address(owner.address))
    return person


def done_by(owner: Owner, safe: Person, *command: str) -> tuple[list[str], Done]:
    """A command that waits for the wallet; what it asked for, and what came of it."""
    with safe.doing(*command) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        asked = json.loads(line)
        assert "transactions" in asked, line + process.stderr.read()
        assert asked["from"] == checksum_address(owner.address)
        for one in asked["transactions"]:
            owner.send(one)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return [one["purpose"] for one in asked["transactions"]], Done(0, output, errors)


def test_a_wallet_without_a_key_pays_and_gets_the_rest_back(
    world: World, owner: Owner, safe: Person, serve: Serve, currency: Currency
) -> None:
    before = world.balance(safe, currency)
    site, paying = serve(currency), ("--token", currency.option)

    purposes, opened = done_by(
        owner, safe, "channel", "open", site.page("one.md"), "--deposit", currency.deposit, *paying
    )
    paid = safe.do(
        "pay", site.page("one.md"), site.page("two.md"), "--max", currency.price, *paying
    )
    closed = safe.do("channel", "close", opened.result["channelId"]).result

    assert purposes == (["open"] if currency is ETH else ["approve", "open"])
    assert opened.result["payer"] == checksum_address(owner.address)
    assert "The first page." in paid.output
    assert int(closed["settled"]) == 2 * currency.price_units
    assert before - world.balance(safe, currency) == 2 * currency.price_units


def test_the_wallet_tops_up_and_has_its_way_out_without_the_payee(
    world: World, owner: Owner, safe: Person, publisher: Person, folder: Path
) -> None:
    before = world.balance(safe, ETH)
    with publisher.serving(folder, ETH) as site:
        page, paying = site.page("one.md"), ("--max", ETH.price)
        refused = safe.run("pay", page, *paying, "--deposit", ETH.price, "--json")
        assert (refused.code, refused.problem["code"]) == (2, "config")

        _, opened = done_by(owner, safe, "channel", "open", page, "--deposit", ETH.price)
        channel = opened.result["channelId"]
        safe.do("pay", page, *paying)
        purposes, grown = done_by(owner, safe, "channel", "top-up", channel, ETH.price)
        assert (purposes, int(grown.result["deposit"])) == (["topUp"], 2 * ETH.price_units)
        safe.do("pay", site.page("two.md"), *paying)
        done_by(owner, safe, "channel", "top-up", channel, ETH.price)

    purposes, closing = done_by(owner, safe, "channel", "close", channel, "--request")
    assert (purposes, closing.result["status"]) == (["requestClose"], "closing")
    world.chain.increase_time(world.grace_seconds + 1)
    purposes, done = done_by(owner, safe, "channel", "withdraw", channel)
    assert (purposes, done.result["status"]) == (["withdraw"], "finalized")
    assert before - world.balance(safe, ETH) == int(done.result["settled"]) <= 2 * ETH.price_units
