"""What the adapters of all HTTP libraries do alike: run a session's steps, keep bodies small."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from channelpay.errors import InputError
from channelpay.payer.passes import PassState
from channelpay.payer.steps import PROBLEM_BYTES_MAX, Answer, Send, Step, Wait, parse_problem
from channelpay.protocol.passes import HEADER
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.receipts import HEADER as SIGNED_RECEIPT

BODY_BYTES_MAX = 16 * 1024 * 1024
"""A request may be sent more than once, so its body must be kept: up to this size."""
NOT_IN_BARE_REQUESTS = frozenset(
    {
        *("authorization", "content-length", "content-type", "expect"),
        *("idempotency-key", PROOF.lower(), "transfer-encoding"),
    }
)
"""The headers, in lower case, of a body or a purchase."""
_PROBLEM_TYPE = "application/problem+json"
_WITHOUT_BODY = frozenset({204, 304})
_CODED = "application/octet-stream"
_ZLIB_OR_GZIP = 32 + zlib.MAX_WBITS

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Done:
    """A session's end; a StopIteration could not leave a thread."""

    value: Any


def advance(steps: Generator[Step, Any, Any], result: object) -> Step | Done:
    """A session's next step, given the result of the last one."""
    try:
        return steps.send(result)
    except StopIteration as end:
        return Done(end.value)


def run(
    steps: Generator[Step, Any, Result],
    send: Callable[[Send], Answer],
    perform: Callable[[Step], None],
) -> Result:
    """Run a session to its end, blocking; ``perform`` does what it asks of the chain."""
    try:
        current = advance(steps, None)
        while not isinstance(current, Done):
            answer = None
            if isinstance(current, Send):
                answer = send(current)
            elif isinstance(current, Wait):
                time.sleep(current.seconds)
            else:
                perform(current)
            current = advance(steps, answer)
    finally:
        steps.close()
    value: Result = current.value
    return value


# --- bodies --------------------------------------------------------------------------------------


def bare_type(content_type: str) -> str:
    """A media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def media_type(status: int, method: str | None, content_type: str, encoding: str) -> str | None:
    """None where there is no body. One that is compressed cannot be looked into."""
    if status in _WITHOUT_BODY or method == "HEAD":
        return None
    if encoding.strip().lower() != "identity":
        return _CODED
    return bare_type(content_type)


def has_problem(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the body says why a request was refused; others are left to be streamed."""
    return status >= 400 and bare_type(headers.get("Content-Type", "")) == _PROBLEM_TYPE


def answer_from(
    status: int,
    url: str,
    method: str | None,
    headers: Mapping[str, str],
    challenges: Iterable[str],
    body: Callable[[], bytes],
) -> Answer:
    """What a session needs of a response; ``body`` is asked for only if it is a problem."""
    encoding = headers.get("Content-Encoding", "identity")
    return Answer(
        status=status,
        url=url,
        challenges=tuple(challenges),
        receipt=headers.get("Payment-Receipt"),
        signed_receipt=headers.get(SIGNED_RECEIPT),
        retry_after=headers.get("Retry-After"),
        media_type=media_type(status, method, headers.get("Content-Type", ""), encoding),
        problem=parse_problem(body()) if has_problem(status, headers) else {},
        shown=PassState.parse(headers.get(HEADER)),
    )


def small_body(raw: bytes, encoding: str) -> bytes:
    """A body as it was sent, decoded; nothing if it is over :data:`PROBLEM_BYTES_MAX`, as sent or
    decoded.
    """
    decoded = _decoded(raw, encoding.strip().lower())
    return decoded if max(len(raw), len(decoded)) <= PROBLEM_BYTES_MAX else b""


def _decoded(raw: bytes, encoding: str) -> bytes:
    """At most one byte over the limit. The libraries would decode all of a chunk, however much."""
    if encoding == "identity":
        return raw
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        return b""
    try:
        return zlib.decompressobj(_ZLIB_OR_GZIP).decompress(raw, PROBLEM_BYTES_MAX + 1)
    except zlib.error:
        return b""


def check_length(length: str | None) -> None:
    """Refuse a request body before anything is read, where its size is known."""
    if length and length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise _too_large()


def keep(kept: bytearray, chunk: bytes) -> None:
    """Add to a request body that is kept. Raises :class:`InputError` where it is too large."""
    kept += chunk
    if len(kept) > BODY_BYTES_MAX:
        raise _too_large()


def _too_large() -> InputError:
    return InputError(
        f"the body is over {BODY_BYTES_MAX} bytes: it may have to be sent twice, and is kept until"
        " then",
        hint="Send a smaller body.",
    )
