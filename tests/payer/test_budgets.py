"""Budgets over many requests: no order of events gets past one, and no signature goes before a
question.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from channelpay.errors import BudgetExceeded, ConfigError
from channelpay.payer.budgets import Budget, LimitKind, Purse, Question
from channelpay.payer.limits import Limits
from channelpay.payer.offers import Allowed
from channelpay.payer.records import PayerChannel, Reservation
from channelpay.payer.spending import SECONDS_OF_DAY
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import NATIVE, Address, ChannelState, ChannelStatus
from tests.payer.selling import LIMITS as METERED
from tests.payer.selling import Reading, metered_site
from tests.payer.site import DEPLOYMENT, KEY, PAYEE, URL, Ground, Site, signing

SIGN = signing(VoucherSigner(DEPLOYMENT, KEY))
ORIGINS = ("https://one.example:443", "https://two.example:443")
ORIGIN_DAY_MAX, DAY_MAX, TOTAL_MAX = 12, 18, 45


def budget_of(origin: str) -> Budget:
    return Budget(origin, ORIGIN_DAY_MAX, DAY_MAX, TOTAL_MAX)


class Machine(RuleBasedStateMachine):
    """Two programs that share one file, and what they must never have promised in all."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.ground = Ground(Path(self.folder.name), Site())
        other = PayerState(Path(self.folder.name) / "payer.sqlite3", self.ground.clock)
        self.programs = (self.ground.state, other)
        self.channels = [
            self.ground.open(1000, payee).channel_id for payee in (PAYEE, Address(b"\x01" * 20))
        ]
        self.under_way: list[Reservation] = []
        self.promised: Counter[tuple[int, str]] = Counter()
        self.now_day = self.day

    @property
    def day(self) -> int:
        return int(self.ground.clock.now) // SECONDS_OF_DAY

    def entries(self) -> list[PayerChannel]:
        return self.ground.state.channels(self.ground.payer)

    @rule(program=st.integers(0, 1), channel=st.integers(0, 1), price=st.integers(1, 9))
    def begin(self, program: int, channel: int, price: int) -> None:
        self.reserve(self.programs[program], channel, price)

    @precondition(lambda self: self.under_way)
    @rule(program=st.integers(0, 1), price=st.integers(1, 9))
    def promise_more(self, program: int, price: int) -> None:
        """As a metered response goes on."""
        held = self.under_way[-1]
        channel = self.channels.index(held.channel_id)
        if self.reserve(self.programs[program], channel, price, instead_of=held):
            self.under_way.remove(held)

    def reserve(
        self, state: PayerState, channel: int, price: int, instead_of: Reservation | None = None
    ) -> bool:
        origin, channel_id = ORIGINS[channel], self.channels[channel]
        before = state.channel(channel_id, beside=instead_of)
        growth = before.next_cumulative(price) - before.signed
        budget = budget_of(origin)
        try:
            held = state.reserve(
                channel_id, price, SIGN, budget=budget, limit=1000, instead_of=instead_of
            )
        except BudgetExceeded as error:
            refusal = error
        else:
            self.promised[self.day, origin] += state.channel(channel_id).signed - before.signed
            self.under_way.append(held)
            return True
        has_room = growth <= min(self.left(origin))
        assert not has_room or "kind" not in refusal.context, "refused although there was room"
        assert state.channel(channel_id).signed == before.signed
        return False

    def left(self, origin: str) -> tuple[int, int, int]:
        today = sum(self.promised[self.day, one] for one in ORIGINS)
        ever = sum(entry.signed for entry in self.entries())
        at_origin = self.promised[self.day, origin]
        return ORIGIN_DAY_MAX - at_origin, DAY_MAX - today, TOTAL_MAX - ever

    @precondition(lambda self: self.under_way)
    @rule(program=st.integers(0, 1), index=st.integers(0, 20), claim=st.none() | st.integers(0, 60))
    def end(self, program: int, index: int, claim: int | None) -> None:
        """With a receipt, which may lie, or without."""
        held = self.under_way.pop(index % len(self.under_way))
        origin = ORIGINS[self.channels.index(held.channel_id)]
        if claim is None:
            self.programs[program].release(held)
        else:
            self.programs[program].settle(held, claim, f"{origin}/page")

    @rule(seconds=st.sampled_from([1, 700, SECONDS_OF_DAY]))
    def wait(self, seconds: int) -> None:
        self.ground.clock.now += seconds

    @invariant()
    def nothing_is_beyond_a_limit(self) -> None:
        assert all(amount <= ORIGIN_DAY_MAX for amount in self.promised.values())
        for day in {day for day, _ in self.promised}:
            assert sum(self.promised[day, origin] for origin in ORIGINS) <= DAY_MAX
        assert sum(entry.signed for entry in self.entries()) <= TOTAL_MAX

    @invariant()
    def both_programs_see_what_was_promised_today(self) -> None:
        purse = Purse.of(self.entries()[0])
        for state in self.programs:
            today = {one.origin: one.promised for one in state.spending_today(purse)}
            assert all(self.promised[self.day, one] == today.get(one, 0) for one in ORIGINS)

    def teardown(self) -> None:
        for state in self.programs:
            state.close()
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, max_examples=20, stateful_step_count=25)


