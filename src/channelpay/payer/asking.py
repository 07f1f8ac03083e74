"""What a site offers for a URL, and what it would cost this payer: asked without any promise.

The own price comes with the receipt of a HEAD that shows the last voucher once more. It is charged
nothing, and needs no key: that voucher was signed before.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from channelpay.errors import InputError
from channelpay.payer.doubt import receipt_in
from channelpay.payer.origins import check_transport, origin_of
from channelpay.payer.records import PayerChannel
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.parse import parse_address, parse_amount, parse_text
from channelpay.protocol.types import Address, Voucher
from channelpay.protocol.wire import (
    INTENT,
    METHOD,
    TEXT_MAX,
    Challenge,
    Credential,
    SessionRequest,
    Source,
    VoucherPayload,
    parse_challenges,
)

OFFERS_MAX = 50
"""More are not read."""
_ID_MAX = 64


@dataclass(frozen=True, slots=True)
class Offered:
    """One way to buy. ``amounts`` are what one costs in it at best, in base units by token;
    ``terms`` are in the site's words, like ``label``. A pass is bought by its ``plan``.
    """

    id: str
    kind: str
    label: str
    amounts: Mapping[Address, int]
    terms: str = ""
    plan: str = ""


@dataclass(frozen=True, slots=True)
class Own:
    """What the payer of ``channel`` would pay, and what it has at the site."""

    channel: PayerChannel
    price: PriceNote


def offers_in(answer: Answer) -> list[Offered]:
    """What a 402 offers; of a site that does not list it, what its challenges ask. Empty where
    there is nothing of our kind to pay.
    """
    listed = answer.problem.get("offers")
    if isinstance(listed, list):
        return [found for one in listed[:OFFERS_MAX] if (found := _offered(one)) is not None]
    requests = [request for _, request in _asked(answer)]
    return [
        Offered("", f"per-{one.unit_type}", one.description or "", {one.currency: one.amount})
        for one in requests
    ]


class Asking:
    """Asks what ``payer`` would pay for what ``answer`` refused to give for nothing."""

    def __init__(self, state: PayerState, payer: Address, answer: Answer) -> None:
        self._state = state
        self._payer = payer
        self._answer = answer

    def run(self) -> Generator[Step, Any, Own | None]:
        """Yields HEAD requests only; None if the payer has no channel that paid at this origin
        last, or the site says nothing of its price.
        """
        check_transport(self._answer.url, allow_plain_http=False)
        for challenge, entry in self._channels():
            voucher = Voucher(entry.channel_id, entry.signed, entry.signature)
            source = Source(entry.deployment.chain_id, self._payer)
            header = Credential(challenge, VoucherPayload(voucher), source).to_header()
            answer: Answer = yield Send({"Authorization": header}, bare=True, head=True)
            receipt = receipt_in(answer, entry)
            if receipt is not None and receipt.price is not None:
                return Own(entry, receipt.price)
        return None

    def _channels(self) -> Iterator[tuple[Challenge, PayerChannel]]:
        """Those that were used at this very place: whoever else is shown a voucher learns of the
        channel, and may buy with it at its payee.
        """
        used = self._state.used_at(self._payer, origin_of(self._answer.url))
        here = {one.channel_id for one in used if one.is_usable and one.signature}
        for challenge, request in _asked(self._answer):
            known = self._state.channels_to(
                request.deployment, self._payer, request.recipient, request.currency
            )
            yield from ((challenge, one) for one in known if one.channel_id in here)


def _asked(answer: Answer) -> list[tuple[Challenge, SessionRequest]]:
    found = []
    for challenge in parse_challenges(answer.challenges):
        if (challenge.method, challenge.intent) == (METHOD, INTENT):
            with suppress(InputError):
                found.append((challenge, SessionRequest.decode(challenge.request)))
    return found


def _offered(value: object) -> Offered | None:
    """One of the list, or None if it is not written as ours are."""
    if not isinstance(value, dict) or not isinstance(amounts := value.get("amounts"), dict):
        return None
    try:
        return Offered(
            parse_text(value.get("id"), "id", _ID_MAX),
            parse_text(value.get("kind"), "kind", _ID_MAX),
            parse_text(value.get("label"), "label", TEXT_MAX),
            {parse_address(token): parse_amount(one, "amounts") for token, one in amounts.items()},
            parse_text(value.get("terms"), "terms", TEXT_MAX, at_least=0),
            parse_text(value.get("plan", ""), "plan", _ID_MAX, at_least=0),
        )
    except InputError:
        return None
