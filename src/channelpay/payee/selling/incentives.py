"""Reasons to buy: what a site takes off its list prices, and gives back, in its own words.

An :class:`Incentive` is one ``[[incentive]]`` of a price file, or the same in Python. Its rule is
one of :mod:`channelpay.protocol.pricing`, once for each token in which all of its amounts are
given. It applies to what is sold for a price per request.

A path that an application may take for another one has an incentive only if all that it may be
taken for have it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from channelpay.errors import ConfigError
from channelpay.payee.selling.settings import DAYS, Settings
from channelpay.payee.terms import Token
from channelpay.protocol import pricing
from channelpay.protocol.patterns import Pattern
from channelpay.protocol.pricing import MINUTES_OF_DAY, Measure
from channelpay.protocol.types import Address

REFERRER_PARAMETER = "ref"
"""The query parameter of a URL that names who brought the reader, unless an incentive says else."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_PARAMETER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}\Z")
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{1,80}\Z")


class Incentive:
    """``Incentive("first-free", count=3, deposit_min="0.01", day_max=500, paths="/articles/**")``:
    the kind, and the keys of its table in a price file. Amounts are in human units of the first
    token, or by token. What is wrong is said when the prices are made.
    """

    def __init__(self, kind: str, /, **settings: Any) -> None:
        self.kind = kind
        self.settings: Mapping[str, Any] = settings


@dataclass(frozen=True, slots=True)
class IncentiveRow:
    """An incentive of a site: its rule in each token that it applies to, and in words."""

    kind: str
    name: str
    label: str
    rules: Mapping[Address, pricing.Incentive]
    terms: Mapping[Address, str]
    parameter: str | None
    _patterns: tuple[Pattern, ...]

    def applies_to(self, readings: Iterable[str]) -> bool:
        """Whether some pattern matches each of these paths."""
        return all(any(one.matches(path) for one in self._patterns) for path in readings)


