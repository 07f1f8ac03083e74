"""Taking the money: closes and settlements as transactions, and what came of them in the books.

All of them, whoever asks, go through the journal of one
:class:`~channelpay.chain.outgoing.TransactionSender`: its ``purpose`` names the channels, so that
whoever comes after a crash knows what is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType

from channelpay.chain.events import ChannelClosed, events_in
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.preparation import fee_market
from channelpay.chain.types import ContractCall, Trial
from channelpay.errors import (
    ChannelPayError,
    MethodUnsupported,
    NetworkError,
    StoreUnavailable,
)
from channelpay.observe import Observer
from channelpay.payee.chain_link import ChainLink, ends_in, with_end
from channelpay.payee.policy import Kind, gas_money_needed
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.transactions import Outgoing
from channelpay.protocol.types import Channel, ChannelId, ChannelState, ChannelStatus, Voucher
from channelpay.store import ChainView, Store

VIEWS_MAX = 100
"""Channels asked about in one call."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a confirmed close or settlement did to one channel: the channel after it, what was paid
    out (base units), the transaction (32 bytes) and this channel's share of its fee.
    """

    record: ChannelRecord
    amount: int
    transaction_hash: bytes
    fee_wei: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A channel in the books, and what the chain says of it now, confirmed or not."""

    record: ChannelRecord
    chain: ChannelState

    @property
    def is_payable(self) -> bool:
        """Whether the contract would take the voucher to settle with."""
        voucher = self.record.voucher
        amount = 0 if voucher is None else voucher.cumulative_amount
        return self.chain.settled < amount <= self.chain.deposit


@dataclass(frozen=True, slots=True)
class Work:
    """What a transaction of the journal does."""

    kind: Kind
    channel_ids: tuple[ChannelId, ...]

    @property
    def purpose(self) -> str:
        return " ".join([self.kind.value, *(one.hex() for one in self.channel_ids)])

    @classmethod
    def of(cls, outgoing: Outgoing) -> Work | None:
        """None for a transaction that is no close or settlement."""
        kind, *names = outgoing.purpose.split()
        if kind not in {*Kind}:
            return None
        return cls(Kind(kind), tuple(ChannelId(bytes.fromhex(name)) for name in names))


