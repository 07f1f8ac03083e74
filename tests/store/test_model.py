"""Any sequence of verbs leaves any store with the books that a plain model has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from channelpay.errors import PaymentRefused, RiskLimitReached
from channelpay.protocol.rules import ATTEMPTS_MAX, EARLIER_MAX
from channelpay.protocol.types import ChannelStatus
from channelpay.store import Store, Totals, open_store
from tests.store.books import channel, channel_id, charge, dump, order, purchase, view

NUMBERS = st.integers(1, 2)
AMOUNTS = st.integers(0, 60)
DEPOSITS = st.integers(1, 60)
KEYS = st.sampled_from(["a", "b", "c"])
RESOURCES = st.sampled_from(["GET /a", "GET /b"])
TOKEN = channel().token


@dataclass
class ModelCharge:
    number: int
    key: str
    resource: str
    price: int
    attempts: int = 1
    failed: set[int] = field(default_factory=set)

    @property
    def served(self) -> int:
        return self.attempts - len(self.failed)


@dataclass
class ModelChannel:
    deposit: int
    block: int
    status: ChannelStatus = ChannelStatus.OPEN
    settled: int = 0
    accepted: int = 0
    closes: int = 0
    in_doubt: bool = False
    doubted: int = 0
    has_voucher: bool = False
    earlier: list[int] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.status is ChannelStatus.OPEN and not self.closes

    @property
    def promised(self) -> int:
        return max(self.accepted, self.settled)

    @property
    def unsettled(self) -> int:
        is_final = self.status is ChannelStatus.FINALIZED
        return 0 if is_final else max(0, self.to_settle - self.settled)

    @property
    def to_settle(self) -> int:
        covered = [one for one in (*self.earlier, self.accepted) if one <= self.deposit]
        return max(covered, default=self.accepted)


@dataclass
class Model:
    """The rules once more, as short as they can be said; every purchase has a key."""

    channels: dict[int, ModelChannel] = field(default_factory=dict)
    charges: dict[int, ModelCharge] = field(default_factory=dict)

    def spent(self, number: int) -> int:
        charges = self.charges.values()
        charged = sum(one.price for one in charges if one.number == number and one.served)
        return charged + self.channels[number].doubted

    def end_doubt(self, number: int, promised: int) -> None:
        """All that was promised counts as charged, known or not."""
        known = self.channels[number]
        if known.in_doubt:
            known.doubted += promised - self.spent(number)
            known.in_doubt = False

    def holds(self, number: int, key: str) -> int | None:
        for payment_id, made in self.charges.items():
            if (made.number, made.key) == (number, key) and made.served:
                return payment_id
        return None


class StoreMachine(RuleBasedStateMachine):
    make: Callable[[], Store]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).make()
        self.model = Model()

    @initialize()
    def begin_with_one_channel(self) -> None:
        self.add(1, 40, 1)

    @rule(number=NUMBERS, deposit=DEPOSITS, block=st.integers(1, 5))
    def add(self, number: int, deposit: int, block: int) -> None:
        self.store.add_channel(
            channel_id(number), channel(number), view(deposit, block=block)
        ).result()
        known = self.model.channels.setdefault(number, ModelChannel(deposit, block))
        if block >= known.block:
            self.see(known, deposit, block, ChannelStatus.OPEN, 0)

    @rule(
        number=NUMBERS,
        deposit=DEPOSITS,
        block=st.integers(1, 9),
        status=st.sampled_from(ChannelStatus),
        settled=AMOUNTS,
        rewound=st.booleans(),
    )
    def update(
        self,
        number: int,
        deposit: int,
        block: int,
        status: ChannelStatus,
        settled: int,
        rewound: bool,
    ) -> None:
        known = self.model.channels.get(number)
        if known is None:
            return
        seen = view(deposit, block=block, status=status, settled=settled)
        self.store.update_chain(channel_id(number), seen, rewound=rewound).result()
        if rewound or block >= known.block:
            self.see(known, deposit, block, status, settled)

    def see(
        self, known: ModelChannel, deposit: int, block: int, status: ChannelStatus, settled: int
    ) -> None:
        if known.status is ChannelStatus.FINALIZED is not status:
            known.closes = max(1, known.closes)
        if known.has_voucher and known.accepted <= known.deposit < deposit:
            known.earlier = [*known.earlier, known.accepted][-EARLIER_MAX:]
        known.deposit, known.block = deposit, block
        known.status, known.settled = status, settled

    @rule()
    def restore(self) -> None:
        live = [
            one for one in self.model.channels.values() if one.status is not ChannelStatus.FINALIZED
        ]
        assert self.store.mark_in_doubt().result() == len(live)
        for known in live:
            known.in_doubt = True

    @rule(
        number=NUMBERS,
        cumulative=AMOUNTS,
        price=AMOUNTS,
        key=KEYS,
        resource=RESOURCES,
        metered=st.booleans(),
        risk_max=st.none() | AMOUNTS,
        proven=st.booleans(),
    )
    def buy(
        self,
        number: int,
        cumulative: int,
        price: int,
        key: str,
        resource: str,
        metered: bool,
        risk_max: int | None,
        proven: bool,
    ) -> None:
        before = dump(self.store)
        wanted = purchase(
            cumulative,
            price,
            number=number,
            key=key,
            resource=resource,
            metered=metered,
            risk_max=risk_max,
        )
        is_known = proven or self.is_private(number, cumulative, key)
        allowed = is_known and self.allowed(number, cumulative, price, key, resource, risk_max)
        try:
            accepted = order(self.store, replace(wanted, is_proven=proven))
        except (PaymentRefused, RiskLimitReached):
            assert not allowed
            assert dump(self.store) == before, "refused, and yet written"
            return
        assert allowed
        known = self.model.channels[number]
        held = self.model.holds(number, key)
        promised = known.promised
        known.accepted, known.has_voucher = max(known.accepted, cumulative), True
        cost = 0 if held is not None else price
        self.model.end_doubt(number, max(promised, known.accepted - cost))
        if held is not None:
            assert accepted.payment_id == held, "charged twice"
            self.model.charges[held].attempts += 1
            assert accepted.attempt == self.model.charges[held].attempts
        elif price:
            assert accepted.payment_id is not None
            made = ModelCharge(number, key, resource, 0 if metered else price)
            self.model.charges[accepted.payment_id] = made
        else:
            assert accepted.payment_id is None

    def is_private(self, number: int, cumulative: int, key: str) -> bool:
        """Whether nobody can have the voucher, or a key that bought something, from the chain."""
        settled = self.model.channels[number].settled if number in self.model.channels else 0
        return not 0 < settled >= cumulative or self.model.holds(number, key) is not None

    def allowed(
        self,
        number: int,
        cumulative: int,
        price: int,
        key: str,
        resource: str,
        risk_max: int | None,
    ) -> bool:
        known = self.model.channels.get(number)
        if known is None or not known.live or max(cumulative, known.accepted) > known.deposit:
            return False
        held = self.model.holds(number, key)
        if held is not None:
            made = self.model.charges[held]
            if known.in_doubt and max(known.accepted, cumulative) < known.promised:
                return False
            return made.resource == resource and made.served < ATTEMPTS_MAX
        accepted = max(known.accepted, cumulative)
        if known.in_doubt:
            return accepted - known.promised >= price
        spent = self.model.spent(number) + price
        return accepted >= spent and self.bearable(known, spent, price, risk_max)

    def bearable(self, known: ModelChannel, spent: int, more: int, risk_max: int | None) -> bool:
        return more == 0 or risk_max is None or spent - known.settled <= risk_max

    @precondition(lambda self: self.model.charges)
    @rule(data=st.data(), total=AMOUNTS, risk_max=st.none() | AMOUNTS)
    def charge(self, data: st.DataObject, total: int, risk_max: int | None) -> None:
        payment_id = data.draw(st.sampled_from(sorted(self.model.charges)))
        made = self.model.charges[payment_id]
        known = self.model.channels[made.number]
        more = max(0, total - made.price)
        spent = self.model.spent(made.number) + more
        is_there = not more or known.accepted <= known.deposit
        allowed = known.live and made.served and known.accepted >= spent and is_there
        allowed = allowed and self.bearable(known, spent, more, risk_max)
        before = dump(self.store)
        wanted = charge(payment_id, total, number=made.number, risk_max=risk_max)
        try:
            charged = order(self.store, wanted)
        except (PaymentRefused, RiskLimitReached):
            assert not allowed
            assert dump(self.store) == before, "refused, and yet written"
            return
        assert allowed
        assert (charged.payment_id, charged.charged) == (payment_id, more)
        made.price += more

    @rule(number=NUMBERS, cumulative=AMOUNTS)
    def begin_close(self, number: int, cumulative: int) -> None:
        known = self.model.channels.get(number)
        voucher = purchase(cumulative, 0, number=number).voucher
        try:
            self.store.begin_close(channel_id(number), voucher).result()
        except PaymentRefused:
            absent_or_final = (ChannelStatus.ABSENT, ChannelStatus.FINALIZED)
            assert known is None or cumulative > known.deposit or known.status in absent_or_final
            return
        assert known is not None
        known.accepted, known.has_voucher = max(known.accepted, cumulative), True
        self.model.end_doubt(number, known.accepted)
        known.closes += 1

    @rule(number=NUMBERS)
    def close_failed(self, number: int) -> None:
        known = self.model.channels.get(number)
        if known is not None:
            self.store.close_failed(channel_id(number)).result()
            known.closes = max(0, known.closes - 1)

    @precondition(lambda self: self.model.charges)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        payment_id = data.draw(st.sampled_from(sorted(self.model.charges)))
        charge = self.model.charges[payment_id]
        attempt = data.draw(st.integers(1, charge.attempts))
        self.store.release(payment_id, attempt).result()
        if charge.served:
            charge.failed.add(attempt)

    @invariant()
    def the_store_has_the_books_of_the_model(self) -> None:
        for number, known in self.model.channels.items():
            record = self.store.record(channel_id(number))
            assert record is not None
            assert record.accepted >= record.spent
            assert (record.accepted, record.spent) == (known.accepted, self.model.spent(number))
            assert (record.chain.deposit, record.chain.settled) == (known.deposit, known.settled)
            assert (record.closes_begun, record.in_doubt) == (known.closes, known.in_doubt)
            assert record.unsettled == known.unsettled
            assert (record.unsettled_since > 0) == (known.unsettled > 0)

    @rule()
    def its_sums_are_those_of_the_model(self) -> None:
        known = self.model.channels
        live = [n for n, one in known.items() if one.status is not ChannelStatus.FINALIZED]
        owed = {channel_id(n) for n in live if known[n].unsettled or known[n].closes}
        assert {record.channel_id for record in self.store.owed()} == owed
        unsettled = sum(one.unsettled for one in known.values())
        assert self.store.unsettled() == ({TOKEN: unsettled} if unsettled else {})
        if known:
            assert self.store.totals() == {TOKEN: self.totals()}

    def totals(self) -> Totals:
        known = self.model.channels.values()
        return Totals(
            channels=len(known),
            deposit=sum(one.deposit for one in known),
            accepted=sum(one.accepted for one in known),
            spent=sum(map(self.model.spent, self.model.channels)),
            settled=sum(one.settled for one in known),
        )

    def teardown(self) -> None:
        self.store.close()


def test_a_store_agrees_with_the_model_after_any_sequence_of_verbs(
    new_books: Callable[[], str],
) -> None:
    machine = type(
        "Machine", (StoreMachine,), {"make": staticmethod(lambda: open_store(new_books()))}
    )
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=30))
