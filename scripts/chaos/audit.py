"""What must hold between the books and what clients saw, at any moment and whatever was killed.

accepted >= spent, and accepted covers every voucher that came with a served request
spent is the sum of what is charged
what a client got is charged: once, with its key, at its price
what is charged was got by a client, or may be on its way, or may have been lost on its way
of the latter there are no more than were under way when something was killed
what was committed once is there for ever
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from channelpay.protocol.types import ChannelId
from scripts.chaos.books import Books, ChannelRow, PaymentRow
from scripts.chaos.crowd import Errand, Fate, Purse, describe


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit saw; no ``violations`` is as it should be. Of some charges no client has the
    answer: ``on_their_way`` are those of requests under way, ``lost`` those of clients that gave
    up, or whose request failed after an attempt was lost, or while nothing could be written.
    """

    violations: tuple[str, ...]
    charged: int
    released: int
    on_their_way: int
    lost: int


class Auditor:
    """Audits the same books again and again. No more than ``in_flight`` requests are under way at
    any time. ``commits_are_clear`` says that a 503 of this store means that nothing was written,
    whatever broke.
    """

    def __init__(self, purses: Iterable[Purse], in_flight: int, commits_are_clear: bool) -> None:
        self._purses = {purse.channel_id: purse for purse in purses}
        self._in_flight = in_flight
        self._commits_are_clear = commits_are_clear
        self._rows_before: Counter[ChannelId] = Counter()
        self._accepted_before: dict[ChannelId, int] = {}

    def audit(self, books: Books, errands: list[Errand], kills: int) -> Finding:
        """``errands`` are all that there were, and ``kills`` all that was killed. No client must
        move while the books are read and this runs.
        """
        charged = [row for row in books.payments if row.is_charged]
        by_key = {errand.key: errand for errand in errands}
        unserved = [by_key[row.key] for row in charged if _is_unserved(by_key.get(row.key))]
        on_their_way = sum(errand.fate is Fate.UNDER_WAY for errand in unserved)
        lost = len(unserved) - on_their_way
        violations = [
            *self._of_channels(books.channels, charged),
            *self._of_history(books),
            *_of_served(charged, errands),
            *(wrong for row in charged for wrong in self._of_charge(row, by_key.get(row.key))),
        ]
        if lost > self._in_flight * kills:
            violations.append(f"{lost} charges without a served request after {kills} kills")
        released = len(books.payments) - len(charged)
        return Finding(tuple(violations), len(charged), released, on_their_way, lost)

    def _of_channels(
        self, channels: dict[ChannelId, ChannelRow], charged: list[PaymentRow]
    ) -> Iterator[str]:
        sums: Counter[ChannelId] = Counter()
        for row in charged:
            sums[row.channel_id] += row.price
        for channel_id, channel in channels.items():
            name, purse = channel_id.hex()[:8], self._purses[channel_id]
            if not channel.spent <= channel.accepted <= min(channel.deposit, purse.signed):
                yield f"channel {name}: {channel}, and the payer signed {purse.signed}"
            if channel.spent != sums[channel_id]:
                yield f"channel {name}: spent {channel.spent}, charged {sums[channel_id]}"

    def _of_history(self, books: Books) -> Iterator[str]:
        rows = Counter(row.channel_id for row in books.payments)
        for channel_id, before in self._rows_before.items():
            if rows[channel_id] < before:
                yield f"channel {channel_id.hex()[:8]}: {before} payments became {rows[channel_id]}"
        for channel_id, before in self._accepted_before.items():
            now = books.channels.get(channel_id)
            if now is None or now.accepted < before:
                yield f"channel {channel_id.hex()[:8]}: accepted {before} became {now}"
        self._rows_before = rows
        self._accepted_before = {one: row.accepted for one, row in books.channels.items()}

    def _of_charge(self, row: PaymentRow, errand: Errand | None) -> Iterator[str]:
        if errand is None:
            yield f"charged, and nobody asked for it: {row}"
        elif (row.channel_id, row.cumulative) != (errand.purse.channel_id, errand.cumulative):
            yield f"charged with another voucher: {row} for {describe(errand)}"
        elif row.price > errand.price:
            yield f"charged too much: {row.price} for {describe(errand)}"
        elif not self._may_be_charged(errand):
            yield f"charged, and certainly not served: {describe(errand)}"

    def _may_be_charged(self, errand: Errand) -> bool:
        if errand.fate in (Fate.SERVED, Fate.UNDER_WAY) or errand.lost or errand.failed_in_outage:
            return True
        return errand.unavailable > 0 and not self._commits_are_clear


def _is_unserved(errand: Errand | None) -> bool:
    return errand is not None and errand.fate is not Fate.SERVED


def _of_served(charged: list[PaymentRow], errands: list[Errand]) -> Iterator[str]:
    rows: defaultdict[str, list[PaymentRow]] = defaultdict(list)
    for row in charged:
        rows[row.key].append(row)
    for errand in errands:
        own = rows.get(errand.key, [])
        if len(own) > 1:
            yield f"charged {len(own)} times: {describe(errand)}"
        if errand.fate is Fate.SERVED and [row.price for row in own] != [errand.price]:
            yield f"served, and charged {[row.price for row in own]}: {describe(errand)}"
