"""A terminal in which the commands of a page are typed, as wide as its output on the page."""

from __future__ import annotations

import os
import pty
import random
import re
import select
import shlex
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
PROMPT = "$ "
SECONDS = 90
_PORTS = (3000, 8402, 8410, 8411, 8412, 8545, 9402)
_SERVER = re.compile(r"^channelpay (dev|site|proxy)(?=$| -| [a-z]+/)", re.MULTILINE)
_DEFAULT_PORTS = {"dev": 8545, "site": 8402, "proxy": 8402}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
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
    """What became of a block of commands: its code, and all that the terminal showed, with
    colours and the like in ``screen`` and without them in ``output``.
    """

    code: int | None
    screen: str

    @property
    def output(self) -> str:
        return ESCAPE.sub("", self.screen)


@dataclass
class Terminal:
    """Types commands in a fresh home and folder. What they export, and where they ``cd``, holds for
    the commands after them.

    The ports that pages speak of may be in use here, so that others take their place: in what is
    typed or saved, and back again in what is shown. ``programs`` is a folder on the path.
    With ``shows_commands`` each line of commands is shown after a prompt, as in a shell.
    """

    folder: Path
    home: Path
    programs: Path
    variables: Mapping[str, str]
    ports: Mapping[int, int]
    shows_commands: bool = False
    _running: list[_Running] = field(default_factory=list)

    def save(self, name: str, text: str) -> None:
        """Keep a file as the page says."""
        path = self.current_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.with_free_ports(text))

    def run(self, commands: str, typed: str | None = None) -> Done:
        """Run commands to their end."""
        running = self._start(f"{self._announced(commands)}\nkeep", typed)
        running.read_until(lambda: running.process.poll() is not None)
        return self._done(running)

    def start(self, commands: str, typed: str | None = None) -> Done:
        """Run commands of which the last is a server, until it serves."""
        running = self._start(self._announced(commands), typed)
        running.read_until(lambda: running.serves or running.process.poll() is not None)
        running.read_on()
        return self._done(running)

    @property
    def current_folder(self) -> Path:
        """Where the commands before led."""
        noted = self._state.with_name(f"{self._state.name}.folder")
        return Path(noted.read_text().rstrip("\n")) if noted.exists() else self.folder

    @property
    def _state(self) -> Path:
        return self.home / ".terminal"

    def with_free_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text

    def end(self) -> None:
        """Ctrl-C for whatever still runs."""
        while self._running:
            self._running.pop().end()

    def _announced(self, commands: str) -> str:
        if not self.shows_commands:
            return commands
        lines = [line for line in commands.splitlines() if line]
        return "\n".join(f"printf '%s\\n' {shlex.quote(PROMPT + one)}\n{one}" for one in lines)

    def _start(self, commands: str, typed: str | None) -> _Running:
        asked = _SERVER.sub(lambda m: f"{m[0]} --port {_DEFAULT_PORTS[m[1]]}", commands)
        script = _SCRIPT.format(state=self._state, commands=self.with_free_ports(asked))
        running = _Running.of(script, self.folder, self._environment(), typed)
        self._running.append(running)
        return running

    def _done(self, running: _Running) -> Done:
        screen = running.screen_text
        for port, free in self.ports.items():
            screen = re.sub(rf"\b{free}\b", str(port), screen)
        return Done(running.process.poll(), screen)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if "CHANNELPAY" not in name}
        return kept | {
            "COLUMNS": str(COLUMNS),
            "ETH_ACCOUNT_KDF": "pbkdf2",  # key files that are cheap to open: each command does
            "HOME": str(self.home),
            "LINES": str(LINES),
            "NO_COLOR": "1",
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "TERM": "dumb",
            **self.variables,
        }


@contextmanager
def terminal(
    folder: Path,
    variables: Mapping[str, str],
    rpc: str | None = None,
    programs: Path = ENVIRONMENT,
    *,
    shows_commands: bool = False,
) -> Iterator[Terminal]:
    """A terminal for one page; whatever it started ends with it. ``rpc`` is a chain that is there,
    where pages say that ``channelpay dev`` has it. ``programs`` is a folder on the path: that of
    the environment that runs this, unless given.
    """
    places = [folder / "home", folder / "work"]
    for place in places:
        place.mkdir()
    ports = dict(zip(_PORTS, _free(), strict=True))
    if rpc is not None:
        ports[_DEFAULT_PORTS["dev"]] = int(rpc.rpartition(":")[2])
    opened = Terminal(places[1], places[0], programs, variables, ports, shows_commands)
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
    def screen_text(self) -> str:
        return self.shown.decode(errors="replace").replace("\r\n", "\n")

    @property
    def output(self) -> str:
        """What was shown, without colours and the like."""
        return ESCAPE.sub("", self.screen_text)

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
        waiting = select.poll()  # Unlike select.select, it takes any number of open files.
        waiting.register(self.screen, select.POLLIN)
        ready = waiting.poll(seconds * 1000)
        if not ready:
            return False
        try:
            data = os.read(self.screen, 65_536)
        except OSError:  # nobody has the other end any more
            return False
        self.shown += data
        return bool(data)


def _free() -> Iterator[int]:
    """As many free ports as pages speak of, at this moment; as long as those, for tables."""
    tried = iter(random.sample(range(2000, 10_000), 1000))
    for _ in _PORTS:
        yield next(port for port in tried if _is_free(port))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
