"""Entries: small documents of the payee's books beside its channels. An account, a pass, a coupon,
a member's share: whatever a sale depends on, or changes, in the same atomic step as its charge.

Pure. A state is an object of whole numbers, texts, and lists of them. The books keep it as
canonical JSON: names in order, no spaces, ASCII. Numbers may be of any size, as amounts are; they
become decimal strings where they leave the books.

An entry is never taken away once it is there: what is used up says so in its state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeAlias

from channelpay.errors import ConfigError

NAME_BYTES_MAX = 64
STATE_CHARACTERS_MAX = 16_384
"""Of the JSON of one state. What grows without end belongs into several entries."""
TEXT_CHARACTERS_MAX = 2_000
"""Of the JSON of a payment's details, and of what it has to undo."""

_KIND = re.compile(r"[a-z]{1,16}\Z")
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False
)

EntryValue: TypeAlias = "int | str | Sequence[EntryValue]"
EntryState: TypeAlias = Mapping[str, EntryValue]
NO_NUMBERS: Mapping[str, int] = MappingProxyType({})
_WHOLE, _PLAIN = {int}, {int, str}


class _Key(NamedTuple):
    kind: str
    name: bytes


class EntryKey(_Key):
    """Which entry: ``kind`` is one short word in lower case, ``name`` 1 to 64 bytes. A tuple, since
    every sale looks its entries up several times.
    """

    __slots__ = ()

    def __new__(cls, kind: str, name: bytes) -> Self:
        if not _KIND.match(kind) or not 1 <= len(name) <= NAME_BYTES_MAX:
            raise ValueError(f"no entry can have the kind {kind[:20]!r} and this name")
        return super().__new__(cls, kind, name)


Entries: TypeAlias = Mapping[EntryKey, EntryState]
"""Entries by their keys; one that is not there is not in the books."""
Change: TypeAlias = Callable[[Entries], Entries]
"""From the entries that were asked for to those that change, each in whole; or raises a
:class:`~channelpay.errors.ChannelPayError`, and nothing changes. Pure: it may be called again.
"""


class Undo(NamedTuple):
    """What to add to numbers of an entry when the sale that changed it is given back. Differences,
    so that whatever other sales did meanwhile stays; and only ``where`` the entry still has these
    numbers, say the month that a monthly sum is of.
    """

    key: EntryKey
    add: Mapping[str, int]
    where: Mapping[str, int] = NO_NUMBERS


def undone(undo: Iterable[Undo], entries: Entries) -> dict[EntryKey, EntryState]:
    """The entries that change when a sale is given back. Raises :class:`ConfigError` where a field
    is no number.
    """
    changed: dict[EntryKey, EntryState] = {}
    for one in undo:
        state = changed.get(one.key, entries.get(one.key))
        if state is not None and all(state.get(name) == n for name, n in one.where.items()):
            sums = {name: _number(state, name) + more for name, more in one.add.items()}
            changed[one.key] = {**state, **sums}
    return changed


def merged(undo: Iterable[Undo]) -> tuple[Undo, ...]:
    """The same with one :class:`Undo` for each entry and condition, so that it does not grow with
    every charge of a long response.
    """
    sums: dict[tuple[EntryKey, tuple[tuple[str, int], ...]], dict[str, int]] = {}
    for one in undo:
        known = sums.setdefault((one.key, tuple(sorted(one.where.items()))), {})
        for name, more in one.add.items():
            known[name] = known.get(name, 0) + more
    return tuple(Undo(key, add, dict(where)) for (key, where), add in sums.items())


def canonical(value: object) -> str:
    """JSON as the books keep it: names in order, no spaces, ASCII."""
    return _CANONICAL.encode(value)


def encode_state(state: EntryState) -> str:
    """Raises :class:`ConfigError` for what no state can be, or one that is too large."""
    values = state.values()
    if _WHOLE.issuperset(map(type, values)):
        text = _numbers_text(state)
    elif all(type(value) in _PLAIN or _is_value(value) for value in values):
        text = canonical(state)
    else:
        raise ConfigError("an entry holds whole numbers, texts and lists of them")
    if len(text) > STATE_CHARACTERS_MAX:
        raise ConfigError(f"an entry has at most {STATE_CHARACTERS_MAX} characters")
    return text


def decode_state(text: str) -> EntryState:
    state: dict[str, Any] = json.loads(text)
    return state


def encode_undo(undo: Sequence[Undo]) -> str:
    """A list of lists ``[kind, name in hex, add, where]``; empty text where nothing is to do."""
    if not undo:
        return ""
    rows = [
        f'["{key.kind}","{key.name.hex()}",{_numbers_text(add)},{_numbers_text(where)}]'
        for key, add, where in undo
    ]
    return f"[{','.join(rows)}]"


def _numbers_text(numbers: EntryState) -> str:
    """Canonical JSON of whole numbers, written out since every sale under terms needs it."""
    if not numbers:
        return "{}"
    members = [f"{encode_basestring_ascii(name)}:{numbers[name]}" for name in sorted(numbers)]
    return f"{{{','.join(members)}}}"


def decode_undo(text: str) -> tuple[Undo, ...]:
    if not text:
        return ()
    rows = json.loads(text)
    return tuple(
        Undo(EntryKey(kind, bytes.fromhex(name)), add, where) for kind, name, add, where in rows
    )


def _number(state: EntryState, name: str) -> int:
    number = state.get(name, 0)
    if not isinstance(number, int):
        raise ConfigError(f"{name} of an entry is no number")
    return number


def _is_value(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_value(one) for one in value)
    return isinstance(value, int | str) and not isinstance(value, bool)
