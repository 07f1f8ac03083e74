"""``/healthz``: the process is alive. ``/readyz``: it can take payments now.

:class:`Health` stands in front of the payment middleware, so that neither is ever pay-walled:
``Health(PaymentMiddleware(app, payee), payee.checks)``.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from threading import Lock
from typing import Any

from channelpay.errors import ChannelPayError
from channelpay.observe.redaction import redacted

Check = Callable[[], str | None]
"""Looks at one thing that the site needs: None is fine, a text says what is wrong. It may block, on
a thread of its own, but has to return; what it raises is wrong as well. The text is public.
"""

HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
KEPT_SECONDS = 1.0
"""For this long one answer serves everybody who asks."""
CHECK_SECONDS = 5.0
"""A check that needs longer has failed."""
FREE_BYTES_MIN = 256 * 1024 * 1024
DETAIL_CHARS_MAX = 200

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_READING = frozenset({"GET", "HEAD"})
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What each check found; None is fine."""

    found: Mapping[str, str | None]

    @property
    def status(self) -> int:
        return 503 if any(self.found.values()) else 200

    @property
    def body(self) -> bytes:
        checks = {name: {"ok": not wrong, "detail": wrong} for name, wrong in self.found.items()}
        status = "ok" if self.status == 200 else "unavailable"
        return json.dumps({"status": status, "checks": checks}).encode()


class Readiness:
    """Runs the checks, at most once in ``KEPT_SECONDS``, however many ask."""

    def __init__(
        self, checks: Mapping[str, Check], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._checks = dict(checks)
        self._clock = clock
        self._threads = ThreadPoolExecutor(
            max(1, len(self._checks)), thread_name_prefix="channelpay-health"
        )
        self._running: dict[str, Future[str | None]] = {}
        self._lock = Lock()
        self._report = Report({})
        self._fresh_until: float | None = None

    def fresh(self) -> Report | None:
        """The last report, if it still holds. Never waits."""
        until = self._fresh_until
        return self._report if until is not None and self._clock() < until else None

    def report(self) -> Report:
        """The state of things. Waits for the checks; those who come meanwhile wait for the same."""
        with self._lock:
            report = self.fresh()
            if report is None:
                report = self._report = Report(self._find())
                self._fresh_until = self._clock() + KEPT_SECONDS
            return report

    def _find(self) -> dict[str, str | None]:
        for name, check in self._checks.items():
            # One that still runs is not started again: a dead disk must not eat the threads.
            if name not in self._running:
                self._running[name] = self._threads.submit(check)
        wait(self._running.values(), CHECK_SECONDS)
        return {name: self._outcome(name) for name in self._checks}

    def _outcome(self, name: str) -> str | None:
        running = self._running[name]
        if not running.done():
            return "did not answer in time"
        del self._running[name]
        try:
            wrong = running.result()
        except ChannelPayError as error:
            _log.warning("the check %s failed: %s", name, error.detail)
            return error.title
        except Exception:  # noqa: BLE001  whatever it is, the site is not ready
            _log.exception("the check %s failed", name)
            return "the check failed"
        return None if wrong is None else redacted(wrong or "wrong")[:DETAIL_CHARS_MAX]


class Health:
    """The ASGI application ``app`` with the two paths in front of it."""

    def __init__(self, app: App, checks: Mapping[str, Check]) -> None:
        self._app = app
        self._readiness = Readiness(checks)
        self._asked: asyncio.Task[Report] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in {HEALTH_PATH, READY_PATH}:
            await self._app(scope, receive, send)
        elif scope["method"] not in _READING:
            await _answer(scope, send, 405, b"", [(b"allow", b"GET, HEAD")])
        elif scope["path"] == HEALTH_PATH:
            await _answer(scope, send, 200, b'{"status": "ok"}')
        else:
            report = await self._report()
            await _answer(scope, send, report.status, report.body)

    async def _report(self) -> Report:
        """One thread waits for the checks, for all who ask meanwhile."""
        fresh = self._readiness.fresh()
        if fresh is not None:
            return fresh
        if self._asked is None or self._asked.done():
            self._asked = asyncio.create_task(asyncio.to_thread(self._readiness.report))
        return await asyncio.shield(self._asked)


async def _answer(
    scope: Scope,
    send: Send,
    status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        *(headers or []),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def durable(write: Callable[[], Future[Any]]) -> Check:
    """The books take orders and write them: ``write`` hands in something small, which must become
    durable in time behind all that waits.
    """

    def check() -> str | None:
        write().result(CHECK_SECONDS)
        return None

    return check


def within(
    seconds: float, last: Callable[[], float], clock: Callable[[], float] = time.monotonic
) -> Check:
    """What ``last`` says the time of (by ``clock``) is not longer ago than ``seconds``."""

    def check() -> str | None:
        ago = clock() - last()
        return f"last seen {ago:.0f} s ago" if ago > seconds else None

    return check


def free_space(path: Path, bytes_min: int = FREE_BYTES_MIN) -> Check:
    """The disk of ``path`` has room."""

    def check() -> str | None:
        free = shutil.disk_usage(path).free
        return f"{free // 2**20} MiB are free" if free < bytes_min else None

    return check
