"""Let everything go wrong while people pay, and see that nobody loses anything.

Usage: python -m scripts.chaos [kills] [soak] [--store sqlite|postgres] [--seed TEXT] [--short]
                               [--kills N] [--seconds N]

`kills` kills the site, its database and its machine's sanity: without `--store` on each store. The
`soak` adds the chain and its nodes, the daemon that settles and the payers, for ten minutes:
without `--store` on SQLite. Without either word, both. The seed decides what goes wrong and when,
what clients buy and when they give up; the rest is up to the machine. The exit code is 1 if
something did not hold; then logs and books are kept. Prints a line for each step to stderr; tables
on a terminal, JSON on a pipe.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from channelpay.protocol.text import format_amount
from scripts.chaos.run import OTHERS, Progress, Size, Survived, Violated, run
from scripts.chaos.soak import Weathered, soak

PARTS = ("kills", "soak")
KILLS = 200
CHANNELS = 50
IN_FLIGHT = 64
KILLS_WHILE_CLOSING = 10
SHORT = Size(kills=5, channels=8, in_flight=16, kills_while_closing=1)
SOAK_SECONDS = 600.0
SHORT_SECONDS = 30.0
SOAK_STORE = "sqlite"
VIOLATIONS_SHOWN = 20
ETHER_DECIMALS = 18

Rows = Sequence[tuple[str, str]]
"""Names and values for a table; the first value is the head of its column."""


@dataclass(slots=True)
class Report:
    """All that is said in the end; nothing is violated as it should be."""

    seed: str
    runs: list[Survived] = field(default_factory=list)
    soaks: list[Weathered] = field(default_factory=list)
    violations: tuple[str, ...] = ()


def main() -> int:
    """Run what was asked for, and report."""
    # The processes of a run end with their context managers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    arguments = _arguments()
    report = Report(arguments.seed or secrets.token_hex(4))
    print(f"seed {report.seed}", file=sys.stderr, flush=True)
    try:
        if "kills" in arguments.parts:
            _kill(arguments, report)
        if "soak" in arguments.parts:
            _soak(arguments, report)
    except Violated as violated:
        report.violations = violated.violations
    _show(report)
    return 1 if report.violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Let everything go wrong while people pay.")
    parser.add_argument("parts", nargs="*", metavar="kills|soak", help="one part only")
    parser.add_argument("--store", choices=list(OTHERS), help="one store only")
    parser.add_argument("--kills", type=int, help=f"how often the site is killed ({KILLS})")
    parser.add_argument("--seconds", type=float, help=f"how long the soak is ({SOAK_SECONDS:.0f})")
    parser.add_argument("--seed", help="what decides; random unless given")
    parser.add_argument("--short", action="store_true", help="small runs, for the tests")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or PARTS
    if not set(arguments.parts) <= set(PARTS):
        parser.error("the parts are kills and soak")
    return arguments


def _kill(arguments: argparse.Namespace, report: Report) -> None:
    size = Size(arguments.kills or KILLS, CHANNELS, IN_FLIGHT, KILLS_WHILE_CLOSING)
    if arguments.short:
        size = SHORT
    for store in [arguments.store] if arguments.store else OTHERS:
        print(f"{store}: {size.channels} channels, {size.in_flight} in flight", file=sys.stderr)
        with _folder() as folder:
            report.runs.append(run(store, size, report.seed, folder, _progress))


def _soak(arguments: argparse.Namespace, report: Report) -> None:
    seconds = arguments.seconds or (SHORT_SECONDS if arguments.short else SOAK_SECONDS)
    store = arguments.store or SOAK_STORE
    print(f"{store}: a soak of {seconds:.0f} s", file=sys.stderr)
    with _folder() as folder:
        report.soaks.append(soak(store, seconds, report.seed, folder, _tell))


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder to work in, which stays if something did not hold."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        yield folder
    except BaseException:
        print(f"logs and books are in {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _progress(progress: Progress) -> None:
    step, finding = progress.step, progress.finding
    trouble = step.trouble + (" and site" if step.kills and " at " not in step.trouble else "")
    print(
        f"{progress.number:4}/{progress.steps} {trouble:24} {step.seconds:4.2f} s"
        f" {'autopsy' if step.autopsy and step.kills else '':7}"
        f" {progress.served:7} served {finding.charged:7} charged"
        f" {finding.on_their_way:3} on their way {finding.lost:4} lost"
        f" {finding.released:5} released {progress.answered.get(503, 0):5} times 503",
        file=sys.stderr,
        flush=True,
    )


def _show(report: Report) -> None:
    if sys.stdout.isatty():
        for columns in (list(map(_run_rows, report.runs)), list(map(_soak_rows, report.soaks))):
            if columns:
                Console().print(_table(columns))
    else:
        print(json.dumps(asdict(report), indent=2))
    for violation in report.violations[:VIOLATIONS_SHOWN]:
        print(f"VIOLATED: {violation}", file=sys.stderr)
    if len(report.violations) > VIOLATIONS_SHOWN:
        print(f"and {len(report.violations) - VIOLATIONS_SHOWN} more", file=sys.stderr)


def _table(columns: Sequence[Rows]) -> Table:
    cells = [dict(column[1:]) for column in columns]
    table = Table("", *(column[0][1] for column in columns))
    for name in dict.fromkeys(name for column in cells for name in column):
        table.add_row(name, *(column.get(name, "") for column in cells))
    return table


def _soak_rows(one: Weathered) -> Rows:
    return [
        ("store", one.store),
        *((name, f"{count} times") for name, count in one.events.items()),
        *((f"{name} was killed", f"{count} times") for name, count in one.kills.items()),
        ("started without a node", f"{one.restarts} times"),
        *((f"node: {name}", f"{count} times") for name, count in one.faults.items()),
        ("pages", f"{one.pages:,}"),
        *((f"answers with {name}", f"{count:,}") for name, count in one.answers.items()),
        *((f"trouble of payers: {name}", f"{count:,}") for name, count in one.troubles.items()),
        ("channels", f"{one.channels}"),
        *((f"payers {name}", f"{count} times") for name, count in one.ends.items()),
        ("transactions of the payee", f"{one.transactions}"),
        *(
            (f"{token}: {name}", f"{amount:,}")
            for token, amounts in one.sums.items()
            for name, amount in amounts.items()
        ),
        ("fees of the payee", format_amount(one.fees_wei, ETHER_DECIMALS, "ETH")),
        ("seconds", f"{one.seconds:,.0f}"),
    ]


def _run_rows(one: Survived) -> Rows:
    amounts = {"accepted": one.accepted, "spent": one.spent, "settled on chain": one.settled}
    return [
        ("store", one.store),
        ("the site was killed", f"{one.site_kills} times"),
        *((name, f"{count} times") for name, count in one.troubles.items()),
        *((f"requests {name}", f"{count:,}") for name, count in sorted(one.errands.items())),
        *((f"answers with {status}", f"{count:,}") for status, count in one.answered.items()),
        ("charged", f"{one.finding.charged:,}"),
        ("released", f"{one.finding.released:,}"),
        ("charged, answer lost", f"{one.finding.lost:,}"),
        *((name, format_amount(wei, ETHER_DECIMALS, "ETH")) for name, wei in amounts.items()),
        ("channels closed", f"{one.channels}"),
        ("seconds", f"{one.seconds:,.0f}"),
    ]


if __name__ == "__main__":
    sys.exit(main())
