"""The payment of a FastAPI request, as a dependency. The application itself is wrapped like any
other of ASGI: ``channelpay.PaymentMiddleware(app, payee)``.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from channelpay.errors import ConfigError
from channelpay.payee.payment import Payment


def current_payment(request: Request) -> Payment:
    """What pays for the request that is being handled.

    Raises :class:`~channelpay.errors.ConfigError` where nothing has to: its path is free.
    """
    payment = request.scope.get("channelpay")
    if not isinstance(payment, Payment):
        path = request.url.path
        raise ConfigError(f"{path} is served without a payment", hint="Give it a price.")
    return payment


CurrentPayment = Annotated[Payment, Depends(current_payment)]
"""The type of a handler's parameter: ``async def article(payment: CurrentPayment)``."""

_CHALLENGE = {
    "description": "One challenge of the Payment scheme for each currency",
    "schema": {"type": "string"},
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "hint": {"type": "string"},
    },
}
PAYMENT_REQUIRED: dict[int | str, dict[str, Any]] = {
    402: {
        "description": "Payment required",
        "headers": {"WWW-Authenticate": _CHALLENGE},
        "content": {"application/problem+json": {"schema": _PROBLEM}},
    }
}
"""For OpenAPI: ``@app.get("/articles/{name}", responses=PAYMENT_REQUIRED)``."""
