"""`make docs` finds what a reader would trip over."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_docs

VERBS = {"demo", "test"}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "other.md").write_text("# Other page\n\n## A `close`, twice\n")
    return tmp_path / "page.md"


@pytest.mark.parametrize(
    "link",
    [
        "other.md",
        "other.md#other-page",
        "other.md#a-close-twice",
        "#here",
        "https://example.org/missing",
        "mailto:nobody@example.org",
    ],
)
def test_a_link_that_leads_somewhere_passes(page: Path, link: str) -> None:
    page.write_text(f"# Here\n\n[text]({link})\n")

    assert list(check_docs.broken_links(page)) == []


@pytest.mark.parametrize("link", ["missing.md", "other.md#missing", "#missing", "missing.md#here"])
def test_a_link_that_leads_nowhere_is_reported(page: Path, link: str) -> None:
    page.write_text(f"# Here\n\n[text]({link})\n")

    assert list(check_docs.broken_links(page)) == [f"link to {link}"]


def test_code_holds_no_links(page: Path) -> None:
    page.write_text("`call[name](argument)`\n\n```python\ncall[name](argument)\n```\n")

    assert list(check_docs.broken_links(page)) == []


@pytest.mark.parametrize("text", ["`make missing`", "```sh\nmake missing\n```", "make missing"])
def test_a_make_verb_that_does_not_exist_is_reported(page: Path, text: str) -> None:
    page.write_text(f"{text}\n\nRun `make demo`; it will make sense.\n")

    assert list(check_docs.unknown_verbs(page, VERBS)) == ["`make missing`"]
