"""Whether a request's path means one thing only.

Prices go by the decoded path, an upstream by the path as it was sent. Servers differ in what else
they see in a path: dot segments, empty segments, backslashes, parameters after ``;``, a second
layer of escapes. Whoever finds a spelling that is free here and a paid page there reads for
nothing. So only what every server reads alike is let through, and the rest is refused.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from channelpay.errors import UnclearRequest

_VISIBLE = re.compile(rb"[!-~]*\Z")
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
# A percent sign would be an escape to whoever decodes twice; what follows ; ? or # may be cut off.
_UNCLEAR_CHARACTERS = frozenset("\\;?#%")
_SEPARATORS = re.compile(r"[/\\]")


def plain_path(raw_path: bytes) -> str:
    r"""The percent-decoded path of a request target without its query.

    Raises :class:`~channelpay.errors.UnclearRequest` unless it begins with ``/``, its escapes are
    whole and of valid UTF-8, and the decoded path has no ``\ ; ? # %``, no control character, no
    ``/`` that was escaped, no empty segment but the last, and no segment of dots; nor of what
    becomes dots in Unicode's compatible form (NFKC).
    """
    if not raw_path.startswith(b"/"):
        raise UnclearRequest("the request target must begin with /")
    if not _VISIBLE.match(raw_path) or _BROKEN_ESCAPE.search(raw_path):
        raise UnclearRequest("the path is not percent-encoded as a URL's must be")
    if _ENCODED_SLASH.search(raw_path):
        raise UnclearRequest("the path has an encoded slash")
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise UnclearRequest("the path is not UTF-8") from None
    _check_characters(path)
    _check_segments(path)
    return path


def _check_characters(path: str) -> None:
    for character in path:
        if character in _UNCLEAR_CHARACTERS:
            raise UnclearRequest(f"the path has a {character!r}")
        if unicodedata.category(character) == "Cc":
            raise UnclearRequest("the path has a control character")


def _check_segments(path: str) -> None:
    if "//" in path:
        raise UnclearRequest("the path has an empty segment")
    for segment in _SEPARATORS.split(_visible_form(path)):
        # Windows drops dots and spaces from the end of a name.
        if segment and not segment.strip(". "):
            raise UnclearRequest("the path has a segment of dots")


def _visible_form(path: str) -> str:
    """Without what some file systems take for nothing, such as zero-width spaces."""
    if path.isascii():
        return path
    plain = unicodedata.normalize("NFKC", path)
    return "".join(character for character in plain if unicodedata.category(character) != "Cf")
