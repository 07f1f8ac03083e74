"""The reader gives every event once, in order, and notices when the chain it read is gone."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest

from channelpay.chain.connection import NodeRefused, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import (
    BlockCursor,
    ChannelOpened,
    Event,
    EventFilter,
    EventReader,
    ReorgDetected,
)
from channelpay.chain.sender import Sender
from channelpay.errors import NetworkError
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel
from channelpay.testing import DevChain
from tests.support.chains import Json, Refused, fake_node, sender_of

SOMEBODY = Address(b"\x44" * 20)
Forward = Callable[[], Json]


@pytest.fixture
def payers(chain: DevChain, contract: PaymentChannelsContract) -> list[Sender]:
    return [sender_of(contract.connection, account) for account in chain.accounts[:2]]


def open_channel(
    contract: PaymentChannelsContract, payer: Sender, payee: Address = SOMEBODY
) -> Channel:
    channel = Channel(payer.address, payee, NATIVE, ZERO_ADDRESS, secrets.token_bytes(32))
    payer.send(contract.open(channel, 10))
    return channel


def start(contract: PaymentChannelsContract) -> BlockCursor:
    latest = contract.connection.latest_block()
    return BlockCursor(latest.number, latest.hash)


def read_all(reader: EventReader, cursor: BlockCursor, chunk_blocks: int = 2000) -> list[Event]:
    batches = reader.read(cursor, chunk_blocks=chunk_blocks)
    return [event for batch in batches for event in batch.events]


def channels_of(events: list[Event]) -> list[Channel]:
    return [event.channel for event in events if isinstance(event, ChannelOpened)]


@pytest.mark.parametrize("chunk_blocks", [1, 2, 3, 2000])
def test_every_event_comes_once_and_in_order_whatever_the_chunk(
    chain: DevChain, contract: PaymentChannelsContract, payers: list[Sender], chunk_blocks: int
) -> None:
    cursor = start(contract)
    opened = []
    for _ in range(3):
        opened.append(open_channel(contract, payers[0]))
        chain.mine()
    events = read_all(EventReader(contract), cursor, chunk_blocks)
    assert channels_of(events) == opened
    places = [(event.place.block_number, event.place.log_index) for event in events]
    assert places == sorted(places)


def test_reading_goes_on_from_the_cursor_of_the_last_batch(
    contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    reader, cursor = EventReader(contract), start(contract)
    first = open_channel(contract, payers[0])
    (batch,) = reader.read(cursor)
    assert channels_of(list(batch.events)) == [first]
    assert list(reader.read(batch.cursor)) == []
    second = open_channel(contract, payers[0])
    assert channels_of(read_all(reader, batch.cursor)) == [second]


def test_reading_stops_at_the_block_that_was_named(
    chain: DevChain, contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    cursor = start(contract)
    first = open_channel(contract, payers[0])
    last_block = contract.connection.latest_block().number
    open_channel(contract, payers[0])
    (batch,) = EventReader(contract).read(cursor, to_block=last_block)
    assert channels_of(list(batch.events)) == [first]
    assert batch.cursor.block_number == last_block


def test_filters_select_by_payer_payee_and_channel(
    contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    cursor = start(contract)
    payee = Address(b"\x55" * 20)
    by_first = open_channel(contract, payers[0])
    by_second = open_channel(contract, payers[1])
    to_payee = open_channel(contract, payers[0], payee)
    deployment = contract.deployment

    def select(event_filter: EventFilter) -> list[Channel]:
        return channels_of(read_all(EventReader(contract, event_filter), cursor))

    assert select(EventFilter(payers=frozenset({payers[1].address}))) == [by_second]
    assert select(EventFilter(payees=frozenset({payee}))) == [to_payee]
    ids = frozenset({by_first.id(deployment), to_payee.id(deployment)})
    assert select(EventFilter(channel_ids=ids)) == [by_first, to_payee]
    both = EventFilter(payers=frozenset({payers[0].address}), payees=frozenset({payee}))
    assert select(both) == [to_payee]


def test_a_range_that_the_node_refuses_is_halved(
    chain: DevChain, contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    cursor = start(contract)
    opened = [open_channel(contract, payers[0]) for _ in range(7)]
    ranges: list[int] = []

    def at_most_two_blocks(method: str, params: list[Json], forward: Forward) -> Json:
        if method == "eth_getLogs":
            ranges.append(int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1)
            if ranges[-1] > 2:
                raise Refused("block range is too large")
        return forward()

    with fake_node(chain.rpc_url, at_most_two_blocks) as url:
        limited = PaymentChannelsContract(connect(url), contract.deployment)
        assert channels_of(read_all(EventReader(limited), cursor)) == opened
    assert ranges[:3] == [7, 3, 1]


def test_a_node_that_refuses_even_one_block_is_an_error(
    chain: DevChain, contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    cursor = start(contract)
    open_channel(contract, payers[0])

    def no_logs(method: str, params: list[Json], forward: Forward) -> Json:
        if method == "eth_getLogs":
            raise Refused("logs are not served")
        return forward()

    with fake_node(chain.rpc_url, no_logs) as url:
        limited = PaymentChannelsContract(connect(url), contract.deployment)
        with pytest.raises(NodeRefused, match="logs are not served"):
            read_all(EventReader(limited), cursor)


def test_a_cursor_whose_block_is_gone_is_a_reorg_and_an_older_one_reads_on(
    chain: DevChain, contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    reader, old_cursor = EventReader(contract), start(contract)
    snapshot = chain.snapshot()
    open_channel(contract, payers[0])
    (batch,) = reader.read(old_cursor)

    chain.revert(snapshot)
    chain.increase_time(17)
    chain.mine(2)

    assert not reader.is_canonical(batch.cursor)
    with pytest.raises(ReorgDetected) as caught:
        read_all(reader, batch.cursor)
    assert isinstance(caught.value, NetworkError)
    assert reader.is_canonical(old_cursor)
    assert read_all(reader, old_cursor) == []


def test_a_chain_that_became_shorter_is_a_reorg(
    chain: DevChain, contract: PaymentChannelsContract
) -> None:
    snapshot = chain.snapshot()
    chain.mine(3)
    cursor = start(contract)
    chain.revert(snapshot)
    with pytest.raises(ReorgDetected):
        read_all(EventReader(contract), cursor)


def test_nothing_is_given_out_of_a_chain_that_moved_while_it_was_read(
    chain: DevChain, contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    cursor = start(contract)
    snapshot = chain.snapshot()
    open_channel(contract, payers[0])

    def move_the_chain(method: str, params: list[Json], forward: Forward) -> Json:
        result = forward()
        if method == "eth_getLogs":
            assert result, "there was something to give out"
            chain.revert(snapshot)
            chain.increase_time(17)
            chain.mine(2)
        return result

    with fake_node(chain.rpc_url, move_the_chain) as url:
        moving = PaymentChannelsContract(connect(url), contract.deployment)
        with pytest.raises(ReorgDetected):
            read_all(EventReader(moving), cursor)


def test_a_cursor_can_be_made_at_any_block_there_is(
    contract: PaymentChannelsContract, payers: list[Sender]
) -> None:
    reader = EventReader(contract)
    before = contract.connection.latest_block().number
    opened = open_channel(contract, payers[0])
    assert channels_of(read_all(reader, reader.cursor_at(before))) == [opened]
    with pytest.raises(NetworkError, match="no block"):
        reader.cursor_at(10**9)
