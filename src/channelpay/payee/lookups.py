"""Asking the chain on behalf of clients who may have made it all up.

An open or a top-up names a transaction, and to look it up costs a call to the node. So no client
has more than a share of the calls, and what was not found a moment ago is not asked for again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from copy import copy
from ipaddress import IPv6Address, ip_address
from threading import Lock
from typing import TypeVar

from channelpay.errors import (
    ChainReverted,
    ChannelNotFound,
    ChannelPayError,
    NetworkError,
    PaymentRefused,
)
from channelpay.payee.threads import BoundedThreads

WORKERS = 4
WAITING_MAX = 60
SHARE_MAX = 8
"""Calls that one client address may have under way or waiting."""
REMEMBERED_MAX = 10_000
SECONDS_UNMINED = 1.0
"""How long a refusal is repeated without asking; a transaction may be mined in the next moment."""
SECONDS_FAILED = 60.0
"""The same for a transaction that is there, and is not what the client says it is."""

T = TypeVar("T")


class Lookups:
    """Calls to the node for one event loop. ``now`` gives seconds that only grow."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._threads = BoundedThreads("channelpay-chain", WORKERS, WAITING_MAX)
        self._now = now
        self._under_way: Counter[str] = Counter()
        self._lock = Lock()
        self._refused: dict[object, tuple[float, ChannelPayError]] = {}

    async def run(self, client: str | None, about: object, work: Callable[[], T]) -> T:
        """What ``work`` returns, for a client address. What it refused ``about`` is remembered.

        Raises :class:`~channelpay.errors.NetworkError` if there is no place left.
        """
        self._repeat_refusal(about)
        group = _group(client)
        if self._under_way[group] >= SHARE_MAX:
            raise NetworkError("too many of this client's requests wait for the chain")
        looking = self._threads.submit(work)
        self._enter(group, 1)
        # A client that goes away does not end the call, and keeps its share of them.
        looking.add_done_callback(lambda _: self._enter(group, -1))
        try:
            return await asyncio.wrap_future(looking)
        except (ChainReverted, PaymentRefused) as refusal:
            self._remember(about, refusal)
            raise

    def close(self) -> None:
        self._threads.close()

    def _repeat_refusal(self, about: object) -> None:
        until, refusal = self._refused.get(about, (0.0, None))
        if refusal is not None and self._now() < until:
            raise copy(refusal)

    def _remember(self, about: object, refusal: ChannelPayError) -> None:
        final = isinstance(refusal, ChainReverted | ChannelNotFound)
        if len(self._refused) >= REMEMBERED_MAX:
            del self._refused[next(iter(self._refused))]
        seconds = SECONDS_FAILED if final else SECONDS_UNMINED
        self._refused.pop(about, None)
        self._refused[about] = (self._now() + seconds, copy(refusal))

    def _enter(self, group: str, more: int) -> None:
        with self._lock:
            self._under_way[group] += more
            if not self._under_way[group]:
                del self._under_way[group]


def _group(client: str | None) -> str:
    """Who counts as one: an IPv4 address, or the /64 of an IPv6 address, which one party has."""
    try:
        address = ip_address(client or "")
    except ValueError:
        return client or ""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return address.packed[:8].hex()
    return str(getattr(address, "ipv4_mapped", None) or address)
