"""Funding channels without gas: the payer signs, and a payee that offers to carry the gas sends it.

Nothing is locked twice for one wish. What was signed for an open is bound to its channel, and the
contract opens a channel once, whoever sends what; what was signed for a top-up stands in the way of
another one until it was used or has ended.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from channelpay.payer.offers import Offer, Terms
from channelpay.payer.patience import Patience
from channelpay.payer.records import PayerChannel
from channelpay.payer.refusals import error_of
from channelpay.payer.signed_fundings import SignedFunding
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Look, Step
from channelpay.protocol.carried import CarriedGas
from channelpay.protocol.wire import SessionRequest, SignedTopUpPayload


class Gasless(StrEnum):
    """Whether to have a payee carry the gas that offers to."""

    AUTO = "auto"
    """If the account has no ether to pay for gas itself."""
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class GasChoice:
    """What the payee offers, and what the payer wants of it."""

    carried: CarriedGas | None
    gasless: Gasless

    @classmethod
    def of(cls, request: SessionRequest, gasless: Gasless) -> GasChoice:
        """A payee that takes no transactions of the payer's leaves no choice."""
        must = not request.takes_hash and gasless is Gasless.AUTO
        return cls(request.carried, Gasless.ALWAYS if must else gasless)


OWN = GasChoice(None, Gasless.NEVER)
"""The payer sends its own transactions."""


def is_carried(offer: Offer, funding: SignedFunding) -> bool:
    """Whether an answer to this offer may present what was signed."""
    carried = offer.request.carried
    return carried is not None and funding.signed.authorization.method in carried.methods


def present_top_up(
    terms: Terms,
    state: PayerState,
    offer: Offer,
    entry: PayerChannel,
    patience: Patience,
) -> Generator[Step, Any, None]:
    """Show the payee the top-up that was signed for a channel, if there is one, until the chain has
    it. Raises what the payee refuses it with.
    """
    funding = state.signed.of(entry.channel_id)
    if funding is None or funding.is_open or not is_carried(offer, funding):
        return
    payload = SignedTopUpPayload(entry.channel_id, funding.signed, funding.presented_salt)
    header = {"Authorization": offer.credential(terms.payer, payload)}
    answer = yield from patience.send(header)
    yield Look(entry.channel.payee)
    if answer.status >= 400 and state.signed.of(entry.channel_id) is not None:
        raise error_of(answer)
