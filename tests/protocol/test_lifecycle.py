"""The life of a channel: no money appears or is lost, and dead epochs stay dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from channelpay.errors import ChainReverted
from channelpay.protocol.lifecycle import (
    CLOSE_REQUEST_TIME_MAX,
    LaneState,
    Payout,
    close,
    close_with_authorization,
    open_channel,
    request_close,
    settle,
    top_up,
    withdraw,
)
from channelpay.protocol.types import ABSENT, DEPOSIT_MAX, ChannelState, ChannelStatus

GRACE = 600
NOW = 1_800_000_000
OPEN = LaneState(epoch=5, deposit=100, settled=30)
CLOSING = LaneState(epoch=5, deposit=100, settled=30, close_requested_at=NOW)
FINALIZED = LaneState(epoch=5, deposit=100, settled=30, finalized=True)


@contextmanager
def reverts(error: str) -> Iterator[None]:
    with pytest.raises(ChainReverted) as reverted:
        yield
    assert reverted.value.error == error


@pytest.mark.parametrize(
    ("lane", "epoch", "state"),
    [
        (OPEN, 5, ChannelState(ChannelStatus.OPEN, 100, 30)),
        (CLOSING, 5, ChannelState(ChannelStatus.CLOSING, 100, 30, NOW)),
        (FINALIZED, 5, ChannelState(ChannelStatus.FINALIZED, 100, 30)),
        (OPEN, 4, ChannelState(ChannelStatus.FINALIZED)),
        (FINALIZED, 4, ChannelState(ChannelStatus.FINALIZED)),
        (OPEN, 6, ABSENT),
        (FINALIZED, 6, ABSENT),
    ],
)
def test_view_of_an_epoch(lane: LaneState, epoch: int, state: ChannelState) -> None:
    assert lane.view(epoch) == state


def test_finalized_lane_opens_only_in_a_greater_epoch() -> None:
    assert open_channel(FINALIZED, 6, 7) == LaneState(6, 7)
    for epoch in (0, 4, 5):
        with reverts("ChannelAlreadyExists"):
            open_channel(FINALIZED, epoch, 7)


@pytest.mark.parametrize("lane", [OPEN, CLOSING])
def test_live_lane_cannot_be_opened(lane: LaneState) -> None:
    for epoch in (4, 5, 6):
        with reverts("ChannelAlreadyExists"):
            open_channel(lane, epoch, 7)


def test_fresh_lane_takes_any_epoch() -> None:
    assert open_channel(None, 0, 1) == LaneState(0, 1)
    assert open_channel(None, 2**32 - 1, DEPOSIT_MAX).deposit == DEPOSIT_MAX


def test_deposit_is_positive_and_fits_the_slot() -> None:
    with reverts("ZeroDeposit"):
        open_channel(None, 0, 0)
    with reverts("DepositOverflow"):
        open_channel(None, 0, DEPOSIT_MAX + 1)
    with reverts("ZeroDeposit"):
        top_up(OPEN, 5, 0, by_payer=True)
    with reverts("DepositOverflow"):
        top_up(OPEN, 5, DEPOSIT_MAX - 99, by_payer=True)
    assert top_up(OPEN, 5, DEPOSIT_MAX - 100, by_payer=True).deposit == DEPOSIT_MAX


def test_topup_by_the_payer_cancels_the_close() -> None:
    assert top_up(CLOSING, 5, 1, by_payer=True) == LaneState(5, 101, 30)


def test_topup_by_a_stranger_cancels_nothing() -> None:
    assert top_up(CLOSING, 5, 1, by_payer=False) == LaneState(5, 101, 30, NOW)


@pytest.mark.parametrize("lane", [OPEN, CLOSING])
def test_vouchers_settle_until_the_withdrawal_lands(lane: LaneState) -> None:
    settled, payout = settle(lane, 5, 100)
    assert (settled.settled, payout) == (100, Payout(to_payee=70))
    assert settled.close_requested_at == lane.close_requested_at


def test_settle_takes_only_a_greater_amount_within_the_deposit() -> None:
    for cumulative in (0, 29, 30):
        with reverts("AmountNotIncreasing"):
            settle(OPEN, 5, cumulative)
    with reverts("AmountExceedsDeposit"):
        settle(OPEN, 5, 101)


@pytest.mark.parametrize("lane", [OPEN, CLOSING])
@pytest.mark.parametrize(
    ("cumulative", "to_payee", "to_payer"), [(0, 0, 70), (30, 0, 70), (31, 1, 69), (100, 70, 0)]
)
def test_close_pays_both_sides(
    lane: LaneState, cumulative: int, to_payee: int, to_payer: int
) -> None:
    closed, payout = close(lane, 5, cumulative, by_payee=True)
    assert payout == Payout(to_payee, to_payer)
    assert closed.view(5).status is ChannelStatus.FINALIZED
    assert close_with_authorization(lane, 5, cumulative, authorized=True) == (closed, payout)


def test_close_is_the_payees_and_within_the_deposit() -> None:
    with reverts("NotPayee"):
        close(OPEN, 5, 40, by_payee=False)
    with reverts("AmountExceedsDeposit"):
        close(OPEN, 5, 101, by_payee=True)


def test_close_by_others_needs_the_payees_authorization() -> None:
    with reverts("InvalidAuthorization"):
        close_with_authorization(OPEN, 5, 40, authorized=False)
    with reverts("AmountExceedsDeposit"):
        close_with_authorization(OPEN, 5, 101, authorized=True)


def test_repeated_close_request_moves_nothing() -> None:
    assert request_close(OPEN, 5, NOW, by_payer=True) == CLOSING
    assert request_close(CLOSING, 5, NOW + 1, by_payer=True) == CLOSING
    with reverts("NotPayer"):
        request_close(OPEN, 5, NOW, by_payer=False)


def test_close_request_fits_the_slot_until_the_end_of_32_bit_time() -> None:
    last = CLOSE_REQUEST_TIME_MAX
    assert request_close(OPEN, 5, last, by_payer=True).close_requested_at == last == 2**32 - 2
    assert request_close(CLOSING, 5, last + 1, by_payer=True) == CLOSING
    for now in (last + 1, last + 2, 2**64):
        with reverts("TimeOverflow"):
            request_close(OPEN, 5, now, by_payer=True)


def test_withdrawal_waits_for_the_grace_period() -> None:
    after = NOW + GRACE
    closed, payout = withdraw(CLOSING, 5, after, GRACE, by_payer=True)
    assert (closed.finalized, payout) == (True, Payout(to_payer=70))
    with reverts("CloseNotReady"):
        withdraw(CLOSING, 5, after - 1, GRACE, by_payer=True)
    with reverts("CloseNotReady"):
        withdraw(OPEN, 5, after, GRACE, by_payer=True)
    with reverts("NotPayer"):
        withdraw(CLOSING, 5, after, GRACE, by_payer=False)


@pytest.mark.parametrize(
    ("lane", "epoch", "error"),
    [
        (None, 5, "ChannelNotFound"),
        (OPEN, 6, "ChannelNotFound"),
        (FINALIZED, 6, "ChannelNotFound"),
        (OPEN, 4, "ChannelFinalized"),
        (FINALIZED, 5, "ChannelFinalized"),
        (FINALIZED, 4, "ChannelFinalized"),
    ],
)
def test_only_the_living_epoch_can_be_acted_on(
    lane: LaneState | None, epoch: int, error: str
) -> None:
    with reverts(error):
        top_up(lane, epoch, 1, by_payer=True)
    with reverts(error):
        settle(lane, epoch, 50)
    with reverts(error):
        close(lane, epoch, 50, by_payee=True)
    with reverts(error):
        close_with_authorization(lane, epoch, 50, authorized=False)
    with reverts(error):
        request_close(lane, epoch, NOW, by_payer=True)
    with reverts(error):
        withdraw(lane, epoch, NOW, GRACE, by_payer=True)


class Lane(RuleBasedStateMachine):
    """Anybody does anything, at any time, in any epoch; reverted calls change nothing."""

    amounts = st.integers(0, 200) | st.just(DEPOSIT_MAX)
    epochs = st.integers(0, 4)

    def __init__(self) -> None:
        super().__init__()
        self.lane: LaneState | None = None
        self.now = NOW
        self.deposited = 0
        self.paid_out = 0
        self.settled_in_epoch: dict[int, int] = {}
        self.opened_epochs: list[int] = []

    @rule(epoch=epochs, deposit=amounts)
    def open(self, epoch: int, deposit: int) -> None:
        try:
            self.lane = open_channel(self.lane, epoch, deposit)
        except ChainReverted:
            return
        self.opened_epochs.append(epoch)
        self.deposited += deposit

    @precondition(lambda self: self.lane)
    @rule(epoch=epochs, amount=amounts, by_payer=st.booleans())
    def top_up(self, epoch: int, amount: int, *, by_payer: bool) -> None:
        try:
            self.lane = top_up(self.lane, epoch, amount, by_payer=by_payer)
        except ChainReverted:
            return
        self.deposited += amount

    @precondition(lambda self: self.lane)
    @rule(epoch=epochs, cumulative=amounts)
    def settle(self, epoch: int, cumulative: int) -> None:
        self.pay(epoch, lambda: settle(self.lane, epoch, cumulative))

    @precondition(lambda self: self.lane)
    @rule(epoch=epochs, cumulative=amounts, by_payee=st.booleans())
    def close(self, epoch: int, cumulative: int, *, by_payee: bool) -> None:
        self.pay(epoch, lambda: close(self.lane, epoch, cumulative, by_payee=by_payee))

    @precondition(lambda self: self.lane)
    @rule(epoch=epochs, cumulative=amounts, authorized=st.booleans())
    def close_with_authorization(self, epoch: int, cumulative: int, *, authorized: bool) -> None:
        self.pay(
            epoch,
            lambda: close_with_authorization(self.lane, epoch, cumulative, authorized=authorized),
        )

    @precondition(lambda self: self.lane)
    @rule(epoch=epochs, by_payer=st.booleans())
    def withdraw(self, epoch: int, *, by_payer: bool) -> None:
        self.pay(epoch, lambda: withdraw(self.lane, epoch, self.now, GRACE, by_payer=by_payer))

    @precondition(lambda self: self.lane)
    @rule(epoch=epochs, by_payer=st.booleans())
    def request_close(self, epoch: int, *, by_payer: bool) -> None:
        try:
            self.lane = request_close(self.lane, epoch, self.now, by_payer=by_payer)
        except ChainReverted:
            return
        assert self.lane.close_requested_at <= self.now

    @rule(seconds=st.integers(0, 2 * GRACE))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    def pay(self, epoch: int, transition: Callable[[], tuple[LaneState, Payout]]) -> None:
        try:
            self.lane, payout = transition()
        except ChainReverted:
            return
        assert payout.to_payee >= 0
        assert payout.to_payer >= 0
        self.paid_out += payout.to_payee + payout.to_payer
        paid_before = self.settled_in_epoch.get(epoch, 0)
        self.settled_in_epoch[epoch] = paid_before + payout.to_payee

    @invariant()
    def money_is_conserved(self) -> None:
        held = 0
        if self.lane is not None and not self.lane.finalized:
            held = self.lane.deposit - self.lane.settled
        assert self.deposited == self.paid_out + held

    @invariant()
    def settled_is_what_the_payee_got_and_within_the_deposit(self) -> None:
        if self.lane is not None:
            assert self.lane.settled == self.settled_in_epoch.get(self.lane.epoch, 0)
            assert self.lane.settled <= self.lane.deposit <= DEPOSIT_MAX

    @invariant()
    def epochs_only_grow(self) -> None:
        assert self.opened_epochs == sorted(set(self.opened_epochs))


TestLane = Lane.TestCase
