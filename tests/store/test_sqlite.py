"""What the SQLite store promises about its file."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from channelpay.errors import ConfigError, StoreUnavailable
from channelpay.store import SqliteStore
from channelpay.store import journal as journal_module
from channelpay.store import ledger as ledger_module
from channelpay.store import sqlite as sqlite_module
from channelpay.store.schema import MIGRATIONS
from tests.store.books import add, dump, order, purchase, raw_rows
from tests.store.held import WriterHeld

OpenSqlite = Callable[[], SqliteStore]


def test_the_files_are_for_their_owner_only(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    add(open_sqlite())

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}

    assert modes == {"books": 0o600, "books-wal": 0o600, "books-shm": 0o600}


def test_a_second_store_of_a_program_leaves_the_first_its_locks(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    """Else another program takes itself for the last one, and removes what is written to."""
    add(open_sqlite())
    open_sqlite()

    look = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM channels')"
    subprocess.run([sys.executable, "-c", look, str(tmp_path / "books")], check=True)

    assert (tmp_path / "books-wal").exists()


def test_the_file_syncs_fully_and_checks_its_references(open_sqlite: OpenSqlite) -> None:
    store = open_sqlite()

    pragmas = ("journal_mode", "synchronous", "foreign_keys", "user_version")
    values = [store._writing.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas]

    assert values == ["wal", 2, 1, len(MIGRATIONS)]


def test_amounts_are_blobs_of_16_bytes(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    store = open_sqlite()
    add(store)
    order(store, purchase(258, 1))

    rows = raw_rows(tmp_path / "books", "SELECT typeof(accepted), accepted FROM channels")

    assert rows == [("blob", bytes(14) + b"\x01\x02")]


def test_the_file_itself_refuses_spent_above_accepted(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    add(open_sqlite())

    with pytest.raises(sqlite3.IntegrityError):
        raw_rows(tmp_path / "books", "UPDATE channels SET spent = zeroblob(15) || x'01'")


@pytest.mark.parametrize(
    ("query", "values", "index"),
    [
        (ledger_module._SELECT_OWED, (), "channels_owed"),
        (ledger_module._SELECT_UNSETTLED, (), "channels_owed"),
        (ledger_module._SELECT_SEEN_AFTER, (1,), "channels_by_block"),
        (journal_module._SELECT_PENDING, (1, b""), "transactions_pending"),
    ],
)
def test_what_is_asked_for_often_is_found_by_an_index(
    open_sqlite: OpenSqlite, query: str, values: tuple[object, ...], index: str
) -> None:
    rows = open_sqlite()._reading.execute(f"EXPLAIN QUERY PLAN {query}", values)

    assert f"INDEX {index}" in "\n".join(row[-1] for row in rows)


def test_a_voucher_after_the_first_changes_no_index(open_sqlite: OpenSqlite) -> None:
    """The statement that every group of vouchers runs opens the table, and nothing else to write
    to.
    """
    connection = open_sqlite()._writing
    (statement, values), *_ = ledger_module._filled(
        ledger_module._UPDATE_MANY_BOOKS, [(b"", b"", b"", b"")]
    )

    opened = connection.execute(f"EXPLAIN {statement}", values).fetchall()

    assert sum(row[1] == "OpenWrite" for row in opened) == 1


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
        futures = [store.accept([purchase(30, 10, key=str(n))]) for n in range(3)]
        for future in futures:
            with pytest.raises(StoreUnavailable):
                future.result()

    assert dump(store) == before
    assert order(store, purchase(30, 10)).record.spent == 10


def test_a_refusal_is_not_told_before_the_commit_that_it_rests_on(
    open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_sqlite()
    add(store)
    with WriterHeld(store):
        bought = store.accept([purchase(10, 10, key="first")])
        refused = store.accept([purchase(10, 10, key="second")])
        monkeypatch.setattr(store, "_writing", _FailsToCommit(store._writing))

    for future in (bought, refused):
        with pytest.raises(StoreUnavailable):
            future.result()
    monkeypatch.undo()


def test_a_locked_file_is_unavailable_not_an_endless_wait(
    tmp_path: Path, open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    store = open_sqlite()
    add(store)
    other = sqlite3.connect(tmp_path / "books", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable):
        order(store, purchase(10, 10))
    other.execute("ROLLBACK")
    other.close()

    assert order(store, purchase(10, 10)).payment_id == 1


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
