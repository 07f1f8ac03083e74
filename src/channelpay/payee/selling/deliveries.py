"""What was delivered of late, as one process knows it until a sale takes it into the books."""

from __future__ import annotations

from threading import Lock

from channelpay.protocol.accounts import KIND, NOT_YET, PENDING_MS, Delivered
from channelpay.protocol.entries import EntryKey
from channelpay.protocol.rules import Payment

ACCOUNTS_MAX = 10_000
"""Accounts kept in memory, 0.3 kB each; what is not kept counts once it can be pending no more."""
_PENDING = '"pending_paid"'


class Deliveries:
    """By account. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: dict[EntryKey, Delivered] = {}
        self._lock = Lock()

    def note(self, payment: Payment | None) -> None:
        """A request for a payment is being delivered: so the payment stands. Of several requests
        the one counts that was the only one left when it was accepted.
        """
        if payment is None or _PENDING not in payment.sold.undo_text or payment.served != 1:
            return
        for key, add, _ in payment.undo:
            if key.kind == KIND:
                sums = -add.get("pending", 0), -add.get("pending_paid", 0)
                self.add(key, Delivered(*sums, payment.time))

    def add(self, account: EntryKey, delivered: Delivered) -> None:
        """Know this as well."""
        if delivered is NOT_YET:
            return
        with self._lock:
            known = self._known.get(account)
            if known is None:
                if len(self._known) >= ACCOUNTS_MAX:
                    self._known.clear()
                self._known[account] = delivered
            else:
                since = min(known.since, delivered.since)
                sums = known.sales + delivered.sales, known.paid + delivered.paid
                self._known[account] = Delivered(*sums, since)

    def of(self, account: EntryKey, now: int, *, taken: bool) -> Delivered:
        """What is known of an account, and no more where it is ``taken`` into the books with a
        sale. What began long ago is pending there no more.
        """
        if account not in self._known:
            return NOT_YET
        with self._lock:
            known = self._known.get(account, NOT_YET)
            if taken:
                self._known.pop(account, None)
        return known if now - known.since <= PENDING_MS else NOT_YET
