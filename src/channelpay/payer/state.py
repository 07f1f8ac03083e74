"""The payer's books: its channels, what it signed for each, and the prices it was told.

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

The chain alone decides ``status`` and ``deposit``. A payee's word that a channel is gone only sets
``refused``: no more vouchers go there, but the channel stays listed, since money may be in it.
Several processes may share the file.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from channelpay.errors import (
    AmountExceedsDeposit,
    BudgetExceeded,
    ConfigError,
    InputError,
    NotFound,
)
from channelpay.payer import budgets, purchased, tabs
from channelpay.payer.budgets import Budget, Purse, Question, Spending
from channelpay.payer.database import Database, amount_blob, blob_amount
from channelpay.payer.leases import Lease
from channelpay.payer.origins import origin_of
from channelpay.payer.passes import Passes
from channelpay.payer.purchased import Bought, Purchases
from channelpay.payer.records import Funding, PayerChannel, Reservation, Sign, Token, TopUp
from channelpay.payer.schema import MIGRATIONS
from channelpay.payer.signed_fundings import SignedFundings, presentable_open
from channelpay.payer.tabs import Tabs
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    AMOUNT_MAX,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.protocol.wire import Challenge, Receipt

RESERVATION_SECONDS_MAX = 600
"""After that, a reservation is taken for one of a process that died."""
LAPSED_SECONDS_MAX = 86_400
"""How long such a reservation is kept, for a slow response that goes on after all."""
FUNDING_SECONDS_MAX = 300
"""How long others wait for an open or a top-up that another process has begun."""

MARKING = (
    # Those requests are of who made the copy, not of who uses it.
    "DELETE FROM reservations",
    "UPDATE channels SET in_doubt = 1 WHERE status <> 'finalized'",
)
"""The statements that put books in doubt."""
_INSERT_FUNDING = (
    "INSERT OR REPLACE INTO fundings (transaction_hash, channel_id, nonce, amount)"
    " VALUES (?, ?, ?, ?)"
)
_ANSWERED = "UPDATE channels SET unanswered = 0, unanswered_since = 0 WHERE channel_id = ?"


class PayerState:
    """The books in one SQLite file. Every method that writes is one atomic, durable step.

    ``clock`` gives Unix seconds. Raises :class:`StoreUnavailable` when the file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(path, MIGRATIONS)
        self.signed: SignedFundings = SignedFundings(self._database)
        self.purchases: Purchases = Purchases(self._database)
        self.tabs: Tabs = Tabs(self._database, clock)
        self.passes: Passes = Passes(self._database)
        self._lease = Lease(path)
        self._clock = clock

    def close(self) -> None:
        self._database.close()
        self._lease.end()

    # --- channels ----------------------------------------------------------------------------

    def channels(self, payer: Address) -> list[PayerChannel]:
        """All channels of one payer, in the order in which they were opened."""
        with self._database.read() as connection:
            return self._of_payer(connection, payer)

    def channel(self, channel_id: ChannelId, beside: Reservation | None = None) -> PayerChannel:
        """One channel; as if ``beside`` had not set anything aside. Raises :class:`NotFound`."""
        with self._database.read() as connection:
            return self._entry(connection, channel_id, beside)

    def channels_to(
        self,
        deployment: Deployment,
        payer: Address,
        payee: Address,
        token: Address,
        beside: Reservation | None = None,
    ) -> list[PayerChannel]:
        """The channels between two in one token, in the order in which to use them: where most is
        signed first, so that few stay open; among equals, those in doubt last. Each as if
        ``beside`` had not set anything aside.
        """
        with self._database.read() as connection:
            found = self._of_pair(connection, deployment, payer, payee, token, beside)
        return sorted(found, key=lambda entry: (-entry.signed, entry.in_doubt))

    def begin_open(
        self, planned: PayerChannel, *, unless_usable: Callable[[PayerChannel], bool] | None = None
    ) -> bool:
        """Journal an open before its transaction is sent. False if the very channel is journaled
        already.

        With ``unless_usable``, nothing is journaled and False returned when the same two have a
        usable channel already of which it says that we can sign for it, or another open is under
        way: so parallel requests open one channel.
        """
        channel, deployment = planned.channel, planned.deployment
        with self._database.write() as connection:
            others = self._of_pair(
                connection, deployment, channel.payer, channel.payee, channel.token
            )
            if any(other.channel_id == planned.channel_id for other in others):
                return False
            if unless_usable is not None and any(
                (other.is_usable and unless_usable(other)) or self._is_funding(connection, other)
                for other in others
            ):
                return False
            _insert(connection, planned, int(self._clock()) + FUNDING_SECONDS_MAX)
            self._note_funder(connection, planned.channel_id)
        return True

    def announce_open(self, planned: PayerChannel, until: int) -> bool:
        """Journal an open that somebody else is asked to send, whatever becomes of this process;
        nothing else is opened between the two until then (Unix seconds). False if the very channel
        is journaled already.
        """
        with self._database.write() as connection:
            known = connection.execute(
                "SELECT 1 FROM channels WHERE channel_id = ?", (planned.channel_id,)
            ).fetchone()
            if known is None:
                _insert(connection, planned, until)
        return known is None

    def is_being_funded(self, channel_id: ChannelId) -> bool:
        """Whether a program that is alive is about to send an open or a top-up, or waits for it."""
        with self._database.write() as connection:
            self._end_funding_of_the_gone(connection, channel_id)
            row = connection.execute(
                "SELECT 1 FROM channels WHERE channel_id = ? AND funding_until > ?",
                (channel_id, int(self._clock())),
            ).fetchone()
        return row is not None

    def abandon_open(self, channel_id: ChannelId) -> None:
        """Forget an open whose transaction certainly had no effect."""
        self._execute(
            "DELETE FROM channels WHERE channel_id = ? AND status = ?",
            channel_id,
            ChannelStatus.ABSENT.value,
        )

    def abandon_unsent(self, channel_id: ChannelId) -> bool:
        """Forget an open whose process ended before it sent anything. Were it to go on after all,
        its transaction could not be journaled, and would not leave. Returns whether it was one.
        """
        now = int(self._clock())
        with self._database.write() as connection:
            self._end_funding_of_the_gone(connection, channel_id)
            deleted = connection.execute(
                "DELETE FROM channels WHERE channel_id = ? AND status = ? AND funding_until <= ?"
                " AND open_transaction IS NULL"
                " AND channel_id NOT IN (SELECT channel_id FROM fundings)"
                " AND channel_id NOT IN (SELECT channel_id FROM signed_fundings)"
                " AND channel_id NOT IN (SELECT channel_id FROM reservations WHERE expires_at > ?)",
                (channel_id, ChannelStatus.ABSENT.value, now, now),
            )
            return deleted.rowcount == 1

    def record_open_transaction(self, channel_id: ChannelId, transaction_hash: bytes) -> None:
        self._execute(
            "UPDATE channels SET open_transaction = ? WHERE channel_id = ?",
            transaction_hash,
            channel_id,
        )

    def record_funding(self, funding: Funding) -> None:
        """Journal the transaction of an open or a top-up before it is broadcast. From then on
        nothing else funds the channel until :meth:`end_funding`, however long that takes.
        """
        values = (funding.transaction_hash, funding.channel_id)
        with self._database.write() as connection:
            connection.execute(_INSERT_FUNDING, _funding_row(funding))
            connection.execute(
                "UPDATE channels SET open_transaction = ? WHERE channel_id = ? AND status = ?",
                (*values, ChannelStatus.ABSENT.value),
            )

    def fundings(self, channel_id: ChannelId) -> list[Funding]:
        """The journaled transactions of which the end is not known yet, oldest first. One of them
        is mined at most.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM fundings WHERE channel_id = ? ORDER BY rowid", (channel_id,)
            ).fetchall()
        return [
            Funding(channel_id, row["transaction_hash"], row["nonce"], blob_amount(row["amount"]))
            for row in rows
        ]

    def record_chain_state(
        self, channel_id: ChannelId, state: ChannelState, seen: PayerChannel | None = None
    ) -> None:
        """What the chain says. Where it has no numbers (any more), the old ones stay.

        ``seen`` is what the books said when the chain was asked: if they moved on since, the answer
        is out of date and not recorded. While a top-up is journaled, the deposit waits for its end:
        the payee has to be told of it with the first voucher that needs it.
        """
        with self._database.write() as connection:
            entry = self._entry(connection, channel_id)
            if seen is not None and _chain_part(seen) != _chain_part(entry):
                return
            known = state.deposit > 0
            is_early = state.deposit > entry.deposit and _is_topped_up(connection, entry)
            connection.execute(
                "UPDATE channels SET status = ?, close_requested_at = ?, deposit = ?, settled = ?"
                " WHERE channel_id = ?",
                (
                    state.status.value,
                    state.close_requested_at,
                    amount_blob(state.deposit if known and not is_early else entry.deposit),
                    amount_blob(state.settled if known else entry.settled),
                    channel_id,
                ),
            )

    def refuse(self, channel_id: ChannelId, code: str) -> None:
        """The payee takes no more vouchers of this channel, for the reason ``code``."""
        self._execute("UPDATE channels SET refused = ? WHERE channel_id = ?", code, channel_id)

    def record_grace(self, deployment: Deployment, seconds: int) -> None:
        """The grace period of a contract, which never changes."""
        self._execute(
            "UPDATE channels SET grace_seconds = ? WHERE chain_id = ? AND contract = ?",
            seconds,
            deployment.chain_id,
            deployment.contract,
        )

    def present_open_again(self, channel_id: ChannelId) -> None:
        """Tell the payee of the open once more, with the next request."""
        self._execute("UPDATE channels SET presented = 0 WHERE channel_id = ?", channel_id)

    # --- doubt -------------------------------------------------------------------------------

    def add_found(self, found: PayerChannel, top_ups: Iterable[TopUp] = ()) -> bool:
        """Enter a channel that was found on chain, with what added to its deposit; it is in doubt.
        False for one that the books know: what they say of it stays.
        """
        with self._database.write() as connection:
            known = connection.execute(
                "SELECT 1 FROM channels WHERE channel_id = ?", (found.channel_id,)
            ).fetchone()
            if known is not None:
                return False
            _insert(connection, replace(found, in_doubt=True), 0)
            connection.executemany(
                "INSERT OR IGNORE INTO top_ups VALUES (?, ?, ?, 1)",
                [
                    (one.transaction_hash, one.channel_id, amount_blob(one.amount))
                    for one in top_ups
                ],
            )
        return True

    def mark_in_doubt(self) -> int:
        """These books are a copy: more may have been signed on every channel that is not finalized.
        Returns how many those are.
        """
        with self._database.write() as connection:
            return [connection.execute(statement).rowcount for statement in MARKING][-1]

    def end_doubt(self, channel_id: ChannelId, spent: int, last: Voucher | None = None) -> None:
        """The payee told what it holds and that it charged ``spent``. ``last`` is a voucher of ours
        that it showed, whose signature was checked; None if it holds none above what the books say.

        It is believed what our own signatures prove, and only while the books are in doubt, or are
        proven to be too old.
        """
        with self._database.write() as connection:
            entry = self._entry(connection, channel_id)
            is_news = last is not None and last.cumulative_amount > entry.signed
            if not (entry.in_doubt or is_news):
                return
            if last is not None and is_news:
                connection.execute(
                    "UPDATE channels SET signed = ?, signature = ? WHERE channel_id = ?",
                    (amount_blob(last.cumulative_amount), last.signature, channel_id),
                )
                entry = self._entry(connection, channel_id)
            believed = max(entry.spent, min(spent, entry.signed))
            connection.execute(
                "UPDATE channels SET spent = ?, credible = ?, in_doubt = 0, presented = 1"
                " WHERE channel_id = ?",
                (
                    amount_blob(believed),
                    amount_blob(max(believed, entry.credible)),
                    channel_id,
                ),
            )

    # --- silence -----------------------------------------------------------------------------

    def begin_asking(self, payer: Address, origin: str) -> list[ChannelId]:
        """A request without a voucher is about to go to ``origin``: the channels that were used
        there, which wait for an answer from now on.
        """
        with self._database.read() as connection:
            found = [one.channel_id for one in self._used_at(connection, payer, origin)]
        if found:
            with self._database.write() as connection:
                for channel_id in found:
                    self._begin_waiting(connection, channel_id)
        return found

    def record_answer(self, channel_ids: Iterable[ChannelId]) -> None:
        """The payee of these channels is there."""
        with self._database.write() as connection:
            connection.executemany(_ANSWERED, [(channel_id,) for channel_id in channel_ids])

    def used_at(self, payer: Address, origin: str) -> list[PayerChannel]:
        """The channels that are not finalized and were used at ``origin`` last."""
        with self._database.read() as connection:
            return self._used_at(connection, payer, origin)

    def _used_at(
        self, connection: sqlite3.Connection, payer: Address, origin: str
    ) -> list[PayerChannel]:
        entries = self._of_payer(connection, payer)
        live = (one for one in entries if one.status is not ChannelStatus.FINALIZED)
        return [one for one in live if one.url is not None and _is_at(one.url, origin)]

    def _begin_waiting(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        connection.execute(
            "UPDATE channels SET unanswered_since ="
            " CASE unanswered WHEN 0 THEN ? ELSE unanswered_since END,"
            " unanswered = unanswered + 1 WHERE channel_id = ?",
            (int(self._clock()), channel_id),
        )

    # --- top-ups -----------------------------------------------------------------------------

    def begin_top_up(
        self, channel_id: ChannelId, deposit: int, *, instead_of: Funding | None = None
    ) -> bool:
        """Whether this process may top the channel up now: no other is doing it, none did it since
        the books said ``deposit``, and no earlier transaction but ``instead_of`` may still be
        mined.
        """
        now = int(self._clock())
        nonce = None if instead_of is None else instead_of.nonce
        with self._database.write() as connection:
            self._end_funding_of_the_gone(connection, channel_id)
            claimed = connection.execute(
                "UPDATE channels SET funding_until = ? WHERE channel_id = ? AND deposit = ?"
                " AND funding_until <= ? AND channel_id NOT IN"
                " (SELECT channel_id FROM fundings WHERE nonce IS NOT ?)"
                " AND channel_id NOT IN (SELECT channel_id FROM signed_fundings)",
                (now + FUNDING_SECONDS_MAX, channel_id, amount_blob(deposit), now, nonce),
            )
            if claimed.rowcount == 1:
                self._note_funder(connection, channel_id)
            return claimed.rowcount == 1

    def drop_funding(self, channel_id: ChannelId, transaction_hash: bytes | None) -> None:
        """A transaction will certainly never be mined, or none was sent (None). Others that are
        journaled for the channel may still be.
        """
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM fundings WHERE channel_id = ? AND transaction_hash IS ?",
                (channel_id, transaction_hash),
            )
            connection.execute(
                "UPDATE channels SET funding_until = 0 WHERE channel_id = ?", (channel_id,)
            )

    def record_top_up(self, top_up: TopUp, deposit: int) -> None:
        """A confirmed top-up to ``deposit`` in all, which also takes a close request back. The
        payee is told with the next request.
        """
        with self._database.write() as connection:
            entry = self._entry(connection, top_up.channel_id)
            connection.execute(
                "INSERT OR IGNORE INTO top_ups VALUES (?, ?, ?, 0)",
                (top_up.transaction_hash, top_up.channel_id, amount_blob(top_up.amount)),
            )
            connection.execute(
                "UPDATE channels SET deposit = ?, status = ?, close_requested_at = 0,"
                " refused = NULL WHERE channel_id = ?",
                (
                    amount_blob(max(deposit, entry.deposit)),
                    ChannelStatus.OPEN.value,
                    top_up.channel_id,
                ),
            )

    def end_funding(self, channel_id: ChannelId, transaction_hash: bytes) -> None:
        """The open or top-up with this transaction is over, for better or worse; nothing happens if
        that is known.
        """
        with self._database.write() as connection:
            known = connection.execute(
                "SELECT 1 FROM fundings WHERE channel_id = ? AND transaction_hash = ?",
                (channel_id, transaction_hash),
            ).fetchone()
            if known is None:
                return
            connection.execute("DELETE FROM fundings WHERE channel_id = ?", (channel_id,))
            connection.execute(
                "UPDATE channels SET funding_until = 0 WHERE channel_id = ?", (channel_id,)
            )

    def note_top_ups(self, found: Iterable[TopUp]) -> None:
        """Top-ups that were found on chain, of which the payee is told with the next request; those
        that the books know stay as they are.
        """
        rows = [(one.transaction_hash, one.channel_id, amount_blob(one.amount)) for one in found]
        with self._database.write() as connection:
            connection.executemany("INSERT OR IGNORE INTO top_ups VALUES (?, ?, ?, 0)", rows)

    def unpresented_top_ups(self, channel_id: ChannelId) -> list[TopUp]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT * FROM top_ups WHERE channel_id = ? AND NOT presented ORDER BY rowid",
                (channel_id,),
            ).fetchall()
        return [
            TopUp(channel_id, row["transaction_hash"], blob_amount(row["amount"])) for row in rows
        ]

    def present_top_ups_again(self, channel_id: ChannelId) -> bool:
        """The payee knows the channel, but not its whole deposit: tell it of all top-ups (once
        more). False if there were none.
        """
        with self._database.write() as connection:
            connection.execute(
                "UPDATE channels SET presented = 1 WHERE channel_id = ?", (channel_id,)
            )
            updated = connection.execute(
                "UPDATE top_ups SET presented = 0 WHERE channel_id = ?", (channel_id,)
            )
            return updated.rowcount > 0

    def record_presented(self, top_up: TopUp) -> None:
        self._execute(
            "UPDATE top_ups SET presented = 1 WHERE transaction_hash = ?", top_up.transaction_hash
        )

    # --- vouchers ----------------------------------------------------------------------------

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
        what this request may cost (else its price). Raises :class:`AmountExceedsDeposit` or
        :class:`BudgetExceeded`; then nothing was signed.
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
            _check_deposit(entry, cumulative)
            if budget is not None and cumulative > entry.signed:
                self._count(connection, entry, cumulative - entry.signed, budget)
            voucher = _voucher(entry, cumulative, sign)
            connection.execute(
                "UPDATE channels SET signed = ?, signature = ? WHERE channel_id = ?",
                (amount_blob(cumulative), voucher.signature, channel_id),
            )
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
            require_signable(entry, cumulative)
            voucher = _voucher(entry, cumulative, sign)
            connection.execute(
                "UPDATE channels SET signed = ?, signature = ? WHERE channel_id = ?",
                (amount_blob(cumulative), voucher.signature, channel_id),
            )
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
                self._set_sure(connection, reservation.channel_id)
            elif entry.unsure:
                before = max(claim, entry.spent)
            connection.execute(
                "UPDATE channels SET spent = ?, presented = 1, url = ? WHERE channel_id = ?",
                (amount_blob(before), url, reservation.channel_id),
            )
            connection.execute(_ANSWERED, (reservation.channel_id,))
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
        signed_receipt: str | None = None,
    ) -> int:
        """The request was paid for. ``spent`` is the payee's claim, None if it made none to be
        believed; ``url`` is where the channel was used. Returns what the request cost. The
        ``receipt`` may tell of a tab: what was charged beyond the ``price`` has paid of it. Both
        receipts are kept with what was bought, if purchases are.

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
            limit = reservation.ceiling - used
            pooled = _amount(connection, entry, "pooled")
            if metered:
                limit += pooled
            expected = entry.spent + reservation.price
            claimed = min(expected if spent is None else spent, entry.signed)
            settled = min(claimed, entry.credible + limit)
            if not alone:
                if metered:
                    expected = entry.signed - entry.in_flight
                claimed = max(claimed, _amount(connection, entry, "claimed"))
                settled = max(entry.spent, min(claimed, expected, entry.credible + limit))
            elif spent is not None:
                self._set_sure(connection, reservation.channel_id)
            cost = max(0, settled - entry.spent)
            if metered:
                pooled = max(0, pooled + reservation.price - cost)
            connection.execute(
                "UPDATE channels SET spent = ?, claimed = ?, pooled = ?, presented = 1,"
                " url = coalesce(?, url) WHERE channel_id = ?",
                (*map(amount_blob, (settled, claimed, pooled)), url, reservation.channel_id),
            )
            _explain(connection, entry, min(cost, limit))
            connection.execute(_ANSWERED, (reservation.channel_id,))
            if receipt is not None and receipt.tab is not None:
                tab = tabs.read(connection, entry).after(receipt.tab, price, cost)
                tabs.write(connection, entry, tab)
            if url is not None:
                budgets.add(connection, Purse.of(entry), origin_of(url), self._today, paid=cost)
                self._keep(connection, entry, Bought(url, cost, price, receipt, signed_receipt))
        return cost

    def _keep(self, connection: sqlite3.Connection, entry: PayerChannel, bought: Bought) -> None:
        if self.purchases.are_kept:
            purchased.keep(connection, entry, bought, int(self._clock() * 1000))

    def release(self, reservation: Reservation, *, answered: bool = False) -> None:
        """The request ended unpaid, or its answer was lost. What was signed for it is there for the
        next one, and the payee is believed if it says that it charged it.
        """
        with self._database.write() as connection:
            self._end(connection, reservation)
            if answered:
                connection.execute(_ANSWERED, (reservation.channel_id,))

    def break_off(self, reservation: Reservation) -> None:
        """A metered response ended without a receipt: what it cost, the next receipt tells. Until
        then, what was signed for it is there for the next request.
        """
        with self._database.write() as connection:
            self._end(connection, reservation)
            connection.execute(
                "UPDATE channels SET unsure = 1 WHERE channel_id = ?", (reservation.channel_id,)
            )

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

    # --- budgets -----------------------------------------------------------------------------

    def check_budget(self, purse: Purse, budget: Budget, amount: int) -> None:
        """Raises :class:`BudgetExceeded` if so much more were to be promised."""
        with self._database.read() as connection:
            budgets.check(budgets.uses(connection, purse, budget, self._today), amount)

    def room(self, entry: PayerChannel, budget: Budget) -> int:
        """What can be set aside on a channel within its deposit and a budget."""
        with self._database.read() as connection:
            uses = budgets.uses(connection, Purse.of(entry), budget, self._today)
        ahead = max(0, entry.signed - entry.spent - entry.in_flight)
        return min([entry.room, *(max(0, one.limit - one.used) + ahead for one in uses)])

    def spending_today(self, purse: Purse) -> list[Spending]:
        """What was promised and paid today, by origin."""
        with self._database.read() as connection:
            return budgets.spending(connection, purse, self._today)

    def promised_ever(self, purse: Purse) -> int:
        """What payees can take at most of all that was ever promised."""
        with self._database.read() as connection:
            return budgets.promised_ever(connection, purse)

    def allow_today(self, payer: Address, question: Question) -> None:
        """No limit stops requests to this origin today that cost no more than this one."""
        purse = Purse(payer, question.chain_id, question.token)
        with self._database.write() as connection:
            budgets.add(connection, purse, question.origin, self._today, allowed=question.price)

    def is_allowed_today(self, payer: Address, question: Question) -> bool:
        """Whether :meth:`allow_today` answers the question."""
        today = self.spending_today(Purse(payer, question.chain_id, question.token))
        found = {one.origin: one.allowed for one in today}
        return question.price <= found.get(question.origin, 0)

    @property
    def _today(self) -> int:
        return budgets.day_of(self._clock())

    def _count(
        self, connection: sqlite3.Connection, entry: PayerChannel, growth: int, budget: Budget
    ) -> None:
        purse, today = Purse.of(entry), self._today
        budgets.check(budgets.uses(connection, purse, budget, today), growth)
        budgets.add(connection, purse, budget.origin, today, promised=growth)

    # --- prices and tokens -------------------------------------------------------------------

    def remember_challenge(
        self, origin: str, challenge: Challenge, expires_at: float | None
    ) -> None:
        """Keep the challenge that is answered ahead of this origin's next 402."""
        self._execute(
            "INSERT OR REPLACE INTO challenges VALUES (?, ?, ?)",
            origin,
            json.dumps(challenge.members()),
            expires_at,
        )

    def challenge(self, origin: str) -> Challenge | None:
        """The kept challenge of an origin, unless it has expired."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT challenge FROM challenges"
                " WHERE origin = ? AND coalesce(expires_at > ?, TRUE)",
                (origin, self._clock()),
            ).fetchone()
        return None if row is None else Challenge.from_members(json.loads(row["challenge"]))

    def remember_token(self, chain_id: int, token: Token) -> None:
        self._execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)",
            chain_id,
            token.address,
            token.symbol,
            token.decimals,
        )

    def token(self, chain_id: int, address: Address) -> Token | None:
        """How the token is written, if the chain was asked before."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT symbol, decimals FROM tokens WHERE chain_id = ? AND token = ?",
                (chain_id, address),
            ).fetchone()
        return None if row is None else Token(address, row["symbol"], row["decimals"])

    # --- inside one step ---------------------------------------------------------------------

    def _execute(self, statement: str, *values: object) -> None:
        with self._database.write() as connection:
            connection.execute(statement, values)

    def _set_sure(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        connection.execute("UPDATE channels SET unsure = 0 WHERE channel_id = ?", (channel_id,))

    def _lapse(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        """Take overdue reservations for those of requests that ended without an answer."""
        now = int(self._clock())
        forgotten = now - LAPSED_SECONDS_MAX
        self._end_of_the_gone(connection, channel_id, now)
        connection.execute("DELETE FROM reservations WHERE expires_at <= ?", (forgotten,))
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

    def _note_funder(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        values = (channel_id, self._lease.name)
        connection.execute("INSERT OR REPLACE INTO funders VALUES (?, ?)", values)

    def _end_funding_of_the_gone(
        self, connection: sqlite3.Connection, channel_id: ChannelId
    ) -> None:
        """Nobody waits for a program that was killed. What it had journaled still counts."""
        row = connection.execute(
            "SELECT owner FROM funders WHERE channel_id = ?", (channel_id,)
        ).fetchone()
        if row is not None and self._lease.is_over(row["owner"]):
            connection.execute("DELETE FROM funders WHERE channel_id = ?", (channel_id,))
            connection.execute(
                "UPDATE channels SET funding_until = 0 WHERE channel_id = ?", (channel_id,)
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

    def _begin(self, connection: sqlite3.Connection, channel_id: ChannelId) -> None:
        """A request comes to the channel."""
        self._begin_waiting(connection, channel_id)
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

    def _reserved(
        self, connection: sqlite3.Connection, channel_id: ChannelId, beside: Reservation | None
    ) -> list[sqlite3.Row]:
        """What requests that are under way have set aside, but for one of them."""
        return connection.execute(
            "SELECT id, price, ceiling FROM reservations"
            " WHERE channel_id = ? AND expires_at > ? AND id IS NOT ? ORDER BY id",
            (channel_id, int(self._clock()), None if beside is None else beside.id),
        ).fetchall()

    def _entry(
        self,
        connection: sqlite3.Connection,
        channel_id: ChannelId,
        beside: Reservation | None = None,
    ) -> PayerChannel:
        row = connection.execute(
            "SELECT * FROM channels WHERE channel_id = ?", (channel_id,)
        ).fetchone()
        if row is None:
            raise NotFound(f"no channel {to_hex(channel_id)} in the payer's books")
        return self._from_row(connection, row, beside)

    def _of_payer(self, connection: sqlite3.Connection, payer: Address) -> list[PayerChannel]:
        rows = connection.execute(
            "SELECT * FROM channels WHERE payer = ? ORDER BY rowid", (payer,)
        ).fetchall()
        return [self._from_row(connection, row) for row in rows]

    def _of_pair(
        self,
        connection: sqlite3.Connection,
        deployment: Deployment,
        payer: Address,
        payee: Address,
        token: Address,
        beside: Reservation | None = None,
    ) -> list[PayerChannel]:
        rows = connection.execute(
            "SELECT * FROM channels WHERE payee = ? AND payer = ? AND token = ?"
            " AND chain_id = ? AND contract = ? ORDER BY rowid",
            (payee, payer, token, deployment.chain_id, deployment.contract),
        ).fetchall()
        return [self._from_row(connection, row, beside) for row in rows]

    def _from_row(
        self, connection: sqlite3.Connection, row: sqlite3.Row, beside: Reservation | None = None
    ) -> PayerChannel:
        reserved = self._reserved(connection, row["channel_id"], beside)
        in_flight = sum(blob_amount(reservation["price"]) for reservation in reserved)
        authorized = presentable_open(connection, row, int(self._clock()))
        return replace(_channel_from(row, in_flight), authorized=authorized)

    def _is_funding(self, connection: sqlite3.Connection, entry: PayerChannel) -> bool:
        row = connection.execute(
            "SELECT 1 FROM channels WHERE channel_id = ? AND status = ? AND (funding_until > ?"
            " OR channel_id IN (SELECT channel_id FROM fundings))",
            (entry.channel_id, ChannelStatus.ABSENT.value, int(self._clock())),
        ).fetchone()
        return row is not None

    def _insert_reservation(
        self, connection: sqlite3.Connection, channel_id: ChannelId, price: int, ceiling: int
    ) -> int:
        alone = not self._reserved(connection, channel_id, None)
        connection.execute("UPDATE reservations SET alone = 0 WHERE channel_id = ?", (channel_id,))
        expires_at = int(self._clock()) + RESERVATION_SECONDS_MAX
        held = (channel_id, amount_blob(price), amount_blob(ceiling))
        row = connection.execute(
            "INSERT INTO reservations (channel_id, price, ceiling, alone, expires_at, owner)"
            " VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
            (*held, alone, expires_at, self._lease.name),
        ).fetchone()
        return int(row["id"])


def _insert(connection: sqlite3.Connection, entry: PayerChannel, funding_until: int) -> None:
    channel, deployment, zero = entry.channel, entry.deployment, amount_blob(0)
    connection.execute(
        "INSERT INTO channels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, 0,"
        " NULL, ?, ?, ?, 0, ?, ?, ?, 0, 0, 0)",
        (
            entry.channel_id,
            deployment.chain_id,
            deployment.contract,
            channel.payer,
            channel.payee,
            channel.token,
            channel.authorized_signer,
            channel.salt,
            entry.url,
            entry.status.value,
            amount_blob(entry.deposit),
            amount_blob(entry.settled),
            zero,
            b"",
            zero,
            zero,
            entry.open_transaction,
            entry.first_block,
            funding_until,
            zero,
            zero,
            entry.in_doubt,
        ),
    )


def _is_topped_up(connection: sqlite3.Connection, entry: PayerChannel) -> bool:
    """Whether a top-up is journaled whose end is not known yet."""
    query = "SELECT 1 FROM fundings WHERE channel_id = ?"
    journaled = connection.execute(query, (entry.channel_id,)).fetchone()
    return journaled is not None and entry.status is not ChannelStatus.ABSENT


def _funding_row(funding: Funding) -> tuple[object, ...]:
    amount = amount_blob(funding.amount)
    return (funding.transaction_hash, funding.channel_id, funding.nonce, amount)


def _channel_from(row: sqlite3.Row, in_flight: int) -> PayerChannel:
    return PayerChannel(
        channel_id=ChannelId(row["channel_id"]),
        deployment=Deployment(row["chain_id"], Address(row["contract"])),
        channel=Channel(
            Address(row["payer"]),
            Address(row["payee"]),
            Address(row["token"]),
            Address(row["authorized_signer"]),
            row["salt"],
        ),
        deposit=blob_amount(row["deposit"]),
        url=row["url"],
        status=ChannelStatus(row["status"]),
        settled=blob_amount(row["settled"]),
        close_requested_at=row["close_requested_at"],
        signed=blob_amount(row["signed"]),
        signature=row["signature"],
        spent=blob_amount(row["spent"]),
        credible=blob_amount(row["credible"]),
        unsure=bool(row["unsure"]),
        in_flight=in_flight,
        presented=bool(row["presented"]),
        refused=row["refused"],
        open_transaction=row["open_transaction"],
        first_block=row["first_block"],
        in_doubt=bool(row["in_doubt"]),
        unanswered=row["unanswered"],
        unanswered_since=row["unanswered_since"],
        grace_seconds=row["grace_seconds"],
    )


def _explain(connection: sqlite3.Connection, entry: PayerChannel, amount: int) -> int:
    """Let so much more of what was signed be believed to be spent. Returns how much more is."""
    credible = min(entry.credible + amount, entry.signed)
    connection.execute(
        "UPDATE channels SET credible = ? WHERE channel_id = ?",
        (amount_blob(credible), entry.channel_id),
    )
    return credible - entry.credible


def _amount(connection: sqlite3.Connection, entry: PayerChannel, column: str) -> int:
    row = connection.execute(
        "SELECT claimed, pooled FROM channels WHERE channel_id = ?", (entry.channel_id,)
    ).fetchone()
    return blob_amount(row[column])


def _chain_part(entry: PayerChannel) -> tuple[ChannelStatus, int, int, int]:
    return entry.status, entry.deposit, entry.settled, entry.close_requested_at


def _is_at(url: str, origin: str) -> bool:
    try:
        return origin_of(url) == origin
    except InputError:
        return False


def _check_deposit(entry: PayerChannel, cumulative: int) -> None:
    if cumulative > min(entry.deposit, AMOUNT_MAX):
        raise AmountExceedsDeposit(
            f"the next voucher needs {cumulative}, the channel holds {entry.deposit}",
            channelId=to_hex(entry.channel_id),
            deposit=str(entry.deposit),
        )


def require_signable(entry: PayerChannel, cumulative: int) -> None:
    """Raises what :meth:`PayerState.sign_by_hand` raises."""
    if entry.status not in {ChannelStatus.OPEN, ChannelStatus.CLOSING}:
        raise InputError(f"the channel is {entry.status}: it takes no vouchers")
    if entry.in_doubt:
        raise ConfigError(
            "more may have been signed on this channel than the books know",
            hint="Pay its payee once: it shows what it holds. See: channelpay channel list",
        )
    if cumulative < entry.signed:
        raise InputError(
            f"{entry.signed} base units are signed already: a voucher for less changes nothing",
            hint="An amount is all that the payee may take so far, never what is added.",
        )
    _check_deposit(entry, cumulative)


def _voucher(entry: PayerChannel, cumulative: int, sign: Sign) -> Voucher:
    if entry.signature and cumulative == entry.signed:
        return Voucher(entry.channel_id, cumulative, entry.signature)
    return sign(entry, cumulative)
