"""Paying the members of a network: rounds of payouts, each one transaction, that go on where a
process was killed.

A round goes begun, sent, ended (:mod:`channelpay.payee.hub.rounds`). Whoever finds one that did not
end looks at the chain first: the contract says whether it was paid. If it was, that is entered; if
not, its transaction is waited for where the journal has one, and sent where it has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from logging import getLogger
from threading import Event, Thread
from uuid import uuid4

from channelpay.chain.connection import checksum
from channelpay.chain.contract import Erc20
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.payouts import PayoutsContract
from channelpay.chain.preparation import fee_market
from channelpay.chain.types import ContractCall, Trial, Tried
from channelpay.errors import (
    ChainReverted,
    ChannelPayError,
    ConfigError,
    InsufficientFunds,
    NotFound,
)
from channelpay.payee.hub.members import settings_of
from channelpay.payee.hub.rounds import (
    REPAIR,
    Round,
    begin_round,
    begun_at,
    end_round,
    next_number,
    open_round,
    planned_rounds,
    shares_of,
)
from channelpay.protocol.splits import HubSettings
from channelpay.protocol.transactions import Outgoing, TransactionStatus
from channelpay.protocol.types import NATIVE, Address
from channelpay.store import Store

INTERVAL_SECONDS = 5.0
LEASE = "hub payouts"
LEASE_SECONDS = 15.0
"""How long a process that vanished keeps the others waiting. It spares work, and nothing depends on
it: the contract does not pay a round twice.
"""
JOURNALED_SEEN = 1_000
ROUND_GAS, ROW_GAS = 37_000, 13_200
"""Measured (``docs/gas.json``): what comes after another transaction cannot be tried before it."""
_UNLIMITED = 2**256 - 1
_log = getLogger(__name__)


class Paymaster:
    """Pays from the account of ``sender`` what the shares in ``store`` say. For one thread; other
    processes may have one as well.
    """

    def __init__(
        self, store: Store, sender: TransactionSender, now: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._sender = sender
        self._connection = sender.connection
        self._now = now
        self.contract: PayoutsContract = PayoutsContract(sender.connection)

    def require_ready(self) -> None:
        """Raise :class:`~channelpay.errors.NotFound` where the chain lacks the contract, and
        :class:`~channelpay.errors.ConfigError` where it has other rounds of the account than the
        books: older ones would pay again what newer ones have paid.
        """
        if not self._connection.code(self.contract.address):
            raise NotFound(
                f"there is no Payouts contract at {checksum(self.contract.address)}",
                hint="Put it there, once for everybody: channelpay contract deploy payouts",
            )
        on_chain = self.contract.rounds(self._sender.address)
        in_books, begun = next_number(self._store), open_round(self._store)
        if on_chain != in_books and (begun is None or on_chain != begun.number):
            raise ConfigError(
                f"the chain has {on_chain} rounds of this account, the books {in_books}",
                hint=REPAIR,
            )

    def due(self, settings: HubSettings) -> list[Address]:
        """The tokens in which a round is to begin now: the interval is over, or half of a cap is
        outstanding.
        """
        return [token for token, cap in settings.caps.items() if self._is_due(settings, token, cap)]

    def pay(self, token: Address, least: int = 1) -> list[Round]:
        """Finish the round that is under way, then pay all members to whom at least ``least`` is
        owed. Returns the rounds that ended.

        Raises :class:`~channelpay.errors.InsufficientFunds` before a round begins that the account
        cannot pay, and what sending raises; whatever it raises, calling it again goes on.
        """
        ended = self.finish()
        # What is sold from here on is for the next payout.
        for planned in planned_rounds(self._store, token, max(1, least)):
            round_ = self._begun(token, [row.name for row in planned.rows])
            if round_ is not None:
                ended.append(self._finished(round_))
        return ended

    def plan(self, token: Address) -> list[Round]:
        """The rounds that :meth:`pay` would bring to their end now, the one that is under way
        first. Writes nothing; raises what :meth:`pay` raises before a round begins.
        """
        begun = open_round(self._store)
        planned = planned_rounds(self._store, token)
        self.require_ready()
        self._require_money(token, sum(one.total for one in planned))
        return planned if begun is None else [begun, *planned]

    def trials(self, rounds: Sequence[Round]) -> list[Tried]:
        """What sending these rounds would use and cost, but for those that are sent already. Raises
        what sending them would.
        """
        following = self.contract.rounds(self._sender.address)
        price_wei = fee_market(self._connection).price_wei
        tried: list[Tried] = []
        for one in rounds:
            if one.number < following or self._journaled(one) is not None:
                continue
            approval = self._approval(one) if one.number == following else None
            if approval is not None:
                tried.append(Tried("approve", self._sender.trial(approval)))
            if approval is None and one.number == following:
                tried.append(Tried("payout", self._sender.trial(self._call(one))))
            else:
                gas = ROUND_GAS + len(one.rows) * ROW_GAS
                tried.append(Tried("payout", Trial(gas, price_wei), was_tried=False))
        return tried

    def finish(self) -> list[Round]:
        """Bring the round to its end that was begun, if there is one."""
        found = open_round(self._store)
        return [] if found is None else [self._finished(found)]

    def _is_due(self, settings: HubSettings, token: Address, cap: int) -> bool:
        least = max(1, _least(settings, token))
        owed = [one.payable for one in shares_of(self._store, token).values()]
        waited = self._now() - begun_at(self._store, token) / 1000
        is_time = waited >= settings.every_seconds and max(owed, default=0) >= least
        return is_time or max(owed, default=0) * 2 >= cap

    def _begun(self, token: Address, names: Sequence[str]) -> Round | None:
        self.require_ready()
        shares = shares_of(self._store, token)
        self._require_money(token, sum(shares[name].payable for name in names))
        head = self._connection.latest_block().number
        return begin_round(self._store, token, names, head, int(self._now() * 1000))

    def _require_money(self, token: Address, amount: int) -> None:
        account = self._sender.address
        if token == NATIVE:
            held = self._connection.balance_wei(account)
        else:
            held = Erc20(self._connection, token).balance(account)
        if held < amount:
            raise InsufficientFunds(
                f"{checksum(account)} holds {held} base units, and owes its members {amount}",
                hint="Settle channels first: channelpay payee settle --all",
            )

    def _finished(self, round_: Round) -> Round:
        if not self._is_deep(round_):
            outgoing = self._journaled(round_) or self._sent(round_)
            self._wait(round_, outgoing)
        rows = self.contract.rows(
            self._sender.address, number=round_.number, from_block=round_.block
        )
        return end_round(self._store, round_.ended(rows))

    def _is_deep(self, round_: Round) -> bool:
        """Whether the chain has it, with the confirmations that the sender asks for."""
        head = self._connection.latest_block().number
        deep = head - self._sender.policy.confirmations + 1
        if deep < round_.block:
            return False
        return self.contract.rounds(self._sender.address, block=deep) > round_.number

    def _wait(self, round_: Round, outgoing: Outgoing) -> None:
        try:
            self._sender.wait(outgoing.number)
        except ChainReverted:
            # Another process may have sent the same round: the contract took one of the two.
            if not self._is_deep(round_):
                raise

    def _journaled(self, round_: Round) -> Outgoing | None:
        """Its transaction, if one left and did not fail."""
        sender, outbox = self._sender, self._store
        pending = outbox.pending(self._connection.chain_id, sender.address)
        for one in (*pending, *outbox.transactions(JOURNALED_SEEN)):
            is_own = (one.chain_id, one.sender) == (self._connection.chain_id, sender.address)
            is_failed = one.status is TransactionStatus.FAILED
            if is_own and one.purpose == _purpose(round_) and not is_failed:
                return one
        return None

    def _sent(self, round_: Round) -> Outgoing:
        approval = self._approval(round_)
        if approval is not None:
            self._sender.wait(self._sender.send(approval, "allow payouts").number)
        return self._sender.send(self._call(round_), _purpose(round_))

    def _call(self, round_: Round) -> ContractCall:
        rows = [(row.address, row.amount) for row in round_.rows]
        return self.contract.pay(round_.token, round_.number, rows)

    def _approval(self, round_: Round) -> ContractCall | None:
        """Lets the contract take the token, if it may not yet: it takes from whoever calls it, and
        from nobody else.
        """
        if round_.token == NATIVE:
            return None
        token = Erc20(self._connection, round_.token)
        if token.allowance(self._sender.address, self.contract.address) >= round_.total:
            return None
        return token.approve(self.contract.address, _UNLIMITED)


class PayoutThread:
    """Pays what is due every few seconds, in one process of those that share the books."""

    def __init__(
        self, paymaster: Paymaster, store: Store, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._paymaster = paymaster
        self._store = store
        self._interval_seconds = interval_seconds
        self._holder = uuid4().hex
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="channelpay-payouts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """A round that is under way goes on with the next start."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self._step()
            except ChannelPayError as error:
                _log.warning("members were not paid now: %s", error.detail)
            except Exception:  # noqa: BLE001  a bug must not end the payouts
                _log.exception("members were not paid now")

    def _step(self) -> None:
        if not self._store.take_lease(LEASE, self._holder, LEASE_SECONDS).result():
            return
        settings = settings_of(self._store)
        self._paymaster.finish()
        for token in self._paymaster.due(settings):
            for one in self._paymaster.pay(token, _least(settings, token)):
                _log.info("round %d paid %d members", one.number, len(one.rows))


def _least(settings: HubSettings, token: Address) -> int:
    """What a payout is at least. It never holds back half of the cap, which makes one due."""
    return min(settings.least.get(token, 0), (settings.caps[token] + 1) // 2)


def _purpose(round_: Round) -> str:
    return f"payout {round_.number}"