# --- questions ----------------------------------------------------------------------------------

LIMITS = Limits(NATIVE, price_max=10, deposit_max=100)


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (replace(LIMITS, price_max=0), LimitKind.REQUEST),
        (replace(LIMITS, origin_day_max=0), LimitKind.ORIGIN_DAY),
        (replace(LIMITS, day_max=0), LimitKind.DAY),
        (replace(LIMITS, total_max=0), LimitKind.TOTAL),
    ],
    ids=["request", "origin-day", "day", "total"],
)
def test_beyond_a_limit_its_user_is_asked_before_anything_is_signed(
    tmp_path: Path, site: Site, limits: Limits, kind: LimitKind
) -> None:
    ground = Ground(tmp_path, site, limits)
    asked: list[Question] = []

    def confirm(question: Question) -> bool:
        assert (ground.signed, ground.opened) == ([], 0)
        asked.append(question)
        return len(asked) > 1

    with pytest.raises(BudgetExceeded):
        ground.pay(confirm=confirm)
    assert (ground.signed, ground.opened) == ([], 0)
    answer, paid = ground.pay(confirm=confirm)
    assert (answer.status, paid.cost) == (200, 1)
    assert asked == 2 * [Question(URL, 31337, NATIVE, PAYEE, kind, price=1, limit=0, used=0)]


def test_of_a_metered_response_its_user_is_asked_about_all_that_it_may_cost(
    tmp_path: Path,
) -> None:
    """After a yes no budget stops it, though it begins with a unit's price."""
    ground = Ground(tmp_path, metered_site(), replace(METERED, day_max=0))
    ground.open(2000)
    asked: list[Question] = []

    def confirm(question: Question) -> bool:
        asked.append(question)
        return False

    with pytest.raises(BudgetExceeded):
        ground.pay(confirm=confirm)
    (question,) = asked
    assert (question.kind, question.price) == (LimitKind.DAY, METERED.metered_max)


def test_leave_is_for_one_request(tmp_path: Path, site: Site) -> None:
    ground = Ground(tmp_path, site, replace(LIMITS, price_max=0))
    ground.pay(confirm=lambda _: True)
    with pytest.raises(BudgetExceeded):
        ground.pay()


def test_leave_is_not_for_where_a_redirect_leads(tmp_path: Path, site: Site) -> None:
    """The site takes the payment, and sends the reader to another page that costs as much."""
    ground = Ground(tmp_path, site, replace(LIMITS, price_max=0))
    other = "https://other.example/page"
    steps = ground.session(confirm=lambda question: question.url == URL).run()
    next(steps)
    challenge = site.challenge(1)
    step = steps.send(Answer(402, URL, challenges=(challenge,)))
    while "Authorization" not in getattr(step, "headers", {}):
        ground.perform(step)
        step = steps.send(None)
    with pytest.raises(BudgetExceeded):
        steps.send(Answer(402, other, challenges=(challenge,)))


# --- days, origins, parallel requests -----------------------------------------------------------


