"""The payee's books. ``open_store`` opens them by URL; ``base.Store`` says what they can do."""

from __future__ import annotations

from pathlib import Path

from channelpay.errors import ConfigError
from channelpay.store.base import Accepted, ChainView, Store, StoredPayment
from channelpay.store.memory import MemoryStore
from channelpay.store.sqlite import SqliteStore

__all__ = [
    "Accepted",
    "ChainView",
    "MemoryStore",
    "SqliteStore",
    "Store",
    "StoredPayment",
    "open_store",
]

_SQLITE = "sqlite:///"


def open_store(url: str) -> Store:
    """``sqlite:///relative/path`` or ``sqlite:////absolute/path``; ``memory:`` keeps nothing.

    Raises :class:`~channelpay.errors.ConfigError` for any other URL, and what the store raises.
    """
    if url == "memory:":
        return MemoryStore()
    if url.startswith(_SQLITE) and url != _SQLITE:
        return SqliteStore(Path(url.removeprefix(_SQLITE)))
    raise ConfigError(f"no store is known for {url!r}", hint="Use sqlite:///path/of/the/file.")
