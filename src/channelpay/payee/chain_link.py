"""How the payee learns of channels: what a payer claims, checked against the chain.

Every method blocks on the node; on an event loop it belongs into a thread. All raise
:class:`~channelpay.errors.NetworkError` when the node fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import ChannelOpened, ToppedUp, events_in
from channelpay.chain.types import TransactionReceipt
from channelpay.errors import (
    ChainReverted,
    ChannelNotFound,
    ConfigError,
    NetworkError,
    PaymentRefused,
    TooFewConfirmations,
)
from channelpay.protocol.rules import ChannelRecord, check_live
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import GRACE_SECONDS_MIN, Channel, ChannelId, ChannelStatus
from channelpay.store import ChainView

_READ_ATTEMPTS = 8


class ChainLink:
    """One contract, read for one payee. ``confirmations`` counts the transaction's own block.

    Raises :class:`~channelpay.errors.ConfigError` for a contract whose grace period is shorter than
    ten minutes (draft-evm-session-00, Forced Close).
    """

    def __init__(self, contract: PaymentChannelsContract, confirmations: int = 1) -> None:
        grace_seconds = contract.grace_period_seconds()
        if grace_seconds < GRACE_SECONDS_MIN:
            raise ConfigError(f"the contract's grace period of {grace_seconds} s is too short")
        self.contract = contract
        self.confirmations = confirmations

    def opened(self, channel_id: ChannelId, channel: Channel, transaction_hash: bytes) -> ChainView:
        """The state of a channel that this transaction opened.

        Only the deposit of that transaction counts: a top-up has its own confirmations. Raises
        :class:`ChainReverted`, :class:`TooFewConfirmations`, :class:`ChannelNotFound` if the
        transaction opened another channel or none, and what :func:`check_live` raises.
        """
        receipt = self._succeeded(transaction_hash)
        for event in events_in(receipt, self.contract):
            if isinstance(event, ChannelOpened) and event.channel_id == channel_id:
                break
        else:
            raise ChannelNotFound(
                "the transaction did not open this channel", channelId=to_hex(channel_id)
            )
        (view,) = self.views([channel])
        self._require_confirmations(receipt, view.block)
        check_live(ChannelRecord(channel_id, channel, view.state))
        return with_deposit(view, event.deposit)

    def topped_up(self, record: ChannelRecord, transaction_hash: bytes, amount: int) -> ChainView:
        """The state of a channel to which this transaction added exactly ``amount``."""
        receipt = self._succeeded(transaction_hash)
        for event in events_in(receipt, self.contract):
            if isinstance(event, ToppedUp) and event.channel_id == record.channel_id:
                break
        else:
            raise PaymentRefused("the transaction did not top this channel up")
        if event.amount != amount:
            raise PaymentRefused(f"the transaction added {event.amount}, not {amount}")
        (view,) = self.views([record.channel])
        self._require_confirmations(receipt, view.block)
        return with_deposit(view, max(event.deposit, record.chain.deposit))

    def views(self, channels: Sequence[Channel]) -> list[ChainView]:
        """The states of many channels, all as of one block, which the chain may leave behind
        meanwhile.
        """
        connection = self.contract.connection
        for _ in range(_READ_ATTEMPTS):
            read = connection.latest_block()
            states = self.contract.states(channels, block=read.number)
            if connection.block(read.number) == read:
                return [ChainView(state, read.number) for state in states]
        raise NetworkError("the chain reorganised every time it was read")

    def confirmed_block(self) -> int:
        """The newest block whose events count (-1 if there is none yet)."""
        return self._confirmed_at(self.contract.connection.latest_block().number)

    def _confirmed_at(self, latest: int) -> int:
        return latest - self.confirmations + 1

    def _succeeded(self, transaction_hash: bytes) -> TransactionReceipt:
        receipt = self.contract.connection.receipt(transaction_hash)
        if receipt is None:
            raise TooFewConfirmations("the transaction is not mined yet")
        if not receipt.succeeded:
            raise ChainReverted("the transaction was mined, but it failed")
        return receipt

    def _require_confirmations(self, receipt: TransactionReceipt, block: int) -> None:
        """As of the block that the state was read at."""
        missing = receipt.block_number - self._confirmed_at(block)
        if missing > 0:
            raise TooFewConfirmations(
                f"{self.confirmations} confirmations are needed, {missing} are missing"
            )


def with_deposit(view: ChainView, confirmed: int) -> ChainView:
    """The view with no more deposit than what is confirmed. An absent channel keeps that: after a
    reorganisation its opening is mined again.
    """
    absent = view.state.status is ChannelStatus.ABSENT
    deposit = confirmed if absent else min(view.state.deposit, confirmed)
    return replace(view, state=replace(view.state, deposit=deposit))
