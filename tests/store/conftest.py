"""Every store, made fresh for each test: one suite for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from channelpay.store import MemoryStore, SqliteStore, Store


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "books")
    with closing(made):
        yield made


@pytest.fixture
def open_sqlite(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Opens the same file as often as it is called."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(SqliteStore(tmp_path / "books")))
