"""The code of ``docs/frameworks.md`` is that of the examples, which are run and paid."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "frameworks.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
NAMES = sorted(set(re.findall(r"`(channelpay(?:\.[a-z]+)*)\.([A-Z]\w+|current_payment)", PAGE)))


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_is_a_part_of_an_example(snippet: str) -> None:
    examples = (REPOSITORY / "examples").glob("get_paid*.py")

    assert any(snippet in example.read_text() for example in examples)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_every_name_of_the_table_exists(module: str, name: str) -> None:
    assert hasattr(import_module(module), name)


def test_there_are_snippets_and_names_to_look_at() -> None:
    assert (len(SNIPPETS), len(NAMES)) == (5, 5)
