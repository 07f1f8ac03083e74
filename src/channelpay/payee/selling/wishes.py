"""What a request says about its price, beside its payment: ``Payment-Points``, how many points to
spend, and the query parameter of a referral, which names who brought the reader.
"""

from __future__ import annotations

import re

from channelpay.errors import InputError
from channelpay.payee.request import Request
from channelpay.payee.selling.deal import Selling, Wish
from channelpay.protocol.parse import parse_address
from channelpay.protocol.types import Address

POINTS_HEADER = "Payment-Points"
_NUMBER = re.compile(r"[0-9]{1,18}\Z", re.ASCII)


def wish_of(request: Request, selling: Selling) -> Wish:
    """Raises :class:`~channelpay.errors.InputError` for points that are no number. What is no
    address is no referrer: a link that somebody mistyped still leads to the page.
    """
    return Wish(_points(request), _referrer(request, selling))


def _points(request: Request) -> int:
    values = request.header_values(POINTS_HEADER)
    if not values:
        return 0
    if len(values) > 1 or not _NUMBER.match(values[0]):
        raise InputError(f"{POINTS_HEADER} must be one whole number")
    return int(values[0])


def _referrer(request: Request, selling: Selling) -> Address | None:
    if not request.query:
        return None
    for row in selling.rows:
        values = [] if row.parameter is None else request.query_values(row.parameter)
        if len(values) == 1:
            try:
                return parse_address(values[0])
            except InputError:
                return None
    return None
