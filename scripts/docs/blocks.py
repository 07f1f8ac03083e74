"""Pages as what a reader does with them: files to save, commands to type, output to see.

- A block with a title is a file of that name: ```` ```python title="shop.py" ````
- A block of ``sh`` is typed, line by line: ```` ```sh ````
- A block of ``output`` is what the commands before it print. ``…`` stands for anything.
- A picture of ``assets/terminal/`` shows the commands before it and what they print;
  :mod:`scripts.docs.pictures` makes it.

A comment on the line before says what is special about a block of ``sh``:

- ``<!-- run: stays -->``: its last command is a server, which runs on
- ``<!-- run: exit 4 -->``: its last command ends with that code
- ``<!-- run: types reader.key -->``: somebody types what is in that file
- ``<!-- run: no, because … -->``: it cannot be run in a test

And on a line of its own, what the page takes for granted:

- ``<!-- run: chain -->``: a chain and some accounts
- ``<!-- run: channel -->``: beside that, a channel over which was paid, and the books of both sides
- ``<!-- run: after tutorials/get-paid.md -->``: what that page did
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from scripts.check_docs import ROOT

DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"(?:^<!-- run: (?P<mark>[^\n]*?) -->\n)?"
    r"^```(?P<language>[a-z]+)(?: title=\"(?P<title>[^\"\n]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_PICTURE = re.compile(
    r"^!\[[^]\n]+\]\((?P<picture>[^)\s]*assets/terminal/[^)\s]+\.svg)\)", re.MULTILINE
)
_GRANTED = re.compile(r"^<!-- run: (chain|channel|after \S+) -->\n\n", re.MULTILINE)
_SHELL, _OUTPUT, _SHOWN = "sh", "output", "picture"


@dataclass(frozen=True)
class Block:
    """One fenced block, with what a comment before it says; or a picture, by its path."""

    language: str
    text: str
    title: str | None = None
    mark: str = ""

    @property
    def is_file(self) -> bool:
        return self.title is not None

    @property
    def is_typed(self) -> bool:
        return self.language == _SHELL and not self.is_file

    @property
    def is_output(self) -> bool:
        return self.language == _OUTPUT

    @property
    def is_picture(self) -> bool:
        return self.language == _SHOWN

    @property
    def commands(self) -> list[str]:
        """What is typed, one by one."""
        return [line for line in self.text.splitlines() if line]

    @property
    def stays(self) -> bool:
        return self.mark == "stays"

    @property
    def reason_not_to_run(self) -> str:
        return self.mark.removeprefix("no, ") if self.mark.startswith("no, ") else ""

    @property
    def exit_code(self) -> int:
        return int(self.mark.removeprefix("exit ")) if self.mark.startswith("exit ") else 0

    @property
    def typed_file(self) -> str | None:
        return self.mark.removeprefix("types ") if self.mark.startswith("types ") else None


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    return list(_blocks(page.read_text(encoding="utf-8")))


def granted(page: Path) -> str:
    """``chain``, ``channel``, ``after PAGE`` or nothing."""
    found = _GRANTED.search(page.read_text(encoding="utf-8"))
    return found[1] if found else ""


def pages_before(page: Path) -> list[Path]:
    """What has to be followed before this page, in that order."""
    taken = granted(page)
    if not taken.startswith("after "):
        return []
    before = DOCS / taken.removeprefix("after ")
    return [*pages_before(before), before]


def _blocks(text: str) -> Iterator[Block]:
    fences = ((found.start(), _fenced(found)) for found in _FENCE.finditer(text))
    pictures = ((m.start(), Block(_SHOWN, m["picture"])) for m in _PICTURE.finditer(text))
    return (block for _, block in sorted([*fences, *pictures], key=itemgetter(0)))


def _fenced(found: re.Match[str]) -> Block:
    return Block(found["language"], found["text"], found["title"], found["mark"] or "")
