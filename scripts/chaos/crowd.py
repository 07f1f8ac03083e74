"""Clients that pay as fast as they can, and remember exactly what they sent and what came back."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import Channel, ChannelId, Voucher
from channelpay.protocol.wire import (
    Challenge,
    Credential,
    OpenPayload,
    Payload,
    Receipt,
    Source,
    VoucherPayload,
    parse_challenges,
)
from scripts.chaos.exchange import Answer, Line, NoAnswer
from scripts.chaos.site import PARTS, PRICE

PAUSE_SECONDS = 0.05
"""What a client waits after a 503. Far less than the site asks for: this is no polite client."""
GIVE_UP = 0.1
"""How likely a client gives up when it gets no answer, or a 503."""
COSTS = {"/page": PRICE, "/dear": 3 * PRICE, "/metered": PARTS * PRICE, "/broken": PRICE}
_CHOICE = ["/page"] * 16 + ["/dear"] * 2 + ["/metered"] + ["/broken"]


class Fate(StrEnum):
    """What became of an errand."""

    UNDER_WAY = "under way"
    SERVED = "served"
    FAILED = "failed"
    GIVEN_UP = "given up"


@dataclass(slots=True)
class Purse:
    """A channel from the payer's side. ``committed`` is what all errands cost that were or may have
    been charged; ``signed`` the highest voucher that was ever sent.
    """

    channel: Channel
    channel_id: ChannelId
    signer: VoucherSigner
    source: Source
    opened_by: bytes
    committed: int = 0
    signed: int = 0
    receipt: Receipt | None = None

    def voucher(self, cumulative: int) -> Voucher:
        return self.signer.sign(self.channel_id, cumulative)

    def payload(self, cumulative: int) -> Payload:
        """An open until the site has answered once: it may have been killed before it knew the
        channel.
        """
        voucher = self.voucher(cumulative)
        if self.receipt is not None:
            return VoucherPayload(voucher)
        return OpenPayload(
            self.opened_by, self.channel.salt, self.channel.authorized_signer, voucher
        )


@dataclass(slots=True)
class Errand:
    """One thing to buy with one Idempotency-Key, in as many attempts as it takes. ``lost`` counts
    attempts without a whole answer, ``unavailable`` those answered with 503.
    """

    purse: Purse
    path: str
    key: str
    price: int
    cumulative: int
    fate: Fate = Fate.UNDER_WAY
    lost: int = 0
    unavailable: int = 0
    failed_in_outage: bool = False


@dataclass(slots=True)
class Crowd:
    """``in_flight`` clients that share the purses. ``faults`` are answers that no site may give;
    ``outage`` is set while the books cannot be written.
    """

    port: int
    purses: list[Purse]
    in_flight: int
    seed: str
    errands: list[Errand] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    served: int = 0
    outage: bool = False
    _offers: dict[str, Challenge] = field(default_factory=dict)
    _heard: asyncio.Event = field(default_factory=asyncio.Event)
    _going_home: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        self._going_home = False
        self._tasks = [asyncio.create_task(self._client(n)) for n in range(self.in_flight)]

    async def go_home(self) -> None:
        """Let every client finish the errand it is on. Raises what a client raised."""
        self._going_home = True
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def hear(self, seconds: float) -> None:
        """Wait until the site serves anybody, or there is a fault. Raises :class:`TimeoutError`."""
        self._heard.clear()
        if not self.faults:
            async with asyncio.timeout(seconds):
                await self._heard.wait()

    async def buy(self, purse: Purse, path: str = "/page") -> Errand:
        """One more errand on this channel, from here on."""
        line = Line(self.port)
        rng = random.Random(f"{self.seed} {purse.channel_id.hex()}")  # noqa: S311  not a secret
        errand = self._errand(purse, path, rng)
        try:
            await self._run(errand, line, None)
        finally:
            line.close()
        return errand

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")  # noqa: S311  not a secret
        line = Line(self.port)
        try:
            while not self._going_home and not self.faults:
                errand = self._errand(rng.choice(self.purses), rng.choice(_CHOICE), rng)
                await self._run(errand, line, rng)
        finally:
            line.close()

    def _errand(self, purse: Purse, path: str, rng: random.Random) -> Errand:
        price = COSTS[path]
        purse.committed += price
        purse.signed = max(purse.signed, purse.committed)
        key = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        errand = Errand(purse, path, key, price, purse.signed)
        self.errands.append(errand)
        return errand

    async def _run(self, errand: Errand, line: Line, rng: random.Random | None) -> None:
        """Ask until there is an answer, or the client has had enough; never without a ``rng``."""
        while errand.fate is Fate.UNDER_WAY and not self.faults:
            try:
                answer = await line.exchange(await self._request(errand, line))
            except NoAnswer:
                errand.lost += 1
            except TimeoutError:
                self._fault(errand, "got no answer, on a connection that stands")
                return
            else:
                self._hear(errand, answer)
                if answer.status != 503:
                    continue
                await asyncio.sleep(PAUSE_SECONDS)
            if rng is not None and rng.random() < GIVE_UP:
                errand.fate = Fate.GIVEN_UP

    async def _request(self, errand: Errand, line: Line) -> bytes:
        offer = self._offers.get(errand.path)
        if offer is None:
            answer = await line.exchange(head("GET", errand.path))
            (offer,) = parse_challenges([answer.headers.get("www-authenticate", "")])
            self._offers[errand.path] = offer
        payload = errand.purse.payload(errand.cumulative)
        credential = Credential(offer, payload, errand.purse.source).to_header()
        return head("GET", errand.path, Authorization=credential, Idempotency_Key=errand.key)

    def _hear(self, errand: Errand, answer: Answer) -> None:
        self.answers[answer.status] += 1
        if answer.status == 200:
            self._take(errand, answer)
        elif answer.status == 503 and "retry-after" in answer.headers:
            errand.unavailable += 1
            # A part of it may be charged already.
            errand.failed_in_outage = self.outage and errand.path == "/metered"
        elif answer.status == 500 and errand.path == "/broken":
            self._take_back(errand)
        elif answer.status == 402 and json.loads(answer.body)["code"] == "payment-expired":
            self._offers.clear()
        else:
            self._fault(errand, f"got {answer.status}: {answer.body[:400]!r}")

    def _take(self, errand: Errand, answer: Answer) -> None:
        receipt = Receipt.parse(answer.headers.get("payment-receipt", ""))
        whole = b"a part\n" * PARTS if errand.path == "/metered" else b"a page"
        if answer.body != whole or receipt.channel_id != errand.purse.channel_id:
            self._fault(errand, f"got {answer.body!r} and a receipt of {receipt}")
        if receipt.accepted < errand.cumulative:
            self._fault(errand, f"got a receipt of {receipt.accepted} accepted")
        errand.fate = Fate.SERVED
        errand.purse.receipt = receipt
        self.served += 1
        self._heard.set()

    def _take_back(self, errand: Errand) -> None:
        """The site failed, and gave the charge back; unless another attempt was lost, which it may
        have been kept for, or the books cannot be written now.
        """
        errand.fate = Fate.FAILED
        errand.failed_in_outage = self.outage
        if not errand.lost and not errand.unavailable and not self.outage:
            errand.purse.committed -= errand.price

    def _fault(self, errand: Errand, what: str) -> None:
        self.faults.append(f"{describe(errand)} {what}")
        self._heard.set()


def describe(errand: Errand) -> str:
    """For a report."""
    return (
        f"{errand.path} with key {errand.key} and {errand.cumulative} on channel"
        f" {errand.purse.channel_id.hex()[:8]} ({errand.fate}, {errand.lost} lost,"
        f" {errand.unavailable} unavailable)"
    )


def head(method: str, path: str, **headers: str) -> bytes:
    """A request without a body; underscores in names stand for hyphens."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()
