"""A small SQLite file that survives power cuts: private, migrated, one writer at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock

from channelpay.errors import StoreUnavailable
from channelpay.store.migration import run_migrations

BUSY_SECONDS = 10.0
AMOUNT_BYTES = 16


def amount_blob(amount: int) -> bytes:
    """A ``uint128`` as 16 bytes, big-endian: it never goes through a 64-bit integer, and compares
    like the number.
    """
    return amount.to_bytes(AMOUNT_BYTES, "big")


def blob_amount(blob: bytes) -> int:
    return int.from_bytes(blob, "big")


class Database:
    """One SQLite file in WAL mode with ``synchronous=FULL``: committed means on disk.

    ``migrations`` are the statements of each version; ``user_version`` counts those that were run.
    Threads may share an instance, and processes the file. Raises :class:`StoreUnavailable` when the
    file cannot be read or written.
    """

    def __init__(self, path: Path, migrations: Sequence[Sequence[str]]) -> None:
        self._path = path
        self._lock = RLock()
        with self._translated():
            _create_private(path)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            for setting in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                self._connection.execute(f"PRAGMA {setting}")
        with self.write() as connection:
            run_migrations(connection, migrations)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One atomic step: when it ends, what was done inside is on disk; if it raises, nothing
        is.
        """
        with self._lock, self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view."""
        with self._lock, self._translated():
            self._connection.execute("BEGIN")
            try:
                yield self._connection
            finally:
                self._connection.execute("ROLLBACK")

    def erase_deleted(self) -> None:
        """Write the file anew, so that nothing of what was deleted is left in it or beside it.
        Raises :class:`StoreUnavailable` while others use it.
        """
        with self._lock, self._translated():
            self._connection.execute("VACUUM")
            checkpoint = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if checkpoint[0]:
                raise sqlite3.OperationalError("another program uses the books")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(
                f"{self._path}: {error}", hint="Nothing was signed. Check the file and its disk."
            ) from error


def _create_private(path: Path) -> None:
    """SQLite gives its side files the mode of the main one, so that is private from the start. A
    file that is there is not opened: to close it again would end the locks that this process has.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
