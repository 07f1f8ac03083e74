"""Channels on a development chain, opened and led through their life in one line each."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from eth_account import Account

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.sender import Sender
from channelpay.chain.types import ContractCall, TransactionReceipt
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    Voucher,
)
from channelpay.testing.accounts import DevAccount
from channelpay.testing.furnished import FurnishedChain

PAYER, PAYEE = 1, 2
"""Which development accounts pay and are paid unless a test says otherwise."""
DEPOSIT = 10**18
"""One ether, in wei."""
_SALT_BYTES = 32


@dataclass(frozen=True)
class OpenedChannel:
    """A channel that is on the chain, with the keys of both sides. Amounts in base units.

    Every method that sends a transaction waits until it is mined, and raises
    :class:`~channelpay.errors.ChainReverted` where the contract refuses it.
    """

    channel: Channel
    id: ChannelId
    open_transaction: bytes
    payer: DevAccount
    payee: DevAccount
    _factory: ChannelFactory = field(repr=False)

    def sign(self, cumulative_amount: int) -> Voucher:
        """The payer's voucher."""
        deployment = self._factory.furnished.deployment
        return VoucherSigner(deployment, self.payer.private_key).sign(self.id, cumulative_amount)

    def state(self) -> ChannelState:
        """What the contract says of it now."""
        return self._factory.contract.state(self.channel)

    def top_up(self, amount: int) -> TransactionReceipt:
        return self._send(self.payer, self._factory.contract.top_up(self.channel, amount))

    def settle(self, voucher: Voucher) -> TransactionReceipt:
        call = self._factory.contract.settle(
            self.channel, voucher.cumulative_amount, voucher.signature
        )
        return self._send(self.payee, call)

    def close(self, voucher: Voucher | None = None) -> TransactionReceipt:
        """By the payee; without a voucher it takes nothing more."""
        amount, signature = (
            (0, b"") if voucher is None else (voucher.cumulative_amount, voucher.signature)
        )
        return self._send(self.payee, self._factory.contract.close(self.channel, amount, signature))

    def request_close(self) -> TransactionReceipt:
        return self._send(self.payer, self._factory.contract.request_close(self.channel))

    def withdraw(self) -> TransactionReceipt:
        """By the payer, once the grace period is over: ``channelpay_chain.advance(seconds)``."""
        return self._send(self.payer, self._factory.contract.withdraw(self.channel))

    def _send(self, account: DevAccount, call: ContractCall) -> TransactionReceipt:
        return self._factory.send(account, call)


class ChannelFactory:
    """Opens channels: ``factory(deposit)``. The payer is account 1 and the payee account 2 unless
    a call names others.
    """

    def __init__(self, furnished: FurnishedChain) -> None:
        self.furnished = furnished
        self.connection: Connection = connect(furnished.chain.rpc_url)
        self.contract: PaymentChannelsContract = PaymentChannelsContract(
            self.connection, furnished.deployment
        )

    def __call__(
        self,
        deposit: int = DEPOSIT,
        *,
        token: Address = NATIVE,
        payer: DevAccount | None = None,
        payee: DevAccount | None = None,
        salt: bytes | None = None,
    ) -> OpenedChannel:
        """Open a channel of ``deposit`` base units (wei, or units of ``token``)."""
        accounts = self.furnished.chain.accounts
        payer, payee = payer or accounts[PAYER], payee or accounts[PAYEE]
        salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
        channel = Channel(payer.address, payee.address, token, ZERO_ADDRESS, salt)
        receipt = self.send(payer, self.contract.open(channel, deposit))
        channel_id = channel.id(self.furnished.deployment)
        return OpenedChannel(channel, channel_id, receipt.transaction_hash, payer, payee, self)

    def send(self, account: DevAccount, call: ContractCall) -> TransactionReceipt:
        """Send any call from one of the accounts, and wait for it."""
        return Sender(self.connection, Account.from_key(account.private_key)).send(call)
