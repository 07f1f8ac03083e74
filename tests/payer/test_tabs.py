"""What a payer does with a tab, at a payee of the real rules, and at one that lies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channelpay.errors import BudgetExceeded, ChannelPayError, NotFound, TabDue, TabFull
from channelpay.payer.budgets import Budget
from channelpay.payer.limits import Limits
from channelpay.payer.steps import Answer, Send
from channelpay.payer.tab_payment import TabPayment
from channelpay.protocol.entries import EntryKey, EntryState
from channelpay.protocol.rules import Decision, Purchase, decide
from channelpay.protocol.tabs import (
    ACCEPTED,
    HEADER,
    OnTab,
    PaysTab,
    Tab,
    TabKeys,
    TabNote,
)
from channelpay.protocol.tabs import TabPolicy as Policy
from channelpay.protocol.types import NATIVE, ChannelId
from channelpay.protocol.wire import Credential, OpenPayload, VoucherPayload
from tests.payer.site import URL, Clock, Ground, Site

DAY_MS = 86_400_000
DEAR = 7
DEAR_URL = "https://site.example/dear"
POLICY = Policy(limit_start=5, limit_max=20, grows=5_000, total_max=100, due_ms=DAY_MS)
LIMITS = Limits(NATIVE, price_max=10, deposit_max=100, tab_max=12)


class TabSite(Site):
    """Keeps a tab; with ``lies`` it says that so much more is owed."""

    def __init__(self, policy: Policy = POLICY) -> None:
        super().__init__()
        self.policy = policy
        self.entries: dict[EntryKey, EntryState] = {}
        self.clock = Clock()
        self.lies = 0
        self.served: list[int] = []

    def _charge(
        self, url: str, step: Send, price: int, channel_id: ChannelId, credential: Credential
    ) -> Answer:
        record, payload = self.record(channel_id), credential.payload
        assert isinstance(payload, OpenPayload | VoucherPayload)
        self.hasher.check(payload.voucher, record.channel.signer)
        self.highest[channel_id] = max(
            self.highest.get(channel_id, 0), payload.voucher.cumulative_amount
        )
        now = int(self.clock() * 1000)
        keys = TabKeys.of(record.channel.payer, NATIVE)
        purchase = Purchase(
            payload.voucher, 0 if step.head else price, url, now, str(self.requests)
        )
        decision = self._sold(purchase, keys, agrees=step.headers.get(HEADER) == ACCEPTED)
        details = decision.payment.details if decision.payment else ""
        note = TabNote.of(self.tab(channel_id), self.policy, details)
        if not step.head:
            self.served.append(price)
        receipt = replace(self.receipt(channel_id), tab=replace(note, owed=note.owed + self.lies))
        return Answer(200, url, receipt=receipt.to_header())

    def _sold(self, purchase: Purchase, keys: TabKeys, *, agrees: bool) -> Decision:
        """As the payee's clerk does."""
        terms = OnTab(self.policy, keys, purchase.now, agrees)
        try:
            if purchase.price == 0:
                self.book(purchase)
                raise TabDue
            return self.book(replace(purchase, terms=terms))
        except TabDue as due:
            paying = PaysTab(self.policy, keys, purchase.now)
            whole = purchase.voucher.cumulative_amount
            try:
                decision = self.book(replace(purchase, price=whole, terms=paying))
            except TabDue:
                if purchase.price == 0:
                    return self.book(purchase)
                raise self.told(due) from None
            if purchase.price == 0:
                return decision
        return self.book(replace(purchase, terms=replace(terms, pays_first=False)))

    def told(self, due: TabDue) -> TabDue:
        for name in ("owed", "requiredCumulative"):
            due.context[name] = str(int(due.context[name]) + self.lies)
        return due

    def book(self, purchase: Purchase) -> Decision:
        decision = decide(self.record(purchase.channel_id), purchase, None, self.entries)
        self.records[purchase.channel_id] = decision.record
        self.entries |= decision.entries or {}
        return decision

    def tab(self, channel_id: ChannelId) -> Tab:
        keys = TabKeys.of(self.record(channel_id).channel.payer, NATIVE)
        return Tab.from_state(self.entries.get(keys.tab))


@pytest.fixture
def site() -> TabSite:
    return TabSite()


@pytest.fixture
def ground(tmp_path: Path, site: TabSite) -> Iterator[Ground]:
    yield from grounds(tmp_path, site, LIMITS)


