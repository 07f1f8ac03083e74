"""The part of the payer's books that holds passes: what was bought, and the token to show next.

A token is replaced only by the answer to a request that showed it. So of several programs that show
one at the same moment, the one that gets its successor keeps that, and no older answer undoes it.

A pass that renews itself makes its end worth money to its site. So these books know the end without
the site: the time that it named at the sale, or the number of requests that showed the pass. One is
counted before it is sent, so whoever is told that a pass is used up finds all its uses here.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

from channelpay.errors import InputError
from channelpay.payer.database import Database, amount_blob, blob_amount
from channelpay.protocol.parse import parse_bytes, parse_text
from channelpay.protocol.passes import ID_BYTES
from channelpay.protocol.patterns import Pattern
from channelpay.protocol.types import Address, ChannelId
from channelpay.protocol.wire import decode_base64url, parse_time

TEXT_MAX = 200
PATHS_MAX = 100
CLOCK_SECONDS = 300
"""So far a site's clock may be ahead of ours."""
LASTS_PARTS = 10
"""A pass that was bought again may last a part of so many less: months do."""
_NUMBER_MAX = 2**53
_HEADER = re.compile(r"(v1\.[A-Za-z0-9_-]{24,200})((?:;[a-z]{1,16}=[0-9]{1,16}){0,8})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class PassState:
    """What the header of an answer says of a pass. ``left`` and ``until`` (Unix seconds) are None
    where the pass has no such limit.
    """

    token: str
    left: int | None = None
    until: int | None = None

    @property
    def pass_id(self) -> bytes:
        """Which pass it is."""
        return decode_base64url(self.token[3:], "token")[:ID_BYTES]

    @classmethod
    def parse(cls, header: str | None) -> Self | None:
        """None where there is none that we understand."""
        match = _HEADER.match((header or "").strip())
        if match is None:
            return None
        pairs = (one.split("=") for one in match[2].split(";") if one)
        numbers = {name: int(value) for name, value in pairs}
        return cls(match[1], numbers.get("left"), numbers.get("until"))


@dataclass(frozen=True, slots=True)
class PassSale:
    """Who bought a pass where, what it cost on which channel (base units), and when (Unix
    seconds): what the payer knows of it by itself.
    """

    payer: Address
    origin: str
    channel_id: ChannelId
    cost: int
    time: float


@dataclass(frozen=True, slots=True)
class HeldPass:
    """One pass in the payer's books. ``price`` is what was paid for it on its channel, in base
    units of that channel's token. ``uses`` is 0 where only time counts, ``until`` and
    ``refund_until`` are Unix seconds or 0. ``ended`` is the payee's code for why it takes the pass
    no more. ``renews``: it is to be bought again when it is over, for this price at most. ``used``
    counts the requests that showed it, ``lasts`` is how many seconds it had at the sale.
    """

    pass_id: bytes
    payer: Address
    origin: str
    channel_id: ChannelId
    plan: str
    label: str
    paths: tuple[str, ...]
    price: int
    uses: int
    left: int
    until: int
    refund_until: int
    token: str
    ended: str | None = None
    renews: bool = False
    used: int = 0
    lasts: int = 0

    def covers(self, path: str) -> bool:
        """Whether it is worth showing; the payee decides."""
        return self.ended is None and any(_pattern(one).matches(path) for one in self.paths)

    def is_over(self, now: float) -> bool:
        """Whether it has ended, whatever its site says of a request that showed it just now."""
        return 0 < self.uses < self.used or 0 < self.until <= now + CLOCK_SECONDS

    def renewed(self, state: PassState, channel_id: ChannelId, now: float) -> HeldPass:
        """The one that was bought in its place. It renews itself only if it is as good."""
        least = now + self.lasts - self.lasts // LASTS_PARTS
        lasts = state.until is None or (self.until > 0 and state.until >= least)
        counts = (state.left or 0) >= self.uses
        return replace(
            self,
            pass_id=state.pass_id,
            channel_id=channel_id,
            token=state.token,
            left=state.left or 0,
            until=state.until or 0,
            refund_until=0,
            ended=None,
            renews=lasts and counts,
            used=0,
        )

    @classmethod
    def bought(cls, sale: PassSale, members: Mapping[str, Any], state: PassState) -> Self:
        """From the body and the header of the answer. Raises :class:`InputError`."""
        paths = members.get("paths")
        if not isinstance(paths, list) or not 0 < len(paths) <= PATHS_MAX:
            raise InputError("paths must be a list of patterns")
        return cls(
            pass_id=parse_bytes(members.get("pass"), "pass", ID_BYTES, ID_BYTES),
            payer=sale.payer,
            origin=sale.origin,
            channel_id=sale.channel_id,
            plan=parse_text(members.get("plan"), "plan", TEXT_MAX),
            label=parse_text(members.get("label"), "label", TEXT_MAX),
            paths=tuple(parse_text(one, "paths", TEXT_MAX) for one in paths),
            price=sale.cost,
            uses=_whole(members.get("uses"), "uses"),
            left=state.left or 0,
            until=state.until or 0,
            refund_until=_seconds(members.get("refundUntil")),
            token=state.token,
            lasts=max(0, (state.until or 0) - int(sale.time)),
        )


class Passes:
    """Passes by payer and origin. ``now`` gives Unix seconds."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self.now = now

    def add(self, held: HeldPass) -> None:
        """A pass was bought. One that is known stays as it is, but for its token."""
        values = (
            held.pass_id,
            held.payer,
            held.origin,
            held.channel_id,
            held.plan,
            held.label,
            json.dumps(held.paths),
            amount_blob(held.price),
            held.uses,
            held.left,
            held.until,
            held.refund_until,
            held.token,
            held.ended,
            held.renews,
            held.used,
            held.lasts,
        )
        with self._database.write() as connection:
            connection.execute(
                f"INSERT INTO passes VALUES ({', '.join('?' * len(values))})"  # noqa: S608
                " ON CONFLICT (pass_id) DO UPDATE SET token = excluded.token",
                values,
            )

    def all(self, payer: Address) -> list[HeldPass]:
        """In the order in which they were bought."""
        return self._where("payer = ?", payer)

    def to_show(
        self, payer: Address, origin: str, path: str, refused: frozenset[str] = frozenset()
    ) -> HeldPass | None:
        """The pass for a request, one that does not count requests first; none whose token was
        ``refused``.
        """
        found = self._where("payer = ? AND origin = ? AND ended IS NULL", payer, origin)
        fitting = [one for one in found if one.covers(path) and one.token not in refused]
        return min(fitting, key=lambda one: one.uses > 0, default=None)

    def count(self, held: HeldPass) -> None:
        """A request with it is about to be sent, which may use it once."""
        if held.uses:
            self._execute("UPDATE passes SET used = used + 1 WHERE pass_id = ?", held.pass_id)

    def is_over(self, held: HeldPass) -> bool:
        """Whether a pass has ended by what the books know now."""
        return any(one.is_over(self.now()) for one in self._where("pass_id = ?", held.pass_id))

    def record(self, held: HeldPass, state: PassState) -> None:
        """What the answer to a request with the token of ``held`` says of what is left. Its end
        stays what it was at the sale.
        """
        left = held.left if state.left is None else state.left
        if (state.token, left) == (held.token, held.left):
            return
        self._execute(
            "UPDATE passes SET token = ?, left_over = ? WHERE pass_id = ? AND token = ?",
            state.token,
            left,
            held.pass_id,
            held.token,
        )

    def end(self, pass_id: bytes, code: str) -> None:
        """The payee takes it no more, for the reason ``code``."""
        self._execute("UPDATE passes SET ended = ? WHERE pass_id = ?", code[:TEXT_MAX], pass_id)

    def renew(self, pass_id: bytes, *, renews: bool) -> None:
        """Whether it is to be bought again when it ends."""
        self._execute("UPDATE passes SET renews = ? WHERE pass_id = ?", renews, pass_id)

    def _where(self, condition: str, *values: object) -> list[HeldPass]:
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM passes WHERE {condition} ORDER BY rowid",  # noqa: S608
                values,
            ).fetchall()
        return [_held(row) for row in rows]

    def _execute(self, statement: str, *values: object) -> None:
        with self._database.write() as connection:
            connection.execute(statement, values)


def _held(row: sqlite3.Row) -> HeldPass:
    return HeldPass(
        row["pass_id"],
        Address(row["payer"]),
        row["origin"],
        ChannelId(row["channel_id"]),
        row["plan"],
        row["label"],
        tuple(json.loads(row["paths"])),
        blob_amount(row["price"]),
        row["uses"],
        row["left_over"],
        row["until"],
        row["refund_until"],
        row["token"],
        row["ended"],
        bool(row["renews"]),
        row["used"],
        row["lasts"],
    )


_pattern = lru_cache(256)(Pattern)


def _whole(value: object, name: str) -> int:
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value < _NUMBER_MAX:
        raise InputError(f"{name} must be a whole number")
    return value


def _seconds(value: object) -> int:
    return 0 if value is None else int(parse_time(value).timestamp())
