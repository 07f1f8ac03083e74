"""When the payee takes its money, and what it may cost. Pure: ``docs/settlement.md`` explains it.

Two rules stand above all options. A channel whose payer wants it closed is answered, whatever that
costs: after the grace period the money is the payer's again. Everything else is settled only if it
brings more than its gas costs, by the stated margin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import groupby

from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.types import NATIVE, Address, ChannelId, ChannelStatus

CLOSE_ROWS_MAX = 40
"""Each row of a batch of closes reserves gas for a payer's wallet: more rows would not fit the
16.7 million gas that one transaction may have (EIP-7825).
"""
ESTIMATE_MARGIN_PERCENT = 15
"""Added to the measured gas: tokens differ, and the first payment to an account costs more."""
URGENT_SHARE_MAX = 2
"""The urgent time is at most this part of the grace period: a half."""
FULL_URGENCY_SHARE = 4
"""The last part of the urgent time in which the highest fee is paid: a quarter."""
WEI_PER_ETHER = 10**18
GAS_MONEY_CLOSES = 20
"""The account should be able to pay for so many closes at today's fees, or its owner is told."""
CLOSE_GAS = 61_100


class Kind(StrEnum):
    """What a transaction does with each of its channels."""

    SETTLE = "settle"
    CLOSE = "close"


class Reason(StrEnum):
    """Why a plan is made now."""

    CLOSE_REQUESTED = "close requested"
    CLOSE_UNFINISHED = "close unfinished"
    VALUE = "value"
    TOTAL = "total"
    AGE = "age"
    DEPOSIT_USED = "deposit used"
    GAS_CHEAP = "gas cheap"
    ASKED = "asked"


@dataclass(frozen=True, slots=True)
class GasUse:
    """Gas of a whole transaction for one channel, and of each channel more in the same one."""

    first: int
    more: int

    def of(self, rows: int) -> int:
        gas = self.first + self.more * (rows - 1)
        return gas * (100 + ESTIMATE_MARGIN_PERCENT) // 100


_GAS = {
    (Kind.SETTLE, True): GasUse(43_300, 13_600),
    (Kind.SETTLE, False): GasUse(52_200, 13_500),
    (Kind.CLOSE, True): GasUse(53_400, 20_900),
    (Kind.CLOSE, False): GasUse(61_100, 17_400),
}
"""By kind, and whether the token is ether: ``docs/gas.json``."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a plan is made for.

    ``time_ms`` is the payee's clock (Unix ms), ``chain_seconds`` the chain's (Unix seconds), the
    later one of the two; fees are wei per gas.
    """

    time_ms: int
    chain_seconds: int
    grace_seconds: int
    base_fee_wei: int
    tip_wei: int

    @property
    def gas_price_wei(self) -> int:
        return self.base_fee_wei + self.tip_wei


@dataclass(frozen=True, slots=True)
class Plan:
    """One transaction to send: what it does with which channels of one payee and token, and why.

    ``gas`` and ``cost_wei`` are estimates at the fees of the moment; ``value`` is what it brings,
    in base units of the token; ``urgency`` is 0 to 1.
    """

    kind: Kind
    records: tuple[ChannelRecord, ...]
    reason: Reason
    gas: int
    cost_wei: int
    value: int
    urgency: float

    @property
    def token(self) -> Address:
        return self.records[0].channel.token

    def part(self, records: Sequence[ChannelRecord], kind: Kind) -> Plan:
        """The same plan for some of its channels, or by another kind of transaction."""
        gas_price_wei = self.cost_wei // self.gas
        gas = _GAS[kind, self.token == NATIVE].of(len(records))
        value = sum(record.unsettled for record in records)
        return replace(
            self,
            kind=kind,
            records=tuple(records),
            gas=gas,
            cost_wei=gas * gas_price_wei,
            value=value,
        )


