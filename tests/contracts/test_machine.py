"""The contract against the pure model of its life, under random actions of all its users.

Each step is told to both. They must agree on the outcome: the error's name, or the new state and
who is paid what. After each step the contract holds exactly what it owes, and its events alone
say the same as its state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from channelpay.errors import ChainReverted
from channelpay.protocol import lifecycle
from channelpay.protocol.lifecycle import LaneState, Payout
from channelpay.protocol.types import (
    DEPOSIT_MAX,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelState,
)
from channelpay.testing.accounts import DevAccount
from tests.contracts.replay import Replay
from tests.contracts.world import (
    GRACE_SECONDS,
    Receipt,
    Reverted,
    Sender,
    World,
    as_state,
    as_struct,
    new_world,
    reverts,
)

STEPS = 30
T = TypeVar("T")


def mostly(usual: st.SearchStrategy[T], rare: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """One of ten is rare: a refused action teaches less than one that goes through."""
    return st.integers(0, 9).flatmap(lambda number: rare if number == 9 else usual)


amounts = mostly(st.integers(1, 30), st.sampled_from([0, DEPOSIT_MAX + 1, 2**128 - 1]))
vouchers = mostly(st.integers(1, 25), st.sampled_from([0, 100, 2**96 + 5, 2**128 - 1]))
epochs = mostly(st.integers(0, 1), st.sampled_from([2, 3, 2**32 - 1]))
waits = st.sampled_from([1, 60, GRACE_SECONDS - 1, GRACE_SECONDS, GRACE_SECONDS + 1])
anyone = st.sampled_from(["payer", "payee", "stranger"])
signings = mostly(st.just("right"), st.sampled_from(["other key", "next epoch", "other amount"]))

Transition = Callable[[LaneState | None], tuple[LaneState, Payout]]


@cache
def shared_world() -> World:
    """One chain for all examples, with two payers, and a payee that refuses native currency."""
    world = new_world()
    world.deploy_wallet("RevertingWallet")
    for payer in (world.payer, world.stranger, world.accounts[5]):
        world.fund(payer, world.token)
    return world


class ContractMachine(RuleBasedStateMachine):
    """Random users of one contract."""

    channels = Bundle("channels")

    def __init__(self) -> None:
        super().__init__()
        self.world = shared_world()
        self.undo = ExitStack()
        self.undo.enter_context(self.world.rolled_back())
        self.lanes: dict[bytes, LaneState] = {}
        self.known: dict[Channel, ChannelState] = {}
        self.kept: Counter[tuple[bytes, bytes]] = Counter()
        self.replay = Replay(GRACE_SECONDS)
        self.balances = {
            (token, holder): self.world.balance(token, holder)
            for token in self.tokens
            for holder in (*(one.address for one in self.people), self.world.contract.address)
        }
        self.changed = True

    def teardown(self) -> None:
        self.undo.close()

    @property
    def tokens(self) -> tuple[Address, Address]:
        return NATIVE, self.world.token.address

    @property
    def people(self) -> list[Sender]:
        """Payers, payees, one who is neither, and the wallet that refuses native currency."""
        accounts = self.world.accounts
        return [accounts[0], accounts[2], accounts[1], accounts[4], accounts[5], self.wallet]

    @property
    def wallet(self) -> Sender:
        return list(self.world.senders.values())[-1]

    # Actions

    @initialize(target=channels)
    def begin(self) -> MultipleResults[Channel]:
        """Open channels of the kinds that differ most."""
        opened = (
            self._channel(payer=0, payee=0, token=0, with_session_key=False),
            self._channel(payer=0, payee=2, token=0, with_session_key=True),
            self._channel(payer=1, payee=0, token=1, with_session_key=False),
            self._channel(payer=1, payee=2, token=1, with_session_key=False),
        )
        for channel in opened:
            self._open(channel, 20)
        return multiple(*opened)

    @rule(
        target=channels,
        payer=st.integers(0, 1),
        payee=st.integers(0, 2),
        token=st.integers(0, 1),
        with_session_key=st.booleans(),
        lane=st.integers(0, 1),
        epoch=epochs,
        deposit=amounts,
    )
    def open(
        self,
        payer: int,
        payee: int,
        token: int,
        with_session_key: bool,
        lane: int,
        epoch: int,
        deposit: int,
    ) -> Channel:
        """A channel of any two of them."""
        channel = self._channel(payer, payee, token, with_session_key, lane, epoch)
        self._open(channel, deposit)
        return channel

    @rule(
        target=channels,
        channel=channels,
        ahead=mostly(st.just(1), st.sampled_from([-1, 0, 2])),
        deposit=amounts,
    )
    def reopen(self, channel: Channel, ahead: int, deposit: int) -> Channel:
        again = channel.with_epoch((channel.epoch + ahead) % 2**32)
        self._open(again, deposit)
        return again

    @rule(channel=channels, amount=amounts, sender=st.sampled_from(["payer", "stranger"]))
    def top_up(self, channel: Channel, amount: int, sender: str) -> None:
        account = self._sender(channel, sender)

        def expected(lane: LaneState | None) -> tuple[LaneState, Payout]:
            by_payer = account.address == channel.payer
            return lifecycle.top_up(lane, channel.epoch, amount, by_payer=by_payer), Payout()

        value = _value(channel, amount)
        self._step(
            channel,
            expected,
            lambda: self.world.top_up(channel, amount, sender=account, value=value),
            deposit=(account.address, amount),
        )

    @rule(channel=channels, cumulative=vouchers, sender=anyone, signing=signings)
    def settle(self, channel: Channel, cumulative: int, sender: str, signing: str) -> None:
        def expected(lane: LaneState | None) -> tuple[LaneState, Payout]:
            result = lifecycle.settle(lane, channel.epoch, cumulative)
            if signing != "right":
                raise ChainReverted(error="InvalidSignature")
            return result

        signature = self._signature(channel, cumulative, signing)
        account = self._sender(channel, sender)
        self._step(
            channel,
            expected,
            lambda: self.world.settle(channel, cumulative, signature, sender=account),
        )

    @rule(
        channel=channels,
        cumulative=vouchers,
        sender=mostly(st.just("payee"), anyone),
        signing=signings,
    )
    def close(self, channel: Channel, cumulative: int, sender: str, signing: str) -> None:
        account = self._sender(channel, sender)

        def expected(lane: LaneState | None) -> tuple[LaneState, Payout]:
            by_payee = account.address == channel.payee
            result = lifecycle.close(lane, channel.epoch, cumulative, by_payee=by_payee)
            if signing != "right" and result[1].to_payee:
                raise ChainReverted(error="InvalidSignature")
            return result

        signature = self._signature(channel, cumulative, signing)
        self._step(
            channel,
            expected,
            lambda: self.world.close(channel, cumulative, signature, sender=account),
        )

    @rule(channel=channels, sender=mostly(st.just("payer"), anyone))
    def request_close(self, channel: Channel, sender: str) -> None:
        account = self._sender(channel, sender)
        now = self.world.chain.pending_header().timestamp

        def expected(lane: LaneState | None) -> tuple[LaneState, Payout]:
            by_payer = account.address == channel.payer
            return lifecycle.request_close(lane, channel.epoch, now, by_payer=by_payer), Payout()

        self._step(channel, expected, lambda: self.world.request_close(channel, sender=account))

    @rule(
        channel=channels,
        sender=mostly(st.just("payer"), anyone),
        seconds_late=st.sampled_from([-1, 0, 1]),
    )
    def withdraw(self, channel: Channel, sender: str, seconds_late: int) -> None:
        """Around the second in which the grace period ends, where it is still ahead."""
        account = self._sender(channel, sender)
        lane = self.lanes.get(channel.lane)
        if lane and lane.close_requested_at and not lane.finalized:
            due = lane.close_requested_at + GRACE_SECONDS + seconds_late
            self.world.next_block_at(max(due, self.world.timestamp + 1))
        now = self.world.chain.pending_header().timestamp

        def expected(lane: LaneState | None) -> tuple[LaneState, Payout]:
            by_payer = account.address == channel.payer
            return lifecycle.withdraw(lane, channel.epoch, now, GRACE_SECONDS, by_payer=by_payer)

        self._step(channel, expected, lambda: self.world.withdraw(channel, sender=account))

    @rule(
        token=st.integers(0, 1),
        holder=mostly(st.just(5), st.integers(0, 4)),
        receiver=st.integers(0, 4),
    )
    def claim(self, token: int, holder: int, receiver: int) -> None:
        sender = self.people[holder]
        account, asset = self.people[receiver].address, self.tokens[token]
        share = self.kept[asset, sender.address]
        if not share:
            with reverts("NothingToClaim"):
                self.world.claim(sender, asset, account)
            return
        receipt = self.world.claim(sender, asset, account)
        self.kept[asset, sender.address] = 0
        self._move(asset, self.world.contract.address, account, share)
        self._read(receipt)

    @rule(seconds=waits)
    def wait(self, seconds: int) -> None:
        """Move the next block's time."""
        self.world.next_block_at(self.world.timestamp + seconds)

    # Invariants

    @invariant()
    def all_that_must_hold_does(self) -> None:
        """Only after a step that changed something: a revert leaves no trace."""
        if not self.changed:
            return
        self.changed = False
        self.every_view_says_what_the_model_says()
        self.the_contract_holds_exactly_what_it_owes()
        self.everyone_has_what_the_model_paid()
        self.events_alone_rebuild_the_state()

    def every_view_says_what_the_model_says(self) -> None:
        structs = [as_struct(channel) for channel in self.known]
        answers = self.world.read(self.world.contract, "channelStates", structs)
        for (channel, before), answer in zip(list(self.known.items()), answers, strict=True):
            state, lane = as_state(answer), self.lanes.get(channel.lane)
            assert state == (lane.view(channel.epoch) if lane else ChannelState(before.status))
            assert state.settled <= state.deposit
            if lane and lane.epoch == channel.epoch:
                assert (state.settled, state.deposit) >= (before.settled, before.deposit)
            self.known[channel] = state

    def the_contract_holds_exactly_what_it_owes(self) -> None:
        owed: Counter[bytes] = Counter()
        for (token, _), share in self.kept.items():
            owed[token] += share
        for channel, state in self.known.items():
            live = self.lanes.get(channel.lane)
            if live and live.epoch == channel.epoch and not live.finalized:
                owed[channel.token] += state.deposit - state.settled
        for token in self.tokens:
            assert self.world.balance(token, self.world.contract.address) == owed[token]

    def everyone_has_what_the_model_paid(self) -> None:
        for (token, holder), expected in self.balances.items():
            assert self.world.balance(token, Address(holder)) == expected

    def events_alone_rebuild_the_state(self) -> None:
        assert self.replay.lanes == self.lanes
        assert +self.replay.kept == +self.kept

    # Details

    def _channel(
        self,
        payer: int,
        payee: int,
        token: int,
        with_session_key: bool,
        lane: int = 0,
        epoch: int = 0,
    ) -> Channel:
        return Channel(
            self.people[payer].address,
            (self.people[2], self.people[3], self.wallet)[payee].address,
            self.tokens[token],
            self.world.session_key.address if with_session_key else ZERO_ADDRESS,
            (lane << 32 | epoch).to_bytes(32, "big"),
        )

    def _open(self, channel: Channel, deposit: int) -> None:
        def expected(lane: LaneState | None) -> tuple[LaneState, Payout]:
            return lifecycle.open_channel(lane, channel.epoch, deposit), Payout()

        self.known.setdefault(channel, self.world.state(channel))
        value = _value(channel, deposit)
        self._step(
            channel,
            expected,
            lambda: self.world.open(channel, deposit, value=value),
            deposit=(channel.payer, deposit),
        )

    def _step(
        self,
        channel: Channel,
        expected: Transition,
        act: Callable[[], Receipt],
        deposit: tuple[bytes, int] | None = None,
    ) -> None:
        """Do it in the model and on the chain; compare."""
        outcome = _outcome(expected, self.lanes.get(channel.lane))
        if isinstance(outcome, ChainReverted):
            with pytest.raises(Reverted, match=rf"^{outcome.error}\("):
                act()
            return
        receipt = act()
        self.lanes[channel.lane], payout = outcome
        contract = self.world.contract.address
        if deposit:
            self._move(channel.token, deposit[0], contract, deposit[1])
        self._pay(channel.token, channel.payee, payout.to_payee)
        self._pay(channel.token, channel.payer, payout.to_payer)
        self._read(receipt)

    def _pay(self, token: Address, account: Address, amount: int) -> None:
        """The wallet takes tokens and refuses native currency."""
        if token == NATIVE and not isinstance(self.world.senders[account], DevAccount):
            self.kept[token, account] += amount
        else:
            self._move(token, self.world.contract.address, account, amount)

    def _move(self, token: bytes, giver: bytes, taker: bytes, amount: int) -> None:
        self.balances[token, giver] -= amount  # type: ignore[index]
        self.balances[token, taker] += amount  # type: ignore[index]

    def _read(self, receipt: Receipt) -> None:
        self.changed = True
        for event in receipt.events:
            self.replay.feed(event)

    def _sender(self, channel: Channel, who: str) -> Sender:
        if who == "stranger":
            return self.people[4]
        return self.world.senders[getattr(channel, who)]

    def _signature(self, channel: Channel, cumulative: int, signing: str) -> bytes:
        if signing == "other key":
            return self.world.sign_as(self.world.payee, self.world.id(channel), cumulative)
        if signing == "next epoch":
            return self.world.sign(channel.with_epoch((channel.epoch + 1) % 2**32), cumulative)
        return self.world.sign(channel, cumulative if signing == "right" else cumulative ^ 1)


def _outcome(
    expected: Transition, lane: LaneState | None
) -> tuple[LaneState, Payout] | ChainReverted:
    try:
        return expected(lane)
    except ChainReverted as refusal:
        return refusal


def _value(channel: Channel, amount: int) -> int:
    """What comes with a deposit; nobody owns the amounts that do not fit."""
    return amount if channel.token == NATIVE and amount <= DEPOSIT_MAX else 0


@pytest.mark.hypothesis
def test_the_contract_does_what_the_model_does() -> None:
    # A run of thirty steps is worth several examples of other tests, and takes as long.
    examples = settings().max_examples // 3
    run_state_machine_as_test(
        ContractMachine, settings=settings(stateful_step_count=STEPS, max_examples=examples)
    )