def grounds(folder: Path, site: Site, limits: Limits) -> Iterator[Ground]:
    ground = Ground(folder, site, limits)
    if isinstance(site, TabSite):
        ground.clock = site.clock
        ground.state.tabs.now = site.clock
    yield ground
    ground.state.close()


def owed(ground: Ground) -> int:
    (entry,) = ground.state.channels(ground.payer)
    return ground.state.tabs.tab(entry).owed


def pay_tab(ground: Ground, pay_max: int | None = None) -> int:
    answer = ground.site.answer(URL, Send({}))
    steps = TabPayment(ground.terms(), ground.state, URL, answer).pay(pay_max)
    _, done = ground.drive(steps, URL)
    return int(done.paid)


def test_nothing_is_promised_before_the_tab_is_full_then_all_by_one_voucher(
    ground: Ground, site: TabSite
) -> None:
    entry = ground.open()
    for _ in range(5):
        assert ground.pay()[1].cost == 0
    assert (owed(ground), site.highest[entry.channel_id]) == (5, 0)

    _, paid = ground.pay()

    assert (paid.cost, owed(ground), site.highest[entry.channel_id]) == (6, 0, 6)
    assert len(site.served) == 6


def test_who_does_not_agree_promises_each_page(tmp_path: Path, site: TabSite) -> None:
    for ground in grounds(tmp_path, site, replace(LIMITS, tab_max=0)):
        ground.open()
        assert [ground.pay()[1].cost for _ in range(3)] == [1, 1, 1]
        assert owed(ground) == 0


def test_a_site_without_tabs_is_paid_and_asked_once_only(tmp_path: Path) -> None:
    site = Site()
    for ground in grounds(tmp_path, site, LIMITS):
        ground.open()
        assert [ground.pay()[1].cost for _ in range(2)] == [1, 1]
        before = site.requests
        assert ground.pay()[1].cost == 1
        assert site.requests == before + 1


def test_a_tab_is_paid_with_the_next_page_before_it_is_due(ground: Ground, site: TabSite) -> None:
    ground.open()
    ground.pay()
    site.clock.now += 86_400 - 1_800

    assert ground.pay()[1].cost == 2
    assert owed(ground) == 0


def test_one_that_is_overdue_is_paid_and_there_is_credit_again(
    ground: Ground, site: TabSite
) -> None:
    ground.open()
    ground.pay()
    site.clock.now += 10 * 86_400

    assert ground.pay()[1].cost == 2
    assert ground.pay()[1].cost == 0


def test_it_never_grows_over_the_own_limit(tmp_path: Path) -> None:
    site = TabSite(replace(POLICY, limit_start=20))
    for ground in grounds(tmp_path, site, replace(LIMITS, tab_max=2)):
        ground.open()
        costs = [ground.pay()[1].cost for _ in range(4)]
        assert costs == [0, 0, 3, 0]


def test_what_is_put_on_it_is_within_the_budgets(tmp_path: Path) -> None:
    site = TabSite()
    for ground in grounds(tmp_path, site, replace(LIMITS, day_max=2)):
        ground.open()
        assert [ground.pay()[1].cost for _ in range(2)] == [0, 0]
        with pytest.raises(BudgetExceeded):
            ground.pay()
        assert (len(site.served), pay_tab(ground)) == (2, 2)


def test_of_requests_at_once_no_more_go_on_it_than_its_limit(tmp_path: Path) -> None:
    site = TabSite(replace(POLICY, limit_start=50, limit_max=50))
    for ground in grounds(tmp_path, site, replace(LIMITS, tab_max=3)):
        ground.open()
        ground.pay()

        at_once(ground, [ground.session().run() for _ in range(8)])

        assert owed(ground) <= 3
        ground.pay()
        assert sum(site.highest.values()) <= len(site.served) == 10


def test_of_requests_at_once_no_more_go_on_it_than_the_budgets_allow(tmp_path: Path) -> None:
    site = TabSite()
    for ground in grounds(tmp_path, site, replace(LIMITS, day_max=2)):
        ground.open()
        ground.pay()
        running = ground.session().run()
        sent = until_sent(ground, running)

        with pytest.raises(BudgetExceeded):
            ground.pay()

        with pytest.raises(StopIteration):
            running.send(site.answer(URL, sent))
        assert owed(ground) == 2


