"""Who works, who stands by, and what is told when it goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import cast

import pytest

from channelpay.errors import NetworkError, StoreUnavailable
from channelpay.observe import Observer
from channelpay.observe.alerts import AlertName, Alerts
from channelpay.payee.daemon import Daemon, Lease, LeaseLost, Timing
from channelpay.payee.settler import Check, Settler
from channelpay.store import MemoryStore, Store
from tests.payee.shop import wait_for

LEASE_SECONDS = 10.0


class Hands:
    """In the place of follower and settler: says what it did, and raises what it is told to."""

    def __init__(self) -> None:
        self.followed = 0
        self.settled = 0
        self.stood_by = 0
        self.follow_error: Exception | None = None
        self.settle_error: Exception | None = None
        self.during: Callable[[], None] = lambda: None
        self.has_work = False

    def step(self, check: Check | None = None) -> None:
        error = self.follow_error if check is None else self.settle_error
        if error is not None:
            raise error
        if check is None:
            self.followed += 1
            return
        self.during()
        check()
        self.settled += 1

    def stand_by(self) -> None:
        self.stood_by += 1


@dataclass
class Host:
    store: Store
    seconds: float = LEASE_SECONDS
    hands: Hands = field(default_factory=Hands)
    observer: Observer = field(default_factory=Observer)

    def __post_init__(self) -> None:
        settler = cast(Settler, self.hands)
        timing = Timing(self.seconds, trouble_seconds=0)
        self.alerts = Alerts((), self.observer)
        self.daemon = Daemon(
            self.hands, settler, self.store, "1 0xcc 0xbb", self.alerts, self.observer, timing
        )

    @property
    def told(self) -> list[AlertName]:
        return [alert.name for alert in self.alerts.active]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_of_two_hosts_one_follows_and_settles_and_the_other_stands_by(store: MemoryStore) -> None:
    one, other = Host(store), Host(store)
    for host in (one, other, other, one):
        host.daemon.step()
    assert (one.hands.followed, one.hands.settled) == (2, 2)
    assert (other.hands.followed, other.hands.settled, other.hands.stood_by) == (0, 0, 2)


def test_a_host_that_stops_lets_the_other_work_at_once(store: MemoryStore) -> None:
    one, other = Host(store), Host(store)
    one.daemon.start()
    wait_for(lambda: one.hands.settled)
    one.daemon.close()
    other.daemon.step()
    assert other.hands.settled == 1


def test_a_host_that_vanished_is_followed_when_its_lease_is_over(store: MemoryStore) -> None:
    one, other = Host(store, seconds=0.05), Host(store, seconds=0.05)
    one.daemon.step()

    def settled() -> bool:
        other.daemon.step()
        return other.hands.settled > 0

    wait_for(settled)


def test_a_host_whose_lease_is_lost_meanwhile_stops_at_once(store: MemoryStore) -> None:
    one = Host(store, seconds=0.01)

    def vanish() -> None:
        """For longer than the lease, while somebody else takes it."""
        wait_for(lambda: store.take_lease("settler 1 0xcc 0xbb", "other", 60.0).result())

    one.hands.during = vanish
    one.daemon.step()
    assert one.hands.settled == 0
    assert one.told == []


def test_a_lease_is_renewed_while_there_is_work_and_not_at_every_look(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, taken = [0.0], []
    take = store.take_lease

    def noted(name: str, holder: str, seconds: float) -> Future[bool]:
        taken.append(name)
        return take(name, holder, seconds)

    monkeypatch.setattr(store, "take_lease", noted)
    lease = Lease(store, "settler", 9.0, lambda: now[0])
    assert lease.take()
    lease.check()
    now[0] = 2.9
    lease.check()
    assert len(taken) == 1
    now[0] = 3.1
    lease.check()
    assert len(taken) == 2


def test_without_a_lease_there_is_no_work(store: MemoryStore) -> None:
    with pytest.raises(LeaseLost):
        Lease(store, "settler", 9.0).check()


def test_a_process_without_an_account_follows_for_one_that_settles(store: MemoryStore) -> None:
    keyless, settling = Host(store), Host(store)
    follows_only = Daemon(keyless.hands, None, store, "1 0xcc 0xbb", keyless.alerts)
    follows_only.step()
    settling.daemon.step()
    assert (keyless.hands.followed, keyless.hands.settled) == (1, 0)
    assert (settling.hands.followed, settling.hands.settled) == (0, 1)


@pytest.mark.parametrize(
    ("error", "name", "code"),
    [
        (NetworkError("the node is away"), AlertName.CHAIN_UNREACHABLE, 3),
        (StoreUnavailable("the disk is full"), AlertName.BOOKS_UNAVAILABLE, 3),
        (ValueError("a bug"), AlertName.FAILING, 1),
    ],
)
def test_trouble_is_told_until_it_is_over_and_is_the_exit_code(
    store: MemoryStore, error: Exception, name: AlertName, code: int
) -> None:
    host = Host(store)
    host.hands.settle_error = error
    host.daemon.step()
    assert host.told == [name]
    assert host.alerts.exit_code == code

    host.hands.settle_error = None
    host.daemon.step()
    assert host.told == []
    assert host.alerts.exit_code == 0


def test_what_cannot_be_followed_does_not_keep_it_from_settling(store: MemoryStore) -> None:
    """A deadline may be known already."""
    host = Host(store)
    host.hands.follow_error = NetworkError("the node gives no logs")
    host.daemon.step()
    assert host.hands.settled == 1


def test_trouble_that_passes_is_not_told(store: MemoryStore) -> None:
    host = Host(store)
    patient = Daemon(
        host.hands, cast(Settler, host.hands), store, "p", host.alerts, timing=Timing()
    )
    host.hands.settle_error = NetworkError("the node is away")
    patient.step()
    assert host.told == []


def test_one_that_works_once_waits_for_what_is_under_way(store: MemoryStore) -> None:
    host = Host(store)
    host.hands.has_work = True

    def finish_third() -> None:
        host.hands.has_work = host.hands.settled < 2

    host.hands.during = finish_third
    host.daemon.run_once(60)
    assert host.hands.settled == 3
    assert store.take_lease("settler 1 0xcc 0xbb", "next", 1.0).result()


def test_an_observer_that_raises_does_not_end_the_watch(store: MemoryStore) -> None:
    class Broken(Observer):
        def follow_failed(self, code: str) -> None:
            raise RuntimeError(code)

        def alerted(self, name: str, *, began: bool, active: bool) -> None:
            raise RuntimeError(name)

    host = Host(store, observer=Broken())
    host.hands.follow_error = NetworkError("away")
    host.daemon.step()
    assert host.hands.settled == 1
    host.hands.follow_error = None
    host.daemon.step()
    assert (host.hands.followed, host.hands.settled) == (1, 2)
