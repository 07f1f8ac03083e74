"""Terms that the store's tests sell under: entries that count, up and down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from channelpay.errors import PaymentRefused
from channelpay.protocol.entries import Change, Entries, EntryKey, EntryState, Undo, canonical
from channelpay.protocol.rules import SALE, Amend, ChannelRecord, Refund, Sale
from channelpay.store import Store
from tests.store.books import NOW_MS, channel_id

ACCOUNT = EntryKey("account", b"\xa0" * 20 + b"\x70" * 20)
COUPON = EntryKey("coupon", b"\xcc" * 32)
PASS = EntryKey("pass", b"\x55" * 16)


@dataclass(frozen=True)
class Adding:
    """Adds to ``n`` of each entry, and never makes it negative. ``off`` is taken from the list
    price; ``back`` is what a refund gives back.
    """

    adds: Mapping[EntryKey, int]
    off: int = 0
    kind: str = SALE
    back: int | None = None
    where: str = ""

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        return tuple(self.adds)

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        states = {key: added(key, entries, add) for key, add in self.adds.items()}
        paid = max(0, price - self.off) if self.back is None else self.back
        details = canonical({"list": str(price), "off": str(self.off)})
        undo = tuple(
            Undo(key, {"n": -add}, self.guard(states[key])) for key, add in self.adds.items()
        )
        return Sale(paid, self.kind, details, states, undo)

    def guard(self, state: EntryState) -> dict[str, int]:
        guarded = state.get(self.where)
        return {self.where: guarded} if isinstance(guarded, int) else {}


@dataclass(frozen=True)
class Selling:
    """Sells as a test says, whatever the price and the entries."""

    sale: Sale
    keys: tuple[EntryKey, ...] = ()

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:
        return self.sale


def counter(entries: Entries, key: EntryKey) -> int:
    n = entries[key]["n"] if key in entries else 0
    assert isinstance(n, int)
    return n


def added(key: EntryKey, entries: Entries, add: int) -> EntryState:
    n = counter(entries, key) + add
    if n < 0:
        raise PaymentRefused("it is used up")
    return {**entries.get(key, {}), "n": n}


def stated(states: Entries) -> Change:
    """Whatever was there before."""
    return lambda _: states


def put(store: Store, key: EntryKey, n: int, **others: int) -> None:
    store.change_entries([key], stated({key: {"n": n, **others}})).result()


def read(store: Store, key: EntryKey) -> int:
    state = store.entry(key)
    return 0 if state is None else counter({key: state}, key)


def amend(
    adds: Mapping[EntryKey, int],
    *,
    number: int = 1,
    resource: str = "GET https://site.example/page",
    key: str | None = None,
) -> Amend:
    return Amend(channel_id(number), Adding(adds, kind="pass-use"), resource, NOW_MS, key)


def refund(
    payment_id: int | None, back: int, adds: Mapping[EntryKey, int], *, number: int = 1
) -> Refund:
    assert payment_id is not None
    return Refund(channel_id(number), payment_id, Adding(adds, back=back), "unused", NOW_MS)
