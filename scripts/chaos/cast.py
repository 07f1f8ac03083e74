"""The processes of the soak: a site with its workers, a daemon that settles, and payers. Each can
be killed at any moment and started again.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from eth_account import Account

from channelpay.testing.accounts import dev_accounts
from scripts.chaos.payer import Settings

CHANNELPAY = Path(sys.executable).with_name("channelpay")
PAYEE = "payee"
PASSWORD = "for the chaos only"  # noqa: S105  of a key that everybody knows
STOP_SECONDS = 30.0


class Actor:
    """One program, with the processes that it starts. Its output goes to ``log``."""

    def __init__(
        self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self.kills = 0
        self._command = command
        self._environment = {**os.environ, **environment}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once."""
        self._close_input()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code of a program that has ended by itself."""
        return None if self._process is None else self._process.poll()

    def children(self) -> list[int]:
        """The processes that it has started itself."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in listed.split()]

    def kill(self) -> None:
        """SIGKILL to all its processes at once."""
        if self._process is not None and self._process.poll() is None:
            self.kills += 1
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._close_input()

    def kill_child(self, number: int) -> bool:
        """SIGKILL to one of its workers, if it has any; ``number`` chooses."""
        children = self.children()
        if not children:
            return False
        self.kills += 1
        os.kill(children[number % len(children)], signal.SIGKILL)
        return True

    def tell(self, order: str) -> None:
        """Write a line to its input."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order}\n".encode())
        self._process.stdin.flush()

    def end(self) -> int | None:
        """SIGTERM, as a service manager stops a program; its exit code, or None if it has to be
        killed.
        """
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def payer(settings: Settings) -> Actor:
    command = [sys.executable, "-m", "scripts.chaos.payer", json.dumps(asdict(settings))]
    name = f"payer-{settings.account}"
    return Actor(name, command, {}, Path(settings.folder) / f"{name}.log")


def keep_key(home: Path, account: int) -> dict[str, str]:
    """A home for the commands of a payee with this development account; their environment."""
    folder = home / "keystore"
    folder.mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    file = folder / f"{PAYEE}.json"
    file.touch(mode=0o600)
    # Cheap to open: each start does.
    key = dev_accounts()[account].private_key
    file.write_text(json.dumps(Account.encrypt(key, PASSWORD, iterations=2)), encoding="ascii")
    return {
        "CHANNELPAY_HOME": str(home),
        "CHANNELPAY_ACCOUNT": PAYEE,
        "CHANNELPAY_PASSWORD": PASSWORD,
    }


def free_port() -> int:
    """A port that nobody has now, for a site that keeps it over its restarts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
