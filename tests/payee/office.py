"""A payee's back office for tests: books in memory, a link to the chain, and a payer beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.sender import Sender
from channelpay.errors import ChannelPayError
from channelpay.payee.acceptance import Confirmations
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.follower import Follower
from channelpay.payee.terms import Terms, Token
from channelpay.protocol.rules import ChannelRecord, Purchase
from channelpay.store import MemoryStore
from channelpay.testing.furnished import FurnishedChain
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer


@dataclass
class Office:
    """``sender`` has the payee's key."""

    payer: Payer
    terms: Terms
    link: ChainLink
    sender: Sender
    store: MemoryStore = field(default_factory=MemoryStore)

    def follower(self) -> Follower:
        """One that was started just now: it knows what is in the books."""
        return Follower(self.terms, self.link, self.store)

    def follow(self) -> None:
        self.follower().step()

    def channel(self, cumulative: int = 0, deposit: int = DEPOSIT) -> OpenChannel:
        """An open channel in the books, with one voucher that bought something."""
        channel = self.payer.open(deposit)
        self.enter(channel)
        if cumulative:
            self.buy(channel, cumulative)
        return channel

    def enter(self, channel: OpenChannel) -> None:
        """As a payer presents it."""
        view, _ = self.link.opened(channel.id, channel.channel, channel.transaction_hash)
        self.store.add_channel(channel.id, channel.channel, view).result()

    def buy(self, channel: OpenChannel, cumulative: int) -> None:
        """Something for :data:`PRICE`, with a voucher for ``cumulative``. Raises the refusal."""
        voucher = channel.sign(cumulative)
        purchase = Purchase(voucher, PRICE, "GET /page", 0, str(cumulative))
        (answer,) = self.store.accept([purchase]).result()
        if isinstance(answer, ChannelPayError):
            raise answer

    def settle(self, channel: OpenChannel) -> None:
        """With the best voucher of the books."""
        voucher = self.record(channel).voucher
        assert voucher is not None
        contract = self.link.contract
        amount, signature = voucher.cumulative_amount, voucher.signature
        self.sender.send(contract.settle(channel.channel, amount, signature))

    def close(self, channel: OpenChannel) -> None:
        """With the best voucher of the books."""
        voucher = self.record(channel).voucher
        assert voucher is not None
        contract = self.link.contract
        amount, signature = voucher.cumulative_amount, voucher.signature
        self.sender.send(contract.close(channel.channel, amount, signature))

    def record(self, channel: OpenChannel) -> ChannelRecord:
        record = self.store.record(channel.id)
        assert record is not None
        return record

    def payee_tokens(self) -> int:
        connection = self.link.contract.connection
        return Erc20(connection, self.terms.tokens[0].address).balance(self.terms.payee)

    def forget_nonces(self) -> None:
        """After a reorganisation the chain counts anew."""
        self.sender._next_nonce = self.payer.sender._next_nonce = 0


def office_on(
    furnished: FurnishedChain, payer: Payer, confirmations: Confirmations | int = 1
) -> Office:
    """The office of the third development account."""
    if isinstance(confirmations, int):
        confirmations = Confirmations(confirmations)
    connection = connect(furnished.chain.rpc_url)
    contract = PaymentChannelsContract(connection, furnished.deployment)
    account = furnished.chain.accounts[2]
    token = Token(furnished.token, "TUSD", 6)
    terms = Terms(furnished.deployment, account.address, (token,))
    sender = Sender(connection, Account.from_key(account.private_key))
    return Office(payer, terms, ChainLink(contract, confirmations), sender)
