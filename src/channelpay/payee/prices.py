"""What each resource costs: rules of path, method and price; the first that matches wins.

A path is exact, or a pattern: ``*`` and ``?`` stay within one segment, ``**`` crosses segments. A
price of 0 makes free; what no rule matches is free. Some applications take dot segments and ``//``
as they are, some resolve them: such a path costs what the dearest of its readings costs. Many serve
``/page/`` like ``/page``: a path that ends in ``/`` costs what the dearer of the two spellings
costs, unless the rule that prices it ends in ``/`` itself. Some serve ``/Page`` like ``/page``:
what costs more if capitals and forms of letters do not count, costs that. A path longer than 4096
characters is not matched: it costs what the dearest rule says. HEAD goes by the rules of GET, and
is asked a credential but charged nothing, so that a client can send a voucher without fetching
anything; a rule that names HEAD does charge it. OPTIONS is priced only by a rule that names it,
since a browser's preflight request cannot carry a credential; where it is free and another method
is not, its answer comes without a body.

A price may be in several tokens, of which the client chooses one, and for a unit of what is served
instead of a request; or it is the most that a request may cost (``up_to``). Of two such prices the
dearer is what both would be content with: in the tokens that both name, the higher amount of each.
If they name no token in common, or different units, neither is dearer, and the request is refused.

Incentives (:mod:`channelpay.payee.selling.incentives`) take something off prices per request.
"""

from __future__ import annotations

import logging
import re
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from channelpay.errors import ConfigError, InputError, UnclearRequest
from channelpay.payee.amounts import HumanPrice, Price, parse_price
from channelpay.payee.paths import PATH_CHARACTERS_MAX, alike, readings
from channelpay.payee.request import Request
from channelpay.payee.selling.counter import (
    Counter,
    Coupons,
    Item,
    counter_of,
    read_coupons,
    read_passes,
)
from channelpay.payee.selling.deal import Selling
from channelpay.payee.selling.incentives import Incentive, incentive_rows
from channelpay.payee.selling.offers import selling_of
from channelpay.payee.selling.passes import PassPlan, PassRow, pass_rows
from channelpay.payee.selling.settings import NUMBER_BITS_MAX
from channelpay.payee.selling.tabs import Credit, TabPlan, credit_of
from channelpay.payee.terms import Token
from channelpay.protocol.parse import parse_text
from channelpay.protocol.patterns import Pattern
from channelpay.protocol.types import Address
from channelpay.protocol.wire import TEXT_MAX

PER_REQUEST = "request"
"""The unit of a price that is charged once, before the answer begins."""
KNOWN_PATHS_MAX = 8192
"""Paths whose price is remembered."""
KNOWN_CHARACTERS_MAX = 512
"""Clients choose what is remembered: a longer path and method is looked up each time."""
RELOAD_SECONDS = 1.0
"""How often a price file is looked at, at most."""
_METHOD = re.compile(r"[A-Z]{1,20}\Z")
_UNNAMED = "*"
"""Stands for all methods that no rule names."""
_UNIT = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")
_RULE_KEYS = ("path", "price", "method", "unit", "description", "up_to")
_log = logging.getLogger(__name__)

PriceFunction: TypeAlias = Callable[[Request], HumanPrice | None]


@dataclass(frozen=True, slots=True)
class PriceRule:
    """``PriceRule("/articles/*", "0.01")``, or with ``{"eth": "0.000004", "0xToken…": "0.01"}`` as
    its price, or with a function that is given each request and returns one of the two or None,
    which is free. The function gets HEAD as GET, and a path of several readings in each of them;
    what it raises refuses the request.

    ``unit`` other than ``request`` prices one unit of what is served; the application charges them
    as it goes. With ``up_to`` the price is a ceiling: the client shows that it could pay it, and
    the application charges what was used before its response begins.
    """

    path: str
    price: HumanPrice | PriceFunction
    method: str | None = None
    unit: str = PER_REQUEST
    description: str | None = None
    up_to: bool = False