def test_each_origin_has_its_day_and_all_have_one_together(tmp_path: Path, site: Site) -> None:
    ground = Ground(tmp_path, site, replace(LIMITS, origin_day_max=2, day_max=3))
    ground.open()

    def paid(url: str) -> bool:
        try:
            ground.pay(url)
        except BudgetExceeded:
            return False
        return True

    one, two = "https://one.example/page", "https://two.example/page"
    assert [paid(url) for url in (one, one, one, two, two)] == [True, True, False, True, False]
    ground.clock.now += SECONDS_OF_DAY
    assert paid(one)
    purse = Purse(ground.payer, DEPLOYMENT.chain_id, NATIVE)
    assert [(row.origin, row.paid) for row in ground.state.spending_today(purse)] == [
        ("https://one.example:443", 1)
    ], "no origin of another day is kept"


def test_what_an_unpaid_request_was_promised_pays_for_the_next_one(
    tmp_path: Path, site: Site
) -> None:
    ground = Ground(tmp_path, site, replace(LIMITS, day_max=1))
    ground.open()
    first = ground.session().run()
    step: Any = next(first)
    step = first.send(site.answer(URL, step))
    assert "Authorization" in step.headers
    with pytest.raises(BudgetExceeded):
        ground.pay()
    first.close()
    assert ground.pay()[1].cost == 1


def test_what_a_forgotten_channel_cost_counts_in_the_total(ground: Ground) -> None:
    entry = ground.open()
    ended = ChannelState(ChannelStatus.FINALIZED, deposit=100, settled=7)
    ground.state.record_chain_state(entry.channel_id, ended)
    with ground.state._database.write() as connection:
        connection.execute("DELETE FROM channels")
    assert ground.state.promised_ever(Purse.of(entry)) == 7


def test_a_metered_response_is_within_the_budget_from_its_first_promise_on(tmp_path: Path) -> None:
    """Its sixteenth ahead would be 100."""
    ground = Ground(tmp_path, metered_site(), replace(METERED, day_max=30))
    ground.open(2000)
    _, response = ground.pay()
    assert response.paid.cost == 30


def test_a_limit_may_be_above_all_amounts(tmp_path: Path) -> None:
    """Programs write no limit that way."""
    ground = Ground(tmp_path, metered_site(), replace(METERED, metered_max=2**256, ahead=5))
    ground.open(2000)

    assert ground.pay()[1].paid.cost == 5


def test_a_budget_that_is_used_up_stops_a_response_before_a_deposit(tmp_path: Path) -> None:
    limits = replace(METERED, deposit=250, top_up=500, deposit_max=1000, day_max=250)
    ground = Ground(tmp_path, metered_site(), limits)
    with pytest.raises(BudgetExceeded, match=r"had cost up to 250 .* the limit of 250"):
        Reading(ground, [1] * 900).to_the_end()
    (entry,) = ground.state.channels(ground.payer)
    assert (entry.deposit, entry.signed) == (250, 250)


# --- lists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "allowed",
    [Allowed(payees=frozenset()), Allowed(origins=frozenset({"https://other.example:443"}))],
    ids=["payee", "origin"],
)
def test_who_is_not_listed_gets_nothing_and_nobody_is_asked(
    ground: Ground, allowed: Allowed
) -> None:
    with pytest.raises(BudgetExceeded, match="not among those"):
        ground.pay(allowed=allowed, confirm=lambda _: pytest.fail("asked"))
    assert (ground.signed, ground.opened) == ([], 0)


def test_who_is_listed_is_paid(ground: Ground) -> None:
    allowed = Allowed(payees=frozenset({PAYEE}), origins=frozenset({"https://site.example"}))
    assert ground.pay(allowed=allowed)[1].cost == 1


def test_a_contract_that_is_listed_is_paid_from_open_channels_only(
    tmp_path: Path, site: Site
) -> None:
    ground = Ground(tmp_path, site)
    own = Address(b"\xbb" * 20)
    listed: dict[str, Any] = {
        "contract": own,
        "allowed": Allowed(contracts=frozenset({DEPLOYMENT.contract})),
    }
    with pytest.raises(ConfigError, match="not the contract at which deposits are made"):
        ground.pay(**listed)
    ground.open()
    assert ground.pay(**listed)[1].cost == 1


