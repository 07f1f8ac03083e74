"""The payer's transactions: open, top up, request close, withdraw.

Every open is in the books before its transaction is sent, so one that was interrupted at any point
is found again by :meth:`Wallet.refresh`.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from channelpay.chain.connection import Connection
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.sender import NotConfirmed, Sender, SendPolicy, pauses
from channelpay.chain.types import ContractCall, TransactionSigner, Trial
from channelpay.errors import (
    BudgetExceeded,
    ChainReverted,
    ChannelPayError,
    ConfigError,
    InputError,
)
from channelpay.payer.funding_signer import FundingSigner
from channelpay.payer.fundings import FUNDING_SECONDS_MAX
from channelpay.payer.gasless import OWN, GasChoice
from channelpay.payer.observer import Observer
from channelpay.payer.records import Funding, PayerChannel, TopUp
from channelpay.payer.session_keys import SessionKeys
from channelpay.payer.state import PayerState
from channelpay.protocol.funding import FundingMethod
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    DEPOSIT_MAX,
    EPOCH_BYTES,
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
)

CLOSE_SEEN_SECONDS = 20.0
"""For so long our node may be behind that of a payee which has seen its close confirmed."""
EPOCH_MAX = 2 ** (8 * EPOCH_BYTES) - 1
_SALT_BYTES = 32

Undo = Callable[[bytes | None], None]
"""Called with the hash of the journaled transaction that was not sent, or None before there is one.
"""


class Wallet(Observer):
    """One account on one chain. Amounts in base units; transaction hashes have 32 bytes.

    Its methods raise what :class:`~channelpay.chain.sender.Sender` raises, and :class:`NotFound`
    for an unknown channel.
    """

    def __init__(
        self,
        connection: Connection,
        account: TransactionSigner,
        contract: Address,
        state: PayerState,
        session_keys: SessionKeys,
        policy: SendPolicy | None = None,
    ) -> None:
        self._session_keys = session_keys
        self._sender = Sender(connection, account, policy)
        self._signer = FundingSigner(connection, account, self._sender.address)
        super().__init__(connection, self._sender.address, state)
        self.deployment: Deployment = Deployment(connection.chain_id, contract)

    # --- open --------------------------------------------------------------------------------

    def open(
        self, payee: Address, token: Address, deposit: int, url: str | None = None
    ) -> PayerChannel:
        """Open a channel and wait until it is confirmed.

        A lane whose channel is finalized is used again: that costs less gas than a fresh one.
        """
        planned = self.plan(payee, token, deposit, url)
        self._begin(planned)
        return self._open_planned(planned)

    def open_unless_usable(
        self,
        payee: Address,
        token: Address,
        deposit: int,
        url: str | None,
        gas: GasChoice = OWN,
    ) -> PayerChannel | None:
        """Open a channel, unless the two have a usable one or are opening one: then None. None as
        well if the open was signed, for the payee to send.

        Refuses to lock money a second time while a channel is open that the payee does not take.
        """
        self.refresh(payee)
        method = self._signer.method(gas, token, deposit)
        for entry in self._state.channels_to(self.deployment, self.payer, payee, token):
            if self._state.is_being_funded(entry.channel_id):
                continue  # Its transaction may leave at this very moment.
            if entry.status is ChannelStatus.ABSENT and self._dropped(entry):
                # The contract opens a channel once, whichever transaction comes first.
                return self._send_open(entry, partial(self._state.drop_funding, entry.channel_id))
            if entry.status is ChannelStatus.ABSENT and self._state.signed.of(entry.channel_id):
                return self._open_again(replace(entry, deposit=deposit), method)
            is_refused = entry.status is ChannelStatus.OPEN and entry.refused is not None
            if is_refused and self._can_sign(entry):
                raise BudgetExceeded(
                    f"the payee refuses channel {to_hex(entry.channel_id)} ({entry.refused}),"
                    " though it is open",
                    hint="Take your deposit back first: channelpay channel close --request",
                )
        planned = self.plan(payee, token, deposit, url)
        if not self._state.begin_open(planned, unless_usable=self._can_sign):
            return None
        if method is None:
            return self._open_planned(planned)
        self._sign_open(planned, method)
        return None

    def _can_sign(self, entry: PayerChannel) -> bool:
        return self._session_keys.can_sign(entry.deployment, entry.channel)

    def sign_open(
        self, payee: Address, token: Address, deposit: int, url: str, gas: GasChoice
    ) -> PayerChannel:
        """Plan a channel and sign its open, for the payee to send."""
        method = self._signer.method(gas, token, deposit)
        if method is None:
            raise ValueError("the payer pays its own gas")
        planned = self.plan(payee, token, deposit, url)
        self._begin(planned)
        self._sign_open(planned, method)
        return self._state.channel(planned.channel_id)

    def _begin(self, planned: PayerChannel) -> None:
        if not self._state.begin_open(planned):
            raise ConfigError(
                "another process opens the same channel at this moment",
                hint="Look at your channels, then try again: channelpay channel list",
            )

    def _sign_open(self, planned: PayerChannel, method: FundingMethod) -> None:
        try:
            funding = self._signer.open(method, planned)
        except BaseException:
            self._state.abandon_open(planned.channel_id)
            raise
        self._state.signed.record(planned.channel_id, funding)

    def _open_again(self, entry: PayerChannel, method: FundingMethod | None) -> PayerChannel | None:
        """Have the very channel opened whose open was signed before, so that it is not opened
        beside another one: what was signed may still be used.
        """
        channel_id, now = entry.channel_id, int(time.time())
        if method is None:
            until = now + FUNDING_SECONDS_MAX
            if not self._state.signed.claim_open(channel_id, until, now):
                return None
            return self._send_open(entry, partial(self._state.drop_funding, channel_id))
        if entry.authorized is None or entry.refused is not None:
            self._state.signed.record(channel_id, self._signer.open(method, entry))
        return None

    def plan(self, payee: Address, token: Address, deposit: int, url: str | None) -> PayerChannel:
        """The channel that an open would make. Nothing is signed or sent."""
        if not 0 < deposit <= DEPOSIT_MAX:
            raise InputError("a deposit is more than zero and less than 2**96 base units")
        contract = self.contract_at(self.deployment)
        contract.require_genuine()
        channel = self._reopened(contract, payee, token)
        if channel is None:
            salt = secrets.token_bytes(_SALT_BYTES - EPOCH_BYTES) + bytes(EPOCH_BYTES)
            channel = Channel(self.payer, payee, token, ZERO_ADDRESS, salt)
            signer = self._session_keys.address(self.deployment, channel)
            channel = replace(channel, authorized_signer=signer)
        block = self._connection.latest_block().number
        return PayerChannel.planned(self.deployment, channel, deposit, url, block)

    def _reopened(
        self, contract: PaymentChannelsContract, payee: Address, token: Address
    ) -> Channel | None:
        """The next epoch of a lane that is certainly free, and whose vouchers we can sign. Books
        that are too old may miss the last one.
        """
        lanes: dict[bytes, list[PayerChannel]] = defaultdict(list)
        for entry in self._state.channels_to(self.deployment, self.payer, payee, token):
            if self._session_keys.can_sign(self.deployment, entry.channel):
                lanes[entry.channel.lane].append(entry)
        for entries in lanes.values():
            last = max((entry.channel for entry in entries), key=lambda channel: channel.epoch)
            if last.epoch == EPOCH_MAX:
                continue
            following = last.with_epoch(last.epoch + 1)
            ended, free = contract.states((last, following))
            if (ended.status, free.status) == (ChannelStatus.FINALIZED, ChannelStatus.ABSENT):
                # With the next open, the contract forgets what the last one cost.
                self._state.record_chain_state(last.id(self.deployment), ended)
                return following
        return None

    def _open_planned(self, planned: PayerChannel) -> PayerChannel:
        return self._send_open(planned, lambda _: self._state.abandon_open(planned.channel_id))

    def _send_open(self, planned: PayerChannel, forget: Undo) -> PayerChannel:
        channel_id, contract = planned.channel_id, self.contract_at(planned.deployment)
        call = contract.open(planned.channel, planned.deposit)
        try:
            transaction_hash = self._submit_funding(planned, planned.deposit, call, forget)
            self._wait_for_open(transaction_hash, call, forget)
        except NotConfirmed:
            self._state.drop_funding(channel_id, None)  # Nobody waits for it any more.
            raise
        opened = ChannelState(ChannelStatus.OPEN, planned.deposit)
        self._state.record_chain_state(channel_id, opened)
        self._state.end_funding(channel_id, transaction_hash)
        self._learn_grace(planned)
        return self._state.channel(channel_id)

    def _wait_for_open(self, transaction_hash: bytes, call: ContractCall, forget: Undo) -> None:
        try:
            self._sender.wait(transaction_hash, call)
        except ChainReverted:
            forget(transaction_hash)
            raise

    # --- the rest of its life ----------------------------------------------------------------

    def top_up(
        self,
        channel_id: ChannelId,
        amount: int,
        deposit: int | None = None,
        gas: GasChoice = OWN,
    ) -> TopUp | None:
        """Add to a channel's deposit; takes a close request back. None if another process is
        topping it up now, or did so since the deposit was ``deposit``, or the transaction of an
        earlier top-up may still be mined; or if this one was signed, for the payee to send.

        One that the node has dropped does not stand in the way: its nonce is used again.
        """
        entry = self._state.channel(channel_id)
        if not 0 < amount <= DEPOSIT_MAX - entry.deposit:
            raise InputError("a top-up is more than zero; a deposit stays below 2**96 base units")
        contract = self.contract_at(entry.deployment)
        dropped = self._dropped(entry)
        seen = entry.deposit if deposit is None else deposit
        if not self._state.begin_top_up(channel_id, seen, instead_of=dropped):
            self.refresh(entry.channel.payee)
            return None
        if self._signed_top_up(entry, amount, gas):
            return None
        call = contract.top_up(entry.channel, amount)
        undo = partial(self._state.drop_funding, channel_id)
        transaction_hash = self._submit_funding(entry, amount, call, undo)
        try:
            receipt = self._sender.wait(transaction_hash, call)
        except ChainReverted:
            self._state.end_funding(channel_id, transaction_hash)
            raise
        return self._record_top_up(contract, entry, amount, receipt)

    def _signed_top_up(self, entry: PayerChannel, amount: int, gas: GasChoice) -> bool:
        """Sign a top-up that was begun, if the payee is to send it."""
        try:
            method = self._signer.method(gas, entry.channel.token, amount)
            if method is None:
                return False
            funding = self._signer.top_up(method, entry, amount)
        except BaseException:
            self._state.drop_funding(entry.channel_id, None)
            raise
        self._state.signed.record(entry.channel_id, funding)
        return True

    def _dropped(self, entry: PayerChannel) -> Funding | None:
        """The last journaled transaction, if the node has forgotten all of them and none was mined:
        whatever is sent with the same nonce takes its place.
        """
        fundings = self._state.fundings(entry.channel_id)
        known = any(self._connection.has_transaction(one.transaction_hash) for one in fundings)
        if not fundings or known:
            return None
        return fundings[-1] if self._may_be_mined(fundings[-1]) else None

    def _may_be_mined(self, funding: Funding) -> bool:
        return self._connection.used_nonces(self.payer) <= funding.nonce

    def request_close(self, channel_id: ChannelId) -> int:
        """Start the grace period without the payee; Unix seconds of the earliest withdrawal."""
        entry = self._state.channel(channel_id)
        contract = self.contract_at(entry.deployment)
        self._sender.send(contract.request_close(entry.channel))
        self._learn_grace(entry)
        state = self._record(contract, entry)
        return state.close_requested_at + contract.grace_period_seconds()

    def see_closed(self, entry: PayerChannel, transaction_hash: bytes) -> None:
        """Wait until the chain says what the payee says: its word is no refund. Raises
        :class:`NotConfirmed`.
        """
        for _ in pauses(CLOSE_SEEN_SECONDS):
            self.refresh(entry.channel.payee)
            if self._state.channel(entry.channel_id).status is ChannelStatus.FINALIZED:
                return
        name = to_hex(entry.channel_id)
        raise NotConfirmed(
            "the payee says that the channel is closed, and the chain does not say so",
            hint=f"Look again in a minute: channelpay channel show {name}. If it stays open, take"
            f" your deposit back without the payee: channelpay channel close {name} --request",
            txHash=to_hex(transaction_hash),
            channelId=name,
        )

    def withdraw(self, channel_id: ChannelId) -> bytes:
        """Take back what was not settled, once the grace period is over; the transaction's hash."""
        entry = self._state.channel(channel_id)
        contract = self.contract_at(entry.deployment)
        receipt = self._sender.send(contract.withdraw(entry.channel))
        self._record(contract, entry)
        return receipt.transaction_hash

    def withdrawable(self) -> list[PayerChannel]:
        """The channels on this chain whose grace period is over, by the chain's own clock."""
        self.refresh()
        now = self.chain_time()
        return [
            entry
            for entry in self._unfinished(None)
            if entry.withdrawable_at is not None and entry.withdrawable_at <= now
        ]

    # --- inside one transaction --------------------------------------------------------------

    def _submit_funding(
        self, entry: PayerChannel, amount: int, call: ContractCall, undo: Undo
    ) -> bytes:
        """Approve and submit what brings ``amount`` into a channel; journaled before it leaves, and
        undone only if it certainly did not.
        """
        journaled: list[bytes | None] = [None]
        earlier = self._state.fundings(entry.channel_id)

        def journal(transaction_hash: bytes, nonce: int) -> None:
            if entry.status is not ChannelStatus.ABSENT:
                self._require_instead_of(earlier, nonce)
            self._state.record_funding(Funding(entry.channel_id, transaction_hash, nonce, amount))
            journaled.append(transaction_hash)

        try:
            self._approve(entry.channel.token, amount)
        except BaseException:
            undo(None)
            raise
        try:
            return self._sender.submit(call, journal)
        except NotConfirmed:
            raise
        except ChannelPayError:
            undo(journaled[-1])
            raise

    def _require_instead_of(self, earlier: list[Funding], nonce: int) -> None:
        """With the same nonce, or where it was used meanwhile, one of the two is mined at most."""
        if any(one.nonce != nonce and self._may_be_mined(one) for one in earlier):
            raise ConfigError(
                "another program uses this account at this moment",
                hint="Nothing was sent. Look at your channels: channelpay channel list",
            )

    def _record(self, contract: PaymentChannelsContract, entry: PayerChannel) -> ChannelState:
        state = contract.state(entry.channel)
        self._state.record_chain_state(entry.channel_id, state)
        return state

    def approval(self, token: Address, amount: int) -> ContractCall | None:
        """What lets the contract take exactly this much; None if it may already."""
        if token == NATIVE:
            return None
        erc20, spender = Erc20(self._connection, token), self.deployment.contract
        if erc20.allowance(self.payer, spender) >= amount:
            return None
        return erc20.approve(spender, amount)

    def trial(self, call: ContractCall) -> Trial:
        """What a transaction would use and cost. Nothing is signed or sent; raises what
        :meth:`~channelpay.chain.sender.Sender.submit` raises before that.
        """
        return self._sender.trial(call)

    def _approve(self, token: Address, amount: int) -> None:
        call = self.approval(token, amount)
        if call is not None:
            self._sender.send(call)
