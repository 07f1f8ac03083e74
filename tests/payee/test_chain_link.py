"""What the payee believes of a channel while the chain moves on, or changes its mind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import EventPlace, ToppedUp
from channelpay.errors import ChainBehind, NetworkError, TooFewConfirmations
from channelpay.payee.acceptance import Confirmations
from channelpay.payee.chain_link import STUCK_SECONDS, ChainLink, fresh_of
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, ChannelId
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import DEPOSIT, PRICE, Payer

AroundReads = Callable[[Callable[[], None]], list[int]]


@pytest.fixture
def contract(furnished: FurnishedChain) -> PaymentChannelsContract:
    return PaymentChannelsContract(connect(furnished.chain.rpc_url), furnished.deployment)


@pytest.fixture
def around_reads(monkeypatch: pytest.MonkeyPatch) -> AroundReads:
    """Does something whenever states are about to be read; gives the blocks they were read at."""

    def happen(event: Callable[[], None]) -> list[int]:
        states, blocks = PaymentChannelsContract.states, list[int]()

        def then_read(contract: PaymentChannelsContract, channels: Any, *, block: int) -> object:
            event()
            blocks.append(block)
            return states(contract, channels, block=block)

        monkeypatch.setattr(PaymentChannelsContract, "states", then_read)
        return blocks

    return happen


def test_a_state_is_that_of_its_block_on_a_chain_that_always_moves_on(
    contract: PaymentChannelsContract,
    payer: Payer,
    around_reads: AroundReads,
) -> None:
    channel = payer.open()
    before = contract.connection.latest_block().number

    def top_up() -> None:
        payer.top_up(channel, PRICE)

    blocks = around_reads(top_up)

    (view,) = ChainLink(contract).views([channel.channel])

    assert blocks == [before]
    assert (view.block, view.state.deposit) == (before, DEPOSIT)


def test_a_state_of_a_block_that_was_given_up_is_read_again(
    contract: PaymentChannelsContract,
    payer: Payer,
    around_reads: AroundReads,
) -> None:
    channel, chain = payer.open(), payer.furnished.chain
    snapshot = chain.snapshot()
    payer.top_up(channel, PRICE)
    to_revert = [snapshot]

    def reorganise_once() -> None:
        if to_revert:
            chain.revert(to_revert.pop())
            chain.increase_time(60)
            chain.mine()

    blocks = around_reads(reorganise_once)

    (view,) = ChainLink(contract).views([channel.channel])

    assert len(blocks) == 2
    assert view.block == contract.connection.latest_block().number
    assert view.state.deposit == DEPOSIT


def test_a_chain_that_reorganises_all_the_time_is_trouble_with_the_chain(
    contract: PaymentChannelsContract,
    payer: Payer,
    around_reads: AroundReads,
) -> None:
    channel, chain = payer.open(), payer.furnished.chain

    snapshots, seconds = [chain.snapshot()], count(60, 60)
    chain.mine()

    def reorganise() -> None:
        chain.revert(snapshots.pop())
        snapshots.append(chain.snapshot())
        chain.increase_time(next(seconds))

    around_reads(reorganise)

    with pytest.raises(NetworkError, match="reorganised"):
        ChainLink(contract).views([channel.channel])


def test_the_state_of_a_block_that_is_gone_is_not_told(
    contract: PaymentChannelsContract, payer: Payer
) -> None:
    channel = payer.open()
    head = contract.connection.latest_block()

    with pytest.raises(NetworkError, match="reorganised"):
        ChainLink(contract).views([channel.channel], replace(head, hash=bytes(32)))


def test_confirmations_count_from_the_block_of_the_transaction(
    contract: PaymentChannelsContract, payer: Payer
) -> None:
    channel, link = payer.open(), ChainLink(contract, Confirmations(2))

    with pytest.raises(TooFewConfirmations, match="2 confirmations are needed, 1 are missing"):
        link.opened(channel.id, channel.channel, channel.transaction_hash)
    payer.furnished.chain.mine()

    view, _ = link.opened(channel.id, channel.channel, channel.transaction_hash)
    assert view.state.deposit == DEPOSIT


def test_confirmations_count_at_the_block_that_the_state_is_read_at(
    contract: PaymentChannelsContract, payer: Payer, around_reads: AroundReads
) -> None:
    channel, link = payer.open(), ChainLink(contract, Confirmations(2))
    around_reads(payer.furnished.chain.mine)

    with pytest.raises(TooFewConfirmations):
        link.opened(channel.id, channel.channel, channel.transaction_hash)


def test_an_amount_that_needs_more_confirmations_waits_for_them(
    contract: PaymentChannelsContract, payer: Payer
) -> None:
    token = payer.furnished.token
    link = ChainLink(contract, Confirmations(1, {token: [(DEPOSIT + 1, 3)]}))
    small, large = payer.open(DEPOSIT), payer.open(DEPOSIT + 1)

    link.opened(small.id, small.channel, small.transaction_hash)

    with pytest.raises(TooFewConfirmations):
        link.opened(large.id, large.channel, large.transaction_hash)


def test_a_node_that_is_stuck_is_no_fault_of_the_payers(
    contract: PaymentChannelsContract, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, link = payer.open(), ChainLink(contract, Confirmations(2))
    later = contract.connection.latest_block().timestamp + STUCK_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: later)

    with pytest.raises(ChainBehind):
        link.opened(channel.id, channel.channel, channel.transaction_hash)
    with pytest.raises(ChainBehind):
        link.opened(channel.id, channel.channel, bytes(32))


def test_a_transaction_that_a_reorganisation_took_since_is_waited_for(
    contract: PaymentChannelsContract, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, link = payer.open(), ChainLink(contract)
    top_up = payer.top_up(channel, PRICE)
    view, _ = link.opened(channel.id, channel.channel, channel.transaction_hash)
    receipt = contract.connection.receipt(top_up.transaction_hash)
    chain = payer.furnished.chain
    monkeypatch.setattr(Connection, "receipt", lambda *_: receipt)
    states = PaymentChannelsContract.states

    def without_it(contract: PaymentChannelsContract, channels: Any, *, block: int) -> Any:
        return [
            replace(state, deposit=DEPOSIT) for state in states(contract, channels, block=block)
        ]

    monkeypatch.setattr(PaymentChannelsContract, "states", without_it)
    record = ChannelRecord(channel.id, channel.channel, view.state)
    chain.mine()
    with pytest.raises(TooFewConfirmations, match="reorganised"):
        link.topped_up(record, top_up.transaction_hash, PRICE)


DEPOSITS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 100)), max_size=8)
STEPS = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 20)), max_size=3)


@given(DEPOSITS, STEPS, st.integers(1, 5), st.integers(0, 30))
def test_what_counts_is_covered_by_the_rule_for_all_that_is_not_deep(
    gaps: list[tuple[int, int]], steps: list[tuple[int, int]], default: int, more: int
) -> None:
    """Whatever the pieces: the sum of what counts and may still be lost has enough
    confirmations at its latest piece.
    """
    rising = sorted(dict(steps).items())
    depths = sorted(max(default, depth) for _, depth in rising)
    pairs = zip((amount for amount, _ in rising), depths, strict=True)
    rules = Confirmations(default, {NATIVE: list(pairs)})
    events, block = [], 100
    for gap, amount in gaps:
        block += gap
        place = EventPlace(block, bytes(32), bytes(32), 0)
        events.append(ToppedUp(place, ChannelId(bytes(32)), ZERO_ADDRESS, ZERO_ADDRESS, amount, 0))
    head = block + more

    fresh = fresh_of(rules, NATIVE, 0, events, head)

    counted = events[: len(events) - len(fresh)]
    assert [one.event for one in fresh] == events[len(counted) :]
    if counted:
        together = sum(one.amount for one in counted)
        depth = head - counted[-1].place.block_number + 1
        assert depth >= rules.needed(NATIVE, together)
    assert all(one.missing > 0 for one in fresh)
