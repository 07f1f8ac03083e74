"""A payee for session tests: the real rules and wire format, no server and no chain.

:class:`Site` answers the steps of a session; :class:`Ground` is what a payer stands on: its books,
its terms, and a chain that opens channels at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from channelpay.errors import (
    ChannelFinalized,
    ChannelNotFound,
    ChannelPayError,
    PaymentRequired,
    PriceRaised,
)
from channelpay.payer.limits import Limits
from channelpay.payer.offers import Terms
from channelpay.payer.records import PayerChannel, Sign, TopUp
from channelpay.payer.session import PaymentSession
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Add, Answer, Open, Send, Step, Wait
from channelpay.protocol.eip712 import VoucherHasher, VoucherSigner
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.proofs import proof_place
from channelpay.protocol.rules import (
    ChannelRecord,
    Charge,
    Payment,
    Purchase,
    decide,
    decide_charge,
    enter_chain,
    release,
)
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.protocol.wire import (
    ChallengeIssuer,
    Credential,
    OpenPayload,
    Receipt,
    SessionRequest,
    TopUpPayload,
    VoucherPayload,
)

KEY = bytes(31) + b"\x01"
DEPLOYMENT = Deployment(31337, Address(b"\xcc" * 20))
PAYEE_KEY = bytes(31) + b"\x02"
PAYEE = VoucherSigner(DEPLOYMENT, PAYEE_KEY).address
URL = "https://site.example/page"
NOW = 1_800_000_000.0


class Site:
    """A payee of prices by URL; ``default_price`` elsewhere, None for free."""

    def __init__(self, prices: dict[str, int | None] | None = None, default_price: int = 1) -> None:
        self.prices = prices or {}
        self.default_price = default_price
        self.suggested_deposit: int | None = 100
        self.request_fields: dict[str, Any] = {}
        self.issuer = ChallengeIssuer(b"s" * 32, "site")
        self.hasher = VoucherHasher(DEPLOYMENT)
        self.records: dict[ChannelId, ChannelRecord] = {}
        self.payments: dict[tuple[ChannelId, str], Payment] = {}
        self.highest: dict[ChannelId, int] = {}
        self.confirmed_deposits: dict[ChannelId, int] = {}
        self.requests = 0
        self.failing = False
        self.metered = False
        self.media_type = "text/html"
        self.scripted: list[Answer] = []

    def price(self, url: str) -> int | None:
        return self.prices.get(url, self.default_price)

    def answer(self, url: str, step: Send) -> Answer:
        """What the site does with one request."""
        self.requests += 1
        if self.scripted:
            return self.scripted.pop(0)
        price = self.price(url)
        if price is None:
            return Answer(200, url)
        try:
            return self._served(url, step, price)
        except ChannelPayError as error:
            return self.refusal(url, error)

    def refusal(self, url: str, error: ChannelPayError) -> Answer:
        return Answer(
            error.status,
            url,
            challenges=(self.challenge(self.price(url) or 0),) if error.status != 503 else (),
            retry_after="2" if error.code == "too-few-confirmations" else None,
            problem=dict(error.as_problem()),
        )

    def challenge(self, amount: int) -> str:
        fields: dict[str, Any] = {
            "amount": amount,
            "currency": NATIVE,
            "recipient": PAYEE,
            "deployment": DEPLOYMENT,
            "suggested_deposit": self.suggested_deposit,
        }
        request = SessionRequest(**(fields | self.request_fields))
        return self.issuer.issue(request, NOW + 600).to_header()

    def _served(self, url: str, step: Send, price: int) -> Answer:
        if "Authorization" not in step.headers:
            raise PaymentRequired
        credential = Credential.parse(step.headers["Authorization"])
        offered = self.issuer.check(credential.challenge, NOW)
        payload = credential.payload
        if isinstance(payload, TopUpPayload):
            return self._topped_up(url, payload)
        if price > offered.amount:
            raise PriceRaised
        if isinstance(payload, OpenPayload):
            assert credential.source is not None
            self._enter(payload, credential.source.payer)
        assert isinstance(payload, OpenPayload | VoucherPayload)
        return self._charge(url, step, price, payload.voucher.channel_id, credential)

    def _enter(self, payload: OpenPayload, payer: Address) -> None:
        channel = Channel(payer, PAYEE, NATIVE, payload.authorized_signer, payload.salt)
        channel_id = channel.id(DEPLOYMENT)
        assert channel_id == payload.voucher.channel_id
        if channel_id not in self.confirmed_deposits:
            raise ChannelNotFound
        state = ChannelState(ChannelStatus.OPEN, self.confirmed_deposits[channel_id])
        self.records.setdefault(channel_id, ChannelRecord(channel_id, channel, state))

    def _topped_up(self, url: str, payload: TopUpPayload) -> Answer:
        record = self.record(payload.channel_id)
        deposit = self.confirmed_deposits[payload.channel_id]
        self.records[payload.channel_id] = replace(
            record, chain=replace(record.chain, deposit=deposit)
        )
        return Answer(204, url)

    def _charge(
        self, url: str, step: Send, price: int, channel_id: ChannelId, credential: Credential
    ) -> Answer:
        record = self.record(channel_id)
        payload = credential.payload
        assert isinstance(payload, OpenPayload | VoucherPayload)
        voucher = payload.voucher
        self.hasher.check(voucher, record.channel.signer)
        raised = voucher.cumulative_amount - record.accepted
        assert raised <= 0 or raised >= self.request_fields.get("min_voucher_delta", 0)
        self.highest[channel_id] = max(self.highest.get(channel_id, 0), voucher.cumulative_amount)
        if step.bare:  # With HEAD: a voucher, and nothing to serve.
            price, key = 0, ""
        else:
            key = step.headers["Idempotency-Key"]
        decision = decide(
            record,
            Purchase(
                voucher,
                price,
                url,
                int(NOW * 1000),
                key or None,
                self.metered,
                is_proven=self._is_proven(step, record, credential),
            ),
            self.payments.get((channel_id, key)),
        )
        self.records[channel_id] = decision.record
        if decision.payment is not None:
            self.payments[channel_id, key] = decision.payment
        if self.failing:
            if decision.payment is not None:
                self.records[channel_id], _ = release(decision.record, decision.payment, 1)
            return Answer(500, url)
        receipt = self.receipt(channel_id).to_header()
        media_type = None if step.bare else self.media_type
        return Answer(200, url, receipt=receipt, media_type=media_type)

    def _is_proven(self, step: Send, record: ChannelRecord, credential: Credential) -> bool:
        if PROOF not in step.headers:
            return False
        place = proof_place(record.channel_id, credential.challenge.id)
        proof = bytes.fromhex(step.headers[PROOF][2:])
        self.hasher.check(Voucher(place, 0, proof), record.channel.signer)
        return True

    def settle(self) -> None:
        """Take all that was promised: the vouchers of all channels are on the chain."""
        for channel_id, record in self.records.items():
            state = replace(record.chain, settled=record.accepted)
            self.records[channel_id] = enter_chain(record, state, int(NOW * 1000))

    def receipt(self, channel_id: ChannelId) -> Receipt:
        record = self.records[channel_id]
        return Receipt(
            channel_id, DEPLOYMENT.chain_id, "challenge", record.accepted, record.spent, NOW
        )

    def charge(self, channel_id: ChannelId, key: str, total: int) -> None:
        """Charge a metered response up to ``total``, as the payee's store does."""
        record, payment = self.records[channel_id], self.payments[channel_id, key]
        decision = decide_charge(record, Charge(channel_id, 1, total), payment)
        assert decision.updated is not None
        self.records[channel_id] = decision.record
        self.payments[channel_id, key] = decision.updated

    def record(self, channel_id: ChannelId) -> ChannelRecord:
        record = self.records.get(channel_id)
        if record is None:
            raise ChannelNotFound
        if record.chain.status is ChannelStatus.FINALIZED:
            raise ChannelFinalized
        return record


