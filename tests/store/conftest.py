"""Every store, made fresh for each test: one suite for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest

from channelpay.store import CommitObserver, SqliteStore, Store, open_store
from tests.support.postgres import *  # noqa: F403  (fixtures)
from tests.support.postgres import PostgresServer

OpenStore = Callable[..., Store]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def new_books(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives the URL of other empty books whenever it is called."""
    return _new_books(request)


@pytest.fixture
def store(new_books: Callable[[], str]) -> Iterator[Store]:
    with closing(open_store(new_books())) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """The URL of empty books that several stores may open at once."""
    return _new_books(request)()


@pytest.fixture
def open_shared(shared_url: str) -> Iterator[OpenStore]:
    """Opens the same books as often as it is called."""
    with ExitStack() as stack:

        def opened(on_commit: CommitObserver | None = None) -> Store:
            return stack.enter_context(closing(open_store(shared_url, on_commit)))

        yield opened


@pytest.fixture
def open_sqlite(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    """Opens the same file as often as it is called."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(SqliteStore(tmp_path / "books")))


def _new_books(request: pytest.FixtureRequest) -> Callable[[], str]:
    if request.param == "memory":
        return lambda: "memory:"
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.new_books
    folder: Path = request.getfixturevalue("tmp_path")
    numbers = count()
    return lambda: f"sqlite:///{folder / f'books-{next(numbers)}'}"
