"""What a reorganisation takes back, the books unlearn, whatever its depth; vouchers stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from channelpay.chain.events import ChannelOpened, Event, ToppedUp, decode_logs
from channelpay.errors import (
    AmountExceedsDeposit,
    ChannelClosing,
    ChannelNotFound,
    ChannelPayError,
    NetworkError,
    PaymentRefused,
)
from channelpay.payee.acceptance import Confirmations
from channelpay.payee.chain_link import ChainLink, amount_of
from channelpay.payee.follower import Follower
from channelpay.payee.terms import ETHER, Terms
from channelpay.protocol.rules import Purchase
from channelpay.protocol.types import (
    ABSENT,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
    ChannelStatus,
    Voucher,
)
from channelpay.store import ChainView, MemoryStore
from channelpay.testing import anvil_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from channelpay.testing.rpc_client import rpc_call
from tests.payee.fake_chain import DEPLOYMENT, FakeChain, Operation, contract_on
from tests.payee.office import Office, office_on
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer

DEPTHS = (1, 5, 20)
Reorganise = Callable[[Office, int], None]


@pytest.fixture(scope="module")
def anvil() -> Iterator[FurnishedChain]:
    with anvil_chain() as chain:
        yield furnish(chain)


@pytest.fixture
def office(anvil: FurnishedChain) -> Office:
    """Has followed the chain up to now."""
    office = office_on(anvil, Payer(anvil))
    office.follow()
    return office


def _same_height(office: Office, depth: int) -> None:
    """As many blocks, without transactions."""
    rpc_call(office.payer.furnished.chain.rpc_url, "anvil_reorg", depth, [])


def _lower(office: Office, depth: int) -> None:
    """One block for all that are gone."""
    chain = office.payer.furnished.chain
    rpc_call(chain.rpc_url, "anvil_rollback", depth)
    chain.increase_time(60)


def _higher(office: Office, depth: int) -> None:
    """More blocks than are gone."""
    _same_height(office, depth)
    office.payer.furnished.chain.mine(2)


@pytest.fixture(params=[_same_height, _lower, _higher])
def reorganise(request: pytest.FixtureRequest) -> Reorganise:
    """Replaces the last blocks."""

    def replaced(office: Office, depth: int) -> None:
        request.param(office, depth)
        office.forget_nonces()

    return replaced


def _bury(office: Office, depth: int) -> None:
    """The last block gets so deep, its own depth being one, and is followed on the way."""
    office.follow()
    for _ in range(depth - 1):
        office.payer.furnished.chain.mine()
        office.follow()


@pytest.mark.parametrize("depth", DEPTHS)
def test_an_open_that_is_gone_sells_nothing_and_keeps_its_voucher(
    office: Office, depth: int, reorganise: Reorganise
) -> None:
    channel = office.channel(PRICE)
    _bury(office, depth)
    voucher = office.record(channel).voucher

    reorganise(office, depth)
    office.follow()

    assert office.record(channel).chain == ABSENT
    with pytest.raises(ChannelNotFound):
        office.buy(channel, 2 * PRICE)
    assert office.record(channel).voucher == voucher
    _mine_the_open_again(office, channel)
    office.buy(channel, 2 * PRICE)
    assert _settled_on_chain(office, channel) == 2 * PRICE


def _mine_the_open_again(office: Office, channel: OpenChannel) -> None:
    office.payer.sender.send(office.payer.contract.open(channel.channel, DEPOSIT))
    office.follow()
    assert office.record(channel).chain == ChannelState(ChannelStatus.OPEN, DEPOSIT)


def _settled_on_chain(office: Office, channel: OpenChannel) -> int:
    office.settle(channel)
    return office.link.contract.state(channel.channel).settled


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_top_up_that_is_gone_is_no_deposit(
    office: Office, depth: int, reorganise: Reorganise
) -> None:
    channel = office.channel(PRICE)
    office.payer.furnished.chain.mine()
    office.payer.top_up(channel, PRICE)
    _bury(office, depth)
    assert office.record(channel).chain.deposit == DEPOSIT + PRICE

    reorganise(office, depth)
    office.follow()

    assert office.record(channel).chain == ChannelState(ChannelStatus.OPEN, DEPOSIT)
    with pytest.raises(AmountExceedsDeposit):
        office.buy(channel, DEPOSIT + PRICE)
    office.buy(channel, DEPOSIT)
    assert _settled_on_chain(office, channel) == DEPOSIT


def test_a_top_up_that_is_gone_takes_no_more_with_it_than_itself(
    office: Office, reorganise: Reorganise
) -> None:
    channel = office.channel(PRICE)
    office.payer.furnished.chain.mine()
    office.payer.top_up(channel, PRICE)
    _bury(office, 5)
    office.buy(channel, DEPOSIT + PRICE)

    reorganise(office, 5)
    office.follow()

    with pytest.raises(AmountExceedsDeposit):
        office.buy(channel, 2 * PRICE)
    assert office.record(channel).unsettled == PRICE
    assert _settled_on_chain(office, channel) == PRICE
    office.follow()
    assert office.record(channel).unsettled == 0


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_settlement_that_is_gone_is_owed_again(
    office: Office, depth: int, reorganise: Reorganise
) -> None:
    channel = office.channel(PRICE)
    office.payer.furnished.chain.mine()
    office.settle(channel)
    _bury(office, depth)
    assert office.record(channel).chain.settled == PRICE
    assert office.store.owed() == []

    reorganise(office, depth)
    office.follow()

    assert office.record(channel).chain.settled == 0
    assert [one.channel_id for one in office.store.owed()] == [channel.id]
    assert _settled_on_chain(office, channel) == PRICE


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_close_that_is_gone_is_owed_and_sells_nothing(
    office: Office, depth: int, reorganise: Reorganise
) -> None:
    """Its transaction may be mined again at any time."""
    channel = office.channel(PRICE)
    office.payer.furnished.chain.mine()
    office.close(channel)
    _bury(office, depth)
    assert office.record(channel).chain.status is ChannelStatus.FINALIZED

    reorganise(office, depth)
    office.follow()

    assert office.record(channel).chain == ChannelState(ChannelStatus.OPEN, DEPOSIT)
    assert [one.channel_id for one in office.store.owed()] == [channel.id]
    with pytest.raises(ChannelClosing):
        office.buy(channel, 2 * PRICE)
    before = office.payee_tokens()
    office.close(channel)
    assert office.payee_tokens() - before == PRICE


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_close_request_that_is_gone_stops_nothing(
    office: Office, depth: int, reorganise: Reorganise
) -> None:
    channel = office.channel(PRICE)
    office.payer.furnished.chain.mine()
    office.payer.request_close(channel)
    _bury(office, depth)
    assert office.record(channel).chain.status is ChannelStatus.CLOSING

    reorganise(office, depth)
    office.follow()

    office.buy(channel, 2 * PRICE)


@pytest.mark.parametrize("depth", DEPTHS)
def test_what_a_restarted_follower_finds_gone_is_unlearned(office: Office, depth: int) -> None:
    """Nobody followed while the chain reorganised."""
    channel = office.channel(PRICE)
    office.payer.furnished.chain.mine()
    office.payer.top_up(channel, PRICE)
    office.payer.furnished.chain.mine(depth - 1)
    office.follow()

    _higher(office, depth)
    office.forget_nonces()
    office.follow()

    assert office.record(channel).chain.deposit == DEPOSIT


@pytest.mark.parametrize("depth", DEPTHS)
def test_no_more_is_served_on_a_deposit_that_vanishes_than_its_confirmations_allow(
    anvil: FurnishedChain, depth: int
) -> None:
    """A small deposit counts at once, a large one when it is deeper than what happens."""
    rules = Confirmations(1, {anvil.token: [(PRICE + 1, 21)]})
    office = office_on(anvil, Payer(anvil), rules)
    channel = office.payer.open(PRICE)
    office.enter(channel)
    office.payer.top_up(channel, DEPOSIT)
    _bury(office, depth)
    office.buy(channel, PRICE)
    with pytest.raises(AmountExceedsDeposit):
        office.buy(channel, 2 * PRICE)

    _same_height(office, depth + 1)
    office.forget_nonces()
    office.follow()

    assert office.record(channel).chain == ABSENT
    assert office.record(channel).spent == PRICE


def test_a_small_top_up_of_a_full_channel_waits_as_long_as_what_it_puts_at_stake(
    anvil: FurnishedChain,
) -> None:
    """A voucher above the deposit brings nothing at all: one base unit that vanishes would take
    the whole channel with it.
    """
    rules = Confirmations(1, {anvil.token: [(DEPOSIT, 5)]})
    office = office_on(anvil, Payer(anvil), rules)
    channel = office.payer.open()
    _bury(office, 5)
    office.enter(channel)
    office.buy(channel, DEPOSIT)
    office.payer.top_up(channel, 1)
    office.follow()
    with pytest.raises(AmountExceedsDeposit):
        office.buy(channel, DEPOSIT + 1)

    _same_height(office, 1)
    office.forget_nonces()
    office.follow()
    office.settle(channel)
    office.follow()

    assert office.record(channel).chain.settled == DEPOSIT


# Random histories on a chain in memory

PAYEE = Address(b"\xee" * 20)
TERMS = Terms(DEPLOYMENT, PAYEE, (ETHER,))
RULES = Confirmations(1, {NATIVE: [(20, 2), (60, 5)]})
CHANNELS = [
    Channel(Address(bytes([one]) * 20), PAYEE, NATIVE, ZERO_ADDRESS, bytes([one]) + bytes(31))
    for one in (1, 2, 3)
]
VERBS = (*["open"] * 4, *["top up"] * 6, *["settle"] * 2, "request close", "close")
OPERATIONS = st.builds(
    Operation, st.sampled_from(VERBS), st.sampled_from(CHANNELS), st.integers(1, 40)
)
BLOCKS = st.lists(OPERATIONS, max_size=3)
A_CHANNEL = st.sampled_from(CHANNELS)


class Histories(RuleBasedStateMachine):
    """A chain that changes its mind, a follower that is late, fails and is restarted, and a worker
    that enters what payers present. Once things calm down, the books are the chain's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.chain = FakeChain()
        self.link = ChainLink(contract_on(self.chain), RULES)
        self.store = MemoryStore()
        self.follower = Follower(TERMS, self.link, self.store)
        self.lag = 0
        self.highest = 0
        self.promised: dict[Channel, int] = {}
        self.read: list[tuple[Channel, ChainView]] = []
        self.entered_at: dict[Channel, int] = {}

    @rule(operations=BLOCKS)
    def mine(self, operations: list[Operation]) -> None:
        self.chain.mine(operations)

    @rule(depth=st.integers(1, 12), blocks=st.lists(BLOCKS, max_size=14))
    def reorganise(self, depth: int, blocks: list[list[Operation]]) -> None:
        self.highest = max(self.highest, len(self.chain.mined))
        self.chain.reorganise(depth, blocks)

    @rule()
    def present(self) -> None:
        self.read_opens()
        self.enter()

    @rule()
    def read_opens(self) -> None:
        """A worker looks at what was opened, and takes its time to enter it."""
        for event in self._events():
            if isinstance(event, ChannelOpened):
                with suppress(PaymentRefused):
                    view, _ = self.link.opened(
                        event.channel_id, event.channel, event.place.transaction_hash
                    )
                    self.read.append((event.channel, view))

    def _events(self) -> tuple[Event, ...]:
        return decode_logs([log for one in self.chain.mined for log in one.logs])

    @rule()
    def enter(self) -> None:
        """As :class:`channelpay.payee.verifier.Verifier` does it."""
        while self.read:
            channel, view = self.read.pop()
            channel_id = channel.id(DEPLOYMENT)
            if self.store.record(channel_id) is None:
                self.store.add_channel(channel_id, channel, view).result()
            (now,) = self.link.views([channel])
            self.store.update_chain(channel_id, now).result()
            self.entered_at[channel] = max(view.block, now.block)

    @rule()
    def present_top_ups(self) -> None:
        for event in self._events():
            record = self.store.record(event.channel_id) if isinstance(event, ToppedUp) else None
            if record is not None and isinstance(event, ToppedUp):
                with suppress(PaymentRefused):
                    transaction = event.place.transaction_hash
                    view = self.link.topped_up(record, transaction, event.amount)
                    self.store.update_chain(event.channel_id, view).result()
                    self.entered_at[record.channel] = view.block

    @rule(channel=A_CHANNEL, cumulative=st.integers(1, 120))
    def buy(self, channel: Channel, cumulative: int) -> None:
        channel_id = channel.id(DEPLOYMENT)
        voucher = Voucher(channel_id, cumulative, cumulative.to_bytes(65, "big"))
        purchase = Purchase(voucher, 1, "GET /", 0, str(cumulative))
        record = self.store.record(channel_id)
        (answer,) = self.store.accept([purchase]).result()
        if not isinstance(answer, ChannelPayError):
            assert record is not None
            assert record.chain.status is ChannelStatus.OPEN
            assert cumulative <= record.chain.deposit
            self.promised[channel] = max(cumulative, self.promised.get(channel, 0))

    @rule(lag=st.sampled_from([0, 0, 0, 1, 3, 6]))
    def be_late(self, lag: int) -> None:
        self.lag = lag

    @rule(calls=st.integers(0, 12))
    def follow_and_fail(self, calls: int) -> None:
        def fail() -> None:
            raise NetworkError("the node is away")

        with self.chain.interrupted(calls, fail):
            self._step()

    @rule(calls=st.integers(1, 12), depth=st.integers(1, 4), blocks=st.lists(BLOCKS, max_size=4))
    def follow_while_it_reorganises(
        self, calls: int, depth: int, blocks: list[list[Operation]]
    ) -> None:
        with self.chain.interrupted(calls, lambda: self.reorganise(depth, blocks)):
            self._step()

    def _step(self) -> bool:
        self.chain.lag = self.lag
        try:
            self.follower.step()
        except NetworkError:
            return False
        finally:
            self.chain.lag = 0
        return True

    @rule()
    def follow(self) -> None:
        head = self.chain.mined[max(1, len(self.chain.mined) - self.lag) - 1].block.number
        if not self._step():
            return
        for record in self.store.records():
            # What a worker saw in a later block may be right, or a reorganisation took it back.
            if self.entered_at.get(record.channel, 0) <= head:
                assert record.chain == self._on_chain(record.channel, head)
                self.entered_at.pop(record.channel, None)

    @rule()
    def restart(self) -> None:
        self.follower = Follower(TERMS, self.link, self.store)

    @rule()
    def calm_down(self) -> None:
        """The chain grows beyond all that was ever known of it, and is followed."""
        self.enter()
        self.lag = 0
        while len(self.chain.mined) <= self.highest:
            self.chain.mine()
        self.follower.step()
        head = self.chain.mined[-1].block.number
        for record in self.store.records():
            assert record.chain == self._on_chain(record.channel, head)

    @invariant()
    def no_voucher_is_lost(self) -> None:
        for channel, promised in self.promised.items():
            record = self.store.record(channel.id(DEPLOYMENT))
            assert record is not None
            assert (record.accepted, record.signature) == (promised, promised.to_bytes(65, "big"))

    def teardown(self) -> None:
        self.calm_down()

    def _on_chain(self, channel: Channel, head: int) -> ChannelState:
        """What the chain says at a block, with the deposits that count there."""
        lane = self.chain.mined[head].lanes.get(channel.id(DEPLOYMENT))
        if lane is None:
            return ABSENT
        state = lane.view(channel.epoch)
        if state.status is ChannelStatus.FINALIZED:
            return state
        counted = sum(self._counted(channel, state.settled, head))
        return ChannelState(state.status, counted, state.settled, state.close_requested_at)

    def _counted(self, channel: Channel, settled: int, head: int) -> Iterator[int]:
        """The deposits that count; those of the last four blocks are taken together, and each of
        them needs what all that is not settled with it asks for.
        """
        fresh = 0
        for one in self.chain.mined[: head + 1]:
            for log in one.logs:
                (event,) = decode_logs([log])
                if not isinstance(event, ChannelOpened | ToppedUp):
                    continue
                if event.channel_id != channel.id(DEPLOYMENT):
                    continue
                added = amount_of(event)
                depth = head - one.block.number + 1
                fresh += added if depth < 5 else 0
                stake = max(fresh, event.deposit - settled) if depth < 5 else 0
                needed = 5 if stake >= 60 else 2 if stake >= 20 else 1
                if depth >= needed:
                    yield added


Histories.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
