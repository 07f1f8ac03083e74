"""The program as a person has it: in a terminal of its own, where keys are typed."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

COLUMNS, LINES = 120, 40
SECONDS = 60
_PROGRAM = "import os; os.login_tty(0); from channelpay.cli import main; main()"
"""With a terminal of its own, so that Ctrl-C reaches it and nothing else."""
PATIENCE_SECONDS = 5
_CTRL_C = "\x03"


@dataclass
class Person:
    """Reads what ``channelpay`` shows, and types."""

    process: subprocess.Popen[bytes]
    screen: int
    shown: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        return self.shown.decode(errors="replace").replace("\r\n", "\n")

    def reads(self, text: str) -> None:
        """Wait until it is there."""
        self._read_until(lambda: text in self.text, f"no {text!r}")

    def types(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def interrupts(self) -> int:
        """Ctrl-C, of which the terminal makes a SIGINT; returns the exit code. One that comes just
        as a question is printed can get lost in readline: then it is typed again.
        """
        for _ in range(SECONDS // PATIENCE_SECONDS):
            self.types(_CTRL_C)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
                break
        return self.code()

    def code(self) -> int:
        """The exit code, after the end."""
        self._read_until(lambda: self.process.poll() is not None, "no end")
        while self._read():
            pass
        return self.process.returncode

    def _read_until(self, condition: Callable[[], bool], missing: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"{missing} in:\n{self.text}"
            self._read(0.05)

    def _read(self, seconds: float = 0) -> bool:
        waiting = select.poll()  # Unlike select.select, it takes any number of open files.
        waiting.register(self.screen, select.POLLIN)
        ready = waiting.poll(seconds * 1000)
        data = b""
        if ready:
            with suppress(OSError):  # nobody has the other end any more
                data = os.read(self.screen, 65_536)
        self.shown += data
        return bool(data)


@contextmanager
def person(*arguments: object, environment: Mapping[str, str]) -> Iterator[Person]:
    """Somebody who started ``channelpay`` with these arguments."""
    screen, end = pty.openpty()
    termios.tcsetwinsize(end, (LINES, COLUMNS))
    sized = {name: text for name, text in environment.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *map(str, arguments)],
        env=sized,
        stdin=end,
        stdout=end,
        stderr=end,
    )
    os.close(end)
    try:
        yield Person(process, screen)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait(SECONDS)
        os.close(screen)
