"""Paid requests over HTTP, against the bare application on the same server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from channelpay.payee.selling.incentives import Incentive
from channelpay.store import open_store
from scripts.bench.core import RAW_VERIFY, raw_calls, seconds_per_call
from scripts.bench.database import Postgres, postgres, sqlite_url
from scripts.bench.figures import Cell, Findings, Ratio, Table, Target, medians
from scripts.bench.load import Endpoint, Load, Replay, Sample, generate
from scripts.bench.processes import Child, child, cpu_seconds
from scripts.bench.scene import enter, payers_of
from scripts.bench.site import PAYEE, Place, follow_once, quiet_chain, run_hello, run_site

CHANNELS = (1, 50)
IN_FLIGHT = (1, 64, 512)
WORKERS = (1, 2)
BUSY = 64
"""In flight where the targets are measured."""
HELLO_REACH, LEFT_REACH, WORKERS_REACH = 0.25, 0.70, 1.6


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: requests per sample, fewer where only one is in flight."""

    rounds: int
    count: int

    def of(self, in_flight: int) -> int:
        return self.count if in_flight > 1 else self.count // 4


@dataclass(slots=True)
class Server:
    """One server that answers at ``endpoint``, and the process of its database, if it has one."""

    endpoint: Endpoint
    pid: int
    database: int | None = None

    def cpu(self) -> tuple[float, float]:
        """Seconds so far: its own, with all its workers', and its database's."""
        return cpu_seconds(self.pid), 0.0 if self.database is None else cpu_seconds(self.database)


@dataclass(slots=True)
class Lab:
    """What measures, and what is always measured beside the rest."""

    place: Place
    generator: Child
    hello: Server
    extent: Extent
    findings: Findings = field(default_factory=Findings)

    def load(self, server: Server, in_flight: int, channels: int) -> dict[str, float]:
        """The figures of one load of the usual size."""
        count = self.extent.of(in_flight)
        return self.sample(server, Load(server.endpoint, count, in_flight, channels))

    def sample(self, server: Server, load: Load | Replay) -> dict[str, float]:
        """CPU per request in microseconds, latencies in milliseconds."""
        own, database = server.cpu()
        sample: Sample = self.generator.ask(load)
        count = len(sample.latencies)
        own_after, database_after = server.cpu()
        return {
            "rate": sample.rate,
            "p50": sample.latency(0.5) * 1e3,
            "p99": sample.latency(0.99) * 1e3,
            "cpu": (own_after - own) / count * 1e6,
            "database cpu": (database_after - database) / count * 1e6,
            "generator cpu": sample.cpu_seconds / count * 1e6,
        }

    def rounds(
        self, servers: Mapping[str, Server], in_flight: int, channels: int
    ) -> list[dict[str, float]]:
        """Every server once per round, the bare one first, after a first load that does not count.
        Each figure is named ``server figure``.
        """
        everyone = {"hello": self.hello, **servers}
        for name, server in everyone.items():
            self.load(server, min(in_flight, 32), 0 if name == "hello" else channels)
        return [self._round(everyone, in_flight, channels) for _ in range(self.extent.rounds)]

    def _round(
        self, servers: Mapping[str, Server], in_flight: int, channels: int
    ) -> dict[str, float]:
        taken = {"verify": seconds_per_call(raw_calls()[RAW_VERIFY])}
        for name, server in servers.items():
            figures = self.load(server, in_flight, 0 if name == "hello" else channels)
            taken |= {f"{name} {figure}": value for figure, value in figures.items()}
        return taken


FIGURES = ("rate", "p50", "p99", "cpu", "database cpu", "generator cpu")
COLUMNS = (
    *("requests/s", "p50 ms", "p99 ms"),
    *("µs of CPU, server", "µs, database", "µs, generator"),
)


def figures_of(name: str, rounds: Sequence[Mapping[str, float]]) -> tuple[Cell, ...]:
    """The cells of one server, under COLUMNS."""
    typical = medians(rounds)
    return tuple(typical[f"{name} {figure}"] for figure in FIGURES)


def against_hello(name: str, rounds: Sequence[Mapping[str, float]]) -> Ratio:
    return Ratio.of(one[f"{name} rate"] / one["hello rate"] for one in rounds)


def _of_what_is_left(name: str, rounds: Sequence[Mapping[str, float]]) -> Ratio:
    """Against a request that costs a bare one and one raw verification."""
    return Ratio.of(one[f"{name} rate"] * (1 / one["hello rate"] + one["verify"]) for one in rounds)


@contextmanager
def laboratory(extent: Extent) -> Iterator[Lab]:
    """The chain, the load generator and the bare application, running."""
    with quiet_chain() as place, ExitStack() as running:
        generator = running.enter_context(child(generate, place.deployment, PAYEE))
        hello = running.enter_context(child(run_hello))
        yield Lab(place, generator, Server(hello.answer(), hello.pid), extent)


