"""Tabs: what a payer was given before it paid. The item comes first, and a voucher for many of them
follows.

Pure. A tab is an entry of the payee's books (:mod:`channelpay.protocol.entries`) for one payer and
token, beside one that sums up the tabs of all payers in the token. Three kinds of payments change
it, each in the one atomic step of the books:

- ``tab``: a sale that the channel's vouchers do not cover, to a payer that asked for that. It costs
  nothing yet; its price is owed.
- ``tab-payment``: what a voucher makes available pays what is owed, before anything else.
- ``write-off``: the payee gives up what is owed. Who wants a tab again pays it nevertheless.

Nobody signs for what is owed: it is credit, and the payee's risk. So it has bounds: a limit for
each payer, which grows with what was paid on time; one for all payers together; and never more than
the payer's channel still holds.

Amounts are base units of the token; times are Unix milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from channelpay.errors import ConfigError, InputError, NotFound, TabDue, TabFull
from channelpay.protocol.entries import Entries, EntryKey, EntryState, Undo, canonical
from channelpay.protocol.parse import parse_amount
from channelpay.protocol.rules import ChannelRecord, Sale, Terms
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address

TAB = "tab"
"""The kind of a tab's entry, and that of a sale on it."""
PAYMENT = "tab-payment"
WRITE_OFF = "write-off"
TOTAL = "tabs"
"""The kind of the entries that sum up, by token, what all payers owe."""
HEADER = "Payment-Tab"
"""With the value :data:`ACCEPTED`, a request agrees to have its price put on the tab."""
ACCEPTED = "accept"
WHOLE = 10_000
"""A hundred percent. Percentages are in hundredths of one."""
_SECOND_MS = 1000
_SECONDS_MAX = 2**53


@dataclass(frozen=True, slots=True)
class TabPolicy:
    """How much credit a payer has: ``limit_start``, and ``grows`` percent of what it paid on time,
    up to ``limit_max``; ``total_max`` for all payers together. What is owed is due ``due_ms`` after
    the first sale that is not paid.
    """

    limit_start: int
    limit_max: int
    grows: int
    total_max: int
    due_ms: int


@dataclass(frozen=True, slots=True)
class Tab:
    """What one payer ``owed`` since ``since``; it has paid ``on_time`` so much in all, and
    ``written_off`` is what the payee gave up. ``owed`` is below zero where a sale was given back
    that was paid already: what comes next costs less.
    """

    owed: int = 0
    since: int = 0
    on_time: int = 0
    written_off: int = 0

    @property
    def unpaid(self) -> int:
        """What the payer has to pay, whether or not the payee still hopes for it."""
        return max(0, self.owed) + self.written_off

    def limit(self, policy: TabPolicy) -> int:
        grown = policy.limit_start + max(0, self.on_time) * policy.grows // WHOLE
        return min(policy.limit_max, grown)

    def due_at(self, policy: TabPolicy) -> int:
        return self.since + policy.due_ms if self.owed > 0 else 0

    def is_overdue(self, policy: TabPolicy, now: int) -> bool:
        return self.written_off > 0 or (self.owed > 0 and now > self.due_at(policy))

    def to_state(self) -> EntryState:
        return {name: getattr(self, name) for name in _FIELDS}

    @classmethod
    def from_state(cls, state: EntryState | None) -> Self:
        """The reverse of :meth:`to_state`; an empty tab from None. Raises :class:`ConfigError`."""
        if state is None:
            return cls()
        numbers = {name: _number(state, name) for name in _FIELDS}
        if state.keys() != numbers.keys():
            raise ConfigError("a tab has other members")
        return cls(**numbers)


_FIELDS = ("owed", "since", "on_time", "written_off")


