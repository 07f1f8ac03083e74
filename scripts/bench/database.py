"""The databases that are measured: files of SQLite, and a server of PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from scripts.bench.processes import environment, parent_of
from tests.support.postgres import PostgresServer, running_postgres


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server. ``pid`` is that of the process that all its others are children of."""

    server: PostgresServer
    pid: int

    def new_books(self) -> str:
        """The URL of books that nobody has used."""
        return self.server.new_books()


@contextmanager
def postgres(variables: Mapping[str, str] | None = None) -> Iterator[Postgres]:
    """A server with fresh files, gone when the block is left."""
    with environment(variables or {}), running_postgres() as server:
        yield Postgres(server, _main_process(server))


def _main_process(server: PostgresServer) -> int:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        return parent_of(int(row[0]))


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.absolute()}"
