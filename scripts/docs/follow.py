"""Doing what a page tells its reader to do, in a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from html import unescape
from pathlib import Path

from scripts.docs.blocks import Block
from scripts.docs.terminal import ENVIRONMENT, PROMPT, Done, Terminal

STANDS_FOR: Mapping[str, str] = {
    "/mnt/backup/": "$HOME/",
    "21000000": "0",
    "CHANNEL": "$(channelpay channel list --json | sed -E 's/.*nelId[^x]*(0x[0-9a-f]+).*/\\1/')",
    "https://rpc.example/v1/KEY": "$CHANNELPAY_RPC",
    "YOUR_ADDRESS": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "python3 -m venv .venv": f"ln -s {ENVIRONMENT.parent} .venv",
}
"""What a reader has to put in, and the environment that is there already."""
_LONG_HEX = re.compile(r"0x[0-9a-fA-F]{8,}(?:…[0-9a-fA-F]+)?")
_NUMBER = re.compile(r"(?<![0-9a-zA-Z])[0-9][0-9.,]*")
_RULE = re.compile(r"[─━═]+")
_SVG_TEXT = re.compile(r"<text[^>]* y=\"([0-9.]+)\"[^>]*>([^<]*)</text>")


class NotAsThePageSays(Exception):
    """A command ended otherwise, or showed something else."""


def follow(
    opened: Terminal,
    blocks: Iterable[Block],
    check: Callable[[Block, Done], None],
    stands_for: Mapping[str, str] = STANDS_FOR,
) -> None:
    """Save the files and type the commands; ``check`` gets each block that shows something, with
    what the commands before it did.
    """
    done = Done(0, "")
    for block in blocks:
        if block.is_file:
            opened.save(str(block.title), block.text)
        elif block.is_output or block.is_picture:
            check(block, done)
        elif block.is_typed and not block.reason_not_to_run:
            done = type_block(opened, block, stands_for)


def type_block(opened: Terminal, block: Block, stands_for: Mapping[str, str]) -> Done:
    """Type the commands of a block. Raises :class:`NotAsThePageSays`."""
    typed = (opened.current_folder / block.typed_file).read_text() if block.typed_file else None
    commands = block.text
    for word, meaning in stands_for.items():
        escaped = meaning.replace("\\", r"\\")
        commands = re.sub(rf"(?<![A-Z_]){re.escape(word)}(?![A-Z_])", escaped, commands)
    done = opened.start(commands, typed) if block.stays else opened.run(commands, typed)
    if done.code != (None if block.stays else block.exit_code):
        raise NotAsThePageSays(f"{block.text}ended with {done.code}:\n{done.output}")
    return done


def check_shown(block: Block, done: Done) -> None:
    """Raises :class:`NotAsThePageSays`."""
    if not re.search(_pattern(block.text), _comparable(done.output), re.DOTALL):
        raise NotAsThePageSays(f"{block.text}\nis not what is shown:\n{done.output}")


def check_picture(path: Path, done: Done) -> None:
    """Each line of a picture is shown, with other numbers perhaps. Raises
    :class:`NotAsThePageSays`.
    """
    shown = _shape(done.output)
    for line in text_of(path.read_text()):
        if not line.startswith(PROMPT) and _shape(line) not in shown:
            raise NotAsThePageSays(f"{path.name} is old: {line}\nNow it is:\n{done.output}")


def text_of(picture: str) -> list[str]:
    """The lines that a picture shows."""
    lines: dict[float, str] = {}
    for place, text in _SVG_TEXT.findall(picture):
        lines[float(place)] = lines.get(float(place), "") + unescape(text).replace("\xa0", " ")
    return [lines[place] for place in sorted(lines)]


def _pattern(shown: str) -> str:
    parts = re.split(r" ?(?<!0x)… ?", _comparable(shown))
    return ".*?".join(map(re.escape, parts))


def _comparable(output: str) -> str:
    """Without what differs from run to run: ids, and how wide a table is for them."""
    without_ids = _LONG_HEX.sub("0x…", output)
    return " ".join(_RULE.sub("─", without_ids).split())


def _shape(output: str) -> str:
    """Without numbers, and without spaces: a picture leaves out those that nothing follows."""
    return _NUMBER.sub("0", _comparable(output)).replace(" ", "")