@dataclass(frozen=True, slots=True)
class TabKeys:
    """Where the tab of a payer is, and the sum over all payers."""

    tab: EntryKey
    total: EntryKey

    @classmethod
    def of(cls, payer: Address, token: Address) -> Self:
        return cls(EntryKey(TAB, payer + token), EntryKey(TOTAL, bytes(token)))

    def read(self, entries: Entries) -> tuple[Tab, int]:
        """The tab, and what all payers owe together."""
        total = entries.get(self.total)
        owed = 0 if total is None else _number(total, "owed")
        return Tab.from_state(entries.get(self.tab)), owed

    def changed(self, tab: Tab, total: int) -> dict[EntryKey, EntryState]:
        return {self.tab: tab.to_state(), self.total: {"owed": total}}

    def undo(self, owed: int, **others: int) -> tuple[Undo, ...]:
        """What takes a change of the amount owed back, and changes of other numbers of the tab."""
        mine = {name: -more for name, more in {"owed": owed, **others}.items() if more}
        return (Undo(self.tab, mine), Undo(self.total, {"owed": -owed}))


@dataclass(frozen=True, slots=True)
class OnTab:
    """The :class:`~channelpay.protocol.rules.Terms` of a sale where there are tabs. What the
    vouchers cover is a sale as ``inner`` says, or at the list price; what they do not cover goes on
    the tab, if the payer ``agrees`` and it has room.

    Raises :class:`~channelpay.errors.TabDue` while something is owed that has to be paid first: by
    what is available already (``pays_first``), or since it is overdue, or the payer wants no tab.
    """

    policy: TabPolicy
    payer_keys: TabKeys
    now: int
    agrees: bool
    inner: Terms | None = None
    pays_first: bool = True

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        inner = () if self.inner is None else self.inner.keys
        return (*inner, self.payer_keys.tab, self.payer_keys.total)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        sale = Sale(price) if self.inner is None else self.inner.sell(price, record, entries)
        if sale.price == 0 or record.in_doubt:
            return sale
        tab, total = self.payer_keys.read(entries)
        if self.pays_first and tab.unpaid and record.available:
            raise self._due(tab, record, sale.price)
        if record.available >= sale.price:
            return sale
        owed = tab.owed + sale.price
        if not self.agrees and owed > 0:
            if tab.unpaid:
                raise self._due(tab, record, sale.price)
            return sale
        if tab.is_overdue(self.policy, self.now):
            raise self._due(tab, record, sale.price)
        self._check_room(tab, total, record, sale.price)
        return self._put_on(sale, price, tab, total)

    def _check_room(self, tab: Tab, total: int, record: ChannelRecord, price: int) -> None:
        limit = tab.limit(self.policy)
        if tab.owed + price > limit:
            raise self._due(tab, record, price, f"the tab has room for {limit} in all", TabFull)
        if total + price > self.policy.total_max:
            raise self._due(tab, record, price, "the site gives no more credit now", TabFull)
        if record.spent + max(0, tab.owed) + price > record.chain.deposit:
            why = "the channel does not hold what would be owed"
            raise self._due(tab, record, price, why, TabFull)

    def _put_on(self, sale: Sale, list_price: int, tab: Tab, total: int) -> Sale:
        price = sale.price
        since = tab.since if tab.owed > 0 else self.now
        raised = replace(tab, owed=tab.owed + price, since=since)
        told: dict[str, Any] = json.loads(sale.details) if sale.details else {}
        details = canonical({"list": str(list_price), **told, "onTab": str(price)})
        changed = {**sale.entries, **self.payer_keys.changed(raised, total + price)}
        return Sale(0, TAB, details, changed, (*sale.undo, *self.payer_keys.undo(price)))

    def _due(
        self,
        tab: Tab,
        record: ChannelRecord,
        price: int,
        why: str = "",
        kind: type[TabDue] = TabDue,
    ) -> TabDue:
        """Says what voucher pays all that is owed, and this too."""
        overdue = "overdue" if tab.is_overdue(self.policy, self.now) else "to be paid first"
        return kind(
            why or f"{tab.unpaid} are owed on the tab, and {overdue}",
            channelId=to_hex(record.channel_id),
            owed=str(tab.unpaid),
            limit=str(tab.limit(self.policy)),
            dueAt=tab.due_at(self.policy) // _SECOND_MS,
            requiredCumulative=str(record.spent + tab.unpaid + price),
            acceptedCumulative=str(record.accepted),
            spent=str(record.spent),
            deposit=str(record.chain.deposit),
        )


