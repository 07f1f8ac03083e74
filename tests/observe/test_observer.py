"""An observer takes every event; several are told of each."""

from __future__ import annotations

import inspect

import pytest

from channelpay.observe import Observer, Observers
from tests.observe.events import DOLLAR, BooksOfNumbers, every_event

EVENTS = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if name[0] != "_"]


class Recorder(Observer):
    """Which events there were, with what."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __getattribute__(self, name: str) -> object:
        if name in EVENTS:
            return lambda *values, **named: self.calls.append((name, *values, *named.items()))
        return super().__getattribute__(name)


def test_an_observer_takes_every_event_and_does_nothing() -> None:
    observer = Observer()
    observer.started([DOLLAR], BooksOfNumbers())
    every_event(observer)
    observer.stopped()


def test_each_of_several_observers_is_told_of_every_event_with_its_values() -> None:
    alone, first, second = Recorder(), Recorder(), Recorder()
    books = BooksOfNumbers()
    for observer in (alone, Observers([first, second])):
        observer.started([DOLLAR], books)
        every_event(observer)
        observer.stopped()
    assert first.calls == second.calls == alone.calls
    assert sorted(str(call[0]) for call in first.calls) == EVENTS


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_is_passed_on_by_several_observers(name: str) -> None:
    assert name in vars(Observers)
