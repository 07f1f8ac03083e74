"""The part of the payer's books that holds what it promised: what it signed for each channel, what
it believes to be spent, and what its requests have set aside.

The numbers of a channel, all cumulative base units of its token:

=============  ==========================================  ======================================
``signed``     highest amount ever signed                  only grows; on disk before the voucher
                                                           leaves
``spent``      what the payee says that it charged         never believed above ``credible``
``credible``   what requests that are over explain:        never above ``signed``
               receipts, and the limit of each that ended
               without one
``in_flight``  prices of the requests that are under way   each request owns its increment; that of
                                                           a metered one is what was promised to it
=============  ==========================================  ======================================

    next voucher = max(signed, spent + in_flight + price)

So no answer of a payee has more signed than what receipts told, and the limits of requests that are
under way or ended without a receipt. What is in flight is never believed to be spent as well; a
payee that says more of it was used may mean a metered response, whose promise grows by that up to
its limit.

A reservation begins with :meth:`Promises.reserve` and ends once: its request was paid for
(:meth:`~Promises.settle`), or was not (:meth:`~Promises.release`), or nobody knows
(:meth:`~Promises.break_off`). One whose time is over, or whose program is gone, lapses: the books
go on as if it had ended without an answer, and take that back if it ends after all.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from channelpay.errors import BudgetExceeded, TabFull
from channelpay.payer import purchased, spending, tabs
from channelpay.payer.books import Books, record_signed
from channelpay.payer.budgets import Budget, Purse
from channelpay.payer.database import amount_blob, blob_amount
from channelpay.payer.origins import origin_of
from channelpay.payer.purchased import NO_PROOF, Bought, Proof, Purchases
from channelpay.payer.records import PayerChannel, Reservation, Sign
from channelpay.payer.silence import begin_waiting, end_waiting
from channelpay.protocol.types import AMOUNT_MAX, ChannelId, Voucher
from channelpay.protocol.wire import Receipt

RESERVATION_SECONDS_MAX = 600
"""After that, a reservation is taken for one of a process that died."""
LAPSED_SECONDS_MAX = 86_400
"""How long such a reservation is kept, for a slow response that goes on after all."""


class Promises(Books):
    """Vouchers and reservations by channel. Every method is one atomic, durable step."""

    purchases: Purchases

    def reserve(
        self,
        channel_id: ChannelId,
        price: int,
        sign: Sign,
        *,
        delta: int = 0,
        budget: Budget | None = None,
        limit: int | None = None,
        instead_of: Reservation | None = None,
    ) -> Reservation:
        """Set ``price`` aside for one request and sign the voucher that covers it.

        When this returns, the signed amount is on disk. No two requests share an increment, also
        not across processes. ``delta`` is the least increment that the payee takes. ``budget``
        limits what the payer promises in this token on this chain, over all channels; ``limit``
        what this request may cost (else its price), which is owed where it goes on a tab. Raises
        :class:`AmountExceedsDeposit`, :class:`BudgetExceeded` or :class:`TabFull`; then nothing was
        signed.
        """
        with self._database.write() as connection:
            self._lapse(connection, channel_id)
            used = 0
            if instead_of is not None:
                used = self._replace(connection, instead_of, channel_id)
            else:
                self._begin(connection, channel_id)
            ceiling = (price if limit is None else min(limit, AMOUNT_MAX)) - used
            if price > ceiling:
                raise BudgetExceeded(f"{price} is over what is left of the limit: {ceiling}")
            entry = self._entry(connection, channel_id)
            cumulative = entry.next_cumulative(price, delta)
            entry.require_deposit(cumulative)
            if budget is not None and budget.tab_max is not None:
                self._require_tab(connection, entry, ceiling, budget, budget.tab_max)
            if budget is not None and cumulative > entry.signed:
                spending.count(connection, entry, cumulative - entry.signed, budget, self._now)
            voucher = _voucher(entry, cumulative, sign)
            record_signed(connection, voucher)
            row_id = self._insert_reservation(connection, channel_id, price, ceiling)
        return Reservation(row_id, channel_id, price, voucher, ceiling, used)

    def sign_by_hand(self, channel_id: ChannelId, cumulative: int, sign: Sign) -> Voucher:
        """A voucher for exactly ``cumulative``, apart from any request; on disk when this returns.
        Whoever holds it may take it, so the payee is believed if it says so.

        Raises :class:`InputError` for less than was signed before, or if the channel is not open,
        :class:`ConfigError` in doubt, :class:`AmountExceedsDeposit`; then nothing was signed.
        """
        with self._database.write() as connection:
            entry = self._entry(connection, channel_id)
            entry.require_signable(cumulative)
            voucher = _voucher(entry, cumulative, sign)
            record_signed(connection, voucher)
            signed = replace(entry, signed=cumulative)
            _explain(connection, signed, cumulative - entry.signed)
        return voucher

    def begin_metered(self, reservation: Reservation, spent: int | None, url: str) -> int:
        """A metered response began, and by the payee's claim so much was spent before it. Returns
        what the books say of that now.

        The claim is taken from a request that is alone on its channel, if it corrects the books:
        where they are unsure, or assume more. Otherwise it may hold a first charge of this request.
        Beside other requests it is taken where the books are unsure and assume less, or the rest of
        responses that broke off would count as used by this one.
        """
        with self._database.write() as connection:
            self._lapse(connection, reservation.channel_id)
            entry = self._entry(connection, reservation.channel_id)
            row = connection.execute(
                "SELECT alone FROM reservations WHERE id = ?", (reservation.id,)
            ).fetchone()
            before = entry.spent
            is_alone = row is not None and row["alone"]
            claim = min(spent or 0, entry.credible)
            if spent is not None and is_alone:
                before = claim if entry.unsure else min(claim, entry.spent)
                _set_unsure(connection, reservation.channel_id, unsure=False)
            elif entry.unsure:
                before = max(claim, entry.spent)
            connection.execute(
                "UPDATE channels SET spent = ?, presented = 1, url = ? WHERE channel_id = ?",
                (amount_blob(before), url, reservation.channel_id),
            )
            end_waiting(connection, reservation.channel_id)
        return before

    def settle(
        self,
        reservation: Reservation,
        spent: int | None,
        url: str | None = None,
        *,
        metered: bool = False,
        price: int = 0,
        receipt: Receipt | None = None,
        proof: Proof = NO_PROOF,
    ) -> int:
        """The request was paid for. ``spent`` is the payee's claim, None if it made none to be
        believed; ``url`` is where the channel was used. Returns what the request cost. The
        ``receipt`` may tell of a tab: what was charged beyond the ``price`` has paid of it. What
        was bought is kept with its ``proof``, if purchases are.

        A request that was alone on its channel takes the claim as it is, as far as its own limit
        and requests before it explain that. Otherwise the claim may hold the charges of others, who
        bring them themselves, and answers may overtake each other: then the highest claim so far
        counts, up to the own price; for a ``metered`` response, which may have used what others
        were promised, up to all that is not set aside, and to the sum of the limits of those that
        came at the same time.
        """
        with self._database.write() as connection:
            self._lapse(connection, reservation.channel_id)
            alone, used = self._take_out(connection, reservation)
            entry = self._entry(connection, reservation.channel_id)
            highest, pooled = _overlapping(connection, reservation.channel_id)
            limit = reservation.ceiling - used + (pooled if metered else 0)
            expected = entry.spent + reservation.price
            claimed = min(expected if spent is None else spent, entry.signed)
            settled = min(claimed, entry.credible + limit)
            if not alone:
                if metered:
                    expected = entry.signed - entry.in_flight
                claimed = max(claimed, highest)
                settled = max(entry.spent, min(claimed, expected, entry.credible + limit))
            elif spent is not None:
                _set_unsure(connection, reservation.channel_id, unsure=False)
            cost = max(0, settled - entry.spent)
            if metered:
                pooled = max(0, pooled + reservation.price - cost)
            connection.execute(
                "UPDATE channels SET spent = ?, claimed = ?, pooled = ?, presented = 1,"
                " url = coalesce(?, url) WHERE channel_id = ?",
                (*map(amount_blob, (settled, claimed, pooled)), url, reservation.channel_id),
            )
            _explain(connection, entry, min(cost, limit))
            end_waiting(connection, reservation.channel_id)
            if url is not None:
                self._note(connection, entry, Bought(url, cost, price, receipt, proof))
        return cost

    def _note(self, connection: sqlite3.Connection, entry: PayerChannel, bought: Bought) -> None:
        """What was paid, for whom it is kept beside the channel's own numbers."""
        receipt, cost = bought.receipt, bought.cost
        if receipt is not None and receipt.tab is not None:
            tab = tabs.read(connection, entry).after(receipt.tab, bought.price, cost)
            tabs.write(connection, entry, tab)
        place = (Purse.of(entry), origin_of(bought.url))
        spending.add(connection, *place, self._now, paid=cost)
        if self.purchases.are_kept:
            purchased.keep(connection, entry, bought, int(self._clock() * 1000))

    def release(self, reservation: Reservation, *, answered: bool = False) -> None:
        """The request ended unpaid, or its answer was lost. What was signed for it is there for the
        next one, and the payee is believed if it says that it charged it.
        """
        with self._database.write() as connection:
            self._end(connection, reservation)
            if answered:
                end_waiting(connection, reservation.channel_id)

    def break_off(self, reservation: Reservation) -> None:
        """A metered response ended without a receipt: what it cost, the next receipt tells. Until
        then, what was signed for it is there for the next request.
        """
        with self._database.write() as connection:
            self._end(connection, reservation)
            _set_unsure(connection, reservation.channel_id, unsure=True)

    def adopt_spent(
        self, channel_id: ChannelId, spent: int, refused: Reservation | None = None
    ) -> PayerChannel:
        """Take over what the payee says that it charged when it ``refused`` a request, as far as
        that is credible. Returns the channel without what that request has set aside.

        What exceeds that may be charges of others, up to what they have set aside; and what exceeds
        that too, of metered responses: credit is not kept apart at the payee. Nothing is believed
        of a claim above all that was ever signed.
        """
        with self._database.write() as connection:
            self._lapse(connection, channel_id)
            entry = self._entry(connection, channel_id, refused)
            if spent <= entry.signed:
                believed = min(spent, entry.credible)
                more = spent - believed - entry.in_flight
                self._raise_promises(connection, channel_id, more, refused)
                connection.execute(
                    "UPDATE channels SET spent = ?, presented = 1 WHERE channel_id = ?",
                    (amount_blob(max(believed, entry.spent)), channel_id),
                )
            return self._entry(connection, channel_id, refused)

    # --- inside one step ---------------------------------------------------------------------

    def _require_tab(
        self,
        connection: sqlite3.Connection,
        entry: PayerChannel,
        amount: int,
        budget: Budget,
        tab_max: int,
    ) -> None:
        """Raises :class:`TabFull` if the tab of the channel's payee has no room for so much more,
        beside what is under way; :class:`BudgetExceeded` if it could not be paid.
        """
        tab = tabs.read(connection, entry)
        more = tabs.under_way(connection, entry, self._now) + amount
        if not tab.has_room(more, tab_max):
            raise TabFull(f"{tab.owed} is owed, {more} is to come, and {tab_max} is the limit")
        uses = spending.uses(connection, Purse.of(entry), budget, self._now)
        spending.check(uses, tab.owed + more)

    def _begin(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        """A request comes to the channel."""
        begin_waiting(connection, channel_id, self._now)
        if not self._reserved(connection, channel_id, None):
            connection.execute(
                "UPDATE channels SET pooled = zeroblob(16) WHERE channel_id = ?", (channel_id,)
            )

    def _replace(
        self, connection: sqlite3.Connection, held: Reservation, channel_id: ChannelId
    ) -> int:
        """Make room for a request's next reservation. Returns what its limit is to be less."""
        if held.channel_id == channel_id:
            return held.used + self._take_out(connection, held)[1]
        self._end(connection, held)
        return 0

    def _insert_reservation(
        self, connection: sqlite3.Connection, channel_id: ChannelId, price: int, ceiling: int
    ) -> int:
        alone = not self._reserved(connection, channel_id, None)
        connection.execute("UPDATE reservations SET alone = 0 WHERE channel_id = ?", (channel_id,))
        expires_at = self._now + RESERVATION_SECONDS_MAX
        held = (channel_id, amount_blob(price), amount_blob(ceiling))
        row = connection.execute(
            "INSERT INTO reservations (channel_id, price, ceiling, alone, expires_at, owner)"
            " VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            (*held, alone, expires_at, self._lease.name),
        ).fetchone()
        return int(row["id"])

    def _end(self, connection: sqlite3.Connection, reservation: Reservation) -> None:
        """The request ended without a receipt: it may have cost as much as its limit."""
        self._lapse(connection, reservation.channel_id)
        row = connection.execute(
            "DELETE FROM reservations WHERE id = ? RETURNING ceiling, lapsed", (reservation.id,)
        ).fetchone()
        if row is not None and row["lapsed"] is None:
            entry = self._entry(connection, reservation.channel_id)
            _explain(connection, entry, blob_amount(row["ceiling"]))

    def _take_out(
        self, connection: sqlite3.Connection, reservation: Reservation
    ) -> tuple[bool, int]:
        """End a reservation whose request goes on or was paid for. Returns whether it was alone on
        its channel, and what the payee has taken of its limit since it lapsed.
        """
        row = connection.execute(
            "DELETE FROM reservations WHERE id = ? RETURNING alone, lapsed", (reservation.id,)
        ).fetchone()
        if row is None:
            return False, reservation.ceiling
        if row["lapsed"] is None:
            return bool(row["alone"]), 0
        entry = self._entry(connection, reservation.channel_id)
        lapsed = blob_amount(row["lapsed"])
        left = min(lapsed, entry.credible - entry.spent)
        _explain(connection, entry, -left)
        return False, lapsed - left

    def _raise_promises(
        self,
        connection: sqlite3.Connection,
        channel_id: ChannelId,
        more: int,
        refused: Reservation | None,
    ) -> None:
        """Promise ``more`` to metered responses that are under way, up to their limits."""
        for row in self._reserved(connection, channel_id, refused):
            price, ceiling = blob_amount(row["price"]), blob_amount(row["ceiling"])
            raised = min(more, ceiling - price)
            if raised > 0:
                more -= raised
                connection.execute(
                    "UPDATE reservations SET price = ? WHERE id = ?",
                    (amount_blob(price + raised), row["id"]),
                )

    def _lapse(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        """Take overdue reservations for those of requests that ended without an answer."""
        now = self._now
        self._end_of_the_gone(connection, channel_id, now)
        connection.execute(
            "DELETE FROM reservations WHERE expires_at <= ?", (now - LAPSED_SECONDS_MAX,)
        )
        overdue = connection.execute(
            "SELECT id, ceiling FROM reservations"
            " WHERE channel_id = ? AND expires_at <= ? AND lapsed IS NULL",
            (channel_id, now),
        ).fetchall()
        for row in overdue:
            entry = self._entry(connection, channel_id)
            explained = _explain(connection, entry, blob_amount(row["ceiling"]))
            connection.execute(
                "UPDATE reservations SET lapsed = ? WHERE id = ?",
                (amount_blob(explained), row["id"]),
            )

    def _end_of_the_gone(
        self, connection: sqlite3.Connection, channel_id: ChannelId, now: int
    ) -> None:
        """The reservations of programs that were killed are overdue at once."""
        rows = connection.execute(
            "SELECT DISTINCT owner FROM reservations"
            " WHERE channel_id = ? AND expires_at > ? AND owner <> ''",
            (channel_id, now),
        ).fetchall()
        gone = [row["owner"] for row in rows if self._lease.is_over(row["owner"])]
        connection.executemany(
            "UPDATE reservations SET expires_at = ? WHERE owner = ? AND expires_at > ?",
            [(now, owner, now) for owner in gone],
        )


def _voucher(entry: PayerChannel, cumulative: int, sign: Sign) -> Voucher:
    if entry.signature and cumulative == entry.signed:
        return Voucher(entry.channel_id, cumulative, entry.signature)
    return sign(entry, cumulative)


def _explain(connection: sqlite3.Connection, entry: PayerChannel, amount: int) -> int:
    """Let so much more of what was signed be believed to be spent. Returns how much more is."""
    credible = min(entry.credible + amount, entry.signed)
    connection.execute(
        "UPDATE channels SET credible = ? WHERE channel_id = ?",
        (amount_blob(credible), entry.channel_id),
    )
    return credible - entry.credible


def _overlapping(connection: sqlite3.Connection, channel_id: ChannelId) -> tuple[int, int]:
    """Of requests that are under way together: the highest claim so far, and what metered ones were
    promised and have not used.
    """
    row = connection.execute(
        "SELECT claimed, pooled FROM channels WHERE channel_id = ?", (channel_id,)
    ).fetchone()
    return blob_amount(row["claimed"]), blob_amount(row["pooled"])


def _set_unsure(connection: sqlite3.Connection, channel_id: ChannelId, *, unsure: bool) -> None:
    connection.execute("UPDATE channels SET unsure = ? WHERE channel_id = ?", (unsure, channel_id))
