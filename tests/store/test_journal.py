"""The journal of transactions: nothing is sent that it does not know, and no nonce twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from channelpay.errors import NonceTaken, NotFound
from channelpay.protocol.transactions import Outgoing, Signed, TransactionStatus
from channelpay.protocol.types import Address
from channelpay.store import Store
from tests.store.books import NOW_MS, add, order, purchase, spent_by_payments
from tests.store.conftest import OpenStore
from tests.store.held import WriterHeld

SENDER, OTHER = Address(b"\x51" * 20), Address(b"\x52" * 20)
BLOCK_HASH = b"\xb1" * 32


def signed(number: int, fee: int = 10**9) -> Signed:
    return Signed(number.to_bytes(32, "big"), b"\x02" + bytes(number), fee, fee // 10, NOW_MS)


def outgoing(nonce: int, number: int = 1, sender: Address = SENDER, chain_id: int = 1) -> Outgoing:
    call = ("settle 0x01", Address(b"\xcc" * 20), b"\x01\x02", 0, 70_000)
    return Outgoing(0, chain_id, sender, nonce, *call, (signed(number),))


def test_a_journaled_transaction_has_a_number_and_waits(store: Store) -> None:
    journaled = store.journal(outgoing(5)).result()

    assert journaled == replace(outgoing(5), number=journaled.number)
    assert journaled.number > 0
    assert store.pending(1, SENDER) == store.transactions() == [journaled]


def test_what_waits_comes_by_nonce_and_only_of_its_account_and_chain(store: Store) -> None:
    for number, nonce in enumerate((7, 5, 6), 1):
        store.journal(outgoing(nonce, number)).result()
    store.journal(outgoing(5, 11, sender=OTHER)).result()
    store.journal(outgoing(5, 12, chain_id=2)).result()

    assert [one.nonce for one in store.pending(1, SENDER)] == [5, 6, 7]
    assert [one.broadcasts[0].hash for one in store.pending(1, OTHER)] == [signed(11).hash]
    assert [one.chain_id for one in store.pending(2, SENDER)] == [2]
    assert store.pending(3, SENDER) == []


def test_a_nonce_is_given_away_once_and_for_ever(store: Store) -> None:
    first = store.journal(outgoing(5, 1)).result()
    with pytest.raises(NonceTaken):
        store.journal(outgoing(5, 2)).result()
    store.finish(
        first.number, TransactionStatus.CONFIRMED, signed(1).hash, 9, BLOCK_HASH, 1
    ).result()

    with pytest.raises(NonceTaken):
        store.journal(outgoing(5, 2)).result()

    assert len(store.transactions()) == 1


def test_journaling_the_same_transaction_again_finds_it(store: Store) -> None:
    """Whoever does not know whether it was committed repeats it."""
    first = store.journal(outgoing(5)).result()
    store.add_broadcast(first.number, signed(2)).result()

    again = store.journal(outgoing(5)).result()

    assert (again.number, len(again.broadcasts)) == (first.number, 2)
    assert store.transactions() == [again]


def test_broadcasts_come_oldest_first_and_each_once(store: Store) -> None:
    number = store.journal(outgoing(5, 9)).result().number
    for one in (signed(3), signed(1), signed(2)):
        store.add_broadcast(number, one).result()

    last = store.add_broadcast(number, signed(1)).result()

    assert last.broadcasts == (signed(9), signed(3), signed(1), signed(2))
    assert store.pending(1, SENDER) == [last]


@pytest.mark.parametrize("status", [TransactionStatus.CONFIRMED, TransactionStatus.FAILED])
def test_a_finished_transaction_waits_no_more(store: Store, status: TransactionStatus) -> None:
    waiting = store.journal(outgoing(4, 8)).result()
    begun = store.journal(outgoing(5, 9)).result()
    fee = 3 * 10**20

    ended = store.finish(begun.number, status, signed(9).hash, 1234, BLOCK_HASH, fee).result()

    assert ended == replace(
        begun,
        status=status,
        mined=signed(9).hash,
        block_number=1234,
        block_hash=BLOCK_HASH,
        fee_wei=fee,
    )
    assert store.pending(1, SENDER) == [waiting]
    assert store.transactions() == [ended, waiting]


def test_a_transaction_whose_nonce_went_to_a_stranger_ends_without_a_block(store: Store) -> None:
    begun = store.journal(outgoing(5)).result()

    ended = store.finish(begun.number, TransactionStatus.FAILED, None, None, None, None).result()

    assert ended == replace(begun, status=TransactionStatus.FAILED)
    assert store.pending(1, SENDER) == []


def test_an_unknown_number_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        store.add_broadcast(7, signed(1)).result()
    with pytest.raises(NotFound):
        store.finish(7, TransactionStatus.FAILED, None, None, None, None).result()
    assert store.transactions() == []


def test_the_newest_transactions_come_first_and_so_many(store: Store) -> None:
    for nonce in range(5):
        store.journal(outgoing(nonce, nonce + 1)).result()

    assert [one.nonce for one in store.transactions(3)] == [4, 3, 2]
    assert [one.nonce for one in store.transactions()] == [4, 3, 2, 1, 0]


def test_wei_beyond_64_bits_and_long_purposes_are_kept(store: Store) -> None:
    wanted = replace(
        outgoing(2**40, 1),
        value_wei=2**128 - 1,
        purpose="settle " + "0x" + "ab" * 32_000,
        data=bytes(range(256)) * 400,
        broadcasts=(signed(1, fee=2**127),),
    )

    journaled = store.journal(wanted).result()

    assert store.transactions() == [journaled] == [replace(wanted, number=journaled.number)]


def test_transactions_are_there_after_reopening(open_shared: OpenStore) -> None:
    store = open_shared()
    number = store.journal(outgoing(5)).result().number
    journaled = store.add_broadcast(number, signed(2)).result()
    store.close()

    assert open_shared().pending(1, SENDER) == [journaled]


def test_of_two_stores_that_want_a_nonce_one_has_it(open_shared: OpenStore) -> None:
    stores = [open_shared(), open_shared()]

    def send(number: int) -> bool:
        try:
            stores[number % 2].journal(outgoing(number // 4, number + 1)).result()
        except NonceTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        sent = list(pool.map(send, range(80)))

    assert [sum(sent[nonce * 4 : nonce * 4 + 4]) for nonce in range(20)] == [1] * 20
    known = stores[0].pending(1, SENDER)
    assert [one.nonce for one in known] == list(range(20))
    assert all(len(one.broadcasts) == 1 for one in known)


def test_a_taken_nonce_is_no_matter_of_those_in_the_same_transaction(
    open_shared: OpenStore,
) -> None:
    store = open_shared()
    add(store)
    with WriterHeld(store):
        bought = store.accept([purchase(10, 10)])
        first, second = store.journal(outgoing(5, 1)), store.journal(outgoing(5, 2))
        unknown = store.add_broadcast(99, signed(3))
        later = store.journal(outgoing(6, 4))

    assert bought.result()[0].record.spent == 10  # type: ignore[union-attr]
    with pytest.raises(NonceTaken):
        second.result()
    with pytest.raises(NotFound):
        unknown.result()
    assert store.pending(1, SENDER) == [first.result(), later.result()]
    assert order(store, purchase(20, 10)).record.spent == spent_by_payments(store) == 20
