"""Many requests at once on the same books, in any order, with answers lost and requests failing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import BudgetExceeded
from channelpay.payer.limits import Limits
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.types import NATIVE
from tests.payer.site import Ground, Site

PRICES = {f"https://site.example/{price}": price for price in (1, 2, 5)}
DEPOSIT_MAX = 40
TOTAL_MAX = 60

events = st.lists(
    st.tuples(
        st.sampled_from(["begin", "deliver", "deliver", "answer", "answer", "fail", "lose"]),
        st.integers(0, 5),
        st.sampled_from(sorted(PRICES)),
    ),
    max_size=60,
)


class InFlight:
    """One session: between its request and the site, or between the answer and it."""

    def __init__(self, url: str, steps: Generator[Step, Any, Any], step: Step) -> None:
        self.url = url
        self.steps = steps
        self.step = step
        self.answer: Answer | None = None


class World:
    """Sessions that are under way, and the invariants that hold after every event."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(dict(PRICES))
        limits = Limits(NATIVE, 5, DEPOSIT_MAX, deposit=20, top_up=10, total_max=TOTAL_MAX)
        self.ground = Ground(folder, self.site, limits)
        self.under_way: list[InFlight] = []
        self.signed: Counter[bytes] = Counter()
        self.costs = 0
        self.lost = False
        self.ground.open(deposit=20)

    def begin(self, url: str) -> None:
        steps = self.ground.session(url).run()
        self._advance(InFlight(url, steps, next(steps)), None, first=True)

    def _advance(self, session: InFlight, result: Answer | None, *, first: bool = False) -> None:
        """Run a session up to its next request; transactions are confirmed at once."""
        try:
            if not first:
                session.step = session.steps.send(result)
            while not isinstance(session.step, Send):
                self.ground.perform(session.step)
                session.step = session.steps.send(None)
        except StopIteration as end:
            self.costs += end.value.cost if end.value else 0
            return
        except BudgetExceeded:
            return
        session.answer = None
        self.under_way.append(session)

    def apply(self, event: str, index: int, url: str) -> None:
        if event == "begin" or not self.under_way:
            self.begin(url)
            return
        session = self.under_way[index % len(self.under_way)]
        if event in {"deliver", "fail"} and session.answer is None:
            assert isinstance(session.step, Send)
            self.site.failing = event == "fail"
            session.answer = self.site.answer(session.url, session.step)
            self.site.failing = False
        elif event == "answer" and session.answer is not None:
            self.under_way.remove(session)
            self._advance(session, session.answer)
        elif event == "lose":
            self.lost = True
            self.under_way.remove(session)
            session.steps.close()

    def check(self) -> None:
        entries = self.ground.state.channels(self.ground.payer)
        for entry in entries:
            assert entry.signed >= self.signed[entry.channel_id], "signed never shrinks"
            self.signed[entry.channel_id] = entry.signed
            assert self.site.highest.get(entry.channel_id, 0) <= entry.signed, "never unrecorded"
            assert entry.spent <= entry.signed <= entry.deposit <= DEPOSIT_MAX
        assert sum(entry.signed for entry in entries) <= TOTAL_MAX

    def finish(self) -> None:
        while self.under_way:
            session = self.under_way.pop(0)
            assert isinstance(session.step, Send)
            answer = session.answer or self.site.answer(session.url, session.step)
            self._advance(session, answer)
            self.check()


@given(events)
def test_parallel_requests_keep_the_books_whatever_fails(steps: list[tuple[str, int, str]]) -> None:
    with TemporaryDirectory() as folder:
        world = World(Path(folder))
        for event, index, url in steps:
            world.apply(event, index, url)
            world.check()
        world.finish()
        (entry, *_) = world.ground.state.channels(world.ground.payer)
        assert entry.in_flight == 0
        record = world.site.records.get(entry.channel_id)
        if record is not None and not world.lost:
            assert entry.spent == record.spent == world.costs, "both sides agree"
        world.ground.state.close()


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_parallel_requests_that_all_fit_are_all_served_at_the_first_attempt(
    arrivals: list[int], answers: list[int]
) -> None:
    """Six requests of price 1 over a deposit of exactly what they cost, with one paid before."""
    with TemporaryDirectory() as folder:
        site = Site()
        ground = Ground(Path(folder), site, Limits(NATIVE, price_max=1))
        ground.open(deposit=7)
        ground.pay()
        sessions = [ground.session().run() for _ in range(6)]
        requests = [next(session) for session in sessions]
        responses: dict[int, Answer] = {}
        for index in arrivals:
            request = requests[index]
            assert isinstance(request, Send)
            responses[index] = site.answer("https://site.example/page", request)
        assert {answer.status for answer in responses.values()} == {200}
        total = 0
        for index in answers:
            try:
                sessions[index].send(responses[index])
            except StopIteration as end:
                total += end.value.cost
        (entry,) = ground.state.channels(ground.payer)
        assert (total, entry.spent, entry.signed) == (6, 7, 7)
        ground.state.close()
