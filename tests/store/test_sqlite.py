"""What the SQLite store promises beyond every other store: durability, and a shared file."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Event

import pytest

from channelpay.errors import ChannelClosing, ConfigError, InsufficientBalance, StoreUnavailable
from channelpay.store import SqliteStore, open_store
from channelpay.store import sqlite as sqlite_module
from channelpay.store.ledger import Ledger
from channelpay.store.schema import MIGRATIONS
from tests.store.books import add, channel_id, dump, purchase, raw_rows

REPOSITORY = Path(__file__).parents[2]
OpenSqlite = Callable[[], SqliteStore]


@pytest.mark.parametrize("acknowledged_min", [1, 50, 500])
def test_what_was_acknowledged_is_there_after_a_kill(
    tmp_path: Path, open_sqlite: OpenSqlite, acknowledged_min: int
) -> None:
    store = open_sqlite()
    add(store, deposit=10**9)
    store.close()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.acknowledge", str(tmp_path / "books")],
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

    reopened = open_sqlite()

    payments = [stored.payment for stored in reopened.payments(channel_id())]
    record = reopened.record(channel_id())
    assert record is not None
    assert set(acknowledged) <= {payment.idempotency_key for payment in payments}
    assert record.spent == len(payments)


def test_everything_is_there_after_reopening(open_sqlite: OpenSqlite) -> None:
    store = open_sqlite()
    add(store)
    store.accept(purchase(30, 10, key="k")).result()
    store.save_cursor("events", "17").result()
    before = dump(store)
    store.close()

    reopened = open_sqlite()

    assert dump(reopened) == before
    assert reopened.cursor("events") == "17"


def test_two_stores_on_one_file_share_one_set_of_books(open_sqlite: OpenSqlite) -> None:
    stores = [open_sqlite(), open_sqlite()]
    add(stores[0])

    futures = [stores[n % 2].accept(purchase(100, 10, key=str(n))) for n in range(10)]

    assert len([future.result() for future in futures]) == 10
    with pytest.raises(InsufficientBalance):
        stores[1].accept(purchase(100, 10, key="one too many")).result()
    assert dump(stores[0]) == dump(stores[1])


def test_a_close_begun_by_one_store_stops_vouchers_at_the_other_and_after_a_restart(
    open_sqlite: OpenSqlite,
) -> None:
    first, second = open_sqlite(), open_sqlite()
    add(first)

    first.begin_close(channel_id(), purchase(10, 0).voucher).result()

    with pytest.raises(ChannelClosing):
        second.accept(purchase(20, 10)).result()
    first.close()
    second.close()
    with pytest.raises(ChannelClosing):
        open_sqlite().accept(purchase(20, 10)).result()


def test_two_processes_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from channelpay.store import SqliteStore;"
        "sys.stdin.readline(); SqliteStore(Path(sys.argv[1])).close()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "books")]
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


def test_the_files_are_for_their_owner_only(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    add(open_sqlite())

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert modes == {"books": 0o600, "books-wal": 0o600, "books-shm": 0o600}


def test_the_file_syncs_fully_and_checks_its_references(open_sqlite: OpenSqlite) -> None:
    store = open_sqlite()

    pragmas = ("journal_mode", "synchronous", "foreign_keys", "user_version")
    values = [store._writing.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]

    assert values == ["wal", 2, 1, len(MIGRATIONS)]


def test_amounts_are_blobs_of_16_bytes(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    store = open_sqlite()
    add(store)
    store.accept(purchase(258, 1)).result()

    rows = raw_rows(tmp_path / "books", "SELECT typeof(accepted), accepted FROM channels")

    assert rows == [("blob", bytes(14) + b"\x01\x02")]


def test_the_file_itself_refuses_spent_above_accepted(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    add(open_sqlite())

    with pytest.raises(sqlite3.IntegrityError):
        raw_rows(tmp_path / "books", "UPDATE channels SET spent = zeroblob(15) || x'01'")


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    open_sqlite().close()
    raw_rows(tmp_path / "books", f"PRAGMA user_version = {len(MIGRATIONS) + 1}")

    with pytest.raises(ConfigError):
        open_sqlite()


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    (tmp_path / "books").write_bytes(b"this is not a database" * 100)

    with pytest.raises(StoreUnavailable):
        open_sqlite()


def test_a_failed_commit_is_not_acknowledged(
    open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sqlite()
    add(store)
    before = dump(store)
    with monkeypatch.context() as patched:
        patched.setattr(store, "_writing", _FailsToCommit(store._writing))
        futures = [store.accept(purchase(30, 10, key=str(n))) for n in range(3)]
        for future in futures:
            with pytest.raises(StoreUnavailable):
                future.result()

    assert dump(store) == before
    assert store.accept(purchase(30, 10)).result().record.spent == 10


def test_a_refusal_is_not_told_before_the_commit_that_it_rests_on(
    open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sqlite()
    add(store)
    with _writer_held(store):
        bought = store.accept(purchase(10, 10, key="first"))
        refused = store.accept(purchase(10, 10, key="second"))
        monkeypatch.setattr(store, "_writing", _FailsToCommit(store._writing))

    for future in (bought, refused):
        with pytest.raises(StoreUnavailable):
            future.result()
    monkeypatch.undo()


def test_a_full_queue_refuses_at_once(
    open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "WAITING_MAX", 2)
    store = open_sqlite()
    add(store)
    with _writer_held(store):
        waiting = [store.accept(purchase(100, 10, key=str(n))) for n in range(2)]
        refused = store.accept(purchase(100, 10, key="third"))
        with pytest.raises(StoreUnavailable):
            refused.result(0)

    assert [future.result().payment_id for future in waiting] == [1, 2]


def test_everything_that_waits_is_committed_at_once(
    open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sqlite()
    add(store)
    commits: list[int] = []
    commit = store._commit

    def count(ledger: Ledger, jobs: list[object]) -> None:
        commits.append(len(jobs))
        commit(ledger, jobs)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_commit", count)
    with _writer_held(store):
        futures = [store.accept(purchase(100, 10, key=str(n))) for n in range(10)]

    assert [future.result().record.spent for future in futures] == list(range(10, 110, 10))
    assert commits == [1, 10]


def test_a_bug_in_one_job_neither_kills_the_writer_nor_commits_its_group(
    open_sqlite: OpenSqlite,
) -> None:
    store = open_sqlite()
    add(store)
    before = dump(store)
    with _writer_held(store):
        bought = store.accept(purchase(10, 10))
        broken: Future[object] = store._submit(lambda ledger: 1 // 0)

    for future in (bought, broken):
        with pytest.raises(StoreUnavailable):
            future.result()
    assert dump(store) == before
    assert store.accept(purchase(10, 10)).result().payment_id == 1


def test_a_purchase_cancelled_in_the_queue_is_not_made(open_sqlite: OpenSqlite) -> None:
    store = open_sqlite()
    add(store)
    before = dump(store)
    with _writer_held(store):
        assert store.accept(purchase(10, 10)).cancel()
    store.save_cursor("barrier", "1").result()

    assert dump(store) == before


def test_a_locked_file_is_unavailable_not_an_endless_wait(
    tmp_path: Path, open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    store = open_sqlite()
    add(store)
    other = sqlite3.connect(tmp_path / "books", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable):
        store.accept(purchase(10, 10)).result()
    other.execute("ROLLBACK")
    other.close()

    assert store.accept(purchase(10, 10)).result().payment_id == 1


@pytest.mark.parametrize("url", ["sqlite://books", "postgresql:///books", "books", "sqlite:///"])
def test_an_unknown_url_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_url_names_a_relative_or_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    open_store("sqlite:///relative").close()
    open_store(f"sqlite:///{tmp_path / 'absolute'}").close()

    assert {"relative", "absolute"} <= {file.name for file in tmp_path.iterdir()}


class _FailsToCommit:
    """A connection to a disk that is full when it comes to the commit."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str) -> object:
        if statement == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction


class _writer_held:  # noqa: N801  reads as a statement
    """While entered, the writer stands still inside a transaction, and jobs wait behind it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._go_on = Event()

    def __enter__(self) -> None:
        arrived = Event()

        def hold(ledger: Ledger) -> None:
            arrived.set()
            self._go_on.wait(30)

        self._store._submit(hold)
        assert arrived.wait(30)

    def __exit__(self, *_: object) -> None:
        self._go_on.set()
