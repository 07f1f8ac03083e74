"""An HTTP request as prices and payments see it, whatever server it came through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` is percent-decoded; ``raw_path``, ``query`` and ``headers`` are raw, as ASGI gives
    them.
    """

    method: str
    path: str
    query: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    scheme: str = "http"
    raw_path: bytes = b""

    @property
    def target(self) -> str:
        """The path and the query as the client sent them."""
        path = self.raw_path or self.path.encode()
        return (path + (b"?" + self.query if self.query else b"")).decode("latin-1")

    def header_values(self, name: str) -> list[str]:
        """Every value of a header, in order; ``name`` in any case."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def query_values(self, name: str) -> list[str]:
        """Every value of a query parameter, in order, percent-decoded.

        A client may send one twice, and an application may read the first or the last of them.
        """
        text = self.query.decode("latin-1")
        return parse_qs(text, keep_blank_values=True, errors="replace").get(name, [])
