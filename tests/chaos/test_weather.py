"""What goes wrong in a soak comes from its seed, and the chain takes it as a chain does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytest
from eth_account import Account

from channelpay.protocol.text import to_hex
from channelpay.testing import DevAccount, anvil_chain
from channelpay.testing.rpc_client import rpc_call
from scripts.chaos.elements import Elements
from scripts.chaos.weather import FAULTS, JUMPS_SECONDS_MAX, Trouble, events


def test_a_seed_is_the_same_trouble_again() -> None:
    first, again, other = (list(islice(events(seed), 50)) for seed in ("7", "7", "8"))

    assert first == again != other


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_short_run_has_every_kind(seed: str) -> None:
    first = list(islice(events(seed), len(Trouble)))

    assert {event.trouble for event in first} == set(Trouble)


def test_time_never_jumps_over_the_end_of_a_grace_period() -> None:
    jumps = [one.amount for one in islice(events("7"), 5000) if one.trouble is Trouble.TIME]

    assert 0 < sum(jumps) <= JUMPS_SECONDS_MAX


def test_every_fault_comes_but_none_that_a_payer_could_not_survive() -> None:
    struck = [event for event in islice(events("7"), 5000) if event.fault]

    assert {event.fault for event in struck} == FAULTS.keys()
    payers = {one.fault for one in struck if one.trouble is Trouble.PAYERS_NODE}
    assert "transactions dropped" not in payers


@pytest.fixture
def elements() -> Iterator[tuple[Elements, tuple[DevAccount, ...]]]:
    with anvil_chain() as chain:
        chain.mine(3)
        elements = Elements(chain.rpc_url, genesis=3)
        rpc_call(chain.rpc_url, "evm_setAutomine", False)
        yield elements, chain.accounts


def send(elements: Elements, account: DevAccount, nonce: int) -> str:
    fields = {"nonce": nonce, "to": "0x" + bytes(20).hex(), "value": 0, "gas": 21_000}
    fees = {"maxFeePerGas": 10**11, "maxPriorityFeePerGas": 1, "chainId": 31337}
    signed = Account.sign_transaction(fields | fees, account.private_key)
    raw = "0x" + bytes(signed.raw_transaction).hex()
    transaction_hash = rpc_call(elements.rpc_url, "eth_sendRawTransaction", raw)
    rpc_call(elements.rpc_url, "anvil_mine", "0x1")
    return str(transaction_hash)


def test_a_reorganisation_takes_blocks_back_and_not_what_others_sent(
    elements: tuple[Elements, tuple[DevAccount, ...]],
) -> None:
    chain, (first, second, *_) = elements
    kept, lost = send(chain, first, 0), send(chain, second, 0)
    before = [chain.block(number)["hash"] for number in range(6)]

    assert chain.reorganise(20, lost=[second.address]) == 2

    after = [chain.block(number)["hash"] for number in range(6)]
    assert before[:4] == after[:4]
    assert not set(before[4:]) & set(after[4:])
    assert [one["hash"] for one in chain.block(4, full=True)["transactions"]] == [kept]
    assert rpc_call(chain.rpc_url, "eth_getTransactionByHash", lost) is None


def test_what_others_have_built_on_is_not_lost(
    elements: tuple[Elements, tuple[DevAccount, ...]],
) -> None:
    chain, (first, second, *_) = elements
    below, above = send(chain, second, 0), send(chain, first, 0)

    assert chain.reorganise(2, lost=[second.address]) == 2

    blocks = [chain.block(number, full=True)["transactions"] for number in (4, 5)]
    assert [[one["hash"] for one in block] for block in blocks] == [[below], [above]]


def test_fees_are_those_of_the_account_alone(
    elements: tuple[Elements, tuple[DevAccount, ...]],
) -> None:
    chain, (first, second, *_) = elements
    before = int(
        str(rpc_call(chain.rpc_url, "eth_getBalance", to_hex(first.address), "latest")), 16
    )
    for nonce in range(2):
        send(chain, first, nonce)
        send(chain, second, nonce)

    after = int(str(rpc_call(chain.rpc_url, "eth_getBalance", to_hex(first.address), "latest")), 16)
    assert chain.fees_wei(first.address) == before - after > 0
