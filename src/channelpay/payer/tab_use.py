"""How one request uses a tab: whether its price is put on it, and when what is owed is paid."""

from __future__ import annotations

from channelpay.errors import TabDue, TabFull
from channelpay.payer.offers import Offer
from channelpay.payer.records import PayerChannel, Reservation
from channelpay.payer.state import PayerState
from channelpay.payer.steps import Answer
from channelpay.protocol.tabs import ACCEPTED, HEADER

_PAY_FIRST = frozenset({TabDue.code, TabFull.code})


class TabUse:
    """For one request."""

    def __init__(self, state: PayerState) -> None:
        self._tabs = state.tabs
        self._is_refused = False
        self._more: int | None = None

    def price(self, offer: Offer, entry: PayerChannel, held: Reservation | None) -> int:
        """What to set aside: nothing for what goes on the tab, else the price with what is owed,
        which the first voucher for something else pays as well. ``entry`` is the channel without
        this request, which has ``held`` so far: where others pay, what is owed is not promised once
        more; and where others are to be put on the tab, they are owed as well.
        """
        amount, limit = offer.request.amount, offer.limits.tab_max
        if self._more is not None:
            return amount + self._more
        if limit <= 0:
            return amount
        tab, coming = self._tabs.tab(entry), self._tabs.under_way(entry, held)
        if not self._is_refused and tab.takes(coming + amount, limit, self._tabs.now()):
            return 0
        return amount if entry.in_flight else amount + tab.owed + coming

    @staticmethod
    def headers(offer: Offer, price: int) -> dict[str, str]:
        """What says that the price may be put on the tab, where nothing was set aside for it."""
        return {} if offer.is_metered or price else {HEADER: ACCEPTED}

    def is_taken_back(self, answer: Answer, entry: PayerChannel, price: int) -> bool:
        """Whether the payee gives no credit, so that the request is paid for as any other."""
        if answer.code != "insufficient-balance" or price:
            return False
        self._tabs.note_none(entry)
        self._is_refused = True
        return True

    def is_to_pay(
        self, answer: Answer, offer: Offer, others: PayerChannel, held: Reservation
    ) -> bool:
        """Whether the payee wants to be paid first, and what it wants is what these books say is
        owed, or about to be. ``others`` is the channel without this request, which has ``held``.
        """
        required = answer.amount("requiredCumulative")
        if answer.code not in _PAY_FIRST or required is None or offer.limits.tab_max <= 0:
            return False
        needed = required - others.spent - others.in_flight - offer.request.amount
        owed = self._tabs.tab(others).owed + self._tabs.under_way(others, held)
        if self._more is not None or needed > owed:
            return False
        self._more = max(0, needed)
        return True
