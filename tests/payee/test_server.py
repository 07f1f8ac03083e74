"""The server and its workers, as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from channelpay.payee.server import HEADER_BYTES_MAX

PROGRAM = Path(__file__).with_name("counting_site.py")
SECRET = "never in arguments or environment"


@dataclass
class Site:
    """A running ``counting_site.py``."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    pids: set[int] = field(default_factory=set)
    """All that were seen."""

    def get(self, path: str = "/") -> Any:
        """A request on a connection of its own, which any worker may take."""
        return httpx2.get(self.url + path, timeout=30).json()

    def workers(self, count: int) -> set[int]:
        """The processes that answer, once there are ``count`` that live."""
        seen: set[int] = set()

        def all_seen() -> bool:
            seen.add(self.get()["pid"])
            seen.intersection_update({pid for pid in seen if is_alive(pid)})
            return len(seen) == count

        wait_for(all_seen)
        self.pids |= seen
        return seen

    def ended(self) -> list[int]:
        """The processes that closed what they held."""
        return [int(file.name) for file in self.folder.iterdir()]


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def is_gone(pid: int) -> bool:
    return not is_alive(pid)


@contextmanager
def running(folder: Path, workers: int, fails: str = "") -> Iterator[Site]:
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(workers), str(folder), fails],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    site = Site(process, "", folder)
    try:
        process.stdin.write(SECRET + "\n")
        process.stdin.close()
        line = process.stdout.readline()
        site.url = json.loads(line)["url"] if line else ""
        yield site
    finally:
        process.kill()
        for pid in site.pids:
            wait_for(partial(is_gone, pid))
        process.stdout.close()
        process.stderr.close()
        process.wait()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(tmp_path / "ended", 2) as started:
        yield started


def test_one_worker_is_the_process_itself(tmp_path: Path) -> None:
    with running(tmp_path / "ended", 1) as site:
        assert site.get()["pid"] == site.process.pid


def test_workers_share_the_socket_and_each_has_its_own_application(site: Site) -> None:
    workers = site.workers(2)

    assert site.process.pid not in workers


def test_only_the_first_process_announces_the_site(site: Site) -> None:
    for pid in site.workers(2):
        os.kill(pid, signal.SIGKILL)
    site.workers(2)
    site.process.terminate()

    assert site.process.stdout is not None
    assert site.process.stdout.read() == ""


def test_a_secret_reaches_the_workers_and_nobody_else(site: Site) -> None:
    assert site.get("/secret") == {"secret": SECRET}
    for pid in [site.process.pid, *site.workers(2)]:
        for file in ("cmdline", "environ"):
            assert SECRET.encode() not in Path(f"/proc/{pid}/{file}").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_ended_is_replaced_and_the_other_serves_on(
    site: Site, number: signal.Signals
) -> None:
    first = site.workers(2)
    victim, other = sorted(first)
    os.kill(victim, number)
    wait_for(lambda: not is_alive(victim))

    second = site.workers(2)

    assert other in second
    assert len(second - first) == 1


def test_every_worker_can_be_lost_at_once(site: Site) -> None:
    first = site.workers(2)
    for pid in first:
        os.kill(pid, signal.SIGKILL)

    # Asked while nobody is there to answer: the connection waits in the parent's socket.
    assert site.get()["pid"] not in first
    assert not site.workers(2) & first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_ends_all_of_them_in_order(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    with running(tmp_path / "ended", workers) as site:
        pids = site.workers(workers)
        site.process.send_signal(number)

        assert site.process.wait(30) == 0
        assert set(site.ended()) == pids
        with pytest.raises(httpx2.ConnectError):
            site.get()


def test_requests_under_way_are_finished(site: Site) -> None:
    site.workers(2)
    with httpx2.stream("GET", site.url + "/stream", timeout=30) as response:
        lines = response.iter_lines()
        assert next(lines) == "first"
        site.process.terminate()
        # The other worker has ended by then: the signal was taken.
        wait_for(lambda: len(site.ended()) == 1)
        (site.folder.parent / "go on").touch()

        assert list(lines) == ["last"]
    assert site.process.wait(30) == 0


def test_an_endless_head_is_refused_before_it_takes_long_to_take_apart(site: Site) -> None:
    url = httpx2.URL(site.url)
    assert url.port is not None
    head = b"GET / HTTP/1.1\r\nHost: site.example\r\n"
    with socket.create_connection((url.host, url.port), timeout=30) as connection:
        connection.sendall(head.ljust(HEADER_BYTES_MAX, b"a"))
        connection.sendall(b"a")

        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert HEADER_BYTES_MAX <= 128 * 1024


def test_workers_end_when_their_parent_is_killed(site: Site) -> None:
    pids = site.workers(2)
    site.process.kill()

    wait_for(lambda: not any(map(is_alive, pids)))
    assert set(site.ended()) == pids


@pytest.mark.parametrize("workers", [1, 2])
def test_what_stops_the_first_worker_is_the_programs_error(tmp_path: Path, workers: int) -> None:
    with running(tmp_path / "ended", workers, fails="at once") as site:
        assert site.process.wait(30) == 2
        assert site.process.stderr is not None
        assert site.process.stderr.read().splitlines()[-1] == "error: no chain; hint: start one"


def test_a_first_worker_that_dies_without_a_word_ends_the_program(tmp_path: Path) -> None:
    with running(tmp_path / "ended", 2, fails="silently") as site:
        assert site.process.wait(30) == 1


def test_a_worker_that_fails_again_and_again_is_started_less_and_less_often(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "ended", 2, fails="later") as site:
        assert site.process.stderr is not None
        delays: list[float] = []
        while len(delays) < 4:
            line = site.process.stderr.readline()
            assert line, "the site ended"
            if " starts in " in line:
                delays.append(float(line.rpartition(" starts in ")[2].removesuffix(" s\n")))

        assert delays == sorted(delays)
        assert delays[-1] >= 4 * delays[0]
        # The first one serves meanwhile.
        assert site.get()["pid"] != site.process.pid
