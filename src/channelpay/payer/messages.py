"""What a session needs of httpx2's requests and responses (or httpx's, where only that is
installed).
"""

from __future__ import annotations

try:
    import httpx2 as httpx
except ModuleNotFoundError:
    import httpx  # type: ignore[no-redef,import-not-found,unused-ignore]

from channelpay.payer.driver import NOT_IN_BARE_REQUESTS, PROBLEM_TYPE, bare_type, media_type
from channelpay.payer.passes import PassState
from channelpay.payer.steps import Answer, parse_problem
from channelpay.protocol.passes import HEADER
from channelpay.protocol.receipts import HEADER as SIGNED_RECEIPT

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
    headers = response.headers
    problem = parse_problem(response.content) if has_problem(response) else {}
    return Answer(
        status=response.status_code,
        url=url,
        challenges=tuple(headers.get_list("WWW-Authenticate")),
        receipt=headers.get("Payment-Receipt"),
        signed_receipt=headers.get(SIGNED_RECEIPT),
        retry_after=headers.get("Retry-After"),
        media_type=media_type(
            response.status_code,
            response.request.method,
            headers.get("Content-Type", ""),
            headers.get("Content-Encoding", "identity"),
        ),
        problem=problem,
        shown=PassState.parse(headers.get(HEADER)),
    )


def has_problem(response: httpx.Response) -> bool:
    """Whether the body says why a request was refused; others are left to be streamed."""
    kind = bare_type(response.headers.get("Content-Type", ""))
    return response.status_code >= 400 and kind == PROBLEM_TYPE
