"""Accepting vouchers durably, without HTTP: groups against single commits, a slower disk, and books
of many channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from scripts.bench.books import Accepts, AskMemory, fill, keep_books
from scripts.bench.database import Postgres, postgres, sqlite_url
from scripts.bench.disk import DELAY_MILLISECONDS
from scripts.bench.figures import Cell, Findings, Ratio, Table, Target, medians
from scripts.bench.load import Sample
from scripts.bench.processes import Child, child, cpu_seconds

IN_FLIGHT = 64
CHANNELS = 50
FLAT = 1.3
"""How much dearer an accept may be in the largest books than in the smallest."""
_REACH = {False: 5.0, True: 30.0}
_KEY_GROUP, _KEY_SINGLE = "group", "single"


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk as it is, or a slower one: ``variables`` is what makes it slower."""

    name: str
    variables: Mapping[str, str]

    @property
    def slower(self) -> bool:
        return bool(self.variables)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured. ``sizes`` are numbers of channels, the smallest first."""

    rounds: int
    count: int
    sizes: tuple[int, ...]


def disks(slow: Mapping[str, str]) -> tuple[Disk, Disk]:
    return Disk("this disk", {}), Disk(f"+{DELAY_MILLISECONDS} ms per sync", slow)


def measure(directory: Path, slow: Mapping[str, str], extent: Extent) -> Findings:
    """Both stores on both disks."""
    findings = Findings()
    groups: list[tuple[Cell, ...]] = []
    growth: list[tuple[Cell, ...]] = []
    for disk in disks(slow):
        place = directory / ("slow" if disk.slower else "fast")
        place.mkdir(parents=True)
        with postgres(disk.variables) as server:
            for store, urls in _urls(place, server, extent.sizes).items():
                groups += _groups(findings, store, disk, urls, server, extent)
                growth += _growth(findings, store, disk, urls, extent)
    findings.tables += [_group_table(groups), _growth_table(growth)]
    return findings


def _urls(place: Path, server: Postgres, sizes: Sequence[int]) -> dict[str, dict[int, str]]:
    return {
        "SQLite": {size: sqlite_url(place / f"{size}.sqlite3") for size in (CHANNELS, *sizes)},
        "PostgreSQL": {size: server.new_books() for size in (CHANNELS, *sizes)},
    }


# --- in groups -----------------------------------------------------------------------------------


def _groups(
    findings: Findings,
    store: str,
    disk: Disk,
    urls: Mapping[int, str],
    server: Postgres,
    extent: Extent,
) -> list[tuple[Cell, ...]]:
    url = urls[CHANNELS]
    fill(url, CHANNELS)
    with child(keep_books, url, CHANNELS, variables=disk.variables) as books:
        books.answer()
        rounds = [_group_round(books, server, disk, extent) for _ in range(extent.rounds)]
    ratio = Ratio.of(one["group rate"] / one["single rate"] for one in rounds)
    name = f"{store}, {disk.name}: durable accepts, 64 in flight, group commit / commit each"
    findings.targets.append(Target(name, ratio, _REACH[disk.slower]))
    typical = medians(rounds)
    return [
        (store, disk.name, kind, *(typical[f"{key} {figure}"] for figure in _FIGURES))
        for kind, key in (("in groups", _KEY_GROUP), ("each alone", _KEY_SINGLE))
    ]


_FIGURES = ("rate", "p50", "p99", "cpu", "database cpu")


def _group_round(books: Child, server: Postgres, disk: Disk, extent: Extent) -> dict[str, float]:
    # Single commits take a millisecond each on the slower disk.
    single = extent.count // (10 if disk.slower else 3)
    taken: dict[str, float] = {}
    for key, accepts in (
        (_KEY_GROUP, Accepts(extent.count, IN_FLIGHT)),
        (_KEY_SINGLE, Accepts(single, IN_FLIGHT, grouped=False)),
    ):
        before = cpu_seconds(server.pid)
        sample: Sample = books.ask(accepts)
        database = (cpu_seconds(server.pid) - before) / accepts.count
        figures = (
            sample.rate,
            sample.latency(0.5) * 1e3,
            sample.latency(0.99) * 1e3,
            sample.cpu_seconds / accepts.count * 1e6,
            database * 1e6,
        )
        taken |= {f"{key} {name}": figure for name, figure in zip(_FIGURES, figures, strict=True)}
    return taken


def _group_table(rows: list[tuple[Cell, ...]]) -> Table:
    note = (
        f"{IN_FLIGHT} vouchers in flight, {CHANNELS} channels, the store alone. In groups: what "
        "waits is one commit. Each alone: the same store and the same queue with a commit for each."
    )
    columns = (
        *("store", "disk", "committed", "accepts/s", "p50 ms", "p99 ms"),
        *("µs of CPU", "µs of CPU in the database"),
    )
    return Table("Durable accepts", note, columns, tuple(rows))


# --- of many channels ----------------------------------------------------------------------------


def _growth(
    findings: Findings, store: str, disk: Disk, urls: Mapping[int, str], extent: Extent
) -> list[tuple[Cell, ...]]:
    with ExitStack() as running:
        books = {}
        for size in extent.sizes:
            fill(urls[size], size)
            arguments = (urls[size], size)
            books[size] = running.enter_context(
                child(keep_books, *arguments, variables=disk.variables)
            )
            books[size].answer()
        for one in books.values():
            one.ask(Accepts(extent.count, IN_FLIGHT))
        rounds = [_growth_round(books, extent.count) for _ in range(extent.rounds)]
        memory = {size: one.ask(AskMemory()) / 2**20 for size, one in books.items()}
    smallest, *larger = extent.sizes
    for size in larger:
        ratio = Ratio.of(one[f"{size} time"] / one[f"{smallest} time"] for one in rounds)
        name = f"{store}, {disk.name}: an accept among {size:,} channels / among {smallest:,}"
        findings.targets.append(Target(name, ratio, FLAT, at_most=True))
    typical = medians(rounds)
    return [
        (store, disk.name, size, *(typical[f"{size} {name}"] for name in _GROWN), memory[size])
        for size in extent.sizes
    ]


_GROWN = ("time", "p50", "p99", "alone p50")


def _growth_round(books: Mapping[int, Child], count: int) -> dict[str, float]:
    taken: dict[str, float] = {}
    for size, one in books.items():
        many: Sample = one.ask(Accepts(count, IN_FLIGHT))
        alone: Sample = one.ask(Accepts(max(count // 10, 50), 1))
        figures = (
            many.seconds / count * 1e6,
            many.latency(0.5) * 1e3,
            many.latency(0.99) * 1e3,
            alone.latency(0.5) * 1e3,
        )
        taken |= {f"{size} {name}": figure for name, figure in zip(_GROWN, figures, strict=True)}
    return taken


def _growth_table(rows: list[tuple[Cell, ...]]) -> Table:
    note = (
        f"Each voucher is of a random channel; {IN_FLIGHT} in flight, and one at a time in the "
        "last column but one. Memory is that of the process that keeps the books."
    )
    columns = (
        *("store", "disk", "channels", "µs per accept", "p50 ms", "p99 ms"),
        *("one at a time, p50 ms", "MiB"),
    )
    return Table("Books of many channels", note, columns, tuple(rows))
