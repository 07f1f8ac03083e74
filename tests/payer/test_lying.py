"""A payee that lies in every answer: it never gets more than the limits of what is under way, of
what ended without a receipt, and what its receipts said. One that is honest is paid whatever got
lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from channelpay.errors import ChannelPayError
from channelpay.payer.backup import back_up
from channelpay.payer.limits import Limits
from channelpay.payer.metering import MeteredResponse
from channelpay.payer.offers import Allowed
from channelpay.payer.promises import RESERVATION_SECONDS_MAX
from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Paid, Send, Step
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.sse import NeedVoucher, need_voucher_event, receipt_event
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE
from channelpay.protocol.wire import Receipt
from tests.payer.selling import Reading
from tests.payer.site import DEPLOYMENT, NOW, URL, Ground, Site

PRICE_MAX = 10
METERED_MAX = 64
DEPOSIT = 100_000
STRANGER = VoucherSigner(DEPLOYMENT, bytes(31) + b"\x02")

claims = st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.0, 1.0, 1.1])
"""What is claimed to be spent, as a part of what was signed."""


@dataclass
class Request:
    """A request that waits for an answer, and the most that its offers allow it to cost."""

    url: str
    steps: Generator[Step, Any, Any]
    limit: int = 0


@dataclass
class Stream:
    metered: MeteredResponse
    limit: int


HERE = Allowed(origins=frozenset({URL}))
"""Streams are read at another place, which this one is trusted beside."""


class LyingPayee(RuleBasedStateMachine):
    """``ended`` sums the limits of what ended without a receipt, ``costs`` what receipts said, both
    since the books were restored last. ``base`` is what may have been signed before that.
    """

    requests: list[Request]
    streams: list[Stream]

    @initialize(
        total_max=st.none() | st.integers(20, 300),
        delta=st.sampled_from([0, 0, 0, 7]),
    )
    def begin(self, total_max: int | None, delta: int) -> None:
        self.folder = TemporaryDirectory()
        self.site = Site(default_price=PRICE_MAX)
        self.delta, self.total_max = delta, total_max
        limits = Limits(
            NATIVE, PRICE_MAX, total_max=total_max, metered_max=METERED_MAX, ahead=METERED_MAX // 4
        )
        self.ground = Ground(Path(self.folder.name), self.site, limits)
        self.ground.open(DEPOSIT)
        self.name = "payer.sqlite3"
        self.requests, self.streams = [], []
        self.dead: list[Request] = []
        self.states = [self.ground.state]
        self.copies: list[Path] = []
        self.asked = self.costs = self.ended = self.highest = self.base = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for request in [*self.requests, *self.dead]:
                request.steps.close()
            for state in self.states:
                state.close()
            self.folder.cleanup()

    # --- what the payer sees -----------------------------------------------------------------

    @property
    def entry(self) -> PayerChannel:
        (entry,) = self.ground.state.channels(self.ground.payer)
        return entry

    def challenge(self, price: int, *, metered: bool) -> str:
        self.site.request_fields = {"min_voucher_delta": self.delta}
        if metered:
            self.site.request_fields["unit_type"] = "token"
        return self.site.challenge(price)

    def claim(self, part: float) -> int:
        return int(self.entry.signed * part)

    def receipt(self, part: float) -> Receipt:
        entry, spent = self.entry, self.claim(part)
        accepted = max(entry.signed, spent)
        chain_id = DEPLOYMENT.chain_id
        return Receipt(entry.channel_id, chain_id, "challenge", accepted, spent, NOW)

    # --- requests ----------------------------------------------------------------------------

    @rule(price=st.integers(1, PRICE_MAX), metered=st.booleans())
    def ask(self, price: int, metered: bool) -> None:
        """A site of its own each time, so that every request learns its price."""
        self.asked += 1
        url = f"https://site{self.asked}.example/"
        trusted = Allowed(origins=frozenset({url}))
        request = Request(url, self.ground.session(url, allowed=trusted).run())
        assert next(request.steps) == Send({})
        self.requests.append(request)
        self.offer(request, price, metered, {})

    def offer(self, request: Request, price: int, metered: bool, problem: dict[str, Any]) -> None:
        limit = METERED_MAX if metered else max(price, self.delta)
        request.limit = max(request.limit, limit)
        challenge = self.challenge(price, metered=metered)
        self.send(request, Answer(402, request.url, challenges=(challenge,), problem=problem))

    def send(self, request: Request, answer: Answer) -> None:
        result: Answer | None = answer
        try:
            while not isinstance(step := request.steps.send(result), Send):
                self.ground.perform(step)
                result = None
        except ChannelPayError:
            self.end(request, None)
        except StopIteration as end:
            self.end(request, end.value)
        self.check()

    def end(self, request: Request, result: Paid | MeteredResponse | None) -> None:
        self.requests.remove(request)
        if isinstance(result, MeteredResponse):
            self.streams.append(Stream(result, request.limit))
        elif result is None:
            self.ended += request.limit
        else:
            assert result.cost <= request.limit
            self.costs += result.cost

    def request(self, index: int) -> Request:
        return self.requests[index % len(self.requests)]

    @precondition(lambda self: self.requests)
    @rule(
        index=st.integers(0, 40),
        part=claims,
        price=st.integers(1, PRICE_MAX),
        metered=st.booleans(),
        more=st.integers(1, METERED_MAX),
    )
    def refuse(self, index: int, part: float, price: int, metered: bool, more: int) -> None:
        spent = self.claim(part)
        self.refuse_as(self.request(index), spent, more, price, metered, {})

    def refuse_as(
        self,
        request: Request,
        spent: int,
        more: int,
        price: int,
        metered: bool,
        claims: dict[str, Any],
    ) -> None:
        problem = {"code": "insufficient-balance", "spent": str(spent)} | claims
        required = str(spent + more)
        self.offer(request, price, metered, problem | {"requiredCumulative": required})

    @precondition(lambda self: self.requests)
    @rule(
        index=st.integers(0, 40),
        proof=st.integers(0, 1000),
        forged=st.booleans(),
        part=claims,
        price=st.integers(1, PRICE_MAX),
        metered=st.booleans(),
    )
    def refuse_with_a_proof(
        self, index: int, proof: int, forged: bool, part: float, price: int, metered: bool
    ) -> None:
        """With any voucher that was ever signed; or with one that was not."""
        signed = self.ground.signed
        amount = signed[proof % len(signed)][1] if signed else 0
        signer = STRANGER if forged else self.ground.signer
        shown = amount + 1000 if forged else amount
        signature = to_hex(signer.sign(self.entry.channel_id, shown).signature)
        members = {"acceptedCumulative": str(shown), "acceptedSignature": signature}
        request = self.request(index)
        self.refuse_as(request, int(shown * part), 1, price, metered, members)

    @precondition(lambda self: self.requests)
    @rule(part=claims)
    def refuse_all(self, part: float) -> None:
        for request in list(self.requests):
            self.refuse(self.requests.index(request), part, PRICE_MAX, False, 1)

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 40), price=st.integers(1, PRICE_MAX), metered=st.booleans())
    def offer_anew(self, index: int, price: int, metered: bool) -> None:
        self.offer(self.request(index), price, metered, {"code": "invalid-challenge"})

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 40), part=claims, stream=st.booleans())
    def serve(self, index: int, part: float, stream: bool) -> None:
        request = self.request(index)
        receipt = self.receipt(part).to_header()
        media_type = "text/event-stream" if stream else "text/html"
        self.send(request, Answer(200, request.url, receipt=receipt, media_type=media_type))

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 40), status=st.sampled_from([200, 404, 500]))
    def give_no_receipt(self, index: int, status: int) -> None:
        request = self.request(index)
        self.send(request, Answer(status, request.url))

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 40))
    def lose(self, index: int) -> None:
        request = self.request(index)
        request.steps.close()
        self.end(request, None)

    # --- streams -----------------------------------------------------------------------------

    @precondition(lambda self: self.streams)
    @rule(index=st.integers(0, 9), more=st.integers(1, METERED_MAX), lack=st.integers(1, 20))
    def need(self, index: int, more: int, lack: int) -> None:
        metered = self.streams[index % len(self.streams)].metered
        entry = self.entry
        required = entry.signed + more
        need = NeedVoucher(entry.channel_id, required, max(0, required - lack), entry.deposit)
        with suppress(ChannelPayError):
            for part in metered.read(need_voucher_event(need)):
                if isinstance(part, NeedVoucher):
                    self.voucher(metered.answer(part))

    def voucher(self, steps: Generator[Step, Any, None]) -> None:
        result: Answer | None = None
        with suppress(StopIteration):
            while True:
                step = steps.send(result)
                assert isinstance(step, Send)
                result = Answer(204, URL)

    @precondition(lambda self: self.streams)
    @rule(index=st.integers(0, 9), part=st.none() | claims)
    def end_stream(self, index: int, part: float | None) -> None:
        stream = self.streams.pop(index % len(self.streams))
        if part is not None:
            for _ in stream.metered.read(receipt_event(self.receipt(part))):
                pass
        paid = stream.metered.settle()
        if paid.receipt is None:
            self.ended += stream.limit
        else:
            self.costs += paid.cost

    # --- the payer's own troubles ------------------------------------------------------------

    @rule()
    def wait_until_reservations_lapse(self) -> None:
        self.ground.clock.now += RESERVATION_SECONDS_MAX + 1

    @rule()
    def restart(self) -> None:
        """What was under way is forgotten, as after a kill."""
        self.ended += self.limits_under_way()
        self.dead += self.requests
        self.requests, self.streams = [], []
        path = Path(self.folder.name) / self.name
        self.ground.state = PayerState(path, self.ground.clock)
        self.states.append(self.ground.state)

    @rule()
    def back_up(self) -> None:
        copy = Path(self.folder.name) / f"copy-{len(self.copies)}.sqlite3"
        back_up(Path(self.folder.name) / self.name, copy)
        self.copies.append(copy)

    @precondition(lambda self: self.copies)
    @rule(index=st.integers(0, 9))
    def restore(self, index: int) -> None:
        """The payer goes on with an old copy, and knows nothing of what was signed since."""
        self.base = self.highest + self.delta
        self.costs = self.ended = 0
        self.dead += self.requests
        self.requests, self.streams = [], []
        self.name = f"restored-{len(self.states)}.sqlite3"
        path = Path(self.folder.name) / self.name
        back_up(self.copies[index % len(self.copies)], path)
        self.ground.state = PayerState(path, self.ground.clock)
        self.states.append(self.ground.state)

    # --- the rule ----------------------------------------------------------------------------

    def limits_under_way(self) -> int:
        requests = sum(request.limit for request in self.requests)
        return requests + sum(stream.limit for stream in self.streams)

    @invariant()
    def check(self) -> None:
        if not hasattr(self, "folder"):
            return
        now = self.base + self.costs + self.ended + self.limits_under_way()
        self.highest = max(self.highest, now)
        entry = self.entry
        assert entry.signed <= self.highest + self.delta
        assert entry.spent <= entry.signed <= entry.deposit
        if self.total_max is not None:
            assert entry.signed <= self.total_max


TestLyingPayee = LyingPayee.TestCase
TestLyingPayee.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# --- an honest payee -------------------------------------------------------------------------


class Trouble:
    """One payer and one honest payee, and what goes wrong between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = Site(default_price=3)
        self.ground = Ground(folder, self.site, Limits(NATIVE, 10, metered_max=200, ahead=20))
        self.ground.open(DEPOSIT)
        self.dead: list[Any] = []
        self.states = [self.ground.state]

    def close(self) -> None:
        for steps in self.dead:
            steps.close()
        for state in self.states:
            state.close()

    def _charged(self) -> Generator[Step, Any, Any]:
        """A request that the site has served, and whose answer is on its way."""
        steps = self.ground.session(allowed=HERE).run()
        step = next(steps)
        assert isinstance(step, Send)
        answer = self.site.answer(URL, step)
        if answer.status == 402 and "Authorization" not in step.headers:
            step = steps.send(answer)
            assert isinstance(step, Send)
            self.site.answer(URL, step)
        return steps

    def lost_answer(self) -> None:
        self._charged().close()

    def killed(self) -> None:
        self.dead.append(self._charged())
        self.ground.state = PayerState(self.folder / "payer.sqlite3", self.ground.clock)
        self.states.append(self.ground.state)

    def killed_long_ago(self) -> None:
        self.killed()
        self.ground.clock.now += RESERVATION_SECONDS_MAX + 1

    def released_charge(self) -> None:
        self.site.failing = True
        assert self.ground.pay(allowed=HERE)[0].status == 500
        self.site.failing = False

    def lost_books(self) -> None:
        self.site.records.clear()
        self.site.payments.clear()

    def paid(self) -> None:
        answer, _ = self.ground.pay(allowed=HERE)
        assert answer.status == 200

    def broken_stream(self) -> None:
        self._stream(settled_after=5)

    def read_stream(self) -> None:
        self._stream(settled_after=1_000)

    def _stream(self, settled_after: int) -> None:
        site = self.site
        site.metered, site.media_type = True, "text/event-stream"
        site.default_price, site.request_fields = 1, {"unit_type": "token"}
        # An origin of its own: prices are remembered by origin.
        reading = Reading(self.ground, [1] * 60, "https://streams.example/")
        for _ in range(settled_after):
            if reading.selling.is_over:
                break
            reading.read(reading.selling.content(10))
        reading.metered.settle()
        site.metered, site.media_type = False, "text/html"
        site.default_price, site.request_fields = 3, {}


