"""Carrying the gas: opens and top-ups that a payer signed, sent and paid for by the payee.

Before anything is sent, the call is tried and all bounds are kept. What was sent is in the journal,
under a purpose that names channel, payer and authorization: from there the bounds of a day are
counted, over all workers, and nothing is sent twice, whatever ends at whatever moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from channelpay.chain.funding import check_signature, funding_methods, is_used, token_domain
from channelpay.chain.outgoing import TransactionSender
from channelpay.chain.preparation import fee_market
from channelpay.chain.sender import NotConfirmed, pauses
from channelpay.chain.types import ContractCall
from channelpay.errors import (
    BudgetExceeded,
    ChainReverted,
    ConfigError,
    GasNotCarried,
    InsufficientFunds,
    NetworkError,
    TooFewConfirmations,
)
from channelpay.observe import Observer
from channelpay.payee.chain_link import ChainLink
from channelpay.payee.closer import Closer
from channelpay.payee.daemon import Lease, place_of
from channelpay.payee.policy import gas_money_needed
from channelpay.payee.terms import Terms
from channelpay.protocol.carried import CarriedGas
from channelpay.protocol.funding import (
    Authorization,
    PermitTransfer,
    SignedAuthorization,
    TokenDomain,
)
from channelpay.protocol.transactions import Outgoing, TransactionStatus
from channelpay.protocol.types import Address, Channel, ChannelId, ChannelStatus
from channelpay.store import Store

GWEI = 10**9
CARRIED_GAS = 140_000
"""What an open takes with Permit2, the dearer way."""
CARRIED_GAS_MAX = 400_000
"""A contract wallet that checks its signature may burn as much as it likes: not more than this."""
VALID_SECONDS_MIN = 60
"""An authorization that ends sooner might end before its transaction is mined."""
WAIT_SECONDS = 3.0
"""How long a request waits for its transaction, before its payer is asked to come back."""
LEASE_SECONDS = 30.0
TURN_SECONDS = 5.0
"""How long an open waits until others are sent."""
DAY_SECONDS = 86_400
CLOSED_SECONDS = 60.0
"""How long nothing is offered after a bound of the payee's own was reached."""
WITH_CLOSE = 2
"""A payer may ask for a close at once, which costs the payee no more than the open did."""
_JOURNAL_PAGE = 200
_PURPOSE = "carry"