class Closer:
    """Closes and settles with the account of ``sender``, which pays the gas.

    Only the payee's own account can close; any can settle. Threads may share a closer.
    """

    def __init__(
        self,
        link: ChainLink,
        sender: TransactionSender,
        store: Store,
        observer: Observer | None = None,
    ) -> None:
        self.link = link
        self.sender = sender
        self.store = store
        self._observer = observer or Observer()
        self._hasher = VoucherHasher(link.contract.deployment)
        self._sent: dict[int, tuple[ChannelRecord, ...]] = {}
        self._lock = Lock()

    def close(self, record: ChannelRecord, voucher: Voucher | None = None) -> Taken:
        """Settle with ``voucher`` if it covers what was spent (else with the best one held), refund
        the rest, finalize; returns once that is confirmed. The signature was checked before.

        From here on no worker takes a voucher on the channel, and none does so again unless this
        transaction certainly failed: one that is not confirmed may be mined at any time. Where a
        close is under way already, that one is waited for. Raises
        :class:`~channelpay.errors.MethodUnsupported` while gas money is low, and what :meth:`send`
        and :meth:`wait` raise.
        """
        under_way = self._close_under_way(record.channel_id)
        if under_way is not None:
            closed = {one.record.channel_id: one for one in self.wait(under_way)}
            return closed[record.channel_id]
        self._require_gas_money()
        begun = self.store.begin_close(record.channel_id, voucher).result()
        covers = voucher is not None and voucher.cumulative_amount >= begun.spent
        last = voucher if covers else begun.voucher
        try:
            (taken,) = self.wait(self._send_close(begun, last))
        except ChannelPayError:
            # What the books said of the channel was wrong, maybe.
            with suppress(NetworkError):
                self.look([begun])
            raise
        return taken

    def send(self, kind: Kind, records: Sequence[ChannelRecord], urgency: float = 0.0) -> Outgoing:
        """Journal and broadcast one transaction for channels of one payee and token.

        Raises what :meth:`~channelpay.chain.outgoing.TransactionSender.send` raises, and what
        :meth:`~channelpay.protocol.eip712.VoucherHasher.check` raises for the vouchers. Then
        nothing was sent, unless it is :class:`~channelpay.errors.StoreUnavailable`.
        """
        if kind is Kind.SETTLE:
            return self._send(kind, records, self._settling_call(records), urgency)
        begun = [self._begun(record) for record in records]
        with self._taken_back(begun):
            return self._send(kind, begun, self._closing_call(begun), urgency)

    def trial(self, kind: Kind, records: Sequence[ChannelRecord]) -> Trial:
        """What the transaction of :meth:`send` would use and cost now. Nothing is begun, signed or
        sent; raises what :meth:`send` raises before that.
        """
        calling = self._settling_call if kind is Kind.SETTLE else self._closing_call
        return self.sender.trial(calling(records))

    def wait(self, outgoing: Outgoing) -> list[Taken]:
        """Wait until it is confirmed.

        Raises :class:`~channelpay.errors.ChainReverted` if it failed, and
        :class:`~channelpay.chain.sender.NotConfirmed` when it takes too long.
        """
        try:
            receipt = self.sender.wait(outgoing.number)
        except ChannelPayError as error:
            self.failed(outgoing, error.code)
            raise
        return self.finish(outgoing, receipt.transaction_hash, receipt.fee_wei)

    def finish(self, outgoing: Outgoing, transaction_hash: bytes, fee_wei: int) -> list[Taken]:
        """Enter what became of the channels of a transaction that ended."""
        work = Work.of(outgoing)
        if work is None:
            return []
        with self._lock:
            sent = self._sent.pop(outgoing.number, None)
        before = sent or self._known(work.channel_ids)
        share, rest = divmod(fee_wei, max(1, len(before)))
        taken = []
        after = self.look(before, self._ends(transaction_hash))
        for index, (old, seen) in enumerate(zip(before, after, strict=True)):
            fee = share + (rest if index == 0 else 0)
            amount = max(0, seen.chain.settled - old.chain.settled)
            taken.append(Taken(seen.record, amount, transaction_hash, fee))
        if sent is not None:
            self._observe(work.kind, taken)
        return taken

    def failed(self, outgoing: Outgoing, code: str) -> None:
        """A transaction did not do what it was for: what the books said was wrong, then. Closes
        stay begun: a :class:`~channelpay.payee.settler.Settler` decides what is to be done.
        """
        work = Work.of(outgoing)
        if work is None:
            return
        with self._lock:
            sent = self._sent.pop(outgoing.number, None)
        if sent is not None:
            self._observe_failure(work.kind, code)
        with suppress(NetworkError):
            self.look(self._known(work.channel_ids))

    def give_up(self, record: ChannelRecord) -> None:
        """One close of this channel that was begun will certainly not be mined."""
        if record.closes_begun and record.chain.status is not ChannelStatus.FINALIZED:
            self.store.close_failed(record.channel_id).result()

    def _ends(self, transaction_hash: bytes) -> dict[ChannelId, ChannelClosed]:
        receipt = self.sender.connection.receipt(transaction_hash)
        return {} if receipt is None else ends_in(events_in(receipt, self.link.contract))

    def look(
        self,
        records: Sequence[ChannelRecord],
        ends: Mapping[ChannelId, ChannelClosed] = MappingProxyType({}),
    ) -> list[Seen]:
        """Ask the chain about channels, and enter what it says. ``ends`` are those that are known
        from its log; others of which it forgot the amounts are left to who reads all of that.

        A top-up that has too few confirmations for the site does not count in the books.
        """
        found: list[Seen] = []
        for start in range(0, len(records), VIEWS_MAX):
            some = records[start : start + VIEWS_MAX]
            views = self.link.views([record.channel for record in some])
            for record, view in zip(some, views, strict=True):
                seen = with_end(view, ends.get(record.channel_id))
                found.append(Seen(self._entered(record, seen), seen.state))
        return found

    def _entered(self, record: ChannelRecord, view: ChainView) -> ChannelRecord:
        if view.state.is_forgotten:
            return record
        return self.store.update_chain(record.channel_id, view).result()

    def require_good(self, record: ChannelRecord) -> None:
        """Raise what :meth:`~channelpay.protocol.eip712.VoucherHasher.check` raises, if the best
        voucher of the books is not one that the contract takes.
        """
        if record.voucher is not None:
            self._hasher.with_right_v(record.voucher, record.channel.signer)

    def _require_gas_money(self) -> None:
        """Whoever opens a channel may ask for its close, which costs the payee more gas than the
        payer. What is left at the end is for those who can withdraw if they get no answer.
        """
        connection = self.sender.connection
        needed = gas_money_needed(fee_market(connection).price_wei)
        if connection.balance_wei(self.sender.address) < needed:
            raise MethodUnsupported(
                "this payee cannot afford to close channels on request now",
                hint="Request the close on chain; the payee settles within the grace period.",
            )

    def _close_under_way(self, channel_id: ChannelId) -> Outgoing | None:
        for outgoing in self.store.pending(self.sender.connection.chain_id, self.sender.address):
            work = Work.of(outgoing)
            if work is not None and work.kind is Kind.CLOSE and channel_id in work.channel_ids:
                return outgoing
        return None

    def _begun(self, record: ChannelRecord) -> ChannelRecord:
        """A close that was begun and not finished goes on; another one is begun."""
        if record.closes_begun:
            return record
        return self.store.begin_close(record.channel_id, None).result()

    @contextmanager
    def _taken_back(self, begun: Sequence[ChannelRecord]) -> Iterator[None]:
        """Closes that were begun and certainly not sent are not begun."""
        try:
            yield
        except StoreUnavailable:
            raise
        except ChannelPayError:
            for record in begun:
                self.store.close_failed(record.channel_id).result()
            raise

    def _send_close(self, begun: ChannelRecord, last: Voucher | None) -> Outgoing:
        with self._taken_back([begun]):
            call = self._close_of_one(begun, last)
            return self._send(Kind.CLOSE, [begun], call, 0.0)

    def _send(
        self, kind: Kind, records: Sequence[ChannelRecord], call: ContractCall, urgency: float
    ) -> Outgoing:
        work = Work(kind, tuple(record.channel_id for record in records))
        try:
            outgoing = self.sender.send(call, work.purpose, urgency=urgency)
        except ChannelPayError as error:
            self._observe_failure(kind, error.code)
            raise
        with self._lock:
            self._sent[outgoing.number] = tuple(records)
        return outgoing

    def _settling_call(self, records: Sequence[ChannelRecord]) -> ContractCall:
        rows = [self._row(record) for record in records]
        if len(rows) == 1:
            ((channel, voucher),) = rows
            amount = voucher.cumulative_amount
            return self.link.contract.settle(channel, amount, voucher.signature)
        channel = records[0].channel
        return self.link.contract.settle_batch(channel.payee, channel.token, rows)

    def _closing_call(self, records: Sequence[ChannelRecord]) -> ContractCall:
        if len(records) == 1:
            return self._close_of_one(records[0], records[0].voucher)
        rows = [self._row(record) for record in records]
        return self.link.contract.close_batch(records[0].channel.token, rows)

    def _close_of_one(self, record: ChannelRecord, last: Voucher | None) -> ContractCall:
        if last is None:
            return self.link.contract.close(record.channel)
        last = self._hasher.with_right_v(last, record.channel.signer)
        return self.link.contract.close(record.channel, last.cumulative_amount, last.signature)

    def _row(self, record: ChannelRecord) -> tuple[Channel, Voucher]:
        voucher = record.voucher
        assert voucher is not None  # who plans takes only channels with something unsettled
        return record.channel, self._hasher.with_right_v(voucher, record.channel.signer)

    def _known(self, channel_ids: Sequence[ChannelId]) -> tuple[ChannelRecord, ...]:
        found = (self.store.record(channel_id) for channel_id in channel_ids)
        return tuple(record for record in found if record is not None)

    def _observe_failure(self, kind: Kind, code: str) -> None:
        if kind is Kind.CLOSE:
            self._observer.close_failed(code)
        else:
            self._observer.settle_failed(code)

    def _observe(self, kind: Kind, taken: Sequence[Taken]) -> None:
        self._observer.gas_paid(sum(one.fee_wei for one in taken))
        for one in taken:
            tell = self._observer.closed if kind is Kind.CLOSE else self._observer.settled
            if one.amount or kind is Kind.CLOSE:
                tell(one.record.channel.token, one.amount)
