"""Deals over random histories of sales that are delivered or not, decided as every store decides:
what the ledger says was charged, earned and spent is what the accounts hold, and none ever owes.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from channelpay.payee.prices import PriceRule, PriceTable
from channelpay.payee.request import Request
from channelpay.payee.selling.deal import Selling, Uncounted, Wish, given_key
from channelpay.payee.selling.deliveries import Deliveries
from channelpay.payee.selling.incentives import Incentive
from channelpay.payee.terms import ETHER
from channelpay.protocol.accounts import NOT_YET, PENDING_MS, Account, Delivered, account_key
from channelpay.protocol.rules import ChannelRecord, Outcome, Payment, Purchase
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Voucher,
)
from channelpay.store.base import Accepted
from channelpay.store.rows import Rows

NOON = 1_767_614_400_000
PAYERS = [Address(bytes([n]) * 20) for n in (1, 1, 2, 3)]
"""Of each channel: the first two are of one payer."""
FREE, DAY_MAX = 1, 2


def _selling() -> Selling:
    incentives = [
        Incentive("first-free", count=FREE, deposit_min="0", day_max=DAY_MAX),
        Incentive("nth-free", every=4),
        Incentive("volume", tiers=[{"count": 2, "percent": 10}, {"count": 5, "percent": 25}]),
        Incentive("cash-back", percent=20),
        Incentive("points", per="0.000000000000000010", worth="0.000000000000000003"),
        Incentive("referral", reward="0.000000000000000040", deposit_min="0", day_max=2),
    ]
    quote = PriceTable([PriceRule("/**", "1")], [ETHER], incentives).quote(Request("GET", "/"))
    assert quote is not None
    assert quote.selling is not None
    return quote.selling


SELLING = _selling()


class Sale(NamedTuple):
    """A channel buys; or, with ``ended``, what was bought so many sales ago is ``delivered``, or
    given back.
    """

    channel: int
    list_price: int
    points: int
    referrer: int
    ended: int | None
    delivered: bool


sales = st.builds(
    Sale,
    st.integers(0, 3),
    st.integers(1, 200),
    st.sampled_from([0, 0, 5, 1000]),
    st.integers(0, 3),
    st.none() | st.integers(0, 5),
    st.booleans(),
)


class Books:
    """What a store does with its rows."""

    def __init__(self) -> None:
        self.ids = [ChannelId(bytes([n]) * 32) for n in range(len(PAYERS))]
        records = [self._record(n) for n in range(len(PAYERS))]
        self.rows = Rows(itertools.count(1), records)
        self.sold: list[int] = []
        self.deliveries = Deliveries()
        self._now = NOON

    def buy(self, sale: Sale) -> None:
        self._now += 1
        record = self.rows.records[self.ids[sale.channel]]
        payer = PAYERS[sale.channel]
        wish = Wish(sale.points, PAYERS[sale.referrer])
        known = self.deliveries.of(payer + NATIVE, self._now, taken=True)
        deal = SELLING.deal(payer, NATIVE, self._now, wish, known)
        voucher = Voucher(record.channel_id, record.spent + sale.list_price, b"s" * 65)
        purchase = Purchase(
            voucher, sale.list_price, f"GET /{self._now}", self._now, str(self._now), terms=deal
        )
        (answer,) = self.rows.decide([purchase]).answers
        if isinstance(answer, Uncounted):
            purchase = replace(purchase, terms=deal.counted())
            (answer,) = self.rows.decide([purchase]).answers
        assert isinstance(answer, Accepted)
        assert answer.payment_id is not None
        assert 0 <= answer.charged <= sale.list_price
        self.sold.append(answer.payment_id)

    def end(self, ago: int, *, delivered: bool) -> None:
        if ago < len(self.sold):
            payment_id = self.sold.pop(-1 - ago)
            if delivered:
                self.deliver(self.rows.payments[payment_id])
            else:
                self.rows.release(payment_id, 1)

    def deliver(self, payment: Payment) -> None:
        self.deliveries.note(Accepted(self.rows.records[payment.channel_id], 1, payment=payment))

    def charged(self, payer: Address) -> list[Payment]:
        ids = {one for one, other in zip(self.ids, PAYERS, strict=True) if other == payer}
        payments = self.rows.payments.values()
        return [p for p in payments if p.channel_id in ids and p.outcome is Outcome.CHARGED]

    def account(self, payer: Address) -> Account:
        return Account.from_state(self.rows.entries.get(account_key(payer, NATIVE)))

    def given_today(self, name: str) -> int:
        given = self.rows.entries.get(given_key(name), {"given": 0})["given"]
        assert isinstance(given, int)
        return given

    def _record(self, number: int) -> ChannelRecord:
        salt = bytes([number]) * 32
        channel = Channel(PAYERS[number], Address(b"\x09" * 20), NATIVE, ZERO_ADDRESS, salt)
        state = ChannelState(ChannelStatus.OPEN, 10**9)
        return ChannelRecord(self.ids[number], channel, state)


@settings(max_examples=200)
@given(st.lists(sales, max_size=40), st.integers(0, 2**40 - 1))
def test_the_accounts_hold_what_the_ledger_says(history: list[Sale], delivered: int) -> None:
    books = Books()

    for sale in history:
        if sale.ended is None:
            books.buy(sale)
        else:
            books.end(sale.ended, delivered=sale.delivered)
    for number in range(len(books.sold)):
        books.end(0, delivered=bool(delivered >> number & 1))

    free = Counter[str]()
    for payer in dict.fromkeys(PAYERS):
        charged, account = books.charged(payer), books.account(payer)
        told = [json.loads(payment.sold.details) for payment in charged]
        paid = [payment.price for payment in charged if payment.price]
        steps = [(name, int(delta)) for one in told for name, delta in one["steps"]]
        free.update(name for name, _ in steps)
        assert (account.bought, account.paid) == (len(paid), sum(paid))
        assert account.in_month(202601) == (len(paid), sum(paid))
        assert min(account.credit, account.points, account.counter("nth-free")) >= 0
        assert account.counter("first-free") == sum(n == "first-free" for n, _ in steps) <= FREE
        assert (
            account.points
            == _earned(told, "points") + sum(d for n, d in steps if n == "points") // 3
        )
        for payment, one in zip(charged, told, strict=True):
            assert payment.price == int(one["list"]) + sum(int(d) for _, d in one["steps"])
    assert books.given_today("first-free") == free["first-free"] <= DAY_MAX
    for channel_id, record in books.rows.records.items():
        prices = [
            p.price
            for payer in set(PAYERS)
            for p in books.charged(payer)
            if p.channel_id == channel_id
        ]
        assert sum(prices) == record.spent <= record.accepted
    everything = [json.loads(p.sold.details) for payer in set(PAYERS) for p in books.charged(payer)]
    spent = sum(
        int(delta) for one in everything for name, delta in one["steps"] if name == "credit"
    )
    credit = sum(books.account(payer).credit for payer in set(PAYERS))
    assert credit == _earned(everything, "credit") + _earned(everything, "reward") + spent


def _earned(told: list[dict[str, dict[str, str]]], what: str) -> int:
    return sum(int(one["earned"].get(what, "0")) for one in told)


def test_a_delivery_is_known_once_and_for_as_long_as_its_sale_is_pending() -> None:
    books = Books()
    for _ in range(2):
        books.buy(Sale(0, 100, 0, 0, None, delivered=False))
    free, payment = books.rows.payments[1], books.rows.payments[2]
    known = Delivered(1, 100, payment.time)
    late = payment.time + PENDING_MS + 1

    def of(now: int = NOON, *, taken: bool = True) -> Delivered:
        return books.deliveries.of(PAYERS[0] + NATIVE, now, taken=taken)

    for noted in (payment, replace(payment, attempts=2, undelivered=1)):
        books.deliver(noted)
        assert (of(taken=False), of(), of()) == (known, known, NOT_YET)
    for silent in (free, replace(payment, attempts=2)):
        books.deliver(silent)
        assert of() is NOT_YET
    for _ in range(2):
        books.deliver(payment)
    assert of() == Delivered(2, 200, payment.time)
    books.deliver(payment)
    assert of(late) is NOT_YET
