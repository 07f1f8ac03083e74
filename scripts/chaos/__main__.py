"""Kill the site, its database and its machine's sanity while clients pay, and see that nobody loses
anything.

Usage: python -m scripts.chaos [--store sqlite|postgres] [--kills N] [--seed TEXT] [--short]

Without `--store`, one run on each. The seed decides what goes wrong and when, what clients buy and
when they give up; the rest is up to the machine. The exit code is 1 if something did not hold; then
the site's log is kept. Prints a line for each step to stderr; a table of the runs on a terminal,
JSON on a pipe.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from channelpay.protocol.text import format_amount
from scripts.chaos.run import OTHERS, Progress, Size, Survived, Violated, run

KILLS = 200
CHANNELS = 50
IN_FLIGHT = 64
KILLS_WHILE_CLOSING = 10
SHORT = Size(kills=5, channels=8, in_flight=16, kills_while_closing=1)
VIOLATIONS_SHOWN = 20
ETHER_DECIMALS = 18


def main() -> int:
    """Run on one store or both, and report."""
    arguments = _arguments()
    seed = arguments.seed or secrets.token_hex(4)
    print(f"seed {seed}", file=sys.stderr, flush=True)
    size = Size(arguments.kills or KILLS, CHANNELS, IN_FLIGHT, KILLS_WHILE_CLOSING)
    if arguments.short:
        size = SHORT
    runs: list[Survived] = []
    try:
        stores = [arguments.store] if arguments.store else OTHERS
        runs.extend(_run(store, size, seed) for store in stores)
    except Violated as violated:
        _report(seed, runs, violated.violations)
        return 1
    _report(seed, runs, ())
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill the site while clients pay.")
    parser.add_argument("--store", choices=list(OTHERS), help="one store only")
    parser.add_argument("--kills", type=int, help=f"how often the site is killed ({KILLS})")
    parser.add_argument("--seed", help="what decides; random unless given")
    parser.add_argument("--short", action="store_true", help="a small run, for the tests")
    return parser.parse_args()


def _run(store: str, size: Size, seed: str) -> Survived:
    """One run in a folder of its own, which stays if something did not hold."""
    print(f"{store}: {size.channels} channels, {size.in_flight} in flight", file=sys.stderr)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        survived = run(store, size, seed, folder, _progress)
    except BaseException:
        print(f"the log of the site is {folder / 'site.log'}", file=sys.stderr)
        raise
    shutil.rmtree(folder)
    return survived


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


def _report(seed: str, runs: Sequence[Survived], violations: Sequence[str]) -> None:
    if sys.stdout.isatty():
        Console().print(_table(runs))
    else:
        members = {"seed": seed, "runs": [asdict(one) for one in runs], "violations": violations}
        print(json.dumps(members, indent=2))
    for violation in violations[:VIOLATIONS_SHOWN]:
        print(f"VIOLATED: {violation}", file=sys.stderr)
    if len(violations) > VIOLATIONS_SHOWN:
        print(f"and {len(violations) - VIOLATIONS_SHOWN} more", file=sys.stderr)


def _table(runs: Sequence[Survived]) -> Table:
    columns = [dict(_rows(one)) for one in runs]
    table = Table("", *(one.store for one in runs))
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "") for column in columns))
    return table


def _rows(one: Survived) -> list[tuple[str, str]]:
    amounts = {"accepted": one.accepted, "spent": one.spent, "settled on chain": one.settled}
    return [
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
