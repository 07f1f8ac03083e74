"""Statements from the payee's ledger: what each payer bought, and what settled it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from channelpay.payee.closer import Work
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.statements import (
    Period,
    Settlement,
    Sheet,
    Statement,
    movement_of,
    statement,
)
from channelpay.protocol.transactions import Outgoing, TransactionStatus
from channelpay.protocol.types import Address
from channelpay.store import Store, StoredPayment

TRANSACTIONS_MAX = 100_000
"""How many of the newest transactions are looked through."""
READS_MAX = 5
"""How often a channel is read that sells meanwhile."""


def statements(store: Store, period: Period, payer: Address | None = None) -> list[Statement]:
    """One for each payer, payee and token that a channel of the books is of, or those of one payer;
    without those in which nothing happened in the period. Reads the whole ledger of the channels.

    A sale that goes on, or is given back, afterwards changes what was said of its period.
    """
    by_parties: dict[tuple[Address, Address, Address], list[ChannelRecord]] = {}
    for record in store.records():
        channel = record.channel
        if payer in {None, channel.payer}:
            parties = (channel.payer, channel.payee, channel.token)
            by_parties.setdefault(parties, []).append(record)
    settlements = _settlements(store.transactions(TRANSACTIONS_MAX))
    made = (
        statement(
            parties, [_sheet(store, one) for one in records], period, _of(records, settlements)
        )
        for parties, records in sorted(by_parties.items())
    )
    return [one for one in made if one.lines]


def _sheet(store: Store, record: ChannelRecord) -> Sheet:
    """Read again while it sells: what is spent and the payments are of one moment then."""
    payments: list[StoredPayment] = []
    for _ in range(READS_MAX):
        payments = store.payments(record.channel_id)
        before, record = record, store.record(record.channel_id) or record
        if record.spent == before.spent:
            break
    movements = (movement_of(stored.payment) for stored in payments)
    found = [one for one in movements if one is not None]
    return Sheet(record.channel_id, record.spent, record.chain.settled, found)


def _of(records: Sequence[ChannelRecord], every: Iterable[Settlement]) -> list[Settlement]:
    """The settlements that these channels were part of; of the channels, no others are named."""
    ours = {record.channel_id for record in records}
    found = []
    for one in every:
        channels = tuple(channel for channel in one.channel_ids if channel in ours)
        if channels:
            found.append(Settlement(one.transaction_hash, one.kind, one.time, channels))
    return found


def _settlements(journal: Iterable[Outgoing]) -> list[Settlement]:
    """What this payee's own account settled and closed, oldest first."""
    found = []
    for outgoing in journal:
        work = Work.of(outgoing)
        if work and outgoing.mined and outgoing.status is TransactionStatus.CONFIRMED:
            time = outgoing.broadcasts[-1].time
            found.append(Settlement(outgoing.mined, work.kind.value, time, work.channel_ids))
    return sorted(found, key=lambda one: one.time)
