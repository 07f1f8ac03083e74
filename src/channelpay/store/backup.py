"""A copy of the SQLite books, made while sites use them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from channelpay.errors import InputError, NotFound, StoreUnavailable


def back_up(books: Path, to: Path) -> None:
    """Copy the books, as they are at one moment, into the new file ``to`` with mode 0600. It is on
    the disk, and was checked, when this returns; sites go on reading and writing meanwhile.

    Raises :class:`NotFound` if there are no books, :class:`InputError` if there is a file at
    ``to``, and :class:`StoreUnavailable` if the copy could not be made; then nothing is left of it.
    """
    if not books.is_file():
        raise NotFound(f"there are no books at {books}")
    try:
        _create(to)
    except FileExistsError as error:
        raise InputError(
            f"there is a file at {to}", hint="Name a file that is not there yet."
        ) from error
    except OSError as error:
        raise _failed(error) from error
    try:
        _fill(to, books)
    except (sqlite3.Error, OSError) as error:
        to.unlink()
        raise _failed(error) from error


def _fill(to: Path, books: Path) -> None:
    """Whoever looks at ``to`` finds an empty file or a whole copy."""
    with TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as folder:
        part = Path(folder) / "part"
        _create(part)
        _copy(books, part)
        part.replace(to)
    _sync(to.parent)


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _copy(books: Path, to: Path) -> None:
    with closing(sqlite3.connect(books)) as source, closing(sqlite3.connect(to)) as target:
        # All at once: a copy in steps begins anew whenever somebody writes.
        source.backup(target)
        # Without the files beside it that books in use have.
        target.execute("PRAGMA journal_mode = DELETE")
        (result,) = target.execute("PRAGMA integrity_check").fetchone()
        if result != "ok":
            raise sqlite3.DatabaseError(f"they are damaged: {result}")
    _sync(to)


def _failed(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the books could not be copied: {error}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