@dataclass(frozen=True, slots=True)
class Quote:
    """What one request costs: one of ``prices``, per ``unit``. If it is not ``charged``, the client
    must show a credential that could pay, and keeps its money. ``up_to``: the prices are the most
    that it may cost. ``selling`` holds the incentives, if there are any, and ``passes`` are those
    that would cover it. ``item`` is what the payee sells itself, ``credit`` the tabs that it may
    be put on.
    """

    prices: tuple[Price, ...]
    unit: str = PER_REQUEST
    charged: bool = True
    description: str | None = None
    up_to: bool = False
    selling: Selling | None = None
    passes: tuple[PassRow, ...] = ()
    item: Item | None = None
    credit: Credit | None = None

    @property
    def metered(self) -> bool:
        """Whether the application says what it costs."""
        return self.up_to or self.unit != PER_REQUEST

    def price_in(self, token: Address) -> int | None:
        """Base units of the token at ``token``, or None if this cannot be paid in it."""
        for price in self.prices:
            if price.token.address == token:
                return price.amount
        return None

    def format(self) -> str:
        """For people: ``0.01 TUSD or 0.000004 ETH per kilobyte``."""
        amounts = format_prices(self.prices, self.unit)
        return f"up to {amounts}" if self.up_to else amounts


def format_prices(prices: Sequence[Price], unit: str) -> str:
    """For people; ``free`` without prices."""
    if not prices:
        return "free"
    amounts = " or ".join(price.format() for price in prices)
    return amounts if unit == PER_REQUEST else f"{amounts} per {unit}"


_Amounts: TypeAlias = tuple[Price, ...]
"""Empty where it is free."""


@dataclass(frozen=True, slots=True)
class _Row:
    rule: PriceRule
    pattern: Pattern
    pattern_alike: Pattern
    prices: _Amounts | Callable[[Request], _Amounts]

    def is_for(self, method: str) -> bool:
        if self.rule.method is None:
            return method != "OPTIONS"
        # A HEAD is how more is promised to a response that is charged as it goes.
        brings_voucher = self.rule.method == "GET" or self.rule.unit != PER_REQUEST
        return method == self.rule.method or (method == "HEAD" and brings_voucher)

    def quote(self, request: Request) -> Quote | None:
        is_free_head = request.method == "HEAD" and self.rule.method != "HEAD"
        prices = self.prices
        if callable(prices):
            prices = prices(replace(request, method="GET") if is_free_head else request)
        if not prices:
            return None
        rule = self.rule
        return Quote(prices, rule.unit, not is_free_head, rule.description, rule.up_to)


@dataclass(frozen=True, slots=True)
class _Spelling:
    """A path as a rule reads it, and that rule."""

    row: _Row
    path: str

    def quote(self, request: Request) -> Quote | None:
        return self.row.quote(replace(request, path=self.path))


