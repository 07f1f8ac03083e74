"""The reference of errors as Markdown, from their tree."""

from __future__ import annotations

from collections.abc import Iterator

from channelpay.errors import ChannelPayError


def error_reference() -> str:
    """A chapter for each branch below the root: what is in it, by code."""
    return "\n".join(_chapters())


def _chapters() -> Iterator[str]:
    for branch in ChannelPayError.__subclasses__():
        yield f"## {branch.title}\n"
        yield f"Exit code {branch.exit_code}. Class `{branch.__name__}`.\n"
        yield "| code, class | status | what to do |\n|---|---:|---|"
        yield from (_row(error) for error in tree_of(branch))
        yield ""


def tree_of(error: type[ChannelPayError]) -> Iterator[type[ChannelPayError]]:
    """The class and all below it, as the tree is drawn."""
    yield error
    for child in error.__subclasses__():
        yield from tree_of(child)


def _row(error: type[ChannelPayError]) -> str:
    name = f'<span id="{error.code}">**`{error.code}`**</span><br>`{error.__name__}`'
    hint = error.hint.replace("|", r"\|").replace("<", "&lt;")
    return f"| {name} | {error.status} | **{error.title}.** {hint} |"