def test_a_request_that_another_overtakes_is_paid_for(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.limits = replace(LIMITS, tab_max=2)
    entry, reserve = ground.open(), ground.state.reserve
    ground.pay()

    def overtaken(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        budget = Budget("https://site.example:443", tab_max=2)
        reserve(entry.channel_id, 0, ground._sign, limit=1, budget=budget)
        return reserve(*args, **options)

    monkeypatch.setattr(ground.state, "reserve", overtaken)

    assert ground.pay()[1].cost == 2
    assert owed(ground) == 0


def test_requests_on_other_channels_to_the_same_payee_count_as_well(ground: Ground) -> None:
    first, second = ground.open(), ground.open()
    budget = Budget("https://site.example:443", tab_max=3)
    held = ground.state.reserve(first.channel_id, 0, ground._sign, limit=2, budget=budget)

    with pytest.raises(TabFull):
        ground.state.reserve(second.channel_id, 0, ground._sign, limit=2, budget=budget)

    ground.state.release(held)
    ground.state.reserve(second.channel_id, 0, ground._sign, limit=2, budget=budget)


def test_it_is_paid_by_hand_once(ground: Ground, site: TabSite) -> None:
    entry = ground.open()
    for _ in range(3):
        ground.pay()

    assert [pay_tab(ground), pay_tab(ground)] == [3, 0]
    assert (owed(ground), site.highest[entry.channel_id]) == (0, 3)


def test_where_there_is_no_tab_there_is_none_to_pay(tmp_path: Path) -> None:
    for ground in grounds(tmp_path, Site(), LIMITS):
        ground.open()
        ground.pay()
        with pytest.raises(NotFound):
            pay_tab(ground)


def test_a_site_that_says_more_is_owed_is_not_paid_more(ground: Ground, site: TabSite) -> None:
    entry = ground.open()
    for _ in range(2):
        ground.pay()
    site.lies = 30

    with pytest.raises(BudgetExceeded):
        pay_tab(ground)
    for _ in range(6):
        ground.pay()

    assert owed(ground) <= 5
    assert site.highest[entry.channel_id] <= len(site.served)
    assert pay_tab(ground, pay_max=40) > 0


moves = st.lists(
    st.sampled_from(["page", "page", "page", "dear", "hand", "day", "lie", "both", "both"]),
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(moves)
def test_a_payee_never_holds_more_than_the_price_of_what_it_served(history: list[str]) -> None:
    folder = Path(mkdtemp())
    site = TabSite()
    site.prices = {DEAR_URL: DEAR}
    try:
        for ground in grounds(folder, site, replace(LIMITS, price_max=20)):
            entry = ground.open()
            for move in history:
                act(ground, site, move)
            record = site.records.get(entry.channel_id)
            if record is not None:
                tab = site.tab(entry.channel_id)
                assert record.spent + tab.owed == sum(site.served)
                # It may hold the rest of a price that it named for another page, or for two.
                assert record.spent <= record.accepted <= record.spent + 2 * DEAR
                assert site.lies or owed(ground) >= tab.owed
            if not site.lies:
                assert ground.pay()[0].status == 200
    finally:
        shutil.rmtree(folder)


def until_sent(ground: Ground, steps: Any) -> Send:
    """The request of a session, which nobody has answered yet."""
    step = steps.send(None)
    while not isinstance(step, Send):
        ground.perform(step)
        step = steps.send(None)
    return step


def at_once(ground: Ground, running: list[Any]) -> None:
    """All of them are sent before any is answered."""
    sent = [(steps, until_sent(ground, steps)) for steps in running]
    for steps, step in sent:
        result: Answer | None = ground.site.answer(URL, step)
        with suppress(StopIteration):
            while True:
                following = steps.send(result)
                is_sent = isinstance(following, Send)
                result = ground.site.answer(URL, following) if is_sent else None


def together(ground: Ground) -> None:
    """Two requests at once: each does its next step when the other has done one."""
    running: list[tuple[Any, str, Answer | None]] = [
        (ground.session(url).run(), url, None) for url in (URL, DEAR_URL)
    ]
    while running:
        steps, url, result = running.pop(0)
        try:
            step = steps.send(result)
        except (StopIteration, BudgetExceeded):
            continue
        answer = ground.site.answer(url, step) if isinstance(step, Send) else None
        if answer is None:
            ground.perform(step)
        running.append((steps, url, answer))


def act(ground: Ground, site: TabSite, move: str) -> None:
    if move == "both":
        together(ground)
    elif move == "day":
        site.clock.now += 90_000
    elif move == "lie":
        site.lies = 50
    elif move == "hand":
        try:
            pay_tab(ground)
        except (NotFound, BudgetExceeded):
            return
    else:
        url = URL if move == "page" else DEAR_URL
        try:
            ground.pay(url)
        except ChannelPayError:
            assert site.lies or move == "dear"
