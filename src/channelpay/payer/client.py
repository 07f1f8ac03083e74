"""The payer: one account, its limits, its books and its channels."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from channelpay.chain.outside import OutsideAccount
from channelpay.errors import ChannelFinalized, ConfigError, InputError, NetworkError, NotFound
from channelpay.payer.budgets import Confirm, never
from channelpay.payer.carried_open import Carried
from channelpay.payer.closing import Closed, CloseSession, ForeseenClose
from channelpay.payer.gasless import OWN, GasChoice, Gasless
from channelpay.payer.limits import Limits
from channelpay.payer.offers import Allowed, Terms
from channelpay.payer.purchases import Purchase, folder_beside, purchase_of
from channelpay.payer.records import PayerChannel, Token, TopUp
from channelpay.payer.refusals import error_of, not_confirmed
from channelpay.payer.session import PaymentSession
from channelpay.payer.session_keys import SessionKeys
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Add, Look, Open, Step
from channelpay.payer.tab_payment import TabAsked, TabPaid, TabPayment
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.parse import parse_address
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    ChannelId,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.protocol.wire import SessionRequest, SignedTopUpPayload

if TYPE_CHECKING:
    from channelpay.chain.connection import Connection
    from channelpay.chain.sender import SendPolicy
    from channelpay.chain.types import TransactionSigner
    from channelpay.payer.foresight import Foreseen
    from channelpay.payer.outside import OutsideWallet
    from channelpay.payer.wallet import Wallet
    from channelpay.protocol.receipts import SignedReceipt


class Payer:
    """Pays for requests out of payment channels.

    ``account`` is an account of eth-account or its key (32 bytes); or anything else that signs
    transactions, as a hardware wallet does: then ``session_keys`` says what signs vouchers, which
    for other accounts comes from the key. With an
    :class:`~channelpay.chain.outside.OutsideAccount` another wallet opens the channels, a
    smart-contract wallet say: see :attr:`outside`. ``connection`` is a connected node or its URL;
    it is asked only when a transaction is needed, so None will do without any.
    ``chain_id`` is the only chain to pay on (default: any).
    ``contract`` is the one contract that this payer trusts (20 bytes; default: the canonical
    deployment). ``limits`` says in which tokens, and how much, it may pay by itself. ``state`` is
    the file of its books, which several processes may share; without it, open channels can only be
    closed. ``allowed`` lists who may be paid at all. ``confirm`` is asked before a payment goes
    beyond a limit, and nothing is signed unless it says True. ``gasless`` says whether payees that
    offer it carry the gas of opens and top-ups. With ``keep_purchases`` the books keep what was
    bought, with a receipt that the payee signed, where it gives one.
    Threads may share a payer.
    """

    def __init__(  # noqa: PLR0913  each is one option
        self,
        account: TransactionSigner | bytes,
        connection: Connection | str | None,
        state: Path | str,
        *,
        limits: Iterable[Limits] = (),
        chain_id: int | None = None,
        contract: Address | None = None,
        session_keys: SessionKeys | None = None,
        allow_plain_http: bool = False,
        policy: SendPolicy | None = None,
        allowed: Allowed = Allowed(),  # noqa: B008  immutable
        confirm: Confirm = never,
        gasless: Gasless = Gasless.AUTO,
        keep_purchases: bool = False,
    ) -> None:
        self._account = account
        self._connection = connection
        self._chain_id = chain_id
        self._contract = canonical_contract() if contract is None else contract
        self._policy = policy
        self._gasless = gasless
        self._limits = {limit.token: limit for limit in limits}
        self._session_keys = session_keys or SessionKeys.of_account(_key_of(account))
        self._signers: dict[tuple[Deployment, Address], VoucherSigner] = {}
        self._wallet: Wallet | None = None
        self._wallet_lock = Lock()
        self.address: Address = _address_of(account)
        self._books = Path(state)
        self.state: PayerState = PayerState(self._books)
        self.state.purchases.are_kept = keep_purchases
        self._terms = Terms(
            payer=self.address,
            contract=self._contract,
            limits=self._limits,
            sign=self._sign,
            can_sign=self._can_sign,
            chain_id=lambda: self.wallet.chain_id,
            allow_plain_http=allow_plain_http,
            only_chain_id=chain_id,
            allowed=allowed,
            confirm=confirm,
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

    def open_carried(self, url: str, deposit: int, token: Address) -> PayerChannel:
        """Have the payee of ``url`` open a channel, and pay the gas, from a deposit that this
        account signs for. Raises the payee's refusal, and :class:`ConfigError` where it offers
        nothing of the kind.
        """
        from channelpay.payer.httpx import close_client, run_bare, translated

        def sign_open(request: SessionRequest) -> PayerChannel:
            gas = GasChoice(request.carried, Gasless.ALWAYS)
            return self.wallet.sign_open(request.recipient, token, deposit, url, gas)

        steps = Carried(self._terms, url, token).open(sign_open)
        with translated(url), close_client() as client:
            entry, answer = run_bare(client, url, steps)
        self.wallet.refresh(entry.channel.payee)
        entry = self.state.channel(entry.channel_id)
        if entry.status is ChannelStatus.ABSENT:
            raise error_of(answer)
        return entry

    def top_up(self, channel_id: ChannelId, amount: int) -> TopUp:
        """Add to a channel's deposit. Takes a close request back."""
        top_up = self.wallet.top_up(channel_id, amount)
        if top_up is not None:
            return top_up
        if fundings := self.state.fundings(channel_id):
            raise not_confirmed(fundings[-1])
        raise _other_top_up()

    def top_up_carried(self, channel_id: ChannelId, amount: int, url: str | None = None) -> None:
        """The same, with the payee of ``url`` (default: where the channel was used last) paying the
        gas. Raises its refusal, and :class:`ConfigError` where it offers nothing of the kind.
        """
        from channelpay.payer.httpx import close_client, run_bare, translated

        entry = self.state.channel(channel_id)
        target = url or _last_used(entry)

        def sign(request: SessionRequest) -> SignedTopUpPayload:
            if request.recipient != entry.channel.payee:
                raise InputError(f"{target} has another payee than this channel")
            gas = GasChoice(request.carried, Gasless.ALWAYS)
            self.wallet.top_up(channel_id, amount, entry.deposit, gas)
            return self._signed_top_up(channel_id)

        steps = Carried(self._terms, target, entry.channel.token).top_up(sign)
        with translated(target), close_client() as client:
            answer = run_bare(client, target, steps)
        self.wallet.refresh(entry.channel.payee)
        if self.state.channel(channel_id).deposit < entry.deposit + amount:
            raise error_of(answer)

    def _signed_top_up(self, channel_id: ChannelId) -> SignedTopUpPayload:
        funding = self.state.signed.of(channel_id)
        if funding is None or funding.is_open:
            raise _other_top_up()
        return SignedTopUpPayload(channel_id, funding.signed, funding.presented_salt)

    def close_channel(self, channel_id: ChannelId, url: str | None = None) -> Closed:
        """Ask the payee to close a channel and wait until it did; the rest of the deposit is back
        then.

        ``url`` is an address of the payee that has to be paid for; without it, the last one that
        the channel was used for. Raises the payee's refusal, and :class:`NotConfirmed` if the chain
        does not say what the payee says; then :meth:`request_close` helps. Without a node the
        payee's word is all there is.
        """
        from channelpay.payer.httpx import close_client, run_bare

        entry = self.state.channel(channel_id)
        target = url or _last_used(entry)
        steps = CloseSession(self._terms, self.state, entry, target).run()
        with close_client() as client:
            closed = run_bare(client, target, steps)
        self.state.refuse(channel_id, ChannelFinalized.code)
        if self._connection is not None:
            self.wallet.see_closed(entry, closed.transaction_hash)
        return closed

    def foresee_close(self, channel_id: ChannelId, url: str | None = None) -> ForeseenClose:
        """What :meth:`close_channel` would come to now, by the chain and by its payee. Nothing is
        signed; raises what a close would raise before that, and :class:`ChannelFinalized`.
        """
        from channelpay.payer.httpx import run_bare_alone

        entry = self.state.channel(channel_id)
        if self._connection is not None:
            self.wallet.refresh(entry.channel.payee)
            entry = self.state.channel(channel_id)
        if entry.status is ChannelStatus.FINALIZED:
            raise ChannelFinalized("the channel is closed already", channelId=to_hex(channel_id))
        target = url or _last_used(entry)
        steps = CloseSession(self._terms, self.state, entry, target).foresee()
        return run_bare_alone(target, steps)

    def request_close(self, channel_id: ChannelId) -> int:
        """Start to close without the payee; Unix seconds from which :meth:`withdraw` works."""
        return self.wallet.request_close(channel_id)

    def withdraw(self, channel_id: ChannelId) -> bytes:
        """Take the rest back once the grace period is over; the transaction's hash (32 bytes)."""
        return self.wallet.withdraw(channel_id)

    def withdrawable(self) -> list[PayerChannel]:
        """The channels that :meth:`withdraw` works for now."""
        return self.wallet.withdrawable()

    def sign_by_hand(self, channel_id: ChannelId, cumulative_amount: int) -> Voucher:
        """A voucher for so much in all, apart from any request: whoever holds it can have the payee
        paid. Raises what :meth:`~channelpay.payer.state.PayerState.sign_by_hand` raises.
        """
        return self.state.sign_by_hand(channel_id, cumulative_amount, self._sign)

    # --- tabs --------------------------------------------------------------------------------

    def pay_tab(self, url: str, pay_max: int | None = None) -> TabPaid:
        """Pay what is owed to the payee of ``url``: what these books say, or ``pay_max`` base units
        at most. See :meth:`channelpay.payer.tab_payment.TabPayment.pay`.
        """
        from channelpay.payer.httpx import run_bare_alone, unpaid

        answer = unpaid(url)
        steps = TabPayment(self._terms, self.state, answer.url, answer).pay(pay_max)
        return run_bare_alone(answer.url, steps)

    def ask_tab(self, url: str) -> TabAsked:
        """What the payee of ``url`` says is owed. See
        :meth:`channelpay.payer.tab_payment.TabPayment.ask`.
        """
        from channelpay.payer.httpx import run_bare_alone, unpaid

        answer = unpaid(url)
        return run_bare_alone(
            answer.url, TabPayment(self._terms, self.state, answer.url, answer).ask()
        )

    # --- receipts ----------------------------------------------------------------------------

    def fetch_receipt(self, number: int) -> SignedReceipt:
        """Have the payee sign the receipt of a purchase that was kept, as its books have it now,
        and keep that. Raises :class:`NotFound`, :class:`ReceiptNotValid` and what the payee refuses
        it with.
        """
        from channelpay.payer.httpx import run_bare_alone
        from channelpay.payer.receipts import ask_receipt

        one = self.state.purchases.one(number)
        if one.key is None:
            raise NotFound(f"purchase {number} has no Idempotency-Key to ask for its receipt with")
        entry = self.state.channel(one.channel_id)
        receipt = run_bare_alone(one.url, ask_receipt(self._terms, entry, one.url, one.key))
        self.state.purchases.prove(number, receipt)
        return receipt

    # --- another wallet's channels ------------------------------------------------------------

    @property
    def is_outside(self) -> bool:
        """Whether another wallet sends the transactions of this account."""
        return isinstance(self._account, OutsideAccount)

    @property
    def outside(self) -> OutsideWallet:
        """What that wallet has to send."""
        from channelpay.payer.outside import OutsideWallet

        return OutsideWallet(self.wallet, self.state)

    # --- for the adapters --------------------------------------------------------------------

    def purchase(self, url: str) -> AbstractContextManager[Purchase]:
        """What a command buys at ``url``; one that was killed is continued by the next."""
        return purchase_of(folder_beside(self._books), self.address, url)

    def foresee(self, url: str) -> Foreseen | None:
        """What paying for a URL would take now; None if it is free. Nothing is signed, and nobody
        asked; raises what a payment would raise before that.
        """
        from channelpay.payer.foresight import Foresight
        from channelpay.payer.httpx import unpaid

        terms = replace(self._terms, confirm=never)
        return Foresight(terms, self.state, url).foresee(unpaid(url))

    def session(self, url: str, idempotency_key: str | None = None) -> PaymentSession:
        """One request's payment; an adapter drives it: see :mod:`channelpay.payer.steps`."""
        return PaymentSession(self._terms, self.state, url, idempotency_key)

    def perform(self, step: Step) -> None:
        """Do what a session asks of the chain; other steps are the adapter's own."""
        if isinstance(step, Open | Add) and isinstance(self._account, OutsideAccount):
            self._see_funded(step, self._account)
        elif isinstance(step, Open):
            request = step.request
            gas = GasChoice.of(request, self._gasless)
            self.wallet.open_unless_usable(
                request.recipient, request.currency, step.deposit, step.url, gas
            )
        elif isinstance(step, Add):
            gas = OWN if step.request is None else GasChoice.of(step.request, self._gasless)
            self.wallet.top_up(step.channel_id, step.amount, step.deposit, gas)
        elif isinstance(step, Look):
            # What was paid for is not to be lost because the node is: the next request looks again.
            with suppress(NetworkError):
                self.wallet.refresh(step.payee)

    def _see_funded(self, step: Open | Add, account: OutsideAccount) -> None:
        """Only the wallet can do it: see whether it did. Raises :class:`ConfigError`."""
        if isinstance(step, Add):
            entry = self.state.channel(step.channel_id)
            self.wallet.refresh(entry.channel.payee)
            done = self.state.channel(step.channel_id).deposit > step.deposit
        else:
            request = step.request
            self.wallet.refresh(request.recipient)
            place = (request.deployment, self.address, request.recipient, request.currency)
            done = any(one.is_usable for one in self.state.channels_to(*place))
        if not done:
            raise account.refusal

    def _can_sign(self, entry: PayerChannel) -> bool:
        return self._session_keys.can_sign(entry.deployment, entry.channel)

    def _sign(self, entry: PayerChannel, amount: int) -> Voucher:
        place = (entry.deployment, entry.channel.signer)
        signer = self._signers.get(place)
        if signer is None:
            signer = self._session_keys.signer_of(entry.deployment, entry.channel)
            self._signers[place] = signer
        return signer.sign(entry.channel_id, amount)

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
        account = self._account
        if isinstance(account, bytes):
            account = Account.from_key(account)
        return Wallet(
            connection, account, self._contract, self.state, self._session_keys, self._policy
        )

    def __repr__(self) -> str:
        return f"Payer(0x{self.address.hex()})"


def _address_of(account: TransactionSigner | bytes) -> Address:
    if isinstance(account, bytes):
        return VoucherSigner(Deployment(0, ZERO_ADDRESS), account).address
    return parse_address(account.address, "account")


def _last_used(entry: PayerChannel) -> str:
    if entry.url is None:
        raise InputError(
            "it is not known where this channel was used",
            hint="Name an address of the payee that has to be paid for (--url).",
        )
    return entry.url


def _other_top_up() -> NetworkError:
    return NetworkError(
        "another top-up of this channel is under way",
        hint="Look at your channels, then try again: channelpay channel list",
    )


def _key_of(account: TransactionSigner | bytes) -> bytes:
    if isinstance(account, bytes):
        return account
    key = getattr(account, "key", None)
    if key is None:
        raise ConfigError(
            "this account does not give its key, so there is nothing to sign vouchers with",
            hint="Give the session_keys of the account.",
        )
    return bytes(key)


def canonical_contract() -> Address:
    """The contract with a grace period of one day, at the same address on every chain."""
    from channelpay.chain.create2 import predicted_address

    return predicted_address()
