"""Passes that a site sells, in its own words: the ``[[pass]]`` tables of a price file.

A :class:`PassPlan` is one of them, or the same in Python. A pass covers requests with a price of
their own on its paths; what is sold by the unit, or up to a ceiling, costs what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from channelpay.errors import ConfigError
from channelpay.payee.amounts import Price
from channelpay.payee.paths import PATH_CHARACTERS_MAX, readings
from channelpay.payee.selling.settings import Settings
from channelpay.payee.terms import Token
from channelpay.protocol.passes import Length, PassTerms
from channelpay.protocol.patterns import Pattern

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{1,80}\Z")
_HOURS = {"hours": 1, "days": 24}
_DURATIONS = (*_HOURS, "months")
_LONGEST = {"hours": 24 * 3660, "days": 3660, "months": 120, "uses": 10**6, "refund_days": 3660}
_PATTERNS_MAX = 20
KNOWN_PATHS_MAX = 8192


class PassPlan:
    """``PassPlan("day", price="0.01", hours=24, paths="/articles/**")``: the id, and the keys of
    its table in a price file. What is wrong is said when the prices are made.
    """

    def __init__(self, id: str, /, **settings: Any) -> None:  # noqa: A002  its name in the file
        self.id = id
        self.settings: Mapping[str, Any] = settings


@dataclass(frozen=True, slots=True)
class PassRow:
    """A pass as a site sells it. ``renews``: a payer may have it bought again when it ends;
    ``proof``: whoever shows it signs once a minute.
    """

    id: str
    label: str
    prices: tuple[Price, ...]
    length: Length
    uses: int
    paths: tuple[str, ...]
    refund_days: int
    renews: bool
    proof: bool
    terms: str

    def covers(self, path: str) -> bool:
        """See :func:`covers`."""
        return covers(self.paths, path)

    def sold(self, pass_id: bytes, host: str, now: int, key: str | None) -> PassTerms:
        """What one is sold under, now. ``key`` is the Idempotency-Key of its purchase: without one
        what is refunded would not be found again.
        """
        return PassTerms(
            pass_id,
            self.id,
            self.label,
            self.paths,
            self.length,
            self.uses,
            self.refund_days,
            host,
            now,
            self.proof,
            key or "",
        )


@lru_cache(KNOWN_PATHS_MAX)
def covers(patterns: tuple[str, ...], path: str) -> bool:
    """Whether some pattern matches each path that an application may take this one for."""
    if len(path) > PATH_CHARACTERS_MAX:
        return False
    made = [Pattern(one) for one in patterns]
    return all(any(one.matches(reading) for one in made) for reading in readings(path))


def pass_rows(plans: Sequence[PassPlan], tokens: Sequence[Token]) -> tuple[PassRow, ...]:
    """Raises :class:`~channelpay.errors.ConfigError`, which names the pass and its key."""
    rows = tuple(_row(number, one, tokens) for number, one in enumerate(plans, 1))
    if len({row.id for row in rows}) < len(rows):
        raise ConfigError("passes: two of them have the same id")
    return rows


def _row(number: int, plan: PassPlan, tokens: Sequence[Token]) -> PassRow:
    where = f"pass {number} ({str(plan.id)[:40]!r})"
    settings = Settings(where, {"id": plan.id, **plan.settings}, tokens)
    name = settings.text("id", "", _NAME)
    amounts = settings.amounts("price")
    prices = tuple(Price(one, amounts[one.address]) for one in tokens if one.address in amounts)
    paths = settings.texts("paths", "/**")
    if len(paths) > _PATTERNS_MAX or not all(_is_pattern(one) for one in paths):
        raise settings.wrong("paths", f"must be {_PATTERNS_MAX} patterns at most, each with /")
    length = _length(settings)
    uses = _number(settings, "uses")
    if not uses and length == Length():
        raise settings.wrong("uses", "missing; or say hours, days or months")
    refund_days = _number(settings, "refund_days")
    if refund_days and not uses:
        raise settings.wrong("refund_days", "is for passes with uses: those left are refunded")
    renews, proof = settings.flag("renew"), settings.flag("proof")
    label = settings.text("label", "-", _LABEL)
    settings.end()
    words = _words(length, uses, paths, refund_days, renews=renews, proof=proof)
    label = words.partition(",")[0] if label == "-" else label
    terms = f"{' or '.join(one.format() for one in prices)} for a {words}"
    return PassRow(name, label, prices, length, uses, paths, refund_days, renews, proof, terms)


def _is_pattern(text: str) -> bool:
    return text.startswith("/") and len(text) <= 200


def _number(settings: Settings, key: str) -> int:
    if not settings.has(key):
        return 0
    number = settings.count(key)
    if number > _LONGEST[key]:
        raise settings.wrong(key, f"is {_LONGEST[key]} at most")
    return number


def _length(settings: Settings) -> Length:
    found = {key: number for key in _DURATIONS if (number := _number(settings, key))}
    if len(found) > 1:
        raise settings.wrong(min(found), f"only one of {', '.join(_DURATIONS)} may be given")
    hours = sum(number * _HOURS.get(key, 0) for key, number in found.items())
    return Length(hours, found.get("months", 0))


def _words(
    length: Length,
    uses: int,
    paths: Iterable[str],
    refund_days: int,
    *,
    renews: bool,
    proof: bool,
) -> str:
    parts = [_counted(uses, "page")] if uses else []
    if length != Length():
        parts.append(f"for {_duration(length)}")
    words = f"pass {' '.join(parts)}, on {' '.join(paths)}"
    if refund_days:
        words += f"; what is not used comes back within {_counted(refund_days, 'day')}"
    words += "; can renew itself, if you say so" if renews else ""
    return words + ("; needs your key once a minute" if proof else "")


def _duration(length: Length) -> str:
    if length.months:
        return _counted(length.months, "month")
    days, hours = divmod(length.hours, 24)
    return _counted(length.hours, "hour") if hours else _counted(days, "day")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
