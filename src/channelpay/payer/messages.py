"""What a session needs of httpx2's requests and responses (or httpx's, where only that is
installed).
"""

from __future__ import annotations

try:
    import httpx2 as httpx
except ModuleNotFoundError:
    import httpx  # type: ignore[no-redef,import-not-found,unused-ignore]

from channelpay.payer import driver
from channelpay.payer.driver import NOT_IN_BARE_REQUESTS, answer_from
from channelpay.payer.steps import Answer

__all__ = ["answer_of", "bare_request", "has_problem", "httpx"]


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
