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
    from channelpay.payer.client import Payer
    from channelpay.payer.httpx import ChannelPayAuth
    from channelpay.payer.limits import Limits
    from channelpay.payer.records import PayerChannel
    from channelpay.payer.steps import Paid
    from channelpay.protocol.types import NATIVE

__all__ = [
    "NATIVE",
    "ChannelPayAuth",
    "ChannelPayError",
    "Limits",
    "Paid",
    "Payee",
    "Payer",
    "PayerChannel",
    "Payment",
    "PaymentMiddleware",
    "PriceRule",
]

_HOMES = {
    "NATIVE": "channelpay.protocol.types",
    "ChannelPayAuth": "channelpay.payer.httpx",
    "ChannelPayError": "channelpay.errors",
    "Limits": "channelpay.payer.limits",
    "Paid": "channelpay.payer.steps",
    "Payee": "channelpay.payee",
    "Payer": "channelpay.payer.client",
    "PayerChannel": "channelpay.payer.records",
    "Payment": "channelpay.payee",
    "PaymentMiddleware": "channelpay.payee",
    "PriceRule": "channelpay.payee",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
