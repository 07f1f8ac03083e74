"""One paid page, for a program that wants no more than that."""

from __future__ import annotations

from dataclasses import dataclass, field

from channelpay.payer.client import Payer
from channelpay.payer.httpx import error_of_response, paid_get
from channelpay.payer.steps import Paid


@dataclass(frozen=True, slots=True)
class Page:
    """What came from ``url``, after redirects. ``paid`` is None if it was free."""

    url: str
    media_type: str
    content: bytes = field(repr=False)
    text: str = field(repr=False)
    paid: Paid | None

    @property
    def cost(self) -> int:
        """In base units of the token that was paid in."""
        return 0 if self.paid is None else self.paid.cost


def get(url: str, payer: Payer, *, idempotency_key: str | None = None) -> Page:
    """GET a page and pay for it.

    An answer that is lost is asked for once more, and not paid for twice. To continue after a crash
    of your own program, give the purchase an ``idempotency_key`` (a UUID, say) that you kept, and
    the same one again: within 24 hours that does not cost more.

    Raises :class:`~channelpay.errors.BudgetExceeded`, :class:`~channelpay.errors.WrongChain` or
    :class:`~channelpay.errors.ConfigError` before anything is signed, the payee's refusal as an
    error of ours, and :class:`~channelpay.errors.NetworkError`.
    """
    with paid_get(payer, url, idempotency_key) as response:
        if not response.is_success:
            raise error_of_response(response, payer)
        content = response.read()
    return Page(
        url=str(response.url),
        media_type=response.headers.get("Content-Type", ""),
        content=content,
        text=response.text,
        paid=response.extensions["channelpay"],
    )
