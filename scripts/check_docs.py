"""Check what the docs point at: relative links, headings in them, and the `make` verbs they name.

Usage: python scripts/check_docs.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
INLINE_CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(\s*<?([^)>\s]+)")
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)
MAKE_VERB = re.compile(r"(?:^|`)make ([a-z][a-z0-9-]*)", re.MULTILINE)
MAKE_RULE = re.compile(r"^([a-z][a-z0-9-]*):", re.MULTILINE)
OTHER_SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:")


def documents() -> list[Path]:
    """All Markdown of the repository."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def prose(text: str) -> str:
    """The text without code, in which brackets are no links and `#` no headings."""
    return CODE_BLOCK.sub("", text)


def anchors(document: Path) -> set[str]:
    """The fragment that each heading answers to."""
    headings = HEADING.findall(prose(document.read_text(encoding="utf-8")))
    return {anchor(heading) for heading in headings}


def anchor(heading: str) -> str:
    """A heading's fragment: lower case, punctuation dropped, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def broken_links(document: Path) -> Iterator[str]:
    """Relative links of a document that lead nowhere."""
    text = INLINE_CODE.sub("", prose(document.read_text(encoding="utf-8")))
    for link in LINK.findall(text):
        if not OTHER_SCHEME.match(link) and not resolves(document, link):
            yield f"link to {link}"


def resolves(document: Path, link: str) -> bool:
    """Whether a relative link names a file, and a heading of it where it has a fragment."""
    path, _, fragment = link.partition("#")
    target = document.parent / path if path else document
    if not fragment or target.suffix != ".md":
        return target.exists()
    return target.is_file() and fragment in anchors(target)


def unknown_verbs(document: Path, verbs: set[str]) -> Iterator[str]:
    """The `make` verbs of a document, at a line's start or in code, that the Makefile lacks."""
    for verb in MAKE_VERB.findall(document.read_text(encoding="utf-8")):
        if verb not in verbs:
            yield f"`make {verb}`"


def main() -> int:
    """Print every problem; 1 if there is one."""
    verbs = set(MAKE_RULE.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    problems = [
        f"{document.relative_to(ROOT)}: {problem} leads nowhere"
        for document in documents()
        for problem in [*broken_links(document), *unknown_verbs(document, verbs)]
    ]
    print("\n".join(problems) or f"{len(documents())} documents, every link and verb exists")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
