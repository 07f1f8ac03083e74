"""Files of the repository that pages of ``docs/`` link to, as pages of the site.

A link that leaves ``docs/`` works where the repository is browsed. On the site it leads to a page
that shows the file, so that the site is whole by itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.check_docs import CODE_BLOCK, INLINE_CODE, LINK, OTHER_SCHEME, ROOT

DOCS = "docs/"
SHELF = "repository/"
"""Where such pages are on the site."""
ALWAYS = frozenset({"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"})
"""What the navigation names."""
_CODE = re.compile(f"{CODE_BLOCK.pattern}|{INLINE_CODE.pattern}", re.DOTALL | re.MULTILINE)
_LANGUAGES = {".js": "js", ".json": "json", ".py": "python", ".sol": "solidity", ".toml": "toml"}


def pages_beyond_docs() -> dict[str, str]:
    """The Markdown of every such page by its path on the site; also of those that these link to."""
    waiting = {link for page in (ROOT / DOCS).rglob("*.md") for link in _files_beyond(page)}
    waiting |= ALWAYS
    pages: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        pages[site_path(path)] = _page(path)
        if path.endswith(".md"):
            waiting |= {link for link in _files_beyond(ROOT / path) if site_path(link) not in pages}
    return pages


def site_path(path: str) -> str:
    """Where the site has a file of the repository; both as paths from their top."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return SHELF + (path if path.endswith(".md") else f"{path}.md")


def repository_path(site: str) -> str:
    """The reverse of :func:`site_path`, for pages in Markdown."""
    return site.removeprefix(SHELF) if site.startswith(SHELF) else DOCS + site


def with_links_of_the_site(markdown: str, page: str) -> str:
    """The text of the page at that path of the site, its links as they have to be there."""

    def there(match: re.Match[str]) -> str:
        link = match[1]
        path, mark, fragment = link.partition("#")
        if not path or OTHER_SCHEME.match(link):
            return match[0]
        target = site_path(_target(repository_path(page), path))
        relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return match[0].replace(link, relative + mark + fragment)

    return _outside_code(markdown, lambda text: LINK.sub(there, text))


def _files_beyond(page: Path) -> Iterator[str]:
    """The files that a page links to outside of ``docs/``, from the top of the repository."""
    prose = _CODE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(prose):
        path = link.partition("#")[0]
        if path and not OTHER_SCHEME.match(link):
            target = _target(page.relative_to(ROOT).as_posix(), path)
            if not target.startswith(DOCS):
                yield target


def _target(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _page(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = _LANGUAGES.get(Path(path).suffix, "text")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n~~~~{language}\n{text}~~~~\n"


def _outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """The text with ``change`` made to what is not code."""
    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [change(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, change(markdown[end:])])
