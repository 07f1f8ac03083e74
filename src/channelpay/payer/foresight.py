"""What paying for a URL would take, by the same decisions as a payment. Nothing is signed."""

from __future__ import annotations

from dataclasses import dataclass

from channelpay.payer.origins import check_transport
from channelpay.payer.records import PayerChannel
from channelpay.payer.session import PaymentSession
from channelpay.payer.steps import Add, Answer, Open
from channelpay.protocol.wire import SessionRequest


@dataclass(frozen=True, slots=True)
class Foreseen:
    """``step`` is what would have to be done on chain first, None if nothing. ``channel`` is the
    one that would pay, None if it would be opened. ``promised`` is how much more would be signed
    for before the answer, and ``cost_max`` what it may cost in the end, in base units.
    """

    url: str
    request: SessionRequest
    channel: PayerChannel | None
    step: Open | Add | None
    promised: int
    cost_max: int


class Foresight(PaymentSession):
    """A payment that goes no further than its first voucher, which it does not sign."""

    def foresee(self, answer: Answer) -> Foreseen | None:
        """What would follow the answer to a request without a payment; None where it is free.

        Raises what a payment would raise before it signs anything.
        """
        self._url = answer.url
        offer = self._choose(answer) if answer.status == 402 else None
        if offer is None:
            return None
        check_transport(self._url, allow_plain_http=self._terms.allow_plain_http)
        entry, request = self._channel_for(offer), offer.request
        step = None
        if entry is None or not self._is_covered(offer, entry):
            found = next(self._fund(offer, entry), None)
            step = found if isinstance(found, Open | Add) else None
        if entry is None:
            deposit = step.deposit if isinstance(step, Open) else 0
            promised = offer.limits.set_aside(request, deposit)
        else:
            needed = entry.next_cumulative(self._price(offer, entry), request.min_voucher_delta)
            promised = needed - entry.signed
            self._check_budget(offer, promised)
        cost_max = offer.cost_max if offer.is_metered else request.amount
        return Foreseen(self._url, request, entry, step, promised, cost_max)
