"""A terminal in which the commands of a page are typed, as wide as its output on the page."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

ENVIRONMENT = Path(sys.executable).parent
COLUMNS, LINES = 100, 40
SECONDS = 90
_PORTS = (3000, 8402, 8545, 9402)
_SERVER = re.compile(r"^channelpay (dev|site|proxy)(?=$| -| [a-z]+/)", re.MULTILINE)
_DEFAULT_PORTS = {"dev": 8545, "site": 8402, "proxy": 8402}
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SAYS_HOW_TO_STOP = re.compile(r"ctrl[-+]c.*\n", re.IGNORECASE)
_SCRIPT = """\
[ -e {state} ] && . {state} && cd "$(cat {state}.folder)"
keep() {{ export -p > {state}; pwd > {state}.folder; }}
trap keep DEBUG
set -eo pipefail
{commands}
"""
"""What holds for the next commands is kept before each of these, for the last may never end."""


@dataclass(frozen=True)
class Done:
    """What became of a block of commands: its code, and all that the terminal showed."""

    code: int | None
    output: str


@dataclass
class Terminal:
    """Types commands in a fresh home and folder. What they export, and where they ``cd``, holds for
    the commands after them.

    The ports that pages speak of may be in use here, so that others take their place: in what is
    typed or saved, and back again in what is shown.
    """

    folder: Path
    home: Path
    variables: Mapping[str, str]
    ports: Mapping[int, int]
    _running: list[_Running] = field(default_factory=list)

    def save(self, name: str, text: str) -> None:
        """Keep a file as the page says."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.with_free_ports(text))

    def run(self, commands: str, typed: str | None = None) -> Done:
        """Run commands to their end."""
        running = self._start(f"{commands}\nkeep", typed)
        running.read_until(lambda: running.process.poll() is not None)
        return self._done(running)

    def start(self, commands: str, typed: str | None = None) -> Done:
        """Run commands of which the last is a server, until it serves."""
        running = self._start(commands, typed)
        running.read_until(lambda: running.serves or running.process.poll() is not None)
        running.read_on()
        return self._done(running)

    def with_free_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text

    def end(self) -> None:
        """Ctrl-C for whatever still runs."""
        while self._running:
            self._running.pop().end()

    def _start(self, commands: str, typed: str | None) -> _Running:
        asked = _SERVER.sub(lambda m: f"{m[0]} --port {_DEFAULT_PORTS[m[1]]}", commands)
        state, typed_in = self.home / ".terminal", self.with_free_ports(asked)
        script = _SCRIPT.format(state=state, commands=typed_in)
        running = _Running.of(script, self.folder, self._environment(), typed)
        self._running.append(running)
        return running

    def _done(self, running: _Running) -> Done:
        output = running.output
        for port, free in self.ports.items():
            output = re.sub(rf"\b{free}\b", str(port), output)
        return Done(running.process.poll(), output)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "CHANNELPAY" not in name}
        return kept | {
            "COLUMNS": str(COLUMNS),
            "ETH_ACCOUNT_KDF": "pbkdf2",  # key files that are cheap to open: each command does
            "HOME": str(self.home),
            "LINES": str(LINES),
            "NO_COLOR": "1",
            "PATH": f"{ENVIRONMENT}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "TERM": "dumb",
            **self.variables,
        }


@contextmanager
def terminal(
    folder: Path, variables: Mapping[str, str], rpc: str | None = None
) -> Iterator[Terminal]:
    """A terminal for one page; whatever it started ends with it. ``rpc`` is a chain that is there,
    where pages say that ``channelpay dev`` has it.
    """
    places = [folder / "home", folder / "work"]
    for place in places:
        place.mkdir()
    ports = dict(zip(_PORTS, _free(), strict=True))
    if rpc is not None:
        ports[_DEFAULT_PORTS["dev"]] = int(rpc.rpartition(":")[2])
    opened = Terminal(places[1], places[0], variables, ports)
    try:
        yield opened
    finally:
        opened.end()


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    screen: int
    shown: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(
        cls, script: str, folder: Path, environment: Mapping[str, str], typed: str | None
    ) -> _Running:
        screen, end = pty.openpty()
        termios.tcsetwinsize(end, (LINES, COLUMNS))
        with os.fdopen(end, "wb") as shown:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=shown,
                stderr=shown,
                start_new_session=True,
            )
        assert process.stdin is not None
        with process.stdin as keyboard:
            keyboard.write((typed or "").encode())
        return cls(process, screen)

    @property
    def output(self) -> str:
        """What was shown, without colours and the like."""
        return _ESCAPE.sub("", self.shown.decode(errors="replace")).replace("\r\n", "\n")

    @property
    def serves(self) -> bool:
        """Whether it says how to stop it, and answers where it says that it listens."""
        output = self.output
        named = re.search(r"http://127\.0\.0\.1:(\d+)", output)
        if _SAYS_HOW_TO_STOP.search(output) is None:
            return False
        with socket.socket() as probe:
            return named is None or probe.connect_ex(("127.0.0.1", int(named[1]))) == 0

    def read_until(self, condition: Callable[[], bool]) -> None:
        """Read what is shown until it holds, and then what is there already."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"took over {SECONDS} s:\n{self.output}"
            self._read(0.05)
        while self._read(0):
            pass

    def read_on(self) -> None:
        """A terminal that nobody reads stops whoever writes to it."""

        def read() -> None:
            with suppress(OSError):
                while os.read(self.screen, 65_536):
                    pass

        Thread(target=read, daemon=True).start()

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(timeout=SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            os.close(self.screen)

    def _read(self, seconds: float) -> bool:
        """Whether there was something to read."""
        ready, _, _ = select.select([self.screen], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.screen, 65_536)
        except OSError:  # nobody has the other end any more
            return False
        self.shown += data
        return bool(data)


def _free() -> list[int]:
    """As many free ports as pages speak of, at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in _PORTS]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