@dataclass(frozen=True, slots=True)
class Carrying:
    """How far a payee carries the gas. ``budget_wei`` is what it may cost in 24 hours in all, the
    closes that payers may ask for at once included: each transaction counts twice;
    ``payer_max`` how many transactions one payer gets in that time. Nothing is sent while a unit of
    gas costs more than ``gas_price_max_wei``. ``deposit_min`` is the least open or top-up by token,
    in base units: one that the payee is glad to pay gas for.
    """

    budget_wei: int
    gas_price_max_wei: int = 50 * GWEI
    payer_max: int = 3
    deposit_min: Mapping[Address, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Job:
    """One transaction to carry. ``is_done`` asks the chain whether somebody did it already."""

    verb: str
    channel_id: ChannelId
    channel: Channel
    signed: SignedAuthorization
    call: ContractCall
    digest: bytes
    is_done: Callable[[], bool]

    @property
    def authorization(self) -> Authorization:
        return self.signed.authorization

    @property
    def purpose(self) -> str:
        names = (self.channel_id, self.authorization.payer, self.digest)
        return " ".join([_PURPOSE, self.verb, *(one.hex() for one in names)])


class Carrier:
    """Sends signed opens and top-ups from the account of ``sender``. Threads may share a carrier.

    ``offers`` says what is offered for each token, ``place`` whose books these are.
    """

    def __init__(
        self,
        link: ChainLink,
        sender: TransactionSender,
        store: Store,
        carrying: Carrying,
        offers: Mapping[Address, CarriedGas],
        place: str,
        observer: Observer | None = None,
    ) -> None:
        self._link = link
        self._sender = sender
        self._connection = sender.connection
        self._store = store
        self._carrying = carrying
        self._offers = offers
        self._lease_name = f"carrier {place}"
        self._observer = observer or Observer()
        self._closed_until = 0.0
        self._domains: dict[Address, TokenDomain] = {}

    def offer(self, token: Address) -> CarriedGas | None:
        """What a challenge says of this token; nothing while a bound of the payee's is reached."""
        return None if time.monotonic() < self._closed_until else self._offers.get(token)

    def open(
        self, channel_id: ChannelId, channel: Channel, signed: SignedAuthorization
    ) -> bytes | None:
        """Have the channel opened, unless it is: the hash (32 bytes) of our transaction, or None if
        somebody else sent one.

        The authorization is one for this open. Raises :class:`GasNotCarried` where a bound forbids
        it, :class:`ChainReverted` if the contract refuses it or an earlier attempt failed,
        :class:`InvalidSignature`; :class:`TooFewConfirmations` and :class:`NetworkError` if the
        payer is to come back.
        """
        call = self._link.contract.open_signed(channel, signed)

        def is_open() -> bool:
            return self._link.contract.state(channel).status is not ChannelStatus.ABSENT

        return self._carry("open", channel_id, channel, signed, call, is_open)

    def top_up(
        self, channel_id: ChannelId, channel: Channel, signed: SignedAuthorization, salt: bytes
    ) -> bytes | None:
        """The same for a top-up."""
        call = self._link.contract.top_up_signed(channel, signed, salt)
        authorization, token = signed.authorization, channel.token

        def is_added() -> bool:
            return is_used(self._connection, authorization, token)

        return self._carry("top-up", channel_id, channel, signed, call, is_added)

    def _carry(
        self,
        verb: str,
        channel_id: ChannelId,
        channel: Channel,
        signed: SignedAuthorization,
        call: ContractCall,
        is_done: Callable[[], bool],
    ) -> bytes | None:
        digest = self._digest(signed.authorization, channel.token)
        bounded = replace(call, gas_max=CARRIED_GAS_MAX)
        job = _Job(verb, channel_id, channel, signed, bounded, digest, is_done)
        earlier = self._earlier(job)
        if earlier is not None:
            return self._outcome(job, earlier)
        return None if is_done() else self._outcome(job, self._begun(job))

    def _digest(self, authorization: Authorization, token: Address) -> bytes:
        """What was signed. The node is asked for a token's domain once."""
        if isinstance(authorization, PermitTransfer):
            return authorization.digest(self._link.contract.deployment)
        domain = self._domains.get(token) or token_domain(self._connection, token)
        if domain is None:
            raise GasNotCarried("this token takes no such authorization")
        self._domains[token] = domain
        return authorization.digest(domain)

    # --- one transaction ---------------------------------------------------------------------

    def _begun(self, job: _Job) -> Outgoing:
        """Send it, in its turn: another worker may be about to send the same one."""
        check_signature(self._connection, job.signed, job.digest)
        with self._turn() as lease:
            earlier = self._earlier(job)
            if earlier is not None:
                return earlier
            self._require_within_bounds(job)
            lease.check()
            try:
                return self._sender.send(job.call, job.purpose)
            except (BudgetExceeded, InsufficientFunds) as error:
                raise GasNotCarried(f"this site does not pay its gas: {error.detail}") from error

    @contextmanager
    def _turn(self) -> Iterator[Lease]:
        lease = Lease(self._store, self._lease_name, LEASE_SECONDS)
        for _ in pauses(TURN_SECONDS):
            if lease.take():
                break
        else:
            raise NetworkError("too many opens wait to be sent")
        try:
            yield lease
        finally:
            lease.drop()

    def _outcome(self, job: _Job, outgoing: Outgoing) -> bytes | None:
        """Wait for it a little. One that failed is not sent again: that would cost gas again."""
        if outgoing.status is TransactionStatus.CONFIRMED:
            return outgoing.mined
        try:
            return self._waited_for(job, outgoing)
        except ChainReverted:
            if job.is_done():
                return None
            raise

    def _waited_for(self, job: _Job, outgoing: Outgoing) -> bytes:
        if outgoing.status is TransactionStatus.FAILED:
            raise ChainReverted(
                f"the {job.verb} was sent before with this authorization, and failed"
            )
        try:
            receipt = self._sender.wait(outgoing.number, WAIT_SECONDS)
        except NotConfirmed as error:
            raise TooFewConfirmations(f"the {job.verb} is sent, and not mined yet") from error
        self._observer.gas_paid(receipt.fee_wei)
        return receipt.transaction_hash

    # --- bounds ------------------------------------------------------------------------------

    def _require_within_bounds(self, job: _Job) -> None:
        authorization = job.authorization
        offer = self._offers.get(job.channel.token)
        if offer is None or authorization.method not in offer.methods:
            raise GasNotCarried("this site does not pay the gas of this kind of authorization")
        if not offer.takes(authorization.amount):
            raise GasNotCarried(
                f"this site pays the gas of {offer.deposit_min} base units or more",
                hint="Lock a larger deposit, or send the transaction from your own account.",
                minCarriedDeposit=str(offer.deposit_min),
            )
        self._require_valid(authorization)
        rows = self._of_a_day()
        payer = authorization.payer.hex()
        if sum(payer in one.purpose.split() for one in rows) >= self._carrying.payer_max:
            raise GasNotCarried("this site paid the gas of this payer often enough today")
        self._require_affordable(WITH_CLOSE * sum(map(_cost_wei, rows)))

    def _require_valid(self, authorization: Authorization) -> None:
        now = max(int(time.time()), self._link.latest_block().timestamp)
        if authorization.ends_at < now + VALID_SECONDS_MIN:
            raise GasNotCarried(
                "the authorization has ended, or is about to",
                hint=f"Sign one that is good for {VALID_SECONDS_MIN} s and more.",
            )

    def _require_affordable(self, spent_wei: int) -> None:
        """Bounds of the payee's own: while one is reached, nobody is offered anything."""
        price_wei = fee_market(self._connection).price_wei
        cost_wei = WITH_CLOSE * CARRIED_GAS * price_wei
        free_wei = self._connection.balance_wei(self._sender.address) - gas_money_needed(price_wei)
        reasons = {
            "gas is too dear now": price_wei > self._carrying.gas_price_max_wei,
            "the gas budget of these 24 hours is used up": (
                spent_wei + cost_wei > self._carrying.budget_wei
            ),
            "the money for gas is needed for settlements": free_wei < cost_wei,
        }
        for reason, is_reached in reasons.items():
            if is_reached:
                self._closed_until = time.monotonic() + CLOSED_SECONDS
                raise GasNotCarried(f"this site does not pay its gas now: {reason}")

    # --- the journal -------------------------------------------------------------------------

    def _earlier(self, job: _Job) -> Outgoing | None:
        return next((one for one in self._of_a_day() if one.purpose == job.purpose), None)

    def _of_a_day(self) -> list[Outgoing]:
        """What was carried in the last 24 hours, newest first."""
        since_ms = int((time.time() - DAY_SECONDS) * 1000)
        limit = _JOURNAL_PAGE
        rows = self._store.transactions(limit)
        while len(rows) == limit and rows[-1].broadcasts[0].time >= since_ms:
            limit *= 4
            rows = self._store.transactions(limit)
        return [one for one in rows if self._is_ours(one) and _began_ms(one) >= since_ms]

    def _is_ours(self, outgoing: Outgoing) -> bool:
        ours = (self._connection.chain_id, self._sender.address)
        return (outgoing.chain_id, outgoing.sender) == ours and is_carried(outgoing)


def is_carried(outgoing: Outgoing) -> bool:
    """Whether a transaction of the journal carried a payer's gas."""
    return outgoing.purpose.startswith(f"{_PURPOSE} ")


def carrier_of(
    terms: Terms, closer: Closer | None, carrying: Carrying, observer: Observer | None = None
) -> Carrier:
    """A carrier for all tokens of a payee whose money can come by signature. A deposit is as much
    as the payee suggests, if ``carrying`` does not say how little it may be.

    Raises :class:`ConfigError` where there is no account to send from, or no such token.
    """
    if closer is None:
        raise ConfigError(
            "to carry the gas, the payee needs its account", hint="Name it with --account."
        )
    connection, offers = closer.sender.connection, {}
    for token in terms.tokens:
        if methods := funding_methods(connection, token.address):
            suggested = terms.suggested_deposits.get(token.address, 1)
            least = carrying.deposit_min.get(token.address, suggested)
            offers[token.address] = CarriedGas(methods, least)
    if not offers:
        raise ConfigError(
            "none of the tokens can be locked by a signature, so nobody's gas can be carried",
            hint="Take a token with EIP-3009, or any ERC-20 on a chain that has Permit2.",
        )
    place = place_of(terms.deployment, terms.payee)
    return Carrier(closer.link, closer.sender, closer.store, carrying, offers, place, observer)


def _began_ms(outgoing: Outgoing) -> int:
    return outgoing.broadcasts[0].time


def _cost_wei(outgoing: Outgoing) -> int:
    """What it cost, or may cost at most."""
    if outgoing.status is TransactionStatus.PENDING:
        return outgoing.gas * outgoing.broadcasts[-1].max_fee_wei
    return outgoing.fee_wei or 0
