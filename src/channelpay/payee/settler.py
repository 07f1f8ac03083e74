"""Doing what the settlement policy says: begins what is due, follows what is under way, and sends
again what nobody knows the fate of.

Everything it knows is in the books and on the chain: a settler that is killed at any moment is
followed by another one that goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from logging import getLogger

from channelpay.errors import (
    BudgetExceeded,
    ChainReverted,
    ChannelPayError,
    InsufficientFunds,
    PaymentRefused,
)
from channelpay.observe import Observer
from channelpay.observe.alerts import Alert, AlertName, Alerts
from channelpay.payee.closer import Closer, Seen, Taken, Work
from channelpay.payee.policy import Kind, Moment, Plan, SettlementPolicy, gas_money_needed
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.protocol.transactions import Outgoing, TransactionStatus
from channelpay.protocol.types import Address, ChannelId, ChannelStatus

UNFINISHED_SECONDS = 10.0
"""A close that was begun and is in no transaction is sent after this: the one who began it may be
about to send it.
"""
REST_SECONDS = 60.0
"""A channel that could not be settled is tried again after this."""
PLANNING_SECONDS = 15.0
"""How often what nobody waits for is planned."""
JOURNAL_LOOKED_BACK = 1_000
_OF_A_ROW = (ChainReverted, InsufficientFunds, PaymentRefused)
"""What one channel of a batch can be the cause of."""
_log = getLogger(__name__)

Check = Callable[[], None]
"""Raises if this process may no longer work."""


@dataclass(frozen=True, slots=True)
class Untaken:
    """A channel that was to be settled or closed, and why it was not."""

    record: ChannelRecord
    error: ChannelPayError


class Settler:
    """Settles and closes the channels of one payee. For one thread.

    ``policy`` says when; ``closer`` has the account that pays the gas. Channels of other payees and
    contracts in the same books are left alone.
    """

    def __init__(
        self,
        closer: Closer,
        payee: Address,
        policy: SettlementPolicy,
        alerts: Alerts,
        observer: Observer | None = None,
    ) -> None:
        self._closer = closer
        self._payee = payee
        self._policy = policy
        self._alerts = alerts
        self._observer = observer or Observer()
        self._deployment = closer.link.contract.deployment
        self._connection = closer.link.contract.connection
        self._closes = closer.sender.address == payee
        self._ours: dict[ChannelId, bool] = {}
        self._followed: dict[int, Outgoing] = {}
        self._refused: set[ChannelId] = set()
        self._resting: dict[ChannelId, float] = {}
        self._unfinished: dict[ChannelId, float] = {}
        self._plan_at = time.monotonic()
        self._thrifty = False
        self._check: Check = lambda: None

    def step(self, check: Check = lambda: None) -> None:
        """Look after what is under way, and begin what is due. ``check`` is asked before every
        transaction.

        Raises :class:`~channelpay.errors.NetworkError` if the node or the books fail, and what
        ``check`` raises; the next step goes on where this one stopped.
        """
        self._check = check
        check()
        if (self._followed or self.pending()) and not self._look_after():
            return
        owed = self._owed()
        if not owed:
            self._all_is_well()
        elif self._is_time(owed):
            self._begin_due(owed)

    def stand_by(self) -> None:
        """Another process settles: what is under way and what is wrong is its business."""
        self._followed.clear()
        self._all_is_well()

    def plan(self) -> list[Plan]:
        """What the next step would begin, without doing it; the books need not have followed."""
        owed = self._owed()
        return self._fresh(owed, owed, self.moment()) if owed else []

    def asked(self, records: Sequence[ChannelRecord], kind: Kind) -> list[Plan]:
        """The transactions that do ``kind`` with these channels, whatever the policy says."""
        return self._policy.asked(records, kind, self.moment()) if records else []

    def take(self, plan: Plan) -> Iterator[Taken | Untaken]:
        """Carry a plan out and wait for it. One channel that fails does not stop the others."""
        try:
            yield from self._closer.wait(self._closer.send(plan.kind, plan.records, plan.urgency))
        except ChannelPayError as error:
            if len(plan.records) > 1 and isinstance(error, _OF_A_ROW):
                for smaller in _singles(plan):
                    yield from self.take(smaller)
            else:
                yield from (Untaken(record, error) for record in plan.records)

    def take_pending(self, records: Sequence[ChannelRecord]) -> Iterator[Taken | Untaken]:
        """Wait for what is under way for these channels, whoever began it."""
        wanted = {record.channel_id for record in records}
        for outgoing in self.pending():
            work = Work.of(outgoing)
            if work is None or wanted.isdisjoint(work.channel_ids):
                continue
            try:
                yield from self._closer.wait(outgoing)
            except ChannelPayError as error:
                yield from (Untaken(one, error) for one in self._records(work.channel_ids))

    def moment(self) -> Moment:
        """Now, for the policy; asks the node."""
        now = time.time()
        head = self._connection.latest_block()
        return Moment(
            time_ms=int(now * 1000),
            chain_seconds=max(head.timestamp, int(now)),
            grace_seconds=self._closer.link.grace_seconds,
            base_fee_wei=self._connection.next_base_fee_wei(),
            tip_wei=self._connection.suggested_tip_wei(),
        )

    @property
    def has_work(self) -> bool:
        """Whether something is under way that the next steps have to look after."""
        return bool(self._followed or self._unfinished)

    def pending(self) -> list[Outgoing]:
        """The transactions of the account that are under way, by nonce."""
        sender = self._closer.sender.address
        return self._closer.store.pending(self._deployment.chain_id, sender)

    # --- what is under way ---------------------------------------------------------------------

    def _look_after(self) -> bool:
        """Push what is pending, enter what ended; False if the account cannot pay for it."""
        pending = self.pending()
        self._followed |= {outgoing.number: outgoing for outgoing in pending}
        urgencies = self._urgencies(pending)
        try:
            ended = self._closer.sender.step(lambda outgoing: urgencies.get(outgoing.number, 0.0))
        except InsufficientFunds as error:
            return self._without_gas_money(error)
        over = {outgoing.number: outgoing for outgoing in ended}
        left = {outgoing.number for outgoing in self.pending()}
        if missed := self._followed.keys() - left - over.keys():
            # Whoever waited for them saw their end first.
            newest = self._closer.store.transactions(JOURNAL_LOOKED_BACK)
            over |= {one.number: one for one in newest if one.number in missed}
        for outgoing in over.values():
            self._enter(outgoing)
        for number in self._followed.keys() - left:
            del self._followed[number]
        return True

    def _urgencies(self, pending: Sequence[Outgoing]) -> dict[int, float]:
        """By number. A transaction is as urgent as the most urgent one that has to wait for it."""
        if not pending:
            return {}
        moment = self.moment()
        urgencies, highest = {}, 0.0
        for outgoing in reversed(pending):
            work = Work.of(outgoing)
            records = [] if work is None else self._records(work.channel_ids)
            own = (self._policy.urgency(record, moment) for record in records)
            highest = max([highest, *own])
            urgencies[outgoing.number] = highest
        return urgencies

    def _enter(self, outgoing: Outgoing) -> None:
        """A transaction ended: what came of it."""
        work = Work.of(outgoing)
        if work is None:
            return
        about = str(outgoing.number)
        if outgoing.status is TransactionStatus.CONFIRMED and outgoing.mined is not None:
            taken = self._closer.finish(outgoing, outgoing.mined, outgoing.fee_wei or 0)
            for one in taken:
                _log.info("%s: %d taken", work.kind.value, one.amount, extra=_facts(one.record))
                self._rest_if_passed_over(one, work.kind)
            return
        self._after_failure(outgoing, work)
        text = f"a transaction to {work.kind.value} {len(work.channel_ids)} channels failed"
        facts: dict[str, str | int] = {"number": about, "channels": len(work.channel_ids)}
        if outgoing.mined is not None:
            facts["txHash"] = to_hex(outgoing.mined)
        self._alerts.begin(Alert(AlertName.TRANSACTION_FAILED, text, facts, about))

    def _rest_if_passed_over(self, taken: Taken, kind: Kind) -> None:
        """A batch skips a row that brings nothing, and succeeds: sent again and again, it would
        cost its gas each time. A close stays begun, since the node may only be late to tell of it.
        """
        record = taken.record
        if kind is Kind.CLOSE and record.chain.status is not ChannelStatus.FINALIZED:
            self._refused.add(record.channel_id)
            _log.warning("a close was passed over", extra=_facts(record))
        if taken.amount == 0:
            self._rest(record)

    def _after_failure(self, outgoing: Outgoing, work: Work) -> None:
        """It will never be mined, or was and did nothing though its trial went well: not at once
        again, and a close not at all if the payer's wallet may be what refused it.
        """
        self._closer.failed(outgoing, ChainReverted.code)
        for record in self._records(work.channel_ids):
            self._rest(record)
            if work.kind is Kind.CLOSE:
                self._closer.give_up(record)
                if outgoing.mined is not None:
                    self._refused.add(record.channel_id)

    def _records(self, channel_ids: Sequence[ChannelId]) -> list[ChannelRecord]:
        found = (self._closer.store.record(channel_id) for channel_id in channel_ids)
        return [record for record in found if record is not None]

    # --- what is due ---------------------------------------------------------------------------

    def _owed(self) -> list[ChannelRecord]:
        return [record for record in self._closer.store.owed() if self._is_ours(record)]

    def _is_time(self, owed: Sequence[ChannelRecord]) -> bool:
        """Whether to plan now: at once where somebody waits, else from time to time, since planning
        asks the node.
        """
        now = time.monotonic()
        waits = any(
            record.closes_begun or record.chain.status is ChannelStatus.CLOSING for record in owed
        )
        if not waits and now < self._plan_at:
            return False
        self._plan_at = now + PLANNING_SECONDS
        return True

    def _begin_due(self, owed: Sequence[ChannelRecord]) -> None:
        moment = self.moment()
        self._warn(owed, moment)
        plans = self._plans(owed, self._busy(owed), moment)
        if not plans:
            self._alerts.end(AlertName.NO_GAS_MONEY)
            return
        # What a reorganisation took back is on its way again, and is not to be sent twice.
        if self._look_after():
            planned = [record for plan in plans for record in plan.records]
            all(self._begin(plan) for plan in self._fresh(planned, owed, moment))

    def _is_ours(self, record: ChannelRecord) -> bool:
        """Books may hold channels of another payee or contract."""
        ours = self._ours.get(record.channel_id)
        if ours is None:
            genuine = record.channel.id(self._deployment) == record.channel_id
            ours = genuine and record.channel.payee == self._payee
            self._ours[record.channel_id] = ours
        return ours

    def _under_way(self) -> set[ChannelId]:
        """The channels of pending transactions."""
        works = (Work.of(outgoing) for outgoing in self.pending())
        return {one for work in works if work is not None for one in work.channel_ids}

    def _busy(self, owed: Sequence[ChannelRecord]) -> set[ChannelId]:
        """The channels that are left alone this time."""
        now, under_way = time.monotonic(), self._under_way()
        unfinished = {
            record.channel_id
            for record in owed
            if record.closes_begun and record.channel_id not in under_way
        }
        self._unfinished = {one: self._unfinished.get(one, now) for one in unfinished}
        fresh = {one for one, at in self._unfinished.items() if now - at < UNFINISHED_SECONDS}
        self._resting = {one: until for one, until in self._resting.items() if now < until}
        return under_way | fresh | self._resting.keys()

    def _plans(
        self, owed: Sequence[ChannelRecord], busy: AbstractSet[ChannelId], moment: Moment
    ) -> list[Plan]:
        return self._policy.plan(
            owed,
            moment,
            busy=busy,
            closes=self._closes,
            refused=self._refused,
            thrifty=self._thrifty,
        )

    def _fresh(
        self, planned: Sequence[ChannelRecord], owed: Sequence[ChannelRecord], moment: Moment
    ) -> list[Plan]:
        """The plans for what the chain says at this moment: the books may be a block behind, and a
        row that brings nothing costs gas all the same.
        """
        seen = self._closer.look(planned)
        useless = {one.record.channel_id for one in seen if not self._is_usable(one)}
        fresh = {one.record.channel_id: one.record for one in seen}
        known = [fresh.get(record.channel_id, record) for record in owed]
        return self._plans(known, self._busy(known) | useless, moment)

    def _is_usable(self, seen: Seen) -> bool:
        record = seen.record
        try:
            self._closer.require_good(record)
        except PaymentRefused as error:
            self._rest(record)
            text = f"the best voucher of a channel is void: {error.detail}"
            about = to_hex(record.channel_id)
            self._alerts.begin(Alert(AlertName.BAD_VOUCHER, text, _facts(record), about))
            return False
        over = seen.chain.status in {ChannelStatus.ABSENT, ChannelStatus.FINALIZED}
        return not over and (seen.is_payable or record.closes_begun > 0)

    def _begin(self, plan: Plan) -> bool:
        """Send it, or what is left of it where that fails; False if nothing can be sent now."""
        self._check()
        try:
            outgoing = self._closer.send(plan.kind, plan.records, plan.urgency)
        except InsufficientFunds as error:
            return self._with_less_gas(plan, error)
        except ChainReverted as error:
            return self._after_refusal(plan, error)
        except BudgetExceeded as error:
            _log.warning("%s has to wait: %s", plan.kind.value, error.detail)
            return True
        self._followed[outgoing.number] = outgoing
        self._alerts.end(AlertName.NO_GAS_MONEY)
        _log.info(
            "%s of %d channels: %s",
            plan.kind.value,
            len(plan.records),
            plan.reason.value,
            extra={"nonce": outgoing.nonce, "value": plan.value},
        )
        return True

    def _with_less_gas(self, plan: Plan, error: InsufficientFunds) -> bool:
        """A batch reserves more gas than it uses: one channel after the other may still do."""
        if len(plan.records) > 1:
            middle = len(plan.records) // 2
            halves = (plan.records[:middle], plan.records[middle:])
            return all(self._begin(plan.part(half, plan.kind)) for half in halves)
        return self._without_gas_money(error)

    def _without_gas_money(self, error: InsufficientFunds) -> bool:
        text = f"nothing is settled and no close is answered: {error.detail}"
        self._alerts.begin(Alert(AlertName.NO_GAS_MONEY, text))
        return False

    def _after_refusal(self, plan: Plan, error: ChainReverted) -> bool:
        """The contract would refuse it. A payer's wallet can make every close of its channel fail:
        it is not to keep what it owes, nor to hold up others.
        """
        if len(plan.records) > 1:
            return all(self._begin(one) for one in _singles(plan))
        (record,) = plan.records
        if plan.kind is Kind.CLOSE:
            self._refused.add(record.channel_id)
            _log.warning("a close is refused: %s", error.detail, extra=_facts(record))
            return not plan.value or self._begin(plan.part(plan.records, Kind.SETTLE))
        self._rest(record)
        text = f"a channel cannot be settled: {error.detail}"
        about = to_hex(record.channel_id)
        self._alerts.begin(Alert(AlertName.TRANSACTION_FAILED, text, _facts(record), about))
        return True

    def _rest(self, record: ChannelRecord) -> None:
        self._resting[record.channel_id] = time.monotonic() + REST_SECONDS

    # --- what is told --------------------------------------------------------------------------

    def _warn(self, owed: Sequence[ChannelRecord], moment: Moment) -> None:
        balance = self._connection.balance_wei(self._closer.sender.address)
        self._observer.gas_money(balance, len(self._followed))
        needed = gas_money_needed(moment.gas_price_wei)
        # Else many requests for closes that bring nothing would use it up before one that does.
        self._thrifty = balance < needed
        if self._thrifty:
            text = f"the account has {balance} wei for gas; {needed} wei would be safe"
            self._alerts.begin(Alert(AlertName.GAS_MONEY_LOW, text))
        else:
            self._alerts.end(AlertName.GAS_MONEY_LOW)
        late = [record for record in owed if self._policy.urgency(record, moment) > 0]
        for record in late:
            text = "the grace period of a channel ends soon, and it is not settled"
            about = to_hex(record.channel_id)
            self._alerts.begin(Alert(AlertName.DEADLINE_NEAR, text, _facts(record), about))
        still = {to_hex(record.channel_id) for record in owed}
        self._alerts.end_others(
            AlertName.DEADLINE_NEAR, [to_hex(record.channel_id) for record in late]
        )
        for name in (AlertName.TRANSACTION_FAILED, AlertName.BAD_VOUCHER):
            self._alerts.end_others(name, [*still])

    def _all_is_well(self) -> None:
        """Nothing is owed."""
        self._unfinished.clear()
        for name in (
            AlertName.NO_GAS_MONEY,
            AlertName.GAS_MONEY_LOW,
            AlertName.DEADLINE_NEAR,
            AlertName.TRANSACTION_FAILED,
            AlertName.BAD_VOUCHER,
        ):
            self._alerts.end_others(name, ())


def _singles(plan: Plan) -> list[Plan]:
    return [plan.part([record], plan.kind) for record in plan.records]


def _facts(record: ChannelRecord) -> dict[str, str]:
    """What a log line or an alert is about."""
    return {"channelId": to_hex(record.channel_id)}
