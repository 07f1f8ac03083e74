"""A payer whose books are gone finds its channels on chain, each with its deposit and its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from channelpay.chain.connection import connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.payer.client import Payer
from channelpay.payer.records import PayerChannel
from channelpay.payer.recovery import rebuild
from channelpay.protocol.types import ChannelStatus
from channelpay.testing.furnished import FurnishedChain
from tests.support.chains import sender_of

ETHER = 10**18


def payer_at(furnished: FurnishedChain, books: Path) -> Payer:
    return Payer(
        furnished.chain.accounts[1].private_key,
        furnished.chain.rpc_url,
        books,
        contract=furnished.deployment.contract,
    )


@pytest.fixture
def payer(furnished: FurnishedChain, tmp_path: Path) -> Iterator[Payer]:
    payer = payer_at(furnished, tmp_path / "payer.sqlite3")
    yield payer
    payer.close()


@pytest.fixture
def anew(furnished: FurnishedChain, tmp_path: Path) -> Iterator[Payer]:
    """The same payer with empty books."""
    payer = payer_at(furnished, tmp_path / "new.sqlite3")
    yield payer
    payer.close()


def chain_part(entry: PayerChannel) -> PayerChannel:
    return replace(entry, in_doubt=False, first_block=0)


def test_every_channel_is_found_as_it_was(
    payer: Payer, anew: Payer, furnished: FurnishedChain, contract: PaymentChannelsContract
) -> None:
    payee = furnished.chain.accounts[2]
    plain, grown, closing, closed = (
        payer.open_channel(payee.address, ETHER).channel_id for _ in range(4)
    )
    payer.top_up(grown, ETHER // 2)
    payer.request_close(closing)
    close = contract.close(payer.state.channel(closed).channel)
    sender_of(connect(furnished.chain.rpc_url), payee).send(close)
    reopened = payer.open_channel(payee.address, ETHER).channel_id
    before = {entry.channel_id: entry for entry in payer.channels()}

    rebuilt = rebuild(contract, payer.address, anew.state)
    found = {entry.channel_id: entry for entry in anew.channels()}

    assert set(rebuilt.found) == {plain, grown, closing, closed, reopened}
    assert [chain_part(found[one]) for one in before] == [chain_part(before[one]) for one in before]
    assert all(found[one].in_doubt for one in before)
    assert found[closed].status is ChannelStatus.FINALIZED
    assert anew.state.present_top_ups_again(grown)
    (top_up,) = anew.state.unpresented_top_ups(grown)
    assert top_up.amount == ETHER // 2


def test_what_the_books_know_stays(
    payer: Payer, furnished: FurnishedChain, contract: PaymentChannelsContract
) -> None:
    entry = payer.open_channel(furnished.chain.accounts[2].address, ETHER)
    payer.state.reserve(entry.channel_id, 5, payer._sign)
    before = payer.state.channel(entry.channel_id)

    rebuilt = rebuild(contract, payer.address, payer.state)

    assert (rebuilt.found, rebuilt.known) == ((), 1)
    assert payer.state.channel(entry.channel_id) == before


def test_channels_of_others_and_from_before_are_not_read(
    payer: Payer, anew: Payer, furnished: FurnishedChain, contract: PaymentChannelsContract
) -> None:
    payee = furnished.chain.accounts[2].address
    payer.open_channel(payee, ETHER)
    later = contract.connection.latest_block().number + 1
    second = payer.open_channel(payee, ETHER).channel_id

    assert rebuild(contract, payee, anew.state).found == ()
    assert rebuild(contract, payer.address, anew.state, later).found == (second,)
