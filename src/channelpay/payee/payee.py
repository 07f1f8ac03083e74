"""One who is paid over channels: terms, prices, books and the watch on the chain, in one object."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.create2 import predicted_address
from channelpay.chain.fees import FeePolicy
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.splitters import Shares, splitter_address
from channelpay.errors import ConfigError
from channelpay.observe import Observer
from channelpay.observe.alerts import Alerts
from channelpay.observe.health import Check, durable, free_space, within
from channelpay.payee.acceptance import Acceptance, Confirmations, Guard
from channelpay.payee.amounts import HumanPrice, parse_price, parse_token
from channelpay.payee.carrier import Carrying, carrier_of
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.daemon import Daemon, place_of
from channelpay.payee.follower import Follower, begin_books, followed_cursor
from channelpay.payee.policy import SettlementPolicy, settling_before
from channelpay.payee.prices import PriceFile, PriceRule, PriceTable, Quote
from channelpay.payee.register import Register
from channelpay.payee.request import Request
from channelpay.payee.selling.counter import Coupons
from channelpay.payee.selling.desk import SELLING, Desk
from channelpay.payee.selling.incentives import Incentive
from channelpay.payee.selling.passes import PassPlan
from channelpay.payee.selling.receipts import Receipts, read_receipt_key
from channelpay.payee.selling.tabs import TabPlan
from channelpay.payee.settler import Settler
from channelpay.payee.terms import ETHER, Terms, Token
from channelpay.payee.verifier import Checks, Closed, Order, Paid, Verified, Verifier
from channelpay.protocol.parse import parse_address
from channelpay.protocol.reader import CredentialReader
from channelpay.protocol.receipts import ReceiptSigner
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address, Deployment
from channelpay.protocol.wire import Challenge, ChallengeIssuer, Receipt
from channelpay.store import open_store, sqlite_file

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

REALM = "channelpay"
CHALLENGE_SECONDS = 3600.0
"""How long a challenge can be answered. A client pays the price of the moment, never more than the
challenge says, so an old one does no harm.
"""
SECRET_BYTES = 32
CHAIN_SECONDS = 30.0
"""A payee that has not heard of the chain for so long is not ready: it might miss a close."""


class Payee:
    """Gets paid for requests. Make one with :meth:`create`, end it with :meth:`close`."""

    def __init__(  # noqa: PLR0913, PLR0917  what a payee is made of, each part named
        self,
        terms: Terms,
        prices: PriceTable | PriceFile,
        issuer: ChallengeIssuer,
        verifier: Checks,
        resources: ExitStack,
        observer: Observer,
        checks: Mapping[str, Check],
        receipt_signer: ReceiptSigner | None = None,
    ) -> None:
        self.terms = terms
        self.prices = prices
        self.observer = observer
        self.register: Register = verifier.register
        self.guard: Guard = verifier.guard
        self.checks = checks
        self.desk: Desk = Desk(issuer.derived(SELLING), self.register, terms.deployment, time.time)
        self.receipts: Receipts | None = None
        if receipt_signer is not None:
            self.receipts = Receipts(receipt_signer, self.register, terms.deployment, time.time)
        self._issuer = issuer
        self._verifier = verifier
        self._resources = resources

    @classmethod
    def create(  # noqa: PLR0913  all that a payee is, each named
        cls,
        *,
        rpc: str | Sequence[str],
        token: str | Sequence[str],
        prices: Iterable[PriceRule] | Path,
        store: str,
        incentives: Sequence[Incentive] = (),
        passes: Sequence[PassPlan] = (),
        coupons: Coupons | None = None,
        tab: TabPlan | None = None,
        payee: str | None = None,
        shares: Shares | None = None,
        account: LocalAccount | None = None,
        chain_id: int | None = None,
        contract: str | None = None,
        suggested_deposit: HumanPrice | None = None,
        confirmations: int = 1,
        challenge_secret: bytes | None = None,
        observer: Observer | None = None,
        watches: bool = True,
        acceptance: Acceptance | None = None,
        settlement: SettlementPolicy | None = None,
        fees: FeePolicy | None = None,
        alerts: Alerts | None = None,
        carrying: Carrying | None = None,
        receipt_key: Path | None = None,
    ) -> Self:
        """Connect to the chain at ``rpc`` (one node or several), open the books at ``store``,
        follow the contract and settle.

        ``token`` is ``eth`` or the address of an ERC-20, or several, the preferred one first;
        ``suggested_deposit`` is in human units of the first, or maps tokens to such amounts.
        ``prices`` are rules, with ``incentives``, ``passes``, ``coupons`` and a ``tab`` beside
        them, or a TOML file of all that is read again when it changes. The payee is an address, or
        an ``account`` with its key, which can also close channels. Nodes of another chain than
        ``chain_id`` are refused, if it is given. With ``shares`` the payee is their splitter.
        ``contract`` is the canonical deployment unless given. ``acceptance`` is what the payee
        takes for money;
        ``confirmations`` is short for an :class:`~channelpay.payee.acceptance.Acceptance` that asks
        for so many, whatever the amount. ``challenge_secret`` (32 random bytes) must be the same
        for all workers and restarts of a site; without it, challenges, passes and coupons end with
        this process.
        ``observer`` is told of all that happens, ``alerts`` of what needs somebody. Of several
        processes over the same books, those that ``watch`` take turns in following the chain and,
        with an ``account``, in settling as ``settlement`` says and ``fees`` allow. Unless that is
        given, half of each risk limit is settled. With ``carrying``, which needs an ``account``, it
        pays the gas of opens and top-ups that payers sign. It signs receipts with the key of the
        ``account``, or one that the payee authorised, in the file ``receipt_key``
        (:mod:`channelpay.payee.selling.receipts`).

        Raises :class:`~channelpay.errors.ConfigError`, :class:`~channelpay.errors.InputError`,
        :class:`~channelpay.errors.NotFound` (no contract, no token) and
        :class:`~channelpay.errors.NetworkError`.
        """
        acceptance = _acceptance(acceptance, confirmations)
        recipient = _recipient(payee, account, shares)
        connection = connect(rpc, expected_chain_id=chain_id)
        address = predicted_address() if contract is None else parse_address(contract, "contract")
        deployment = Deployment(connection.chain_id, address)
        link = ChainLink(PaymentChannelsContract(connection, deployment), acceptance.confirmations)
        tokens = _tokens(connection, [token] if isinstance(token, str) else token)
        terms = Terms(deployment, recipient, tokens, _deposits(tokens, suggested_deposit))
        table = _prices(prices, tokens, incentives, passes, coupons, tab)
        observer = observer or Observer()
        issuer = ChallengeIssuer(challenge_secret or secrets.token_bytes(SECRET_BYTES), REALM)
        with ExitStack() as opened:
            books = open_store(store, observer.committed)
            opened.callback(books.close)
            begin_books(books, link, terms)
            closer = None
            if account is not None:
                sender = TransactionSender(connection, account, books, fees)
                closer = Closer(link, sender, books, observer)
            carrier = carrier_of(terms, closer, carrying, observer) if carrying else None
            guard = Guard(acceptance, books, followed_cursor(terms), link.grace_seconds)
            verifier = Verifier(
                terms, issuer, books, link, closer, time.time, observer, guard, carrier
            )
            opened.callback(verifier.close)
            observer.started(tokens, books)
            opened.callback(observer.stopped)
            opened.callback(guard.close)
            guard.start()
            checks = {
                "books": durable(lambda: books.save_cursor("readiness", str(time.time()))),
                "chain": within(CHAIN_SECONDS, lambda: guard.followed_at, time.time),
            }
            if (file := sqlite_file(store)) is not None:
                checks["disk"] = free_space(file.absolute().parent)
            if watches:
                told = alerts or Alerts(observer=observer)
                follower = Follower(terms, link, books, observer)
                policy = settlement or settling_before(
                    SettlementPolicy(),
                    acceptance.risk_max_per_channel,
                    acceptance.risk_max_total,
                )
                settler = (
                    None if closer is None else Settler(closer, recipient, policy, told, observer)
                )
                place = place_of(deployment, recipient)
                daemon = Daemon(follower, settler, books, place, told, observer)
                opened.callback(daemon.close)
                daemon.start()
            return cls(
                terms,
                table,
                issuer,
                verifier,
                receipt_signer=_receipt_signer(receipt_key, account, terms),
                resources=opened.pop_all(),
                observer=observer,
                checks=checks,
            )

    def quote(self, request: Request) -> Quote | None:
        """What a request costs, or None where it is free. Raises what a price function raises."""
        return self.prices.quote(request)

    def challenges(self, quote: Quote) -> list[Challenge]:
        """Fresh challenges for this price, one for each token, the preferred one first."""
        expires_at = time.time() + CHALLENGE_SECONDS
        requests = (self.terms.request(price, quote) for price in quote.prices)
        return [
            self._issuer.issue(self._verifier.with_gas(request), expires_at) for request in requests
        ]

    async def verify(
        self, header: str, order: Order, reader: CredentialReader | None = None
    ) -> Verified:
        """See :meth:`channelpay.payee.verifier.Verifier.verify`."""
        return await self._verifier.verify(header, order, reader)

    async def require_followed(self) -> None:
        """See :meth:`channelpay.payee.verifier.Verifier.require_followed`."""
        await self._verifier.require_followed()

    def receipt(self, verified: Verified) -> Receipt:
        """What the payer is told of it."""
        record = verified.record
        return Receipt(
            channel_id=record.channel_id,
            chain_id=self.terms.deployment.chain_id,
            challenge_id=verified.challenge_id,
            accepted=record.accepted,
            spent=record.spent,
            timestamp=time.time(),
            transaction_hash=verified.transaction_hash if isinstance(verified, Closed) else None,
            price=verified.note if isinstance(verified, Paid) else None,
            tab=verified.tab if isinstance(verified, Paid) else None,
        )

    def close(self) -> None:
        """Stop watching, finish what is under way and close the books."""
        self._resources.close()


def _acceptance(acceptance: Acceptance | None, confirmations: int) -> Acceptance:
    if acceptance is None:
        return Acceptance(Confirmations(confirmations))
    if confirmations != 1:
        raise ConfigError("the confirmations are named twice", hint="Give them in acceptance.")
    return acceptance


def _prices(
    prices: Iterable[PriceRule] | Path,
    tokens: Sequence[Token],
    incentives: Sequence[Incentive],
    passes: Sequence[PassPlan],
    coupons: Coupons | None,
    tab: TabPlan | None,
) -> PriceTable | PriceFile:
    if not isinstance(prices, Path):
        return PriceTable(prices, tokens, incentives, passes, coupons, tab)
    if incentives or passes or coupons or tab:
        raise ConfigError(
            "a price file has its own incentives, passes, coupons and tab",
            hint="Write them into the file.",
        )
    return PriceFile(prices, tokens)


def _receipt_signer(
    file: Path | None, account: LocalAccount | None, terms: Terms
) -> ReceiptSigner | None:
    if file is not None:
        return read_receipt_key(file, terms.deployment, terms.payee)
    return None if account is None else ReceiptSigner(bytes(account.key))


def _recipient(payee: str | None, account: LocalAccount | None, shares: Shares | None) -> Address:
    if shares is not None:
        return _group(payee, account, shares)
    if account is None:
        if payee is None:
            raise ConfigError("nobody is named as the payee", hint="Give payee or account.")
        return parse_address(payee, "payee")
    own = parse_address(account.address, "account")
    if payee is not None and parse_address(payee, "payee") != own:
        raise ConfigError(
            f"the payee {payee} is not the account {checksum_address(own)}",
            hint="Only the payee's own key can close its channels; give one of the two.",
        )
    return own


def _tokens(connection: Connection, names: Sequence[str]) -> tuple[Token, ...]:
    addresses = [parse_token(name) for name in names]
    if not addresses or len(set(addresses)) < len(addresses):
        raise ConfigError("the tokens are missing, or one is named twice")
    return tuple(token_at(connection, address) for address in addresses)


def _deposits(tokens: Sequence[Token], text: HumanPrice | None) -> dict[Address, int]:
    prices = () if text is None else parse_price(text, tokens, "suggested deposit")
    return {price.token.address: price.amount for price in prices}


def _group(payee: str | None, account: LocalAccount | None, shares: Shares) -> Address:
    """The splitter of these shares, which is paid; it follows from them."""
    if account is not None:
        raise ConfigError(
            "a group is paid, so that no account is the payee",
            hint="Leave the account out; settle with: channelpay payee run --payee SPLITTER",
        )
    splitter = splitter_address(shares)
    if payee is not None and parse_address(payee, "payee") != splitter:
        raise ConfigError(
            f"the payee {payee} is not the splitter of these shares, {checksum_address(splitter)}",
            hint="Leave the payee out, or correct the shares.",
        )
    return splitter


def token_at(connection: Connection, address: Address) -> Token:
    """The token at ``address`` as it describes itself. Raises :class:`~channelpay.errors.NotFound`
    where there is none.
    """
    if address == NATIVE:
        return ETHER
    erc20 = Erc20(connection, address)
    return Token(address, erc20.symbol() or to_hex(address), erc20.decimals())
