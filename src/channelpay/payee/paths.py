"""All that an application may take a path for; :mod:`channelpay.payee.prices` says what follows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

PATH_CHARACTERS_MAX = 4096
"""A longer path is not matched."""
_SLASHES = re.compile("/+")
_DOT_ENDS = ("/.", "/..")
_NAME_ENDS = re.compile(r"(?<=[^/. ])[. ]+(?=/|\Z)")


def alike(path: str) -> str:
    """The same for all paths that some server or file system takes for one: other capitals, other
    forms of a letter, invisible characters, dots and spaces at the end of a name.
    """
    if path.isascii():
        plain = path.lower()
    else:
        folded = unicodedata.normalize("NFKC", path).casefold()
        composed = unicodedata.normalize("NFKC", folded)
        plain = "".join(one for one in composed if unicodedata.category(one) != "Cf")
    return _NAME_ENDS.sub("", plain)


def readings(path: str) -> Iterable[str]:
    """All that an application may take a path for: as it is, with ``//`` as ``/``, with dot
    segments resolved, with both in either order; and what stands behind ``//`` for a host.
    """
    if path.startswith("/") and "//" not in path and "/." not in path:
        return [path]
    found = _readings(path)
    if path.startswith("//"):
        found |= _readings("/" + path[2:].partition("/")[2])
    return found


def _readings(path: str) -> dict[str, None]:
    merged, resolved = _merged(path), _resolved(path)
    found = [path, merged, resolved, _merged(resolved), _resolved(merged)]
    # File systems have no / at the end of what is resolved.
    found += [one.rstrip("/") or "/" for one in found]
    return dict.fromkeys(found)


def _merged(path: str) -> str:
    return _SLASHES.sub("/", "/" + path)


def _resolved(path: str) -> str:
    """RFC 3986, 5.2.4: what ends in a dot segment then ends in ``/``."""
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if path.endswith(_DOT_ENDS):
        kept.append("")
    return "/" + "/".join(kept)
