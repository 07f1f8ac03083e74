"""Running a site over HTTP until a signal ends it: in this process, or in several workers.

Workers are forked: what the parent was told, a key or a password among it, is in their memory
already, and never in their arguments, their environment or a file. The parent runs no thread and
no connection of its own, and every worker makes its application, with its books and its connection
to the chain, for itself. The listening socket is the parent's, so that no connection is lost while
a worker is replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from logging import getLogger
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import TYPE_CHECKING

import uvicorn

from channelpay.errors import ChannelPayError, ConfigError
from channelpay.observe.scrape import worker_ended
from channelpay.payee.asgi import App
from channelpay.payee.corked import CorkedH11Protocol

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

HEADER_BYTES_MAX = 128 * 1024
"""What the server reads of a request's head. Far more than a credential needs, so that a client
that sends too much gets a problem that says so, and not a closed connection; but to take a head
apart holds up everybody else.
"""
SHUTDOWN_SECONDS = 10
"""What requests under way get to finish."""
CLOSE_SECONDS = 5
"""What a worker gets after that to close its books, before it is killed."""
STABLE_SECONDS = 10.0
"""A worker that lived this long is started again at once."""
BACK_OFF_SECONDS_MAX = 30.0
_BACK_OFF_SECONDS = 0.1
_BACKLOG = 2048
_ENDING = (signal.SIGINT, signal.SIGTERM)
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the workers a process is: ``number`` from 0, held by one process at a time. The
    first process of all ``announces``, when it is ready, that the site can be asked.
    """

    number: int
    announces: bool


