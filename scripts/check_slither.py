"""Run slither and hold its findings against the answers of `docs/slither.md`.

Usage: python scripts/check_slither.py [SLITHER]

Every finding needs a row in the page's table, by detector and place; every row needs a finding.
Exits with 1 where they differ. Mocks are left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = ROOT / "docs" / "slither.md"
ROW = re.compile(r"^\| `(?P<detector>[a-z0-9-]+)` \| `(?P<place>[^`]+)` \| (?P<reason>.+) \|$")


class Finding(NamedTuple):
    """One detector at one place: a function, a variable, or a version of the language."""

    detector: str
    place: str


def run_slither(program: str) -> list[dict[str, Any]]:
    """All that slither's detectors report."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "slither.json")
        process = subprocess.run(
            [program, ".", "--fail-none", "--json", str(report)],
            cwd=ROOT,
            env={**os.environ, "FOUNDRY_PROFILE": "slither"},
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            sys.exit(process.stderr)
        outcome = json.loads(report.read_text(encoding="utf-8"))
    if not outcome["success"]:
        sys.exit(f"slither failed: {outcome['error']}")
    found: list[dict[str, Any]] = outcome["results"].get("detectors", [])
    return found


def place_of(element: dict[str, Any]) -> str:
    """Where an element is, by name: line numbers move with every edit."""
    if element["type"] == "pragma":
        return "pragma"
    parent = element.get("type_specific_fields", {}).get("parent", {})
    owner = f"{place_of(parent)}." if parent.get("type") in {"contract", "function"} else ""
    return f"{owner}{element['name']}"


def read_answers() -> set[Finding]:
    """The findings that the page answers."""
    rows = map(ROW.match, ANSWERS.read_text(encoding="utf-8").splitlines())
    return {Finding(row["detector"], row["place"]) for row in rows if row}


def report(title: str, findings: set[Finding]) -> None:
    """Print the findings of one kind, if there are any."""
    if findings:
        print(title, *(f"  {detector}: {place}" for detector, place in sorted(findings)), sep="\n")


def main() -> int:
    """Compare both ways."""
    program = sys.argv[1] if len(sys.argv) > 1 else "slither"
    results = run_slither(program)
    found = {Finding(result["check"], place_of(result["elements"][0])) for result in results}
    answered = read_answers()
    report("Not answered in docs/slither.md:", found - answered)
    report("Answered in docs/slither.md, but no longer found:", answered - found)
    print(f"slither: {len(results)} findings, {len(found & answered)} places answered")
    return 0 if found == answered else 1


if __name__ == "__main__":
    sys.exit(main())
