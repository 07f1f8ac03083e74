"""``docs/invariants.md`` names a test for each invariant, and each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parents[1] / "docs" / "invariants.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
ROW = re.compile(r"^\| [A-Z]\d+ \|.*$", re.MULTILINE)


def test_every_invariant_names_a_test() -> None:
    rows = ROW.findall(PAGE)

    assert rows
    assert [row for row in rows if not NAMED.search(row)] == []


def test_every_test_that_the_invariants_name_exists() -> None:
    named = set(NAMED.findall(PAGE))

    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if f"\ndef {name}(" not in (TESTS / file).read_text(encoding="utf-8")
    ]

    assert missing == []
