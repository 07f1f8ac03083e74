"""Markdown as pages. Raw HTML in it stays text, so a page cannot carry a script."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from channelpay.payee.style import STYLE

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{navigation}
<main>
{body}
</main>
</body>
</html>
"""
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_PAGES_KEPT = 256
_TITLES_KEPT = 4096


@dataclass(frozen=True, slots=True)
class _Version:
    """A file as it was when it was looked at."""

    path: Path
    modified_ns: int
    size: int


def markdown_page(path: Path) -> str:
    """The file as an HTML document, kept until the file changes."""
    return _rendered(_version(path))


def markdown_title(path: Path) -> str:
    """The file's first heading, or its name; kept until the file changes."""
    return _titled(_version(path))


def html_page(title: str, body: str, navigation: str = "") -> str:
    """A document in the site's style; ``body`` and ``navigation`` are HTML, ``title`` is text."""
    return _PAGE.format(title=escape(title), style=STYLE, body=body, navigation=navigation)


def _version(path: Path) -> _Version:
    status = path.stat()
    return _Version(path, status.st_mtime_ns, status.st_size)


@lru_cache(_TITLES_KEPT)
def _titled(version: _Version) -> str:
    return _title(_parsed(version.path)) or version.path.name


@lru_cache(_PAGES_KEPT)
def _rendered(version: _Version) -> str:
    tokens = _parsed(version.path)
    _name_headings(tokens)
    body = _MARKDOWN.renderer.render(tokens, _MARKDOWN.options, {})
    navigation = '<nav><a href="/">All pages</a></nav>'
    return html_page(_title(tokens) or version.path.name, body, navigation)


def _parsed(path: Path) -> list[Token]:
    return _MARKDOWN.parse(path.read_text(encoding="utf-8", errors="replace"))


def _title(tokens: list[Token]) -> str:
    headings = _headings(tokens)
    return _plain(headings[0][1]) if headings else ""


def _name_headings(tokens: list[Token]) -> None:
    """Give headings the ids that links within and between Markdown files expect."""
    used: Counter[str] = Counter()
    for opening, inline in _headings(tokens):
        slug = re.sub(r"[^\w\- ]", "", _plain(inline).lower()).replace(" ", "-")
        count, used[slug] = used[slug], used[slug] + 1
        opening.attrSet("id", f"{slug}-{count}" if count else slug)


def _headings(tokens: list[Token]) -> list[tuple[Token, Token]]:
    """Each heading's opening token, and the text that follows it."""
    pairs = pairwise(tokens)
    return [(opening, inline) for opening, inline in pairs if opening.type == "heading_open"]


def _plain(inline: Token) -> str:
    children = inline.children or []
    return "".join(child.content for child in children if child.type in ("text", "code_inline"))
