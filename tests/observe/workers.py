"""A site's processes: ``workers.py ADDRESS`` forks two workers that count, and a third when it is
asked to replace the second. Says ``ready`` after each step.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event

from channelpay.observe.scrape import metrics_at, shared_metrics, worker_ended
from tests.observe.events import DOLLAR, DOLLAR_ADDRESS, ETHER, BooksOfNumbers, wait_for

_processes = multiprocessing.get_context("fork")


def work(address: str, number: int, counted: Event, end: Event) -> None:
    """One worker: each number has figures of its own, and all have the same books."""
    with metrics_at(address, serves=number == 0) as observer:
        unsettled = {DOLLAR_ADDRESS: 7_000_000}
        books = BooksOfNumbers(waiting_now=10**number, unsettled_now=unsettled)
        observer.started([DOLLAR, ETHER], books)
        observer.accepted(DOLLAR_ADDRESS)
        observer.charged(DOLLAR_ADDRESS, 250_000 * 2**number)
        observer.committed(2, 0.0002)
        if number > 0:
            observer.followed(100 - number)
        wait_for(lambda: books.unsettled_asked)
        observer.stopped()
        counted.set()
        end.wait()


def start(address: str, number: int, end: Event) -> ForkProcess:
    counted = _processes.Event()
    arguments = (address, number, counted, end)
    process = _processes.Process(target=work, args=arguments, daemon=True)
    process.start()
    assert counted.wait(20)
    return process


def say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def main(address: str) -> None:
    end, end_second = _processes.Event(), _processes.Event()
    with shared_metrics():
        first, second = start(address, 0, end), start(address, 1, end_second)
        say("ready")
        sys.stdin.readline()
        end_second.set()
        second.join()
        assert second.pid is not None
        worker_ended(second.pid)
        third = start(address, 2, end)
        say("ready")
        sys.stdin.readline()
        end.set()
        first.join()
        third.join()


if __name__ == "__main__":
    main(sys.argv[1])
