"""A copy of the SQLite books: whole, private, and never in the place of another file."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from channelpay.errors import (
    ConfigError,
    InputError,
    InsufficientBalance,
    NotFound,
    PaymentRefused,
    StoreUnavailable,
)
from channelpay.store import SqliteStore
from channelpay.store import backup as backup_module
from channelpay.store.backup import back_up
from tests.store.books import add, order, purchase, raw_rows, spent_by_payments
from tests.store.terms import COUPON, amend, put, read

OpenSqlite = Callable[[], SqliteStore]


def test_a_backup_has_everything_and_opens_as_books(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    store = open_sqlite()
    add(store)
    order(store, purchase(30, 10, key="k"))
    store.save_cursor("events", "17").result()

    back_up(tmp_path / "books", tmp_path / "copy")

    (before,) = store.records()
    payments = store.payments(before.channel_id)
    order(store, purchase(40, 10))
    with closing(SqliteStore(tmp_path / "copy")) as restored:
        assert restored.records() == [replace(before, in_doubt=True)]
        assert restored.payments(before.channel_id) == payments
        assert restored.cursor("events") == "17"
        assert order(restored, purchase(30, 10, key="k")).charged == 0


def test_a_restored_backup_charges_nothing_twice_that_was_promised_before(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    store = open_sqlite()
    add(store)
    order(store, purchase(30, 10))
    back_up(tmp_path / "books", tmp_path / "copy")
    order(store, purchase(30, 20, key="after the backup"))
    assert not store.records()[0].in_doubt

    with closing(SqliteStore(tmp_path / "copy")) as restored:
        with pytest.raises(InsufficientBalance) as refused:
            order(restored, purchase(30, 10, key="once more"))
        assert refused.value.context["requiredCumulative"] == "40"
        again = order(restored, purchase(40, 10, key="once more"))

    assert (again.record.spent, again.record.in_doubt) == (40, False)


def test_a_backup_of_a_version_that_nobody_knows_is_refused_and_leaves_nothing(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    open_sqlite().close()
    raw_rows(tmp_path / "books", "PRAGMA user_version = 1000")

    with pytest.raises(ConfigError):
        back_up(tmp_path / "books", tmp_path / "copy")

    assert not (tmp_path / "copy").exists()


def test_a_backup_is_one_file_for_its_owner_only(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    add(open_sqlite())
    folder = tmp_path / "backups"
    folder.mkdir()

    back_up(tmp_path / "books", folder / "copy")

    assert {file.name for file in folder.iterdir()} == {"copy"}
    assert stat.S_IMODE((folder / "copy").stat().st_mode) == 0o600


def test_a_backup_made_while_a_site_writes_is_consistent_and_stops_nobody(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    store = open_sqlite()
    add(store, deposit=10**9)
    stop = threading.Event()
    bought: list[int] = []

    def buy() -> None:
        while not stop.is_set():
            bought.append(order(store, purchase(10**9, 1, key=str(len(bought)))).charged)

    buyer = threading.Thread(target=buy)
    buyer.start()
    for turn in range(5):
        least = len(bought)
        back_up(tmp_path / "books", tmp_path / f"copy-{turn}")
        with closing(SqliteStore(tmp_path / f"copy-{turn}")) as copied:
            assert spent_by_payments(copied) >= least
    stop.set()
    buyer.join()

    assert spent_by_payments(store) == len(bought)


def test_a_backup_replaces_no_file(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    add(open_sqlite())
    (tmp_path / "copy").write_text("the backup of last week")

    with pytest.raises(InputError):
        back_up(tmp_path / "books", tmp_path / "copy")

    assert (tmp_path / "copy").read_text() == "the backup of last week"


def test_a_backup_of_no_books_is_not_found_and_makes_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        back_up(tmp_path / "books", tmp_path / "copy")

    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_fails_leaves_nothing(
    tmp_path: Path, open_sqlite: OpenSqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(open_sqlite())
    folder = tmp_path / "backups"
    folder.mkdir()

    def disk_is_full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup_module, "sync", disk_is_full)

    with pytest.raises(StoreUnavailable):
        back_up(tmp_path / "books", folder / "copy")
    assert list(folder.iterdir()) == []


def test_damaged_books_are_not_taken_for_a_backup(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    store = open_sqlite()
    for number in range(200):
        add(store, number)
    store.close()
    raw_rows(tmp_path / "books", "PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray((tmp_path / "books").read_bytes())
    damaged[-20_000:-10_000] = b"\xff" * 10_000
    (tmp_path / "books").write_bytes(damaged)

    with pytest.raises(StoreUnavailable):
        back_up(tmp_path / "books", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path, open_sqlite: OpenSqlite) -> None:
    add(open_sqlite())

    with pytest.raises(StoreUnavailable):
        back_up(tmp_path / "books", tmp_path / "nowhere" / "copy")


def test_a_restored_copy_gives_once_more_what_was_given_since_and_nothing_a_third_time(
    tmp_path: Path, open_sqlite: OpenSqlite
) -> None:
    store = open_sqlite()
    add(store)
    put(store, COUPON, 1)
    back_up(tmp_path / "books", tmp_path / "copy")
    order(store, amend({COUPON: -1}, key="before the loss"))

    with closing(SqliteStore(tmp_path / "copy")) as restored:
        order(restored, amend({COUPON: -1}, key="after it"))
        with pytest.raises(PaymentRefused):
            order(restored, amend({COUPON: -1}, key="again"))
        assert read(restored, COUPON) == 0
