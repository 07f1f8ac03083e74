"""What was delivered of late, as one process knows it until a sale takes it into the books."""

from __future__ import annotations

from threading import Lock

from channelpay.protocol.accounts import KIND, NOT_YET, PENDING_MS, Delivered
from channelpay.protocol.rules import SALE
from channelpay.store import Accepted

ACCOUNTS_MAX = 10_000
"""Accounts kept in memory, 0.3 kB each; what is not kept counts once it can be pending no more."""
_PENDING, _REWARD = '"pending"', '"reward"'


class Deliveries:
    """By the names of accounts. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[bytes, Delivered] = {}
        self._lock = Lock()

    def note(self, accepted: Accepted) -> None:
        """A request for a payment is being delivered: so the payment stands. Of several requests
        the one counts that was the only one left when it was accepted.
        """
        payment = accepted.payment
        if payment is None or _PENDING not in payment.sold.undo_text or payment.served != 1:
            return
        if payment.sold.kind == SALE and _REWARD not in payment.sold.details:
            channel = accepted.record.channel
            self.add(channel.payer + channel.token, Delivered(1, payment.price, payment.time))
            return
        for key, add, _ in payment.undo:
            if key.kind == KIND:
                sums = -add.get("pending", 0), -add.get("pending_paid", 0)
                self.add(key.name, Delivered(*sums, payment.time))

    def add(self, account: bytes, delivered: Delivered) -> None:
        """Know this as well."""
        if delivered is NOT_YET:
            return
        with self._lock:
            known = self._known.get(account)
            if known is not None:
                since = min(known.since, delivered.since)
                sums = known.sales + delivered.sales, known.paid + delivered.paid
                delivered = Delivered(*sums, since)
            elif len(self._known) >= ACCOUNTS_MAX:
                self._known.clear()
            self._known[account] = delivered

    def of(self, account: bytes, now: int, *, taken: bool) -> Delivered:
        """What is known of an account, and no more where it is ``taken`` into the books with a
        sale. What began long ago is pending there no more.
        """
        if account not in self._known:
            return NOT_YET
        with self._lock:
            known = self._known
            found = known.pop(account, NOT_YET) if taken else known.get(account, NOT_YET)
        return found if now - found.since <= PENDING_MS else NOT_YET
