"""Where each unit of a channel's deposit is, and what happens next: from the books alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from channelpay.payer.records import PayerChannel
from channelpay.protocol.types import ChannelStatus


@dataclass(frozen=True, slots=True)
class Money:
    """The parts of a deposit, in base units of the token; together they are the whole.

    ``settled`` was paid to the payee on chain; ``promised`` is what vouchers let it take beyond
    that. The rest is ``available`` for vouchers, ``in_grace`` after a requested close, then
    ``withdrawable`` (and with it what the payee did not take of its promise), then ``withdrawn``.
    """

    settled: int
    promised: int = 0
    available: int = 0
    in_grace: int = 0
    withdrawable: int = 0
    withdrawn: int = 0


class Next(StrEnum):
    """What becomes of a channel."""

    CONFIRM = "confirm"
    """Its open may still be mined."""
    ASK = "ask"
    """The books are in doubt: the payee is asked before more is signed."""
    PAY = "pay"
    """It pays, until somebody closes it."""
    REQUEST_CLOSE = "request-close"
    """The payee refuses it or is silent: the payer can end it alone."""
    WITHDRAW = "withdraw"
    """The rest of the deposit can be taken back, from a moment on."""
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Standing:
    """A channel at one moment: ``next`` happens from ``at`` on (Unix seconds; None: any time)."""

    money: Money
    next: Next
    at: int | None = None


def standing_of(entry: PayerChannel, now: float) -> Standing:
    """How a channel stands at ``now`` (Unix seconds, the chain's where that is known)."""
    deposit, settled = entry.deposit, entry.settled
    promised = max(0, entry.signed - settled)
    match entry.status:
        case ChannelStatus.ABSENT:
            return Standing(Money(0, available=deposit), Next.CONFIRM)
        case ChannelStatus.FINALIZED:
            return Standing(Money(settled, withdrawn=deposit - settled), Next.NOTHING)
        case ChannelStatus.CLOSING if now >= (entry.withdrawable_at or 0):
            money = Money(settled, withdrawable=deposit - settled)
            return Standing(money, Next.WITHDRAW, entry.withdrawable_at)
        case ChannelStatus.CLOSING:
            money = Money(settled, promised, in_grace=deposit - settled - promised)
            return Standing(money, Next.WITHDRAW, entry.withdrawable_at)
        case ChannelStatus.OPEN:
            money = Money(settled, promised, available=deposit - settled - promised)
            return Standing(money, _next_of_open(entry))


def _next_of_open(entry: PayerChannel) -> Next:
    if entry.refused is not None or entry.unanswered:
        return Next.REQUEST_CLOSE
    return Next.ASK if entry.in_doubt else Next.PAY