@dataclass(frozen=True, slots=True)
class SettlementPolicy:
    """The options of ``docs/settlement.md``. Amounts are in base units, by token.

    ``value_min``: a channel with so much unsettled is settled. ``total_min``: all channels of a
    token are, once they have so much unsettled together. ``age_max_seconds``: … once one has had
    something unsettled for so long (None: age does not matter). ``base_fee_max_wei``: … whenever
    gas is as cheap as this. ``deposit_used_percent``: a channel is settled when vouchers pass this
    share of its deposit.

    ``margin_percent``: what is taken is worth at least so much more than its gas (0: no loss, 100:
    twice the gas). ``eth_price`` says how much of a token is worth one ether; of a token without a
    price only channels with its ``value_min`` are settled, and all of them at its ``total_min``:
    these have to be worth the gas.

    ``urgent_before_seconds``: how long before the end of the grace period the fees begin to rise.
    ``grace_wait_percent``: the share of the grace period (0 to 50) that a close request is left to
    somebody else, as a watchtower leaves it to the payee. ``closes``: a requested close is answered
    by closing, which gives the payer the rest at once; without it, by settling.
    """

    value_min: Mapping[Address, int] = field(default_factory=dict)
    total_min: Mapping[Address, int] = field(default_factory=dict)
    age_max_seconds: float | None = 7 * 86_400
    base_fee_max_wei: int | None = None
    deposit_used_percent: int | None = 90
    margin_percent: int = 100
    eth_price: Mapping[Address, int] = field(default_factory=dict)
    batch_rows_max: int = 100
    urgent_before_seconds: float = 6 * 3600
    grace_wait_percent: int = 0
    closes: bool = True

    def urgency(self, record: ChannelRecord, moment: Moment) -> float:
        """0 while there is time, rising to 1 as the end of the grace period comes near."""
        if record.chain.status is not ChannelStatus.CLOSING:
            return 0.0
        left = record.chain.close_requested_at + moment.grace_seconds - moment.chain_seconds
        urgent = max(1.0, min(self.urgent_before_seconds, moment.grace_seconds / URGENT_SHARE_MAX))
        full = urgent / FULL_URGENCY_SHARE
        return min(1.0, max(0.0, (urgent - left) / (urgent - full)))

    def plan(
        self,
        records: Iterable[ChannelRecord],
        moment: Moment,
        *,
        busy: AbstractSet[ChannelId] = frozenset(),
        closes: bool = True,
        refused: AbstractSet[ChannelId] = frozenset(),
        thrifty: bool = False,
    ) -> list[Plan]:
        """The transactions that are due, the most urgent ones first.

        ``busy`` channels have one under way and are left out. Without ``closes`` (the sender is not
        the payee), and for channels whose close was ``refused``, settling has to do. A ``thrifty``
        payee leaves those out that would bring less than their gas: what gas money there is has to
        do for the others.
        """
        free = [record for record in records if record.channel_id not in busy]
        due, open_ones = [], []
        for record in free:
            may_close = self.closes and closes and record.channel_id not in refused
            answer = self._answer(record, moment, may_close)
            if answer is not None and thrifty and self._is_loss(record, answer[0], moment):
                continue
            if answer is not None:
                due.append((record, *answer))
            elif _is_open(record):
                open_ones.append(record)
        plans = [*self._answers(due, moment), *self._settlements(open_ones, moment)]
        return sorted(plans, key=lambda plan: -plan.urgency)

    def asked(self, records: Iterable[ChannelRecord], kind: Kind, moment: Moment) -> list[Plan]:
        """The transactions that do ``kind`` with all of these, whatever it brings."""
        chosen = [(record, kind, Reason.ASKED) for record in records]
        return list(self._answers(chosen, moment))

    def _answer(
        self, record: ChannelRecord, moment: Moment, closes: bool
    ) -> tuple[Kind, Reason] | None:
        """What has to be done with this channel, whatever it brings."""
        over = record.chain.status in {ChannelStatus.FINALIZED, ChannelStatus.ABSENT}
        if over:
            return None
        if record.closes_begun and closes:
            return Kind.CLOSE, Reason.CLOSE_UNFINISHED
        if not _is_requested(record) or record.unsettled == 0 or self._waits(record, moment):
            return None
        return Kind.CLOSE if closes else Kind.SETTLE, Reason.CLOSE_REQUESTED

    def _waits(self, record: ChannelRecord, moment: Moment) -> bool:
        waited = moment.chain_seconds - record.chain.close_requested_at
        patient = waited * 100 < self.grace_wait_percent * moment.grace_seconds
        return patient and self.urgency(record, moment) == 0

    def _answers(
        self, due: Iterable[tuple[ChannelRecord, Kind, Reason]], moment: Moment
    ) -> Iterator[Plan]:
        def group(
            one: tuple[ChannelRecord, Kind, Reason],
        ) -> tuple[bytes, bytes, bool, Kind, Reason]:
            record, kind, reason = one
            alone = record.voucher is None
            return record.channel.payee, record.channel.token, alone, kind, reason

        for (_, _, alone, kind, reason), some in groupby(sorted(due, key=group), group):
            found = [record for record, _, _ in some]
            # Those whose time ends first; a close without a voucher has no place in a batch.
            found.sort(key=lambda record: record.chain.close_requested_at)
            for rows in _chunks(found, 1 if alone else self._rows_max(kind)):
                yield self._plan_of(kind, rows, reason, moment)

    def _settlements(self, records: Sequence[ChannelRecord], moment: Moment) -> Iterator[Plan]:
        """What is settled because it pays, token by token, the largest amounts first."""

        def token_of(record: ChannelRecord) -> bytes:
            return record.channel.token

        for _, some in groupby(sorted(records, key=token_of), token_of):
            every = [record for record in some if record.unsettled]
            is_asked = self._is_asked_in_all(every)
            owed = [one for one in every if is_asked or self._is_worth_a_row(one, moment)]
            reason = Reason.TOTAL if is_asked else self._reason(owed, moment)
            if reason is None:
                continue
            owed.sort(key=lambda record: record.unsettled, reverse=True)
            for rows in _chunks(owed, self._rows_max(Kind.SETTLE)):
                plan = self._plan_of(Kind.SETTLE, rows, reason, moment)
                if is_asked or self._pays(plan.token, plan.value, plan.cost_wei):
                    yield plan

    def _is_asked_in_all(self, owed: Sequence[ChannelRecord]) -> bool:
        """Whether there is so much of a token without a price that the user wants all of it
        settled, though the channels are small: nothing else would ever bring the total down.
        """
        if not owed or self._price(owed[0].channel.token) is not None:
            return False
        total_min = self.total_min.get(owed[0].channel.token)
        return total_min is not None and sum(record.unsettled for record in owed) >= total_min

    def _reason(self, owed: Sequence[ChannelRecord], moment: Moment) -> Reason | None:
        """Why the channels of one token are settled now, if they are."""
        if not owed:
            return None
        token = owed[0].channel.token
        value_min, total_min = self.value_min.get(token), self.total_min.get(token)
        if value_min is not None and max(record.unsettled for record in owed) >= value_min:
            return Reason.VALUE
        if total_min is not None and sum(record.unsettled for record in owed) >= total_min:
            return Reason.TOTAL
        if any(self._is_old(record, moment) for record in owed):
            return Reason.AGE
        if any(map(self._is_used_up, owed)):
            return Reason.DEPOSIT_USED
        cheap = self.base_fee_max_wei is not None and moment.base_fee_wei <= self.base_fee_max_wei
        return Reason.GAS_CHEAP if cheap else None

    def _is_old(self, record: ChannelRecord, moment: Moment) -> bool:
        if self.age_max_seconds is None or record.unsettled_since == 0:
            return False
        return moment.time_ms - record.unsettled_since >= self.age_max_seconds * 1000

    def _is_used_up(self, record: ChannelRecord) -> bool:
        """Once for each deposit: when vouchers pass the share, settled is still below it."""
        if self.deposit_used_percent is None:
            return False
        share = record.chain.deposit * self.deposit_used_percent
        return record.accepted * 100 >= share > record.chain.settled * 100

    def _is_worth_a_row(self, record: ChannelRecord, moment: Moment) -> bool:
        token = record.channel.token
        row_wei = _GAS[Kind.SETTLE, token == NATIVE].more * moment.gas_price_wei
        return self._pays(token, record.unsettled, row_wei)

    def _pays(self, token: Address, value: int, cost_wei: int) -> bool:
        """Whether ``value`` is worth the gas and the margin; for a token without a price, whether
        it is what the user said is worth it.
        """
        price = self._price(token)
        if price is None:
            value_min = self.value_min.get(token)
            return value_min is not None and value >= value_min
        return value * WEI_PER_ETHER * 100 >= cost_wei * price * (100 + self.margin_percent)

    def _is_loss(self, record: ChannelRecord, kind: Kind, moment: Moment) -> bool:
        """Whether this channel is worth less than its gas; of a token without a price nobody can
        say so.
        """
        token = record.channel.token
        price = self._price(token)
        cost_wei = _GAS[kind, token == NATIVE].first * moment.gas_price_wei
        return price is not None and record.unsettled * WEI_PER_ETHER < cost_wei * price

    def _price(self, token: Address) -> int | None:
        """What one ether is worth in it, if that was said."""
        return WEI_PER_ETHER if token == NATIVE else self.eth_price.get(token)

    def _rows_max(self, kind: Kind) -> int:
        rows_max = self.batch_rows_max
        return min(rows_max, CLOSE_ROWS_MAX) if kind is Kind.CLOSE else rows_max

    def _plan_of(
        self, kind: Kind, rows: Sequence[ChannelRecord], reason: Reason, moment: Moment
    ) -> Plan:
        gas = _GAS[kind, rows[0].channel.token == NATIVE].of(len(rows))
        return Plan(
            kind,
            tuple(rows),
            reason,
            gas,
            gas * moment.gas_price_wei,
            sum(record.unsettled for record in rows),
            max(self.urgency(record, moment) for record in rows),
        )


