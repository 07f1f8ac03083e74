"""Logs by the standard library: JSON for programs, text for people, secrets for nobody.

Every line goes through :func:`~channelpay.observe.redaction.redacted`, whoever wrote it: this
library, the server, the application. ``extra`` fields are shown beside the message. What is known
to be public can be shown in full as an extra field named ``channelId`` or ``txHash``.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TextIO

from channelpay.observe.observer import Answered, Books, Currency, Observer
from channelpay.observe.redaction import REDACTED, redacted
from channelpay.protocol.text import format_amount, to_hex
from channelpay.protocol.types import AMOUNT_MAX, Address

ACCESS_LOGGER = "channelpay.access"
_PUBLIC = frozenset({"channelId", "txHash"})
_ID = re.compile(r"0x[0-9a-f]{64}\Z")
_SECRET_NAME = re.compile(
    r"(?i)pass|pwd|secret|authorization|cookie|credential|signature|mnemonic|seed|key"
)
_PLAIN = re.compile(r"[^\s\"'=]+\Z")
_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_BEGIN = frozenset({"ts", "level", "logger", "message", "exception"})

Value = str | int | float | bool | None


def configure_logging(stream: TextIO, *, as_json: bool, level: int = logging.INFO) -> None:
    """Write everything from ``level`` on that channelpay logs, and warnings of everybody else, to
    ``stream``. Replaces the handlers of the root logger. For programs, not for libraries.
    """
    handler = _QuietHandler(stream)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("channelpay").setLevel(level)
    logging.captureWarnings(capture=True)


class _QuietHandler(logging.StreamHandler[TextIO]):
    """The standard one prints the arguments of a record that it cannot write, secrets and all."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the record: the stream is gone, and nobody is there to be told."""


class JsonFormatter(logging.Formatter):
    """One JSON object: ``ts`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, the extra
    fields, ``exception``.
    """

    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, Value] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": redacted(record.name),
            "message": _message(record),
        }
        members |= _extra(record)
        trace = "\n".join(_trace(self, record))
        if trace:
            members["exception"] = trace
        return json.dumps(members)


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z info channelpay.payee.follower: message name=value``, and the
    exception on indented lines, so that no line begins with what somebody else wrote.
    """

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_timestamp(record)} {record.levelname.lower()} {redacted(record.name)}"
        fields = [f"{name}={_quoted(value)}" for name, value in _extra(record).items()]
        line = " ".join([f"{head}: {_message(record)}", *fields])
        return "\n    ".join([line, *_trace(self, record)])


def _quoted(value: Value) -> str:
    """So that a value cannot pass for two fields."""
    text = str(value)
    return text if _PLAIN.match(text) else json.dumps(text, ensure_ascii=False)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  a wrong placeholder must not cost the line
        message = f"{record.msg} [the arguments do not fit]"
    return redacted(message)


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  neither must a broken object
        return f"[{type(value).__name__}]"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> Iterator[str]:
    if record.exc_info:
        yield from map(redacted, formatter.formatException(record.exc_info).split("\n"))
    if record.stack_info:
        yield from map(redacted, record.stack_info.split("\n"))


def _extra(record: logging.LogRecord) -> dict[str, Value]:
    """What the caller gave as ``extra``. A name that every line has already gets a stroke."""
    return {
        redacted(f"{name}_" if name in _BEGIN else name): _value(name, value)
        for name, value in vars(record).items()
        if name not in _OF_EVERY_RECORD
    }


def _value(name: str, value: object) -> Value:
    """An extra field as JSON can hold it. Bytes and numbers that no amount can reach are never
    shown: they may be keys.
    """
    if isinstance(value, str) and name in _PUBLIC and _ID.match(value):
        return value
    if _SECRET_NAME.search(name) or isinstance(value, bytes | bytearray | memoryview):
        return REDACTED
    if value is None or (isinstance(value, int) and abs(value) <= AMOUNT_MAX):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    return redacted(_text(value))


class AccessLog(Observer):
    """One line per request for something that has a price, at level info of
    ``channelpay.access``.
    """

    def __init__(self) -> None:
        self._log = logging.getLogger(ACCESS_LOGGER)
        self._currencies: dict[Address, Currency] = {}

    def started(self, currencies: Sequence[Currency], books: Books) -> None:  # noqa: ARG002
        self._currencies = {currency.address: currency for currency in currencies}

    def answered(self, answer: Answered) -> None:
        fields: dict[str, Value] = {
            "method": answer.method,
            "path": answer.path,
            "status": answer.status,
            "outcome": answer.outcome.value,
            "ms": round(answer.seconds * 1000, 3),
        }
        if answer.channel_id is not None:
            fields["channelId"] = to_hex(answer.channel_id)
        currency = None if answer.token is None else self._currencies.get(answer.token)
        if currency is not None:
            fields["price"] = format_amount(answer.charged, currency.decimals, currency.symbol)
        self._log.info("%s %s", answer.method, answer.path, extra=fields)
