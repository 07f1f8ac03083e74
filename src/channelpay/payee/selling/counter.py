"""What a payee sells and takes itself, beside what is behind its prices: passes, their refunds,
coupons and gifts. Each is a request below :data:`~channelpay.protocol.passes.PLACE`, with a
credential like any other, which may as well be one to close the channel. What is asked there for
nothing, and without a credential, is a receipt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from channelpay.errors import ConfigError, InputError
from channelpay.payee.amounts import Price
from channelpay.payee.request import Request
from channelpay.payee.selling.passes import PassRow
from channelpay.payee.selling.settings import Settings
from channelpay.payee.terms import Token
from channelpay.protocol.parse import parse_address, parse_amount
from channelpay.protocol.passes import PLACE
from channelpay.protocol.receipts import PLACE as RECEIPTS
from channelpay.protocol.types import Address, ChannelId

GIFT_DAYS = 365
_PLAN = re.compile(r"passes/([a-z0-9-]{1,32})\Z")
_REFUND = re.compile(r"pass/0x([0-9a-f]{32})/refund\Z")
_RECEIPT = re.compile(rf"{RECEIPTS}0x([0-9a-f]{{64}})\Z")
_REDEEM, _GIFT = "coupons/redeem", "coupons/gift"
_KEYS = {"gift_max", "gift_days"}


@dataclass(frozen=True, slots=True)
class BuyPass:
    """One pass."""

    row: PassRow


@dataclass(frozen=True, slots=True)
class RefundPass:
    """What is left of a pass that the channel bought."""

    pass_id: bytes


@dataclass(frozen=True, slots=True)
class Redeem:
    """What the code in the request's :data:`CODE_HEADER` brings."""


@dataclass(frozen=True, slots=True)
class BuyGift:
    """A coupon worth its price, for ``days``."""

    days: int


@dataclass(frozen=True, slots=True)
class AskReceipt:
    """The receipt of what the channel bought with the request's Idempotency-Key."""

    channel_id: ChannelId


Item: TypeAlias = BuyPass | RefundPass | Redeem | BuyGift | AskReceipt


@dataclass(frozen=True, slots=True)
class Coupons:
    """That a site takes coupons: ``Coupons(gift_max="0.1")``, or ``[coupons]`` in a price file.

    ``gift_max`` is the most that a reader may buy one for, in human units of the first token or by
    token; without it none is sold. A gift can be redeemed for ``gift_days``.
    """

    gift_max: str | Mapping[str, str] | None = None
    gift_days: int = GIFT_DAYS


@dataclass(frozen=True, slots=True)
class Counter:
    """The passes that a site sells, and the coupons that it takes: None if it takes none."""

    passes: tuple[PassRow, ...]
    coupons: Coupons | None
    gift_max: Mapping[Address, int]
    tokens: tuple[Token, ...]

    def item(self, request: Request) -> tuple[Item, tuple[Price, ...], str] | None:
        """What a request is for, its prices and a description; None if it is for none of this.

        Raises :class:`~channelpay.errors.InputError` for what is not sold here.
        """
        if request.method == "OPTIONS" or not request.path.startswith(PLACE):
            return None
        place = request.path[len(PLACE) :]
        if self.passes and (match := _PLAN.match(place)):
            row = self.plan(match[1])
            if row is None:
                raise InputError(f"no pass {match[1]} is sold here")
            return BuyPass(row), row.prices, row.label
        free = tuple(Price(token, 0) for token in self.tokens)
        if (asked := _asked_anywhere(place)) is not None:
            return asked[0], free, asked[1]
        if self.coupons is not None and place == _REDEEM:
            return Redeem(), free, "Coupon"
        if self.gift_max and place == _GIFT:
            return BuyGift(self.coupons_days), (self._gift(request),), "Gift coupon"
        return None

    def plan(self, name: str) -> PassRow | None:
        """The pass with this id."""
        return next((row for row in self.passes if row.id == name), None)

    def covering(self, path: str) -> tuple[PassRow, ...]:
        """The passes that cover a path."""
        return tuple(row for row in self.passes if row.covers(path))

    @property
    def coupons_days(self) -> int:
        return GIFT_DAYS if self.coupons is None else self.coupons.gift_days

    def _gift(self, request: Request) -> Price:
        """``?amount=`` in base units of ``?token=``."""
        texts = {name: request.query_values(name) for name in ("amount", "token")}
        if any(len(values) != 1 for values in texts.values()):
            raise InputError("a gift has one amount (in base units) and one token (an address)")
        address = parse_address(texts["token"][0], "token")
        token = next((one for one in self.tokens if one.address == address), None)
        amount = parse_amount(texts["amount"][0], "amount")
        if token is None or not 0 < amount <= self.gift_max.get(address, 0):
            most = ", ".join(
                one.format(self.gift_max[one.address])
                for one in self.tokens
                if one.address in self.gift_max
            )
            raise InputError(f"a gift is worth more than nothing, and {most} at most")
        return Price(token, amount)


def _asked_anywhere(place: str) -> tuple[Item, str] | None:
    """What every site is asked for, and its description."""
    if match := _REFUND.match(place):
        return RefundPass(bytes.fromhex(match[1])), "Refund of a pass"
    if match := _RECEIPT.match(place):
        return AskReceipt(ChannelId(bytes.fromhex(match[1]))), "Receipt"
    return None


def counter_of(
    passes: tuple[PassRow, ...], coupons: Coupons | None, tokens: Sequence[Token]
) -> Counter:
    """Raises :class:`~channelpay.errors.ConfigError`, which names the key."""
    gift_max: Mapping[Address, int] = {}
    if coupons is not None:
        if type(coupons.gift_days) is not int or not 1 <= coupons.gift_days <= 3660:
            raise ConfigError("coupons, gift_days: must be a whole number from 1 to 3660")
        if coupons.gift_max is not None:
            settings = Settings("coupons", {"gift_max": coupons.gift_max}, tokens)
            gift_max = settings.amounts("gift_max")
    return Counter(passes, coupons, gift_max, tuple(tokens))


def read_coupons(where: str, table: Any) -> Coupons:
    """The ``[coupons]`` table of a price file."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is not a table")
    if unknown := table.keys() - _KEYS:
        keys = ", ".join(sorted(_KEYS))
        raise ConfigError(f"{where}, {min(unknown)[:40]}: no such key; there may be {keys}")
    return Coupons(**table)


def read_passes(where: str, tables: Any) -> list[tuple[str, dict[str, Any]]]:
    """The ``[[pass]]`` tables of a price file: the id of each, and its other keys."""
    if not isinstance(tables, list):
        raise ConfigError(f"{where}, pass: must be [[pass]] tables")
    found = []
    for number, table in enumerate(tables, 1):
        name = table.pop("id", None) if isinstance(table, dict) else None
        if not isinstance(name, str):
            raise ConfigError(f"{where}, pass {number}, id: missing")
        found.append((name, table))
    return found
