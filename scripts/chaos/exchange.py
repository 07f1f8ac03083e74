"""HTTP/1.1 by hand, so that it is certain which answers came whole and which did not."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from channelpay.payee.server import HEADER_BYTES_MAX

ANSWER_SECONDS = 60.0
"""An answer that takes longer counts as one that never comes."""


class NoAnswer(Exception):
    """The connection ended before the answer was whole."""


class Answer(NamedTuple):
    """A whole answer. Names of headers are in lower case; of several with one name the last."""

    status: int
    headers: dict[str, str]
    body: bytes


class Line:
    """One connection at a time to a port of this machine, made anew after it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes) -> Answer:
        """Send and wait for the whole answer. Raises :class:`NoAnswer`, and :class:`TimeoutError`
        after ANSWER_SECONDS.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await self._connected()
                writer.write(request)
                answer = await _read(reader)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            raise NoAnswer from error
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(
                "127.0.0.1", self._port, limit=HEADER_BYTES_MAX
            )
        return self._streams


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Answer(int(first.split()[1]), headers, await _body(reader, headers))


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readexactly(2)
    return body
