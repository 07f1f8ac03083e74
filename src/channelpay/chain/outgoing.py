"""Sending that does not get stuck: every transaction is in a journal before it leaves, and is
looked after until it is mined.

A nonce is given away by the journal, once and for ever, in the same commit as the signed
transaction. Whoever finds a journaled nonce that is not used up sends the same bytes again, or the
same call with a higher fee. So there is never a gap, whatever ends at whatever moment, and however
many processes send from the account: each may look after what another one began.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from logging import getLogger

from eth_account.signers.local import LocalAccount

from channelpay.chain.connection import Connection, checksum
from channelpay.chain.fees import FeeMarket, FeePolicy, Fees
from channelpay.chain.preparation import (
    failure_of,
    fee_market,
    gas_estimate,
    gas_limit,
    require_balance,
    sign,
    with_margin,
)
from channelpay.chain.sender import not_confirmed, pauses
from channelpay.chain.types import (
    Block,
    ContractCall,
    Listener,
    Progress,
    TransactionReceipt,
    Trial,
    unheard,
)
from channelpay.errors import (
    ChainReverted,
    ChannelPayError,
    InsufficientFunds,
    NetworkError,
    NonceTaken,
    NotFound,
)
from channelpay.protocol.transactions import Outbox, Outgoing, Signed, TransactionStatus
from channelpay.protocol.types import Address

Urgency = Callable[[Outgoing], float]
"""How urgent a transaction is now, from 0 to 1."""
_NONCE_ATTEMPTS = 16
LOST_BLOCKS = 6
"""How deep a nonce has to be used up before a transaction without a receipt is given up: nodes find
receipts a little later than they count nonces, and of those behind a balancer one may be late.
"""
_JOURNALED_SEEN = 100
"""So many of the newest transactions are watched for a reorganisation that takes them back."""

_log = getLogger(__name__)


def unhurried(_: Outgoing) -> float:
    """Nothing is urgent."""
    return 0.0


class TransactionSender:
    """Sends calls from one account, journaled in ``outbox``. Threads and processes may share the
    account; each process has a sender of its own.

    ``account`` signs; its key stays inside of it. ``clock`` gives Unix seconds. ``listener`` is
    told how far a transaction is that :meth:`wait` waits for.
    """

    def __init__(
        self,
        connection: Connection,
        account: LocalAccount,
        outbox: Outbox,
        policy: FeePolicy | None = None,
        clock: Callable[[], float] = time.time,
        listener: Listener = unheard,
    ) -> None:
        self.connection = connection
        self.address: Address = Address(bytes.fromhex(account.address[2:]))
        self.outbox = outbox
        self.policy: FeePolicy = policy or FeePolicy()
        self._account = account
        self._clock = clock
        self._listener = listener
        self._step_lock = threading.Lock()
        self._ended: list[Outgoing] = []
        self._raised_at: dict[int, bytes] = {}
        """By number, the head's hash when this process last offered more."""

    # --- sending -----------------------------------------------------------------------------

    def send(self, call: ContractCall, purpose: str, *, urgency: float = 0.0) -> Outgoing:
        """Try ``call`` without paying, journal it under ``purpose``, hand it to the nodes, and
        return at once: :meth:`step` does the rest, here or in another process. Who sends the very
        same call at the same moment gets the same transaction.

        Raises :class:`ChainReverted` if the contract would refuse it, :class:`InsufficientFunds`
        if the account cannot pay it beside what is on its way, :class:`BudgetExceeded` if gas costs
        more than the policy allows, :class:`NetworkError` if no node answers: then nothing is
        journaled or sent. After :class:`StoreUnavailable` it may be in the journal.
        """
        gas = gas_limit(self.connection, call, self.address)
        outgoing = self._journaled(call, purpose, gas, urgency)
        self._broadcast(outgoing.broadcasts[-1])
        return outgoing

    def trial(self, call: ContractCall) -> Trial:
        """What ``call`` would use and cost now. Nothing is signed, journaled or sent; raises what
        :meth:`send` raises before that.
        """
        estimate = gas_estimate(self.connection, call, self.address)
        self._first_offer(call, with_margin(estimate, call), self._pending(), 0.0)
        return Trial(estimate, fee_market(self.connection).price_wei)

    def _journaled(self, call: ContractCall, purpose: str, gas: int, urgency: float) -> Outgoing:
        for _ in range(_NONCE_ATTEMPTS - 1):
            # Who comes second finds the other one's row when it counts again.
            with suppress(NonceTaken):
                return self._journaled_once(call, purpose, gas, urgency)
        return self._journaled_once(call, purpose, gas, urgency)

    def _journaled_once(
        self, call: ContractCall, purpose: str, gas: int, urgency: float
    ) -> Outgoing:
        pending = self._pending()
        fees = self._first_offer(call, gas, pending, urgency)
        planned = Outgoing(
            number=0,
            chain_id=self.connection.chain_id,
            sender=self.address,
            nonce=self._next_nonce(pending),
            purpose=purpose,
            to=call.to,
            data=call.data,
            value_wei=call.value_wei,
            gas=gas,
            broadcasts=(),
        )
        planned = replace(planned, broadcasts=(self._signed(planned, fees),))
        return self.outbox.journal(planned).result()

    def _first_offer(
        self, call: ContractCall, gas: int, pending: Sequence[Outgoing], urgency: float
    ) -> Fees:
        market = fee_market(self.connection)
        market.require_within(self.policy.fee_per_gas_wei_max)
        free = self.connection.balance_wei(self.address) - sum(map(_cost_max_wei, pending))
        require_balance(self.address, free, call.value_wei + gas * market.price_wei)
        return self.policy.offer(market, urgency, self._limit(free - call.value_wei, gas))

    def _next_nonce(self, pending: Sequence[Outgoing]) -> int:
        """The first one that is neither used up nor journaled: behind all others, unless a
        reorganisation took back what another program had sent.
        """
        journaled = {one.nonce for one in (*pending, *self._finished())}
        nonce = self.connection.used_nonces(self.address)
        while nonce in journaled:
            nonce += 1
        return nonce

    def _limit(self, free_wei: int, gas: int) -> int:
        """The most to offer: what the policy allows and ``free_wei`` can pay."""
        return min(self.policy.fee_per_gas_wei_max, free_wei // gas)

    def _signed(self, outgoing: Outgoing, fees: Fees) -> Signed:
        call, nonce = _call_of(outgoing), outgoing.nonce
        signed_hash, raw = sign(self._account, outgoing.chain_id, nonce, call, outgoing.gas, fees)
        now = int(self._clock() * 1000)
        return Signed(signed_hash, raw, fees.max_fee_wei, fees.tip_wei, now)

    def _broadcast(self, signed: Signed) -> ChannelPayError | None:
        """Hand it to the nodes; why none took it. It is in the journal: that is for :meth:`step`
        to mend.
        """
        try:
            self.connection.send_raw_transaction(signed.raw)
        except ChannelPayError as error:
            _log.warning("transaction 0x%s was not taken: %s", signed.hash.hex(), error.detail)
            return error
        return None

    # --- looking after what was sent ---------------------------------------------------------

    def step(self, urgency: Urgency = unhurried) -> list[Outgoing]:
        """Look after everything that is pending, from whichever process; returns what ended since
        the last call. Call it every few seconds.

        What the nodes lost is sent again; what waits too long, or has become urgent, is replaced
        with a higher fee; what is mined deep enough has ended; what a reorganisation took back is
        pending again. Raises :class:`InsufficientFunds` when the account cannot pay what is on its
        way, and :class:`NetworkError` and :class:`StoreUnavailable`; nothing is lost by that, and
        what has ended is told first.
        """
        with self._step_lock:
            try:
                self._look_after(urgency)
            except ChannelPayError:
                if not self._ended:
                    raise
                _log.warning("not all transactions were looked after", exc_info=True)
            ended, self._ended = self._ended, []
        return ended

    def wait(
        self, number: int, deadline_seconds: float = 180.0, urgency: Urgency = unhurried
    ) -> TransactionReceipt:
        """The receipt of a journaled transaction, once it has the policy's confirmations. Looks
        after all that is pending meanwhile; :meth:`step` still tells what ended.

        Raises :class:`ChainReverted` if it certainly failed, :class:`NotConfirmed` at the deadline
        or once the account cannot pay what is on its way, :class:`NotFound` for an unknown number.
        """
        outgoing = self._journal_row(number)
        told: bytes | None = None
        for _ in pauses(deadline_seconds):
            unpaid = self._looked_after(urgency)
            outgoing = self._journal_row(number)
            told = self._tell(outgoing, told)
            if outgoing.status is not TransactionStatus.PENDING:
                return self._result_of(outgoing)
            if unpaid is not None:
                raise not_confirmed(unpaid.detail, outgoing.broadcasts[-1].hash) from unpaid
        last = outgoing.broadcasts[-1].hash
        raise not_confirmed(f"not confirmed within {deadline_seconds:g} s", last)

    def _tell(self, outgoing: Outgoing, told: bytes | None) -> bytes:
        """Of each hash it goes by, and of its end; returns what has been told."""
        current = outgoing.mined or outgoing.broadcasts[-1].hash
        needed = self.policy.confirmations
        if outgoing.mined is not None:
            self._listener(Progress(current, needed, needed))
        elif current != told:
            self._listener(Progress(current, 0, needed))
        return current

    def _looked_after(self, urgency: Urgency) -> InsufficientFunds | None:
        """As well as it goes now; says when money is missing."""
        try:
            with suppress(NetworkError), self._step_lock:
                self._look_after(urgency)
        except InsufficientFunds as error:
            return error
        return None

    def _result_of(self, outgoing: Outgoing) -> TransactionReceipt:
        if outgoing.mined is None:
            raise ChainReverted(
                "another transaction of the account took its nonce",
                hint="Let one program alone send from this account; then try again.",
            )
        receipt = self.connection.receipt(outgoing.mined)
        if receipt is None:
            raise not_confirmed("a reorganisation took it back", outgoing.mined)
        if not receipt.succeeded:
            raise failure_of(self.connection, _call_of(outgoing), self.address, receipt)
        return receipt

    def _look_after(self, urgency: Urgency) -> None:
        head = self.connection.latest_block()
        used = self.connection.used_nonces(self.address)
        self._take_up_again(used)
        waiting = []
        for outgoing in self._pending():
            if outgoing.nonce < used:
                self._end_if_deep(outgoing, head)
            else:
                waiting.append(outgoing)
        if waiting and self._is_gap(used, waiting[0]):
            nothing = ContractCall(self.address)
            waiting.insert(0, self.send(nothing, f"fill nonce {used}"))
        if waiting:
            self._push(waiting, urgency, head)

    def _is_gap(self, used: int, first: Outgoing) -> bool:
        """Whether nobody sends what ``first`` waits for: another program did, until a
        reorganisation took it back.
        """
        return first.nonce > used and all(one.nonce != used for one in self._finished())

    def _take_up_again(self, used: int) -> None:
        """What had ended and is not mined any more is pending again."""
        for outgoing in self._finished():
            if outgoing.nonce >= used and not self._is_in_chain(outgoing):
                _log.warning("transaction %d was taken back by a reorganisation", outgoing.number)
                pending = TransactionStatus.PENDING
                self.outbox.finish(outgoing.number, pending, None, None, None, None).result()

    def _is_in_chain(self, outgoing: Outgoing) -> bool:
        number = outgoing.block_number
        block = None if number is None else self.connection.block(number)
        return block is not None and block.hash == outgoing.block_hash

    # --- the end of a transaction ------------------------------------------------------------

    def _end_if_deep(self, outgoing: Outgoing, head: Block) -> None:
        """Its nonce is used up: note by what, once that has its confirmations."""
        receipt = self._mined(outgoing)
        if receipt is None:
            if self._is_used_deep(outgoing, head):
                _log.error("transaction %d lost its nonce to another one", outgoing.number)
                self._finish(outgoing, TransactionStatus.FAILED, None)
        elif self._is_deep(receipt, head):
            succeeded = receipt.succeeded
            status = TransactionStatus.CONFIRMED if succeeded else TransactionStatus.FAILED
            self._finish(outgoing, status, receipt)

    def _mined(self, outgoing: Outgoing) -> TransactionReceipt | None:
        for signed in reversed(outgoing.broadcasts):
            receipt = self.connection.receipt(signed.hash)
            if receipt is not None:
                return receipt
        return None

    def _is_deep(self, receipt: TransactionReceipt, head: Block) -> bool:
        if receipt.block_number > self._deep_block(head):
            return False
        block = self.connection.block(receipt.block_number)
        return block is not None and block.hash == receipt.block_hash

    def _is_used_deep(self, outgoing: Outgoing, head: Block) -> bool:
        deep = min(self._deep_block(head), head.number - LOST_BLOCKS + 1)
        return deep >= 0 and self.connection.used_nonces(self.address, deep) > outgoing.nonce

    def _deep_block(self, head: Block) -> int:
        return head.number - self.policy.confirmations + 1

    def _finish(
        self, outgoing: Outgoing, status: TransactionStatus, receipt: TransactionReceipt | None
    ) -> None:
        number = outgoing.number
        if receipt is None:
            ended = self.outbox.finish(number, status, None, None, None, None)
        else:
            place = (receipt.block_number, receipt.block_hash, receipt.fee_wei)
            ended = self.outbox.finish(number, status, receipt.transaction_hash, *place)
        self._ended.append(ended.result())
        self._raised_at.pop(number, None)

    # --- a transaction that waits ------------------------------------------------------------

    def _push(self, waiting: Sequence[Outgoing], urgency: Urgency, head: Block) -> None:
        """Bring those on their way that are not mined; ``waiting`` is in the order of nonces."""
        market = fee_market(self.connection)
        free_wei = self.connection.balance_wei(self.address) - sum(map(_cost_max_wei, waiting))
        unpaid: InsufficientFunds | None = None
        for outgoing in waiting:
            try:
                is_first = outgoing is waiting[0]
                pushed = self._pushed(outgoing, is_first, market, urgency, free_wei, head)
            except InsufficientFunds as error:
                unpaid = unpaid or error
                continue
            free_wei -= _cost_max_wei(pushed) - _cost_max_wei(outgoing)
        if unpaid is not None:
            raise unpaid

    def _pushed(
        self,
        outgoing: Outgoing,
        is_first: bool,
        market: FeeMarket,
        urgency: Urgency,
        free_wei: int,
        head: Block,
    ) -> Outgoing:
        """The transaction after it was replaced, sent again, or found waiting at the nodes."""
        hurry = min(1.0, max(0.0, urgency(outgoing)))
        is_too_low = _fees_of(outgoing).max_fee_wei < market.price_wei
        # Where no block is made, no offer is good enough; raised all the same, one is paid later.
        had_a_chance = self._raised_at.get(outgoing.number) != head.hash
        # Those behind the first wait for it: a better offer helps them only if theirs is too low.
        can_be_helped = is_too_low or (is_first and had_a_chance)
        if can_be_helped and self._has_waited(outgoing, hurry):
            fees = self._replacement(outgoing, market, hurry, free_wei)
            if fees is not None:
                self._raised_at[outgoing.number] = head.hash
                return self._replaced(outgoing, fees)
        last = outgoing.broadcasts[-1]
        if not self.connection.has_transaction(last.hash):
            self._require_paid(outgoing, self._broadcast(last))
        return outgoing

    def _has_waited(self, outgoing: Outgoing, hurry: float) -> bool:
        """For so long that it may be replaced; a clock that was put back counts as well."""
        waited_seconds = self._clock() - outgoing.broadcasts[-1].time / 1000
        return not 0 <= waited_seconds < self.policy.patience_seconds(hurry)

    def _replacement(
        self, outgoing: Outgoing, market: FeeMarket, hurry: float, free_wei: int
    ) -> Fees | None:
        own_wei = free_wei + _cost_max_wei(outgoing) - outgoing.value_wei
        limit = self._limit(own_wei, outgoing.gas)
        last = _fees_of(outgoing)
        fees = self.policy.replacement(last, market, hurry, limit)
        if fees is None and last.max_fee_wei < min(
            market.price_wei, self.policy.fee_per_gas_wei_max
        ):
            require_balance(self.address, own_wei, outgoing.gas * market.price_wei)
        return fees

    def _replaced(self, outgoing: Outgoing, fees: Fees) -> Outgoing:
        signed = self._signed(outgoing, fees)
        replaced = self.outbox.add_broadcast(outgoing.number, signed).result()
        _log.info(
            "transaction %d offers %d wei per gas now, with a tip of %d wei",
            outgoing.number,
            fees.max_fee_wei,
            fees.tip_wei,
        )
        self._require_paid(outgoing, self._broadcast(signed))
        return replaced

    def _require_paid(self, outgoing: Outgoing, refusal: ChannelPayError | None) -> None:
        if isinstance(refusal, InsufficientFunds):
            account = checksum(self.address)
            raise InsufficientFunds(
                f"{account} cannot pay transaction {outgoing.number} any more",
                hint="Send it money for gas: what is on its way goes on by itself then.",
                account=account,
            ) from refusal

    # --- the journal -------------------------------------------------------------------------

    def _pending(self) -> list[Outgoing]:
        return self.outbox.pending(self.connection.chain_id, self.address)

    def _finished(self) -> list[Outgoing]:
        """The newest ones of this account, which may still be taken back."""
        return [
            one
            for one in self.outbox.transactions(_JOURNALED_SEEN)
            if one.status is not TransactionStatus.PENDING
            and (one.chain_id, one.sender) == (self.connection.chain_id, self.address)
        ]

    def _journal_row(self, number: int) -> Outgoing:
        for outgoing in (*self._pending(), *self.outbox.transactions(_JOURNALED_SEEN)):
            if outgoing.number == number:
                return outgoing
        raise NotFound(f"no transaction {number} of this account is in the journal")


def _call_of(outgoing: Outgoing) -> ContractCall:
    return ContractCall(outgoing.to, outgoing.data, outgoing.value_wei)


def _fees_of(outgoing: Outgoing) -> Fees:
    last = outgoing.broadcasts[-1]
    return Fees(last.max_fee_wei, last.tip_wei)


def _cost_max_wei(outgoing: Outgoing) -> int:
    """What the account has to have for its last form."""
    return outgoing.value_wei + outgoing.gas * outgoing.broadcasts[-1].max_fee_wei