Rule = Callable[[str, str, Token], pricing.Incentive | None]
"""Makes the rule of a name and a label in one token, or None where an amount is not given in it."""
Words = Callable[[Token], str]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the keys of one incentive say."""

    label: str
    rule: Rule
    words: Words
    parameter: str | None = None


def incentive_rows(
    incentives: Sequence[Incentive], tokens: Sequence[Token]
) -> tuple[IncentiveRow, ...]:
    """Raises :class:`~channelpay.errors.ConfigError`, which names the incentive and its key."""
    rows = tuple(_row(number, one, tokens) for number, one in enumerate(incentives, 1))
    for number, row in enumerate(rows):
        if row.name in {other.name for other in rows[:number]} | {"credit"}:
            raise ConfigError(
                f"incentive {number + 1} ({row.kind!r}), name: {row.name} is taken",
                hint="Readers' histories are kept by the name; give each incentive its own.",
            )
    if sum(row.kind == "points" for row in rows) > 1:
        raise ConfigError("incentives: there can be one kind of points only")
    return rows


def _row(number: int, incentive: Incentive, tokens: Sequence[Token]) -> IncentiveRow:
    where = f"incentive {number} ({incentive.kind[:40]!r})"
    read = _KINDS.get(incentive.kind)
    if read is None:
        raise ConfigError(f"{where}, kind: must be one of {', '.join(_KINDS)}")
    settings = Settings(where, incentive.settings, tokens)
    name = settings.text("name", incentive.kind, _NAME)
    patterns = settings.texts("paths", "/**")
    if not all(pattern.startswith("/") for pattern in patterns):
        raise settings.wrong("paths", "must begin with /")
    label = settings.text("label", "-", _LABEL)
    kind = read(settings)
    settings.end()
    label = kind.label if label == "-" else label
    rules = {one.address: kind.rule(name, label, one) for one in tokens}
    found = {address: rule for address, rule in rules.items() if rule is not None}
    words = {one.address: kind.words(one) for one in tokens if one.address in found}
    texts = tuple(Pattern(one) for one in patterns)
    return IncentiveRow(incentive.kind, name, label, found, words, kind.parameter, texts)


def _first_free(settings: Settings) -> _Kind:
    count, day_max = settings.count("count"), settings.count("day_max")
    deposits, values = settings.deposit("deposit_min"), settings.amounts_if_any("value_max")

    def rule(name: str, label: str, token: Token) -> pricing.Incentive | None:
        deposit = deposits.get(token.address)
        if deposit is None or not _has(values, token):
            return None
        value = None if values is None else values[token.address]
        return pricing.FirstFree(name, label, count, deposit, day_max, value)

    def words(token: Token) -> str:
        return (
            f"the first {count} for each payer are free{_up_to(values, token)}, on a channel that"
            f" holds {token.format(deposits[token.address])} at least; {day_max} a day in all"
        )

    label = "the first is free" if count == 1 else f"the first {count} are free"
    return _Kind(label, rule, words)


def _nth_free(settings: Settings) -> _Kind:
    every, values = settings.count("every", 2), settings.amounts_if_any("value_max")

    def rule(name: str, label: str, token: Token) -> pricing.Incentive | None:
        if not _has(values, token):
            return None
        value = None if values is None else values[token.address]
        return pricing.NthFree(name, label, every, value)

    def words(token: Token) -> str:
        return f"after {every - 1} that were paid, one is free{_up_to(values, token)}"

    return _Kind(f"every {_ordinal(every)} is free", rule, words)


def _window(settings: Settings) -> _Kind:
    percent = settings.percent()
    begin, end = settings.minute("begin"), settings.minute("end")
    offset, days = settings.utc_offset("utc_offset"), settings.weekdays("days")
    if begin in {end, MINUTES_OF_DAY}:
        raise settings.wrong("begin", "must be before the end, or after it for one past midnight")
    when = f"from {_clock(begin)} to {_clock(end)} (UTC{_offset(offset)})"
    if len(days) < len(DAYS):
        when += " on " + ", ".join(DAYS[day] for day in sorted(days))
    text = f"{_percent(percent)} off {when}"

    def rule(name: str, label: str, _token: Token) -> pricing.Incentive:
        return pricing.Window(name, label, percent, begin, end, offset, days)

    return _Kind(text[:80], rule, lambda _token: text)


def _tiers(settings: Settings) -> tuple[Measure, list[tuple[dict[Address, int], int]]]:
    """What has to be reached, by token, and percent; the first tier says what counts."""
    tables = settings.tables("tiers")
    measure = Measure.COUNT if tables[0].has("count") else Measure.AMOUNT
    tiers = []
    for table in tables:
        if measure is Measure.COUNT:
            count = table.count("count")
            least = {one.address: count for one in settings.tokens}
        else:
            least = table.amounts("amount")
        tiers.append((least, table.percent()))
        table.end()
    return measure, tiers


def _volume(settings: Settings) -> _Kind:
    measure, tiers = _tiers(settings)

    def of(token: Token) -> tuple[tuple[int, int], ...]:
        return tuple((least.get(token.address, 0), percent) for least, percent in tiers)

    def rule(name: str, label: str, token: Token) -> pricing.Incentive | None:
        steps = of(token)
        if not all(least for least, _ in steps):
            return None
        for column in zip(*steps, strict=True):
            if list(column) != sorted(set(column)):
                raise settings.wrong("tiers", "must rise in what is reached and in percent")
        return pricing.Volume(name, label, measure, steps)

    def words(token: Token) -> str:
        shown = [
            f"{_percent(percent)} off after "
            + (f"{least} sales" if measure is Measure.COUNT else token.format(least))
            for least, percent in of(token)
        ]
        return ", ".join(shown) + " in a calendar month (UTC)"

    return _Kind("volume discount", rule, words)


def _cash_back(settings: Settings) -> _Kind:
    percent = settings.percent()

    def rule(name: str, label: str, _token: Token) -> pricing.Incentive:
        return pricing.CashBack(name, label, percent)

    def words(_token: Token) -> str:
        return f"{_percent(percent)} of what you pay becomes credit, which pays for what you buy"

    return _Kind(f"{_percent(percent)} back as credit", rule, words)


def _points(settings: Settings) -> _Kind:
    pers, worths = settings.amounts("per"), settings.amounts("worth")

    def rule(name: str, label: str, token: Token) -> pricing.Incentive | None:
        per, worth = pers.get(token.address), worths.get(token.address)
        if per is None or worth is None:
            return None
        if worth > per:
            raise settings.wrong("worth", "must not be above what earns a point")
        return pricing.Points(name, label, per, worth)

    def words(token: Token) -> str:
        return (
            f"a point for each {token.format(pers[token.address])} that you pay; it is worth"
            f" {token.format(worths[token.address])} when you spend it"
        )

    return _Kind("loyalty points", rule, words)


def _referral(settings: Settings) -> _Kind:
    rewards, deposits = settings.amounts("reward"), settings.deposit("deposit_min")
    day_max = settings.count("day_max")
    parameter = settings.text("parameter", REFERRER_PARAMETER, _PARAMETER)

    def rule(name: str, label: str, token: Token) -> pricing.Incentive | None:
        reward, deposit = rewards.get(token.address), deposits.get(token.address)
        if reward is None or deposit is None:
            return None
        return pricing.Referral(name, label, reward, deposit, day_max)

    def words(token: Token) -> str:
        return (
            f"whoever bought here and brings a new payer by a link with ?{parameter}=ADDRESS gets"
            f" credit of {token.format(rewards[token.address])}, but no more than the first"
            f" purchase costs, on a channel that holds {token.format(deposits[token.address])} at"
            f" least; {day_max} a day in all"
        )

    return _Kind("reward for bringing a reader", rule, words, parameter)


_KINDS: Mapping[str, Callable[[Settings], _Kind]] = {
    "first-free": _first_free,
    "nth-free": _nth_free,
    "window": _window,
    "volume": _volume,
    "cash-back": _cash_back,
    "points": _points,
    "referral": _referral,
}


def _has(amounts: Mapping[Address, int] | None, token: Token) -> bool:
    return amounts is None or token.address in amounts


def _up_to(amounts: Mapping[Address, int] | None, token: Token) -> str:
    return "" if amounts is None else f" up to {token.format(amounts[token.address])}"


def _percent(percent: int) -> str:
    whole, hundredths = divmod(percent, 100)
    fraction = f".{hundredths:02}".rstrip("0") if hundredths else ""
    return f"{whole}{fraction} %"


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _offset(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{_clock(abs(minutes))}"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ending}"
