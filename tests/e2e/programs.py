"""Programs of a user as processes: what the examples and the README's snippets are run with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

ENVIRONMENT = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]
_SECONDS = 60


class Program:
    """A program that runs: one talks to it by its standard input and output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> str:
        """Its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def rest(self) -> str:
        """The rest of what it prints; it has to succeed."""
        output, _ = self.process.communicate(timeout=_SECONDS)
        assert self.process.returncode == 0, output
        return output


@dataclass(frozen=True)
class Workplace:
    """A folder to run programs in, with the environment variables that they are given."""

    folder: Path
    variables: Mapping[str, str]

    def run(self, *command: str | Path, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program that has to succeed; ``typed`` is its standard input."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(),
            input=typed,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done

    @contextmanager
    def started(self, *command: str | Path) -> Iterator[Program]:
        """Start a program, which does not outlive the block."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield Program(process)
            finally:
                process.kill()

    @contextmanager
    def serving(self, *command: str | Path, typed: str = "") -> Iterator[str]:
        """Run a server until the block ends; yields the first line that names a local address."""
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = Timer(_SECONDS, process.kill)
        deadline.start()
        try:
            process.stdin.write(typed)
            process.stdin.close()
            line = _first_address_line(process.stdout)
            deadline.cancel()
            yield line
        finally:
            deadline.cancel()
            os.killpg(process.pid, signal.SIGINT)
            with process.stdout:
                process.stdout.read()
            process.wait(timeout=_SECONDS)

    def _environment(self) -> dict[str, str]:
        path = f"{ENVIRONMENT}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **self.variables}


def url_in(line: str) -> str:
    """The local address that a line names, without a path."""
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found is not None, line
    return found[0]


def _first_address_line(output: Iterator[str]) -> str:
    seen = []
    for line in output:
        seen.append(line)
        if "http://127.0.0.1:" in line:
            return line
    raise AssertionError("the server ended before it was ready:\n" + "".join(seen))
