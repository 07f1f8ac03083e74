"""What never sleeps: follows the chain and settles, in one process at a time.

A :class:`Lease` in the books says which process works. The others stand by and go on when it is
gone: of several hosts over the same books any may fail. The lease spares gas and quarrels; that
nothing is sent twice is the journal's business, which gives each nonce away once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import DEBUG, INFO, getLogger
from threading import Event, Thread
from typing import Protocol
from uuid import uuid4

from channelpay.errors import ChannelPayError, NetworkError, StoreUnavailable
from channelpay.observe import Observer
from channelpay.observe.alerts import Alert, AlertName, Alerts
from channelpay.payee.settler import Settler
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, Deployment
from channelpay.store import Store

INTERVAL_SECONDS = 2.0
ONCE_SECONDS = 0.5
"""How often one that works once looks after what is under way."""
RENEW_SHARE = 3
"""A lease is renewed when a third of its time is over."""
_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """``lease_seconds``: how long a process that vanished keeps the others waiting.
    ``trouble_seconds``: trouble that is over sooner is no alert.
    """

    lease_seconds: float = 15.0
    trouble_seconds: float = 60.0


class LeaseLost(NetworkError):
    """Another process works now; this one has to stop at once."""

    code = "lease-lost"
    title = "Another Process Works"
    hint = "Nothing is wrong: one process settles for all, and this one stands by."


class Lease:
    """The right to work, held in the books by one process at a time. For one thread."""

    def __init__(
        self,
        store: Store,
        name: str,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._name = name
        self._seconds = seconds
        self._clock = clock
        self._holder = uuid4().hex
        self._taken_at: float | None = None

    def take(self) -> bool:
        """Take it, or renew it; False while another process has it."""
        now = self._clock()
        taken = self._store.take_lease(self._name, self._holder, self._seconds).result()
        self._taken_at = now if taken else None
        return taken

    def check(self) -> None:
        """Raise :class:`LeaseLost` unless it is still held; renews it in time."""
        if self._taken_at is None:
            raise LeaseLost
        if self._clock() - self._taken_at >= self._seconds / RENEW_SHARE and not self.take():
            raise LeaseLost

    def drop(self) -> None:
        """Let the next one work at once."""
        if self._taken_at is not None:
            self._taken_at = None
            self._store.drop_lease(self._name, self._holder).result()


def place_of(deployment: Deployment, payee: Address) -> str:
    """What leases are named after: for each payee of a contract one process follows and one, the
    same or another, settles.
    """
    return f"{deployment.chain_id} {to_hex(deployment.contract)} {to_hex(payee)}"


class Follows(Protocol):
    """What keeps the books up to date: :class:`~channelpay.payee.follower.Follower`, or
    :class:`~channelpay.payee.watchtower.Watchtower`.
    """

    def step(self) -> None: ...


class Daemon:
    """Follows with ``follower`` and settles with ``settler``, if there is one (it needs an
    account). Each of the two has a lease of its own, named after the ``place``: a process without
    an account may follow for one that settles.
    """

    def __init__(
        self,
        follower: Follows,
        settler: Settler | None,
        store: Store,
        place: str,
        alerts: Alerts,
        observer: Observer | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.alerts = alerts
        self._timing = timing or Timing()
        self._follower = follower
        self._settler = settler
        self._observer = observer or Observer()
        lease_seconds = self._timing.lease_seconds
        self._following = Lease(store, f"follower {place}", lease_seconds)
        self._settling = None
        if settler is not None:
            self._settling = Lease(store, f"settler {place}", lease_seconds)
        self._works: bool | None = None
        self._failing_since: float | None = None
        self._stopped = Event()
        self._thread = Thread(target=self.run, name="channelpay-daemon", daemon=True)

    def start(self) -> None:
        """Work on a thread of its own until :meth:`close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that runs, if any, and let the next one work."""
        self.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def stop(self) -> None:
        """Let :meth:`run` return soon. For a signal handler or another thread."""
        self._stopped.set()

    def run(self) -> None:
        """Work until :meth:`stop`."""
        self.step()
        while not self._stopped.wait(INTERVAL_SECONDS):
            self.step()
        self._drop()

    def run_once(self, seconds: float) -> None:
        """Do what is due and wait for what is under way, for so long at most, or until
        :meth:`stop`. Where another process has the lease, wait whether that one is gone.
        """
        begun = time.monotonic()
        self.step()
        while self._has_work(time.monotonic() - begun, seconds):
            if self._stopped.wait(ONCE_SECONDS):
                break
            self.step()
        self._drop()

    def _has_work(self, waited: float, most: float) -> bool:
        if self._settler is None:
            return False
        if self._works is False:
            return waited < 2 * self._timing.lease_seconds
        return self._settler.has_work and waited < most

    def _drop(self) -> None:
        with suppress(StoreUnavailable):
            self._following.drop()
            if self._settling is not None:
                self._settling.drop()

    def step(self) -> None:
        """Do what is due, as far as it is this process that works. Never raises."""
        # A deadline that is known already does not wait for what cannot be read now.
        troubles = [
            self._trouble(self._follow, self._observer.follow_failed),
            self._trouble(self._settle, self._observer.settle_failed),
        ]
        try:
            self._judge([trouble for trouble in troubles if trouble is not None])
        except Exception:  # noqa: BLE001  whoever is told may be the site's own
            _log.exception("the daemon could not tell how it fares")

    def _follow(self) -> None:
        if self._following.take():
            self._follower.step()

    def _settle(self) -> None:
        if self._settler is None or self._settling is None:
            return
        works = self._settling.take()
        self._tell(works=works)
        if works:
            self._settler.step(self._settling.check)
        else:
            self._settler.stand_by()

    def _trouble(self, work: Callable[[], None], count: Callable[[str], None]) -> AlertName | None:
        """What kind of trouble came of it, if any did."""
        try:
            return self._known_trouble(work, count)
        except Exception:  # noqa: BLE001  a bug, the observer's as well, must not end the watch
            _log.exception("the daemon could not do its work")
            return AlertName.FAILING

    def _known_trouble(
        self, work: Callable[[], None], count: Callable[[str], None]
    ) -> AlertName | None:
        try:
            work()
        except LeaseLost:
            self._tell(works=False)
        except ChannelPayError as error:
            _log.warning("the daemon could not do its work: %s", error.detail)
            count(error.code)
            of_books = isinstance(error, StoreUnavailable)
            return AlertName.BOOKS_UNAVAILABLE if of_books else AlertName.CHAIN_UNREACHABLE
        except Exception:
            count(ChannelPayError.code)
            raise
        return None

    def _judge(self, troubles: Sequence[AlertName]) -> None:
        """Trouble that lasts is told; what passes is not."""
        now = time.monotonic()
        for name in _TROUBLES.keys() - set(troubles):
            self.alerts.end(name)
        if not troubles:
            self._failing_since = None
            return
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= self._timing.trouble_seconds:
            for name in troubles:
                self.alerts.begin(Alert(name, _TROUBLES[name]))

    def _tell(self, *, works: bool) -> None:
        self._observer.worked(works=works)
        if works is self._works:
            return
        # That it works from its start on is what everybody expects.
        takes_over = works and self._works is False
        self._works = works
        level = INFO if takes_over or not works else DEBUG
        _log.log(level, "this process settles now" if works else "another process settles")


_TROUBLES = {
    AlertName.CHAIN_UNREACHABLE: "the node does not serve: closes are not answered",
    AlertName.BOOKS_UNAVAILABLE: "the books cannot be used: closes are not answered",
    AlertName.FAILING: "the daemon does not work: closes are not answered",
}
