"""What a session needs of httpx2's requests and responses (or httpx's, where only that is
installed).
"""

from __future__ import annotations

try:
    import httpx2 as httpx
except ModuleNotFoundError:
    import httpx  # type: ignore[no-redef,import-not-found,unused-ignore]

from channelpay.payer import driver
from channelpay.payer.driver import NOT_IN_BARE_REQUESTS, answer_from, small_body
from channelpay.payer.steps import PROBLEM_BYTES_MAX, Answer

__all__ = [
    "answer_of",
    "bare_request",
    "has_problem",
    "httpx",
    "read_small",
    "read_small_async",
]


def bare_request(
    request: httpx.Request,
    headers: dict[str, str],
    method: str | None = None,
    to: str | None = None,
) -> httpx.Request:
    """A request to the same URL, or ``to`` another one, without a body and what describes it, which
    buys nothing that the request is for.
    """
    items = request.headers.multi_items()
    kept = [(name, value) for name, value in items if name not in NOT_IN_BARE_REQUESTS]
    url = request.url if to is None else httpx.URL(to)
    bare = httpx.Request(method or request.method, url, headers=kept, extensions=request.extensions)
    bare.headers.update(headers)
    return bare


def answer_of(response: httpx.Response, url: str) -> Answer:
    """What a session needs of a response whose problem body, if any, was read."""
    return answer_from(
        response.status_code,
        url,
        response.request.method,
        response.headers,
        response.headers.get_list("WWW-Authenticate"),
        lambda: response.content,
    )


def has_problem(response: httpx.Response) -> bool:
    """Whether the body says why a request was refused; others are left to be streamed."""
    return driver.has_problem(response.status_code, response.headers)


def read_small(response: httpx.Response) -> None:
    """Read the body of a response that the caller does not stream: a problem, or one that another
    attempt replaces. One over :data:`PROBLEM_BYTES_MAX`, as sent or decoded, is dropped.
    """
    if response.is_closed:
        return
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > PROBLEM_BYTES_MAX:
            break
    response.close()
    _replace_body(response, bytes(body))


async def read_small_async(response: httpx.Response) -> None:
    if response.is_closed:
        return
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > PROBLEM_BYTES_MAX:
            break
    await response.aclose()
    _replace_body(response, bytes(body))


def _replace_body(response: httpx.Response, raw: bytes) -> None:
    """Make a response as if it had come with this body, decoded."""
    encoding = response.headers.pop("Content-Encoding", "identity")
    response.stream = httpx.ByteStream(small_body(raw, encoding))
    response.is_closed = response.is_stream_consumed = False
    response.read()
