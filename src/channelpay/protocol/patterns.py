"""The patterns of paths: ``*`` for what is between slashes, ``**`` for anything, ``?`` for a letter
that is no slash.
"""

from __future__ import annotations

import re

_PIECES = re.compile(r"\*\*|.", re.DOTALL)


class Pattern:
    """A path pattern, matched in one pass over the path: the other side chooses one of both, and a
    regular expression with several wildcards would try again from every place in the path.
    """

    def __init__(self, text: str) -> None:
        # Bit n of a set stands for: the first n letters of the pattern are matched.
        self._letters: dict[str, int] = {}
        self._any_letter = self._stays = self._stays_across = 0
        self._end = 1
        for piece in _PIECES.findall(text):
            if piece in ("*", "**"):
                self._stays |= self._end
                self._stays_across |= self._end if piece == "**" else 0
                continue
            if piece == "?":
                self._any_letter |= self._end
            else:
                self._letters[piece] = self._letters.get(piece, 0) | self._end
            self._end <<= 1

    def matches(self, path: str) -> bool:
        matched = 1
        for letter in path:
            inside = letter != "/"
            steps = self._letters.get(letter, 0) | (self._any_letter if inside else 0)
            stays = self._stays if inside else self._stays_across
            matched = (matched & steps) << 1 | matched & stays
            if not matched:
                return False
        return bool(matched & self._end)