class PriceTable:
    """Rules in their order, with their prices in base units of ``tokens``; the first is that of
    prices that name none. ``incentives`` apply beside each other, ``passes`` are sold, ``coupons``
    are taken, and with a ``tab`` there is credit.

    Raises :class:`~channelpay.errors.ConfigError` for a rule or an incentive that makes no sense.
    """

    def __init__(
        self,
        rules: Iterable[PriceRule],
        tokens: Sequence[Token],
        incentives: Sequence[Incentive] = (),
        passes: Sequence[PassPlan] = (),
        coupons: Coupons | None = None,
        tab: TabPlan | None = None,
    ) -> None:
        self._credit = None if tab is None else credit_of(tab, tokens)
        self._incentives = incentive_rows(incentives, tokens)
        self.counter: Counter = counter_of(pass_rows(passes, tokens), coupons, tokens)
        self._rows = [_row(number, rule, tokens) for number, rule in enumerate(rules, 1)]
        named = {row.rule.method for row in self._rows if row.rule.method is not None}
        self._methods = [_UNNAMED, *sorted(named - {"OPTIONS"})]
        self._known = lru_cache(KNOWN_PATHS_MAX)(self._look_up)

    def quote(self, request: Request) -> Quote | None:
        """The price of a request, or None where it is free.

        Raises :class:`~channelpay.errors.UnclearRequest` for a path whose readings have prices
        that cannot be compared, and whatever the function of a rule raises.
        """
        if (sold := self.counter.item(request)) is not None:
            item, prices, description = sold
            charged = request.method != "HEAD"
            return Quote(prices, charged=charged, description=description, item=item)
        found = self._found(request.method, request.path)
        if not isinstance(found, list):
            return found
        return self._with_incentives(_dearest(found, request), request.path, found)

    def hides_body(self, request: Request) -> bool:
        """Whether the answer to a request that is free must come without its body: to OPTIONS, on
        a path that costs something, or may by its function, under another method. Many
        applications answer every method alike.
        """
        return request.method == "OPTIONS" and any(
            self._may_cost(method, request.path) for method in self._methods
        )

    def summary(self) -> list[tuple[PriceRule, tuple[Price, ...]]]:
        """Each rule whose prices are fixed, with them, in order; none where it is free."""
        return [(row.rule, row.prices) for row in self._rows if not callable(row.prices)]

    def _may_cost(self, method: str, path: str) -> bool:
        try:
            return self._found(method, path) is not None
        except UnclearRequest:
            return True

    def _found(self, method: str, path: str) -> Quote | list[_Spelling] | None:
        is_short = len(method) + len(path) <= KNOWN_CHARACTERS_MAX
        return (self._known if is_short else self._look_up)(method, path)

    def _look_up(self, method: str, path: str) -> Quote | list[_Spelling] | None:
        """The quote; or what quotes, if one of the rules must be asked each time."""
        rows = [row for row in self._rows if row.is_for(method)]
        if len(path) <= PATH_CHARACTERS_MAX:
            found = [one for reading in readings(path) for one in _pricing(rows, reading)]
        else:
            found = [_Spelling(row, path) for row in rows]
        if any(callable(one.row.prices) for one in found):
            return found
        return self._with_incentives(_dearest(found, Request(method, path)), path, found)

    def _with_incentives(
        self, quote: Quote | None, path: str, found: Sequence[_Spelling]
    ) -> Quote | None:
        counter = self.counter
        takes_coupons = counter.coupons is not None
        if not (self._incentives or takes_coupons or counter.passes or self._credit):
            return quote
        if quote is None or quote.metered or len(path) > PATH_CHARACTERS_MAX:
            return quote
        paths = {*readings(path), *(one.path for one in found)}
        rows = [row for row in self._incentives if row.applies_to(paths)]
        selling = selling_of(quote, rows, takes_coupons=takes_coupons)
        return replace(quote, selling=selling, passes=counter.covering(path), credit=self._credit)


