"""Rounds of payouts as the books keep them. What a round will pay is fixed, and taken from the
shares, before anything is sent; what it did pay is entered once the chain says so.

The contract counts the rounds of an account, and takes each number once. So a round that was sent
twice, because nobody knew whether it had left, is paid once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from channelpay.chain.payouts import ROWS_MAX, PaidRow
from channelpay.errors import ConfigError
from channelpay.payee.hub.members import member_key, members_of
from channelpay.protocol.entries import Entries, EntryKey, EntryState
from channelpay.protocol.splits import KIND as SHARE
from channelpay.protocol.splits import NETWORK, Share, share_key
from channelpay.protocol.types import Address
from channelpay.store import Store

KIND = "payout"
COUNT_KEY = EntryKey("hub", b"rounds")
"""How many rounds were begun, and when the interval in each token began."""
REPAIR = (
    "Pay from one account, which does nothing else with Payouts. Books that were restored from a"
    " copy are brought up to date with: channelpay hub recover"
)
_NEXT = "next"
_NUMBER_BYTES = 8
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """What one member gets; ``is_paid`` means something once the round ended. ``lost`` is what
    these books do not have of the sales that it was for: they were restored from a copy.
    """

    name: str
    address: Address
    amount: int
    is_paid: bool = False
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """``block`` is the chain's height when it was begun; ``time`` is in Unix milliseconds.
    ``transaction_hash`` is empty until it ended.
    """

    number: int
    token: Address
    rows: tuple[Row, ...]
    block: int
    time: int
    transaction_hash: bytes = b""

    @property
    def is_ended(self) -> bool:
        return bool(self.transaction_hash)

    @property
    def key(self) -> EntryKey:
        return _key(self.number)

    @property
    def total(self) -> int:
        return sum(row.amount for row in self.rows)

    def to_state(self) -> EntryState:
        return {
            "token": self.token.hex(),
            "block": self.block,
            "time": self.time,
            "tx": self.transaction_hash.hex(),
            "rows": [
                [row.name, row.address.hex(), row.amount, int(row.is_paid), row.lost]
                for row in self.rows
            ],
        }

    @classmethod
    def of(cls, key: EntryKey, state: Mapping[str, Any]) -> Self:
        """The reverse of :meth:`to_state`."""
        rows = tuple(
            Row(name, Address(bytes.fromhex(address)), amount, bool(paid), lost)
            for name, address, amount, paid, lost in state["rows"]
        )
        number = int.from_bytes(key.name, "big")
        token, sent = (bytes.fromhex(state[name]) for name in ("token", "tx"))
        return cls(number, Address(token), rows, state["block"], state["time"], sent)

    def is_that(self, paid: Sequence[PaidRow]) -> bool:
        """Whether the round of the chain is this one."""
        expected = [(self.token, row.address, row.amount) for row in self.rows]
        return [(one.token, one.receiver, one.amount) for one in paid] == expected

    def ended(self, paid: Sequence[PaidRow]) -> Self:
        """With what the chain says of each row. Raises :class:`~channelpay.errors.ConfigError`
        where it says something else than was begun: other books pay from the account, or did.
        """
        if not self.is_that(paid):
            raise ConfigError(
                f"round {self.number} is on the chain with other payments than these books have",
                hint=REPAIR,
            )
        rows = tuple(
            replace(row, is_paid=one.paid) for row, one in zip(self.rows, paid, strict=True)
        )
        return replace(self, rows=rows, transaction_hash=paid[0].transaction_hash)


def rounds_of(store: Store) -> Iterable[Round]:
    """All rounds, oldest first."""
    after = b""
    while page := store.entries(KIND, after=after, limit=_PAGE):
        yield from (Round.of(key, state) for key, state in page)
        after = page[-1][0].name


def open_round(store: Store) -> Round | None:
    """The one that was begun and did not end; there is one at most."""
    number = next_number(store) - 1
    if number < 0:
        return None
    state = store.entry(_key(number))
    found = None if state is None else Round.of(_key(number), state)
    return None if found is None or found.is_ended else found


def next_number(store: Store) -> int:
    return _count(store.entry(COUNT_KEY))


def begun_at(store: Store, token: Address) -> int:
    """When the interval in this token began (Unix milliseconds): with its last round."""
    at = (store.entry(COUNT_KEY) or {}).get(token.hex(), 0)
    return at if isinstance(at, int) else 0


def begin_intervals(store: Store, tokens: Sequence[Address], now_ms: int) -> None:
    """The first interval in each token begins now, unless it has begun."""
    names = [token.hex() for token in tokens]

    def begun(entries: Entries) -> Entries:
        return {COUNT_KEY: dict.fromkeys(names, now_ms) | dict(entries.get(COUNT_KEY, {}))}

    store.change_entries([COUNT_KEY], begun).result()


def shares_of(store: Store, token: Address) -> dict[str, Share]:
    """The shares in one token by member, without the network's own."""
    rows = store.entries(SHARE, prefix=token, limit=_PAGE)
    found = {key.name[len(token) :].decode(): Share.from_state(state) for key, state in rows}
    return {name: share for name, share in found.items() if name != NETWORK}


