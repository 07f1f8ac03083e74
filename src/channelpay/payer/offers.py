"""What a payee asks for, and whether this payer can and may answer it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from channelpay.errors import BudgetExceeded, ConfigError, WrongChain
from channelpay.payer.budgets import Confirm, never
from channelpay.payer.limits import Limits, is_metered
from channelpay.payer.origins import origin_of
from channelpay.payer.records import PayerChannel, Sign
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import NATIVE, Address, ChannelId
from channelpay.protocol.wire import (
    INTENT,
    METHOD,
    Challenge,
    Credential,
    Payload,
    SessionRequest,
    Source,
    TopUpPayload,
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Who may be paid at all; None: anyone. ``contracts`` are trusted beside the payer's own, for
    channels that are open. Origins are like ``https://site.example``.
    """

    contracts: frozenset[Address] = frozenset()
    payees: frozenset[Address] | None = None
    origins: frozenset[str] | None = None

    def check(self, request: SessionRequest, url: str) -> None:
        """Raises :class:`BudgetExceeded` for a payee or an origin that is not listed."""
        origin = origin_of(url)
        if self.origins is not None and origin not in map(origin_of, self.origins):
            raise _not_listed(f"the origin {origin}")
        if self.payees is not None and request.recipient not in self.payees:
            raise _not_listed(f"the payee {checksum_address(request.recipient)}")


@dataclass(frozen=True, slots=True)
class Terms:
    """On whose behalf, and within which limits a session pays.

    ``can_sign`` says whether we have a channel's key: another program of the same account may have
    opened it. ``chain_id`` asks the node; it is called only when no open channel settles the
    question. ``only_chain_id`` is the one chain on which to pay, None for any. ``confirm`` is asked
    before a limit is passed.
    """

    payer: Address
    contract: Address
    limits: Mapping[Address, Limits]
    sign: Sign = field(repr=False)
    can_sign: Callable[[PayerChannel], bool]
    chain_id: Callable[[], int]
    allow_plain_http: bool = False
    only_chain_id: int | None = None
    allowed: Allowed = Allowed()
    confirm: Confirm = never

    def lifted(self, token: Address, price: int) -> Self:
        """The same for a request of this price that was confirmed."""
        return replace(self, limits={**self.limits, token: self.limits[token].lifted(price)})


@dataclass(frozen=True, slots=True)
class Offer:
    """A challenge that this payer can and may answer, until ``expires_at`` (Unix seconds)."""

    challenge: Challenge
    request: SessionRequest
    limits: Limits
    expires_at: float | None

    @property
    def is_metered(self) -> bool:
        return is_metered(self.request)

    @property
    def cost_max(self) -> int:
        """What the response may cost."""
        return self.limits.cost_max(self.request)

    def is_covered_by(self, entry: PayerChannel, price: int | None = None) -> bool:
        """Whether a channel can pay this much; if nothing is said, the price of one unit."""
        delta = self.request.min_voucher_delta
        return entry.covers(self.request.amount if price is None else price, delta)

    def is_from_payee_of(self, entry: PayerChannel) -> bool:
        """Whether vouchers of a channel can answer it."""
        request, channel = self.request, entry.channel
        asked = (request.recipient, request.currency, request.deployment)
        return asked == (channel.payee, channel.token, entry.deployment)

    def credential(self, payer: Address, payload: Payload) -> str:
        """The value of the ``Authorization`` header that answers with ``payload``."""
        source = Source(self.request.deployment.chain_id, payer)
        return Credential(self.challenge, payload, source).to_header()


def offer_of(terms: Terms, challenge: Challenge, url: str) -> Offer | None:
    """What a challenge of ``url`` offers; None for another method or intent. Raises
    :class:`InputError` for a malformed one, :class:`WrongChain`, :class:`ConfigError` and
    :class:`BudgetExceeded` if chain, contract, lists or limits forbid it.
    """
    if (challenge.method, challenge.intent) != (METHOD, INTENT):
        return None
    request = SessionRequest.decode(challenge.request)
    if terms.only_chain_id not in {None, request.deployment.chain_id}:
        raise WrongChain(
            f"the site takes payments on chain {request.deployment.chain_id}, and chain"
            f" {terms.only_chain_id} is meant",
            hint="If you want to pay there, choose its network with --network.",
        )
    if request.deployment.contract not in {terms.contract, *terms.allowed.contracts}:
        raise ConfigError(
            f"the site takes payments through the contract"
            f" {checksum_address(request.deployment.contract)}, which is not the trusted one",
            hint="Check who runs that contract before you name it with --contract.",
        )
    terms.allowed.check(request, url)
    limits = terms.limits.get(request.currency)
    if limits is None:
        raise BudgetExceeded(
            f"the site takes payments in {_token_name(request.currency)}, for which there are"
            " no limits",
            hint="Set limits for this token (--token), if you want to pay in it.",
            token=checksum_address(request.currency),
        )
    limits.check_price(request)
    return Offer(challenge, request, limits, challenge.expires_at)


def present_top_ups(
    terms: Terms, state: PayerState, offer: Offer, channel_id: ChannelId
) -> Generator[Step, Any, Answer | None]:
    """Tell a payee that knows the channel of each top-up; its answer, if it refuses one."""
    for top_up in state.unpresented_top_ups(channel_id):
        payload = TopUpPayload(channel_id, top_up.transaction_hash, top_up.amount)
        header = {"Authorization": offer.credential(terms.payer, payload)}
        answer: Answer = yield Send(header, bare=True)
        if answer.status >= 400:
            return answer
        state.record_presented(top_up)
    return None


def _not_listed(whom: str) -> BudgetExceeded:
    return BudgetExceeded(
        f"{whom} is not among those that may be paid",
        hint="Add it to your list if you want to pay there. Nothing was signed.",
    )


def _token_name(token: Address) -> str:
    return "the chain's own currency" if token == NATIVE else f"token {checksum_address(token)}"