@contextmanager
def site(
    lab: Lab,
    url: str,
    workers: int,
    variables: Mapping[str, str],
    database: int | None = None,
    incentives: Sequence[Incentive] = (),
) -> Iterator[Server]:
    """A site of so many worker processes over one store."""
    arguments = (lab.place, url, workers, incentives)
    with child(run_site, *arguments, variables=variables) as running:
        yield Server(running.answer(), running.pid, database)


def enter_payers(lab: Lab, url: str) -> None:
    """Have the store know the channels that are paid from."""
    with closing(open_store(url)) as store:
        follow_once(lab.place, store)
        for count in CHANNELS:
            enter(store, payers_of(lab.place.deployment, PAYEE, count))


def measure(lab: Lab, directory: Path, slow: Mapping[str, str]) -> None:
    """One worker on SQLite at every number in flight; two workers; a slower disk."""
    directory.mkdir()
    _one_worker(lab, sqlite_url(directory / "books.sqlite3"))
    with postgres() as server:
        _workers(lab, directory, server)
    with postgres(slow) as server:
        _slow_disk(lab, sqlite_url(directory / "slow.sqlite3"), server, slow)


def _one_worker(lab: Lab, url: str) -> None:
    enter_payers(lab, url)
    rows: list[tuple[Cell, ...]] = []
    with site(lab, url, 1, {}) as paid:
        for in_flight in IN_FLIGHT:
            for channels in CHANNELS:
                rounds = lab.rounds({"paid": paid}, in_flight, channels)
                _paid_targets(lab, rounds, in_flight, channels)
                if channels == CHANNELS[0]:
                    rows.append(("hello", in_flight, "", *figures_of("hello", rounds)))
                rows.append(("paid", in_flight, channels, *figures_of("paid", rounds)))
    columns = ("request", "in flight", "channels", *COLUMNS)
    note = "SQLite, one worker, this disk; hello is the same application without a price."
    lab.findings.tables.append(Table("Paid requests", note, columns, tuple(rows)))


def _paid_targets(
    lab: Lab, rounds: Sequence[Mapping[str, float]], in_flight: int, channels: int
) -> None:
    counts = in_flight == BUSY
    name = f"paid request, one worker, {in_flight} in flight, {_channels(channels)}"
    lab.findings.targets += [
        Target(f"{name} / hello", against_hello("paid", rounds), HELLO_REACH if counts else None),
        Target(
            f"{name} / (1 ÷ (hello + raw verify))",
            _of_what_is_left("paid", rounds),
            LEFT_REACH if counts else None,
        ),
    ]


def _channels(count: int) -> str:
    return f"{count} channel" if count == 1 else f"{count} channels"


def _workers(lab: Lab, directory: Path, server: Postgres) -> None:
    rows: list[tuple[Cell, ...]] = []
    for store, urls, database in (
        ("SQLite", [sqlite_url(directory / f"{count}.sqlite3") for count in WORKERS], None),
        ("PostgreSQL", [server.new_books() for _ in WORKERS], server.pid),
    ):
        for url in urls:
            enter_payers(lab, url)
        one_url, two_url = urls
        with site(lab, one_url, 1, {}, database) as one, site(lab, two_url, 2, {}, database) as two:
            rounds = lab.rounds({"one": one, "two": two}, BUSY, CHANNELS[-1])
        ratio = Ratio.of(each["two rate"] / each["one rate"] for each in rounds)
        reach = WORKERS_REACH if store == "PostgreSQL" else None
        name = f"{store}: two workers / one worker, {BUSY} in flight"
        lab.findings.targets.append(Target(name, ratio, reach))
        rows += [
            (store, count, *figures_of(name, rounds), _allowed(name, rounds))
            for count, name in zip(WORKERS, ("one", "two"), strict=True)
        ]
    columns = ("store", "workers", *COLUMNS, "requests/s that the cores allow")
    note = (
        f"{BUSY} in flight, {CHANNELS[-1]} channels, all of which all workers serve. On a machine "
        "of two cores, two workers share them with the database and the generator."
    )
    lab.findings.tables.append(Table("One worker and two", note, columns, tuple(rows)))


def _allowed(name: str, rounds: Sequence[Mapping[str, float]]) -> float:
    """Requests per second if every core did nothing else."""
    typical = medians(rounds)
    used = sum(typical[f"{name} {figure}"] for figure in FIGURES if figure.endswith("cpu"))
    return (os.cpu_count() or 1) * 1e6 / used


def _slow_disk(lab: Lab, sqlite: str, server: Postgres, slow: Mapping[str, str]) -> None:
    rows: list[tuple[Cell, ...]] = []
    for store, url, database in (
        ("SQLite", sqlite, None),
        ("PostgreSQL", server.new_books(), server.pid),
    ):
        enter_payers(lab, url)
        with site(lab, url, 1, slow, database) as paid:
            for in_flight in IN_FLIGHT:
                rounds = lab.rounds({"paid": paid}, in_flight, CHANNELS[-1])
                rows.append((store, in_flight, *figures_of("paid", rounds)))
    columns = ("store", "in flight", *COLUMNS)
    note = f"One worker, {CHANNELS[-1]} channels, one millisecond more for each sync."
    lab.findings.tables.append(Table("Paid requests on a slower disk", note, columns, tuple(rows)))
