"""A shop to test with: a payee on a development chain, an application behind it, and its payers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from eth_account import Account
from eth_account.signers.local import LocalAccount

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.sender import Sender
from channelpay.payee import Payee, PaymentMiddleware, PriceRule
from channelpay.payee.amounts import Price
from channelpay.payee.asgi import Receive, Scope, Send
from channelpay.payee.prices import Quote
from channelpay.payee.request import Request
from channelpay.payee.verifier import Verifier
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.proofs import proof_place
from channelpay.protocol.rules import Payment
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    ZERO_ADDRESS,
    Channel,
    ChannelId,
    Deployment,
    Voucher,
)
from channelpay.protocol.wire import (
    Challenge,
    ClosePayload,
    Credential,
    OpenPayload,
    Payload,
    Receipt,
    SessionRequest,
    Source,
    TopUpPayload,
    VoucherPayload,
    parse_challenges,
)
from channelpay.store import SqliteStore
from channelpay.testing.furnished import FurnishedChain

PRICE = 10_000
"""0.01 of the test token, in base units."""
DEPOSIT = 100 * PRICE
RULES = [
    PriceRule("/free/**", "0"),
    PriceRule("/dear", "0.02"),
    PriceRule("/**", "0.01", description="One page"),
]
ORIGIN = "http://shop.example"


class Application:
    """What stands behind the middleware: the path says how it answers."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.slow_arrived: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        path = scope["path"]
        if path == "/raise":
            raise RuntimeError("the application is broken")
        if path == "/silent":
            return
        if path.startswith("/slow"):
            self.slow_arrived.put_nowait(path)
            await self.go_on.wait()
        statuses = {"/error": 500, "/missing": 404, "/moved": 303, "/unchanged": 304}
        statuses["/slow-error"] = 500
        headers = [(b"cache-control", b"public, max-age=60")]
        status = statuses.get(path, 200)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if path == "/breaks-off":
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            raise RuntimeError("the application broke off")
        body = (await receive()).get("body", b"") if scope["method"] == "POST" else b"content"
        await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class OpenChannel:
    """A channel on the chain and the key that signs its vouchers."""

    channel: Channel
    id: ChannelId
    transaction_hash: bytes
    signer: VoucherSigner
    source: Source

    def sign(self, cumulative: int) -> Voucher:
        return self.signer.sign(self.id, cumulative)

    def proof(self, challenge: Challenge) -> dict[str, str]:
        """The header of whoever has the key."""
        signed = self.signer.sign(proof_place(self.id, challenge.id), 0)
        return {PROOF: to_hex(signed.signature)}

    def open_payload(self, cumulative: int) -> OpenPayload:
        return OpenPayload(
            self.transaction_hash,
            self.channel.salt,
            self.channel.authorized_signer,
            self.sign(cumulative),
        )


class Payer:
    """Opens and tops up channels with a funded account."""

    def __init__(self, furnished: FurnishedChain, index: int = 1) -> None:
        self.furnished = furnished
        self.secret = furnished.chain.accounts[index].private_key
        self.sender = Sender(connect(furnished.chain.rpc_url), Account.from_key(self.secret))
        self.contract = PaymentChannelsContract(self.sender.connection, furnished.deployment)
        token = Erc20(self.sender.connection, furnished.token)
        self.sender.send(token.approve(furnished.deployment.contract, 2**255))

    def open(self, deposit: int = DEPOSIT, **changes: Any) -> OpenChannel:
        payee = self.furnished.chain.accounts[2].address
        channel = Channel(
            self.sender.address, payee, self.furnished.token, ZERO_ADDRESS, os.urandom(32)
        )
        channel = replace(channel, **changes)
        receipt = self.sender.send(self.contract.open(channel, deposit))
        deployment = self.furnished.deployment
        return OpenChannel(
            channel,
            channel.id(deployment),
            receipt.transaction_hash,
            VoucherSigner(deployment, self.secret),
            Source(deployment.chain_id, self.sender.address),
        )

    def top_up(self, channel: OpenChannel, amount: int) -> TopUpPayload:
        receipt = self.sender.send(self.contract.top_up(channel.channel, amount))
        return TopUpPayload(channel.id, receipt.transaction_hash, amount)

    def request_close(self, channel: OpenChannel) -> None:
        self.sender.send(self.contract.request_close(channel.channel))


