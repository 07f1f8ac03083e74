"""Channels whose payer is another wallet, such as a smart-contract wallet: this side plans what is
to be sent, has the session key, and sees on chain that it was done. The contract pays refunds to
that wallet, for it is the payer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from channelpay.chain.sender import pauses
from channelpay.chain.types import ContractCall
from channelpay.errors import ConfigError, NetworkError
from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.payer.wallet import Wallet
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, ChannelId

OUTSIDE_SECONDS_MAX = 86_400
"""For so long the books keep a planned channel that nobody opened; no other is opened beside it."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A transaction that the payer's own wallet is to send, and what it is for."""

    purpose: str
    chain_id: int
    call: ContractCall


@dataclass(frozen=True, slots=True)
class Planned:
    """A channel, and what its payer's wallet has to send for it, in this order."""

    channel: PayerChannel
    errands: Sequence[Errand]


class OutsideWallet:
    """Plans for ``wallet``, whose account has no key here, in the books ``state``. Raises what a
    :class:`Wallet` raises.
    """

    def __init__(self, wallet: Wallet, state: PayerState) -> None:
        self._wallet = wallet
        self._state = state

    def open(self, payee: Address, token: Address, deposit: int, url: str | None) -> Planned:
        """Plan a channel and enter it into the books, which wait a day for the chain to have it.
        One that is opened later is found again by :func:`channelpay.payer.recovery.rebuild`.
        """
        planned = self._wallet.plan(payee, token, deposit, url)
        if not self._state.announce_open(planned, int(time.time()) + OUTSIDE_SECONDS_MAX):
            raise ConfigError(
                "this channel is planned already",
                hint="Look at your channels, then try again: channelpay channel list",
            )
        call = self._wallet.contract_at(planned.deployment).open(planned.channel, deposit)
        return self._planned(planned, "open", call, deposit)

    def top_up(self, entry: PayerChannel, amount: int) -> Planned:
        call = self._wallet.contract_at(entry.deployment).top_up(entry.channel, amount)
        return self._planned(entry, "topUp", call, amount)

    def request_close(self, entry: PayerChannel) -> Planned:
        call = self._wallet.contract_at(entry.deployment).request_close(entry.channel)
        return self._planned(entry, "requestClose", call)

    def withdraw(self, entry: PayerChannel) -> Planned:
        call = self._wallet.contract_at(entry.deployment).withdraw(entry.channel)
        return self._planned(entry, "withdraw", call)

    def wait(
        self,
        channel_id: ChannelId,
        is_done: Callable[[PayerChannel], bool],
        seconds: float = OUTSIDE_SECONDS_MAX,
    ) -> PayerChannel:
        """Look at the chain until the channel is as it should be. Raises :class:`NetworkError` if
        it is not in time.
        """
        payee = self._state.channel(channel_id).channel.payee
        for _ in pauses(seconds):
            self._wallet.refresh(payee)
            entry = self._state.channel(channel_id)
            if is_done(entry):
                return entry
        raise NetworkError(
            "the chain does not show what the wallet was to send",
            hint="Once it is sent: channelpay channel list",
            channelId=to_hex(channel_id),
        )

    def _planned(
        self, entry: PayerChannel, purpose: str, call: ContractCall, amount: int = 0
    ) -> Planned:
        chain_id = entry.deployment.chain_id
        approval = self._wallet.approval(entry.channel.token, amount) if amount else None
        errands = [Errand(purpose, chain_id, call)]
        if approval is not None:
            errands.insert(0, Errand("approve", chain_id, approval))
        return Planned(entry, errands)
