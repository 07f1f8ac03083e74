"""Strict readers for the settings of an incentive or a pass, as its table in a price file or Python
gives them. Each raises :class:`~channelpay.errors.ConfigError`, which names the two and the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from channelpay.errors import ConfigError, InputError
from channelpay.payee.amounts import HumanPrice, parse_price
from channelpay.payee.terms import Token
from channelpay.protocol.pricing import MINUTES_OF_DAY, WHOLE
from channelpay.protocol.text import parse_human_amount
from channelpay.protocol.types import Address

COUNT_MAX = 10**9
NUMBER_BITS_MAX = 256
"""Of an amount that is written without quotes."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])\Z")
_OFFSET = re.compile(r"([+-])(0[0-9]|1[0-4]):([0-5][0-9])\Z")


class Settings:
    """The keys of one incentive, each of which is taken once; :meth:`end` refuses what is left."""

    def __init__(self, where: str, values: Mapping[str, Any], tokens: Sequence[Token]) -> None:
        self.where = where
        self.tokens = tokens
        self._left = dict(values)

    def text(self, key: str, default: str, pattern: re.Pattern[str]) -> str:
        value = self._left.pop(key, default)
        if not isinstance(value, str) or not pattern.match(value):
            raise self.wrong(key, "must be a short text")
        return value

    def texts(self, key: str, default: str) -> tuple[str, ...]:
        """One text or a list of them."""
        value = self._left.pop(key, default)
        texts = (value,) if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not texts:
            raise self.wrong(key, "must be a text or a list of them")
        if not all(isinstance(text, str) for text in texts):
            raise self.wrong(key, "must be a text or a list of them")
        return tuple(texts)

    def count(self, key: str, least: int = 1) -> int:
        value = self._taken(key)
        if type(value) is not int or not least <= value <= COUNT_MAX:
            raise self.wrong(key, f"must be a whole number from {least} to {COUNT_MAX}")
        return value

    def percent(self, key: str = "percent") -> int:
        """In hundredths: above 0 and 100 at most."""
        value = self._taken(key)
        try:
            percent = parse_human_amount(_text(value), 2, key)
        except (InputError, TypeError):
            percent = 0
        if not 0 < percent <= WHOLE:
            raise self.wrong(key, 'must be a number up to 100, such as 5 or "2.5"')
        return percent

    def amounts(self, key: str) -> dict[Address, int]:
        """Base units by token, above zero."""
        amounts = self._amounts(key, self._taken(key))
        if not all(amounts.values()):
            raise self.wrong(key, "must be above 0")
        return amounts

    def deposit(self, key: str) -> dict[Address, int]:
        """Like :meth:`amounts`, or 0 for none."""
        return self._amounts(key, self._taken(key))

    def amounts_if_any(self, key: str) -> dict[Address, int] | None:
        return self.amounts(key) if key in self._left else None

    def minute(self, key: str) -> int:
        """Of the day, from a text such as ``22:30``; ``24:00`` is its end."""
        value = self._taken(key)
        match = _CLOCK.match(value) if isinstance(value, str) else None
        minute = 60 * int(match[1]) + int(match[2]) if match else MINUTES_OF_DAY + 1
        if minute > MINUTES_OF_DAY:
            raise self.wrong(key, 'must be a time of day such as "22:30"')
        return minute

    def utc_offset(self, key: str) -> int:
        """Minutes east of UTC, from a text such as ``+01:00``."""
        value = self._taken(key)
        match = _OFFSET.match(value) if isinstance(value, str) else None
        if match is None:
            raise self.wrong(key, 'must be an offset from UTC such as "+01:00"')
        minutes = 60 * int(match[2]) + int(match[3])
        return -minutes if match[1] == "-" else minutes

    def weekdays(self, key: str) -> frozenset[int]:
        """Monday is 0; all of them unless some are named."""
        if key not in self._left:
            return frozenset(range(7))
        names = self.texts(key, "")
        if not set(names) <= set(DAYS):
            raise self.wrong(key, f"must be among {', '.join(DAYS)}")
        return frozenset(DAYS.index(name) for name in names)

    def tables(self, key: str) -> list[Settings]:
        value = self._taken(key)
        if not isinstance(value, list | tuple) or not value:
            raise self.wrong(key, "must be a list of tables")
        tables = []
        for number, table in enumerate(value, 1):
            if not isinstance(table, Mapping):
                raise self.wrong(key, "must be a list of tables")
            tables.append(Settings(f"{self.where}, {key} {number}", table, self.tokens))
        return tables

    def has(self, key: str) -> bool:
        return key in self._left

    def flag(self, key: str) -> bool:
        """False unless it is set."""
        value = self._left.pop(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def end(self) -> None:
        if self._left:
            raise self.wrong(str(min(self._left)), "no such key here")

    def wrong(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self.where}, {key[:40]}: {what}")

    def _taken(self, key: str) -> Any:
        if key not in self._left:
            raise self.wrong(key, "missing")
        return self._left.pop(key)

    def _amounts(self, key: str, value: Any) -> dict[Address, int]:
        try:
            prices = parse_price(_human(value), self.tokens, key)
        except InputError as error:
            raise ConfigError(f"{self.where}, {error.detail}") from error
        return {price.token.address: price.amount for price in prices}


def _human(value: Any) -> HumanPrice:
    """Whole numbers may be written without quotes, as in the price of a rule."""
    if isinstance(value, Mapping):
        return {name: _text(amount) for name, amount in value.items()}
    return _text(value)


def _text(value: Any) -> str:
    """Whoever reads it refuses what is no text, and Python writes no number of any length."""
    return str(value) if type(value) is int and value.bit_length() <= NUMBER_BITS_MAX else value