class Shop:
    """A payee with books in a file, its application, and ways to ask for pages."""

    def __init__(self, payee: Payee, books: Path, payer: Payer) -> None:
        self.payee = payee
        self.application = Application()
        self.middleware = PaymentMiddleware(self.application, payee)
        self.payer = payer
        self.books = books

    @property
    def deployment(self) -> Deployment:
        return self.payee.terms.deployment

    @property
    def verifier(self) -> Verifier:
        """The payee's own, not that of a network which it sells for."""
        verifier = self.payee._verifier
        assert isinstance(verifier, Verifier)
        return verifier

    def challenge(self, amount: int = PRICE) -> Challenge:
        (challenge,) = self.challenges("/page" if amount == PRICE else "/dear")
        assert SessionRequest.decode(challenge.request).amount == amount
        return challenge

    def asked(self, amount: int = PRICE) -> SessionRequest:
        """What a challenge for one page asks."""
        quote = Quote((Price(self.payee.terms.tokens[0], amount),), description="One page")
        return self.payee.terms.request(quote.prices[0], quote)

    def challenges(self, path: str) -> list[Challenge]:
        quote = self.payee.quote(Request("GET", path))
        assert quote is not None
        return self.payee.challenges(quote)

    def header(self, payload: Payload, challenge: Challenge | None = None, **more: Any) -> str:
        return Credential(challenge or self.challenge(), payload, **more).to_header()

    async def get(
        self,
        path: str = "/page",
        authorization: str | None = None,
        *,
        method: str = "GET",
        key: str | None = None,
        **headers: str,
    ) -> httpx2.Response:
        sent = dict(headers)
        if authorization is not None:
            sent["Authorization"] = authorization
        if key is not None:
            sent["Idempotency-Key"] = key
        return await self.request(path, list(sent.items()), method=method)

    async def request(
        self,
        path: str,
        headers: list[tuple[str, str]],
        *,
        method: str = "GET",
        content: bytes = b"",
    ) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.middleware, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            return await client.request(method, path, headers=headers, content=content)

    async def pay(
        self, channel: OpenChannel, cumulative: int, path: str = "/page", **more: Any
    ) -> httpx2.Response:
        """GET with a voucher for ``cumulative``, and a fresh key unless one is given."""
        more.setdefault("key", str(uuid4()))
        amount = 2 * PRICE if path == "/dear" else PRICE
        header = self.header(VoucherPayload(channel.sign(cumulative)), self.challenge(amount))
        return await self.get(path, header, **more)

    async def prove(self, channel: OpenChannel, cumulative: int) -> httpx2.Response:
        """The same with a proof of the key, for a voucher that was settled."""
        challenge = self.challenge()
        header = self.header(VoucherPayload(channel.sign(cumulative)), challenge)
        return await self.get("/page", header, key=str(uuid4()), **channel.proof(challenge))

    async def confirmed(self, authorization: str, path: str = "/page") -> httpx2.Response:
        """The first answer that is none about confirmations: a refusal holds for a moment."""
        deadline = time.monotonic() + 20
        while True:
            response = await self.get(path, authorization)
            if response.status_code != 402 or time.monotonic() > deadline:
                return response
            await asyncio.sleep(0.05)

    async def open(self, channel: OpenChannel, cumulative: int = 0) -> httpx2.Response:
        """Present the channel: a HEAD, so that nothing is charged."""
        header = self.header(channel.open_payload(cumulative), source=channel.source)
        return await self.get("/page", header, method="HEAD")

    async def top_up(self, channel: OpenChannel, payload: TopUpPayload) -> httpx2.Response:
        return await self.get("/page", self.header(payload, source=channel.source))

    async def close(self, channel: OpenChannel, cumulative: int) -> httpx2.Response:
        return await self.get("/page", self.header(ClosePayload(channel.sign(cumulative))))

    async def opened(self, deposit: int = DEPOSIT, **changes: Any) -> OpenChannel:
        """A channel that the shop knows."""
        channel = self.payer.open(deposit, **changes)
        response = await self.open(channel)
        assert response.is_success, response.text
        return channel

    def dump(self) -> object:
        """All that the books hold, as another process reads them."""
        with closing(SqliteStore(self.books)) as store:
            records = store.records()
            return records, [store.payments(record.channel_id) for record in records]

    def payments(self, channel: OpenChannel) -> list[Payment]:
        with closing(SqliteStore(self.books)) as store:
            return [stored.payment for stored in store.payments(channel.id)]

    def spent(self, channel: OpenChannel) -> int:
        with closing(SqliteStore(self.books)) as store:
            record = store.record(channel.id)
        assert record is not None
        return record.spent


@contextmanager
def opened_shop(
    furnished: FurnishedChain, directory: Path, payer: Payer, **settings: Any
) -> Iterator[Shop]:
    """A shop of the third development account, which has the key to close channels."""
    account: LocalAccount = Account.from_key(furnished.chain.accounts[2].private_key)
    books = directory / "books.sqlite3"
    chosen: dict[str, Any] = {
        "rpc": furnished.chain.rpc_url,
        "token": to_hex(furnished.token),
        "contract": to_hex(furnished.deployment.contract),
        "prices": RULES,
        "store": f"sqlite:///{books}",
        "account": account,
        "suggested_deposit": "1",
    }
    payee = Payee.create(**(chosen | settings))
    try:
        yield Shop(payee, books, payer)
    finally:
        payee.close()


def receipt_of(response: httpx2.Response) -> Receipt:
    return Receipt.parse(response.headers["payment-receipt"])


def challenges_of(response: httpx2.Response) -> list[Challenge]:
    return parse_challenges(response.headers.get_list("www-authenticate"))


async def wait_on_loop_for(condition: Any, seconds: float = 20.0) -> None:
    """Like :func:`wait_for`, for what the event loop itself brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.02)


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)
