"""Headers that are almost right: what becomes of valid ones when bits, members and encodings go
wrong. Everything is drawn from the generator that is handed in.

``python -m tests.support.mutation SEED COUNT HEADER …`` prints so many of them, one on a line.
"""

from __future__ import annotations

import base64
import json
import random
import re
import string
import sys
from collections.abc import Callable, Sequence
from typing import Any

SCHEME = "Payment "
Rng = random.Random
"""Not for secrets: for the same headers from the same seed."""
TextMutation = Callable[[str, Rng], str]

_ALPHABET = string.ascii_letters + string.digits + "-_"
_OTHERS = re.compile("[^A-Za-z0-9_-]")
_CHARACTERS = "\x00\t\n\r \"',;=+/-_.0123AZaz{}[]~\x7f\x80\xa0\xdf\xff"
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, 1e308, 2**53, 2**64, 2**128, 10**400, "", " ", "\0"),
    *("0", "1", "-1", "+1", "01", "1.0", "1e5", "1_000", "\u0663", "\uff11", "NaN"),
    *("0x", "0x0", "0X01", "0x" + "0" * 40, "0x" + "0" * 64, "0x" + "F" * 64, "0x" + "f" * 130),
    *(str(2**128 - 1), str(2**128), "9" * 39, "9" * 5000),
    *("voucher", "close", "open", "topUp", "hash", "transaction", "evm", "session", "charge"),
    *("2026-01-31T12:00:00Z", "9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z"),
    *("did:pkh:eip155:1:0x" + "0" * 40, "did:pkh:eip155:0:0x0"),
    *("\u00c4\u00d6", "\ud800", "\U0001f600", "\u202e"),
    *([], {}, [[]], [{}], {"": ""}, ["0"] * 300, {"a": {"b": {"c": []}}}),
)


def mutated(corpus: Sequence[str], rng: Rng) -> str:
    """One of the corpus's headers after one to three mutations; characters up to U+00FF only, as a
    header has them.
    """
    header = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        header = rng.choice(_MUTATIONS)(header, rng)
    return header.encode("latin-1", "replace").decode("latin-1")


def _flip(text: str, rng: Rng) -> str:
    """One bit of one character."""
    if not text:
        return text
    place = rng.randrange(len(text))
    return text[:place] + chr((ord(text[place]) ^ 1 << rng.randrange(8)) & 0xFF) + text[place + 1 :]


def _truncate(text: str, rng: Rng) -> str:
    """Without its beginning, its end, or something in between."""
    begin, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
    return rng.choice((text[begin:], text[:end], text[:begin] + text[end:]))


def _repeat(text: str, rng: Rng) -> str:
    """A piece of it once more."""
    begin, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
    return text[:end] + text[begin:end] * rng.choice((1, 1, 2, 30)) + text[end:]


def _insert(text: str, rng: Rng) -> str:
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice(_CHARACTERS) * rng.choice((1, 1, 3, 9000)) + text[place:]


def _frame(text: str, rng: Rng) -> str:
    """Another scheme, other white space, other padding."""
    scheme, _, token = text.partition(" ")
    scheme = rng.choice((scheme, scheme.upper(), scheme.lower(), "Basic", "Bearer", "", "Payment,"))
    space = rng.choice((" ", "  ", "\t", "", " \x0b", "\xa0"))
    token += rng.choice(("", "=", "==", "====", " ", ", " + text, " realm=x", "\x00"))
    return scheme + space + token


def _alphabet(text: str, rng: Rng) -> str:
    """The other alphabet of base64, or another last character: it has bits that say nothing."""
    if rng.random() < 0.5:
        return text.replace("-", "+").replace("_", "/")
    return text[:-1] + rng.choice(_ALPHABET)


def _member(text: str, rng: Rng) -> str:
    """One member of the JSON is another."""
    return _in_json(text, rng, _change_member)


