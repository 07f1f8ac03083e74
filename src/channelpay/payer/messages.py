"""What a session needs of httpx2's requests and responses (or httpx's, where only that is
installed), and how its steps are run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

try:
    import httpx2 as httpx
except ModuleNotFoundError:
    import httpx  # type: ignore[no-redef,import-not-found,unused-ignore]

from channelpay.payer.steps import Answer, Send, Step, Wait, parse_problem

__all__ = ["Done", "advance", "answer_of", "bare_request", "has_problem", "httpx", "run"]

_OF_BODY = frozenset({"content-length", "content-type", "transfer-encoding", "expect"})
_OF_PURCHASE = frozenset({"idempotency-key"})
_WITHOUT_BODY = frozenset({204, 304})
_CODED = "application/octet-stream"

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


def bare_request(
    request: httpx.Request, headers: dict[str, str], method: str | None = None
) -> httpx.Request:
    """A request to the same URL without a body and what describes it, which buys nothing."""
    dropped = _OF_BODY | _OF_PURCHASE
    kept = [(name, value) for name, value in request.headers.multi_items() if name not in dropped]
    bare = httpx.Request(
        method or request.method, request.url, headers=kept, extensions=request.extensions
    )
    bare.headers.update(headers)
    return bare


def answer_of(response: httpx.Response, url: str) -> Answer:
    """What a session needs of a response whose problem body, if any, was read."""
    headers = response.headers
    problem = parse_problem(response.content) if has_problem(response) else {}
    return Answer(
        status=response.status_code,
        url=url,
        challenges=tuple(headers.get_list("WWW-Authenticate")),
        receipt=headers.get("Payment-Receipt"),
        retry_after=headers.get("Retry-After"),
        media_type=_media_type(response),
        problem=problem,
    )


def has_problem(response: httpx.Response) -> bool:
    """Whether the body says why a request was refused; others are left to be streamed."""
    return response.status_code >= 400 and _content_type(response) == "application/problem+json"


def _content_type(response: httpx.Response) -> str:
    kind: str = response.headers.get("Content-Type", "")
    return kind.partition(";")[0].strip().lower()


def _media_type(response: httpx.Response) -> str | None:
    """None where there is no body. One that is compressed cannot be looked into."""
    if response.status_code in _WITHOUT_BODY or response.request.method == "HEAD":
        return None
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return _CODED
    return _content_type(response)
