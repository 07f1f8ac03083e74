"""What each resource costs: rules of path, method and price; the first that matches wins.

A path is exact, or a pattern: ``*`` and ``?`` stay within one segment, ``**`` crosses segments. A
price of 0 makes free; what no rule matches is free. HEAD goes by the rules of GET, and is asked a
credential but charged nothing, so that a client can send a voucher without fetching anything; a
rule that names HEAD does charge it. OPTIONS is priced only by a rule that names it, since a
browser's preflight request cannot carry a credential.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channelpay.errors import ConfigError, InputError
from channelpay.payee.terms import Token
from channelpay.protocol.parse import parse_text
from channelpay.protocol.wire import TEXT_MAX

_WILDCARDS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
_PIECES = re.compile(r"\*\*|\*|\?|[^*?]+")
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


@dataclass(frozen=True, slots=True)
class _Row:
    rule: PriceRule
    pattern: re.Pattern[str]
    amount: int

    def matches(self, method: str, path: str) -> bool:
        return self._is_for(method) and self.pattern.fullmatch(path) is not None

    def _is_for(self, method: str) -> bool:
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
        plain = _without_detours(path)
        for row in self._rows:
            if row.matches(method, plain):
                return _quote(row, method) if row.amount else None
        return None

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
        return _Row(rule, _compile(rule.path), token.parse(rule.price, "price"))
    except InputError as error:
        raise ConfigError(f"{where}: {error.detail}") from error


def _compile(path: str) -> re.Pattern[str]:
    pieces = (_WILDCARDS.get(piece, re.escape(piece)) for piece in _PIECES.findall(path))
    return re.compile("".join(pieces), re.DOTALL)


def _quote(row: _Row, method: str) -> Quote:
    charged = 0 if method == "HEAD" and row.rule.method != "HEAD" else row.amount
    return Quote(row.amount, charged, row.rule.description)


def _without_detours(path: str) -> str:
    """``//`` and dot segments resolved, so that an application that resolves them gives nothing
    away under another spelling.
    """
    plain = posixpath.normpath("/" + path.lstrip("/"))
    return plain + "/" if path.endswith("/") and plain != "/" else plain
