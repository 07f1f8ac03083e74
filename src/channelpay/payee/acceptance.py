"""What a payee takes for money, and how much of it it lets stand open.

:class:`Acceptance` is the policy, fixed when the payee is made. :class:`Guard` is the part of it
that changes with time: how far the chain is known, and what is unsettled over all channels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from logging import getLogger
from threading import Event as ThreadEvent
from threading import Lock, Thread
from typing import NamedTuple

from channelpay.errors import ChainBehind, ChannelPayError, ConfigError, RiskLimitReached
from channelpay.protocol.types import Address
from channelpay.store import Store

CONFIRMATIONS_MAX = 1_000
"""One look at the chain's events reaches back as far as the strictest rule."""
GRACE_MIN_SECONDS = 6 * 3600
"""What is left of the grace period at least, unless the policy says otherwise and if half of the
period is more: time to notice, and to get one transaction mined.
"""
REREAD_SECONDS = 2.0
"""How old what a guard knows of the books may be."""
REREAD_SHARE = 20
"""Adding up the risk may take one part in so many of a guard's time."""
FIRST_SECONDS = 30.0
"""How long books that no chain was ever followed for are usable: the follower is about to start."""

_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Confirmations:
    """How deep the block of an open or a top-up has to be before it counts; its own block is one.

    ``by_amount`` holds steps for tokens: ``{token: [(10**18, 3), (10**20, 12)]}`` asks for 3
    confirmations from 10**18 base units on and for 12 from 10**20 on; below the first step, and for
    all other tokens, ``default`` holds. The amount is what the channel holds with this deposit and
    is not settled: all of that is lost with the deposit. Raises
    :class:`~channelpay.errors.ConfigError` unless steps rise in both numbers.
    """

    default: int = 1
    by_amount: Mapping[Address, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for steps in ((), *self.by_amount.values()):
            amounts = [-1, *(amount for amount, _ in steps)]
            depths = [1, self.default, *(depth for _, depth in steps), CONFIRMATIONS_MAX]
            if amounts != sorted(set(amounts)) or depths != sorted(depths):
                raise ConfigError(
                    f"confirmations must be 1 to {CONFIRMATIONS_MAX}, and rise with the amount"
                )

    def needed(self, token: Address, amount: int) -> int:
        """For ``amount`` base units of a token."""
        depths = (depth for least, depth in self.by_amount.get(token, ()) if amount >= least)
        return max(depths, default=self.default)

    @property
    def most(self) -> int:
        """What the strictest rule asks for: deeper than that, every amount counts."""
        depths = (depth for steps in self.by_amount.values() for _, depth in steps)
        return max([self.default, *depths])


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a payee accepts. Risks are base units by token; a token that is not named has no limit.

    ``risk_max_per_channel`` and ``risk_max_total`` limit what was charged and is not settled on
    chain yet. The first is exact. The second is checked against the books as they were up to
    :data:`REREAD_SECONDS` ago and this process's own charges since: it can be exceeded by what this
    process is deciding at the same moment, and by what other processes charge between two readings.

    ``grace_min_seconds`` is what must be left of the grace period for the payee to answer a close
    request that it could not see; where the chain was not followed for longer than the rest,
    nothing is sold. Unless given it is half of the grace period, at most six hours.
    """

    confirmations: Confirmations = field(default_factory=Confirmations)
    risk_max_per_channel: Mapping[Address, int] = field(default_factory=dict)
    risk_max_total: Mapping[Address, int] = field(default_factory=dict)
    grace_min_seconds: int | None = None

    def unseen_seconds_max(self, grace_seconds: int) -> int:
        """For how long the chain may go unseen with this grace period. Raises
        :class:`~channelpay.errors.ConfigError` if nothing is left of it.
        """
        least = self.grace_min_seconds
        if least is None:
            least = min(GRACE_MIN_SECONDS, grace_seconds // 2)
        if not 0 < least < grace_seconds:
            raise ConfigError(
                f"grace_min_seconds is {least}; the contract's grace period is {grace_seconds} s"
            )
        return grace_seconds - least


class Followed(NamedTuple):
    """When the chain was followed last, and the time of the block that was its head then; both in
    Unix seconds.
    """

    at: float
    chain_time: int

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.chain_time}"

    @classmethod
    def parse(cls, text: str) -> Followed:
        """What :meth:`__str__` wrote."""
        at, chain_time = text.split()
        return cls(float(at), int(chain_time))


class Guard:
    """Refuses what the policy does not allow now. One for each process that sells; its methods are
    safe on any thread. ``followed_cursor`` is the cursor where the follower says how far it is,
    ``now`` gives Unix seconds.
    """

    def __init__(
        self,
        acceptance: Acceptance,
        store: Store,
        followed_cursor: str,
        grace_seconds: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.acceptance = acceptance
        self._risk_max = acceptance.risk_max_total
        self._unseen_seconds_max = acceptance.unseen_seconds_max(grace_seconds)
        self._store = store
        self._followed_cursor = followed_cursor
        self._now = now
        self._made_at = now()
        self.followed_at: float = self._made_at
        """When the chain was followed last (Unix seconds), by whichever process."""
        self._behind_at = self._made_at + FIRST_SECONDS
        self._lock = Lock()
        self._risk: dict[Address, int] = {}
        self._stopped = ThreadEvent()
        self._thread = Thread(target=self._run, name="channelpay-guard", daemon=True)

    def start(self) -> None:
        """Read the books, and again and again until :meth:`close`."""
        self.read_followed()
        self._read_risk()
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def is_behind(self) -> bool:
        """Whether a close might have been requested for too long without being seen."""
        return self._now() > self._behind_at

    def read_followed(self) -> None:
        """Look how far the follower is."""
        position = self._store.cursor(self._followed_cursor)
        if position is not None:
            followed = Followed.parse(position)
            self.followed_at = followed.at
            self._behind_at = min(followed) + self._unseen_seconds_max

    def require_followed(self) -> None:
        """Raise :class:`~channelpay.errors.ChainBehind` if :attr:`is_behind`."""
        if self.is_behind:
            raise ChainBehind("the payee has not seen the chain for too long to take payments")

    def require_room(self, token: Address, price: int) -> None:
        """Raise :class:`~channelpay.errors.RiskLimitReached` if charging ``price`` goes too far."""
        most = self._risk_max.get(token)
        if most is not None and price and self._risk.get(token, 0) + price > most:
            raise RiskLimitReached("as much as this payee lets stand open waits to be settled")

    def charged(self, token: Address, amount: int) -> None:
        """Note what this process charged."""
        if token in self._risk_max:
            with self._lock:
                self._risk[token] = self._risk.get(token, 0) + amount

    def _read_risk(self) -> None:
        """What is charged while the books are read may be counted twice, until the next time."""
        if not self._risk_max:
            return
        before = dict(self._risk)
        read: dict[Address, int] = {}
        for record in self._store.owed():
            open_amount = max(0, record.spent - record.chain.settled)
            read[record.channel.token] = read.get(record.channel.token, 0) + open_amount
        with self._lock:
            tokens = {*self._risk, *read}
            self._risk = {
                one: read.get(one, 0) + self._risk.get(one, 0) - before.get(one, 0)
                for one in tokens
            }

    def _run(self) -> None:
        pause = REREAD_SECONDS
        while not self._stopped.wait(pause):
            started = time.monotonic()
            try:
                self.read_followed()
                self._read_risk()
            except ChannelPayError as error:
                _log.warning("the books could not be read: %s", error.detail)
            except Exception:  # noqa: BLE001  a bug must not end the watch
                _log.exception("the books could not be read")
            pause = max(REREAD_SECONDS, REREAD_SHARE * (time.monotonic() - started))