Service = Callable[[Place], AbstractContextManager[App]]
"""Makes the application in the process that serves it, and closes what it holds."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on; port 0 picks a free one.

    Raises :class:`~channelpay.errors.ConfigError` if that address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="Choose another --port."
        ) from error
    # Connections inherit it; asyncio does not set it on those of a socket made like this one.
    # Without it the second part of an answer waits 40 ms for the client.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def url_of_socket(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    service: Service,
    listening: socket.socket,
    workers: int = 1,
    *,
    believes_local_proxies: bool = True,
) -> None:
    """Answer requests until SIGINT or SIGTERM, then finish those under way and return.

    With more than one worker each is a process of its own; one that dies is started again. With
    one, it is this process. What ``service`` raises in the first of them is raised here, if it is a
    :class:`~channelpay.errors.ChannelPayError`.

    Unless told not to, the server believes what ``X-Forwarded-For`` and ``-Proto`` say on
    connections from 127.0.0.1, where a server that speaks TLS may stand.
    """

    def run(application: App) -> None:
        _run(application, listening, believes_local_proxies)

    if workers > 1:
        _Supervisor(service, run, listening, workers).run()
        return
    with service(Place(0, announces=True)) as application:
        run(application)


def _run(application: App, listening: socket.socket, believes_local_proxies: bool) -> None:
    # Of uvicorn's two, the one with h11 bounds what a request's head may have.
    config = uvicorn.Config(
        application,
        http=CorkedH11Protocol,
        h11_max_incomplete_event_size=HEADER_BYTES_MAX,
        lifespan="auto",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=believes_local_proxies,
        forwarded_allow_ips="127.0.0.1",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # Holds before uvicorn takes the signals, and when it raises them again at its end.
    for number in _ENDING:
        signal.signal(number, stop)
    server.run(sockets=[listening])


@dataclass(slots=True)
class _Worker:
    """One place, and the process that has it now. ``failures`` in a row delay the next."""

    number: int
    process: ForkProcess | None = None
    started: float = 0.0
    failures: int = 0
    due: float = field(default_factory=time.monotonic)

    def ended(self, now: float) -> float:
        """Note that the process is gone; in how many seconds the next one starts."""
        self.process = None
        self.failures = 0 if now - self.started >= STABLE_SECONDS else self.failures + 1
        delay = min(BACK_OFF_SECONDS_MAX, _BACK_OFF_SECONDS * 2.0**self.failures)
        self.due = now + delay
        return delay


class _Supervisor:
    """The parent of the workers: starts them, starts them again, and ends with them."""

    def __init__(
        self,
        service: Service,
        run: Callable[[App], None],
        listening: socket.socket,
        workers: int,
    ) -> None:
        self._service = service
        self._run = run
        self._listening = listening
        self._workers = [_Worker(number) for number in range(workers)]
        self._context = multiprocessing.get_context("fork")
        # Only the parent keeps the second end open: once it is gone, for whatever reason, all go.
        self._parent_lives, self._parent_is_here = os.pipe()

    def run(self) -> None:
        with _noticed_signals() as signalled:
            try:
                if self._first_is_ready(signalled):
                    self._supervise(signalled)
            finally:
                self._stop()

    def _first_is_ready(self, signalled: Connection) -> bool:
        """Wait for the first worker; False if a signal came before. Raises what ended it."""
        reading, writing = self._context.Pipe(duplex=False)
        with reading, writing:
            self._start(self._workers[0], writing)
            writing.close()
            if signalled in wait([reading, signalled]):
                return False
            try:
                error = reading.recv()
            except EOFError:
                raise ChannelPayError("the first worker ended before it could serve") from None
        if error is not None:
            raise error
        return True

    def _supervise(self, signalled: Connection) -> None:
        while True:
            self._start_due()
            running = [one.process for one in self._workers if one.process is not None]
            sentinels = [process.sentinel for process in running]
            if signalled in wait([signalled, *sentinels], self._next_due()):
                return
            self._note_ended()

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is None and worker.due <= now:
                self._start(worker, None)

    def _next_due(self) -> float | None:
        """Seconds until the next start, or None if nothing is to be started."""
        due = [worker.due for worker in self._workers if worker.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _note_ended(self) -> None:
        for worker in self._workers:
            process = worker.process
            if process is not None and process.exitcode is not None:
                delay = worker.ended(time.monotonic())
                message = "worker %d (process %d) ended with code %d; another starts in %.1f s"
                assert process.pid is not None
                _log.warning(message, worker.number, process.pid, process.exitcode, delay)
                worker_ended(process.pid)
                process.close()

    def _start(self, worker: _Worker, report: Connection | None) -> None:
        worker.process = self._context.Process(
            target=self._work, args=(worker.number, report), daemon=True
        )
        worker.started = time.monotonic()
        # A signal must not come between the fork and the worker's own way to take it.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            worker.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)

    def _work(self, place: int, report: Connection | None) -> None:
        """What a worker does; ``report`` tells the parent how the start went."""
        os.close(self._parent_is_here)
        signal.set_wakeup_fd(-1)
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        Thread(target=self._end_with_parent, daemon=True).start()
        try:
            with self._service(Place(place, report is not None)) as application:
                if report is not None:
                    report.send(None)
                    report = None
                self._run(application)
        except ChannelPayError as error:
            if report is None:
                _log.error("a worker failed: %s", error.detail)
                raise SystemExit(error.exit_code) from None
            report.send(error)

    def _end_with_parent(self) -> None:
        os.read(self._parent_lives, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _stop(self) -> None:
        """End all workers; those that take too long are killed."""
        self._listening.close()
        running = [one.process for one in self._workers if one.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + SHUTDOWN_SECONDS + CLOSE_SECONDS
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.exitcode is None:
                _log.error("worker %s did not end in time; it is killed", process.pid)
                process.kill()
                process.join()
        os.close(self._parent_lives)
        os.close(self._parent_is_here)


@contextmanager
def _noticed_signals() -> Iterator[Connection]:
    """What becomes readable when SIGINT or SIGTERM has come."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    os.set_blocking(writing.fileno(), False)
    earlier = [signal.signal(number, lambda *_: None) for number in _ENDING]
    wakeup = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    try:
        with reading, writing:
            yield reading
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in zip(_ENDING, earlier, strict=True):
            signal.signal(number, handler)
