"""The sender that does not get stuck: no gap, nothing twice, and in the end all is mined."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.fees import GWEI, FeeMarket, FeePolicy, Fees
from channelpay.chain.outgoing import LOST_BLOCKS, TransactionSender
from channelpay.chain.sender import NotConfirmed
from channelpay.errors import (
    BudgetExceeded,
    ChainReverted,
    InsufficientFunds,
    NetworkError,
    NotFound,
)
from channelpay.protocol.transactions import Outbox, Outgoing, TransactionStatus
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Channel
from channelpay.store import open_store
from channelpay.testing import anvil_chain
from channelpay.testing.clock import FakeClock
from tests.chain.mortal import (
    PATIENCE_SECONDS,
    RECEIVER,
    Fate,
    Killed,
    mortal_sender,
    payment,
)
from tests.chain.world import POLICY, Anvil, check_books, end_all, sender_of
from tests.support.chains import Json, fake_node
from tests.support.rpc_faults import Down, TransactionsDropped, faulty_node

ROOT = Path(__file__).parents[2]
CONFIRMED, FAILED = TransactionStatus.CONFIRMED, TransactionStatus.FAILED
PENDING = TransactionStatus.PENDING


@pytest.fixture(scope="module")
def running() -> Iterator[Anvil]:
    with anvil_chain() as chain:
        yield Anvil(chain)


@pytest.fixture
def anvil(running: Anvil) -> Iterator[Anvil]:
    snapshot = running.chain.snapshot()
    # It would mine a little after it took a transaction; a test says when.
    running.automine(False)
    yield running
    running.forget_pool()
    running.chain.revert(snapshot)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "books"


@pytest.fixture
def store(file: Path) -> Iterator[Outbox]:
    opened = open_store(f"sqlite:///{file}")
    yield opened
    opened.close()


@pytest.fixture
def sender(anvil: Anvil, store: Outbox, clock: FakeClock) -> TransactionSender:
    return sender_of(anvil, store, clock)


def offers(outgoing: Outgoing) -> list[Fees]:
    return [Fees(one.max_fee_wei, one.tip_wei) for one in outgoing.broadcasts]


def one_pending(sender: TransactionSender) -> Outgoing:
    (outgoing,) = sender.outbox.pending(31337, sender.address)
    return outgoing


# --- sending and confirming ----------------------------------------------------------------------


def test_a_transaction_is_in_the_journal_before_any_node_has_it(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    fate = Fate(2)  # Journaled, and not broadcast yet.
    with pytest.raises(Killed):
        mortal_sender(anvil.connection, 0, store, fate, clock, POLICY).send(payment(1), "first")
    (journaled,) = store.pending(31337, anvil.accounts[0].address)
    assert (journaled.purpose, journaled.nonce, journaled.to) == ("first", 0, RECEIVER)
    assert not anvil.connection.has_transaction(journaled.broadcasts[0].hash)


def test_what_is_confirmed_ends_with_its_block_and_its_cost(
    anvil: Anvil, sender: TransactionSender
) -> None:
    sent = sender.send(payment(7), "settle")
    assert sent.status is PENDING
    assert sender.step() == []
    anvil.mine()
    (ended,) = sender.step()
    receipt = anvil.connection.receipt(sent.broadcasts[0].hash)
    assert receipt is not None
    assert (ended.number, ended.status, ended.mined) == (
        sent.number,
        CONFIRMED,
        sent.broadcasts[0].hash,
    )
    assert (ended.block_number, ended.block_hash) == (receipt.block_number, receipt.block_hash)
    assert ended.fee_wei == receipt.fee_wei > 0
    assert sender.step() == []
    assert anvil.received() == 7


def test_it_ends_only_after_its_confirmations(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    sender = sender_of(anvil, store, clock, FeePolicy(confirmations=3))
    sender.send(payment(1), "settle")
    for _ in range(3):
        assert sender.step() == []
        anvil.mine()
    assert len(sender.step()) == 1


def test_a_receipt_of_a_block_that_is_not_in_the_chain_ends_nothing(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    def of_another_block(method: str, params: list[Json], forward: Callable[[], Json]) -> Json:
        result = forward()
        if method == "eth_getTransactionReceipt":
            return result | {"blockHash": "0x" + "77" * 32}
        return result

    sender_of(anvil, store, clock).send(payment(1), "settle")
    anvil.mine()
    with fake_node(anvil.chain.rpc_url, of_another_block) as url:
        account = Account.from_key(anvil.accounts[0].private_key)
        assert TransactionSender(connect(url), account, store, POLICY, clock).step() == []
    assert len(sender_of(anvil, store, clock).step()) == 1


def test_waiting_gives_the_receipt_and_leaves_the_end_to_be_told(
    anvil: Anvil, sender: TransactionSender
) -> None:
    sent = sender.send(payment(1), "close")
    anvil.mine()
    assert sender.wait(sent.number, 20).succeeded
    assert [one.number for one in sender.step()] == [sent.number]
    assert sender.wait(sent.number, 20).succeeded


def test_waiting_ends_at_the_deadline(anvil: Anvil, sender: TransactionSender) -> None:
    sent = sender.send(payment(1), "close")
    with pytest.raises(NotConfirmed) as caught:
        sender.wait(sent.number, 0.1)
    assert caught.value.context["txHash"] == "0x" + sent.broadcasts[0].hash.hex()
    with pytest.raises(NotFound):
        sender.wait(sent.number + 1, 0.1)


def test_what_is_mined_and_reverts_has_failed_and_says_why(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    contract = anvil.furnished_contract()
    account = anvil.accounts[1]
    sender = TransactionSender(
        anvil.connection, Account.from_key(account.private_key), store, POLICY, clock
    )
    channel = Channel(account.address, RECEIVER, NATIVE, ZERO_ADDRESS, bytes(32))
    numbers = [sender.send(contract.open(channel, 5), "open").number for _ in range(2)]
    anvil.mine()
    ended = sender.step()
    assert [one.status for one in ended] == [CONFIRMED, FAILED]
    with pytest.raises(ChainReverted, match="ChannelAlreadyExists"):
        sender.wait(numbers[1], 20)


# --- nothing is sent that cannot be paid or would fail -------------------------------------------


def test_a_call_that_would_revert_is_not_journaled(
    anvil: Anvil, sender: TransactionSender, store: Outbox
) -> None:
    contract = anvil.furnished_contract()
    channel = Channel(sender.address, RECEIVER, NATIVE, ZERO_ADDRESS, bytes(32))
    with pytest.raises(ChainReverted, match="ChannelNotFound"):
        sender.send(contract.top_up(channel, 1), "top up")
    assert store.transactions() == []


def test_an_account_without_gas_money_is_a_clear_stop(
    anvil: Anvil, sender: TransactionSender, store: Outbox
) -> None:
    anvil.fund(sender.address, 10_000)
    with pytest.raises(InsufficientFunds, match=r"has .* and needs"):
        sender.send(payment(1), "settle")
    assert store.transactions() == []


def test_what_is_on_its_way_is_counted_before_more_is_sent(
    anvil: Anvil, sender: TransactionSender, store: Outbox
) -> None:
    first = sender.send(payment(1), "settle")
    reserved = first.gas * first.broadcasts[0].max_fee_wei
    anvil.fund(sender.address, reserved * 3 // 2)
    with pytest.raises(InsufficientFunds, match=r"has .* and needs"):
        sender.send(payment(2), "settle")
    assert len(store.transactions()) == 1


def test_money_that_went_away_stops_the_step_until_there_is_more(
    anvil: Anvil, sender: TransactionSender, clock: FakeClock
) -> None:
    sender.send(payment(1), "settle")
    anvil.forget_pool()
    anvil.fund(sender.address, 1000)
    for _ in range(2):
        with pytest.raises(InsufficientFunds):
            sender.step()
    with pytest.raises(NotConfirmed, match="cannot pay transaction 1"):
        sender.wait(sender.outbox.transactions()[0].number)
    anvil.fund(sender.address, 10**18)
    assert sender.step() == []
    anvil.mine()
    assert [one.status for one in sender.step()] == [CONFIRMED]


def test_an_offer_is_never_more_than_the_account_can_pay(
    anvil: Anvil, sender: TransactionSender
) -> None:
    market = FeeMarket(anvil.connection.next_base_fee_wei(), anvil.connection.suggested_tip_wei())
    just_enough = int(21_000 * 1.2 * market.price_wei * 1.3) + 1
    anvil.fund(sender.address, just_enough)
    sent = sender.send(payment(1), "settle", urgency=1.0)
    assert sent.gas * sent.broadcasts[0].max_fee_wei + 1 <= just_enough
    anvil.mine()
    assert [one.status for one in sender.step()] == [CONFIRMED]


def test_gas_over_the_policys_limit_is_not_journaled(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    sender = sender_of(anvil, store, clock, FeePolicy(fee_per_gas_wei_max=1000))
    with pytest.raises(BudgetExceeded):
        sender.send(payment(1), "settle")
    assert store.transactions() == []


# --- getting in ----------------------------------------------------------------------------------


def test_a_base_fee_that_rises_tenfold_is_followed_until_the_transaction_is_in(
    anvil: Anvil, sender: TransactionSender, clock: FakeClock
) -> None:
    anvil.mine(base_fee_wei=GWEI)
    first = sender.send(payment(3), "settle")
    behind = sender.send(payment(4), "settle")
    ended: list[Outgoing] = []
    for _ in range(30):
        anvil.mine(base_fee_wei=10 * GWEI)
        ended += sender.step()
        if len(ended) == 2:
            break
        clock.advance(PATIENCE_SECONDS)
    assert [(one.number, one.status) for one in ended] == [
        (first.number, CONFIRMED),
        (behind.number, CONFIRMED),
    ]
    assert anvil.received() == 7
    for one in ended:
        assert len(one.broadcasts) > 1
        for before, after in zip(offers(one), offers(one)[1:], strict=False):
            assert after.max_fee_wei * 8 >= before.max_fee_wei * 9
            assert after.tip_wei * 8 >= before.tip_wei * 9


@pytest.mark.parametrize("hurry", [0.0, 0.5])
def test_an_offer_is_not_raised_again_before_there_was_a_block_for_it(
    anvil: Anvil, sender: TransactionSender, clock: FakeClock, hurry: float
) -> None:
    """A chain that stands still, or a node that does: what is offered meanwhile is paid later."""
    sender.send(payment(1), "settle")
    for _ in range(10):
        clock.advance(PATIENCE_SECONDS)
        sender.step(lambda _: hurry)
    assert len(one_pending(sender).broadcasts) == 2
    anvil.forget_pool()
    anvil.mine()
    sender.step(lambda _: hurry)
    assert len(one_pending(sender).broadcasts) == 3


def test_an_offer_that_is_good_enough_waits_for_its_time(
    anvil: Anvil, sender: TransactionSender, clock: FakeClock
) -> None:
    sender.send(payment(1), "settle")
    sender.send(payment(2), "settle")
    clock.advance(PATIENCE_SECONDS - 1)
    sender.step()
    assert all(len(one.broadcasts) == 1 for one in sender.outbox.transactions())
    clock.advance(1)
    sender.step()
    second, first = sender.outbox.transactions()
    # The second one waits for the first, and for nothing else.
    assert (len(first.broadcasts), len(second.broadcasts)) == (2, 1)


def test_urgency_raises_an_offer_at_once_up_to_the_policys_limit(
    anvil: Anvil, sender: TransactionSender, clock: FakeClock
) -> None:
    sender.send(payment(1), "close")
    clock.advance(1)
    sender.step(lambda _: 1.0)
    last = one_pending(sender).broadcasts[-1]
    assert last.max_fee_wei == POLICY.fee_per_gas_wei_max
    assert last.tip_wei >= POLICY.tip_per_gas_wei_urgent
    sender.step(lambda _: 1.0)
    assert one_pending(sender).broadcasts[-1] == last


def test_a_clock_that_was_put_back_keeps_no_transaction_waiting(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    sender_of(anvil, store, clock).send(payment(1), "settle")
    earlier = sender_of(anvil, store, FakeClock(clock() - 10**6))
    earlier.step()
    assert len(one_pending(earlier).broadcasts) == 2


def test_what_the_nodes_lost_is_sent_again_byte_for_byte(
    anvil: Anvil, sender: TransactionSender
) -> None:
    sent = sender.send(payment(1), "settle")
    anvil.forget_pool()
    assert not anvil.connection.has_transaction(sent.broadcasts[0].hash)
    sender.step()
    assert anvil.connection.has_transaction(sent.broadcasts[0].hash)
    assert one_pending(sender).broadcasts == sent.broadcasts


def test_a_node_that_swallows_transactions_holds_nothing_up(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    with faulty_node(anvil.chain.rpc_url) as node:
        node.behave(TransactionsDropped())
        account = Account.from_key(anvil.accounts[0].private_key)
        sender = TransactionSender(connect(node.url), account, store, POLICY, clock)
        sender.send(payment(1), "settle")
        assert sender.step() == []
        node.behave()
        sender.step()
        anvil.mine()
        assert [one.status for one in sender.step()] == [CONFIRMED]


def test_an_outage_between_journal_and_broadcast_costs_nothing_but_time(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    with faulty_node(anvil.chain.rpc_url) as node:
        account = Account.from_key(anvil.accounts[0].private_key)
        sender = TransactionSender(connect(node.url), account, store, POLICY, clock)
        with pytest.raises(Killed):
            mortal_sender(anvil.connection, 0, store, Fate(1), clock, POLICY).send(
                payment(1), "settle"
            )
        node.behave(Down())
        for attempt in (sender.step, lambda: sender.send(payment(2), "settle")):
            with pytest.raises(NetworkError):
                attempt()
        node.behave()
        sender.step()
        sender.send(payment(2), "settle")
        anvil.mine()
        ended = sender.step()
        assert [one.nonce for one in ended] == [0, 1]


# --- others, and reorganisations -----------------------------------------------------------------


def test_a_nonce_that_another_program_used_is_noticed_and_not_a_success(
    anvil: Anvil, sender: TransactionSender
) -> None:
    sent = sender.send(payment(5), "settle")
    anvil.forget_pool()
    anvil.send_as_another_program(sender.address, nonce=0)
    anvil.mine()
    assert sender.step() == []
    anvil.chain.mine(LOST_BLOCKS - 1)
    (ended,) = sender.step()
    assert (ended.number, ended.status, ended.mined) == (sent.number, FAILED, None)
    with pytest.raises(ChainReverted, match="took its nonce"):
        sender.wait(sent.number, 20)
    sender.send(payment(6), "settle")
    anvil.mine()
    assert [one.status for one in sender.step()] == [CONFIRMED]
    assert anvil.received() == 6


def test_a_receipt_that_the_node_finds_late_is_waited_for(
    anvil: Anvil, store: Outbox, clock: FakeClock
) -> None:
    found = False

    def late(method: str, _: list[Json], forward: Callable[[], Json]) -> Json:
        return None if method == "eth_getTransactionReceipt" and not found else forward()

    with fake_node(anvil.chain.rpc_url, late) as url:
        account = Account.from_key(anvil.chain.accounts[0].private_key)
        sender = TransactionSender(connect(url), account, store, POLICY, clock)
        sender.send(payment(1), "close")
        anvil.mine()
        too_early = sender.step()
        found = True
        (ended,) = sender.step()
    assert (too_early, ended.status) == ([], CONFIRMED)


@pytest.mark.parametrize("depth", [1, 5, 20])
def test_a_reorganisation_brings_back_what_had_ended_and_it_is_sent_again(
    anvil: Anvil, sender: TransactionSender, depth: int
) -> None:
    anvil.chain.mine(20)
    sent = []
    for amount in (1, 2):
        sent.append(sender.send(payment(amount), "settle"))
        anvil.mine()
    assert len(sender.step()) == 2
    anvil.chain.mine(max(0, depth - 2))
    anvil.reorganise(depth)
    anvil.forget_pool()
    reverted = anvil.connection.used_nonces(sender.address)
    assert reverted < 2
    sender.step()
    assert len(sender.outbox.pending(31337, sender.address)) == 2 - reverted
    anvil.mine()
    ended = sender.step()
    assert [one.number for one in ended] == [one.number for one in sent[reverted:]]
    assert all(one.status is CONFIRMED for one in ended)
    assert anvil.received() == 3


def test_a_gap_that_another_program_left_is_filled(anvil: Anvil, sender: TransactionSender) -> None:
    anvil.send_as_another_program(sender.address, nonce=0)
    anvil.mine()
    sent = sender.send(payment(5), "settle")
    anvil.mine()
    sender.step()
    anvil.reorganise(2)
    anvil.forget_pool()
    assert anvil.connection.used_nonces(sender.address) == 0
    sender.step()
    anvil.mine()
    ended = sender.step()
    assert [(one.nonce, one.status) for one in ended] == [(0, CONFIRMED), (1, CONFIRMED)]
    assert (ended[0].value_wei, ended[1].number) == (0, sent.number)
    assert anvil.received() == 5


def test_no_nonce_is_given_away_twice_after_a_reorganisation(
    anvil: Anvil, sender: TransactionSender
) -> None:
    sender.send(payment(1), "settle")
    anvil.mine()
    sender.step()
    anvil.reorganise(1)
    anvil.forget_pool()
    assert sender.send(payment(2), "settle").nonce == 1
    sender.step()
    anvil.mine()
    sender.step()
    assert anvil.received() == 3


# --- several senders -----------------------------------------------------------------------------


def test_threads_and_stores_share_an_account_without_sharing_a_nonce(
    anvil: Anvil, file: Path, clock: FakeClock
) -> None:
    stores = [open_store(f"sqlite:///{file}") for _ in range(2)]
    senders = [sender_of(anvil, store, clock) for store in stores]
    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(senders[n % 2].send, payment(2**n), str(n)) for n in range(12)]
        nonces = sorted(one.result().nonce for one in work)
    assert nonces == list(range(12))
    end_all(anvil, stores[0], clock)
    assert anvil.received() == 2**12 - 1
    assert {one.status for one in stores[0].transactions()} == {CONFIRMED}
    for store in stores:
        store.close()


def test_two_processes_share_an_account(anvil: Anvil, file: Path, clock: FakeClock) -> None:
    never = 10**6
    amounts = [["1", "2", "4", "8"], ["16", "32", "64", "128"]]
    processes = [start(anvil, file, never, *some) for some in amounts]
    for process in processes:
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
    store = open_store(f"sqlite:///{file}")
    end_all(anvil, store, clock)
    assert sorted(one.nonce for one in store.transactions()) == list(range(8))
    assert anvil.received() == 255
    store.close()


# --- killed at every step ------------------------------------------------------------------------


def start(anvil: Anvil, file: Path, end_at: int, *verbs: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "tests.chain.mortal", anvil.chain.rpc_url, str(file), "0"]
    return subprocess.Popen(
        [*program, str(end_at), *verbs], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


MOMENTS = {
    0: "before the first is journaled",
    1: "after it is journaled",
    2: "before it is broadcast",
    3: "after it is broadcast",
    4: "before its replacement is journaled",
    5: "after its replacement is journaled",
    6: "before its replacement is broadcast",
    7: "after its replacement is broadcast",
    8: "before the second is journaled",
    9: "after the second is journaled",
}


@pytest.mark.parametrize("moment", MOMENTS, ids=list(MOMENTS.values()))
def test_a_process_that_is_killed_leaves_no_gap_and_nothing_twice(
    anvil: Anvil, file: Path, clock: FakeClock, moment: int
) -> None:
    process = start(anvil, file, moment, "1", "later", "2")
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, complaints
    store = open_store(f"sqlite:///{file}")
    sender = sender_of(anvil, store, clock)
    sender.send(payment(64), "after the restart")
    end_all(anvil, store, clock)
    check_books(anvil, store)
    assert anvil.received() == 64 + (1 if moment > 0 else 0) + (2 if moment > 8 else 0)
    store.close()


@pytest.mark.parametrize("moment", [0, 1])
def test_an_end_that_was_noted_or_not_is_noted_once(
    anvil: Anvil, store: Outbox, clock: FakeClock, moment: int
) -> None:
    sender_of(anvil, store, clock).send(payment(1), "settle")
    anvil.mine()
    with pytest.raises(Killed):
        mortal_sender(anvil.connection, 0, store, Fate(moment), clock, POLICY).step()
    ended = sender_of(anvil, store, clock).step()
    assert len(ended) == 1 - moment
    check_books(anvil, store)


# --- offers --------------------------------------------------------------------------------------


def test_a_key_never_shows(anvil: Anvil, sender: TransactionSender) -> None:
    shown = repr(vars(sender)) + json.dumps([str(one) for one in anvil.accounts])
    assert anvil.accounts[0].private_key.hex() not in shown
