"""The reference of the command line as Markdown, from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

_SPECIAL = re.compile(r"([\\`*_\[\]<>|])")
_EXAMPLE = "Example: "


def command_reference(root: click.Command, name: str) -> str:
    """Every command below ``root``, which the shell knows as ``name``: what ``--help`` prints."""
    return "\n".join(_chapters(click.Context(root, info_name=name), 2))


def _chapters(parent: click.Context, level: int) -> Iterator[str]:
    group = parent.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=parent)
        yield from _chapter(context, level)
        yield from _chapters(context, level + 1)


def _chapter(context: click.Context, level: int) -> Iterator[str]:
    command = context.command
    path = context.command_path
    yield f"{'#' * level} {path.partition(' ')[2]}\n"
    yield f"```\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield from (f"{_text(paragraph)}\n" for paragraph in _paragraphs(command.help or ""))
    yield from _options(context)
    if command.epilog:
        yield f"```sh\n{command.epilog.removeprefix(_EXAMPLE)}\n```\n"


def _options(context: click.Context) -> Iterator[str]:
    """A table of all options but ``--help``, which every command has."""
    parameters = [p for p in context.command.params if isinstance(p, click.Option) and not p.hidden]
    records = [record for p in parameters if (record := _record(p, context))]
    if records:
        yield "| option | what it is |\n|---|---|"
        yield from (f"| `{option}` | {text} |" for option, text in records)
        yield ""


def _record(option: click.Option, context: click.Context) -> tuple[str, str] | None:
    record = option.get_help_record(context)
    if record is None:
        return None
    written, text = record
    variable = option.envvar
    if isinstance(variable, str) and variable not in text:
        text = f"{text}  [env var: {variable}]"
    return written.replace("|", r"\|"), _text(text)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]


def _text(text: str) -> str:
    """Words for people as Markdown that shows them as they are."""
    return _SPECIAL.sub(r"\\\1", text)
