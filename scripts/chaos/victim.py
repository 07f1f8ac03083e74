"""The site as the one who kills it sees it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

from channelpay.payee.server import listen
from scripts.chaos.site import Settings

_STOP_SECONDS = 15.0


class Victim:
    """A site on a port of this machine that can be started and killed again and again."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout
        self.port = port

    def start(self) -> None:
        """Returns at once; that it serves shows when it answers."""
        self._do("start")

    def kill(self) -> str | None:
        """SIGKILL; what was wrong with the site if it had ended before."""
        answer = self._do("kill")
        return None if answer == "killed" else f"the site {answer}"

    def _do(self, order: str) -> str:
        self._orders.write(order + "\n")
        self._orders.flush()
        answer = self._answers.readline().strip()
        if not answer:
            raise RuntimeError("the process that starts the site has ended; see its log")
        return answer


@contextmanager
def victim(
    rpc_url: str, contract: str, store: str, environment: Mapping[str, str], log: Path
) -> Iterator[Victim]:
    """A site over these books that does not run yet; it is gone when the block is left."""
    with listen("127.0.0.1", 0) as listening, log.open("ab") as log_file:
        settings = Settings(rpc_url, contract, store, listening.fileno())
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.chaos.site", json.dumps(asdict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            pass_fds=[listening.fileno()],
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            yield Victim(process, _port(listening))
        finally:
            process.communicate(timeout=_STOP_SECONDS)


def _port(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])
