"""What it costs to accept a voucher durably: the store alone, in a process of its own.

The store does not look at signatures, so those of these vouchers are of no key.
"""

from __future__ import annotations

import hashlib
import queue
import random
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from channelpay.protocol.keccak import keccak256
from channelpay.protocol.rules import Purchase
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
from channelpay.store import Accepted, Answer, ChainView, Store, open_store, writer
from scripts.bench.load import Sample
from scripts.bench.processes import resident_bytes
from scripts.bench.scene import DEPOSIT, PRICE

RESOURCE = "GET http://127.0.0.1/article"
_SIGNATURE = b"\1" * 65
_ACCOUNT = Address(keccak256(b"bench account")[:20])
_CHANNEL = Channel(_ACCOUNT, _ACCOUNT, NATIVE, ZERO_ADDRESS, bytes(32))
_TEMPLATE = ChannelId(bytes(32))


@dataclass(frozen=True, slots=True)
class Accepts:
    """``count`` vouchers, ``in_flight`` at a time, each of a random one of the channels.
    ``grouped``: whatever waits is committed at once, as the store does it; else each alone.
    """

    count: int
    in_flight: int
    grouped: bool = True


@dataclass(frozen=True, slots=True)
class AskMemory:
    """What the process takes up, in bytes."""


def channel_id(number: int) -> ChannelId:
    """The id of the channel of this number, also in SQL."""
    return ChannelId(hashlib.sha256(number.to_bytes(4, "big")).digest())


def keep_books(pipe: Connection[Any, Any], url: str, channels: int) -> None:
    """The store's process: it is sent :class:`Accepts` and answers with a
    :class:`~scripts.bench.load.Sample`.
    """
    with closing(open_store(url)) as store:
        customers = Customers(channels)
        pipe.send("open")
        while True:
            question = pipe.recv()
            if isinstance(question, AskMemory):
                pipe.send(resident_bytes())
            else:
                pipe.send(_accept(store, customers, question))


class Customers:
    """Purchases of random channels, each with the channel's next voucher."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._random = random.Random(1)  # noqa: S311  the same channels in every run
        self._paid: dict[int, int] = {}

    def take(self, count: int) -> list[Purchase]:
        return [self._purchase(self._random.randrange(self._channels)) for _ in range(count)]

    def _purchase(self, number: int) -> Purchase:
        cumulative = self._paid[number] = self._paid.get(number, PRICE) + PRICE
        return _purchase_of(channel_id(number), cumulative)


def _purchase_of(channel_id: ChannelId, cumulative: int) -> Purchase:
    voucher = Voucher(channel_id, cumulative, _SIGNATURE)
    return Purchase(voucher, PRICE, RESOURCE, int(time.time() * 1000), str(uuid.uuid4()))


def _accept(store: Store, customers: Customers, accepts: Accepts) -> Sample:
    purchases = customers.take(accepts.count)
    limit = writer.COMMIT_ORDERS_MAX
    writer.COMMIT_ORDERS_MAX = limit if accepts.grouped else 1
    try:
        started, cpu_started = time.perf_counter(), time.process_time()
        latencies = _exchange(store, iter(purchases), accepts)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    finally:
        writer.COMMIT_ORDERS_MAX = limit
    return Sample(seconds, tuple(sorted(latencies)), cpu)


def _exchange(store: Store, purchases: Iterator[Purchase], accepts: Accepts) -> list[float]:
    """Hand in the next purchases as soon as others are answered: in one list, as an event loop does
    that finds many requests waiting, or each for itself.
    """
    answered: queue.SimpleQueue[tuple[float, int, Future[list[Answer]]]] = queue.SimpleQueue()

    def hand_in(some: Sequence[Purchase]) -> None:
        started, size = time.perf_counter(), len(some)
        future = store.accept(some)
        future.add_done_callback(
            lambda future: answered.put((time.perf_counter() - started, size, future))
        )

    latencies: list[float] = []
    free = accepts.in_flight
    while True:
        some = list(islice(purchases, free))
        for orders in [some] if accepts.grouped and some else [[one] for one in some]:
            hand_in(orders)
        if len(latencies) == accepts.count:
            return latencies
        free = 0
        for latency, size, future in _waiting(answered):
            assert all(isinstance(answer, Accepted) for answer in future.result())
            latencies += [latency] * size
            free += size


def _waiting(answered: queue.SimpleQueue[Any]) -> Iterator[Any]:
    yield answered.get()
    while not answered.empty():
        yield answered.get()


# --- many channels -------------------------------------------------------------------------------


def fill(url: str, channels: int) -> None:
    """Enter so many channels by one statement of the database: copies of one that the store
    entered, under the ids of :func:`channel_id`. The store's own verb would take minutes. Each has
    paid once, with its open, as channels in a payee's books have.
    """
    view = ChainView(ChannelState(ChannelStatus.OPEN, DEPOSIT), 1)
    with closing(open_store(url)) as store:
        store.add_channel(_TEMPLATE, _CHANNEL, view).result()
        store.accept([_purchase_of(_TEMPLATE, PRICE)]).result()
    (_fill_sqlite if url.startswith("sqlite:") else _fill_postgres)(url, channels)


def _fill_sqlite(url: str, channels: int) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("bench_id", 1, channel_id, deterministic=True)
        known = connection.execute("SELECT name FROM pragma_table_info('channels')").fetchall()
        others = ", ".join(name for (name,) in known if name != "channel_id")
        connection.execute(
            "WITH RECURSIVE numbers (number) AS"  # noqa: S608  names of columns
            " (SELECT 0 UNION ALL SELECT number + 1 FROM numbers WHERE number < ?)"
            f" INSERT INTO channels (channel_id, {others})"
            f" SELECT bench_id(number) AS id, {others} FROM numbers, channels"
            " WHERE channels.channel_id = ? ORDER BY id",
            (channels - 1, _TEMPLATE),
        )
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _fill_postgres(url: str, channels: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        known = connection.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema() AND table_name = 'channelpay_channels'"
            " AND column_name <> 'channel_id'"
        ).fetchall()
        others = sql.SQL(", ").join(sql.Identifier(name) for (name,) in known)
        statement = sql.SQL(
            "INSERT INTO channelpay_channels (channel_id, {others})"
            " SELECT sha256(int4send(number)) AS id, {others}"
            " FROM generate_series(0, %s) AS number, channelpay_channels"
            " WHERE channel_id = %s ORDER BY id"
        ).format(others=others)
        connection.execute(statement, (channels - 1, _TEMPLATE))
        connection.execute("VACUUM ANALYZE channelpay_channels")
        connection.execute("CHECKPOINT")
