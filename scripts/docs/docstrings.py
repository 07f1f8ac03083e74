"""Docstrings as Markdown: the cross-references of reStructuredText become links of the site."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, NameResolutionError, Object

_ROLE = re.compile(r":[a-z]+:`~?\.?([\w.]+)(?:\(\))?`")
_LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


class Docstrings(Extension):  # type: ignore[misc]  # it is not where types are checked
    """Rewrites each docstring once, when its object has been read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Links for ``:class:`` and its likes; code blocks are indented already."""
        if obj.docstring is not None:
            linked = _ROLE.sub(lambda match: _link(obj, match[1]), obj.docstring.value)
            obj.docstring.value = _LITERAL_BLOCK.sub(":", linked)


def _link(scope: Object, name: str) -> str:
    """Plain code, if the site has no page for it."""
    try:
        target = scope.resolve(name)
    except NameResolutionError:
        target = name
    return (
        f'<autoref optional identifier="{target}"><code>{name.rpartition(".")[2]}</code></autoref>'
    )