def test_leave_for_a_day_is_for_one_origin_up_to_that_price(ground: Ground) -> None:
    question = Question(URL, 31337, NATIVE, PAYEE, LimitKind.REQUEST, price=5, limit=1, used=0)
    ground.state.allow_today(ground.payer, question)
    folder = ground.state._database._path.parent
    with closing(PayerState(folder / "payer.sqlite3", ground.clock)) as other:
        assert other.is_allowed_today(ground.payer, question)
        assert not other.is_allowed_today(ground.payer, replace(question, price=6))
        elsewhere = replace(question, url="https://other.example/")
        assert not other.is_allowed_today(ground.payer, elsewhere)
        ground.clock.now += SECONDS_OF_DAY
        assert not other.is_allowed_today(ground.payer, question)


def is_bought(ground: Ground, price: int, budget: Budget) -> bool:
    (entry,) = ground.state.channels(ground.payer)
    try:
        held = ground.state.reserve(entry.channel_id, price, SIGN, budget=budget)
    except BudgetExceeded:
        return False
    ground.state.settle(held, entry.spent + price, f"{budget.origin}/page")
    return True


def test_a_clock_that_ran_ahead_once_gives_no_fresh_room_when_it_is_set_back(
    ground: Ground,
) -> None:
    ground.open()
    budget = Budget(ORIGINS[0], day_max=2)
    found = []

    for days in (0, 1, -1, 1, 1):
        ground.clock.now += days * SECONDS_OF_DAY
        found.append([is_bought(ground, 1, budget) for _ in range(3)])

    fresh, used_up = [True, True, False], [False] * 3
    assert found == [fresh, fresh, used_up, used_up, fresh]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(6, 9)), max_size=12))
def test_no_more_is_promised_than_for_each_day_that_the_clock_ever_showed(
    requests: list[tuple[int, int]],
) -> None:
    with TemporaryDirectory() as folder:
        ground = Ground(Path(folder), Site())
        ground.open(1000)
        shown = set()
        for days, price in requests:
            ground.clock.now += days * SECONDS_OF_DAY
            shown.add(int(ground.clock.now) // SECONDS_OF_DAY)
            is_bought(ground, price, Budget(ORIGINS[0], day_max=DAY_MAX))
            (entry,) = ground.state.channels(ground.payer)
            assert entry.signed <= DAY_MAX * len(shown)
        ground.state.close()


def test_leave_for_a_day_is_for_that_of_the_clock_also_after_it_was_set_back(
    ground: Ground,
) -> None:
    question = Question(URL, 31337, NATIVE, PAYEE, LimitKind.REQUEST, price=5, limit=1, used=0)
    ground.open()
    ground.clock.now += 300 * SECONDS_OF_DAY
    ground.state.allow_today(ground.payer, question)

    ground.clock.now -= 300 * SECONDS_OF_DAY
    assert not ground.state.is_allowed_today(ground.payer, question)

    ground.state.allow_today(ground.payer, question)
    assert is_bought(ground, 1, Budget(ORIGINS[0]))
    assert ground.state.is_allowed_today(ground.payer, question)


def test_another_place_gets_no_voucher_worth_more_than_one_request(tmp_path: Path) -> None:
    """It may name a payee that is not its own: what it gets, it can spend there."""
    ground = Ground(tmp_path, metered_site(), replace(METERED, price_max=10))
    ground.open(2000)
    broken_off = Reading(ground, [1] * 500)
    broken_off.read(broken_off.selling.content(5))
    broken_off.metered.settle()
    elsewhere, by_the_page = "https://elsewhere.example/page", Site(default_price=1)
    asked = replace(Answer(402, elsewhere), challenges=(by_the_page.challenge(1),))
    session = ground.session(elsewhere).run()
    next(session)
    with pytest.raises(BudgetExceeded) as refusal:
        session.send(asked)
    assert refusal.value.context["kind"] == LimitKind.PLACE
    assert Reading(ground, [1]).metered is not None, "its own place still sells"
