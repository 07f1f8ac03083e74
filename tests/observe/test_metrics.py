"""What Prometheus reads is what happened, from one process and from several."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from channelpay.errors import ConfigError
from channelpay.observe import Observer, Outcome, metrics
from channelpay.observe.metrics import OTHER, PrometheusObserver, error_codes
from channelpay.observe.scrape import (
    MULTIPROCESS_DIRECTORY,
    metrics_at,
    parse_listen_address,
    shared_metrics,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address
from tests.observe.events import (
    DOLLAR,
    DOLLAR_ADDRESS,
    ETHER,
    BooksOfNumbers,
    answered,
    every_event,
    wait_for,
)
from tests.observe.exposition import Samples, read, samples, value

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "observability.md"
IN_DOLLARS = {"token": to_hex(DOLLAR_ADDRESS), "symbol": "TUSD"}
IN_ETHER = {"token": to_hex(NATIVE), "symbol": "ETH"}


def scraped(address: str) -> Samples:
    with urlopen(f"http://{address}/metrics", timeout=10) as response:
        return samples(response.read().decode())


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def running(books: BooksOfNumbers) -> Iterator[PrometheusObserver]:
    observer = PrometheusObserver()
    observer.started([DOLLAR, ETHER], books)
    try:
        yield observer
    finally:
        observer.stopped()


@pytest.fixture
def observer() -> Iterator[PrometheusObserver]:
    with running(BooksOfNumbers()) as started:
        yield started


def test_a_scrape_has_every_event_in_its_metric() -> None:
    address = free_address()
    with metrics_at(address) as observer:
        observer.started([DOLLAR, ETHER], BooksOfNumbers())
        begun = time.time()
        every_event(observer)
        found = scraped(address)
        observer.stopped()
    assert value(found, "payments_accepted_total", IN_DOLLARS) == 1
    assert value(found, "requests_refused_total", {"code": "insufficient-balance"}) == 1
    assert value(found, "charged_total", IN_DOLLARS) == 2.5
    assert value(found, "released_total", IN_DOLLARS) == 0.5
    assert value(found, "verify_seconds_sum") == pytest.approx(0.00004)
    assert value(found, "commit_seconds_sum") == pytest.approx(0.0002)
    assert value(found, "commit_orders_sum") == 3
    assert value(found, "request_seconds_count", {"outcome": "paid"}) == 1
    assert value(found, "channels_opened_total", IN_ETHER) == 1
    assert value(found, "top_ups_total", IN_ETHER) == 1
    assert value(found, "deposited_total", IN_ETHER) == 2.0
    assert value(found, "channels_closed_total", IN_ETHER) == 1
    assert value(found, "settlements_total", IN_ETHER) == 1
    assert value(found, "settled_total", IN_ETHER) == 0.75
    assert failures(found) == {
        ("close", "network"): 1,
        ("settle", "transaction-reverted"): 1,
        ("follow", "wrong-chain"): 1,
    }
    assert value(found, "follower_block") == 90
    assert value(found, "follower_seen_timestamp_seconds") >= begun - 1
    assert value(found, "daemon_works") == 1
    assert value(found, "gas_paid_ether_total") == pytest.approx(0.03)
    assert value(found, "gas_money_ether") == 1.25
    assert value(found, "transactions_pending") == 2
    assert value(found, "alerts_total", {"alert": "deadline-near"}) == 1
    assert value(found, "alert_active", {"alert": "deadline-near"}) == 1


def test_an_alert_is_active_until_the_last_one_of_its_name_is_over() -> None:
    with running(BooksOfNumbers()) as observer:
        observer.alerted("deadline-near", began=True, active=True)
        observer.alerted("deadline-near", began=False, active=True)
        one = {"alert": "deadline-near"}
        registry = observer.registry
        assert registry.get_sample_value("channelpay_alert_active", one) == 1
        observer.alerted("deadline-near", began=False, active=False)
        assert registry.get_sample_value("channelpay_alert_active", one) == 0
        assert registry.get_sample_value("channelpay_alerts_total", one) == 1


def failures(found: Samples) -> dict[tuple[str, str], float]:
    labelled = {
        (dict(labels)["action"], dict(labels)["code"]): count
        for (name, labels), count in found.items()
        if name == "channelpay_chain_failures_total"
    }
    return {labels: count for labels, count in labelled.items() if count}


def test_the_address_is_let_go_of_at_the_end() -> None:
    address = free_address()
    for _ in range(2):
        with metrics_at(address):
            assert scraped(address)


def test_without_an_address_nothing_is_observed() -> None:
    with metrics_at(None) as observer:
        assert type(observer) is Observer


def test_an_address_that_is_taken_is_a_config_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="cannot listen"), metrics_at(address):
            pass


@pytest.mark.parametrize("text", ["", "9402", ":9402", "host:", "host:0", "host:65536", "a b:1"])
def test_a_malformed_address_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        parse_listen_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:9402", ("127.0.0.1", 9402)),
        ("[::1]:1", ("::1", 1)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen_address(text) == expected


# --- labels ------------------------------------------------------------------------------------


def test_every_code_of_the_error_tree_is_there_from_the_start(observer: PrometheusObserver) -> None:
    found = read(observer.registry)
    for code in error_codes():
        assert value(found, "requests_refused_total", {"code": code}) == 0


def test_codes_from_elsewhere_share_one_label(observer: PrometheusObserver) -> None:
    for number in range(100):
        observer.refused(f"strange-{number}")
        observer.close_failed(f"strange-{number}")
    found = read(observer.registry)
    assert value(found, "requests_refused_total", {"code": OTHER}) == 100
    assert failures(found) == {("close", OTHER): 100}


def test_a_token_that_is_not_of_the_terms_gets_no_label(observer: PrometheusObserver) -> None:
    before = read(observer.registry).keys()
    stranger = Address(bytes.fromhex("5e" * 20))
    observer.accepted(stranger)
    observer.charged(stranger, 1)
    observer.released(stranger, 1)
    observer.opened(stranger, 1)
    observer.topped_up(stranger, 1)
    observer.closed(stranger, 1)
    observer.settled(stranger, 1)
    assert read(observer.registry).keys() == before


def test_a_symbol_cannot_be_long_or_break_out_of_its_label() -> None:
    with ExitStack() as stack:
        observer = PrometheusObserver()
        stack.callback(observer.stopped)
        coin = type(DOLLAR)(DOLLAR_ADDRESS, 'X"}\n' + "Y" * 1000, 6)
        observer.started([coin], BooksOfNumbers())
        observer.accepted(DOLLAR_ADDRESS)
        labels = {"token": to_hex(DOLLAR_ADDRESS), "symbol": 'X"}\n' + "Y" * 12}
        assert value(read(observer.registry), "payments_accepted_total", labels) == 1


def test_each_outcome_has_a_histogram(observer: PrometheusObserver) -> None:
    for outcome in Outcome:
        observer.answered(answered(outcome))
    found = read(observer.registry)
    for outcome in Outcome:
        assert value(found, "request_seconds_count", {"outcome": outcome}) == 1


# --- numbers -----------------------------------------------------------------------------------


def test_an_amount_beyond_what_a_float_counts_exactly_is_right_to_15_digits(
    observer: PrometheusObserver,
) -> None:
    amount = 123_456_789_012_345_678_901_234_567
    observer.charged(NATIVE, amount)
    observer.charged(NATIVE, 1)
    total = value(read(observer.registry), "charged_total", IN_ETHER)
    assert total == pytest.approx(amount / 10**18, rel=1e-15)


@pytest.mark.parametrize(
    ("name", "shortest", "longest"),
    [("verify_seconds", 2e-5, 5e-3), ("commit_seconds", 1e-4, 1.0)],
)
def test_the_buckets_span_what_is_to_be_told_apart(
    observer: PrometheusObserver, name: str, shortest: float, longest: float
) -> None:
    bounds = [
        float(dict(labels)["le"])
        for found, labels in read(observer.registry)
        if found == f"channelpay_{name}_bucket"
    ]
    finite = sorted(bound for bound in bounds if bound != float("inf"))
    assert (finite[0], finite[-1]) == (shortest, longest)
    assert all(after / before <= 5 for before, after in pairwise(finite))


def test_the_queue_is_looked_at_often_and_the_books_are_summed_up_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "SAMPLE_SECONDS", 0.001)
    books = BooksOfNumbers(waiting_now=5, unsettled_now={NATIVE: 5 * 10**17})
    with running(books) as observer:
        wait_for(lambda: books.waiting_asked > 20)
        books.waiting_now = 6
        wait_for(lambda: value(read(observer.registry), "orders_waiting") == 6)
        found = read(observer.registry)
    assert value(found, "unsettled", IN_ETHER) == 0.5
    assert value(found, "unsettled", IN_DOLLARS) == 0
    assert books.unsettled_asked == 1


def test_books_that_fail_are_asked_again_later_and_the_queue_is_still_looked_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "SAMPLE_SECONDS", 0.001)
    monkeypatch.setattr(metrics, "UNSETTLED_SECONDS", 0.01)
    books = BooksOfNumbers(fails=True)
    with running(books) as observer:
        wait_for(lambda: books.unsettled_asked > 1)
        books.unsettled_now, books.fails = {NATIVE: 10**18}, False
        wait_for(lambda: value(read(observer.registry), "unsettled", IN_ETHER) == 1)
    assert "could not be summed up: the books are closed" in caplog.text


def test_the_books_are_not_asked_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SAMPLE_SECONDS", 0.001)
    books = BooksOfNumbers()
    with running(books):
        wait_for(lambda: books.waiting_asked)
    asked = books.waiting_asked
    assert "channelpay-metrics" not in {thread.name for thread in threading.enumerate()}
    assert books.waiting_asked == asked


# --- several workers ---------------------------------------------------------------------------


@contextmanager
def workers(address: str, **environment: str) -> Iterator[Callable[[], None]]:
    """Two processes that have counted; a call replaces the second by a third."""
    path = os.pathsep.join(one for one in sys.path if one)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.observe.workers", address],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def go_on() -> None:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        ready()

    def ready() -> None:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    with process:
        ready()
        yield go_on
        assert process.stdin is not None
        process.stdin.close()
    assert process.returncode == 0


def test_one_scrape_shows_all_workers() -> None:
    address = free_address()
    with workers(address) as replace_the_second:
        found = scraped(address)
        replace_the_second()
    assert value(found, "charged_total", IN_DOLLARS) == 0.75
    assert value(found, "payments_accepted_total", IN_DOLLARS) == 2
    assert value(found, "commit_orders_sum") == 4
    assert value(found, "commit_seconds_bucket", {"le": "0.00025"}) == 2
    assert value(found, "orders_waiting") == 11
    assert value(found, "unsettled", IN_DOLLARS) == 7  # the same books, not twice as much
    assert value(found, "follower_block") == 99  # one that follows is enough
    assert not any("pid" in dict(labels) for _, labels in found)


def test_of_a_worker_that_ended_what_it_counted_stays_and_its_queue_goes() -> None:
    address = free_address()
    with workers(address) as replace_the_second:
        replace_the_second()
        found = scraped(address)
    assert value(found, "charged_total", IN_DOLLARS) == 1.75
    assert value(found, "orders_waiting") == 101
    assert value(found, "follower_block") == 98


def test_the_workers_folder_is_there_as_long_as_they_are() -> None:
    with shared_metrics():
        directory = Path(os.environ[MULTIPROCESS_DIRECTORY])
        assert directory.is_dir()
        assert directory.stat().st_mode & 0o077 == 0
    assert MULTIPROCESS_DIRECTORY not in os.environ
    assert not directory.exists()


def test_a_folder_that_somebody_named_is_used_and_kept(tmp_path: Path) -> None:
    address = free_address()
    with workers(address, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)) as replace_the_second:
        replace_the_second()
        assert value(scraped(address), "charged_total", IN_DOLLARS) == 1.75
    assert len(list(tmp_path.glob("counter_*.db"))) == 3


def test_a_worker_that_is_not_scraped_listens_nowhere() -> None:
    address = free_address()
    with metrics_at(address), metrics_at(address, serves=False) as observer:
        assert isinstance(observer, PrometheusObserver)


# --- the page ----------------------------------------------------------------------------------


def test_the_page_lists_exactly_the_metrics_that_there_are(observer: PrometheusObserver) -> None:
    every_event(observer)
    families = text_string_to_metric_families(generate_latest(observer.registry).decode())
    exported = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if not family.name.endswith("_created")
    }
    listed = set(re.findall(r"^\| `(channelpay_\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert listed == exported


def test_the_alerts_of_the_page_select_series_that_there_are(observer: PrometheusObserver) -> None:
    every_event(observer)
    found = read(observer.registry)
    (rules,) = re.findall(r"```yaml\n(groups:.*?)```", PAGE.read_text(), re.DOTALL)
    selectors = re.findall(r"(channelpay_\w+)(?:\{(\w+)=~?\"([^\"]+)\"\})?", rules)
    assert len(selectors) > 8
    for name, label, texts in selectors:
        labels = [dict(one) for found_name, one in found if found_name == name]
        assert labels, name
        if label:
            assert set(texts.split("|")) <= {one[label] for one in labels}, (name, texts)
