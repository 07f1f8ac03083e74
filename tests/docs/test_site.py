"""What makes the site: links out of ``docs/``, the commands, the check at its end."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from scripts.docs.check_site import problems
from scripts.docs.commands import command_reference
from scripts.docs.repository import (
    pages_beyond_docs,
    repository_path,
    site_path,
    with_links_of_the_site,
)


@pytest.mark.parametrize(
    ("page", "link", "becomes"),
    [
        ("frameworks.md", "prices.md#methods", "prices.md#methods"),
        ("frameworks.md", "../examples/README.md", "repository/examples/README.md"),
        ("contract.md", "../contracts/A.sol", "repository/contracts/A.sol.md"),
        ("how-to/index.md", "../prices.md", "../prices.md"),
        ("repository/CONTRIBUTING.md", "docs/slither.md", "../slither.md"),
        ("repository/examples/README.md", "pay.py", "pay.py.md"),
        ("index.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("index.md", "#here", "#here"),
    ],
)
def test_a_link_leads_on_the_site_where_it_leads_in_the_repository(
    page: str, link: str, becomes: str
) -> None:
    assert with_links_of_the_site(f"See [it]({link}).", page) == f"See [it]({becomes})."


def test_code_stays_as_it_is() -> None:
    text = "`[a](../b.md)`\n\n```\n[a](../b.md)\n```\n"

    assert with_links_of_the_site(text, "index.md") == text


def test_every_page_beyond_docs_has_a_place_of_its_own() -> None:
    pages = pages_beyond_docs()

    assert pages[site_path("CONTRIBUTING.md")].startswith("# Contributing")
    assert "~~~~python\n" in pages[site_path("examples/pay.py")]
    assert repository_path(site_path("docs/gas.md")) == "docs/gas.md"


def test_the_reference_of_a_command_says_what_its_help_says() -> None:
    @click.group()
    def program() -> None:
        """Whatever."""

    @program.command(epilog="Example: program eat --much=2 apple")
    @click.argument("thing")
    @click.option("--much", type=int, default=1, show_default=True, help="How <much> of *it*.")
    @click.option("--secret", hidden=True)
    @click.option("--where", envvar="PLACE", help="At home | out.")
    def eat(**_: object) -> None:
        """Eat a THING.

        Slowly.
        """

    assert command_reference(program, "program") == (
        "## eat\n\n"
        "```\nprogram eat [OPTIONS] THING\n```\n\n"
        "Eat a THING.\n\nSlowly.\n\n"
        "| option | what it is |\n|---|---|\n"
        r"| `--much INTEGER` | How \<much\> of \*it\*.  \[default: 1\] |"
        "\n"
        r"| `--where TEXT` | At home \| out.  \[env var: PLACE\] |"
        "\n\n"
        "```sh\nprogram eat --much=2 apple\n```\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("index.html", '<a href="missing/">x</a>', "link to missing/ leads nowhere"),
        ("index.html", '<a href="other/#missing">x</a>', "link to other/#missing leads nowhere"),
        ("index.html", '<img src="missing.png">', "link to missing.png leads nowhere"),
        ("index.html", '<script src="https://cdn.example/a.js">', "loads https://cdn.example/a.js"),
        ("index.html", '<link rel="stylesheet" href="//a.example/b">', "loads //a.example/b"),
        ("a.css", "a { background: url(https://a.example/b) }", "loads https://a.example/b"),
    ],
)
def test_what_is_wrong_with_a_site_is_told(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h2 id="here">Here</h2>')
    (tmp_path / name).write_text(text)

    found = list(problems(tmp_path))

    assert len(found) == 1
    assert found[0].endswith(problem)


@pytest.mark.parametrize(
    "text",
    [
        '<a href="other/#here">x</a>',
        '<a href="other">x</a>',
        '<h2 id="a b">x</h2><a href="#a%20b">x</a>',
        '<a href="https://example.org/">x</a>',
        '<a href="mailto:a@example.org">x</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<img src="data:image/png;base64,AA==">',
    ],
)
def test_what_is_right_passes(tmp_path: Path, text: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text('<h2 id="here">Here</h2>')
    (tmp_path / "index.html").write_text(text)

    assert list(problems(tmp_path)) == []
