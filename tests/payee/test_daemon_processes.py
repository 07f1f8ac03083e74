"""The daemon and the watchtower as processes, on anvil: sites that are down, and daemons that are
killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain import keystore
from channelpay.chain.contract import Erc20
from channelpay.payee.closer import Work
from channelpay.payee.policy import Kind
from channelpay.protocol.text import to_hex
from channelpay.protocol.transactions import Outgoing, TransactionStatus
from channelpay.protocol.types import Address, ChannelStatus
from channelpay.store import Store, open_store
from channelpay.testing import anvil_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from tests.payee.office import Office, office_on
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse"
HOURS = 3600
PATIENCE_SECONDS = 90.0
PAYEE, GAS = 2, 5


@dataclass
class World:
    """A chain of its own, with the books of a site that is down."""

    furnished: FurnishedChain
    office: Office
    home: Path

    @property
    def books(self) -> str:
        return f"sqlite:///{self.home / 'site' / 'books.sqlite3'}"

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "CHANNELPAY_HOME": str(self.home),
            "CHANNELPAY_PASSWORD": PASSWORD,
            "CHANNELPAY_RPC": self.furnished.chain.rpc_url,
            "CHANNELPAY_CONTRACT": to_hex(self.furnished.deployment.contract),
        }
        return os.environ | own

    def program(self, *arguments: str) -> list[str]:
        return [str(Path(sys.executable).with_name("channelpay")), *arguments]

    def run(self, *arguments: str) -> dict[str, Any]:
        """A command that ends, and the JSON that it prints."""
        done = subprocess.run(
            self.program(*arguments),
            check=False,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        process = subprocess.Popen(
            self.program(*arguments), env=self.environment, stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def owed(self, *cumulative: int) -> list[OpenChannel]:
        """Channels whose vouchers promise so much, in the books."""
        with self.opened() as store:
            self.office.store = store  # type: ignore[assignment]
            channels = [self.office.channel(amount) for amount in cumulative]
            self.office.follow()
        return channels

    @contextmanager
    def opened(self) -> Iterator[Store]:
        with closing(open_store(self.books)) as store:
            yield store

    def states(self, channels: Sequence[OpenChannel]) -> list[tuple[ChannelStatus, int]]:
        states = self.office.link.contract.states([one.channel for one in channels])
        return [(state.status, state.settled) for state in states]

    def tokens(self, account: Address) -> int:
        connection = self.office.link.contract.connection
        return Erc20(connection, self.furnished.token).balance(account)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    encrypt = Account.encrypt
    monkeypatch.setattr(
        Account, "encrypt", lambda key, password: encrypt(key, password, "pbkdf2", 10)
    )
    with anvil_chain() as chain:
        furnished = furnish(chain)
        home = tmp_path / "home"
        (home / "site").mkdir(parents=True, mode=0o700)
        for name, index in (("publisher", PAYEE), ("gas", GAS)):
            key = chain.accounts[index].private_key.hex()
            keystore.import_key(home, name, key, PASSWORD)
        yield World(furnished, office_on(furnished, Payer(furnished)), home)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.1)


def test_a_daemon_that_starts_in_the_last_hour_of_the_grace_period_gets_everything(
    world: World,
) -> None:
    channels = world.owed(PRICE, 3 * PRICE)
    payee = world.office.terms.payee
    for channel in channels:
        world.office.payer.request_close(channel)
    world.furnished.chain.increase_time(23 * HOURS)
    before = world.tokens(payee)

    with world.running("payee", "run", "--account", "publisher", "--once") as daemon:
        assert daemon.wait(PATIENCE_SECONDS) == 0

    closed = [(ChannelStatus.FINALIZED, PRICE), (ChannelStatus.FINALIZED, 3 * PRICE)]
    assert world.states(channels) == closed
    assert world.tokens(payee) - before == 4 * PRICE


def test_a_watchtower_alone_gets_everything_with_neither_key_nor_books_of_the_payee(
    world: World,
) -> None:
    channels = world.owed(PRICE, 3 * PRICE)
    payee, payer = world.office.terms.payee, world.office.payer
    vouchers = str(world.home / "vouchers.jsonl")
    assert world.run("payee", "export", vouchers)["vouchers"] == 2
    (world.home / "site" / "books.sqlite3").unlink()
    for channel in channels:
        payer.request_close(channel)
    world.furnished.chain.increase_time(23 * HOURS)
    before = world.tokens(payee)

    with world.running("watch", vouchers, "--account", "gas", "--once") as tower:
        assert tower.wait(PATIENCE_SECONDS) == 0

    settled = [(ChannelStatus.CLOSING, PRICE), (ChannelStatus.CLOSING, 3 * PRICE)]
    assert world.states(channels) == settled
    assert world.tokens(payee) - before == 4 * PRICE
    world.furnished.chain.increase_time(HOURS)
    held = world.tokens(payer.sender.address)
    for channel in channels:
        payer.sender.send(payer.contract.withdraw(channel.channel))
    assert world.tokens(payer.sender.address) - held == 2 * DEPOSIT - 4 * PRICE


def test_of_two_daemons_one_works_and_the_other_goes_on_when_it_is_killed(world: World) -> None:
    (first,) = world.owed(PRICE)
    world.office.payer.request_close(first)
    with world.running("payee", "run", "--account", "publisher") as one:
        wait_for(lambda: world.states([first]) == [(ChannelStatus.FINALIZED, PRICE)])
        with world.running("payee", "run", "--account", "publisher") as other:
            one.send_signal(signal.SIGKILL)
            one.wait(PATIENCE_SECONDS)
            (second,) = world.owed(PRICE)
            world.office.payer.request_close(second)
            wait_for(lambda: world.states([second]) == [(ChannelStatus.FINALIZED, PRICE)])
            other.send_signal(signal.SIGTERM)
            assert other.wait(PATIENCE_SECONDS) == 0
    with world.opened() as store:
        assert len(store.transactions()) == 2


def test_a_daemon_killed_after_any_step_settles_everything_once_and_leaves_no_gap(
    world: World,
) -> None:
    payee = world.office.terms.payee
    before = world.tokens(payee)
    everything: list[OpenChannel] = []
    round_number, steps = 0, 1
    while round_number < steps:
        closing_one, open_one = world.owed(PRICE, 2 * PRICE)
        world.office.payer.request_close(closing_one)
        everything += [closing_one, open_one]
        # The first round runs to its end, and tells how many steps there are.
        ended = killed_after(world, round_number)
        if round_number == 0:
            steps = json.loads(ended)["steps"]
        round_number += 1
    assert steps > 5
    assert json.loads(killed_after(world, 0))["code"] == 0

    expected = [(ChannelStatus.FINALIZED, PRICE), (ChannelStatus.OPEN, 2 * PRICE)]
    assert world.states(everything) == expected * steps
    assert world.tokens(payee) - before == 3 * PRICE * steps
    with world.opened() as store:
        journal = store.transactions(10_000)
        assert {*paid_once(journal)} == {one.id for one in everything}
        nonces = [one.nonce for one in reversed(journal)]
    connection = world.office.link.contract.connection
    assert nonces == list(range(nonces[0], connection.used_nonces(payee)))
    assert {one.status for one in journal} == {TransactionStatus.CONFIRMED}


def killed_after(world: World, steps: int) -> str:
    """Run the daemon that kills itself; 0: it does not."""
    facts = (world.furnished.chain.rpc_url, to_hex(world.furnished.deployment.contract))
    done = subprocess.run(
        [sys.executable, "-m", "tests.payee.killed_daemon", *facts, world.books, str(steps)],
        check=False,
        cwd=ROOT,
        env=world.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == (-signal.SIGKILL if steps else 0), done.stderr
    return done.stdout


def paid_once(journal: Sequence[Outgoing]) -> list[bytes]:
    """The channels of all transactions; each may be there once."""
    works = [work for work in map(Work.of, journal) if work is not None]
    found = [one for work in works for one in work.channel_ids]
    assert len(found) == len(set(found))
    assert {work.kind for work in works} == {*Kind}
    return [bytes(one) for one in found]
