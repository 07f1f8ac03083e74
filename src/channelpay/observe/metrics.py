"""A payee's events as Prometheus metrics; ``docs/observability.md`` says what each one answers.

Amounts are in whole tokens, as floating point numbers: good to 15 digits, for graphs and alerts.
The books are what is exact. Every label has a bounded set of values: the codes of
:mod:`channelpay.errors`, the tokens of the payee's terms, :class:`~channelpay.observe.Outcome`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from logging import getLogger
from threading import Event, Thread

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from channelpay.errors import ChannelPayError
from channelpay.observe.observer import Answered, Books, Currency, Observer, Outcome
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address

VERIFY_BUCKETS = (2e-5, 3e-5, 4e-5, 5e-5, 7.5e-5, 1e-4, 1.5e-4, 2.5e-4, 5e-4, 1e-3, 5e-3)
"""A check costs 35 µs with a known key, about twice that with a new one."""
COMMIT_BUCKETS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""A disk that syncs takes 0.1 ms to 20 ms; a network disk in trouble, a second."""
COMMIT_ORDERS_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
REQUEST_BUCKETS = (5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)
SAMPLE_SECONDS = 1.0
"""How often the queue is looked at."""
UNSETTLED_SECONDS = 60.0
"""How often, at most, the books are summed up."""
UNSETTLED_SHARE = 0.01
"""… and the share of time that this may take, where the books are large."""
SYMBOL_CHARS_MAX = 16
OTHER = "other"
"""The label of an error code that is not of :mod:`channelpay.errors`."""
WEI_PER_ETHER = 10**18
_CURRENCY = ("token", "symbol")
_log = getLogger(__name__)


def error_codes() -> frozenset[str]:
    """Every code that a refusal can have."""
    return frozenset(_codes(ChannelPayError))


def _codes(kind: type[ChannelPayError]) -> Iterator[str]:
    yield kind.code
    for narrower in kind.__subclasses__():
        yield from _codes(narrower)


