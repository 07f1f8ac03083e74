"""Where it happens: a chain with the contract and the payers' channels on it, and books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.deploy import deploy
from channelpay.chain.sender import Sender
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Channel,
    ChannelState,
    Deployment,
)
from channelpay.protocol.wire import Source
from channelpay.testing.accounts import deployer_account, dev_accounts
from channelpay.testing.devchain import anvil_chain
from scripts.chaos.books import SQLITE
from scripts.chaos.crowd import Purse
from scripts.chaos.site import PAYEE_ACCOUNT
from tests.support.postgres import PostgresServer, running_postgres

PAYER_ACCOUNT = 1
DEPOSIT = 10 * 10**18
"""10 ETH in wei: more than any run spends."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain with the contract on it, and the payer's account."""

    rpc_url: str
    contract: PaymentChannelsContract
    payer: Sender

    def open(self, number: int, seed: str) -> Purse:
        """Lock a deposit in the channel of this number."""
        deployment = self.contract.deployment
        accounts = dev_accounts()
        payer, payee = accounts[PAYER_ACCOUNT], accounts[PAYEE_ACCOUNT]
        salt = keccak256(f"chaos {seed} channel {number}".encode())
        channel = Channel(payer.address, payee.address, NATIVE, ZERO_ADDRESS, salt)
        opened_by = self.payer.submit(self.contract.open(channel, DEPOSIT))
        signer = VoucherSigner(deployment, payer.private_key)
        source = Source(deployment.chain_id, payer.address)
        return Purse(channel, channel.id(deployment), signer, source, opened_by)

    def request_close(self, purse: Purse) -> None:
        self.payer.send(self.contract.request_close(purse.channel))

    def states(self, purses: list[Purse]) -> list[ChannelState]:
        """The channels as the contract knows them now."""
        return self.contract.states([purse.channel for purse in purses])


@contextmanager
def quick_chain() -> Iterator[Chain]:
    """anvil, with the contract deployed."""
    with anvil_chain() as node:
        connection = connect(node.rpc_url, expected_chain_id=node.chain_id)
        deployer = Sender(connection, Account.from_key(deployer_account().private_key))
        address = deploy(deployer).address
        payer = Sender(connection, Account.from_key(dev_accounts()[PAYER_ACCOUNT].private_key))
        contract = PaymentChannelsContract(connection, Deployment(node.chain_id, address))
        yield Chain(node.rpc_url, contract, payer)


@dataclass(frozen=True, slots=True)
class Place:
    """Where books are kept: a URL, and the database server if there is one."""

    url: str
    server: PostgresServer | None = None


@contextmanager
def place_for(store: str, folder: Path) -> Iterator[Place]:
    """Empty books: a file in ``folder``, or a schema in a PostgreSQL server of our own."""
    if store == "sqlite":
        yield Place(f"{SQLITE}{folder / 'books.sqlite3'}")
        return
    with running_postgres() as server:
        yield Place(server.new_books(), server)
