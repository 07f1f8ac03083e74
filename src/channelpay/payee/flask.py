"""The payment of a Flask request.

The application is wrapped like any other of WSGI: ``app.wsgi_app = PaymentMiddleware(app.wsgi_app,
open_payee)`` with the middleware of :mod:`channelpay.payee.wsgi`.
"""

from __future__ import annotations

from flask import request

from channelpay.errors import ConfigError
from channelpay.payee.blocking import BlockingPayment


def current_payment() -> BlockingPayment:
    """What pays for the request that is being handled.

    Raises :class:`~channelpay.errors.ConfigError` where nothing has to: its path is free.
    """
    payment = request.environ.get("channelpay")
    if not isinstance(payment, BlockingPayment):
        raise ConfigError(f"{request.path} is served without a payment", hint="Give it a price.")
    return payment