def payable(store: Store, token: Address, least: int) -> list[str]:
    """Who is to be paid now, whoever gets most first."""
    due = {name: one for name, one in shares_of(store, token).items() if one.payable >= least}
    return sorted(due, key=lambda name: due[name].payable, reverse=True)


def planned_rounds(store: Store, token: Address, least: int = 1) -> list[Round]:
    """What would be begun now to pay all members to whom at least ``least`` is owed."""
    addresses = {member.name: member.address for member in members_of(store)}
    shares = shares_of(store, token)
    names = payable(store, token, least)
    rows = tuple(Row(name, addresses[name], shares[name].payable) for name in names)
    number = next_number(store)
    return [
        Round(number + count, token, rows[first : first + ROWS_MAX], 0, 0)
        for count, first in enumerate(range(0, len(rows), ROWS_MAX))
    ]


def begin_round(
    store: Store, token: Address, names: Sequence[str], block: int, now_ms: int
) -> Round | None:
    """Take what these members are owed out of their shares into a round, in one step; None if
    another one is under way, or nothing is left to pay.
    """
    number = next_number(store)
    planned = Round(number, token, (), block, now_ms)
    before = _key(max(0, number - 1))
    members = [member_key(name) for name in names]
    shares = [share_key(token, name) for name in names]
    keys = list(dict.fromkeys((COUNT_KEY, before, planned.key, *members, *shares)))

    def begun(entries: Entries) -> Entries:
        if planned.key in entries or _count(entries.get(COUNT_KEY)) != number:
            return {}
        if before in entries and not Round.of(before, entries[before]).is_ended:
            return {}
        rows: list[Row] = []
        changed: dict[EntryKey, EntryState] = {}
        for name, member, key in zip(names, members, shares, strict=True):
            share = Share.from_state(entries.get(key))
            if share.payable and member in entries:
                address = Address(bytes.fromhex(str(entries[member]["address"])))
                rows.append(Row(name, address, share.payable))
                changed[key] = share.begun().to_state()
        if not rows:
            return {}
        count = {**entries.get(COUNT_KEY, {}), _NEXT: number + 1, token.hex(): now_ms}
        whole = replace(planned, rows=tuple(rows))
        return {**changed, COUNT_KEY: count, planned.key: whole.to_state()}

    state = store.change_entries(keys, begun).result().get(planned.key)
    return None if state is None else Round.of(planned.key, state)


def end_round(store: Store, ended: Round) -> Round:
    """Enter what a round paid; entering it again changes nothing."""
    shares = [share_key(ended.token, row.name) for row in ended.rows]

    def entered(entries: Entries) -> Entries:
        if Round.of(ended.key, entries[ended.key]).is_ended:
            return {}
        changed: dict[EntryKey, EntryState] = {ended.key: ended.to_state()}
        for key, row in zip(shares, ended.rows, strict=True):
            share = Share.from_state(entries[key])
            changed[key] = share.ended(row.amount, was_paid=row.is_paid).to_state()
        return changed

    store.change_entries([ended.key, *shares], entered).result()
    return ended


def enter_round(store: Store, paid: Round, begun: Round | None) -> Round:
    """Enter a round that ended, of which these books know nothing; in the place of the one that
    they have ``begun`` under its number. Entering it again changes nothing. Returns it with what
    was lost.
    """
    moving = () if begun is None else tuple((share_key(begun.token, r.name), r) for r in begun.rows)
    keys = [share_key(paid.token, row.name) for row in paid.rows]

    def entered(entries: Entries) -> Entries:
        if entries.get(paid.key) != (None if begun is None else begun.to_state()):
            return {}
        shares = {key: Share.from_state(entries.get(key)) for key in (*dict(moving), *keys)}
        for key, row in moving:
            shares[key] = replace(shares[key], moving=shares[key].moving - row.amount)
        rows = []
        for key, row in zip(keys, paid.rows, strict=True):
            shares[key], lost = shares[key].recovered(row.amount, was_paid=row.is_paid)
            rows.append(replace(row, lost=lost))
        whole = replace(paid, rows=tuple(rows))
        count = {_NEXT: paid.number + 1, paid.token.hex(): paid.time}
        changed = {key: share.to_state() for key, share in shares.items()}
        return {
            **changed,
            COUNT_KEY: {**entries.get(COUNT_KEY, {}), **count},
            paid.key: whole.to_state(),
        }

    every = [COUNT_KEY, paid.key, *dict.fromkeys((*dict(moving), *keys))]
    store.change_entries(every, entered).result()
    state = store.entry(paid.key)
    assert state is not None  # It was entered, here or by another process.
    return Round.of(paid.key, state)


def _key(number: int) -> EntryKey:
    return EntryKey(KIND, number.to_bytes(_NUMBER_BYTES, "big"))


def _count(state: EntryState | None) -> int:
    number = (state or {}).get(_NEXT, 0)
    return number if isinstance(number, int) else 0
