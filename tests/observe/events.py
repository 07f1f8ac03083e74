"""A payee's events to observe, without a payee."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from channelpay.errors import StoreUnavailable
from channelpay.observe import Answered, Observer, Outcome
from channelpay.protocol.types import NATIVE, Address, ChannelId

DOLLAR_ADDRESS = Address(bytes.fromhex("a1" * 20))
CHANNEL_ID = ChannelId(bytes.fromhex("c4" * 32))


@dataclass(frozen=True, slots=True)
class Coin:
    """What the terms say of a token."""

    address: Address
    symbol: str
    decimals: int


DOLLAR = Coin(DOLLAR_ADDRESS, "TUSD", 6)
ETHER = Coin(NATIVE, "ETH", 18)


@dataclass
class BooksOfNumbers:
    """Says what it is told to say, and counts how often it is asked."""

    waiting_now: int = 0
    unsettled_now: dict[Address, int] = field(default_factory=dict)
    fails: bool = False
    waiting_asked: int = 0
    unsettled_asked: int = 0

    @property
    def waiting(self) -> int:
        self.waiting_asked += 1
        return self.waiting_now

    def unsettled(self) -> Mapping[Address, int]:
        self.unsettled_asked += 1
        if self.fails:
            raise StoreUnavailable("the books are closed")
        return self.unsettled_now


def answered(outcome: Outcome = Outcome.PAID, **changes: object) -> Answered:
    facts: dict[str, object] = {
        "method": "GET",
        "path": "/page",
        "status": 200,
        "outcome": outcome,
        "seconds": 0.002,
    }
    return Answered(**(facts | changes))  # type: ignore[arg-type]


def every_event(observer: Observer) -> None:
    """Each event once, after ``started``."""
    observer.accepted(DOLLAR_ADDRESS)
    observer.refused("insufficient-balance")
    observer.charged(DOLLAR_ADDRESS, 2_500_000)
    observer.released(DOLLAR_ADDRESS, 500_000)
    observer.verified(0.00004)
    observer.committed(3, 0.0002)
    observer.answered(answered())
    observer.opened(NATIVE, 1_500_000_000_000_000_000)
    observer.topped_up(NATIVE, 500_000_000_000_000_000)
    observer.closed(NATIVE, 250_000_000_000_000_000)
    observer.close_failed("network")
    observer.settled(NATIVE, 500_000_000_000_000_000)
    observer.settle_failed("transaction-reverted")
    observer.followed(90)
    observer.follow_failed("wrong-chain")
    observer.worked(works=True)
    observer.gas_paid(30_000_000_000_000_000)
    observer.gas_money(1_250_000_000_000_000_000, 2)
    observer.alerted("deadline-near", began=True, active=True)


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)
