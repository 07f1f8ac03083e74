"""Check the built site: it loads nothing from elsewhere, and no link of its own leads nowhere.

Usage: python -m scripts.docs.check_site FOLDER
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_STYLE_URL = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""")
_LOADED = {"audio", "embed", "iframe", "img", "link", "script", "source", "video"}
_NOT_LOADED = {"alternate", "canonical", "next", "prev"}
"""Relations of a ``link`` that a browser does not follow by itself."""
_NOT_FOUND = "404.html"
"""Its links begin at the top of the host, wherever the site will be."""


class PageParser(HTMLParser):
    """What a page refers to, what it loads, and what in it can be referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids = {"", "top"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        attributes = {name: value or "" for name, value in attrs}
        self.ids |= {attributes.get("id", ""), attributes.get("name", "") if tag == "a" else ""}
        target = attributes.get("href" if tag in {"a", "link"} else "src")
        if target is None:
            return
        self.links.append(target)
        if tag in _LOADED and attributes.get("rel") not in _NOT_LOADED:
            self.loads.append(target)


def problems(site: Path) -> Iterator[str]:
    """What is wrong with the site, in words."""
    pages = {path: _parsed(path) for path in site.rglob("*.html") if path.name != _NOT_FOUND}
    for path, page in pages.items():
        name = path.relative_to(site)
        yield from (f"{name} loads {url}" for url in page.loads if _is_elsewhere(url))
        for link in page.links:
            if not _is_elsewhere(link) and not _resolves(path, link, pages):
                yield f"{name}: link to {link} leads nowhere"
    for path in site.rglob("*.css"):
        urls = _STYLE_URL.findall(path.read_text(encoding="utf-8"))
        yield from (f"{path.relative_to(site)} loads {u}" for u in urls if _is_elsewhere(u))


def _parsed(path: Path) -> PageParser:
    parser = PageParser()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser


def _is_elsewhere(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.netloc or parts.scheme) and parts.scheme != "data"


def _resolves(page: Path, link: str, pages: dict[Path, PageParser]) -> bool:
    parts = urlsplit(link)
    if parts.scheme == "data":
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target /= "index.html"
    known = pages.get(target)
    return target.is_file() and (known is None or unquote(parts.fragment) in known.ids)


def main() -> int:
    """Print every problem; 1 if there is one."""
    site = Path(sys.argv[1]).resolve()
    found = sorted(set(problems(site)))
    print("\n".join(found) or f"{site} is whole by itself, and every link of it leads somewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
