"""How a network of sites divides each sale: the parts of the author, the referrer, the network and
the publisher, and the share of each in the books, changed in the same atomic step as the charge.

Pure. Author, referrer and network get their part rounded down to the base unit. The publisher,
whose site sold it, gets what remains: so the parts of a sale add up to its price, always. A part
whose owner a sale does not name is the publisher's as well.

What a share has earned and was not paid is outstanding: the member trusts the network for it. No
sale makes it more than the cap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from channelpay.errors import ConfigError, PayoutDue
from channelpay.protocol.entries import Entries, EntryKey, EntryState, Undo, canonical
from channelpay.protocol.rules import ChannelRecord, Sale
from channelpay.protocol.types import Address

KIND = "share"
WHOLE = 10_000
"""All parts of a sale, in basis points."""
NETWORK = "network"
"""The share that the network keeps. No member has this name."""
PUBLISHER, AUTHOR, REFERRER = "publisher", "author", "referrer"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_DETAILS = "split"


def parse_member_name(text: str) -> str:
    """A member's name: 1 to 32 lower-case letters, digits and hyphens. Raises
    :class:`~channelpay.errors.ConfigError`.
    """
    if not _NAME.match(text) or text == NETWORK:
        raise ConfigError(
            f"no member can be named {text[:40]!r}",
            hint=f"Use 1 to 32 of a-z, 0-9 and -, not - at first, and not {NETWORK}.",
        )
    return text


def share_key(token: Address, name: str) -> EntryKey:
    """Where the share of a member is, for one token."""
    return EntryKey(KIND, token + name.encode())


@dataclass(frozen=True, slots=True)
class Part:
    """What one of those who share a sale gets, in base units."""

    role: str
    name: str
    amount: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """The parts of author, referrer and network in basis points; the rest is the publisher's.
    Raises :class:`~channelpay.errors.ConfigError` unless they are 0 to 10,000 together.
    """

    author: int = 0
    referrer: int = 0
    network: int = 0

    def __post_init__(self) -> None:
        parts = (self.author, self.referrer, self.network)
        if min(parts) < 0 or sum(parts) > WHOLE:
            raise ConfigError(
                f"the parts {self.author}, {self.referrer} and {self.network} do not add up",
                hint=f"Author, referrer and network have 0 to {WHOLE} basis points together.",
            )

    def divide(
        self, price: int, publisher: str, author: str | None = None, referrer: str | None = None
    ) -> tuple[Part, ...]:
        """The parts of a sale, the publisher's first; they add up to ``price``. An owner is named
        once: who is publisher and author gets both as the publisher.
        """
        owners = ((AUTHOR, author, self.author), (REFERRER, referrer, self.referrer))
        parts: list[Part] = []
        seen = {None, publisher}
        for role, name, basis_points in (*owners, (NETWORK, NETWORK, self.network)):
            amount = price * basis_points // WHOLE
            if name is not None and name not in seen and amount:
                parts.append(Part(role, name, amount))
                seen.add(name)
        rest = price - sum(part.amount for part in parts)
        return (Part(PUBLISHER, publisher, rest), *parts)


@dataclass(frozen=True, slots=True)
class Share:
    """What a member has ``earned`` by ``sales`` that stand and was ``paid``, in base units of one
    token; of the rest, ``moving`` is in a payout that was begun. ``held``: the last payout to it
    failed, and none is begun until its address was looked at.
    """

    earned: int = 0
    paid: int = 0
    moving: int = 0
    sales: int = 0
    held: int = 0

    @property
    def outstanding(self) -> int:
        """Earned and not paid; below zero if sales were given back after they were paid out."""
        return self.earned - self.paid

    @property
    def payable(self) -> int:
        """What a payout would pay now."""
        return 0 if self.held else max(0, self.outstanding - self.moving)

    def begun(self) -> Self:
        """With all that is payable in a payout."""
        return replace(self, moving=self.moving + self.payable)

    def ended(self, amount: int, *, was_paid: bool) -> Self:
        """After a payout of ``amount`` that was paid, or skipped."""
        moved = replace(self, moving=self.moving - amount)
        return replace(moved, paid=self.paid + amount) if was_paid else replace(moved, held=1)

    def recovered(self, amount: int, *, was_paid: bool) -> tuple[Self, int]:
        """After a payout of ``amount``, paid or skipped, that the chain has and these books lost;
        and what they lost of the sales that it was for: so much was owed, or none had been begun.
        """
        lost = max(0, amount - self.outstanding)
        begun = replace(self, earned=self.earned + lost, moving=self.moving + amount)
        return begun.ended(amount, was_paid=was_paid), lost

    def to_state(self) -> EntryState:
        return {
            "earned": self.earned,
            "held": self.held,
            "moving": self.moving,
            "paid": self.paid,
            "sales": self.sales,
        }

    @classmethod
    def from_state(cls, state: EntryState | None) -> Self:
        """The reverse of :meth:`to_state`; an empty share from None. Raises
        :class:`~channelpay.errors.ConfigError` for what it did not write.
        """
        if state is None:
            return cls()
        numbers = {name: one for name, one in state.items() if isinstance(one, int)}
        if numbers.keys() != cls().to_state().keys():
            raise ConfigError("a share has other members than its numbers")
        return cls(**numbers)


@dataclass(frozen=True, slots=True)
class Splitting:
    """What a sale of a network is sold under: the :class:`~channelpay.protocol.rules.Terms` that
    divide its price. With a ``cap`` no share is more than that outstanding.
    """

    agreement: Agreement
    token: Address
    publisher: str
    author: str | None = None
    referrer: str | None = None
    cap: int | None = None

    @property
    def keys(self) -> tuple[EntryKey, ...]:
        names = (self.publisher, self.author, self.referrer, NETWORK)
        return tuple(dict.fromkeys(share_key(self.token, name) for name in names if name))

    def sell(self, price: int, record: ChannelRecord, entries: Entries) -> Sale:  # noqa: ARG002
        """See :meth:`channelpay.protocol.rules.Terms.sell`. Raises
        :class:`~channelpay.errors.PayoutDue` over the cap.
        """
        parts = self.agreement.divide(price, self.publisher, self.author, self.referrer)
        changed: dict[EntryKey, EntryState] = {}
        for part in parts:
            key = share_key(self.token, part.name)
            share = Share.from_state(entries.get(key))
            share = replace(share, earned=share.earned + part.amount, sales=share.sales + 1)
            self._check_cap(part.name, share)
            changed[key] = share.to_state()
        undo = [
            Undo(share_key(self.token, part.name), {"earned": -part.amount, "sales": -1})
            for part in parts
        ]
        details = {_DETAILS: [[part.role, part.name, str(part.amount)] for part in parts]}
        return Sale(price, details=canonical(details), entries=changed, undo=tuple(undo))

    def _check_cap(self, name: str, share: Share) -> None:
        if self.cap is not None and name != NETWORK and share.outstanding > self.cap:
            raise PayoutDue(f"the network may owe {name} {self.cap} base units at most")


def parts_of(details: str) -> tuple[Part, ...]:
    """How a payment with these details was divided; nothing for any other payment."""
    members: Mapping[str, Any] = json.loads(details) if details else {}
    rows = members.get(_DETAILS, [])
    return tuple(Part(role, name, int(amount)) for role, name, amount in rows)


@dataclass(frozen=True, slots=True)
class HubSettings:
    """What the members of a network have agreed to. ``caps`` are by token, and say which tokens
    there are; ``least`` is what a payout to one member is at least. A payout goes out after
    ``every_seconds``, and at once when half of a cap is outstanding.
    """

    agreement: Agreement
    caps: Mapping[Address, int]
    least: Mapping[Address, int] = field(default_factory=dict)
    every_seconds: int = 86_400

    def to_state(self) -> EntryState:
        agreement = self.agreement
        return {
            "author": agreement.author,
            "referrer": agreement.referrer,
            "network": agreement.network,
            "every": self.every_seconds,
            "caps": [[token.hex(), cap] for token, cap in self.caps.items()],
            "least": [[token.hex(), least] for token, least in self.least.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        agreement = Agreement(state["author"], state["referrer"], state["network"])
        caps, least = (
            {Address(bytes.fromhex(token)): amount for token, amount in state[name]}
            for name in ("caps", "least")
        )
        return cls(agreement, caps, least, state["every"])


SETTINGS_KEY = EntryKey("hub", b"settings")
