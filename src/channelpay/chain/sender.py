"""Sending one transaction and waiting for it: for a program whose user waits as well.

A daemon sends with :class:`channelpay.chain.outgoing.TransactionSender`, which keeps a journal and
raises what it offers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from channelpay.chain.connection import Connection, NodeRefused
from channelpay.chain.fees import Fees
from channelpay.chain.preparation import (
    failure_of,
    fee_market,
    gas_estimate,
    require_balance,
    sign,
    with_margin,
)
from channelpay.chain.types import (
    ContractCall,
    Listener,
    Progress,
    TransactionReceipt,
    TransactionSigner,
    Trial,
    unheard,
)
from channelpay.errors import NetworkError
from channelpay.protocol.types import Address

_NONCE_ATTEMPTS = 3
_POLL_SECONDS_FIRST = 0.02
_POLL_SECONDS_MAX = 2.0
_POLL_GROWTH = 1.5
_LOOK_SECONDS = 1.0
"""How often a sender that waits looks whether the node still has what it took."""
_SENT_KEPT = 16


class NotConfirmed(NetworkError):
    """The deadline passed; the transaction may still be mined. ``context`` has its ``txHash``."""

    code = "not-confirmed"
    title = "Not Confirmed"
    hint = "The transaction may still be mined: look its hash up before you send another."


@dataclass(frozen=True, slots=True)
class SendPolicy:
    """How to send.

    ``confirmations`` counts the block of the transaction itself. ``fee_per_gas_wei_max`` limits
    what one unit of gas may cost; without it the limit is twice the base fee plus the tip.
    ``listener`` is told how far each transaction is, on the thread that sends it.
    """

    confirmations: int = 1
    deadline_seconds: float = 180.0
    fee_per_gas_wei_max: int | None = None
    listener: Listener = unheard


Journal = Callable[[bytes, int], None]
"""Called with hash (32 bytes) and nonce of a signed transaction just before it is broadcast."""


class Sender:
    """Sends calls from one account through one node. Threads may share a sender.

    ``account`` signs; its key stays inside of it.
    """

    def __init__(
        self,
        connection: Connection,
        account: TransactionSigner,
        policy: SendPolicy | None = None,
    ) -> None:
        self.connection = connection
        self.address: Address = Address(bytes.fromhex(account.address[2:]))
        self._account = account
        self._policy = policy or SendPolicy()
        self._nonce_lock = threading.Lock()
        self._next_nonce = 0
        self._sent: dict[bytes, tuple[int, bytes]] = {}
        """By hash, nonce and bytes of the newest transactions that a node took."""

    def send(self, call: ContractCall) -> TransactionReceipt:
        """Submit ``call`` and wait until it is confirmed.

        Raises what :meth:`submit` and :meth:`wait` raise.
        """
        return self.wait(self.submit(call), call)

    def submit(self, call: ContractCall, journal: Journal | None = None) -> bytes:
        """Try ``call`` without paying, then sign and hand it to the node; returns the hash (32
        bytes). What ``journal`` raises keeps the transaction from being sent.

        After :class:`NotConfirmed` it may still be mined; after any other error it was certainly
        not sent. Raises :class:`ChainReverted` if the contract would refuse it,
        :class:`InsufficientFunds` if the account cannot pay value and gas, :class:`BudgetExceeded`
        if gas costs more than the policy allows, :class:`NetworkError` if the node fails.
        """
        estimate, fees = self._prepared(call)
        return self._sign_and_broadcast(call, with_margin(estimate, call), fees, journal)

    def trial(self, call: ContractCall) -> Trial:
        """What ``call`` would use and cost. Nothing is signed or sent; raises what :meth:`submit`
        raises before that.
        """
        estimate, _ = self._prepared(call)
        return Trial(estimate, fee_market(self.connection).price_wei)

    def wait(self, transaction_hash: bytes, call: ContractCall) -> TransactionReceipt:
        """The receipt, once the transaction has the policy's confirmations.

        Raises :class:`ChainReverted` if it was mined but failed, :class:`NotConfirmed` at the
        deadline.
        """
        receipt = self._confirmed(transaction_hash)
        if not receipt.succeeded:
            raise failure_of(self.connection, call, self.address, receipt)
        return receipt

    def _prepared(self, call: ContractCall) -> tuple[int, Fees]:
        """The gas that it uses now, and what is offered for a unit."""
        estimate = gas_estimate(self.connection, call, self.address)
        fees = self._fees()
        cost_max_wei = with_margin(estimate, call) * fees.max_fee_wei
        balance = self.connection.balance_wei(self.address)
        require_balance(self.address, balance, call.value_wei + cost_max_wei)
        return estimate, fees

    def _fees(self) -> Fees:
        market, limit = fee_market(self.connection), self._policy.fee_per_gas_wei_max
        usual = market.usual
        if limit is None:
            return usual
        market.require_within(limit)
        return Fees(min(usual.max_fee_wei, limit), usual.tip_wei)

    def _sign_and_broadcast(
        self, call: ContractCall, gas: int, fees: Fees, journal: Journal | None
    ) -> bytes:
        with self._nonce_lock:
            for _ in range(_NONCE_ATTEMPTS - 1):
                try:
                    return self._broadcast_next(call, gas, fees, journal)
                except NodeRefused as error:
                    # Another program used this account's nonce, or the node lost one of ours; it
                    # knows the next one.
                    if "nonce" not in error.detail.lower():
                        raise
                    self._send_lost()
            return self._broadcast_next(call, gas, fees, journal)

    def _broadcast_next(
        self, call: ContractCall, gas: int, fees: Fees, journal: Journal | None
    ) -> bytes:
        """Sign with the next nonce and broadcast. The lock must be held."""
        nonce = max(self.connection.next_nonce(self.address), self._next_nonce)
        transaction_hash, raw = sign(
            self._account, self.connection.chain_id, nonce, call, gas, fees
        )
        if journal is not None:
            journal(transaction_hash, nonce)
        self._tell(transaction_hash, 0)
        self._next_nonce = 0
        self._broadcast(raw, transaction_hash)
        self._next_nonce = nonce + 1
        self._keep(transaction_hash, nonce, raw)
        return transaction_hash

    def _keep(self, transaction_hash: bytes, nonce: int, raw: bytes) -> None:
        self._sent[transaction_hash] = (nonce, raw)
        for oldest in list(self._sent)[:-_SENT_KEPT]:
            del self._sent[oldest]

    def _broadcast(self, raw_transaction: bytes, transaction_hash: bytes) -> None:
        try:
            self.connection.send_raw_transaction(raw_transaction)
        except NetworkError as error:
            # Its answer may be lost, or be one to a repetition. Signing anew could pay twice.
            if self._has_arrived(transaction_hash):
                return
            if isinstance(error, NodeRefused):
                raise
            raise not_confirmed(
                "the node did not take the transaction", transaction_hash
            ) from error

    def _has_arrived(self, transaction_hash: bytes) -> bool:
        try:
            return self.connection.has_transaction(transaction_hash)
        except NetworkError as error:
            detail = "the node did not say whether it took the transaction"
            raise not_confirmed(detail, transaction_hash) from error

    def _confirmed(self, transaction_hash: bytes) -> TransactionReceipt:
        """A node that fails in between is asked again."""
        told, look_at = 0, time.monotonic() + _LOOK_SECONDS
        for _ in pauses(self._policy.deadline_seconds):
            receipt, depth = self._mined(transaction_hash)
            if depth != told:
                self._tell(transaction_hash, depth)
                told = depth
            if receipt is not None and depth >= self._policy.confirmations:
                return receipt
            if receipt is None and time.monotonic() >= look_at:
                self._send_lost()
                look_at = time.monotonic() + _LOOK_SECONDS
        # A transaction that the node dropped leaves its nonce free.
        self._next_nonce = 0
        self._sent.pop(transaction_hash, None)
        waited = f"not confirmed within {self._policy.deadline_seconds:g} s"
        raise not_confirmed(waited, transaction_hash)

    def _send_lost(self) -> None:
        """Send again what the node has lost, also to a reorganisation: everything behind it waits
        for its nonce.
        """
        if not self._sent:
            return
        with suppress(NetworkError):
            used = self.connection.used_nonces(self.address)
            for transaction_hash, (nonce, raw) in list(self._sent.items()):
                if nonce >= used and not self.connection.has_transaction(transaction_hash):
                    self.connection.send_raw_transaction(raw)

    def _mined(self, transaction_hash: bytes) -> tuple[TransactionReceipt | None, int]:
        """The receipt, and how many confirmations it has: as far as that matters."""
        try:
            receipt = self.connection.receipt(transaction_hash)
            if receipt is None:
                return None, 0
            if self._policy.confirmations <= 1:
                return receipt, 1
            depth = self.connection.latest_block().number - receipt.block_number + 1
        except NetworkError:
            return None, 0
        return receipt, min(depth, self._policy.confirmations)

    def _tell(self, transaction_hash: bytes, depth: int) -> None:
        self._policy.listener(Progress(transaction_hash, depth, self._policy.confirmations))


def pauses(deadline_seconds: float) -> Iterator[None]:
    """Go on at once, then after longer and longer pauses, until the deadline."""
    deadline = time.monotonic() + deadline_seconds
    pause = _POLL_SECONDS_FIRST
    yield
    while time.monotonic() + pause <= deadline:
        time.sleep(pause)
        yield
        pause = min(pause * _POLL_GROWTH, _POLL_SECONDS_MAX)


def not_confirmed(detail: str, transaction_hash: bytes) -> NotConfirmed:
    return NotConfirmed(detail, txHash="0x" + transaction_hash.hex())
