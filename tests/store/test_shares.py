"""Shares of a network's members under concurrent sales, releases and payouts, from several stores
on the same books: they are what the ledger says, to the unit.
"""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from channelpay.chain.payouts import PaidRow
from channelpay.payee.hub.members import add_member
from channelpay.payee.hub.rounds import begin_round, end_round, payable, rounds_of, shares_of
from channelpay.protocol.rules import Outcome
from channelpay.protocol.splits import NETWORK, Agreement, Share, Splitting, parts_of, share_key
from channelpay.protocol.types import Address
from channelpay.store import Store
from tests.store.books import add, channel, channel_id, order, purchase, spent_by_payments
from tests.store.conftest import OpenStore

TOKEN = channel().token
SITES = ("anna", "bert", "carl")
SELLERS = 3
SALES = 24
AGREEMENT = Agreement(author=1_999, referrer=503, network=301)


def test_shares_are_what_the_ledger_says_whatever_happens_at_once(open_shared: OpenStore) -> None:
    stores = [open_shared() for _ in range(SELLERS + 1)]
    for number, name in enumerate(SITES, 1):
        add_member(stores[0], name, Address(bytes([number]) * 20))
    for number in range(SELLERS):
        add(stores[0], number, deposit=10**9)

    with ThreadPoolExecutor(SELLERS + 1) as threads:
        selling = [threads.submit(sell, stores[number], number) for number in range(SELLERS)]
        paying = threads.submit(pay, stores[-1])
        for one in (*selling, paying):
            one.result()
    pay(stores[0])

    check(stores[0])


def sell(store: Store, number: int) -> None:
    """Sales on one channel, of which some are given back."""
    rng = random.Random(number)  # noqa: S311  not a secret
    promised = 0
    for _ in range(SALES):
        price = rng.randrange(1, 5_000)
        promised += price
        author, referrer = (rng.choice([*SITES, None]) for _ in range(2))
        terms = Splitting(AGREEMENT, TOKEN, rng.choice(SITES), author, referrer)
        sold = order(store, purchase(promised, price, number=number, terms=terms))
        if sold.payment_id is not None and rng.random() < 0.3:
            store.release(sold.payment_id, sold.attempt).result()


def pay(store: Store) -> None:
    """Rounds, of which each pays all but its last row."""
    for _ in range(4):
        begun = begin_round(store, TOKEN, payable(store, TOKEN, 1), 1, 1)
        if begun is not None:
            last = begun.rows[-1]
            paid = [
                PaidRow(begun.number, row.address, TOKEN, row.amount, row is not last, b"t", 1)
                for row in begun.rows
            ]
            end_round(store, begun.ended(paid))
            end_round(store, begun.ended(paid))


def check(store: Store) -> None:
    earned: Counter[str] = Counter()
    sales: Counter[str] = Counter()
    for number in range(SELLERS):
        for stored in store.payments(channel_id(number)):
            parts = parts_of(stored.payment.details)
            assert sum(part.amount for part in parts) == stored.payment.price
            if stored.payment.outcome is Outcome.CHARGED:
                earned.update({part.name: part.amount for part in parts})
                sales.update(part.name for part in parts)
    shares = shares_of(store, TOKEN)
    shares[NETWORK] = Share.from_state(store.entry(share_key(TOKEN, NETWORK)))
    paid: Counter[str] = Counter()
    for one in rounds_of(store):
        paid.update({row.name: row.amount for row in one.rows if row.is_paid})

    assert sum(earned.values()) == spent_by_payments(store)
    assert {name: one.earned for name, one in shares.items()} == dict(earned)
    assert {name: one.sales for name, one in shares.items()} == dict(sales)
    assert {name: one.paid for name, one in shares.items() if one.paid} == dict(paid)
    assert all(one.moving == 0 for one in shares.values())