class PrometheusObserver(Observer):
    """Counts into ``registry`` (a new one by default).

    In a process that was started with ``PROMETHEUS_MULTIPROC_DIR`` in its environment the numbers
    go to files in that folder and one scrape shows all workers
    (:mod:`channelpay.observe.scrape`).
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry: CollectorRegistry = registry or CollectorRegistry()
        self._families = _Families(self.registry)
        self._currencies: dict[Address, _CurrencyMetrics] = {}
        self._codes = error_codes()
        self._refused = {code: self._families.refused.labels(code) for code in self._codes}
        self._answered = {one: self._families.request_seconds.labels(one) for one in Outcome}
        self._sampler: _Sampler | None = None

    def started(self, currencies: Sequence[Currency], books: Books) -> None:
        for currency in currencies:
            self._currencies[currency.address] = _CurrencyMetrics(self._families, currency)
        self._sampler = _Sampler(books, self._families.waiting, self._currencies)

    def stopped(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()

    def accepted(self, token: Address) -> None:
        if (metrics := self._currencies.get(token)) is not None:
            metrics.accepted.inc()

    def refused(self, code: str) -> None:
        counter = self._refused.get(code)
        (counter or self._families.refused.labels(OTHER)).inc()

    def charged(self, token: Address, amount: int) -> None:
        if (metrics := self._currencies.get(token)) is not None:
            metrics.charged.inc(amount / metrics.unit)

    def released(self, token: Address, amount: int) -> None:
        if (metrics := self._currencies.get(token)) is not None:
            metrics.released.inc(amount / metrics.unit)

    def verified(self, seconds: float) -> None:
        self._families.verify_seconds.observe(seconds)

    def committed(self, orders: int, seconds: float) -> None:
        self._families.commit_seconds.observe(seconds)
        self._families.commit_orders.observe(orders)

    def answered(self, answer: Answered) -> None:
        self._answered[answer.outcome].observe(answer.seconds)

    def opened(self, token: Address, deposit: int) -> None:
        if (metrics := self._currencies.get(token)) is not None:
            metrics.opened.inc()
            metrics.deposited.inc(deposit / metrics.unit)

    def topped_up(self, token: Address, amount: int) -> None:
        if (metrics := self._currencies.get(token)) is not None:
            metrics.topped_up.inc()
            metrics.deposited.inc(amount / metrics.unit)

    def closed(self, token: Address, settled: int) -> None:
        if (metrics := self._currencies.get(token)) is not None:
            metrics.closed.inc()
            metrics.settled.inc(settled / metrics.unit)

    def close_failed(self, code: str) -> None:
        self._failed("close", code)

    def settled(self, token: Address, settled: int) -> None:
        if (metrics := self._currencies.get(token)) is not None:
            metrics.settlements.inc()
            metrics.settled.inc(settled / metrics.unit)

    def settle_failed(self, code: str) -> None:
        self._failed("settle", code)

    def followed(self, block: int) -> None:
        self._families.follower_block.set(block)
        self._families.follower_seen.set(time.time())

    def follow_failed(self, code: str) -> None:
        self._failed("follow", code)

    def worked(self, *, works: bool) -> None:
        self._families.daemon_works.set(int(works))

    def gas_paid(self, fee_wei: int) -> None:
        self._families.gas_paid.inc(fee_wei / WEI_PER_ETHER)

    def gas_money(self, balance_wei: int, pending: int) -> None:
        self._families.gas_money.set(balance_wei / WEI_PER_ETHER)
        self._families.pending.set(pending)

    def alerted(self, name: str, *, began: bool, active: bool) -> None:
        if began:
            self._families.alerts.labels(name).inc()
        self._families.alert_active.labels(name).set(int(active))

    def _failed(self, action: str, code: str) -> None:
        known = code if code in self._codes else OTHER
        self._families.chain_failures.labels(action, known).inc()


class _Families:
    """Every metric by name, each made once for a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Sequence[str] = _CURRENCY) -> Counter:
            return Counter(f"channelpay_{name}", text, labels, registry=registry)

        self.accepted = counter("payments_accepted", "Payments accepted, retries not counted.")
        self.charged = counter("charged", "Charged, in whole tokens.")
        self.released = counter("released", "Charged and given back, in whole tokens.")
        self.refused = counter("requests_refused", "Requests refused, by error code.", ["code"])
        self.opened = counter("channels_opened", "Channels that were presented and entered.")
        self.topped_up = counter("top_ups", "Top-ups that were presented and entered.")
        self.deposited = counter("deposited", "Deposits and top-ups entered, in whole tokens.")
        self.closed = counter("channels_closed", "Channels that this payee closed on chain.")
        self.settlements = counter("settlements", "Settlements of channels that stay open.")
        self.settled = counter("settled", "Paid out by closes and settlements, in whole tokens.")
        self.chain_failures = counter(
            "chain_failures", "Closes, settlements and watches that failed.", ["action", "code"]
        )
        self.gas_paid = counter("gas_paid_ether", "Gas of settlements and closes, in ether.", ())
        self.alerts = counter("alerts", "Alerts that were told.", ["alert"])
        self.verify_seconds = Histogram(
            "channelpay_verify_seconds",
            "Checking one voucher's signature.",
            buckets=VERIFY_BUCKETS,
            registry=registry,
        )
        self.commit_seconds = Histogram(
            "channelpay_commit_seconds",
            "One commit of the books, until it is durable.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self.commit_orders = Histogram(
            "channelpay_commit_orders",
            "Orders in one commit.",
            buckets=COMMIT_ORDERS_BUCKETS,
            registry=registry,
        )
        self.request_seconds = Histogram(
            "channelpay_request_seconds",
            "From a request for something priced to the begin of its answer.",
            ["outcome"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._make_gauges(registry)

    def _make_gauges(self, registry: CollectorRegistry) -> None:
        """With several workers: each has its own queue, all share the books, and one that follows
        the chain does it for all.
        """
        self.waiting = Gauge(
            "channelpay_orders_waiting",
            "Orders that wait for the books' writer.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.unsettled = Gauge(
            "channelpay_unsettled",
            "Accepted and not settled on chain yet, in whole tokens.",
            _CURRENCY,
            multiprocess_mode="mostrecent",
            registry=registry,
        )
        self.follower_block = Gauge(
            "channelpay_follower_block",
            "The newest block whose events are in the books.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.follower_seen = Gauge(
            "channelpay_follower_seen_timestamp_seconds",
            "When the follower last followed the chain to its end, in Unix seconds.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._make_daemon_gauges(registry)

    def _make_daemon_gauges(self, registry: CollectorRegistry) -> None:
        """Of the one worker that settles."""

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(
                f"channelpay_{name}", text, labels, multiprocess_mode="livemax", registry=registry
            )

        self.daemon_works = gauge("daemon_works", "1: it settles here. 0: it stands by.")
        self.gas_money = gauge("gas_money_ether", "What the account that pays gas has, in ether.")
        self.pending = gauge("transactions_pending", "Transactions sent and not confirmed.")
        self.alert_active = gauge("alert_active", "1 while it is wrong.", ["alert"])


class _CurrencyMetrics:
    """What is counted per token, with its labels looked up once."""

    def __init__(self, families: _Families, currency: Currency) -> None:
        labels = (to_hex(currency.address), currency.symbol[:SYMBOL_CHARS_MAX])
        self.unit = 10**currency.decimals
        self.accepted = families.accepted.labels(*labels)
        self.charged = families.charged.labels(*labels)
        self.released = families.released.labels(*labels)
        self.opened = families.opened.labels(*labels)
        self.topped_up = families.topped_up.labels(*labels)
        self.deposited = families.deposited.labels(*labels)
        self.closed = families.closed.labels(*labels)
        self.settlements = families.settlements.labels(*labels)
        self.settled = families.settled.labels(*labels)
        self.unsettled = families.unsettled.labels(*labels)


class _Sampler:
    """Looks at the books from time to time, on a thread of its own. A gauge that asks when it is
    scraped would show the worker that answers the scrape, and none of the others.
    """

    def __init__(
        self, books: Books, waiting: Gauge, currencies: dict[Address, _CurrencyMetrics]
    ) -> None:
        self._books = books
        self._waiting = waiting
        self._currencies = currencies
        self._stopped = Event()
        self._unsettled_due = time.monotonic()
        self._thread = Thread(target=self._run, name="channelpay-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._sample()
            if self._stopped.wait(SAMPLE_SECONDS):
                return

    def _sample(self) -> None:
        try:
            self._waiting.set(self._books.waiting)
            if time.monotonic() >= self._unsettled_due:
                self._sum_up()
        except ChannelPayError as error:
            _log.warning("the books could not be summed up: %s", error.detail)
        except Exception:  # noqa: BLE001  a bug must not end the sampling
            _log.exception("the books could not be summed up")

    def _sum_up(self) -> None:
        begun = time.monotonic()
        self._unsettled_due = begun + UNSETTLED_SECONDS
        unsettled = self._books.unsettled()
        taken = time.monotonic() - begun
        self._unsettled_due = begun + max(UNSETTLED_SECONDS, taken / UNSETTLED_SHARE)
        for token, metrics in self._currencies.items():
            metrics.unsettled.set(unsettled.get(token, 0) / metrics.unit)
