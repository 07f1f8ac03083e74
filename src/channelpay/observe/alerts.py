"""What an operator has to be told: to the log, to a webhook, as a metric and as an exit code.

An alert begins when something is wrong and ends when it is right again; told are the begin, the end
and, while it lasts, a reminder each hour.
"""

from __future__ import annotations

import http.client
import json
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from channelpay.errors import ChannelPayError, ConfigError, InsufficientFunds, NetworkError
from channelpay.observe.observer import Observer

REMIND_SECONDS = 3600.0
WEBHOOK_SECONDS = 5.0
"""For connecting, and for each part of the answer."""
WEBHOOK_WAITING_MAX = 100
WEBHOOK_CLOSE_SECONDS = 10.0
"""What waits gets this long to be told when the program ends."""
_RETRY_SECONDS = (1.0, 5.0)
_log = logging.getLogger(__name__)

Fact = str | int


class AlertName(StrEnum):
    """Everything that can be wrong: a fixed set, since it is the label of a metric."""

    NO_GAS_MONEY = "no-gas-money"
    """The account cannot pay for a transaction: nothing is sent until it can."""
    GAS_MONEY_LOW = "gas-money-low"
    DEADLINE_NEAR = "deadline-near"
    """The urgent part of a grace period has begun, and the channel is not settled."""
    TRANSACTION_FAILED = "transaction-failed"
    """The contract refused a settlement or close."""
    BAD_VOUCHER = "bad-voucher"
    """A voucher in the books that the contract would not take."""
    BAD_EXPORT = "bad-export"
    """An export with lines that are no vouchers."""
    CHAIN_UNREACHABLE = "chain-unreachable"
    BOOKS_UNAVAILABLE = "books-unavailable"
    FAILING = "failing"
    """The daemon itself does not work."""
    VOUCHERS_OLD = "vouchers-old"
    """The export that a watchtower reads has not changed for long."""


