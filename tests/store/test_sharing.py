"""What the stores that outlive their process promise, SQLite and PostgreSQL alike: durability,
books that several stores share, one writer that commits in groups.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from channelpay.errors import (
    ChannelClosing,
    ChannelNotFound,
    InsufficientBalance,
    StoreUnavailable,
)
from channelpay.store import writer as writer_module
from tests.store.books import (
    DEPOSIT,
    add,
    channel,
    channel_id,
    dump,
    order,
    purchase,
    spent_by_payments,
    view,
)
from tests.store.conftest import OpenStore
from tests.store.held import Broken, WriterHeld, submit
from tests.store.terms import ACCOUNT, Adding, amend, put, read

REPOSITORY = Path(__file__).parents[2]


def test_everything_is_there_after_reopening(open_shared: OpenStore) -> None:
    store = open_shared()
    add(store)
    order(store, purchase(30, 10, key="k"))
    store.save_cursor("events", "17").result()
    before = dump(store)
    store.close()

    reopened = open_shared()

    assert dump(reopened) == before
    assert reopened.cursor("events") == "17"


@pytest.mark.parametrize("acknowledged_min", [1, 50, 500])
def test_what_was_acknowledged_is_there_after_a_kill(
    shared_url: str, open_shared: OpenStore, acknowledged_min: int
) -> None:
    store = open_shared()
    add(store, deposit=10**9)
    store.close()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.acknowledge", shared_url],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(acknowledged_min)]
    process.kill()
    *complete, _cut_off = process.stdout.read().split("\n")
    acknowledged += complete
    process.wait()
    process.stdout.close()

    reopened = open_shared()

    payments = [stored.payment for stored in reopened.payments(channel_id())]
    assert set(acknowledged) <= {payment.idempotency_key for payment in payments}
    assert spent_by_payments(reopened) == len(payments) == read(reopened, ACCOUNT)


def test_several_processes_may_make_the_same_books_at_once(shared_url: str) -> None:
    script = (
        "import sys; from channelpay.store import open_store;"
        "sys.stdin.readline(); open_store(sys.argv[1]).close()"
    )
    command = [sys.executable, "-c", script, shared_url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()

    errors = [process.communicate()[1] for process in processes]

    assert errors == [""] * 4


def test_two_stores_share_one_set_of_books(open_shared: OpenStore) -> None:
    stores = [open_shared(), open_shared()]
    add(stores[0])

    futures = [stores[n % 2].accept([purchase(100, 10, key=str(n))]) for n in range(10)]

    assert len([future.result() for future in futures]) == 10
    with pytest.raises(InsufficientBalance):
        order(stores[1], purchase(100, 10, key="one too many"))
    assert dump(stores[0]) == dump(stores[1])


def test_two_stores_never_overspend_a_channel(open_shared: OpenStore) -> None:
    stores = [open_shared(), open_shared()]
    add(stores[0])
    wanted = 2 * DEPOSIT // 10

    def buy(number: int) -> bool:
        try:
            order(stores[number % 2], purchase(DEPOSIT, 10, key=str(number)))
        except InsufficientBalance:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        bought = list(pool.map(buy, range(wanted)))

    assert sum(bought) == DEPOSIT // 10
    assert spent_by_payments(stores[0]) == DEPOSIT


def test_one_key_at_two_stores_is_charged_once(open_shared: OpenStore) -> None:
    stores = [open_shared(), open_shared()]
    add(stores[0])

    futures = [
        stores[number % 2].accept([purchase(100, 1, key=str(number // 8))]) for number in range(160)
    ]

    assert len({future.result()[0].payment_id for future in futures}) == 20  # type: ignore[union-attr]
    assert spent_by_payments(stores[0]) == 20


def test_a_close_begun_by_one_store_stops_vouchers_at_the_other_and_after_a_restart(
    open_shared: OpenStore,
) -> None:
    first, second = open_shared(), open_shared()
    add(first)

    first.begin_close(channel_id(), purchase(10, 0).voucher).result()

    with pytest.raises(ChannelClosing):
        order(second, purchase(20, 10))
    first.close()
    second.close()
    with pytest.raises(ChannelClosing):
        order(open_shared(), purchase(20, 10))


def test_a_full_queue_refuses_at_once(
    open_shared: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "WAITING_MAX", 2)
    store = open_shared()
    add(store)
    with WriterHeld(store):
        waiting = [store.accept([purchase(100, 10, key=str(n))]) for n in range(2)]
        assert store.waiting == 2
        refused = store.accept([purchase(100, 10, key="third")])
        with pytest.raises(StoreUnavailable):
            refused.result(0)

    assert [len(future.result()) for future in waiting] == [1, 1]
    assert spent_by_payments(store) == 20


def test_everything_that_waits_is_committed_at_once(open_shared: OpenStore) -> None:
    commits: list[int] = []
    store = open_shared(lambda orders, _seconds: commits.append(orders))
    add(store)
    with WriterHeld(store):
        futures = [store.accept([purchase(100, 10, key=str(n))]) for n in range(10)]

    for number, future in enumerate(futures, 1):
        (answer,) = future.result()
        assert answer.record.spent == 10 * number  # type: ignore[union-attr]
    assert commits == [0, 0, 10]


def test_what_waits_is_done_in_its_order_also_inside_one_transaction(
    open_shared: OpenStore,
) -> None:
    """A payment that is charged, given back and charged anew; a channel used before it is known."""
    store = open_shared()
    add(store)
    first = order(store, purchase(100, 60, key="k"))
    assert first.payment_id is not None
    with WriterHeld(store):
        unknown = store.accept([purchase(10, 10, number=2)])
        added = store.add_channel(channel_id(2), channel(2), view())
        known = store.accept([purchase(10, 10, number=2)])
        again = store.accept([purchase(100, 60, key="k"), purchase(100, 60, key="other")])
        releases = [store.release(first.payment_id, attempt) for attempt in (1, 2)]
        anew = store.accept([purchase(100, 60, key="k")])
        closed = store.begin_close(channel_id(), purchase(110, 0).voucher)
        late = store.accept([purchase(120, 1, key="late")])

    assert isinstance(unknown.result()[0], ChannelNotFound)
    assert added.result().accepted == 0
    assert known.result()[0].record.spent == 10  # type: ignore[union-attr]
    retried, refused = again.result()
    assert cast("Any", retried).payment_id == first.payment_id
    assert isinstance(refused, InsufficientBalance)
    assert [release.result().served for release in releases] == [1, 0]
    assert cast("Any", anew.result()[0]).payment_id != first.payment_id
    assert closed.result().accepted == 110
    assert isinstance(late.result()[0], ChannelClosing)
    assert spent_by_payments(store) == 70


def test_a_bug_in_one_job_neither_kills_the_writer_nor_commits_its_group(
    open_shared: OpenStore,
) -> None:
    store = open_shared()
    add(store)
    before = dump(store)
    with WriterHeld(store):
        bought = store.accept([purchase(10, 10)])
        broken = submit(store, Broken())

    with pytest.raises(StoreUnavailable):
        bought.result()
    with pytest.raises(StoreUnavailable):
        broken.result()
    assert dump(store) == before
    assert order(store, purchase(10, 10)).record.spent == 10


def test_a_purchase_cancelled_in_the_queue_is_not_made(open_shared: OpenStore) -> None:
    store = open_shared()
    add(store)
    before = dump(store)
    with WriterHeld(store):
        assert store.accept([purchase(10, 10)]).cancel()
    store.save_cursor("barrier", "1").result()

    assert dump(store) == before


def test_no_entry_is_remembered_from_a_transaction_that_failed(open_shared: OpenStore) -> None:
    store = open_shared()
    add(store)
    put(store, ACCOUNT, 5)
    with WriterHeld(store):
        sold = store.accept([purchase(100, 10, terms=Adding({ACCOUNT: 1}))])
        broken = submit(store, Broken())
    for failed in (sold, broken):
        with pytest.raises(StoreUnavailable):
            failed.result()

    order(store, amend({ACCOUNT: 1}))

    assert (read(store, ACCOUNT), spent_by_payments(store)) == (6, 0)
