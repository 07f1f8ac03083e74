"""Each line of docs/safety.md names a test that there is; so does what docs/privacy.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "safety.md").read_text()
PRIVACY = (REPOSITORY / "docs" / "privacy.md").read_text()
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def lines() -> list[str]:
    """The rows of its tables, without those at their heads."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    return [row for row in rows if not row.startswith("| what is lost |")]


def exists(file: str, name: str) -> bool:
    path = REPOSITORY / file
    tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) and node.name == name for node in tree.body)


def test_every_line_names_its_test() -> None:
    assert len(lines()) > 15
    assert [line for line in lines() if not _TEST.search(line)] == []


def test_every_test_that_is_named_exists() -> None:
    named = _TEST.findall(PAGE)
    assert len(named) >= len(lines())
    named += _TEST.findall(PRIVACY)
    assert [f"{file}::{name}" for file, name in named if not exists(file, name)] == []
