"""Taking the money: close or settle a channel on chain, and enter what came of it.

Every method blocks until the transaction is confirmed. Raises
:class:`~channelpay.errors.ChainReverted`, :class:`~channelpay.errors.InsufficientFunds` (gas) and
:class:`~channelpay.errors.NetworkError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from channelpay.chain.sender import NotConfirmed, Sender
from channelpay.chain.types import ContractCall, TransactionReceipt
from channelpay.errors import ChannelPayError, PaymentRefused
from channelpay.observe import Observer
from channelpay.payee.chain_link import ChainLink, with_deposit
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.types import Voucher
from channelpay.store import Store


@dataclass(frozen=True, slots=True)
class Taken:
    """A confirmed close or settlement: the channel after it, and its transaction (32 bytes)."""

    record: ChannelRecord
    transaction_hash: bytes


class Closer:
    """Closes and settles with the payee's account, which pays the gas."""

    def __init__(
        self, link: ChainLink, sender: Sender, store: Store, observer: Observer | None = None
    ) -> None:
        self._link = link
        self._sender = sender
        self._store = store
        self._observer = observer or Observer()
        self._hasher = VoucherHasher(link.contract.deployment)

    def close(self, record: ChannelRecord, voucher: Voucher | None = None) -> Taken:
        """Settle with ``voucher`` if it covers what was spent (else with the best one held), refund
        the rest, finalize. The signature was checked before.

        From here on no worker takes a voucher on the channel, and none does so again unless this
        transaction certainly failed: one that is not confirmed may be mined at any time. Raises
        also what :func:`channelpay.protocol.rules.begin_close` raises; then nothing was sent.
        """
        begun = self._store.begin_close(record.channel_id, voucher).result()
        covers = voucher is not None and voucher.cumulative_amount >= begun.spent
        last = voucher if covers else begun.voucher
        try:
            taken = self._take(begun, lambda: self._send_close(begun, last))
        except ChannelPayError as error:
            self._observer.close_failed(error.code)
            raise
        self._observer.closed(record.channel.token, _paid_out(begun, taken))
        return taken

    def settle(self, record: ChannelRecord) -> Taken:
        """Take what the best voucher promises; the channel stays as it is."""
        if record.accepted <= record.chain.settled:
            raise PaymentRefused("no voucher promises more than what is settled already")
        assert record.voucher is not None  # accepted is above zero
        best = self._hasher.with_right_v(record.voucher, record.channel.signer)
        call = self._link.contract.settle(record.channel, record.accepted, best.signature)
        try:
            taken = self._take(record, lambda: self._sender.send(call))
        except ChannelPayError as error:
            self._observer.settle_failed(error.code)
            raise
        self._observer.settled(record.channel.token, _paid_out(record, taken))
        return taken

    def _closing_call(self, record: ChannelRecord, last: Voucher | None) -> ContractCall:
        if last is None:
            return self._link.contract.close(record.channel)
        last = self._hasher.with_right_v(last, record.channel.signer)
        return self._link.contract.close(record.channel, last.cumulative_amount, last.signature)

    def _send_close(self, record: ChannelRecord, last: Voucher | None) -> TransactionReceipt:
        try:
            return self._sender.send(self._closing_call(record, last))
        except NotConfirmed:
            raise
        except ChannelPayError:
            self._store.close_failed(record.channel_id).result()
            raise

    def _take(self, record: ChannelRecord, send: Callable[[], TransactionReceipt]) -> Taken:
        try:
            receipt = send()
        finally:
            # Also after a refusal: what the books said of the channel was wrong then.
            updated = self.refreshed(record)
        return Taken(updated, receipt.transaction_hash)

    def refreshed(self, record: ChannelRecord) -> ChannelRecord:
        """The books with what the chain says of this channel now.

        A top-up that has too few confirmations for the site does not count here either.
        """
        (view,) = self._link.views([record.channel])
        # Asking took a while: a top-up may have been entered beside it.
        current = self._store.record(record.channel_id) or record
        view = with_deposit(view, current.chain.deposit)
        return self._store.update_chain(record.channel_id, view).result()


def _paid_out(before: ChannelRecord, taken: Taken) -> int:
    return max(0, taken.record.chain.settled - before.chain.settled)
