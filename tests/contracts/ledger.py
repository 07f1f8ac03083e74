"""All money and all channels by the pure model: what the contract must do, told who cannot be paid
and who comes back from a payment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from channelpay.errors import ChainReverted
from channelpay.protocol import lifecycle
from channelpay.protocol.lifecycle import LaneState, Payout
from channelpay.protocol.types import NATIVE, Address, Channel
from tests.contracts.world import GRACE_SECONDS

Holding = tuple[Address, Address]
"""Token and account."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A voucher in a batch, of a channel with the batch's payee and token; ``signed`` if by the
    right key, and for this.
    """

    channel: Channel
    cumulative: int
    signed: bool = True


def _nobody(_token: Address, _account: Address) -> bool:
    return False


@dataclass
class Ledger:
    """The contract at ``contract`` and everyone's money. Amounts in base units, ``now`` in Unix
    seconds.

    ``moved`` is how balances differ from those at the beginning. ``refuses_payment`` and
    ``refuses_pull`` say whose money a token, or a wallet, will not move. ``plan`` is what the
    account ``returning`` does, with a payment of one of the tokens ``hooked`` or a pull from it.
    All actions raise :class:`ChainReverted` as the contract reverts, and then have changed nothing.
    """

    contract: Address
    refuses_payment: Callable[[Address, Address], bool] = _nobody
    refuses_pull: Callable[[Address, Address], bool] = _nobody
    returning: Address | None = None
    hooked: frozenset[Address] = frozenset()
    plan: Callable[[], object] | None = None
    now: int = 0
    lanes: dict[bytes, LaneState] = field(default_factory=dict)
    kept: Counter[Holding] = field(default_factory=Counter)
    moved: Counter[Holding] = field(default_factory=Counter)
    starved: bool = False
    """Inside a payment: its gas is too little for the contract to keep a share."""

    # Actions

    def open(self, channel: Channel, deposit: int, funder: Address) -> None:
        """``open`` in all its forms, with the money of ``funder``."""
        with self._all_or_nothing():
            lane = lifecycle.open_channel(self.lane(channel), channel.epoch, deposit)
            self.lanes[channel.lane] = lane
            self._pull(channel.token, funder, deposit)

    def top_up(self, channel: Channel, amount: int, funder: Address, *, by_payer: bool) -> None:
        """``topUp`` in all its forms; ``by_payer`` if the payer itself sends the plain one."""
        with self._all_or_nothing():
            lane = self.lane(channel)
            self.lanes[channel.lane] = lifecycle.top_up(
                lane, channel.epoch, amount, by_payer=by_payer
            )
            self._pull(channel.token, funder, amount)

    def settle(self, row: BatchRow) -> None:
        """``settle``."""
        with self._all_or_nothing():
            self._push(row.channel.token, row.channel.payee, self._settled(row))

    def close(self, row: BatchRow, *, by_payee: bool) -> None:
        """``close``."""
        lane, epoch = self.lane(row.channel), row.channel.epoch
        after = lifecycle.close(lane, epoch, row.cumulative, by_payee=by_payee)
        self._close(row, *after)

    def close_with_authorization(self, row: BatchRow, *, authorized: bool) -> None:
        """``closeWithAuthorization``."""
        lane, epoch = self.lane(row.channel), row.channel.epoch
        after = lifecycle.close_with_authorization(
            lane, epoch, row.cumulative, authorized=authorized
        )
        self._close(row, *after)

    def settle_batch(
        self, payee: Address, token: Address, rows: Iterable[BatchRow]
    ) -> tuple[int, list[Channel]]:
        """``settleBatch``; returns what was paid, and the channels of the skipped rows."""
        paid, skipped = 0, []
        with self._all_or_nothing():
            for row in rows:
                try:
                    paid += self._settled(row)
                except ChainReverted:
                    skipped.append(row.channel)
            self._push(token, payee, paid)
        return paid, skipped

    def close_batch(
        self, payee: Address, token: Address, rows: Iterable[BatchRow]
    ) -> tuple[int, list[Channel]]:
        """``closeBatch`` by ``payee``; returns what was paid, and the channels of the skipped
        rows.
        """
        paid, skipped = 0, []
        with self._all_or_nothing():
            for row in rows:
                try:
                    payout = self._closed(row)
                except ChainReverted:
                    skipped.append(row.channel)
                else:
                    paid += payout.to_payee
                    self._push(token, row.channel.payer, payout.to_payer)
            self._push(token, payee, paid)
        return paid, skipped

    def request_close(self, channel: Channel, *, by_payer: bool) -> None:
        """``requestClose``."""
        self.lanes[channel.lane] = lifecycle.request_close(
            self.lane(channel), channel.epoch, self.now, by_payer=by_payer
        )

    def withdraw(self, channel: Channel, *, by_payer: bool) -> None:
        """``withdraw``."""
        with self._all_or_nothing():
            self.lanes[channel.lane], payout = lifecycle.withdraw(
                self.lane(channel), channel.epoch, self.now, GRACE_SECONDS, by_payer=by_payer
            )
            self._push(channel.token, channel.payer, payout.to_payer)

    def claim(self, token: Address, owner: Address, receiver: Address) -> None:
        """``claim``."""
        with self._all_or_nothing():
            share = self.kept.pop((token, owner), 0)
            if not share:
                _refuse("NothingToClaim")
            if self.refuses_payment(token, receiver):
                _refuse("TokenTransferFailed")
            self._pay(token, receiver, share, starved=self.starved)

    def donate(self, token: Address, amount: int) -> None:
        """Money that nobody asked for."""
        self.moved[token, self.contract] += amount

    # What is known

    def lane(self, channel: Channel) -> LaneState | None:
        """The channel's storage slot."""
        return self.lanes.get(channel.lane)

    # Details

    def _settled(self, row: BatchRow) -> int:
        channel = row.channel
        lane, payout = lifecycle.settle(self.lane(channel), channel.epoch, row.cumulative)
        _check_signature(row, payout)
        self.lanes[channel.lane] = lane
        return payout.to_payee

    def _closed(self, row: BatchRow) -> Payout:
        channel = row.channel
        lane, payout = lifecycle.close(
            self.lane(channel), channel.epoch, row.cumulative, by_payee=True
        )
        _check_signature(row, payout)
        self.lanes[channel.lane] = lane
        return payout

    def _close(self, row: BatchRow, lane: LaneState, payout: Payout) -> None:
        _check_signature(row, payout)
        with self._all_or_nothing():
            self.lanes[row.channel.lane] = lane
            self._push(row.channel.token, row.channel.payee, payout.to_payee)
            self._push(row.channel.token, row.channel.payer, payout.to_payer)

    def _pull(self, token: Address, funder: Address, amount: int) -> None:
        """Right before a hooked token moves money, its owner may come back."""
        if self.refuses_pull(token, funder):
            _refuse("TokenTransferFailed")
        before = self.moved[token, self.contract]
        if token != NATIVE:
            self._come_back(token, funder)
        if self.moved[token, self.contract] != before:
            _refuse("TokenTransferFailed")
        self._move(token, funder, self.contract, amount)

    def _push(self, token: Address, account: Address, amount: int) -> None:
        if not amount:
            return
        if not self.refuses_payment(token, account):
            self._pay(token, account, amount, starved=True)
        elif self.starved:
            _refuse("GasTooLow")
        else:
            self.kept[token, account] += amount

    def _pay(self, token: Address, account: Address, amount: int, *, starved: bool) -> None:
        self._move(token, self.contract, account, amount)
        was_starved, self.starved = self.starved, starved
        self._come_back(token, account)
        self.starved = was_starved

    def _come_back(self, token: Address, account: Address) -> None:
        """A plan is carried out once: when it pays its owner, that is no reason to start again."""
        plan = self.plan
        if plan is None or account != self.returning or token not in self.hooked:
            return
        self.plan = None
        try:
            plan()
        except ChainReverted:
            pass
        finally:
            self.plan = plan

    def _move(self, token: Address, giver: Address, taker: Address, amount: int) -> None:
        self.moved[token, giver] -= amount
        self.moved[token, taker] += amount

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        before = dict(self.lanes), self.kept.copy(), self.moved.copy(), self.starved
        try:
            yield
        except ChainReverted:
            self.lanes, self.kept, self.moved, self.starved = before
            raise


def _check_signature(row: BatchRow, payout: Payout) -> None:
    """The contract looks at it only where the voucher pays."""
    if payout.to_payee and not row.signed:
        _refuse("InvalidSignature")


def _refuse(error: str) -> NoReturn:
    raise ChainReverted(error=error)
