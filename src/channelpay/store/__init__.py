"""The payee's books. ``open_store`` opens them by URL; ``base.Store`` says what they can do."""

from __future__ import annotations

from pathlib import Path

from channelpay.errors import ConfigError
from channelpay.store.base import (
    Accepted,
    Answer,
    ChainView,
    Clock,
    CommitObserver,
    Store,
    StoredPayment,
    Totals,
)
from channelpay.store.memory import MemoryStore
from channelpay.store.sqlite import SqliteStore

__all__ = [
    "Accepted",
    "Answer",
    "ChainView",
    "Clock",
    "CommitObserver",
    "MemoryStore",
    "SqliteStore",
    "Store",
    "StoredPayment",
    "Totals",
    "open_store",
    "sqlite_file",
]

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def open_store(url: str, on_commit: CommitObserver | None = None) -> Store:
    """``sqlite:///relative/path`` or ``sqlite:////absolute/path``;
    ``postgresql://user@host/database`` with the extra ``postgres``; ``memory:`` keeps nothing.
    ``on_commit`` is told of every commit of a store that commits.

    Raises :class:`~channelpay.errors.ConfigError` for any other URL, and what the store raises.
    """
    if url == "memory:":
        return MemoryStore()
    file = sqlite_file(url)
    if file is not None:
        return SqliteStore(file, on_commit)
    if url.startswith(_POSTGRES):
        return _open_postgres(url, on_commit)
    # Not the URL itself: it may have a password, and a slip in its first word.
    raise ConfigError(
        "no store is known for this URL",
        hint="Use sqlite:///path/of/the/file or postgresql://user@host/database.",
    )


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite URL; None for any other URL."""
    if url.startswith(_SQLITE) and url != _SQLITE:
        return Path(url.removeprefix(_SQLITE))
    return None


def _open_postgres(url: str, on_commit: CommitObserver | None) -> Store:
    try:
        from channelpay.store.postgres import PostgresStore
    except ImportError as error:
        raise ConfigError(
            "the driver for PostgreSQL is not installed",
            hint="Install it with: pip install 'channelpay[postgres]'",
        ) from error
    return PostgresStore(url, on_commit)
