"""Files whose lock says that a program is alive: the system takes it away when the program ends,
however that happens.
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
import weakref
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any


class Lease:
    """The place of one program among those that share the books ``books``. Threads may share it.
    It ends with this object at the latest.
    """

    def __init__(self, books: Path) -> None:
        self._folder = books.with_name(f"{books.name}-leases")
        self._lock = Lock()
        self._held: weakref.finalize[Any, Lease] | None = None
        self._name = secrets.token_hex(8)

    @property
    def name(self) -> str:
        """By which others know it; from the first call on it is held."""
        with self._lock:
            if self._held is None:
                self._hold()
        return self._name

    def _hold(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_unlocked(self._folder)
        place = self._folder / self._name
        file = None
        while file is None:  # Another program may have taken it for one that is over.
            file = lock(place)
        self._held = weakref.finalize(self, _let_go, file, place, os.getpid())
        self._held.atexit = False  # The system does it then.

    def is_over(self, name: str) -> bool:
        """Whether the program with this name is gone."""
        if name == self._name:
            return False
        place = self._folder / name
        if not place.exists():
            return True
        file = lock(place)
        if file is None:
            return False
        unlock(file, place)
        return True

    def end(self) -> None:
        """Give it up, and leave nothing behind."""
        with self._lock:
            if self._held is not None:
                self._held()
                self._held = None


def _let_go(file: int, place: Path, owner: int) -> None:
    """A copy of the ``owner`` (a process id) that a fork made leaves it alone."""
    if os.getpid() == owner:
        unlock(file, place)
    else:
        os.close(file)


def lock(place: Path) -> int | None:
    """Create and lock a file; None if another program holds it."""
    while True:
        file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        if os.fstat(file).st_nlink:
            return file
        os.close(file)  # Whoever held it removed it meanwhile.


def remove_unlocked(folder: Path, before: float = math.inf) -> None:
    """Remove what programs left that are gone, if it was last written ``before`` (Unix seconds)."""
    for place in folder.iterdir():
        with suppress(FileNotFoundError):
            if place.stat().st_mtime < before and (file := lock(place)) is not None:
                unlock(file, place)


def unlock(file: int, place: Path) -> None:
    """Remove a file that is locked, and let it go."""
    with suppress(FileNotFoundError):
        place.unlink()
    os.close(file)
