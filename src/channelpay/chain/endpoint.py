"""One URL of a node: how it is asked, and when it is asked again after a failure.

Nothing here shows a URL: it may hold a key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import getLogger
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from channelpay.errors import ConfigError

CONNECT_SECONDS = 3.0
PAUSE_SECONDS_MIN = 1.0
PAUSE_SECONDS_MAX = 60.0
ANSWER_BYTES_MAX = 256 * 1024 * 1024
_ATTEMPTS = 2
_ATTEMPT_PAUSE_SECONDS = 0.1
_PIECE_BYTES = 64 * 1024
_HEADERS = {"Content-Type": "application/json"}
_LIMIT_CODES = frozenset({-32005, -32029, 429})
_LIMIT_WORDS = ("rate limit", "too many requests", "request limit", "requests per second", "quota")
_SIZE_WORDS = ("result", "range", "block", "response size")
"""Some nodes refuse too long a range of logs with the code of a rate limit."""

_log = getLogger(__name__)

Answer = dict[str, Any]
"""A JSON-RPC answer, with ``result`` or with ``error``, which has members."""


class Failed(Exception):
    """The node gave no answer to go by; the text says why, without its URL."""


class Slow(Failed):
    """The node did not answer in time; asking once more would take as long."""


class Limited(Failed):
    """The node has been asked too often; ``seconds`` is how long it wants to be left alone."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__("limits how often it is asked")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Head:
    """The last block of a node; ``timestamp`` in Unix seconds."""

    number: int
    timestamp: int


class Endpoint:
    """A node and what is known of it. Threads may share an endpoint.

    ``chain_id`` is None until the node has said it since its last failure, ``head`` until it was
    asked for it. ``trouble`` is why it was not used when it last came up. Raises
    :class:`ConfigError` for what is not a URL of HTTP.
    """

    def __init__(self, number: int, url: str, clock: Callable[[], float]) -> None:
        self.name: str = f"node {number} ({_host(number, url)})"
        self.chain_id: int | None = None
        self.head: Head | None = None
        self.trouble: str | None = None
        self.is_limited: bool = False
        self.is_behind = False
        self.paused_until: float = 0.0
        self._failures = 0
        self._url = url
        self._clock = clock
        self._session = requests.Session()

    def ask(self, body: bytes, seconds: float) -> Answer:
        """The answer to a request, within about ``seconds``. Raises :class:`Failed`."""
        try:
            answer = self._asked_twice(body, seconds)
        except Failed as failure:
            self._pause(failure)
            raise
        self._failures = 0
        self.paused_until = 0.0
        return answer

    def note(self, trouble: str | None) -> None:
        """Remember why it is not used, or that it is; a change is logged."""
        if trouble == self.trouble:
            return
        self.trouble = trouble
        if trouble is None:
            _log.info("%s is used again", self.name)
        else:
            _log.warning("%s is passed over: it %s", self.name, trouble)

    @property
    def is_paused(self) -> bool:
        return self._clock() < self.paused_until

    def _pause(self, failure: Failed) -> None:
        """Leave the node alone for a while, for longer each time."""
        seconds = min(PAUSE_SECONDS_MIN * 2**self._failures, PAUSE_SECONDS_MAX)
        self.is_limited = isinstance(failure, Limited)
        if isinstance(failure, Limited) and failure.seconds is not None:
            seconds = min(failure.seconds, PAUSE_SECONDS_MAX)
        self._failures = min(self._failures + 1, 16)
        self.paused_until = self._clock() + seconds
        # Whoever answers at this URL when it comes back may be another node.
        self.chain_id = None

    def _asked_twice(self, body: bytes, seconds: float) -> Answer:
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._asked(body, seconds)
            except (Slow, Limited):
                raise
            except Failed:
                time.sleep(_ATTEMPT_PAUSE_SECONDS)
        return self._asked(body, seconds)

    def _asked(self, body: bytes, seconds: float) -> Answer:
        try:
            status, retry_after, text = self._post(body, seconds)
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Slow("does not answer in time") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Failed(f"does not answer: {type(error).__name__}") from None
        if status == requests.codes.too_many_requests:
            raise Limited(_seconds(retry_after))
        return _answer(status, text)

    def _post(self, body: bytes, seconds: float) -> tuple[int, str | None, bytes]:
        deadline = time.monotonic() + seconds
        timeout = (min(CONNECT_SECONDS, seconds), seconds)
        with self._session.post(
            self._url, data=body, headers=_HEADERS, timeout=timeout, stream=True
        ) as response:
            text = bytearray()
            # The timeout of the library is one for each piece, and other ways of reading wait for
            # many pieces.
            while piece := response.raw.read1(_PIECE_BYTES, decode_content=True):
                text += piece
                if time.monotonic() > deadline or len(text) > ANSWER_BYTES_MAX:
                    raise requests.Timeout
            return response.status_code, response.headers.get("Retry-After"), bytes(text)


def is_about_the_request(answer: Answer) -> bool:
    """Whether another node would say the same: a result, or what a contract or account lacks."""
    error = answer.get("error")
    if error is None:
        return True
    message = str(error.get("message", "")).lower()
    return error.get("code") == 3 or "revert" in message or "insufficient funds" in message


def number_in(answer: Answer) -> int:
    """The number that was asked for. Raises :class:`Failed`."""
    try:
        return int(answer["result"], 16)
    except (KeyError, TypeError, ValueError):
        raise _without_sense(answer) from None


def block_in(answer: Answer) -> tuple[Head, bytes]:
    """The block that was asked for, and its hash (32 bytes). Raises :class:`Failed`."""
    try:
        fields = answer["result"]
        head = Head(int(fields["number"], 16), int(fields["timestamp"], 16))
        return head, bytes.fromhex(fields["hash"].removeprefix("0x"))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _without_sense(answer) from None


def _without_sense(answer: Answer) -> Failed:
    error = answer.get("error")
    if error is None:
        return Failed("gives an answer that makes no sense")
    return Failed(f"refuses to answer: {error.get('message')}")


def _answer(status: int, text: bytes) -> Answer:
    """Errors of JSON-RPC come with any HTTP status."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    known = isinstance(answer, dict) and ("result" in answer or "error" in answer)
    if status >= requests.codes.server_error or (status != requests.codes.ok and not known):
        raise Failed(f"does not answer: HTTP {status}")
    if not known or not isinstance(answer.get("error", {}), dict):
        raise _without_sense({})
    if _is_limit(answer.get("error", {})):
        raise Limited
    return dict(answer)


def _is_limit(error: dict[str, Any]) -> bool:
    message = str(error.get("message", "")).lower()
    if any(words in message for words in _LIMIT_WORDS):
        return True
    return error.get("code") in _LIMIT_CODES and not any(words in message for words in _SIZE_WORDS)


def _seconds(retry_after: str | None) -> float | None:
    """``Retry-After`` in seconds; it may be a date, which is not worth the trouble."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None


def _host(number: int, url: str) -> str:
    """Host and port."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if host is not None and parts.scheme in {"http", "https"}:
            return host if port is None else f"{host}:{port}"
    except ValueError:
        pass
    raise ConfigError(
        f"node {number} is not named by an http:// or https:// URL",
        hint="Give --rpc (or CHANNELPAY_RPC) a URL such as http://127.0.0.1:8545.",
    )