@dataclass(frozen=True, slots=True)
class PaysTab:
    """The terms of a payment of what is owed: as much as is available. Its list price is whatever
    the channel could pay at most. Raises :class:`~channelpay.errors.TabDue` where nothing is owed
    or available.
    """

    policy: TabPolicy
    payer_keys: TabKeys
    now: int

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return (self.payer_keys.tab, self.payer_keys.total)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        tab, total = self.payer_keys.read(entries)
        amount = min(price, record.available, tab.unpaid)
        if amount <= 0 or record.in_doubt:
            raise TabDue("there is nothing to pay a tab with, or no tab to pay")
        owed = min(amount, max(0, tab.owed))
        lost = amount - owed
        on_time = 0 if tab.is_overdue(self.policy, self.now) else owed
        paid = Tab(tab.owed - owed, tab.since, tab.on_time + on_time, tab.written_off - lost)
        details = canonical({"owed": str(owed), "writtenOff": str(lost)})
        undo = self.payer_keys.undo(-owed, on_time=on_time, written_off=-lost)
        return Sale(amount, PAYMENT, details, self.payer_keys.changed(paid, total - owed), undo)


@dataclass(frozen=True, slots=True)
class WritesOff:
    """The terms of giving up what a payer owes, if that began by ``since_max``. Raises
    :class:`~channelpay.errors.NotFound` where nothing is owed for so long.
    """

    payer_keys: TabKeys
    since_max: int

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return (self.payer_keys.tab, self.payer_keys.total)

    def sell(
        self,
        price: int,  # noqa: ARG002  all terms are given the same
        record: ChannelRecord,  # noqa: ARG002
        entries: Entries,
    ) -> Sale:
        """See :meth:`channelpay.protocol.rules.Terms.sell`."""
        tab, total = self.payer_keys.read(entries)
        if tab.owed <= 0 or tab.since > self.since_max:
            raise NotFound("this payer owes nothing for so long")
        given_up = replace(tab, owed=0, written_off=tab.written_off + tab.owed)
        details = canonical({"owed": str(tab.owed)})
        changed = self.payer_keys.changed(given_up, total - tab.owed)
        undo = self.payer_keys.undo(-tab.owed, written_off=tab.owed)
        return Sale(0, WRITE_OFF, details, changed, undo)


@dataclass(frozen=True, slots=True)
class TabNote:
    """What a payer is told of its tab: ``added`` by this request, ``owed`` now in all, up to
    ``limit``; ``due_at`` is Unix seconds, 0 where nothing is owed.
    """

    added: int
    owed: int
    limit: int
    due_at: int = 0

    @classmethod
    def of(cls, tab: Tab, policy: TabPolicy, details: str = "") -> Self:
        """``details`` are those of the payment of this request."""
        told: dict[str, Any] = json.loads(details) if details else {}
        due_at = tab.due_at(policy) // _SECOND_MS
        return cls(int(told.get("onTab", "0")), tab.unpaid, tab.limit(policy), due_at)

    def to_json(self) -> str:
        """The member ``tab`` as it stands in a receipt, with the comma behind it."""
        return (
            f'"tab":{{"added":"{self.added}","dueAt":{self.due_at},"limit":"{self.limit}",'
            f'"owed":"{self.owed}"}},'
        )

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Self | None:
        """From the members of a receipt; None if there is nothing like this among them."""
        told = members.get("tab")
        if not isinstance(told, dict):
            return None
        due_at = told.get("dueAt")
        if type(due_at) is not int or not 0 <= due_at < _SECONDS_MAX:
            return None
        try:
            return cls(
                parse_amount(told.get("added"), "added"),
                parse_amount(told.get("owed"), "owed"),
                parse_amount(told.get("limit"), "limit"),
                due_at,
            )
        except InputError:
            return None


def _number(state: EntryState, name: str) -> int:
    number = state.get(name)
    if type(number) is not int:
        raise ConfigError(f"{name} of a tab must be a whole number")
    return number
