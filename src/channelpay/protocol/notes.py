"""Why a sale cost what it did: the members ``price`` and ``balance`` of a receipt, beside those of
draft-evm-session-00. Sites without incentives have neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, NamedTuple, Self

from channelpay.errors import InputError
from channelpay.protocol.parse import parse_amount, parse_text

LABEL_MAX = 80
WHY_MAX = 20


class PriceNote(NamedTuple):
    """``amount`` was charged, or would be, instead of the list price. ``why`` has a label for each
    step in between, and what it changed. ``credit`` and ``points`` are what the payer has there
    now, None where the site does not say. Amounts are base units.
    """

    list_price: int
    amount: int
    why: tuple[tuple[str, int], ...] = ()
    credit: int | None = None
    points: int | None = None

    def to_json(self) -> tuple[str, str]:
        """The members ``balance`` and ``price`` as they stand in a receipt, each with the comma
        behind it, or nothing in its place.
        """
        why = ",".join(
            f'{{"delta":"{delta}","label":{encode_basestring(label)}}}' for label, delta in self.why
        )
        price = f'"price":{{"amount":"{self.amount}","list":"{self.list_price}","why":[{why}]}},'
        if self.credit is None:
            return "", price
        return f'"balance":{{"credit":"{self.credit}","points":"{self.points}"}},', price

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Self | None:
        """From the members of a receipt; None if there is nothing like this among them. Other
        sites may mean something else by these names, and their receipts are as good.
        """
        try:
            return cls._parse(members.get("price"), members.get("balance"))
        except InputError:
            return None

    @classmethod
    def _parse(cls, price: Any, balance: Any) -> Self:
        steps = price.get("why") if isinstance(price, dict) else None
        if not isinstance(steps, list) or len(steps) > WHY_MAX:
            raise InputError("price must have a list why")
        note = cls(
            parse_amount(price.get("list"), "price.list"),
            parse_amount(price.get("amount"), "price.amount"),
            tuple(_step(step) for step in steps),
        )
        if balance is None:
            return note
        if not isinstance(balance, dict):
            raise InputError("balance must be an object")
        held = (parse_amount(balance.get(name), name) for name in ("credit", "points"))
        return cls(note.list_price, note.amount, note.why, *held)


def _step(step: object) -> tuple[str, int]:
    if not isinstance(step, dict):
        raise InputError("a step of the price must be an object")
    delta = step.get("delta")
    sign = -1 if isinstance(delta, str) and delta.startswith("-") else 1
    text = delta[1:] if sign < 0 and isinstance(delta, str) else delta
    label = parse_text(step.get("label"), "label", LABEL_MAX)
    return label, sign * parse_amount(text, "delta")
