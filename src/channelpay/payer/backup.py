"""Copies of the payer's books, made while programs pay out of them.

A copy is marked inside: whoever uses it, and however it came to its place, asks each payee what it
holds before anything more is signed (:mod:`channelpay.payer.doubt`).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from channelpay.payer.channels import MARKING
from channelpay.payer.schema import MIGRATIONS
from channelpay.store.backup import copy_books
from channelpay.store.migration import run_migrations


def back_up(books: Path, to: Path) -> None:
    """Copy the books, as they are at one moment, into the new file ``to``; see
    :func:`channelpay.store.backup.back_up`. Keys are not in them. A copy is put back in the same
    way, which never goes over other books.
    """
    copy_books(books, to, _mark)


def _mark(copy: sqlite3.Connection) -> None:
    copy.execute("BEGIN")
    run_migrations(copy, MIGRATIONS)
    for statement in MARKING:
        copy.execute(statement)
    copy.execute("COMMIT")
