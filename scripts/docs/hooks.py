"""What MkDocs calls while it builds the site; ``mkdocs.yml`` names this file.

``<!-- generated: NAME -->`` in a page is where a generated part goes, so that the page can be read
and linked to where only the repository is at hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

from channelpay.cli.root import cli
from scripts.docs.commands import command_reference
from scripts.docs.error_codes import error_reference
from scripts.docs.repository import ALWAYS, SHELF, pages_beyond_docs, with_links_of_the_site

_MARK = re.compile(r"<!-- generated: ([a-z]+) -->")
_PARTS: dict[str, Callable[[], str]] = {
    "commands": lambda: command_reference(cli, "channelpay"),
    "errors": error_reference,
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fragments as the repository's browsers make them; folders in the navigation."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    config.nav = _with_folders(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files beyond ``docs/`` that pages link to."""
    for path, text in pages_beyond_docs().items():
        shown = path.removeprefix(SHELF) in ALWAYS
        inclusion = InclusionLevel.INCLUDED if shown else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, path, content=text, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill in what is generated, and lead links out of ``docs/`` to their pages."""
    filled = _MARK.sub(lambda match: _PARTS[match[1]](), markdown)
    return with_links_of_the_site(filled, page.file.src_uri)


def _with_folders(nav: Any, docs: Path) -> Any:
    """The navigation with every ``folder/`` replaced by the pages in it."""
    if isinstance(nav, list):
        return [_with_folders(item, docs) for item in nav]
    if isinstance(nav, dict):
        return {title: _with_folders(item, docs) for title, item in nav.items()}
    if nav.endswith("/"):
        return [page.relative_to(docs).as_posix() for page in sorted((docs / nav).glob("*.md"))]
    return nav
