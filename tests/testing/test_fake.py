"""What the fake chain does beyond what all chains do: waiting transactions, and other branches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eth_account import Account

from channelpay.chain.connection import Connection, connect
from channelpay.chain.create2 import DEPLOYER, SALT
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall
from channelpay.protocol.types import Address, ChannelStatus
from channelpay.testing import (
    ChannelFactory,
    FakeClock,
    FurnishedChain,
    fake_chain,
    furnish,
)
from channelpay.testing.execution import TransactionRejected, UnknownBlock
from channelpay.testing.fake import FakeChain, FakeDevChain

RECEIVER = Address(b"\x22" * 20)
PAYMENT = ContractCall(RECEIVER, value_wei=7)
GAS = 21_000


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def dev_chain(clock: FakeClock) -> Iterator[FakeDevChain]:
    with fake_chain(clock=clock) as chain:
        yield chain


@pytest.fixture
def fake(dev_chain: FakeDevChain) -> FakeChain:
    return dev_chain.fake


@pytest.fixture
def node(dev_chain: FakeDevChain) -> Connection:
    return connect(dev_chain.rpc_url)


@pytest.fixture
def sender(dev_chain: FakeDevChain, node: Connection) -> Sender:
    return Sender(node, Account.from_key(dev_chain.accounts[0].private_key))


@pytest.fixture
def furnished_fake(dev_chain: FakeDevChain) -> FurnishedChain:
    return furnish(dev_chain)


def raw(dev_chain: FakeDevChain, nonce: int, fee_wei: int, tip_wei: int = 10**9) -> bytes:
    account = Account.from_key(dev_chain.accounts[0].private_key)
    fields = {"type": 2, "chainId": 31337, "nonce": nonce, "to": "0x" + RECEIVER.hex()}
    fees = {"gas": GAS, "value": 7, "maxFeePerGas": fee_wei, "maxPriorityFeePerGas": tip_wei}
    return bytes(account.sign_transaction(fields | fees).raw_transaction)


def test_a_held_transaction_is_known_and_not_mined_until_a_block_comes(
    fake: FakeChain, node: Connection, sender: Sender
) -> None:
    fake.hold_transactions()
    first, second = sender.submit(PAYMENT), sender.submit(PAYMENT)

    assert node.has_transaction(first)
    assert node.receipt(first) is None
    assert node.next_nonce(sender.address) == 2
    assert node.used_nonces(sender.address) == 0

    fake.release_transactions()
    receipts = [node.receipt(one) for one in (first, second)]
    assert [receipt is not None and receipt.block_number for receipt in receipts] == [1, 1]
    assert node.balance_wei(RECEIVER) == 14


def test_a_waiting_transaction_is_replaced_only_for_a_tenth_more(
    dev_chain: FakeDevChain, fake: FakeChain
) -> None:
    fake.hold_transactions()
    fake.submit(raw(dev_chain, 0, 10**10))
    with pytest.raises(TransactionRejected, match="underpriced"):
        fake.submit(raw(dev_chain, 0, 10**10 + 10**9, 10**9))
    better = fake.submit(raw(dev_chain, 0, 10**10 + 10**9, 11 * 10**8))

    assert [one.hash for one in fake.waiting] == [better]
    fake.release_transactions()
    assert fake.head.world.balance(RECEIVER) == 7


def test_what_is_dropped_is_unknown_and_its_nonce_free_again(
    fake: FakeChain, node: Connection, sender: Sender
) -> None:
    fake.hold_transactions()
    dropped = sender.submit(PAYMENT)
    fake.drop_transactions()
    assert not node.has_transaction(dropped)
    assert node.next_nonce(sender.address) == 0


def test_what_cannot_pay_the_base_fee_waits(dev_chain: FakeDevChain, fake: FakeChain) -> None:
    fake.hold_transactions()
    base_fee = fake.head.next_base_fee_wei
    fake.submit(raw(dev_chain, 0, base_fee, 1))
    for mined in range(3):
        fee_before = fake.head.next_base_fee_wei
        fake.mine()
        assert fake.head.base_fee_wei == fee_before, mined
    assert fake.waiting == ()


@pytest.mark.parametrize("keep_transactions", [True, False])
def test_a_reorganisation_gives_other_blocks_with_or_without_the_transactions(
    fake: FakeChain, node: Connection, sender: Sender, *, keep_transactions: bool
) -> None:
    transaction_hash = sender.submit(PAYMENT)
    fake.mine()
    before = [fake.block_at(number).hash for number in range(3)]

    fake.reorganize(2, keep_transactions=keep_transactions)

    after = [fake.block_at(number).hash for number in range(3)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False, False]
    assert node.has_transaction(transaction_hash) == keep_transactions
    assert node.balance_wei(RECEIVER) == (7 if keep_transactions else 0)
    assert node.used_nonces(sender.address) == int(keep_transactions)


def test_a_channel_that_a_reorganisation_takes_back_is_absent(
    furnished_fake: FurnishedChain, fake: FakeChain
) -> None:
    channel = ChannelFactory(furnished_fake)(1000)
    fake.reorganize(1, keep_transactions=False)
    assert channel.state().status is ChannelStatus.ABSENT


def test_no_more_blocks_are_taken_back_than_there_are(fake: FakeChain) -> None:
    fake.mine()
    for depth in (0, 2):
        with pytest.raises(UnknownBlock):
            fake.reorganize(depth)


def test_the_chains_time_is_that_of_its_clock(fake: FakeChain, clock: FakeClock) -> None:
    fake.mine()
    clock.advance(5000)
    before = fake.head.timestamp
    fake.mine()
    assert fake.head.timestamp - before == 5000 - 1


def test_other_code_is_refused_and_nothing_of_it_is_mined(sender: Sender, fake: FakeChain) -> None:
    with pytest.raises(Exception, match="runs no other code"):
        sender.send(ContractCall(DEPLOYER, SALT + b"\x60\x00"))
    assert fake.height == 0