class PriceFile:
    """The :class:`PriceTable` of a file, read anew when the file has changed.

    The file is looked at once a second at most. One that is broken, or gone, is logged once and
    changes nothing. Write the new prices to a file beside it and rename that: what is written in
    place may be read half-written. ``clock`` gives seconds and never goes back.

    Raises :class:`~channelpay.errors.ConfigError`, which names the file, the rule and the key.
    """

    def __init__(
        self,
        path: Path,
        tokens: Sequence[Token],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._tokens = tokens
        self._clock = clock
        self._next_look = clock() + RELOAD_SECONDS
        # The stamp is older than what was read: a change in between is seen at the next look.
        self._read = (_stamp(path), self._table())

    @property
    def counter(self) -> Counter:
        """See :class:`PriceTable`."""
        return self._current().counter

    def quote(self, request: Request) -> Quote | None:
        """See :meth:`PriceTable.quote`."""
        return self._current().quote(request)

    def hides_body(self, request: Request) -> bool:
        """See :meth:`PriceTable.hides_body`."""
        return self._current().hides_body(request)

    def summary(self) -> list[tuple[PriceRule, tuple[Price, ...]]]:
        """See :meth:`PriceTable.summary`."""
        return self._current().summary()

    def _current(self) -> PriceTable:
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + RELOAD_SECONDS
            self._look()
        return self._read[1]

    def _look(self) -> None:
        stamp, (known, table) = _stamp(self._path), self._read
        if stamp == known:
            return
        try:
            table = self._table()
        except ConfigError as error:
            _log.error("the prices stay as they were: %s", error.detail)
        else:
            _log.info("%s has new prices", self._path)
        self._read = (stamp, table)

    def _table(self) -> PriceTable:
        read = _read(self._path)
        try:
            return PriceTable(
                read.rules,
                self._tokens,
                read.incentives,
                read.passes,
                read.coupons,
                read.tab,
            )
        except ConfigError as error:
            raise ConfigError(f"{self._path}, {error.detail}", hint=error.hint) from error


def read_price_file(path: Path) -> list[PriceRule]:
    """The rules of a TOML file.

    It looks like this::

        [[price]]
        path = "/articles/**"
        price = "0.01"             # in units of the first token; 0 is free
        method = "GET"             # optional: any method
        description = "An article" # optional

        [[price]]
        path = "/chat"
        price = { eth = "0.000004", "0x5FbDB2315678afecb367f032d93F642f64180aa3" = "0.01" }
        unit = "token"             # optional: request

        [[price]]
        path = "/render"
        price = "0.05"
        up_to = true               # optional: the most that it may cost

    Its ``[[incentive]]`` tables are what :func:`read_incentives` reads, its ``[[pass]]`` tables
    :func:`read_pass_plans`, ``[coupons]`` is for sites that take coupons, and ``[tab]`` for those
    that give credit (:class:`~channelpay.payee.selling.tabs.TabPlan`). Raises
    :class:`~channelpay.errors.ConfigError`, which names the file, the rule and the key.
    """
    return _read(path).rules


def read_incentives(path: Path) -> list[Incentive]:
    """The incentives of a price file (:mod:`channelpay.payee.selling.incentives`). Raises what
    :func:`read_price_file` raises.
    """
    return _read(path).incentives


def read_pass_plans(path: Path) -> list[PassPlan]:
    """The passes of a price file (:mod:`channelpay.payee.selling.passes`). Raises what
    :func:`read_price_file` raises.
    """
    return _read(path).passes


class _Read(NamedTuple):
    """What a price file says."""

    rules: list[PriceRule]
    incentives: list[Incentive]
    passes: list[PassPlan]
    coupons: Coupons | None
    tab: TabPlan | None


def _read(path: Path) -> _Read:
    try:
        # Decimal fractions stay text: a float could not hold them.
        members = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also for numbers that are too long
        raise ConfigError(f"{path} is not TOML: {error}") from error
    tables, incentives = members.pop("price", None), members.pop("incentive", [])
    passes, coupons = members.pop("pass", []), members.pop("coupons", None)
    tab = members.pop("tab", None)
    if members or not isinstance(tables, list) or not tables or not isinstance(incentives, list):
        raise ConfigError(
            f"{path} must hold one or more [[price]] tables, and no others than [[incentive]],"
            " [[pass]], [coupons] and [tab]"
        )
    rules = [_rule(f"{path}, price rule {n}", table) for n, table in enumerate(tables, 1)]
    return _Read(
        rules,
        [_incentive(f"{path}, incentive {n}", table) for n, table in enumerate(incentives, 1)],
        [PassPlan(name, **settings) for name, settings in read_passes(str(path), passes)],
        None if coupons is None else read_coupons(f"{path}, coupons", coupons),
        None if tab is None else _tab(f"{path}, tab", tab),
    )


def _tab(where: str, table: Any) -> TabPlan:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is not a table")
    return TabPlan(**table)


def _rule(where: str, table: Any) -> PriceRule:
    _check_keys(where, table)
    price = _toml_price(table.pop("price"), f"{where}, price")
    up_to = table.pop("up_to", False)
    if not isinstance(up_to, bool):
        raise ConfigError(f"{where}, up_to: must be true or false")
    for key, value in table.items():
        if not isinstance(value, str):
            raise ConfigError(f"{where}, {key}: must be a string")
    return PriceRule(price=price, up_to=up_to, **table)


def _check_keys(where: str, table: Any) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is not a table")
    for key in table:
        if key not in _RULE_KEYS:
            keys = ", ".join(_RULE_KEYS)
            raise ConfigError(f"{where}, {key}: no such key; a rule may have {keys}")
    for key in ("path", "price"):
        if key not in table:
            raise ConfigError(f"{where}, {key}: missing")


def _incentive(where: str, table: Any) -> Incentive:
    kind = table.pop("kind", None) if isinstance(table, dict) else None
    if not isinstance(kind, str):
        raise ConfigError(f"{where}, kind: missing")
    return Incentive(kind, **table)


def _toml_price(value: Any, where: str) -> HumanPrice:
    if isinstance(value, dict):
        return {name: _toml_amount(amount, f"{where}.{name}") for name, amount in value.items()}
    return _toml_amount(value, where)


def _toml_amount(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if type(value) is not int or value.bit_length() > NUMBER_BITS_MAX:
        raise ConfigError(f'{where}: must be an amount such as "0.01"')
    return str(value)


def _row(number: int, rule: PriceRule, tokens: Sequence[Token]) -> _Row:
    where = f"price rule {number} ({rule.path[:80]!r})"
    if not rule.path.startswith("/"):
        raise ConfigError(f"{where}, path: must begin with /")
    if rule.method is not None and not _METHOD.match(rule.method):
        raise ConfigError(f"{where}, method: must be one upper-case word, like GET")
    if not _UNIT.match(rule.unit):
        raise ConfigError(f"{where}, unit: must be one lower-case word, like kilobyte")
    if rule.up_to and rule.unit != PER_REQUEST:
        raise ConfigError(f"{where}, up_to: is for a request, not for a unit")
    try:
        if rule.description is not None:
            parse_text(rule.description, "description", TEXT_MAX)
    except InputError as error:
        raise ConfigError(f"{where}, {error.detail}") from error
    patterns = (Pattern(rule.path), Pattern(alike(rule.path)))
    return _Row(rule, *patterns, _prices(rule.price, tokens, where))


def _prices(
    price: HumanPrice | PriceFunction, tokens: Sequence[Token], where: str
) -> _Amounts | Callable[[Request], _Amounts]:
    if not callable(price):
        return _fixed(price, tokens, where)

    def asked(request: Request) -> _Amounts:
        human = price(request)
        return () if human is None else _fixed(human, tokens, where)

    return asked


def _fixed(price: HumanPrice, tokens: Sequence[Token], where: str) -> _Amounts:
    try:
        prices = parse_price(price, tokens, "price")
    except InputError as error:
        raise ConfigError(f"{where}, {error.detail}") from error
    asked = tuple(one for one in prices if one.amount)
    if asked and asked != prices:
        raise ConfigError(f"{where}, price: 0 in one token makes it free; leave the others out")
    return asked


def _pricing(rows: Sequence[_Row], path: str) -> list[_Spelling]:
    """The rules that price a path: its own, that of the paths which are alike, and those of its
    spelling without the last ``/``.
    """
    found = _first(rows, path)
    has_own = found and all(one.row.rule.path.endswith("/") for one in found)
    if path == "/" or not path.endswith("/") or has_own:
        return found
    return found + _first(rows, path[:-1])


def _first(rows: Sequence[_Row], path: str) -> list[_Spelling]:
    plain = alike(path)
    exact = next((row for row in rows if row.pattern.matches(path)), None)
    loose = next((row for row in rows if row.pattern_alike.matches(plain)), None)
    found = [exact] if loose is exact else [exact, loose]
    return [_Spelling(row, path) for row in found if row is not None]


def _dearest(found: Sequence[_Spelling], request: Request) -> Quote | None:
    quotes = [quote for one in found if (quote := one.quote(request)) is not None]
    return reduce(_dearer, quotes) if quotes else None


def _dearer(one: Quote, other: Quote) -> Quote:
    both = [
        (price, amount)
        for price in one.prices
        if (amount := other.price_in(price.token.address)) is not None
    ]
    if not both or (one.unit, one.up_to) != (other.unit, other.up_to):
        raise UnclearRequest(
            "this path can be read in several ways, whose prices cannot be compared",
            hint="Ask for it without dot segments, // and a / at its end, and in 4096 characters"
            " at most.",
        )
    first, rival = both[0]
    prices = tuple(Price(price.token, max(price.amount, amount)) for price, amount in both)
    return replace(other if rival > first.amount else one, prices=prices)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What differs when a file has changed; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
