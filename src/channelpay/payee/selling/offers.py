"""What a site offers for one resource, for programs: the member ``offers`` of a 402's body."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from channelpay.payee.selling.deal import Selling
from channelpay.payee.selling.incentives import IncentiveRow
from channelpay.payee.selling.passes import PassRow
from channelpay.protocol.coupons import APPLIED, LABEL
from channelpay.protocol.entries import canonical
from channelpay.protocol.pricing import (
    WHOLE,
    FirstFree,
    Incentive,
    NthFree,
    Rules,
    Volume,
    Window,
)
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import Address

if TYPE_CHECKING:
    from channelpay.payee.prices import Quote

ID_DIGITS = 16


def selling_of(
    quote: Quote, rows: Iterable[IncentiveRow], *, takes_coupons: bool = False
) -> Selling | None:
    """How a resource with this quote is sold under these incentives, and for what coupons brought;
    None if there is nothing of the kind.
    """
    tokens = [price.token.address for price in quote.prices]
    found = tuple(row for row in rows if any(token in row.rules for token in tokens))
    if not found and not takes_coupons:
        return None
    rules = {
        token: Rules.of(row.rules[token] for row in found if token in row.rules) for token in tokens
    }
    labels = {row.name: row.label for row in found} | {"credit": "your credit", APPLIED: LABEL}
    return Selling(_price_offer(quote)["id"], found, rules, labels)


def offers_of(quote: Quote) -> list[dict[str, Any]]:
    """The price, then each incentive and each pass: ``id``, ``kind``, ``label``, ``amounts`` (what
    one costs under it at best, in base units by token) and ``terms`` in words.
    """
    rows = () if quote.selling is None else quote.selling.rows
    return [
        _price_offer(quote),
        *(_incentive_offer(row, quote) for row in rows),
        *(_pass_offer(row) for row in quote.passes),
        *_tab_offers(quote),
    ]


def _price_offer(quote: Quote) -> dict[str, Any]:
    amounts = {price.token.address: price.amount for price in quote.prices}
    kind = "up-to" if quote.up_to else f"per-{quote.unit}"
    return _offer(kind, quote.format(), amounts, quote.description or "")


def _incentive_offer(row: IncentiveRow, quote: Quote) -> dict[str, Any]:
    prices = [price for price in quote.prices if price.token.address in row.rules]
    amounts = {
        price.token.address: _at_best(row.rules[price.token.address], price.amount)
        for price in prices
    }
    words = [row.terms[price.token.address] for price in prices]
    return _offer(row.kind, row.label, amounts, "; or ".join(dict.fromkeys(words)))


def _pass_offer(row: PassRow) -> dict[str, Any]:
    """What the pass costs, which is bought by its ``plan``."""
    amounts = {price.token.address: price.amount for price in row.prices}
    return {**_offer("pass", row.label, amounts, row.terms), "plan": row.id}


def _tab_offers(quote: Quote) -> list[dict[str, Any]]:
    """That it can be paid for later."""
    credit = quote.credit
    if credit is None:
        return []
    prices = [price for price in quote.prices if price.token.address in credit.policies]
    amounts = {price.token.address: price.amount for price in prices}
    words = "; or ".join(credit.terms[price.token.address] for price in prices)
    return [_offer("tab", "on your tab", amounts, words)] if prices else []


def _at_best(rule: Incentive, list_price: int) -> int:
    match rule:
        case FirstFree() | NthFree():
            return 0 if rule.value_max is None or list_price <= rule.value_max else list_price
        case Window():
            return list_price - list_price * rule.percent // WHOLE
        case Volume():
            return list_price - list_price * rule.tiers[-1][1] // WHOLE
        case _:
            return list_price


def _offer(kind: str, label: str, amounts: Mapping[Address, int], terms: str) -> dict[str, Any]:
    offer = {
        "kind": kind,
        "label": label,
        "amounts": {checksum_address(token): str(amount) for token, amount in amounts.items()},
        "terms": terms,
    }
    digest = hashlib.sha256(canonical(offer).encode()).hexdigest()
    return {"id": digest[:ID_DIGITS], **offer}
