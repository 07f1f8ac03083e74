"""Make the pictures of a terminal that the tutorials show, from what their commands show.

Usage: python -m scripts.docs.pictures
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from scripts.docs.blocks import DOCS, Block, blocks_of, pages_before
from scripts.docs.follow import check_shown, follow
from scripts.docs.terminal import COLUMNS, ESCAPE, Done, terminal

LAST_PAGE = DOCS / "tutorials" / "pay.md"
"""Comes after all others that have pictures; they are in the same folder."""
_PARTS = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)")
_UNNEEDED = re.compile(r' clip-path="url\(#[^)"]*-line-[0-9]+\)"|<text[^>]*>\n</text>')
_LOGGED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z info ")
_SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: 21px;
line-height: {line_height}px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own, without fonts from elsewhere; letters that are a little larger and not cut off, so
that lines of boxes touch.
"""


def picture_of(screen: str, name: str) -> str:
    """An SVG of what a terminal shows after all that was written to it, but the log: when a line
    of it comes differs from run to run.
    """
    lines = [Text.from_ansi(line) for line in lines_left(screen) if not _LOGGED.match(line)]
    console = Console(
        width=max([COLUMNS, *(cell_len(line.plain) for line in lines)]),
        file=io.StringIO(),
        record=True,
        force_terminal=True,
        color_system="truecolor",
    )
    for line in lines:
        console.print(line, highlight=False, overflow="ignore", no_wrap=True)
    drawn = console.export_svg(title="", code_format=_SVG, unique_id=f"terminal-{name}")
    whole = _UNNEEDED.sub("", drawn).replace("><text", ">\n<text")
    return "".join(f"{line.strip()}\n" for line in whole.splitlines() if line.strip())


def lines_left(screen: str) -> list[str]:
    """The lines that stay when a spinner, say, has written over some of them."""
    lines, row, begins_anew = [""], 0, False
    for part in _PARTS.split(screen):
        if part == "\n":
            row, begins_anew = row + 1, False
            lines += [""] * (row == len(lines))
        elif part == "\r":
            begins_anew = True
        elif part.endswith("A") and ESCAPE.fullmatch(part):
            row = max(0, row - int(part[2:-1] or 1))
        elif part.endswith("K") and ESCAPE.fullmatch(part):
            lines[row] = ""
        elif part and (part.endswith("m") or not ESCAPE.fullmatch(part)):
            lines[row] = part if begins_anew else lines[row] + part
            begins_anew = False
    while lines and not ESCAPE.sub("", lines[-1]).strip():
        lines.pop()
    return lines


def make_pictures() -> list[Path]:
    """Follow the tutorials, and write each picture where their pages say that it is."""
    seen = {"TERM": "xterm-256color", "NO_COLOR": ""}
    made: list[Path] = []

    def look(block: Block, done: Done) -> None:
        if block.is_picture:
            path = LAST_PAGE.parent.joinpath(block.text).resolve()
            path.parent.mkdir(exist_ok=True)
            path.write_text(picture_of(done.screen, path.stem))
            made.append(path)
        else:
            check_shown(block, done)

    with (
        TemporaryDirectory() as folder,
        terminal(Path(folder), seen, shows_commands=True) as opened,
    ):
        for page in (*pages_before(LAST_PAGE), LAST_PAGE):
            follow(opened, blocks_of(page), look)
    return made


def main() -> None:
    """Make them all."""
    for path in make_pictures():
        print(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
