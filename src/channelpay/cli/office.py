"""What settling from the command line needs: books that are open, the chain, and an account."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from channelpay.cli.common import Setting, connected, contract_address, unlocked_account
from channelpay.cli.settling import Fees, Settling, fee_policy_of, policy_of, tokens_named
from channelpay.protocol.parse import parse_address
from channelpay.protocol.types import NATIVE, Address, Deployment

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

    from channelpay.chain.connection import Connection
    from channelpay.chain.types import Listener
    from channelpay.cli.confirming import Confirming
    from channelpay.observe import Observer
    from channelpay.observe.alerts import Alerts
    from channelpay.payee.chain_link import ChainLink
    from channelpay.payee.closer import Closer
    from channelpay.payee.daemon import Daemon, Follows
    from channelpay.payee.policy import SettlementPolicy
    from channelpay.payee.settler import Settler
    from channelpay.payee.terms import Token
    from channelpay.store import Store


@dataclass(frozen=True, slots=True)
class Place:
    """One contract on one chain, and the account that pays the gas there."""

    connection: Connection
    deployment: Deployment
    account: LocalAccount

    @classmethod
    def of(cls, setting: Setting) -> Place:
        """Asks for the account's password."""
        account = unlocked_account(setting)
        connection, deployment = reached(setting.rpc, setting.contract)
        return cls(connection, deployment, account)

    @property
    def own(self) -> Address:
        """The account's address."""
        return parse_address(self.account.address, "account")


@dataclass(frozen=True, slots=True)
class Office:
    """Books that are open, and somebody who settles what they hold for ``payee``."""

    place: Place
    payee: Address
    store: Store
    closer: Closer
    observer: Observer

    @property
    def link(self) -> ChainLink:
        return self.closer.link

    def settler(self, policy: SettlementPolicy, alerts: Alerts) -> Settler:
        from channelpay.payee.settler import Settler

        return Settler(self.closer, self.payee, policy, alerts, self.observer)

    def daemon(self, follower: Follows, settler: Settler, alerts: Alerts, *, once: bool) -> Daemon:
        """One that works ``once`` tells of trouble at once, too."""
        from channelpay.payee.daemon import Daemon, Timing, place_of

        place = place_of(self.place.deployment, self.payee)
        timing = Timing(trouble_seconds=0.0) if once else Timing()
        return Daemon(follower, settler, self.store, place, alerts, self.observer, timing)

    def policy(self, settling: Settling, fees: Fees) -> SettlementPolicy:
        """Amounts are in the tokens of the books, and those that the options name."""
        tokens = _tokens(self.place.connection, self.store, tokens_named(settling))
        return policy_of(settling, fees, tokens)


def reached(rpc: str | None, contract: str | None) -> tuple[Connection, Deployment]:
    """The node, and the contract on its chain."""
    from channelpay.chain.create2 import predicted_address

    connection = connected(rpc)
    named = contract_address(Setting(rpc, contract, None, None))
    return connection, Deployment(connection.chain_id, named or predicted_address())


def _tokens(connection: Connection, store: Store, named: set[Address]) -> list[Token]:
    """Those of the books, and those that options name."""
    from channelpay.payee.payee import token_at

    addresses = store.totals().keys() | named
    return [token_at(connection, one) for one in sorted(addresses or {NATIVE})]


def link_to(place: Place, store: Store, confirming: Confirming) -> ChainLink:
    """The node is asked about tokens only where confirmations go by amounts."""
    from channelpay.chain.contract import PaymentChannelsContract
    from channelpay.payee.chain_link import ChainLink

    contract = PaymentChannelsContract(place.connection, place.deployment)
    named = confirming.tokens_named
    tokens = _tokens(place.connection, store, named) if confirming.steps else []
    return ChainLink(contract, confirming.in_tokens(tokens))


@contextmanager
def office_over(
    store: Store,
    place: Place,
    payee: Address,
    fees: Fees,
    *,
    confirming: Confirming,
    observer: Observer | None = None,
    listener: Listener | None = None,
) -> Iterator[Office]:
    """An office over books that are open; ``payee`` is whose channels it settles. ``confirming`` is
    what a site asks for that sells by these books; ``listener`` is told of transactions that are
    waited for.
    """
    from channelpay.chain.outgoing import TransactionSender
    from channelpay.chain.types import unheard
    from channelpay.observe import Observer
    from channelpay.payee.closer import Closer

    observer = observer or Observer()
    fee_policy = fee_policy_of(fees)
    sender = TransactionSender(
        place.connection, place.account, store, fee_policy, listener=listener or unheard
    )
    link = link_to(place, store, confirming)
    yield Office(place, payee, store, Closer(link, sender, store, observer), observer)
