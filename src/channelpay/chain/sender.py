"""Sending transactions: nonces, EIP-1559 fees, a dry run before anything is paid, confirmations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from eth_account.signers.local import LocalAccount

from channelpay.chain.connection import Connection, NodeRefused, checksum
from channelpay.chain.types import ContractCall, TransactionReceipt
from channelpay.errors import BudgetExceeded, ChainReverted, InsufficientFunds, NetworkError
from channelpay.protocol.types import Address

GAS_MARGIN_PERCENT = 20
"""Added to the node's estimate: the state may move before the transaction is mined."""
_NONCE_ATTEMPTS = 3
_POLL_SECONDS_FIRST = 0.02
_POLL_SECONDS_MAX = 2.0
_POLL_GROWTH = 1.5


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
    """

    confirmations: int = 1
    deadline_seconds: float = 180.0
    fee_per_gas_wei_max: int | None = None


Journal = Callable[[bytes, int], None]
"""Called with hash (32 bytes) and nonce of a signed transaction just before it is broadcast."""


@dataclass(frozen=True, slots=True)
class _Fees:
    max_fee_wei: int
    tip_wei: int


class Sender:
    """Sends calls from one account through one node. Threads may share a sender.

    ``account`` signs; its key stays inside of it.
    """

    def __init__(
        self, connection: Connection, account: LocalAccount, policy: SendPolicy | None = None
    ) -> None:
        self.connection = connection
        self.address = Address(bytes.fromhex(account.address[2:]))
        self._account = account
        self._policy = policy or SendPolicy()
        self._nonce_lock = threading.Lock()
        self._next_nonce = 0

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
        self._check_balance(call.value_wei)
        self.connection.call(call, self.address)
        estimate = self.connection.estimate_gas(call, self.address)
        gas = estimate * (100 + GAS_MARGIN_PERCENT) // 100 + call.gas_reserve
        fees = self._fees()
        self._check_balance(call.value_wei + gas * fees.max_fee_wei)
        return self._sign_and_broadcast(call, gas, fees, journal)

    def wait(self, transaction_hash: bytes, call: ContractCall) -> TransactionReceipt:
        """The receipt, once the transaction has the policy's confirmations.

        Raises :class:`ChainReverted` if it was mined but failed, :class:`NotConfirmed` at the
        deadline.
        """
        receipt = self._confirmed(transaction_hash)
        if not receipt.succeeded:
            raise self._failure_of(call, receipt)
        return receipt

    def _check_balance(self, needed_wei: int) -> None:
        balance = self.connection.balance_wei(self.address)
        if balance < needed_wei:
            raise InsufficientFunds(
                f"{checksum(self.address)} has {balance} wei and needs {needed_wei} wei"
            )

    def _fees(self) -> _Fees:
        base_fee = self.connection.next_base_fee_wei()
        tip = self.connection.suggested_tip_wei()
        max_fee = 2 * base_fee + tip
        limit = self._policy.fee_per_gas_wei_max
        if limit is not None and limit < base_fee + tip:
            raise BudgetExceeded(
                f"gas costs {base_fee + tip} wei now, over the limit of {limit} wei",
                hint="Wait for a cheaper moment or raise the limit. Nothing was sent.",
            )
        return _Fees(max_fee if limit is None else min(max_fee, limit), tip)

    def _sign_and_broadcast(
        self, call: ContractCall, gas: int, fees: _Fees, journal: Journal | None
    ) -> bytes:
        with self._nonce_lock:
            for _ in range(_NONCE_ATTEMPTS - 1):
                try:
                    return self._broadcast_next(call, gas, fees, journal)
                except NodeRefused as error:
                    # Another program used this account's nonce; the node knows the next one.
                    if "nonce" not in error.detail.lower():
                        raise
            return self._broadcast_next(call, gas, fees, journal)

    def _broadcast_next(
        self, call: ContractCall, gas: int, fees: _Fees, journal: Journal | None
    ) -> bytes:
        """Sign with the next nonce and broadcast. The lock must be held."""
        nonce = max(self.connection.next_nonce(self.address), self._next_nonce)
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": self.connection.chain_id,
                "nonce": nonce,
                "to": checksum(call.to),
                "value": call.value_wei,
                "data": call.data,
                "gas": gas,
                "maxFeePerGas": fees.max_fee_wei,
                "maxPriorityFeePerGas": fees.tip_wei,
            }
        )
        if journal is not None:
            journal(bytes(signed.hash), nonce)
        self._next_nonce = 0
        self._broadcast(bytes(signed.raw_transaction), bytes(signed.hash))
        self._next_nonce = nonce + 1
        return bytes(signed.hash)

    def _broadcast(self, raw_transaction: bytes, transaction_hash: bytes) -> None:
        try:
            self.connection.send_raw_transaction(raw_transaction)
        except NetworkError as error:
            # Its answer may be lost, or be one to a repetition. Signing anew could pay twice.
            if self._has_arrived(transaction_hash):
                return
            if isinstance(error, NodeRefused):
                raise
            raise _not_confirmed(
                "the node did not take the transaction", transaction_hash
            ) from error

    def _has_arrived(self, transaction_hash: bytes) -> bool:
        try:
            return self.connection.has_transaction(transaction_hash)
        except NetworkError as error:
            detail = "the node did not say whether it took the transaction"
            raise _not_confirmed(detail, transaction_hash) from error

    def _confirmed(self, transaction_hash: bytes) -> TransactionReceipt:
        """Poll, more and more slowly; a node that fails in between is asked again."""
        deadline = time.monotonic() + self._policy.deadline_seconds
        pause = _POLL_SECONDS_FIRST
        while True:
            receipt = self._receipt_if_confirmed(transaction_hash)
            if receipt is not None:
                return receipt
            if time.monotonic() + pause > deadline:
                # A transaction that the node dropped leaves its nonce free.
                self._next_nonce = 0
                waited = f"not confirmed within {self._policy.deadline_seconds:g} s"
                raise _not_confirmed(waited, transaction_hash)
            time.sleep(pause)
            pause = min(pause * _POLL_GROWTH, _POLL_SECONDS_MAX)

    def _receipt_if_confirmed(self, transaction_hash: bytes) -> TransactionReceipt | None:
        try:
            receipt = self.connection.receipt(transaction_hash)
            if receipt is None or self._policy.confirmations <= 1:
                return receipt
            depth = self.connection.latest_block().number - receipt.block_number + 1
        except NetworkError:
            return None
        return receipt if depth >= self._policy.confirmations else None

    def _failure_of(self, call: ContractCall, receipt: TransactionReceipt) -> ChainReverted:
        """Why a mined transaction failed, found by running the call again in its block."""
        transaction_hash = "0x" + receipt.transaction_hash.hex()
        try:
            self.connection.call(call, self.address, block=receipt.block_number)
        except ChainReverted as error:
            return ChainReverted(
                error.detail, error=error.error, hint=error.hint, txHash=transaction_hash
            )
        except NetworkError:
            pass
        return ChainReverted(
            "the transaction was mined but failed; it passed when tried before",
            hint="Another transaction came first. Look at the channel's state and try again.",
            txHash=transaction_hash,
        )


def _not_confirmed(detail: str, transaction_hash: bytes) -> NotConfirmed:
    return NotConfirmed(detail, txHash="0x" + transaction_hash.hex())
