"""Coupons as a payee issues, lists and revokes them, in its books. For programs beside a site: the
codes themselves are nowhere but in what :func:`issue` returns.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from channelpay.errors import InputError, NotFound
from channelpay.protocol.coupons import (
    BATCH_ID_BYTES,
    BATCH_KIND,
    RANDOM_BYTES,
    Batch,
    CodeHasher,
    Worth,
    batch_key,
    code_of,
    new_coupon,
)
from channelpay.protocol.entries import Entries, EntryKey, EntryState
from channelpay.protocol.types import Address
from channelpay.store import Store

COUNT_MAX = 10_000
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Issue:
    """Codes to be issued: see :class:`~channelpay.protocol.coupons.Batch`."""

    worth: Worth
    token: Address
    count: int
    amount: int = 0
    percent: int = 0
    sales: int = 0
    plan: str = ""
    label: str = ""
    expires: int = 0
    per_payer: int = 0


class Issued(NamedTuple):
    """A new batch."""

    batch_id: bytes
    batch: Batch
    codes: list[str]


def issue(store: Store, hasher: CodeHasher, wanted: Issue, now: int) -> Issued:
    """Enter a batch at ``now`` (Unix ms). If this is broken off, some codes are in the books, and
    nobody knows them.
    """
    if not 1 <= wanted.count <= COUNT_MAX:
        raise InputError(f"a batch has 1 to {COUNT_MAX} coupons")
    batch_id = secrets.token_bytes(BATCH_ID_BYTES)
    batch = Batch(
        wanted.worth,
        wanted.token,
        wanted.amount,
        wanted.percent,
        wanted.sales,
        wanted.plan,
        wanted.label,
        wanted.count,
        wanted.expires,
        wanted.per_payer,
        steps=((now, f"{wanted.count} issued"),),
    )
    codes = [code_of(secrets.token_bytes(RANDOM_BYTES)) for _ in range(wanted.count)]
    _enter(store, {batch_key(batch_id): batch.to_state()})
    for at in range(0, len(codes), _AT_ONCE):
        _enter(
            store,
            {hasher.key(code): new_coupon(batch_id) for code in codes[at : at + _AT_ONCE]},
        )
    return Issued(batch_id, batch, codes)


def _enter(store: Store, states: dict[EntryKey, EntryState]) -> None:
    """What is there already was entered by an attempt that was not known to have succeeded."""

    def add(entries: Entries) -> Entries:
        return {key: state for key, state in states.items() if key not in entries}

    store.change_entries(tuple(states), add).result()


def batches(store: Store) -> Iterator[tuple[bytes, Batch]]:
    """All of them, gifts included, by their ids."""
    after = b""
    while found := store.entries(BATCH_KIND, after=after):
        yield from ((key.name, Batch.from_state(state)) for key, state in found)
        after = found[-1][0].name


def revoke(store: Store, batch_id: bytes, now: int) -> Batch:
    """Let no code of a batch be redeemed any more; what was redeemed stays. Raises
    :class:`~channelpay.errors.NotFound`.
    """
    key = batch_key(batch_id)

    def change(entries: Entries) -> Entries:
        if key not in entries:
            raise NotFound("no such batch of coupons", hint="List them: channelpay coupon list")
        batch = Batch.from_state(entries[key])
        if batch.revoked:
            return {key: entries[key]}
        steps = (*batch.steps, (now, "revoked"))
        return {key: replace(batch, revoked=now, steps=steps).to_state()}

    return Batch.from_state(store.change_entries((key,), change).result()[key])
