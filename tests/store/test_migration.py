"""Books of older versions, with data in them, are brought up to date when opened."""

# ruff: noqa: S608  (the statements are put together from the constants below)

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest

from channelpay.protocol.rules import PLAIN
from channelpay.store import Store, open_store, postgres_schema, schema
from channelpay.store.amounts import blob
from tests.store.books import (
    DEPOSIT,
    NOW_MS,
    channel,
    channel_id,
    order,
    purchase,
    signature,
)
from tests.store.conftest import OpenStore
from tests.store.terms import ACCOUNT, PASS, Adding, read, refund

Row: TypeAlias = tuple[Any, ...]

CHANNEL_COLUMNS = (
    "channel_id, payer, payee, token, authorized_signer, salt, status, deposit, settled,"
    " close_requested_at, seen_at_block, accepted, spent, signature, closes_begun"
)
PAYMENT_COLUMNS = (
    "payment_id, channel_id, cumulative, price, resource, time, idempotency_key, outcome, attempts"
)
UNSETTLED, SETTLED, FINAL, BEGUN = 1, 2, 3, 4


def channel_rows(amount: Callable[[int], Any]) -> Iterator[Row]:
    for number, status, settled, accepted, spent, closes in (
        (UNSETTLED, "open", 10, 50, 30, 0),
        (SETTLED, "open", 50, 50, 50, 0),
        (FINAL, "finalized", 10, 50, 0, 1),
        (BEGUN, "closing", 0, 0, 0, 1),
    ):
        one = channel(number)
        described = (one.payer, one.payee, one.token, one.authorized_signer, one.salt)
        chain = (status, amount(DEPOSIT), amount(settled), 0, 10)
        held = signature(accepted) if accepted else b""
        books = (amount(accepted), amount(spent), held, closes)
        yield (channel_id(number), *described, *chain, *books)


def payment_rows(amount: Callable[[int], Any]) -> Iterator[Row]:
    for payment_id, number, price, key, outcome, attempts in (
        (1, UNSETTLED, 20, "twice", "charged", 2),
        (2, UNSETTLED, 10, None, "charged", 1),
        (3, UNSETTLED, 5, "failed", "released", 0),
        (4, SETTLED, 50, "all", "charged", 1),
    ):
        paid = (amount(50), amount(price), "GET https://site.example/page", NOW_MS)
        yield (payment_id, channel_id(number), *paid, key, outcome, attempts)


def fill_sqlite(url: str) -> None:
    with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as connection:
        for statements in schema.MIGRATIONS[:2]:
            for statement in statements:
                connection.execute(statement)
        _insert(connection.executemany, "?", blob, "")
        connection.execute("PRAGMA user_version = 2")
        connection.execute("INSERT INTO cursors VALUES ('events', '17')")
        connection.commit()


def fill_postgres(url: str) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(postgres_schema._CREATE_VERSION)
        cursor.execute("INSERT INTO channelpay_version (version) VALUES (1)")
        for statement in postgres_schema.MIGRATIONS[0]:
            cursor.execute(statement)
        _insert(cursor.executemany, "%s", int, "channelpay_")
        cursor.execute("SELECT setval('channelpay_payment_ids', 4)")
        cursor.execute("INSERT INTO channelpay_cursors VALUES ('events', '17')")


def _insert(
    execute_many: Callable[..., object], place: str, amount: Callable[[int], Any], prefix: str
) -> None:
    for table, columns, rows in (
        ("channels", CHANNEL_COLUMNS, list(channel_rows(amount))),
        ("payments", PAYMENT_COLUMNS, list(payment_rows(amount))),
    ):
        places = ", ".join([place] * len(rows[0]))
        execute_many(f"INSERT INTO {prefix}{table} ({columns}) VALUES ({places})", rows)


@pytest.fixture
def old_url(shared_url: str) -> str:
    (fill_sqlite if shared_url.startswith("sqlite") else fill_postgres)(shared_url)
    return shared_url


@pytest.fixture
def migrated(old_url: str) -> Iterator[Store]:
    with closing(open_store(old_url)) as store:
        yield store


def test_every_channel_and_payment_is_as_before(migrated: Store) -> None:
    numbers = (UNSETTLED, SETTLED, FINAL, BEGUN)
    known = {number: migrated.record(channel_id(number)) for number in numbers}
    records = [record for record in known.values() if record is not None]

    assert [record.channel for record in records] == [channel(number) for number in numbers]
    amounts = [(one.chain.settled, one.accepted, one.spent, one.closes_begun) for one in records]
    assert amounts == [(10, 50, 30, 0), (50, 50, 50, 0), (10, 50, 0, 1), (0, 0, 0, 1)]
    assert [record.signature for record in records] == [signature(50)] * 3 + [b""]
    assert not any(record.in_doubt for record in records)
    assert migrated.cursor("events") == "17"
    payments = [stored.payment for stored in migrated.payments(channel_id(UNSETTLED))]
    assert [(one.price, one.attempts, one.served) for one in payments] == [
        (20, 2, 2),
        (10, 1, 1),
        (5, 0, 0),
    ]


def test_what_is_unsettled_is_owed_since_the_upgrade(migrated: Store) -> None:
    now = time.time() * 1000
    ages = {one.channel_id: one.unsettled_since for one in migrated.records()}

    assert [ages[channel_id(number)] for number in (SETTLED, FINAL, BEGUN)] == [0, 0, 0]
    assert now - 600_000 < ages[channel_id(UNSETTLED)] <= now + 1000
    owed = {record.channel_id for record in migrated.owed()}
    assert owed == {channel_id(UNSETTLED), channel_id(BEGUN)}


def test_the_books_go_on(migrated: Store) -> None:
    """Retries are known, each request of before is given back once, new ones are charged."""
    assert order(migrated, purchase(50, 20, key="twice")).attempt == 3
    released = [migrated.release(1, attempt).result() for attempt in (1, 2, 2, 3)]
    assert [one.served for one in released] == [2, 1, 1, 0]

    bought = order(migrated, purchase(60, 5, key="failed"))

    assert (bought.charged, bought.record.spent) == (5, 10 + 5)
    assert migrated.take_lease("settle", "one", 60).result()
    assert migrated.transactions() == []


def test_old_payments_are_plain_and_the_books_take_entries(migrated: Store) -> None:
    payments = [stored.payment for stored in migrated.payments(channel_id(UNSETTLED))]
    assert [payment.sold for payment in payments] == [PLAIN] * 3

    order(migrated, refund(1, 5, {PASS: 1}))
    order(migrated, purchase(60, 5, key="new", terms=Adding({ACCOUNT: 1, PASS: 1})))

    assert (read(migrated, ACCOUNT), read(migrated, PASS)) == (1, 2)
    record = migrated.record(channel_id(UNSETTLED))
    assert record is not None
    assert record.spent == 30 - 5 + 5


def test_books_are_brought_up_to_date_once_by_whoever_comes_first(
    old_url: str, open_shared: OpenStore
) -> None:
    first, second = open_shared(), open_shared()

    assert first.records() == second.records()
    assert len(first.records()) == 4
