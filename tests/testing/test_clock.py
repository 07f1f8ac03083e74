"""A fake clock is a clock: what holds for the real one holds for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from channelpay.testing import FakeClock
from channelpay.testing.clock import START


@dataclass(frozen=True)
class Case:
    """A clock, and how a test lets its time pass."""

    clock: Callable[[], float]
    let_pass: Callable[[], object]


def real() -> Case:
    return Case(time.time, lambda: time.sleep(0.001))


def fake() -> Case:
    clock = FakeClock()
    return Case(clock, lambda: clock.advance(0.001))


@pytest.fixture(params=[real, fake])
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param()
    return made


def test_it_tells_unix_seconds_of_our_time_as_a_float(case: Case) -> None:
    assert isinstance(case.clock(), float)
    assert 1_700_000_000 < case.clock() < 4_000_000_000


def test_it_never_goes_back_and_moves_on_when_time_passes(case: Case) -> None:
    readings = [case.clock()]
    for _ in range(20):
        case.let_pass()
        readings.append(case.clock())
    assert readings == sorted(readings)
    assert readings[-1] - readings[0] >= 0.019


def test_the_fake_stands_until_it_is_moved() -> None:
    clock = FakeClock()
    assert clock() == clock() == START
    assert clock.advance(90) == clock() == START + 90


def test_the_fake_cannot_be_moved_back() -> None:
    with pytest.raises(ValueError, match="never goes back"):
        FakeClock().advance(-1)
