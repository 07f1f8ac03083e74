"""The payer: one account, its limits, its books and its channels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from channelpay.errors import ChannelFinalized, ConfigError, InputError, NetworkError
from channelpay.payer.closing import Closed, CloseSession
from channelpay.payer.limits import Limits
from channelpay.payer.offers import Terms
from channelpay.payer.records import PayerChannel, Token, TopUp
from channelpay.payer.refusals import not_confirmed
from channelpay.payer.session import PaymentSession
from channelpay.payer.session_keys import SessionKeys
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Add, Open, Step
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    ChannelId,
    Deployment,
    Voucher,
)

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from channelpay.chain.connection import Connection
    from channelpay.chain.sender import SendPolicy
    from channelpay.payer.wallet import Wallet


class Payer:
    """Pays for requests out of payment channels.

    ``account`` is an account of eth-account or its key (32 bytes). ``connection`` is a connected
    node or its URL; it is asked only when a transaction is needed, so None will do without any.
    ``chain_id`` is the only chain to pay on (default: any).
    ``contract`` is the one contract that this payer trusts (20 bytes; default: the canonical
    deployment). ``limits`` says in which tokens, and how much, it may pay by itself. ``state`` is
    the file of its books, which several processes may share; without it, open channels can only be
    closed.
    Threads may share a payer.
    """

    def __init__(  # noqa: PLR0913  each is one option
        self,
        account: LocalAccount | bytes,
        connection: Connection | str | None,
        state: Path | str,
        *,
        limits: Iterable[Limits] = (),
        chain_id: int | None = None,
        contract: Address | None = None,
        allow_plain_http: bool = False,
        policy: SendPolicy | None = None,
    ) -> None:
        self._secret = account if isinstance(account, bytes) else bytes(account.key)
        self._connection = connection
        self._chain_id = chain_id
        self._contract = canonical_contract() if contract is None else contract
        self._policy = policy
        self._limits = {limit.token: limit for limit in limits}
        self._session_keys = SessionKeys.of_account(self._secret)
        self._signers: dict[tuple[Deployment, Address], VoucherSigner] = {}
        self._wallet: Wallet | None = None
        self._wallet_lock = Lock()
        self.address = VoucherSigner(Deployment(0, self._contract), self._secret).address
        self.state = PayerState(Path(state))
        self._terms = Terms(
            payer=self.address,
            contract=self._contract,
            limits=self._limits,
            sign=self._sign,
            chain_id=lambda: self.wallet.chain_id,
            allow_plain_http=allow_plain_http,
            only_chain_id=chain_id,
        )

    def close(self) -> None:
        """Close the books; channels stay open."""
        self.state.close()

    @property
    def wallet(self) -> Wallet:
        """The payer's account on its chain; connects at the first use."""
        with self._wallet_lock:
            if self._wallet is None:
                self._wallet = self._connected()
            return self._wallet

    def allow(self, limits: Limits) -> None:
        """Set the limits for their token, instead of those it has."""
        self._limits[limits.token] = limits

    def token(self, address: Address) -> Token:
        """How amounts of a token are written."""
        return self.wallet.token(address)

    # --- channels ----------------------------------------------------------------------------

    def channels(self) -> list[PayerChannel]:
        """All channels, as the chain has them now; opens that were interrupted are found again."""
        self.wallet.refresh()
        return self.state.channels(self.address)

    def open_channel(
        self, payee: Address, deposit: int, token: Address = NATIVE, url: str | None = None
    ) -> PayerChannel:
        """Open a channel and wait for its confirmation. ``url`` is where it will be used."""
        return self.wallet.open(payee, token, deposit, url)

    def top_up(self, channel_id: ChannelId, amount: int) -> TopUp:
        """Add to a channel's deposit. Takes a close request back."""
        top_up = self.wallet.top_up(channel_id, amount)
        if top_up is not None:
            return top_up
        if fundings := self.state.fundings(channel_id):
            raise not_confirmed(fundings[-1])
        raise NetworkError(
            "another top-up of this channel is under way",
            hint="Look at your channels, then try again: channelpay channel list",
        )

    def close_channel(self, channel_id: ChannelId, url: str | None = None) -> Closed:
        """Ask the payee to close a channel and wait until it did; the rest of the deposit is back
        then.

        ``url`` is an address of the payee that has to be paid for; without it, the last one that
        the channel was used for. Raises the payee's refusal; then :meth:`request_close` helps.
        """
        from channelpay.payer.httpx import close_client, run_bare

        entry = self.state.channel(channel_id)
        target = url or entry.url
        if target is None:
            raise InputError(
                "it is not known where this channel was used",
                hint="Name an address of the payee that has to be paid for (--url).",
            )
        steps = CloseSession(self._terms, self.state, entry, target).run()
        with close_client() as client:
            closed = run_bare(client, target, steps)
        self.state.refuse(channel_id, ChannelFinalized.code)
        if self._connection is not None:
            self.wallet.refresh(entry.channel.payee)
        return closed

    def request_close(self, channel_id: ChannelId) -> int:
        """Start to close without the payee; Unix seconds from which :meth:`withdraw` works."""
        return self.wallet.request_close(channel_id)

    def withdraw(self, channel_id: ChannelId) -> bytes:
        """Take the rest back once the grace period is over; the transaction's hash (32 bytes)."""
        return self.wallet.withdraw(channel_id)

    def withdrawable(self) -> list[PayerChannel]:
        """The channels that :meth:`withdraw` works for now."""
        return self.wallet.withdrawable()

    # --- for the adapters --------------------------------------------------------------------

    def session(self, url: str, idempotency_key: str | None = None) -> PaymentSession:
        """One request's payment; an adapter drives it: see :mod:`channelpay.payer.steps`."""
        return PaymentSession(self._terms, self.state, url, idempotency_key)

    def perform(self, step: Step) -> None:
        """Do what a session asks of the chain; other steps are the adapter's own."""
        if isinstance(step, Open):
            request = step.request
            self.wallet.open_unless_usable(
                request.recipient, request.currency, step.deposit, step.url
            )
        elif isinstance(step, Add):
            self.wallet.top_up(step.channel_id, step.amount, step.deposit)

    def _sign(self, entry: PayerChannel, amount: int) -> Voucher:
        place = (entry.deployment, entry.channel.signer)
        signer = self._signers.get(place)
        if signer is None:
            signer = self._signers[place] = self._signer_of(entry)
        return signer.sign(entry.channel_id, amount)

    def _signer_of(self, entry: PayerChannel) -> VoucherSigner:
        """Raises :class:`ConfigError` for a channel that was opened with a key of somebody else's
        making.
        """
        if entry.channel.authorized_signer == ZERO_ADDRESS:
            return VoucherSigner(entry.deployment, self._secret)
        signer = self._session_keys.signer(entry.deployment, entry.channel)
        if signer.address != entry.channel.authorized_signer:
            raise ConfigError(
                f"the vouchers of {to_hex(entry.channel_id)} are signed by another program's key",
                hint="Pay with the program that opened it, or take the deposit back: channelpay"
                " channel close --request",
            )
        return signer

    def _connected(self) -> Wallet:
        from eth_account import Account

        from channelpay.chain.connection import connect
        from channelpay.payer.wallet import Wallet

        connection = self._connection
        if connection is None:
            raise ConfigError(
                "a transaction is needed, and no node is named",
                hint="Name an Ethereum node with --rpc or CHANNELPAY_RPC.",
            )
        if isinstance(connection, str):
            connection = connect(connection, expected_chain_id=self._chain_id)
        elif self._chain_id is not None:
            connection.require_chain(self._chain_id)
        account = Account.from_key(self._secret)
        return Wallet(
            connection, account, self._contract, self.state, self._session_keys, self._policy
        )

    def __repr__(self) -> str:
        return f"Payer(0x{self.address.hex()})"


def canonical_contract() -> Address:
    """The contract with a grace period of one day, at the same address on every chain."""
    from channelpay.chain.create2 import predicted_address

    return predicted_address()
