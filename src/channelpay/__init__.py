"""Micropayments over Ethereum payment channels.

The names below are the public API, together with the modules :mod:`channelpay.errors` and
:mod:`channelpay.testing`. They are imported at their first use, so that a program waits only for
what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channelpay.errors import ChannelPayError
    from channelpay.payee import Payee, Payment, PaymentMiddleware, PriceRule
    from channelpay.payee.carrier import Carrying
    from channelpay.payer.budgets import Question
    from channelpay.payer.client import Payer
    from channelpay.payer.gasless import Gasless
    from channelpay.payer.httpx import ChannelPayAuth
    from channelpay.payer.limits import Limits
    from channelpay.payer.offers import Allowed
    from channelpay.payer.page import Page, get
    from channelpay.payer.records import PayerChannel
    from channelpay.payer.requests import ChannelPayAdapter, paid_of
    from channelpay.payer.steps import Paid
    from channelpay.protocol.types import NATIVE

__all__ = [
    "NATIVE",
    "Allowed",
    "Carrying",
    "ChannelPayAdapter",
    "ChannelPayAuth",
    "ChannelPayError",
    "Gasless",
    "Limits",
    "Page",
    "Paid",
    "Payee",
    "Payer",
    "PayerChannel",
    "Payment",
    "PaymentMiddleware",
    "PriceRule",
    "Question",
    "get",
    "paid_of",
]

_HOMES = {
    "NATIVE": "channelpay.protocol.types",
    "Allowed": "channelpay.payer.offers",
    "Carrying": "channelpay.payee.carrier",
    "ChannelPayAdapter": "channelpay.payer.requests",
    "ChannelPayAuth": "channelpay.payer.httpx",
    "ChannelPayError": "channelpay.errors",
    "Gasless": "channelpay.payer.gasless",
    "Limits": "channelpay.payer.limits",
    "Page": "channelpay.payer.page",
    "Paid": "channelpay.payer.steps",
    "Payee": "channelpay.payee",
    "Payer": "channelpay.payer.client",
    "PayerChannel": "channelpay.payer.records",
    "Payment": "channelpay.payee",
    "PaymentMiddleware": "channelpay.payee",
    "PriceRule": "channelpay.payee",
    "Question": "channelpay.payer.budgets",
    "get": "channelpay.payer.page",
    "paid_of": "channelpay.payer.requests",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
