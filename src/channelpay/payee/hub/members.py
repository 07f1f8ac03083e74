"""The members of a network and its settings, kept as entries of its books."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from channelpay.errors import ConfigError, NotFound
from channelpay.protocol.entries import Entries, EntryKey, EntryState
from channelpay.protocol.splits import (
    SETTINGS_KEY,
    HubSettings,
    Share,
    parse_member_name,
    share_key,
)
from channelpay.protocol.types import Address
from channelpay.protocol.wire import encode_base64url
from channelpay.store import Store

KIND = "member"
KEY_BYTES = 32
_CHALLENGES = b"channelpay hub challenges"
_MEMBERS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Member:
    """``key_hash`` is the SHA-256 of the key that the member's programs show. Whoever was removed
    is still paid what is outstanding.
    """

    name: str
    address: Address
    key_hash: bytes
    is_removed: bool = False

    @property
    def key(self) -> EntryKey:
        return member_key(self.name)

    def to_state(self) -> EntryState:
        return {
            "address": self.address.hex(),
            "key": self.key_hash.hex(),
            "removed": int(self.is_removed),
        }

    @classmethod
    def of(cls, key: EntryKey, state: EntryState) -> Self:
        """The reverse of :meth:`to_state`."""
        address, key_hash = (bytes.fromhex(str(state[name])) for name in ("address", "key"))
        return cls(key.name.decode(), Address(address), key_hash, bool(state["removed"]))


def member_key(name: str) -> EntryKey:
    return EntryKey(KIND, name.encode())


def hash_of(api_key: str) -> bytes:
    """What the books keep of a key, which is as random as a hash itself."""
    return hashlib.sha256(api_key.encode()).digest()


def challenge_secret_of(api_key: str) -> bytes:
    """What the challenges of a member are made with: it follows from the key, so that the network
    can check a challenge that the member made without asking it.
    """
    return hmac.digest(api_key.encode(), _CHALLENGES, "sha256")


def find_member(members: Iterable[Member], api_key: str) -> Member | None:
    """Whose key it is. Takes as long for a key that is nearly right as for any other."""
    shown = hash_of(api_key)
    found = None
    for member in members:
        if hmac.compare_digest(member.key_hash, shown) and not member.is_removed:
            found = member
    return found


def members_of(store: Store) -> list[Member]:
    """All members, by name; those that were removed as well."""
    rows = store.entries(KIND, limit=_MEMBERS_MAX)
    return [Member.of(key, state) for key, state in rows]


def member_of(store: Store, name: str) -> Member:
    """Raises :class:`~channelpay.errors.NotFound`."""
    state = store.entry(member_key(name)) if name else None
    if state is None:
        raise NotFound(f"the network has no member {name[:40]!r}")
    return Member.of(member_key(name), state)


def add_member(store: Store, name: str, address: Address) -> str:
    """Add a member, or give one that was removed another key; returns the key, which nobody can
    read out of the books again. Raises :class:`~channelpay.errors.ConfigError`.
    """
    key = member_key(parse_member_name(name))
    api_key = encode_base64url(secrets.token_bytes(KEY_BYTES))
    member = Member(name, address, hash_of(api_key))

    def added(entries: Entries) -> Entries:
        known = entries.get(key)
        is_new = known is None or bool(known["removed"]) or known["key"] == member.key_hash.hex()
        if not is_new:
            raise ConfigError(
                f"there is a member {name} already",
                hint=f"Remove it first to give it another key: channelpay hub member remove {name}",
            )
        return {key: member.to_state()}

    store.change_entries([key], added).result()
    return api_key


def remove_member(store: Store, name: str) -> Member:
    """Take a member's key away. Raises :class:`~channelpay.errors.NotFound`."""
    key = member_of(store, name).key

    def removed(entries: Entries) -> Entries:
        return {key: replace(Member.of(key, entries[key]), is_removed=True).to_state()}

    return Member.of(key, store.change_entries([key], removed).result()[key])


def move_member(store: Store, name: str, address: Address, tokens: Sequence[Address]) -> Member:
    """Pay a member to another address, or to the same one again, from the next payout on."""
    key = member_of(store, name).key
    keys = [share_key(token, name) for token in tokens]

    def changed(entries: Entries) -> Entries:
        shares = {
            key: replace(Share.from_state(entries[key]), held=0).to_state()
            for key in keys
            if key in entries
        }
        return {key: replace(Member.of(key, entries[key]), address=address).to_state(), **shares}

    return Member.of(key, store.change_entries([key, *keys], changed).result()[key])


def settings_of(store: Store) -> HubSettings:
    """Raises :class:`~channelpay.errors.NotFound` where no network was begun."""
    state = store.entry(SETTINGS_KEY)
    if state is None:
        raise NotFound(
            "these books are of no network", hint="Begin one with: channelpay hub init --cap AMOUNT"
        )
    return HubSettings.from_state(state)


def save_settings(store: Store, settings: HubSettings) -> None:
    """Enter what the members have agreed to, from the next sale on."""
    state = settings.to_state()
    store.change_entries([SETTINGS_KEY], lambda _: {SETTINGS_KEY: state}).result()
