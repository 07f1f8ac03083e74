"""What the payee believes of a channel while the chain moves on, or changes its mind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from channelpay.chain.connection import connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.errors import NetworkError, TooFewConfirmations
from channelpay.payee.chain_link import ChainLink
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


def test_confirmations_count_at_the_block_that_the_state_was_read_at(
    contract: PaymentChannelsContract, payer: Payer, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, link = payer.open(), ChainLink(contract, confirmations=2)
    (view,) = link.views([channel.channel])
    payer.furnished.chain.mine()
    monkeypatch.setattr(link, "views", lambda _: [view])

    with pytest.raises(TooFewConfirmations):
        link.opened(channel.id, channel.channel, channel.transaction_hash)

    monkeypatch.setattr(link, "views", lambda _: [replace(view, block=view.block + 1)])
    assert link.opened(channel.id, channel.channel, channel.transaction_hash).state == view.state
