"""``channelpay hub payout`` and ``hub recover`` on a real chain."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.create2 import payouts_creation
from channelpay.chain.deploy import create
from channelpay.chain.payouts import PayoutsContract
from channelpay.chain.sender import Sender
from channelpay.cli.consent import DRY_RUN_PASSED
from channelpay.cli.output import Output
from channelpay.payee.hub.members import add_member, save_settings
from channelpay.payee.hub.rounds import rounds_of
from channelpay.protocol.splits import Agreement, HubSettings, Share, share_key
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address
from channelpay.store import open_store
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run

OWED = {"herald": 7 * 10**15, "anna": 2 * 10**15}
ADDRESSES = {name: Address(name.encode().rjust(20, b"\x99")) for name in OWED}


class Hub:
    """A network that owes its members something, and whoever runs it."""

    def __init__(self, run: Run, node: FurnishedChain, folder: Path) -> None:
        self._run = run
        self.folder = folder
        self.contract = PayoutsContract(connect(node.rpc_url))
        self._account = node.accounts[2]
        self.token = node.token
        deployer = Account.from_key(node.accounts[9].private_key)
        create(Sender(self.contract.connection, deployer), payouts_creation())
        key = self._account.private_key.hex()
        assert run("account", "import", "network", input=key).exit_code == 0

    def books(self, name: str) -> tuple[str, str]:
        """Options for books in which the members are owed what they are, in both tokens."""
        url = f"sqlite:///{self.folder / name}"
        with closing(open_store(url)) as store:
            save_settings(store, HubSettings(Agreement(), {NATIVE: 10**18, self.token: 10**18}))
            for member, address in ADDRESSES.items():
                add_member(store, member, address)
            states = {
                share_key(token, member): Share(earned=amount // unit).to_state()
                for token, unit in ((NATIVE, 1), (self.token, 10**6))
                for member, amount in OWED.items()
            }
            store.change_entries([*states], lambda _: states).result()
        return ("--store", url)

    def ask(self, *arguments: str, code: int = 0) -> Any:
        """The result of a command that ends with ``code``."""
        done = self._run("hub", *arguments)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    @property
    def network(self) -> str:
        return to_hex(self._account.address)

    def rounds(self) -> int:
        return self.contract.rounds(self._account.address)


@pytest.fixture
def hub(
    run: Run, dev_chain: FurnishedChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Hub:
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.rpc_url)
    monkeypatch.setenv("CHANNELPAY_CONTRACT", to_hex(dev_chain.contract))
    return Hub(run, dev_chain, tmp_path)


def test_a_statement_of_payouts_to_somebody_else_is_contradicted(hub: Hub, run: Run) -> None:
    books, file = hub.books("books"), str(hub.folder / "anna.json")
    hub.ask("payout", "--token", "eth", *books)
    hub.ask("statement", "anna", "--token", "eth", "--out", file, *books)
    asked = ("verify", file, "--network-address", hub.network)
    annas, heralds = (to_hex(ADDRESSES[name]) for name in ("anna", "herald"))

    checked = hub.ask(*asked, "--address", annas, "--author", "2000")

    assert checked["receivers"] == [checksum_address(ADDRESSES["anna"])]
    assert run("hub", *asked, "--address", heralds).exit_code == 6
    assert hub.ask(*asked, "--address", heralds, "--address", annas)["holds"]


def test_a_dry_run_shows_who_would_be_paid_what_and_pays_nobody(hub: Hub) -> None:
    books = hub.books("books")

    tried = hub.ask("payout", "--token", "eth", *books, "--dry-run", code=DRY_RUN_PASSED)

    assert hub.rounds() == 0
    with closing(open_store(books[1])) as store:
        assert (list(rounds_of(store)), store.transactions(1)) == ([], [])
    paid = hub.ask("payout", "--token", "eth", *books)
    assert {row["member"]: int(row["amount"]) for row in paid} == OWED
    fate = {"paid": True, "txHash": paid[0]["txHash"]}
    assert [row | fate for row in tried["result"]["rows"]] == paid
    (transaction,) = tried["transactions"]
    used = hub.contract.connection.receipt(bytes.fromhex(paid[0]["txHash"][2:]))
    assert used is not None
    assert (transaction["purpose"], transaction["tried"]) == ("payout", True)
    assert used.gas_used < transaction["gas"]


def test_a_dry_run_in_a_token_counts_what_allows_the_contract_to_take_it(hub: Hub) -> None:
    token = to_hex(hub.token)

    tried = hub.ask("payout", "--token", token, *hub.books("books"), "--dry-run", code=10)

    steps = [(one["purpose"], one["tried"]) for one in tried["transactions"]]
    assert steps == [("approve", True), ("payout", False)]


def test_where_nobody_is_owed_anything_a_dry_run_says_so_and_nobody_is_asked(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = hub.books("books")
    hub.ask("payout", "--token", "eth", *books)

    tried = hub.ask("payout", "--token", "eth", *books, "--dry-run", code=DRY_RUN_PASSED)
    monkeypatch.setattr(Output, "has_a_person", True)

    assert (tried["result"], tried["transactions"]) == ({"rows": []}, [])
    assert hub.ask("payout", "--token", "eth", *books) == []


def test_somebody_at_a_terminal_is_asked_before_anyone_is_paid(
    hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = hub.books("books")
    monkeypatch.setattr(Output, "has_a_person", True)

    refused = run("hub", "payout", "--token", "eth", *books, input="n\n")
    assert (refused.exit_code, hub.rounds()) == (4, 0)
    assert "herald 0.007 ETH" in refused.stderr
    agreed = run("hub", "payout", "--token", "eth", *books, input="y\n")
    assert (agreed.exit_code, hub.rounds()) == (0, 1)
    assert run("hub", "payout", "--token", "eth", *books, "--yes").exit_code == 0


def test_restored_books_pay_and_serve_nobody_until_the_payouts_are_taken_in(
    hub: Hub, run: Run
) -> None:
    paid = hub.ask("payout", "--token", "eth", *hub.books("books"))
    copy = hub.books("copy")
    for command in (("payout", "--token", "eth"), ("run", "--port", "0")):
        refused = run("hub", *command, *copy, "--state", str(hub.folder))
        assert refused.exit_code == 2
        assert "channelpay hub recover" in json.loads(refused.stderr.splitlines()[-1])["hint"]

    assert hub.ask("recover", *copy) == paid
    assert hub.ask("recover", *copy) == []
    assert hub.ask("payout", "--token", "eth", *copy) == []
    assert hub.rounds() == 1
