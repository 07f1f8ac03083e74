"""What a corked transport writes is all that was written, in order, and in few pieces."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.payee.corked import HELD_BYTES_MAX, CorkedTransport

pytestmark = pytest.mark.anyio


class _Socket:
    """Takes what the transport writes."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.pieces.append(data)

    def close(self) -> None:
        self.closed = True


def _corked(socket: _Socket) -> CorkedTransport:
    return CorkedTransport(cast(Any, socket), asyncio.get_running_loop())


@given(turns=st.lists(st.lists(st.binary(max_size=20), max_size=4), max_size=4))
def test_each_turn_of_the_loop_is_one_piece(turns: list[list[bytes]]) -> None:
    async def write() -> _Socket:
        socket = _Socket()
        transport = _corked(socket)
        for turn in turns:
            for data in turn:
                transport.write(data)
            await asyncio.sleep(0)
        return socket

    assert asyncio.run(write()).pieces == [b"".join(turn) for turn in turns if turn]


async def test_a_large_body_is_not_held_back() -> None:
    socket = _Socket()
    transport = _corked(socket)

    transport.write(b"head")
    transport.write(bytes(HELD_BYTES_MAX))

    assert socket.pieces == [b"head" + bytes(HELD_BYTES_MAX)]


async def test_what_is_held_leaves_before_the_connection_closes() -> None:
    socket = _Socket()
    transport = _corked(socket)

    transport.write(b"the last words")
    transport.close()

    assert (socket.pieces, socket.closed) == ([b"the last words"], True)
    await asyncio.sleep(0)
    assert socket.pieces == [b"the last words"]
