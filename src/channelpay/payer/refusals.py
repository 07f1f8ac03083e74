"""A payee's refusal as an error of ours, cleaned of what a terminal would act upon."""

from __future__ import annotations

from collections.abc import Iterator

from channelpay.errors import ChannelPayError, NetworkError, NotFound, PaymentRefused
from channelpay.payer.records import Funding
from channelpay.payer.steps import Answer
from channelpay.protocol.text import to_hex

DETAIL_MAX = 500


def error_of(answer: Answer) -> ChannelPayError:
    """The error for an answer that is not a success, by its code or else its status.

    The hint is ours: what a site says is quoted, and never given as advice.
    """
    kind = _by_code(answer.code) or _by_status(answer.status)
    said = _clean(answer.problem.get("detail")) or _clean(answer.problem.get("title"))
    if said:
        return kind(f"the site says: {said}")
    return kind(f"the site answered with status {answer.status}")


def not_confirmed(funding: Funding) -> ChannelPayError:
    """The error for a transaction of which nothing is known, with its hash."""
    from channelpay.chain.sender import NotConfirmed

    return NotConfirmed(
        "an earlier transaction for this channel is not confirmed",
        txHash=to_hex(funding.transaction_hash),
    )


def _by_status(status: int) -> type[ChannelPayError]:
    if status in {402, 409, 410}:
        return PaymentRefused
    if status == 404:
        return NotFound
    return NetworkError if status >= 500 else ChannelPayError


def _by_code(code: str) -> type[ChannelPayError] | None:
    return next((kind for kind in _tree(ChannelPayError) if kind.code == code), None)


def _tree(root: type[ChannelPayError]) -> Iterator[type[ChannelPayError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _tree(kind)


def _clean(text: object) -> str:
    if not isinstance(text, str):
        return ""
    return "".join(letter for letter in text[:DETAIL_MAX] if letter.isprintable())
