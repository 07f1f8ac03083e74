"""What the PostgreSQL store promises beyond every other store: it survives its server, several
stores do not stand in each other's way, and the database itself keeps the books consistent.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import pytest
from psycopg import errors as sql

from channelpay.errors import ConfigError, InsufficientBalance, StoreUnavailable
from channelpay.store import Accepted, open_store, postgres_ledger
from channelpay.store import postgres as postgres_module
from channelpay.store.postgres import PostgresStore
from channelpay.store.postgres_ledger import AddChannel
from channelpay.store.postgres_schema import MIGRATIONS
from tests.store.books import (
    DEPOSIT,
    NOW_MS,
    add,
    channel,
    channel_id,
    dump,
    order,
    purchase,
    spent_by_payments,
    view,
)
from tests.store.held import WriterHeld
from tests.store.test_journal import outgoing
from tests.support.postgres import PostgresServer

OpenPostgres = Callable[[], PostgresStore]
DEADLINE_SECONDS = 60
PASSWORD = "s3cret"


@pytest.fixture
def open_postgres(postgres_url: str) -> Iterator[OpenPostgres]:
    """Opens the same books as often as it is called."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(PostgresStore(postgres_url)))


@pytest.fixture
def database(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Looks at the tables past the store."""
    with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
        yield connection


# --- several stores ------------------------------------------------------------------------------


def test_stores_that_use_the_same_channels_in_opposite_orders_do_not_deadlock(
    open_postgres: OpenPostgres, postgres_url: str
) -> None:
    stores = [open_postgres(), open_postgres()]
    numbers = sorted(range(8), key=channel_id)
    paid = {}
    for number in numbers:
        add(stores[0], number)
        paid[number] = order(stores[0], purchase(100, 1, number=number, key="given back"))

    def use(store: PostgresStore, numbers: list[int]) -> list[Future[Any]]:
        jobs: list[Future[Any]] = [store.take_lease("settle", str(id(store)), 60)]
        for number in numbers:
            jobs.append(store.accept([purchase(100, 1, number=number, key=str(id(store)))]))
            jobs.append(store.release(_payment_id(paid[number]), 1))
        return jobs

    def lock(connection: psycopg.Connection[Any], number: int) -> None:
        query = "SELECT 1 FROM channelpay_channels WHERE channel_id = %s FOR UPDATE"
        connection.execute(query, (channel_id(number),))

    jobs = _crossed(postgres_url, stores, numbers, lock, use)

    for job in jobs:
        job.result()
    assert spent_by_payments(stores[0]) == 2 * len(numbers)


def test_stores_that_add_the_same_channels_in_opposite_orders_do_not_deadlock(
    open_postgres: OpenPostgres, postgres_url: str
) -> None:
    stores = [open_postgres(), open_postgres()]

    def insert(connection: psycopg.Connection[Any], number: int) -> None:
        row = AddChannel(channel_id(number), channel(number), view(), NOW_MS).row()
        connection.execute(postgres_ledger._INSERT_CHANNELS, [[value] for value in row])

    def use(store: PostgresStore, numbers: list[int]) -> list[Future[Any]]:
        return [store.add_channel(*_channel(number)) for number in numbers]

    for turn in range(6):  # which store goes on first is chance
        numbers = sorted(range(8 * turn, 8 * turn + 8), key=channel_id)
        for job in _crossed(postgres_url, stores, numbers, insert, use):
            assert job.result().spent == 0

    assert len(stores[0].records()) == 6 * 8


def _crossed(
    url: str,
    stores: list[PostgresStore],
    numbers: list[int],
    hold: Callable[[psycopg.Connection[Any], int], None],
    use: Callable[[PostgresStore, list[int]], list[Future[Any]]],
) -> list[Future[Any]]:
    """One transaction of each store over the same channels, in opposite orders.

    The first and the last channel are held meanwhile, and let go one after the other. Stores that
    took the channels in the order of their jobs would be in a deadlock then: one that has all but
    the last channel, and one that waited for the last channel before it.
    """
    with ExitStack() as stack:
        first, last, watching = (
            stack.enter_context(closing(psycopg.connect(url))) for _ in range(3)
        )
        watching.autocommit = True
        hold(first, numbers[0])
        hold(last, numbers[-1])
        jobs = []
        for count, (store, order_of_use) in enumerate(
            [(stores[1], numbers[::-1]), (stores[0], numbers)], 1
        ):
            with WriterHeld(store):
                jobs += use(store, order_of_use)
            _wait_for(lambda: len(_blockers(watching)) == count)  # noqa: B023  at once
        first.rollback()
        _wait_for(lambda: len(_blockers(watching)) == 2)
        return jobs


# --- the server is gone --------------------------------------------------------------------------


def test_nothing_acknowledged_is_lost_and_nothing_is_there_twice_when_the_server_is_killed(
    killable_postgres: PostgresServer,
) -> None:
    """Each buyer repeats a purchase with its key until it is acknowledged, as clients do."""
    url = killable_postgres.new_books()
    acknowledged: list[str] = []
    stop = threading.Event()
    with closing(open_store(url)) as first, closing(open_store(url)) as second:
        stores = (first, second)
        add(first, deposit=10**9)

        def buy(buyer: int) -> None:
            bought = 0
            while not stop.is_set():
                wanted = purchase(10**9, 1, key=f"{buyer}-{bought}")
                try:
                    order(stores[buyer % 2], wanted)
                except StoreUnavailable:
                    continue
                acknowledged.append(f"{buyer}-{bought}")
                bought += 1

        with ThreadPoolExecutor(8) as pool:
            buyers = [pool.submit(buy, buyer) for buyer in range(8)]
            for turn in range(1, 5):
                _wait_for(lambda: len(acknowledged) > 100 * turn)  # noqa: B023  waited for at once
                if turn < 4:
                    killable_postgres.kill()
                    killable_postgres.start()
            stop.set()
            for buyer in buyers:
                buyer.result()

    with closing(open_store(url)) as reopened:
        keys = [row.payment.idempotency_key for row in reopened.payments(channel_id())]
        assert set(acknowledged) <= set(keys)
        assert len(keys) == len(set(keys)) == spent_by_payments(reopened)


def test_while_the_server_is_away_the_books_are_unavailable_and_then_go_on(
    killable_postgres: PostgresServer,
) -> None:
    with closing(PostgresStore(killable_postgres.new_books())) as store:
        add(store)
        killable_postgres.kill()

        with pytest.raises(StoreUnavailable):
            order(store, purchase(10, 10))
        for read in (store.records, store.unsettled, lambda: store.record(channel_id())):
            with pytest.raises(StoreUnavailable):
                read()

        killable_postgres.start()
        assert order(store, purchase(10, 10)).record.spent == 10
        assert spent_by_payments(store) == 10


def test_a_restart_of_the_server_while_nothing_is_done_is_not_noticed(
    killable_postgres: PostgresServer,
) -> None:
    with closing(PostgresStore(killable_postgres.new_books())) as store:
        add(store)
        killable_postgres.kill()
        killable_postgres.start()

        assert store.record(channel_id()) is not None
        assert order(store, purchase(10, 10)).record.spent == 10


def test_a_connection_that_the_server_ends_is_made_anew(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    store = open_postgres()
    add(store)
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'channelpay' AND pid <> pg_backend_pid()"
    )

    assert order(store, purchase(10, 10)).record.spent == 10
    assert spent_by_payments(store) == 10


def test_a_commit_of_unknown_outcome_is_unavailable_and_its_retry_is_charged_once(
    open_postgres: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_postgres()
    add(store)

    def committed_but_nobody_heard(*arguments: Any) -> None:
        postgres_ledger.write(*arguments)
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(postgres_module, "write", committed_but_nobody_heard)
        with pytest.raises(StoreUnavailable):
            order(store, purchase(10, 10, key="k"))

    assert order(store, purchase(10, 10, key="k")).charged == 0
    assert spent_by_payments(store) == 10


# --- a transaction fails -------------------------------------------------------------------------


def test_a_transaction_that_fails_at_its_last_statement_leaves_nothing(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    store = open_postgres()
    add(store)
    kept = order(store, purchase(100, 10, key="kept"))
    assert kept.payment_id is not None
    before = dump(store)
    database.execute("ALTER TABLE channelpay_cursors ADD CHECK (position <> 'refused')")
    with WriterHeld(store):
        jobs: list[Any] = [
            store.release(kept.payment_id, 1),
            store.accept([purchase(200, 10, key="lost")]),
            store.save_cursor("events", "refused"),
        ]

    for job in jobs:
        with pytest.raises(StoreUnavailable):
            job.result()
    assert dump(store) == before
    assert order(store, purchase(200, 10, key="lost")).record.spent == 20


def test_a_commit_that_the_database_refuses_is_not_acknowledged(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    store = open_postgres()
    add(store)
    before = dump(store)
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'the disk is full'; END $$"
    )
    database.execute(
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON channelpay_payments"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    with pytest.raises(StoreUnavailable):
        order(store, purchase(10, 10))
    assert dump(store) == before


def test_a_lock_that_somebody_keeps_is_unavailable_not_an_endless_wait(
    open_postgres: OpenPostgres,
    database: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    impatient = ("SET lock_timeout = '50ms'", *postgres_module._WRITING)
    monkeypatch.setattr(postgres_module, "_WRITING", impatient)
    store = open_postgres()
    add(store)
    with database.transaction():
        database.execute("SELECT 1 FROM channelpay_channels FOR UPDATE")
        with pytest.raises(StoreUnavailable):
            order(store, purchase(10, 10))

    assert order(store, purchase(10, 10)).record.spent == 10


# --- what nobody may see -------------------------------------------------------------------------


def test_no_error_and_no_log_has_the_password(
    killable_postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = killable_postgres.new_books().replace("postgres@", f"postgres:{PASSWORD}@")
    with closing(PostgresStore(url)) as store:
        add(store)
        killable_postgres.kill()
        raised = [_error_of(lambda: order(store, purchase(10, 10))), _error_of(store.records)]
    raised.append(_error_of(lambda: PostgresStore(url)))
    raised.append(_error_of(lambda: PostgresStore(f"postgresql://a:{PASSWORD}@127.0.0.1:port/b")))

    for error in raised:
        assert isinstance(error, StoreUnavailable)
        assert PASSWORD not in "".join(traceback.format_exception(error))
    assert "could not be written" in caplog.text
    assert PASSWORD not in caplog.text


def test_what_a_request_is_told_does_not_name_the_server(
    killable_postgres: PostgresServer,
) -> None:
    with closing(PostgresStore(killable_postgres.new_books())) as store:
        killable_postgres.kill()
        for error in (
            _error_of(lambda: order(store, purchase(10, 10))),
            _error_of(lambda: store.record(channel_id())),
        ):
            assert "socket" not in str(error)


# --- the tables ----------------------------------------------------------------------------------


def test_books_of_a_newer_version_are_left_alone(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    open_postgres().close()
    database.execute("UPDATE channelpay_version SET version = %s", (len(MIGRATIONS) + 1,))

    with pytest.raises(ConfigError):
        open_postgres()


def test_books_that_are_there_are_opened_without_the_right_to_make_any(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any], postgres_url: str
) -> None:
    add(open_postgres())
    schema = database.execute("SELECT current_schema()").fetchone()
    assert schema is not None
    role = f"site_{schema[0]}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    database.execute(f"GRANT USAGE ON SCHEMA {schema[0]} TO {role}")
    database.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema[0]} TO {role}")
    database.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema[0]} TO {role}")

    with closing(PostgresStore(postgres_url.replace("postgres@", f"{role}@"))) as store:
        assert order(store, purchase(10, 10)).record.spent == 10
        assert store.take_lease("settle", "one", 60).result()
        assert store.journal(outgoing(5)).result().number > 0


def test_a_database_that_cannot_hold_every_text_is_refused(
    postgres_server: PostgresServer,
) -> None:
    with closing(psycopg.connect(postgres_server.url, autocommit=True)) as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")

    with pytest.raises(ConfigError):
        PostgresStore(postgres_server.url.replace("/postgres?", "/latin?"))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE channelpay_channels SET spent = accepted + 1",
        "UPDATE channelpay_channels SET accepted = 2::numeric ^ 128",
        "UPDATE channelpay_channels SET settled = -1",
        "UPDATE channelpay_channels SET signature = '\\x00'",
        "UPDATE channelpay_channels SET payer = payer || '\\x00'",
        "UPDATE channelpay_channels SET status = 'unknown'",
        "UPDATE channelpay_channels SET closes_begun = -1",
        "UPDATE channelpay_channels SET unsettled_since = -1",
        "UPDATE channelpay_payments SET undelivered = -1",
        "UPDATE channelpay_payments SET outcome = 'unknown'",
        "UPDATE channelpay_payments SET attempts = -1",
        "DELETE FROM channelpay_channels",
        (
            "INSERT INTO channelpay_payments SELECT payment_id + 1, channel_id, cumulative, price,"
            " resource, time, idempotency_key, outcome, attempts, undelivered"
            " FROM channelpay_payments"
        ),
    ],
)
def test_the_database_itself_refuses_books_that_cannot_be(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any], change: Any
) -> None:
    store = open_postgres()
    add(store)
    order(store, purchase(10, 10, key="k"))

    with pytest.raises(sql.IntegrityError):
        database.execute(change)


def test_amounts_up_to_a_uint128_are_kept(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    store = open_postgres()
    most = 2**128 - 1
    add(store, deposit=most)

    order(store, purchase(most, most - 1))

    row = database.execute("SELECT accepted::text, spent::text FROM channelpay_channels").fetchone()
    assert row == (str(most), str(most - 1))


@pytest.mark.parametrize(
    ("given", "used"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")]
)
def test_a_commit_waits_for_the_disk_whatever_the_default_is(
    postgres_url: str, given: str, used: str
) -> None:
    url = postgres_url.replace("-csearch_path", f"-csynchronous_commit%3D{given}%20-csearch_path")
    with closing(PostgresStore(url)) as store:
        row = store._writing.execute("SHOW synchronous_commit").fetchone()

    assert row == (used,)


@pytest.mark.parametrize("rows", [0, 64])
@pytest.mark.parametrize(
    "name",
    [
        "_LOCK_CHANNELS",
        "_SELECT_BY_NUMBER",
        "_SELECT_BY_KEY",
        "_SELECT_BY_VOUCHER",
        "_UPDATE_PAYMENTS",
        "_UPDATE_BOOKS",
        "_UPDATE_CHAIN",
    ],
)
def test_a_plan_made_while_the_tables_are_small_reads_no_whole_table(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any], name: str, rows: int
) -> None:
    """A connection keeps its plans: such a one would still be used with a million payments."""
    store = open_postgres()
    for number in range(rows):
        store.add_channel(*_channel(number))
    for key in ("k", None):
        store.accept([purchase(10, 5, number=n, key=key) for n in range(rows)]).result()
    if rows:
        database.execute("ANALYZE channelpay_channels, channelpay_payments")

    plan = _plan(store, getattr(postgres_ledger, name))

    scans = [line for line in plan.splitlines() if "Scan" in line and "Function Scan" not in line]
    assert len(scans) == plan.count("Index Cond"), plan


def test_owed_channels_are_found_by_their_index(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    store = open_postgres()
    for number in range(64):
        store.add_channel(*_channel(number))
    order(store, purchase(10, 5, number=7))
    database.execute("ANALYZE channelpay_channels")

    for statement in (postgres_ledger._SELECT_OWED, postgres_ledger._SELECT_UNSETTLED):
        rows = database.execute(b"EXPLAIN " + statement.encode())
        assert "channelpay_channels_owed" in "\n".join(line for (line,) in rows)


def test_channels_read_lately_are_found_by_their_index(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    store = open_postgres()
    for number in range(500):
        store.add_channel(channel_id(number), channel(number), view(block=number))
    order(store, purchase(10, 5, number=7))
    database.execute("ANALYZE channelpay_channels")

    rows = database.execute(b"EXPLAIN " + postgres_ledger._SELECT_SEEN_AFTER.encode(), (495,))

    assert "channelpay_channels_by_block" in "\n".join(line for (line,) in rows)


def test_a_voucher_after_the_first_changes_no_index(
    open_postgres: OpenPostgres, database: psycopg.Connection[Any]
) -> None:
    """Else the table would grow with each of them. The server counts such updates as hot."""
    store = open_postgres()
    add(store)
    order(store, purchase(100, 10, key="first"))
    query = (
        "SELECT n_tup_upd, n_tup_upd - n_tup_hot_upd FROM pg_stat_xact_user_tables"
        " WHERE relname = 'channelpay_channels' AND schemaname = current_schema()"
    )
    with database.transaction():
        for spent in range(11, 31):
            changes = ([channel_id()], ["100"], [str(spent)], [bytes(65)], [0], [NOW_MS], [False])
            database.execute(postgres_ledger._UPDATE_BOOKS, changes)
        assert database.execute(query).fetchone() == (20, 0)


def _plan(store: PostgresStore, statement: str) -> str:
    count = statement.count("%s")
    for number in range(1, count + 1):
        statement = statement.replace("%s", f"${number}", 1)
    arguments = ", ".join(["NULL"] * count)
    store._writing.execute(f"PREPARE lookup AS {statement}".encode())
    rows = store._writing.execute(f"EXPLAIN EXECUTE lookup ({arguments})".encode())
    return "\n".join(line for (line,) in rows)


def _channel(number: int) -> tuple[Any, ...]:
    return channel_id(number), channel(number), view(DEPOSIT)


def _blockers(watching: psycopg.Connection[Any]) -> list[Any]:
    """Whom each store that waits for a lock waits for."""
    return watching.execute(
        "SELECT pg_blocking_pids(pid) FROM pg_stat_activity WHERE application_name = 'channelpay'"
        " AND cardinality(pg_blocking_pids(pid)) > 0"
    ).fetchall()


def _payment_id(accepted: Accepted) -> int:
    assert accepted.payment_id is not None
    return accepted.payment_id


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)


def _error_of(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except (StoreUnavailable, InsufficientBalance) as error:
        return error
    return None
