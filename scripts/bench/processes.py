"""Child processes that are asked over a pipe, and what the kernel says of processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 120.0
STOP_SECONDS = 15.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SPAWN = get_context("spawn")


class Child:
    """The other end of a child's pipe."""

    def __init__(self, pid: int, pipe: Connection[Any, Any]) -> None:
        self.pid = pid
        self._pipe = pipe

    def ask(self, question: object) -> Any:
        """Send something and wait for the answer."""
        self._pipe.send(question)
        return self.answer()

    def answer(self) -> Any:
        """What the child says next. Raises :class:`RuntimeError` if it says nothing."""
        if not self._pipe.poll(ANSWER_SECONDS):
            raise RuntimeError(f"process {self.pid} does not answer")
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"process {self.pid} ended; see its messages above") from None


@contextmanager
def child(
    target: Callable[..., None], *arguments: object, variables: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """``target(pipe, *arguments)`` in a fresh process, ended by SIGTERM when the block is left."""
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=target, args=(theirs, *arguments))
    with environment(variables or {}):
        process.start()
    theirs.close()
    assert process.pid is not None
    try:
        yield Child(process.pid, ours)
    finally:
        process.terminate()
        process.join(STOP_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        ours.close()


@contextmanager
def environment(added: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of those it started that run still."""
    own = sum(_times(pid))
    return own + sum(cpu_seconds(one) for one in _children(pid))


def resident_bytes(pid: int | None = None) -> int:
    """Memory of a process (this one without ``pid``); pages that several share count in parts
    (``Pss``).
    """
    rollup = Path(f"/proc/{pid or 'self'}/smaps_rollup").read_text(encoding="ascii")
    (kilobytes,) = (line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(kilobytes) * 1024


def parent_of(pid: int) -> int:
    return int(_stat(pid)[1])


def _times(pid: int) -> tuple[float, float]:
    fields = _stat(pid)
    return int(fields[11]) / _TICKS_PER_SECOND, int(fields[12]) / _TICKS_PER_SECOND


def _stat(pid: int) -> list[str]:
    """What stands behind the name in the kernel's line; the process's state comes first."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(one) for one in found.split()]