TROUBLES = [
    Trouble.lost_answer,
    Trouble.killed,
    Trouble.killed_long_ago,
    Trouble.released_charge,
    Trouble.lost_books,
    Trouble.broken_stream,
    Trouble.read_stream,
    Trouble.paid,
]


@given(st.lists(st.sampled_from(TROUBLES), max_size=12))
@settings(max_examples=60, deadline=None)
def test_an_honest_payee_is_paid_at_once_whatever_went_wrong(
    troubles: list[Callable[[Trouble], None]],
) -> None:
    with TemporaryDirectory() as folder:
        world = Trouble(Path(folder))
        try:
            for trouble in [*troubles, Trouble.paid, Trouble.paid]:
                trouble(world)
        finally:
            world.close()


# --- what was seen ---------------------------------------------------------------------------


def test_parallel_requests_that_are_all_refused_are_promised_their_prices_alone() -> None:
    machine = LyingPayee()
    machine.begin(total_max=None, delta=0)
    for _ in range(32):
        machine.ask(PRICE_MAX, False)
    machine.refuse_all(1.0)
    assert machine.entry.signed == 32 * PRICE_MAX
    machine.teardown()


def test_a_page_beside_a_stream_is_promised_its_price_and_not_the_streams_again() -> None:
    machine = LyingPayee()
    machine.begin(total_max=None, delta=0)
    machine.ask(1, True)
    machine.serve(0, 0.0, True)
    for _ in range(10):
        machine.need(0, 1, 1)
    for _ in range(4):
        machine.ask(PRICE_MAX, False)
        machine.refuse(0, 1.0, PRICE_MAX, False, 1)
        machine.check()
    assert machine.entry.signed <= METERED_MAX + 4 * PRICE_MAX
    machine.teardown()