@dataclass
class Clock:
    """A clock that only tests move."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def signing(signer: VoucherSigner) -> Sign:
    """Vouchers of any channel by this key."""
    return lambda entry, amount: signer.sign(entry.channel_id, amount)


class Ground:
    """A payer's books and terms, and a chain on which its transactions are confirmed at once."""

    def __init__(self, folder: Path, site: Site, limits: Limits | None = None) -> None:
        self.site = site
        self.clock = Clock()
        self.state = PayerState(folder / "payer.sqlite3", self.clock)
        self.signer = VoucherSigner(DEPLOYMENT, KEY)
        self.signed: list[tuple[ChannelId, int]] = []
        self.opened = 0
        self.limits = limits or Limits(NATIVE, price_max=10, deposit_max=100)
        self.chain_id = DEPLOYMENT.chain_id

    @property
    def payer(self) -> Address:
        return self.signer.address

    def terms(self, **changes: Any) -> Terms:
        fields: dict[str, Any] = {
            "payer": self.payer,
            "contract": DEPLOYMENT.contract,
            "limits": {self.limits.token: self.limits},
            "sign": self._sign,
            "can_sign": lambda _: True,
            "chain_id": lambda: self.chain_id,
        }
        return Terms(**(fields | changes))

    def _sign(self, entry: PayerChannel, amount: int) -> Any:
        assert entry.deployment == DEPLOYMENT
        if entry.channel.id(entry.deployment) == entry.channel_id:  # Else it proves the key.
            self.signed.append((entry.channel_id, amount))
        return self.signer.sign(entry.channel_id, amount)

    def session(self, url: str = URL, **changes: Any) -> PaymentSession:
        return PaymentSession(self.terms(**changes), self.state, url, clock=self.clock)

    def open(self, deposit: int = 100, payee: Address = PAYEE) -> PayerChannel:
        """A confirmed channel."""
        planned = self._planned(deposit, payee)
        assert self.state.begin_open(planned)
        return self._confirm(planned)

    def _planned(self, deposit: int, payee: Address) -> PayerChannel:
        self.opened += 1
        salt = self.opened.to_bytes(28, "big") + bytes(4)
        channel = Channel(self.payer, payee, NATIVE, ZERO_ADDRESS, salt)
        return PayerChannel.planned(DEPLOYMENT, channel, deposit, None, 0)

    def _confirm(self, planned: PayerChannel) -> PayerChannel:
        channel_id = planned.channel_id
        self.site.confirmed_deposits[channel_id] = planned.deposit
        self.state.record_open_transaction(channel_id, b"\x0a" * 32)
        opened = ChannelState(ChannelStatus.OPEN, planned.deposit)
        self.state.record_chain_state(channel_id, opened)
        self.state.drop_funding(channel_id, None)
        return self.state.channel(channel_id)

    def perform(self, step: Step) -> None:
        if isinstance(step, Open):
            planned = self._planned(step.deposit, PAYEE)
            if self.state.begin_open(planned, unless_usable=lambda _: True):
                self._confirm(planned)
        elif isinstance(step, Add):
            self.top_up(step.channel_id, step.amount)
        elif isinstance(step, Wait):
            self.clock.now += step.seconds

    def top_up(self, channel_id: ChannelId, amount: int) -> None:
        held = self.state.channel(channel_id).deposit
        assert self.state.begin_top_up(channel_id, held)
        deposit = held + amount
        self.site.confirmed_deposits[channel_id] = deposit
        count = len(self.state.unpresented_top_ups(channel_id))
        transaction_hash = channel_id[:28] + deposit.to_bytes(3, "big") + bytes([count])
        self.state.record_top_up(TopUp(channel_id, transaction_hash, amount), deposit)
        self.state.drop_funding(channel_id, None)

    def pay(self, url: str = URL, **changes: Any) -> tuple[Answer, Any]:
        """Drive one session to its end."""
        return self.drive(self.session(url, **changes).run(), url)

    def drive(
        self,
        steps: Generator[Step, Any, Any],
        url: str,
        watch: Callable[[Step], None] = lambda step: None,
    ) -> tuple[Answer, Any]:
        answer: Answer | None = None
        result: Answer | None = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as end:
                assert answer is not None
                return answer, end.value
            watch(step)
            result = None
            if isinstance(step, Send):
                answer = result = self.site.answer(url, step)
            else:
                self.perform(step)


def refused(status: int, code: str, **members: Any) -> Answer:
    """A refusal that no payee of ours would make up."""
    return Answer(status, URL, problem={"code": code, **members})