def gas_money_needed(gas_price_wei: int) -> int:
    """What the account should have (wei), at this price of a unit of gas."""
    return GAS_MONEY_CLOSES * CLOSE_GAS * gas_price_wei


def settling_before(
    policy: SettlementPolicy,
    risk_max_per_channel: Mapping[Address, int],
    risk_max_total: Mapping[Address, int],
) -> SettlementPolicy:
    """The policy with half of each risk limit for what it does not say itself: a limit that is
    reached before anybody settles turns readers away.
    """
    return replace(
        policy,
        value_min={**_halves(risk_max_per_channel), **policy.value_min},
        total_min={**_halves(risk_max_total), **policy.total_min},
    )


def _halves(amounts: Mapping[Address, int]) -> dict[Address, int]:
    return {token: amount // 2 for token, amount in amounts.items()}


def watchtower_policy(policy: SettlementPolicy, grace_wait_percent: int) -> SettlementPolicy:
    """The policy of somebody else who watches: it answers close requests that the payee leaves
    unanswered for so long, and settles nothing else.
    """
    return replace(
        policy,
        value_min={},
        total_min={},
        age_max_seconds=None,
        base_fee_max_wei=None,
        deposit_used_percent=None,
        grace_wait_percent=grace_wait_percent,
        closes=False,
    )


def _is_requested(record: ChannelRecord) -> bool:
    return record.chain.status is ChannelStatus.CLOSING


def _is_open(record: ChannelRecord) -> bool:
    return record.chain.status is ChannelStatus.OPEN and not record.closes_begun


def _chunks(records: Sequence[ChannelRecord], size: int) -> Iterator[Sequence[ChannelRecord]]:
    for start in range(0, len(records), size):
        yield records[start : start + size]
