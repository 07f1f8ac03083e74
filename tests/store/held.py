"""A store whose writer stands still, so that a test decides what waits behind it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from channelpay.store.postgres_ledger import SaveCursor

WAIT_SECONDS = 30


@dataclass(frozen=True)
class Hold(SaveCursor):
    """Work that goes on when the test says so. Any store takes it: PostgreSQL's writer as a verb
    for which nothing has to be loaded.
    """

    name: str = "hold"
    position: str = ""
    arrived: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)

    def __call__(self, ledger: object) -> None:
        self.arrived.set()
        assert self.go_on.wait(WAIT_SECONDS)


@dataclass(frozen=True)
class Broken(SaveCursor):
    """Work with a bug."""

    name: str = "broken"
    position: str = ""

    def __call__(self, ledger: object) -> None:
        raise ZeroDivisionError


class WriterHeld:
    """While entered, the writer stands inside a transaction, and jobs wait behind it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._hold = Hold()

    def __enter__(self) -> None:
        submit(self._store, self._hold)
        assert self._hold.arrived.wait(WAIT_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._hold.go_on.set()


def submit(store: Any, work: SaveCursor) -> Future[None]:
    future: Future[None] = store._writer.submit(work)
    return future
