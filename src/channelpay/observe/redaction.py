"""Text without what others must not read: the last thing that happens to a log line.

Secrets are known by their shape, wherever they stand, so that no caller has to think of them:

- credentials: ``Payment …``, ``Bearer …``, ``Basic …``, base64url JSON; all that follows
  ``Authorization:`` or ``Cookie:``, as text or as Python writes headers;
- the codes of coupons, and the tokens of passes;
- signatures, keys and other opaque runs: 48 hex digits, 43 letters and digits or 16 numbers of a
  list, and more; bytes that are written as escapes. A 32-byte key looks like a 32-byte id, so
  ``0x`` and 64 digits keep their first eight: they name a channel and tell nothing of a key;
- passwords: all that follows ``password=`` and its likes; in URLs the user, the password, the
  query and every long part of the path, where providers of nodes have their keys.

Where it cannot tell where a secret ends, all the rest goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable

REDACTED = "[redacted]"
TEXT_CHARS_MAX = 16_384
"""A longer text loses its end, back to the last word that is whole."""
URL_PART_CHARS_MAX = 19
ESCAPES_MAX = 8
ID_PREFIX_CHARS = 10
_ID = re.compile(r"0x[0-9a-fA-F]{64}\Z")
_BYTES = re.compile(r"b'(?:[^'\\]|\\.)*'|b\"(?:[^\"\\]|\\.)*\"")
_QUERY = re.compile(r"[?#]")

_Replacement = str | Callable[[re.Match[str]], str]


def redacted(text: str) -> str:
    """``text`` on one line: without secrets, and with escapes for what cannot be printed."""
    if len(text) > TEXT_CHARS_MAX:
        text = text[:TEXT_CHARS_MAX].rpartition(" ")[0] + " [cut]"
    # Escapes first: a control character in the middle must not hide the shape of a secret.
    text = _without_bytes(_escaped(text))
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _url(match: re.Match[str]) -> str:
    """What follows ``://``. Passwords may hold an @ of their own: all before the last one goes."""
    user, _, rest = match[0].rpartition("@")
    cut = _QUERY.split(rest, maxsplit=1)
    host, *parts = cut[0].split("/")
    path = [REDACTED if len(part) > URL_PART_CHARS_MAX else part for part in parts]
    shown = "/".join([host, *path])
    return (REDACTED + "@" if user else "") + shown + ("?" + REDACTED if len(cut) > 1 else "")


def _without_bytes(text: str) -> str:
    """Before all else, since what is random may hold the beginning of anything."""
    text = _BYTES.sub(lambda match: REDACTED if match[0].count(r"\x") > 3 else match[0], text)
    if text.count(r"\x") < ESCAPES_MAX:
        return text
    # Quoted twice: where it ends is hard to tell.
    return text[: text.index(r"\x")] + REDACTED


def _hex_run(match: re.Match[str]) -> str:
    run = match[0]
    return f"{run[:ID_PREFIX_CHARS]}…" if _ID.match(run) else REDACTED


_RULES: tuple[tuple[re.Pattern[str], _Replacement], ...] = (
    (re.compile(r"(?<=://)\S+"), _url),
    (re.compile(r"([?&][\w.\[\]%-]+=)[^&\s]+"), rf"\1{REDACTED}"),
    (
        re.compile(
            r"""(?ix) (
                (?: authorization | cookie | mnemonic | seed (?:.phrase)? | secret | pwd
                  | pass (?: word | wd | phrase | code )? | (?: private | secret | api ) .? key
                  | (?: access | auth ) .? token )
                (?: \\* ["'] \s* [:=,] | \s* [:=] )
            ) .*"""
        ),
        rf"\1 {REDACTED}",
    ),
    (re.compile(r"(?i)\b(payment)\s+[\w~+/=-]{16,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {REDACTED}"),
    (re.compile(r"eyJ[A-Za-z0-9_-]{16,}"), REDACTED),
    (re.compile(r"(?:[0-9A-HJKMNP-TV-Z]{5}-){3}[0-9A-HJKMNP-TV-Z]{5}"), REDACTED),
    (re.compile(r"(?:[0-9]{1,3}, ?){15,}[0-9]{1,3}"), REDACTED),
    (re.compile(r"(?:0x)?[0-9a-fA-F]{48,}"), _hex_run),
    (re.compile(r"[A-Za-z0-9_+=-]{43,}"), REDACTED),
)
