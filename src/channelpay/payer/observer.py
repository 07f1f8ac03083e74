"""What the chain says of a payer's channels and tokens. Reads only: no key is needed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from channelpay.chain.connection import Connection
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.events import ChannelOpened, EventFilter, EventReader, ToppedUp, events_in
from channelpay.chain.funding import is_used
from channelpay.chain.types import TransactionReceipt
from channelpay.errors import InputError
from channelpay.payer.records import ETHER, Funding, PayerChannel, Token, TopUp
from channelpay.payer.state import PayerState
from channelpay.protocol.types import (
    NATIVE,
    Address,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
)

DECIMALS_MAX = 36
SYMBOL_MAX = 16


class Observer:
    """One payer's channels, seen through one node. Raises :class:`NetworkError` if it fails."""

    def __init__(self, connection: Connection, payer: Address, state: PayerState) -> None:
        self.payer = payer
        self._connection = connection
        self._state = state

    @property
    def chain_id(self) -> int:
        return self._connection.chain_id

    def balance(self, token: Address) -> int:
        """What the account holds outside of channels."""
        if token == NATIVE:
            return self._connection.balance_wei(self.payer)
        return Erc20(self._connection, token).balance(self.payer)

    def token(self, address: Address) -> Token:
        """How amounts of a token are written; the chain is asked once."""
        if address == NATIVE:
            return ETHER
        known = self._state.token(self.chain_id, address)
        if known is None:
            known = _described(Erc20(self._connection, address))
            self._state.remember_token(self.chain_id, known)
        return known

    def refresh(self, payee: Address | None = None) -> None:
        """Bring the books up to date with the chain, for all channels or those of one payee."""
        for entry in self._unfinished(payee):
            for funding in self._state.fundings(entry.channel_id):
                self._conclude(entry, funding)
        by_contract: dict[Deployment, list[PayerChannel]] = defaultdict(list)
        for entry in self._unfinished(payee):
            by_contract[entry.deployment].append(entry)
        for deployment, entries in by_contract.items():
            contract = self.contract_at(deployment)
            self._learn_grace(entries[0])
            over = self._over(entries)
            states = contract.states(entry.channel for entry in entries)
            for entry, state in zip(entries, states, strict=True):
                opened = entry.authorized is not None and state.status is not ChannelStatus.ABSENT
                if opened or entry.channel_id in over:
                    self._state.signed.end(entry.channel_id)
                elif state.deposit > entry.deposit and entry.status is not ChannelStatus.ABSENT:
                    self._find_top_ups(contract, entry)
                self._adopt(contract, entry, state)

    def _over(self, entries: Sequence[PayerChannel]) -> set[ChannelId]:
        """The channels whose signed funding was used, or has ended, as of now: what the chain says
        of them after this has it.
        """
        over, now = set(), None
        for entry in entries:
            funding = self._state.signed.of(entry.channel_id)
            if funding is None:
                continue
            now = self.chain_time() if now is None else now
            authorization, token = funding.signed.authorization, entry.channel.token
            if now > funding.ends_at or is_used(self._connection, authorization, token):
                over.add(entry.channel_id)
        return over

    def _unfinished(self, payee: Address | None) -> list[PayerChannel]:
        """The channels on this chain that are not finalized, all or those of one payee."""
        return [
            entry
            for entry in self._state.channels(self.payer)
            if entry.deployment.chain_id == self.chain_id
            and (payee is None or entry.channel.payee == payee)
            and entry.status is not ChannelStatus.FINALIZED
        ]

    def _conclude(self, entry: PayerChannel, funding: Funding) -> None:
        """What became of a funding that was left while its transaction could still be mined."""
        # In this order: a transaction without a receipt after its nonce was used is never mined.
        nonce_used = self._connection.used_nonces(self.payer) > funding.nonce
        receipt = self._connection.receipt(funding.transaction_hash)
        if receipt is None and not nonce_used:
            return
        opening = entry.status is ChannelStatus.ABSENT
        if receipt is not None and receipt.succeeded:
            self._enter_funding(entry, funding, receipt)
            return
        self._state.drop_funding(entry.channel_id, funding.transaction_hash)
        if receipt is not None and opening and not self._state.fundings(entry.channel_id):
            self._state.abandon_open(entry.channel_id)

    def _enter_funding(
        self, entry: PayerChannel, funding: Funding, receipt: TransactionReceipt
    ) -> None:
        contract = self.contract_at(entry.deployment)
        if any(isinstance(event, ToppedUp) for event in events_in(receipt, contract)):
            self._record_top_up(contract, entry, funding.amount, receipt)
            return
        if entry.status is ChannelStatus.ABSENT:  # Else another process entered the open just now.
            opened = ChannelState(ChannelStatus.OPEN, funding.amount)
            self._state.record_open_transaction(entry.channel_id, funding.transaction_hash)
            self._state.record_chain_state(entry.channel_id, opened, seen=entry)
        self._state.end_funding(entry.channel_id, funding.transaction_hash)

    def _record_top_up(
        self,
        contract: PaymentChannelsContract,
        entry: PayerChannel,
        amount: int,
        receipt: TransactionReceipt,
    ) -> TopUp:
        """Note a mined top-up; that ends the funding."""
        top_up = TopUp(entry.channel_id, receipt.transaction_hash, amount)
        totals = [e.deposit for e in events_in(receipt, contract) if isinstance(e, ToppedUp)]
        self._state.record_top_up(top_up, max(totals, default=entry.deposit + amount))
        self._state.end_funding(entry.channel_id, receipt.transaction_hash)
        return top_up

    def _adopt(
        self, contract: PaymentChannelsContract, entry: PayerChannel, state: ChannelState
    ) -> None:
        if state.status is ChannelStatus.ABSENT and self._state.abandon_unsent(entry.channel_id):
            return
        unknown = entry.open_transaction is None or entry.status is ChannelStatus.ABSENT
        if unknown and state.status is not ChannelStatus.ABSENT:
            self._find_open_transaction(contract, entry)
        self._state.record_chain_state(entry.channel_id, state, seen=entry)

    def _find_top_ups(self, contract: PaymentChannelsContract, entry: PayerChannel) -> None:
        """Somebody else added to the deposit: the payee has to be told of it before it counts."""
        if self._state.fundings(entry.channel_id):
            return  # Who sends one of ours tells.
        reader = EventReader(contract, EventFilter(channel_ids=frozenset({entry.channel_id})))
        batches = reader.read(reader.cursor_at(max(0, entry.first_block - 1)))
        self._state.note_top_ups(
            TopUp(entry.channel_id, event.place.transaction_hash, event.amount)
            for batch in batches
            for event in batch.events
            if isinstance(event, ToppedUp)
        )

    def _find_open_transaction(
        self, contract: PaymentChannelsContract, entry: PayerChannel
    ) -> None:
        """The process that sent it could not see it mined; the log has it as it was mined."""
        reader = EventReader(contract, EventFilter(channel_ids=frozenset({entry.channel_id})))
        for batch in reader.read(reader.cursor_at(entry.first_block - 1)):
            for event in batch.events:
                if isinstance(event, ChannelOpened):
                    transaction_hash = event.place.transaction_hash
                    self._state.record_open_transaction(entry.channel_id, transaction_hash)
                    return

    def _learn_grace(self, entry: PayerChannel) -> None:
        """Note the grace period of the channel's contract, so that it is known without a node."""
        if not entry.grace_seconds:
            grace_seconds = self.contract_at(entry.deployment).grace_period_seconds()
            self._state.record_grace(entry.deployment, grace_seconds)

    def chain_time(self) -> int:
        """Unix seconds of the newest block: what the contract goes by."""
        return self._connection.latest_block().timestamp

    def contract_at(self, deployment: Deployment) -> PaymentChannelsContract:
        return PaymentChannelsContract(self._connection, deployment)


def _described(erc20: Erc20) -> Token:
    """What a token says of itself, as far as it can stand in a terminal and a sum."""
    decimals = erc20.decimals()
    if decimals > DECIMALS_MAX:
        raise InputError(f"the token says that it has {decimals} decimals")
    symbol = "".join(letter for letter in erc20.symbol() if letter.isprintable())
    return Token(erc20.address, symbol[:SYMBOL_MAX], decimals)
