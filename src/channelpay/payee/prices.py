"""What each resource costs: rules of path, method and price; the first that matches wins.

A path is exact, or a pattern: ``*`` and ``?`` stay within one segment, ``**`` crosses segments. A
price of 0 makes free; what no rule matches is free. Many applications serve ``/page/`` like
``/page``: a path that ends in ``/`` costs what the dearer of the two spellings costs, unless the
rule that prices it ends in ``/`` itself. A path longer than 4096 characters is not matched: it
costs what the dearest rule says. HEAD goes by the rules of GET, and is asked a
credential but charged nothing, so that a client can send a voucher without fetching anything; a
rule that names HEAD does charge it. OPTIONS is priced only by a rule that names it, since a
browser's preflight request cannot carry a credential.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channelpay.errors import ConfigError, InputError
from channelpay.payee.terms import Token
from channelpay.protocol.parse import parse_text
from channelpay.protocol.wire import TEXT_MAX

PATH_CHARACTERS_MAX = 4096
_PIECES = re.compile(r"\*\*|.", re.DOTALL)
_METHOD = re.compile(r"[A-Z]{1,20}\Z")
_RULE_KEYS = frozenset({"path", "price", "method", "description"})


@dataclass(frozen=True, slots=True)
class PriceRule:
    """``price`` is in human units of the token, as text: ``PriceRule("/articles/*", "0.01")``."""

    path: str
    price: str
    method: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """What one request costs: ``asked`` is what the challenge says, ``charged`` what is taken (base
    units).
    """

    asked: int
    charged: int
    description: str | None = None


class _Pattern:
    """A path pattern, matched in one pass over the path: clients choose the path, and a regular
    expression with several wildcards would try again from every place in it.
    """

    def __init__(self, text: str) -> None:
        # Bit n of a set stands for: the first n letters of the pattern are matched.
        self._letters: dict[str, int] = {}
        self._any_letter = self._stays = self._stays_across = 0
        self._end = 1
        for piece in _PIECES.findall(text):
            if piece in ("*", "**"):
                self._stays |= self._end
                self._stays_across |= self._end if piece == "**" else 0
                continue
            if piece == "?":
                self._any_letter |= self._end
            else:
                self._letters[piece] = self._letters.get(piece, 0) | self._end
            self._end <<= 1

    def matches(self, path: str) -> bool:
        matched = 1
        for letter in path:
            inside = letter != "/"
            steps = self._letters.get(letter, 0) | (self._any_letter if inside else 0)
            stays = self._stays if inside else self._stays_across
            matched = (matched & steps) << 1 | matched & stays
            if not matched:
                return False
        return bool(matched & self._end)


@dataclass(frozen=True, slots=True)
class _Row:
    rule: PriceRule
    pattern: _Pattern
    amount: int

    def is_for(self, method: str) -> bool:
        if self.rule.method is None:
            return method != "OPTIONS"
        return method == self.rule.method or (method, self.rule.method) == ("HEAD", "GET")


class PriceTable:
    """Rules in their order, with their prices in base units of ``token``.

    Raises :class:`~channelpay.errors.ConfigError` for a rule that makes no sense.
    """

    def __init__(self, rules: Iterable[PriceRule], token: Token) -> None:
        self._rows = [_row(rule, token) for rule in rules]

    def quote(self, method: str, path: str) -> Quote | None:
        """The price of a request, or None where it is free. ``path`` is percent-decoded."""
        rows = [row for row in self._rows if row.is_for(method)]
        if len(path) <= PATH_CHARACTERS_MAX:
            rows = _pricing(rows, _without_detours(path))
        dearest = max(rows, key=_amount, default=None)
        return _quote(dearest, method) if dearest is not None and dearest.amount else None

    def summary(self) -> list[tuple[str, str, int]]:
        """(method or ``any``, path, base units) of each rule, in order."""
        return [(row.rule.method or "any", row.rule.path, row.amount) for row in self._rows]


def read_price_file(path: Path) -> list[PriceRule]:
    """The rules of a TOML file.

    It looks like this::

        [[price]]
        path = "/articles/**"
        price = "0.01"             # in units of the token; 0 is free
        method = "GET"             # optional: any method
        description = "An article" # optional

    Raises :class:`~channelpay.errors.ConfigError`, which names the file and the rule.
    """
    try:
        # Decimal fractions stay text: a float could not hold them.
        members = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    tables = members.pop("price", None)
    if members or not isinstance(tables, list) or not tables:
        raise ConfigError(f"{path} must hold one or more [[price]] tables and nothing else")
    return [_rule(f"{path}, [[price]] number {n}", table) for n, table in enumerate(tables, 1)]


def _rule(where: str, table: Any) -> PriceRule:
    if not isinstance(table, dict) or not {"path", "price"} <= table.keys() <= _RULE_KEYS:
        raise ConfigError(
            f"{where}: needs path and price, may have method and description, and nothing else"
        )
    if type(table["price"]) is int:
        table["price"] = str(table["price"])
    for key, value in table.items():
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {key} must be a string")
    return PriceRule(**table)


def _row(rule: PriceRule, token: Token) -> _Row:
    where = f"the price rule of {rule.path[:80]!r}"
    if not rule.path.startswith("/"):
        raise ConfigError(f"{where}: a path begins with /")
    if rule.method is not None and not _METHOD.match(rule.method):
        raise ConfigError(f"{where}: a method is one upper-case word, like GET")
    try:
        if rule.description is not None:
            parse_text(rule.description, "description", TEXT_MAX)
        return _Row(rule, _Pattern(rule.path), token.parse(rule.price, "price"))
    except InputError as error:
        raise ConfigError(f"{where}: {error.detail}") from error


def _amount(row: _Row) -> int:
    return row.amount


def _pricing(rows: Sequence[_Row], path: str) -> list[_Row]:
    """The rules that price a path: its own, and that of its spelling without the last ``/``."""
    found = [row for row in rows if row.pattern.matches(path)][:1]
    if path == "/" or not path.endswith("/") or any(row.rule.path.endswith("/") for row in found):
        return found
    return found + [row for row in rows if row.pattern.matches(path[:-1])][:1]


def _quote(row: _Row, method: str) -> Quote:
    charged = 0 if method == "HEAD" and row.rule.method != "HEAD" else row.amount
    return Quote(row.amount, charged, row.rule.description)


def _without_detours(path: str) -> str:
    """``//`` and dot segments resolved, so that an application that resolves them gives nothing
    away under another spelling.
    """
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return plain + "/" if path.endswith("/") and plain != "/" else plain
