"""A shop that carries the gas, and a payer without ether."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.create2 import DEPLOYER
from channelpay.chain.funding import token_domain
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.payee.carrier import Carrying
from channelpay.payer.client import Payer
from channelpay.payer.gasless import Gasless
from channelpay.payer.httpx import ChannelPayAuth
from channelpay.payer.limits import Limits
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.funding import (
    PERMIT2,
    Authorization,
    FundingMethod,
    PermitTransfer,
    SignedAuthorization,
    open_authorization,
    top_up_authorization,
)
from channelpay.protocol.transactions import Outgoing
from channelpay.protocol.types import ZERO_ADDRESS, Channel
from channelpay.protocol.wire import SignedOpenPayload, SignedTopUpPayload
from channelpay.store import SqliteStore
from channelpay.testing.accounts import DevAccount, account_of
from channelpay.testing.furnished import FurnishedChain, give
from tests.contracts.funding import PERMIT2_SALT, permit2_creation_code
from tests.payee.shop import DEPOSIT, ORIGIN, PRICE, Shop, opened_shop
from tests.payee.shop import Payer as RichPayer

CARRYING = Carrying(budget_wei=10**18, gas_price_max_wei=10**12, payer_max=3)
TOKENS = 10 * DEPOSIT


@dataclass(frozen=True)
class Poor:
    """An account with tokens alone, that signs by hand what a client of another make would send."""

    furnished: FurnishedChain
    account: DevAccount
    contract: PaymentChannelsContract

    @property
    def connection(self) -> Any:
        return self.contract.connection

    def channel(self, salt: bytes = bytes(31) + b"\x20") -> Channel:
        payee = self.furnished.accounts[2].address
        return Channel(self.account.address, payee, self.furnished.token, ZERO_ADDRESS, salt)

    def authorization(
        self,
        channel: Channel,
        amount: int = DEPOSIT,
        method: FundingMethod = FundingMethod.EIP3009,
        seconds: int = 600,
    ) -> Authorization:
        deployment = self.contract.deployment
        return open_authorization(method, deployment, channel, amount, self.now + seconds)

    @property
    def now(self) -> int:
        return int(self.connection.latest_block().timestamp)

    def sign(self, authorization: Authorization, key: bytes | None = None) -> SignedAuthorization:
        if isinstance(authorization, PermitTransfer):
            typed = authorization.typed(self.contract.deployment)
        else:
            domain = token_domain(self.connection, self.furnished.token)
            assert domain is not None
            typed = authorization.typed(domain)
        account = Account.from_key(key or self.account.private_key)
        signed = account.sign_typed_data(typed.domain, typed.types, typed.message)
        return SignedAuthorization(authorization, bytes(signed.signature))

    def open(
        self, signed: SignedAuthorization, channel: Channel, cumulative: int = PRICE
    ) -> SignedOpenPayload:
        deployment = self.contract.deployment
        signer = VoucherSigner(deployment, self.account.private_key)
        voucher = signer.sign(channel.id(deployment), cumulative)
        return SignedOpenPayload(signed, channel.salt, channel.authorized_signer, voucher)

    def top_up(
        self, channel: Channel, amount: int, method: FundingMethod = FundingMethod.EIP3009
    ) -> SignedTopUpPayload:
        deployment, salt = self.contract.deployment, b"t" * 32
        facts = (method, deployment, channel, amount, self.now + 600)
        signed = self.sign(top_up_authorization(*facts, salt))
        shown = salt if method is FundingMethod.EIP3009 else b""
        return SignedTopUpPayload(channel.id(deployment), signed, shown)

    @property
    def tokens(self) -> int:
        return Erc20(self.connection, self.furnished.token).balance(self.account.address)


def poor_payer(furnished: FurnishedChain) -> Poor:
    """A new account, that never had any ether."""
    contract = PaymentChannelsContract(connect(furnished.rpc_url), furnished.deployment)
    account = account_of(secrets.token_bytes(32))
    give(furnished, account.address, 0, TOKENS)
    assert contract.connection.balance_wei(account.address) == 0
    return Poor(furnished, account, contract)


@contextmanager
def carrying_shop(
    furnished: FurnishedChain, directory: Path, carrying: Carrying = CARRYING, **settings: Any
) -> Iterator[Shop]:
    with opened_shop(
        furnished, directory, RichPayer(furnished), carrying=carrying, **settings
    ) as shop:
        yield shop


@contextmanager
def program_of(
    poor: Poor, directory: Path, gasless: Gasless = Gasless.AUTO, **settings: Any
) -> Iterator[Payer]:
    """The poor account's own program."""
    furnished = poor.furnished
    limits = Limits(
        furnished.token, price_max=2 * PRICE, deposit_max=2 * DEPOSIT, deposit=DEPOSIT, top_up=PRICE
    )
    payer = Payer(
        poor.account.private_key,
        furnished.rpc_url,
        directory / "payer.sqlite3",
        limits=[replace(limits, **settings)],
        contract=furnished.contract,
        allow_plain_http=True,
        gasless=gasless,
    )
    try:
        yield payer
    finally:
        payer.close()


@asynccontextmanager
async def client_of(shop: Shop, payer: Payer) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(shop.middleware)
    auth = ChannelPayAuth(payer)
    async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN, auth=auth) as client:
        yield client


@contextmanager
def permit2_at_its_place(furnished: FurnishedChain) -> Iterator[None]:
    """The real Permit2, which is gone afterwards."""
    snapshot = furnished.chain.snapshot()
    connection = connect(furnished.rpc_url)
    sender = Sender(connection, Account.from_key(furnished.accounts[5].private_key))
    sender.send(ContractCall(DEPLOYER, PERMIT2_SALT + permit2_creation_code()))
    assert connection.code(PERMIT2)
    yield
    furnished.chain.revert(snapshot)


def carried(shop: Shop) -> list[Outgoing]:
    """The transactions in the shop's journal that carried gas, oldest first."""
    store = SqliteStore(shop.books)
    try:
        rows = store.transactions(100)
    finally:
        store.close()
    return [one for one in reversed(rows) if one.purpose.startswith("carry ")]
