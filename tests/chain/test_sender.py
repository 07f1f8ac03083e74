"""Sending: nothing is paid for a call that would fail, and nothing is sent twice."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from eth_account import Account

from channelpay.chain.connection import Connection, NodeRefused, checksum, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.sender import NotConfirmed, Sender, SendPolicy
from channelpay.chain.types import ContractCall, Progress
from channelpay.errors import BudgetExceeded, ChainReverted, InsufficientFunds
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel
from channelpay.testing import DevChain
from channelpay.testing.rpc_client import rpc_call
from tests.support.chains import Json, Lost, Refused, Rule, fake_node, sender_of

RECEIVER = Address(b"\x33" * 20)
Forward = Callable[[], Json]


def payment(amount_wei: int = 1) -> ContractCall:
    return ContractCall(RECEIVER, value_wei=amount_wei)


def hopeless(contract: PaymentChannelsContract, payer: Address) -> ContractCall:
    """A top-up of a channel that does not exist."""
    channel = Channel(payer, RECEIVER, NATIVE, ZERO_ADDRESS, secrets.token_bytes(32))
    return contract.top_up(channel, 1)


def test_a_receipt_says_what_was_mined_and_what_it_cost(
    chain: DevChain, connection: Connection
) -> None:
    sender = sender_of(connection, chain.accounts[0])
    before = connection.balance_wei(sender.address)
    receipt = sender.send(payment(5))
    assert receipt.gas_used == 21_000
    assert connection.block(receipt.block_number) is not None
    assert receipt.logs == ()
    assert connection.balance_wei(sender.address) == before - 5 - receipt.fee_wei
    assert connection.balance_wei(RECEIVER) == 5


def test_a_reserve_of_gas_is_sent_along_and_not_paid_for(
    chain: DevChain, connection: Connection
) -> None:
    sender = sender_of(connection, chain.accounts[0])

    receipt = sender.send(ContractCall(RECEIVER, value_wei=1, gas_reserve=500_000))

    mined = rpc_call(chain.rpc_url, "eth_getTransactionByHash", to_hex(receipt.transaction_hash))
    assert isinstance(mined, dict)
    assert int(mined["gas"], 16) >= 500_000 + receipt.gas_used
    assert receipt.gas_used == 21_000


def test_a_call_that_would_revert_costs_nothing(
    chain: DevChain, connection: Connection, contract: PaymentChannelsContract
) -> None:
    sender = sender_of(connection, chain.accounts[0])
    before = connection.balance_wei(sender.address), connection.next_nonce(sender.address)
    with pytest.raises(ChainReverted) as caught:
        sender.send(hopeless(contract, sender.address))
    assert caught.value.error == "ChannelNotFound"
    assert "channelId" in caught.value.context
    after = connection.balance_wei(sender.address), connection.next_nonce(sender.address)
    assert after == before


def test_a_revert_is_named_even_if_the_nodes_gas_estimate_does_not_name_it(
    chain: DevChain, contract: PaymentChannelsContract
) -> None:
    def wordless(method: str, params: list[Json], forward: Forward) -> Json:
        if method == "eth_estimateGas":
            raise Refused("always failing transaction")
        return forward()

    with fake_node(chain.rpc_url, wordless) as url:
        sender = sender_of(connect(url), chain.accounts[0])
        with pytest.raises(ChainReverted) as caught:
            sender.send(hopeless(contract, sender.address))
    assert caught.value.error == "ChannelNotFound"


def test_a_call_that_failed_after_all_is_a_revert_with_its_reason(
    chain: DevChain, connection: Connection, contract: PaymentChannelsContract
) -> None:
    sender = sender_of(connection, chain.accounts[0])
    call = hopeless(contract, sender.address)
    signed = Account.sign_transaction(
        {
            "chainId": connection.chain_id,
            "nonce": connection.next_nonce(sender.address),
            "to": checksum(call.to),
            "data": call.data,
            "value": call.value_wei,
            "gas": 200_000,
            "maxFeePerGas": 10**11,
            "maxPriorityFeePerGas": 1,
        },
        chain.accounts[0].private_key,
    )
    connection.send_raw_transaction(bytes(signed.raw_transaction))
    with pytest.raises(ChainReverted) as caught:
        sender.wait(bytes(signed.hash), call)
    assert caught.value.error == "ChannelNotFound"
    assert caught.value.context["txHash"] == "0x" + bytes(signed.hash).hex()


def test_an_account_without_money_is_told_so_before_anything_is_sent(
    connection: Connection,
) -> None:
    pauper = Sender(connection, Account.create())
    with pytest.raises(InsufficientFunds):
        pauper.send(payment(1))
    with pytest.raises(InsufficientFunds, match="needs"):
        pauper.send(payment(0))


def test_gas_over_the_limit_is_refused_before_anything_is_sent(
    chain: DevChain, connection: Connection
) -> None:
    thrifty = sender_of(connection, chain.accounts[0], SendPolicy(fee_per_gas_wei_max=1))
    with pytest.raises(BudgetExceeded):
        thrifty.send(payment())
    assert connection.next_nonce(thrifty.address) == 0


def test_the_limit_caps_what_is_offered(chain: DevChain, connection: Connection) -> None:
    limit = connection.next_base_fee_wei() + connection.suggested_tip_wei()
    policy = SendPolicy(fee_per_gas_wei_max=limit)
    receipt = sender_of(connection, chain.accounts[0], policy).send(payment())
    transaction = rpc_call(
        chain.rpc_url, "eth_getTransactionByHash", "0x" + receipt.transaction_hash.hex()
    )
    assert isinstance(transaction, dict)
    assert int(transaction["maxFeePerGas"], 16) == limit


def test_threads_share_a_sender_without_sharing_a_nonce(
    chain: DevChain, connection: Connection
) -> None:
    sender = sender_of(connection, chain.accounts[0])
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda _: sender.send(payment()), range(16)))
    assert len({receipt.transaction_hash for receipt in receipts}) == 16
    assert connection.balance_wei(RECEIVER) == 16


def test_two_programs_may_send_from_one_account_in_turns(
    chain: DevChain, connection: Connection
) -> None:
    senders = [sender_of(connection, chain.accounts[0]) for _ in range(2)]
    for _ in range(2):
        for sender in senders:
            sender.send(payment())
    assert connection.balance_wei(RECEIVER) == 4


def test_a_nonce_that_another_program_took_is_replaced(
    chain: DevChain, connection: Connection
) -> None:
    sender_of(connection, chain.accounts[0]).send(payment())
    answers = []

    def stale_once(method: str, params: list[Json], forward: Forward) -> Json:
        result = forward()
        if method == "eth_getTransactionCount":
            answers.append(result)
            return "0x0" if len(answers) == 1 else result
        return result

    with fake_node(chain.rpc_url, stale_once) as url:
        sender_of(connect(url), chain.accounts[0]).send(payment(2))
    assert connection.balance_wei(RECEIVER) == 3
    assert len(answers) == 2


def test_a_chain_that_went_back_does_not_confuse_a_senders_nonces(
    chain: DevChain, connection: Connection
) -> None:
    sender = sender_of(connection, chain.accounts[0], SendPolicy(deadline_seconds=1))
    snapshot = chain.snapshot()
    sender.send(payment())
    chain.revert(snapshot)
    try:
        sender.send(payment())
    except NotConfirmed:
        # Some nodes keep a transaction that comes too early; the next one fills the gap.
        sender.send(payment())
    assert connection.balance_wei(RECEIVER) >= 1


def lose_first_answer_to(lost_method: str, *, after_forwarding: bool) -> tuple[Rule, list[str]]:
    seen: list[str] = []

    def rule(method: str, params: list[Json], forward: Forward) -> Json:
        seen.append(method)
        if method == lost_method and seen.count(method) == 1:
            if after_forwarding:
                forward()
            raise Lost
        return forward()

    return rule, seen


@pytest.mark.parametrize("after_forwarding", [True, False])
def test_a_lost_answer_does_not_pay_twice(
    chain: DevChain, connection: Connection, after_forwarding: bool
) -> None:
    rule, seen = lose_first_answer_to("eth_sendRawTransaction", after_forwarding=after_forwarding)
    with fake_node(chain.rpc_url, rule) as url:
        sender_of(connect(url), chain.accounts[0]).send(payment())
    assert connection.balance_wei(RECEIVER) == 1
    assert connection.next_nonce(chain.accounts[0].address) == 1
    assert seen.count("eth_sendRawTransaction") == 2


def test_a_node_that_goes_silent_while_sending_leaves_the_hash_to_look_up(
    chain: DevChain,
) -> None:
    def silent(method: str, params: list[Json], forward: Forward) -> Json:
        if method in {"eth_sendRawTransaction", "eth_getTransactionByHash"}:
            raise Lost
        return forward()

    with fake_node(chain.rpc_url, silent) as url:
        sender = sender_of(connect(url), chain.accounts[0])
        with pytest.raises(NotConfirmed) as caught:
            sender.send(payment())
    assert len(str(caught.value.context["txHash"])) == 66


def test_a_refusal_of_the_node_keeps_its_words(chain: DevChain) -> None:
    def full(method: str, params: list[Json], forward: Forward) -> Json:
        if method == "eth_sendRawTransaction":
            raise Refused("txpool is full")
        return forward()

    with fake_node(chain.rpc_url, full) as url:
        sender = sender_of(connect(url), chain.accounts[0])
        with pytest.raises(NodeRefused, match="txpool is full"):
            sender.send(payment())


def test_waiting_counts_confirmations_from_the_transactions_own_block(
    chain: DevChain, connection: Connection
) -> None:
    policy = SendPolicy(confirmations=3, deadline_seconds=0.2)
    sender = sender_of(connection, chain.accounts[0], policy)
    transaction_hash = sender.submit(payment())
    with pytest.raises(NotConfirmed) as caught:
        sender.wait(transaction_hash, payment())
    assert caught.value.context["txHash"] == "0x" + transaction_hash.hex()

    chain.mine(1)
    with pytest.raises(NotConfirmed):
        sender.wait(transaction_hash, payment())
    chain.mine(1)
    assert sender.wait(transaction_hash, payment()).transaction_hash == transaction_hash


def test_a_listener_hears_of_a_transaction_before_it_leaves_and_of_each_confirmation(
    chain: DevChain, connection: Connection
) -> None:
    heard: list[tuple[int, int]] = []

    def listen(progress: Progress) -> None:
        heard.append((progress.depth, progress.needed))
        if progress.depth == 0:
            assert not connection.has_transaction(progress.transaction_hash)
        elif progress.depth < progress.needed:
            chain.mine(1)

    sender_of(connection, chain.accounts[0], SendPolicy(3, listener=listen)).send(payment())

    assert heard == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_trial_says_what_sending_would_cost_and_sends_nothing(
    chain: DevChain, connection: Connection, contract: PaymentChannelsContract
) -> None:
    sender = sender_of(connection, chain.accounts[0])
    before = connection.latest_block().number

    trial = sender.trial(payment())
    with pytest.raises(ChainReverted):
        sender.trial(hopeless(contract, sender.address))
    with pytest.raises(InsufficientFunds):
        sender.trial(payment(connection.balance_wei(sender.address)))

    assert (trial.gas, connection.latest_block().number) == (21_000, before)
    assert 0.8 < trial.cost_wei / sender.send(payment()).fee_wei < 1.25


def test_waiting_survives_a_node_that_fails_in_between(chain: DevChain) -> None:
    failures: list[str] = []

    def flaky(method: str, params: list[Json], forward: Forward) -> Json:
        if method == "eth_getTransactionReceipt" and len(failures) < 3:
            failures.append(method)
            raise Refused("busy")
        return forward()

    with fake_node(chain.rpc_url, flaky) as url:
        sender_of(connect(url), chain.accounts[0]).send(payment())
    assert len(failures) == 3


def test_a_key_never_shows(chain: DevChain, connection: Connection) -> None:
    account = chain.accounts[0]
    shown = repr(vars(sender_of(connection, account))) + repr(account)
    assert account.private_key.hex() not in shown


def losing_the_first(method: str, params: list[Json], forward: Forward, lost: list[bytes]) -> Json:
    """A node that takes a transaction and forgets it, once."""
    if method == "eth_sendRawTransaction" and not lost:
        lost.append(bytes.fromhex(params[0][2:]))
        return to_hex(keccak256(lost[0]))
    return forward()


@pytest.mark.parametrize("waits_for", [0, 1])
def test_a_transaction_that_the_node_lost_is_sent_again_and_leaves_no_gap(
    chain: DevChain, monkeypatch: pytest.MonkeyPatch, waits_for: int
) -> None:
    """Whichever one waits for: what comes behind it has the next nonce."""
    monkeypatch.setattr("channelpay.chain.sender._LOOK_SECONDS", 0.05)
    lost: list[bytes] = []
    with fake_node(chain.rpc_url, partial(losing_the_first, lost=lost)) as url:
        connection = connect(url)
        sender = sender_of(connection, chain.accounts[0], SendPolicy(deadline_seconds=20))
        nonce = connection.used_nonces(sender.address)
        hashes = [sender.submit(payment()) for _ in range(1 + waits_for)]
        sender.wait(hashes[waits_for], payment())

    assert keccak256(lost[0]) == hashes[0]
    assert connection.used_nonces(sender.address) == nonce + 1 + waits_for


def test_what_a_reorganisation_took_back_is_sent_again_before_the_next_one(
    chain: DevChain, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channelpay.chain.sender._LOOK_SECONDS", 0.05)
    sender = sender_of(connection, chain.accounts[0], SendPolicy(deadline_seconds=20))
    nonce, before = connection.used_nonces(sender.address), chain.snapshot()
    sender.send(payment(5))
    chain.revert(before)

    sender.send(payment(7))

    assert connection.used_nonces(sender.address) == nonce + 2
    assert connection.balance_wei(RECEIVER) == 12
