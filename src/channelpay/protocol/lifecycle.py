"""The life of a channel as a pure state machine: what the contract does, told the time, without a
chain.

::

    absent --open--> open --request_close--> closing --withdraw (grace over)--> finalized
                      |  <--top_up by payer--  |
                      +------ close by payee --+--> finalized
                 finalized --open with a greater epoch--> open (a new channel id)

Each function takes a :class:`LaneState` and returns the next one, or raises :class:`ChainReverted`
with the error that the contract would revert with. ``settle`` takes vouchers in ``open`` and
``closing`` alike. The rows of a batch are settled or closed one after the other; a row that would
be refused is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from channelpay.errors import ChainReverted
from channelpay.protocol.types import DEPOSIT_MAX, ChannelState, ChannelStatus

CLOSE_REQUEST_TIME_MAX = 2**32 - 2
"""The last Unix second that the contract can note, on 7 February 2106."""


@dataclass(frozen=True, slots=True)
class LaneState:
    """One storage slot of the contract. Amounts in base units, times in Unix seconds."""

    epoch: int
    deposit: int
    settled: int = 0
    close_requested_at: int = 0
    finalized: bool = False

    def view(self, epoch: int) -> ChannelState:
        """The state of the channel of ``epoch`` in this lane, as the contract's ``channelState``
        answers.
        """
        if epoch > self.epoch:
            return ChannelState(ChannelStatus.ABSENT)
        if epoch < self.epoch:
            return ChannelState(ChannelStatus.FINALIZED)
        if self.finalized:
            return ChannelState(ChannelStatus.FINALIZED, self.deposit, self.settled)
        status = ChannelStatus.CLOSING if self.close_requested_at else ChannelStatus.OPEN
        return ChannelState(status, self.deposit, self.settled, self.close_requested_at)


@dataclass(frozen=True, slots=True)
class Payout:
    """What one transition pays out, in base units."""

    to_payee: int = 0
    to_payer: int = 0


def open_channel(lane: LaneState | None, epoch: int, deposit: int) -> LaneState:
    """``open``: a fresh lane takes any epoch, a finalized one only a greater epoch."""
    if lane is not None and not (lane.finalized and lane.epoch < epoch):
        raise ChainReverted(error="ChannelAlreadyExists")
    _check_deposit(deposit, deposit)
    return LaneState(epoch, deposit)


def top_up(lane: LaneState | None, epoch: int, amount: int, *, by_payer: bool) -> LaneState:
    """``topUp``: the payer's own takes a pending close request back. Not ``by_payer`` are those of
    a stranger and all that are relayed with a signature, which may be older than the request.
    """
    live = _live(lane, epoch)
    deposit = live.deposit + amount
    _check_deposit(amount, deposit)
    requested_at = 0 if by_payer else live.close_requested_at
    return replace(live, deposit=deposit, close_requested_at=requested_at)


def settle(lane: LaneState | None, epoch: int, cumulative: int) -> tuple[LaneState, Payout]:
    """``settle`` with a validly signed voucher for ``cumulative``."""
    live = _live(lane, epoch)
    if cumulative <= live.settled:
        raise ChainReverted(error="AmountNotIncreasing")
    if cumulative > live.deposit:
        raise ChainReverted(error="AmountExceedsDeposit")
    return replace(live, settled=cumulative), Payout(to_payee=cumulative - live.settled)


def close(
    lane: LaneState | None, epoch: int, cumulative: int, *, by_payee: bool
) -> tuple[LaneState, Payout]:
    """``close``: settles what the voucher adds, refunds the rest, finalizes."""
    live = _live(lane, epoch)
    if not by_payee:
        raise ChainReverted(error="NotPayee")
    return _close(live, cumulative)


def close_with_authorization(
    lane: LaneState | None, epoch: int, cumulative: int, *, authorized: bool
) -> tuple[LaneState, Payout]:
    """``closeWithAuthorization``: as ``close``, by anyone who has the payee's signature."""
    live = _live(lane, epoch)
    if not authorized:
        raise ChainReverted(error="InvalidAuthorization")
    return _close(live, cumulative)


def request_close(lane: LaneState | None, epoch: int, now: int, *, by_payer: bool) -> LaneState:
    """``requestClose``: repeating it moves nothing; none can start after 32-bit time."""
    live = _live(lane, epoch)
    if not by_payer:
        raise ChainReverted(error="NotPayer")
    if live.close_requested_at:
        return live
    if now > CLOSE_REQUEST_TIME_MAX:
        raise ChainReverted(error="TimeOverflow")
    return replace(live, close_requested_at=now)


def withdraw(
    lane: LaneState | None, epoch: int, now: int, grace_seconds: int, *, by_payer: bool
) -> tuple[LaneState, Payout]:
    """``withdraw``: refunds what was not settled, once the grace period is over."""
    live = _live(lane, epoch)
    if not by_payer:
        raise ChainReverted(error="NotPayer")
    if not live.close_requested_at or now < live.close_requested_at + grace_seconds:
        raise ChainReverted(error="CloseNotReady")
    return replace(live, finalized=True), Payout(to_payer=live.deposit - live.settled)


def _live(lane: LaneState | None, epoch: int) -> LaneState:
    if lane is None or lane.epoch < epoch:
        raise ChainReverted(error="ChannelNotFound")
    if lane.epoch > epoch or lane.finalized:
        raise ChainReverted(error="ChannelFinalized")
    return lane


def _close(live: LaneState, cumulative: int) -> tuple[LaneState, Payout]:
    to_payee = 0
    if cumulative > live.settled:
        live, payout = settle(live, live.epoch, cumulative)
        to_payee = payout.to_payee
    return replace(live, finalized=True), Payout(to_payee, live.deposit - live.settled)


def _check_deposit(amount: int, deposit: int) -> None:
    if amount == 0:
        raise ChainReverted(error="ZeroDeposit")
    if deposit > DEPOSIT_MAX:
        raise ChainReverted(error="DepositOverflow")
