"""One who is paid over channels: terms, prices, books and the watch on the chain, in one object."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.create2 import predicted_address
from channelpay.chain.sender import Sender
from channelpay.errors import ConfigError
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.prices import PriceRule, PriceTable, Quote
from channelpay.payee.terms import ETHER, Terms, Token
from channelpay.payee.verifier import Closed, Order, Verified, Verifier
from channelpay.payee.watcher import Watcher
from channelpay.protocol.parse import parse_address
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import NATIVE, Address, Deployment
from channelpay.protocol.wire import Challenge, ChallengeIssuer, Receipt
from channelpay.store import open_store

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

REALM = "channelpay"
CHALLENGE_SECONDS = 3600.0
"""How long a challenge can be answered. A client pays the price of the moment, never more than the
challenge says, so an old one does no harm.
"""
SECRET_BYTES = 32


class Payee:
    """Gets paid for requests. Make one with :meth:`create`, end it with :meth:`close`."""

    def __init__(
        self,
        terms: Terms,
        prices: PriceTable,
        issuer: ChallengeIssuer,
        verifier: Verifier,
        resources: ExitStack,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.terms = terms
        self.prices = prices
        self._issuer = issuer
        self._verifier = verifier
        self._resources = resources
        self._now = now

    @classmethod
    def create(  # noqa: PLR0913  all that a payee is, each named
        cls,
        *,
        rpc: str,
        token: str,
        prices: Iterable[PriceRule],
        store: str,
        payee: str | None = None,
        account: LocalAccount | None = None,
        contract: str | None = None,
        suggested_deposit: str | None = None,
        confirmations: int = 1,
        challenge_secret: bytes | None = None,
    ) -> Self:
        """Connect to the chain at ``rpc``, open the books at ``store`` and watch the contract.

        ``token`` is ``eth`` or the address of an ERC-20, ``suggested_deposit`` in its human units.
        The payee is an address, or an ``account`` with its key, which can also close channels.
        ``contract`` is the canonical deployment unless given. ``confirmations`` is what an open or
        top-up needs before it counts. ``challenge_secret`` (32 random bytes) must be the same for
        all workers and restarts of a site; without it, challenges end with this process.

        Raises :class:`~channelpay.errors.ConfigError`, :class:`~channelpay.errors.InputError`,
        :class:`~channelpay.errors.NotFound` (no contract, no token) and
        :class:`~channelpay.errors.NetworkError`.
        """
        recipient = _recipient(payee, account)
        connection = connect(rpc)
        address = predicted_address() if contract is None else parse_address(contract, "contract")
        deployment = Deployment(connection.chain_id, address)
        link = ChainLink(PaymentChannelsContract(connection, deployment), confirmations)
        currency = NATIVE if token.lower() == "eth" else parse_address(token, "token")
        paid_in = token_at(connection, currency)
        terms = Terms(deployment, recipient, paid_in, _deposit(paid_in, suggested_deposit))
        table = PriceTable(prices, paid_in)
        issuer = ChallengeIssuer(challenge_secret or secrets.token_bytes(SECRET_BYTES), REALM)
        with ExitStack() as opened:
            books = open_store(store)
            opened.callback(books.close)
            closer = None if account is None else Closer(link, Sender(connection, account), books)
            verifier = Verifier(terms, issuer, books, link, closer, time.time)
            opened.callback(verifier.close)
            watcher = Watcher(terms, link, books, closer)
            opened.callback(watcher.close)
            watcher.start()
            return cls(terms, table, issuer, verifier, opened.pop_all())

    def quote(self, method: str, path: str) -> Quote | None:
        """What a request costs, or None where it is free."""
        return self.prices.quote(method, path)

    def challenge(self, quote: Quote) -> Challenge:
        """A fresh challenge for this price."""
        request = self.terms.request(quote.asked, quote.description)
        return self._issuer.issue(request, self._now() + CHALLENGE_SECONDS)

    async def verify(self, header: str, order: Order) -> Verified:
        """See :meth:`channelpay.payee.verifier.Verifier.verify`."""
        return await self._verifier.verify(header, order)

    def receipt(self, verified: Verified) -> Receipt:
        """What the payer is told of it."""
        record = verified.record
        return Receipt(
            channel_id=record.channel_id,
            chain_id=self.terms.deployment.chain_id,
            challenge_id=verified.challenge_id,
            accepted=record.accepted,
            spent=record.spent,
            timestamp=self._now(),
            transaction_hash=verified.transaction_hash if isinstance(verified, Closed) else None,
        )

    def release(self, payment_id: int) -> Future[ChannelRecord]:
        """Give a charge back whose request was not served."""
        return self._verifier.release(payment_id)

    def close(self) -> None:
        """Stop watching, finish what is under way and close the books."""
        self._resources.close()


def _recipient(payee: str | None, account: LocalAccount | None) -> Address:
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


def _deposit(token: Token, text: str | None) -> int | None:
    return None if text is None else token.parse(text, "suggested deposit")


def token_at(connection: Connection, address: Address) -> Token:
    """The token at ``address`` as it describes itself. Raises :class:`~channelpay.errors.NotFound`
    where there is none.
    """
    if address == NATIVE:
        return ETHER
    erc20 = Erc20(connection, address)
    return Token(address, erc20.symbol() or to_hex(address), erc20.decimals())
