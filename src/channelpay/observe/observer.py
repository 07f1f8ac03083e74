"""What a payee tells of itself while it works: one method per event, none of which does anything.

Whoever wants to know overrides what it needs: metrics
(:class:`~channelpay.observe.metrics.PrometheusObserver`), the access log
(:class:`~channelpay.observe.logs.AccessLog`), both (:class:`Observers`). Events come from the event
loop, the store's writer and the follower alike: a method must be safe on any thread, must not wait
and must not raise, since what it is told of has already happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from channelpay.protocol.types import Address, ChannelId


class Currency(Protocol):
    """A token as the payee's terms name it."""

    @property
    def address(self) -> Address: ...

    @property
    def symbol(self) -> str: ...

    @property
    def decimals(self) -> int: ...


class Books(Protocol):
    """What an observer may ask the payee's store for, on any thread."""

    @property
    def waiting(self) -> int:
        """Orders that wait for the writer. Costs nothing."""

    def unsettled(self) -> Mapping[Address, int]:
        """By token, in base units: what is accepted and not settled on chain yet. Reads every
        channel.
        """


class Outcome(StrEnum):
    """What became of a request for something that has a price."""

    PAID = "paid"
    """Delivered for a payment (a HEAD, which costs nothing, too)."""
    RELEASED = "released"
    """Paid for and not delivered (the application failed, the client was gone): charged nothing."""
    REFUSED = "refused"
    """Answered with what is wrong with the payment, or that one is needed: 4xx."""
    UNAVAILABLE = "unavailable"
    """The site's own trouble: 503."""
    TOPPED_UP = "topped-up"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Answered:
    """One request for something that has a price, when its answer began (a metered one: ended).

    ``path`` is without the query. ``status`` is None when the application failed before it gave
    one. ``channel_id``, ``token`` and ``charged`` (base units) are known of paid requests only.
    ``seconds`` begin when the request arrives.
    """

    method: str
    path: str
    status: int | None
    outcome: Outcome
    seconds: float
    channel_id: ChannelId | None = None
    token: Address | None = None
    charged: int = 0


class Observer:
    """Takes every event and does nothing. Amounts are in base units of ``token``."""

    def started(self, currencies: Sequence[Currency], books: Books) -> None:
        """The payee is about to take its first request. Comes before every other event."""

    def stopped(self) -> None:
        """The payee is about to close its books; ``books`` is not asked after this."""

    def accepted(self, token: Address) -> None:
        """A payment was accepted: its voucher and charge are durable. A retry is none."""

    def refused(self, code: str) -> None:
        """A request was refused; ``code`` is that of a :class:`channelpay.errors.ChannelPayError`,
        as the client reads it.
        """

    def charged(self, token: Address, amount: int) -> None:
        """``amount`` more was charged: the price of a request, or a step of a metered one."""

    def released(self, token: Address, amount: int) -> None:
        """The charge of a request that was not delivered went back."""

    def verified(self, seconds: float) -> None:
        """The signature of a voucher was checked, whatever came out."""

    def committed(self, orders: int, seconds: float) -> None:
        """One transaction of the store, from its begin to the disk's word that it is durable."""

    def answered(self, answer: Answered) -> None:
        """A request got its answer."""

    def opened(self, token: Address, deposit: int) -> None:
        """A channel that was not in the books was presented and entered."""

    def topped_up(self, token: Address, amount: int) -> None:
        """A payer presented a top-up, and it was entered."""

    def closed(self, token: Address, settled: int) -> None:
        """A channel was closed on chain; ``settled`` is what this transaction paid out."""

    def close_failed(self, code: str) -> None:
        """A close that was tried is not on chain (as far as is known)."""

    def settled(self, token: Address, settled: int) -> None:
        """A channel was settled on chain and stays open; ``settled`` as in :meth:`closed`."""

    def settle_failed(self, code: str) -> None:
        """A settlement that was tried is not on chain (as far as is known)."""

    def followed(self, block: int) -> None:
        """The follower has entered all events up to ``block``, the newest that the node knows."""

    def follow_failed(self, code: str) -> None:
        """The follower could not follow the chain this time."""

    def worked(self, *, works: bool) -> None:
        """The daemon looked after its work, or (not ``works``) stands by while another one does."""

    def gas_paid(self, fee_wei: int) -> None:
        """A transaction of the payee's was mined, whether it achieved anything or not."""

    def gas_money(self, balance_wei: int, pending: int) -> None:
        """What the account that pays the gas has, and how many of its transactions are pending."""

    def alerted(self, name: str, *, began: bool, active: bool) -> None:
        """An alert began (or was repeated), or ended. ``active``: one of this name still is."""


class Observers(Observer):
    """Tells each of several observers, in their order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def started(self, currencies: Sequence[Currency], books: Books) -> None:
        for observer in self._observers:
            observer.started(currencies, books)

    def stopped(self) -> None:
        for observer in self._observers:
            observer.stopped()

    def accepted(self, token: Address) -> None:
        for observer in self._observers:
            observer.accepted(token)

    def refused(self, code: str) -> None:
        for observer in self._observers:
            observer.refused(code)

    def charged(self, token: Address, amount: int) -> None:
        for observer in self._observers:
            observer.charged(token, amount)

    def released(self, token: Address, amount: int) -> None:
        for observer in self._observers:
            observer.released(token, amount)

    def verified(self, seconds: float) -> None:
        for observer in self._observers:
            observer.verified(seconds)

    def committed(self, orders: int, seconds: float) -> None:
        for observer in self._observers:
            observer.committed(orders, seconds)

    def answered(self, answer: Answered) -> None:
        for observer in self._observers:
            observer.answered(answer)

    def opened(self, token: Address, deposit: int) -> None:
        for observer in self._observers:
            observer.opened(token, deposit)

    def topped_up(self, token: Address, amount: int) -> None:
        for observer in self._observers:
            observer.topped_up(token, amount)

    def closed(self, token: Address, settled: int) -> None:
        for observer in self._observers:
            observer.closed(token, settled)

    def close_failed(self, code: str) -> None:
        for observer in self._observers:
            observer.close_failed(code)

    def settled(self, token: Address, settled: int) -> None:
        for observer in self._observers:
            observer.settled(token, settled)

    def settle_failed(self, code: str) -> None:
        for observer in self._observers:
            observer.settle_failed(code)

    def followed(self, block: int) -> None:
        for observer in self._observers:
            observer.followed(block)

    def follow_failed(self, code: str) -> None:
        for observer in self._observers:
            observer.follow_failed(code)

    def worked(self, *, works: bool) -> None:
        for observer in self._observers:
            observer.worked(works=works)

    def gas_paid(self, fee_wei: int) -> None:
        for observer in self._observers:
            observer.gas_paid(fee_wei)

    def gas_money(self, balance_wei: int, pending: int) -> None:
        for observer in self._observers:
            observer.gas_money(balance_wei, pending)

    def alerted(self, name: str, *, began: bool, active: bool) -> None:
        for observer in self._observers:
            observer.alerted(name, began=began, active=active)
