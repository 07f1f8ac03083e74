"""A copy of the SQLite books, made while sites use them, and marked as one.

Whoever puts the copy in the place of the books has books that are too old: charges since then are
missing. So every channel of the copy is in doubt (:mod:`channelpay.protocol.rules`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from channelpay.errors import ConfigError, InputError, NotFound, StoreUnavailable
from channelpay.private_files import sync
from channelpay.store.ledger import Ledger
from channelpay.store.schema import migrate


def back_up(books: Path, to: Path) -> None:
    """Copy the books, as they are at one moment, into the new file ``to`` with mode 0600. It is of
    the newest version, on the disk, and was checked, when this returns; sites go on reading and
    writing meanwhile.

    Raises :class:`NotFound` if there are no books, :class:`InputError` if there is a file at
    ``to``, :class:`ConfigError` for books of an unknown version, and :class:`StoreUnavailable` if
    the copy could not be made; then nothing is left of it.
    """
    copy_books(books, to, _mark)


BEGUN = "begun "
"""What the names of cursors begin with that say where books were begun. A copy begins anew when it
is first used: a channel that it does not know may be one that the books have sold on since.
"""
_SIDE_FILES = ("-wal", "-shm", "-journal")
Mark = Callable[[sqlite3.Connection], None]
"""Brings a copy to the newest version and marks it as one, each in a transaction of its own."""


def copy_books(books: Path, to: Path, mark: Mark) -> None:
    """What :func:`back_up` does, for books of any kind in an SQLite file."""
    if not books.is_file():
        raise NotFound(f"there are no books at {books}")
    for left in (to.with_name(to.name + ending) for ending in _SIDE_FILES):
        if left.exists():
            raise InputError(
                f"there is {left}, a part of other books",
                hint="Move it away together with the books that it belongs to.",
            )
    try:
        _create(to)
    except FileExistsError as error:
        raise InputError(
            f"there is a file at {to}", hint="Name a file that is not there yet."
        ) from error
    except OSError as error:
        raise _failed(error) from error
    try:
        _fill(to, books, mark)
    except ConfigError:
        to.unlink()
        raise
    except (sqlite3.Error, OSError) as error:
        to.unlink()
        raise _failed(error) from error


def _fill(to: Path, books: Path, mark: Mark) -> None:
    """Whoever looks at ``to`` finds an empty file or a whole copy."""
    with TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as folder:
        part = Path(folder) / "part"
        _create(part)
        _copy(books, part, mark)
        part.replace(to)
    sync(to.parent)


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _copy(books: Path, to: Path, mark: Mark) -> None:
    with (
        closing(sqlite3.connect(books)) as source,
        closing(sqlite3.connect(to, isolation_level=None)) as target,
    ):
        # All at once: a copy in steps begins anew whenever somebody writes.
        source.backup(target)
        # Without the files beside it that books in use have.
        target.execute("PRAGMA journal_mode = DELETE")
        mark(target)
        (result,) = target.execute("PRAGMA integrity_check").fetchone()
        if result != "ok":
            raise sqlite3.DatabaseError(f"they are damaged: {result}")
    sync(to)


def _mark(copy: sqlite3.Connection) -> None:
    migrate(copy)
    Ledger(copy).mark_in_doubt()
    copy.execute("DELETE FROM cursors WHERE substr(name, 1, ?) = ?", (len(BEGUN), BEGUN))


def _failed(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the books could not be copied: {error}")