_CRITICAL = frozenset(
    {
        AlertName.NO_GAS_MONEY,
        AlertName.DEADLINE_NEAR,
        AlertName.CHAIN_UNREACHABLE,
        AlertName.BOOKS_UNAVAILABLE,
        AlertName.FAILING,
    }
)
_EXIT_CODES = {
    AlertName.NO_GAS_MONEY: InsufficientFunds.exit_code,
    AlertName.CHAIN_UNREACHABLE: NetworkError.exit_code,
    AlertName.BOOKS_UNAVAILABLE: NetworkError.exit_code,
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong. ``facts`` have camelCase names and go into JSON as they are; neither
    they nor the text hold a secret. ``about`` tells alerts of the same name apart, say a channel.
    """

    name: AlertName
    text: str
    facts: Mapping[str, Fact] = field(default_factory=dict)
    about: str = ""

    @property
    def is_critical(self) -> bool:
        return self.name in _CRITICAL

    @property
    def exit_code(self) -> int:
        return _EXIT_CODES.get(self.name, ChannelPayError.exit_code)


class Sink(Protocol):
    """Where alerts go. Must not wait and must not raise."""

    def tell(self, alert: Alert, *, over: bool) -> None: ...


class Alerts:
    """What is wrong now, told to ``sinks``: the log alone, unless they are given. Safe on any
    thread.
    """

    def __init__(
        self,
        sinks: Sequence[Sink] | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sinks: tuple[Sink, ...] = (AlertLog(),) if sinks is None else tuple(sinks)
        self._observer = observer or Observer()
        self._clock = clock
        self._lock = Lock()
        self._active: dict[tuple[AlertName, str], tuple[Alert, float]] = {}

    def begin(self, alert: Alert) -> None:
        """Something is wrong, or still is."""
        key, now = (alert.name, alert.about), self._clock()
        with self._lock:
            known = self._active.get(key)
            if known is not None and now - known[1] < REMIND_SECONDS:
                return
            self._active[key] = (alert, now)
        self._tell(alert, over=False)

    def end(self, name: AlertName, about: str = "") -> None:
        """It is right again, if it was wrong."""
        with self._lock:
            known = self._active.pop((name, about), None)
        if known is not None:
            self._tell(known[0], over=True)

    def end_others(self, name: AlertName, still: Sequence[str]) -> None:
        """All alerts of this name are over but those about ``still``."""
        with self._lock:
            gone = [about for known, about in self._active if known is name and about not in still]
        for about in gone:
            self.end(name, about)

    @property
    def active(self) -> list[Alert]:
        """The critical ones first."""
        with self._lock:
            found = [alert for alert, _ in self._active.values()]
        return sorted(found, key=lambda alert: not alert.is_critical)

    @property
    def exit_code(self) -> int:
        """Of a program that ends now: 0 unless something critical is wrong."""
        return next((alert.exit_code for alert in self.active if alert.is_critical), 0)

    def _tell(self, alert: Alert, *, over: bool) -> None:
        active = any(known.name is alert.name for known in self.active)
        self._observer.alerted(alert.name.value, began=not over, active=active)
        for sink in self._sinks:
            sink.tell(alert, over=over)


class AlertLog:
    """A line for each: ``error`` for what is critical, ``warning`` for the rest, ``info`` at the
    end.
    """

    def tell(self, alert: Alert, *, over: bool) -> None:
        level = logging.ERROR if alert.is_critical else logging.WARNING
        text = f"over: {alert.text}" if over else alert.text
        extra = {"alert": alert.name.value, **alert.facts}
        _log.log(logging.INFO if over else level, "%s", text, extra=extra)


class Webhook:
    """POSTs each alert as JSON to one URL, on a thread of its own; :meth:`close` ends it.

    The URL may hold a secret: it is in no log line and no error. A webhook that does not answer is
    asked three times; when too many alerts wait, new ones go to the other sinks
    alone. Redirections are not followed.
    """

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)
        self._waiting: Queue[bytes] = Queue(WEBHOOK_WAITING_MAX)
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="channelpay-webhook", daemon=True)
        self._thread.start()

    def tell(self, alert: Alert, *, over: bool) -> None:
        members = {
            "alert": alert.name.value,
            "severity": "critical" if alert.is_critical else "warning",
            "state": "over" if over else "active",
            "text": alert.text,
            "time": int(time.time()),
            "facts": dict(alert.facts),
        }
        try:
            self._waiting.put_nowait(json.dumps(members).encode())
        except Full:
            _log.warning("the webhook does not keep up: an alert was not posted")

    def close(self) -> None:
        """Post what waits, as far as that is possible soon."""
        self._stopped.set()
        self._thread.join(WEBHOOK_CLOSE_SECONDS)

    def _run(self) -> None:
        while not (self._stopped.is_set() and self._waiting.empty()):
            try:
                body = self._waiting.get(timeout=0.2)
            except Empty:
                continue
            self._post_patiently(body)

    def _post_patiently(self, body: bytes) -> None:
        failure = self._post(body)
        for pause in _RETRY_SECONDS:
            if failure is None:
                return
            self._stopped.wait(pause)
            failure = self._post(body)
        if failure is not None:
            _log.warning("an alert could not be posted to the webhook: %s", failure)

    def _post(self, body: bytes) -> str | None:
        """What went wrong, without the URL."""
        try:
            connection = _connection(self._url)
            try:
                connection.request("POST", _target(self._url), body, _headers())
                status = connection.getresponse().status
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        return None if status < 300 else f"HTTP {status}"


def _parsed(url: str) -> SplitResult:
    """Raises :class:`ConfigError`, which does not repeat the URL."""
    refusal = ConfigError(
        "the URL of the webhook is none", hint="It begins with https:// or http://, and is ASCII."
    )
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError:
        raise refusal from None
    plain = url.isascii() and url.isprintable() and " " not in url
    named = parts.scheme in {"http", "https"} and parts.hostname is not None
    if not (plain and named and port_is_valid and parts.username is None):
        raise refusal
    return parts


def _connection(url: SplitResult) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port, timeout=WEBHOOK_SECONDS)
    context = ssl.create_default_context()
    return http.client.HTTPSConnection(host, url.port, timeout=WEBHOOK_SECONDS, context=context)


def _target(url: SplitResult) -> str:
    path = url.path or "/"
    return f"{path}?{url.query}" if url.query else path


def _headers() -> dict[str, str]:
    return {"Content-Type": "application/json", "User-Agent": "channelpay"}