def _nesting(text: str, rng: Rng) -> str:
    """JSON that goes deep, or is no object."""
    depth = rng.choice((2, 200, 2500))
    members = _decoded(text)
    deep = rng.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth))
    plain = rng.choice(("[]", '"text"', "1", "null", "", "{}", deep))
    if isinstance(members, dict) and rng.random() < 0.5:
        plain = json.dumps(members)[:-1] + f',"more":{deep}}}'
    return _encoded(plain.encode(), rng)


def _json_text(text: str, rng: Rng) -> str:
    """The same mutations as in the header, in the JSON text."""
    data = _bytes(text).decode("latin-1")
    changed = rng.choice((_flip, _truncate, _repeat, _insert))(data, rng)
    return _encoded(changed.encode("latin-1", "replace"), rng)


def _digit(text: str, rng: Rng) -> str:
    """One hex digit of one value."""

    def change(members: dict[str, Any], rng: Rng) -> None:
        place = [name for name, value in members.items() if isinstance(value, str) and value]
        if place:
            name = rng.choice(place)
            at = rng.randrange(len(members[name]))
            old = members[name]
            members[name] = old[:at] + rng.choice("0123456789abcdefABCDEF") + old[at + 1 :]

    return _in_json(text, rng, change)


def _in_json(text: str, rng: Rng, change: Callable[[dict[str, Any], Rng], None]) -> str:
    """Change one object of the JSON in place, and write it in one of the forms there are."""
    members = _decoded(text)
    if not isinstance(members, dict):
        return _flip(text, rng)
    inner = [value for value in members.values() if isinstance(value, dict)]
    change(rng.choice([members, *inner, *inner, *inner]), rng)
    written = json.dumps(
        members,
        ensure_ascii=rng.random() < 0.5,
        sort_keys=rng.random() < 0.7,
        separators=rng.choice(((",", ":"), (", ", ": "), (" ,\n", "\t:"))),
    )
    if rng.random() < 0.05:
        written = written[:-1] + "," + written[1:]
    codec = rng.choice(("utf-8",) * 8 + ("utf-8-sig", "utf-16", "utf-32"))
    return _encoded(written.encode(codec, "surrogatepass"), rng)


def _change_member(members: dict[str, Any], rng: Rng) -> None:
    names = list(members)
    name = rng.choice(names) if names else "action"
    kind = rng.randrange(6)
    if kind == 0:
        members.pop(name, None)
    elif kind == 1:
        members[rng.choice((name.upper(), name + " ", "deposit", "", "\u0130", "type"))] = "1"
    elif kind == 2 and isinstance(members.get(name), str):
        old = members[name]
        members[name] = rng.choice((old.upper(), old + "\n", " " + old, old * 100, old[1:]))
    elif kind == 3 and names:
        members[name] = members[rng.choice(names)]
    else:
        members[name] = rng.choice(_VALUES)


def _bytes(text: str) -> bytes:
    """What the token stands for, as far as it can be read."""
    token = _OTHERS.sub("", text.partition(" ")[2])
    return base64.urlsafe_b64decode(token[: len(token) - (len(token) % 4 == 1)] + "==")


def _decoded(text: str) -> Any:
    try:
        return json.loads(_bytes(text))
    except (ValueError, RecursionError):
        return None


def _encoded(data: bytes, rng: Rng) -> str:
    token = base64.urlsafe_b64encode(data).decode()
    return SCHEME + (token if rng.random() < 0.05 else token.rstrip("="))


_MUTATIONS: tuple[TextMutation, ...] = (
    *(_member, _member, _member, _member, _digit, _digit, _json_text, _json_text),
    *(_flip, _truncate, _repeat, _insert, _frame, _alphabet, _nesting),
)


def main() -> None:
    """Print mutated headers, escaped where they would not be one line."""
    seed, count, *corpus = sys.argv[1:]
    rng = Rng(seed)
    for _ in range(int(count)):
        sys.stdout.write(mutated(corpus, rng).encode("unicode_escape").decode() + "\n")


if __name__ == "__main__":
    main()
