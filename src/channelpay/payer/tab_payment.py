"""Asking what is owed on a tab, and paying it apart from any purchase: with HEAD requests, which
bring a voucher and are charged nothing.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from channelpay.errors import BudgetExceeded, NotFound
from channelpay.payer.doubt import receipt_in
from channelpay.payer.metering import is_genuine
from channelpay.payer.offers import Offer, Terms, offer_of
from channelpay.payer.origins import check_transport, origin_of
from channelpay.payer.proving import proof_for
from channelpay.payer.records import PayerChannel
from channelpay.payer.refusals import error_of
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer, Send, Step
from channelpay.protocol.tabs import TabNote
from channelpay.protocol.types import Voucher
from channelpay.protocol.wire import Receipt, VoucherPayload, parse_challenges


@dataclass(frozen=True, slots=True)
class TabAsked:
    """What a payee says is owed, over all channels to it; ``known`` is what our books say."""

    channel: PayerChannel
    note: TabNote
    known: int


@dataclass(frozen=True, slots=True)
class TabPaid:
    """What was paid (base units), and what is owed after it."""

    channel: PayerChannel
    paid: int
    note: TabNote


class TabPayment:
    """Asks the payee of ``url``, whose plain answer was ``answer``, what is owed, and pays it."""

    def __init__(self, terms: Terms, state: PayerState, url: str, answer: Answer) -> None:
        self._terms = terms
        self._state = state
        self._url = url
        self._answer = answer

    def ask(self) -> Generator[Step, Any, TabAsked]:
        """Yields HEAD requests only, with vouchers that were signed before. Raises
        :class:`NotFound` where there is no tab, or no channel that ever paid there.
        """
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        _, asked = yield from self._ask()
        return asked

    def pay(self, pay_max: int | None = None) -> Generator[Step, Any, TabPaid]:
        """Pay what is owed, if the books explain it or it is not over ``pay_max``.

        Raises :class:`BudgetExceeded` or :class:`AmountExceedsDeposit` before anything is signed,
        :class:`NotFound`, and what the payee refuses it with.
        """
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        offer, asked = yield from self._ask()
        owed, entry = asked.note.owed, asked.channel
        if owed == 0:
            return TabPaid(entry, 0, asked.note)
        limit = asked.known if pay_max is None else pay_max
        if owed > limit:
            raise BudgetExceeded(
                f"the site says that {owed} base units are owed, and {limit} is the most to pay",
                hint="If you agree, allow it with --max.",
                owed=str(owed),
                limit=str(limit),
            )
        return (yield from self._pay(offer, entry, owed))

    def _pay(self, offer: Offer, entry: PayerChannel, owed: int) -> Generator[Step, Any, TabPaid]:
        budget = offer.limits.budget_at(self._url)
        held = self._state.reserve(entry.channel_id, owed, self._terms.sign, budget=budget)
        receipt: Receipt | None = None
        answered = False
        try:
            answer: Answer = yield self._head(offer, entry, held.voucher)
            answered = True
            receipt = receipt_in(answer, self._state.channel(entry.channel_id))
            if receipt is None or receipt.tab is None:
                raise error_of(answer)
        finally:
            if receipt is None or receipt.tab is None:
                self._state.release(held, answered=answered)
        paid = self._state.settle(held, receipt.spent, self._url, receipt=receipt)
        return TabPaid(self._state.channel(entry.channel_id), paid, receipt.tab)

    def _ask(self) -> Generator[Step, Any, tuple[Offer, TabAsked]]:
        for offer in self._offers():
            entries = self._channels(offer)
            for entry in entries:
                known = self._state.tabs.tab(entry).owed
                voucher = Voucher(entry.channel_id, entry.signed, entry.signature)
                answer: Answer = yield self._head(offer, entry, voucher)
                receipt = receipt_in(answer, entry)
                if receipt is None or receipt.tab is None or not is_genuine(receipt, entry):
                    continue
                if entry.covers(receipt.tab.owed) or entry is entries[-1]:
                    return offer, TabAsked(entry, receipt.tab, known)
        raise NotFound(
            f"no tab is known at {origin_of(self._url)}",
            hint="It begins with a page that you put on it: channelpay pay URL --max-tab AMOUNT",
        )

    def _offers(self) -> list[Offer]:
        challenges = parse_challenges(self._answer.challenges)
        offers = (offer_of(self._terms, one, self._url) for one in challenges)
        return [offer for offer in offers if offer is not None]

    def _channels(self, offer: Offer) -> list[PayerChannel]:
        request = offer.request
        found = self._state.channels_to(
            request.deployment, self._terms.payer, request.recipient, request.currency
        )
        return [one for one in found if one.is_usable and one.signature]

    def _head(self, offer: Offer, entry: PayerChannel, voucher: Voucher) -> Send:
        credential = offer.credential(self._terms.payer, VoucherPayload(voucher))
        proof = proof_for(self._terms, entry, offer.challenge)
        return Send({"Authorization": credential, **proof}, bare=True, head=True)
