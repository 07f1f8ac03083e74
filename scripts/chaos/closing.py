"""The end of every channel: half of them close at their payer's word, half are closed by the site
because their payer requested it on chain, while the site is killed again and again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from channelpay.protocol.types import ChannelState, ChannelStatus
from channelpay.protocol.wire import ClosePayload, Credential, parse_challenges
from scripts.chaos.books import Books, read_books
from scripts.chaos.crowd import Crowd, Purse, head
from scripts.chaos.exchange import Line, NoAnswer
from scripts.chaos.world import Chain

CLOSE_SECONDS = 180.0
POLL_SECONDS = 0.2
AT_ONCE = 4
"""Closes that are asked for at the same time."""


class Closing:
    """Closes the channels of a crowd that has gone home; ``books`` is what they were then."""

    def __init__(self, chain: Chain, crowd: Crowd, books: Books) -> None:
        self._chain = chain
        self._port = crowd.port
        self._books = books
        self._by_credential = crowd.purses[::2]
        self._by_request = crowd.purses[1::2]
        self._asking = asyncio.Semaphore(AT_ONCE)
        self.settled = 0

    async def close(self) -> None:
        """Returns when the contract says of every channel that it is finalized. Raises
        :class:`TimeoutError`.
        """
        async with asyncio.timeout(CLOSE_SECONDS):
            await asyncio.gather(
                asyncio.to_thread(self._request_closes),
                *(self._close_by_credential(purse) for purse in self._by_credential),
            )
            await _until(self._are_finalized)

    async def differences(self, url: str) -> list[str]:
        """What the contract paid out beside the books' rules, and where the books at ``url`` do not
        come to say what the contract does.
        """
        states = await self._states()
        self.settled = sum(state.settled for state in states)
        deadline = time.monotonic() + CLOSE_SECONDS
        while found := self._unlike(read_books(url), states):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_SECONDS)
        return [*found, *self._unpaid(states)]

    def _unpaid(self, states: list[ChannelState]) -> list[str]:
        """A payer's own last voucher is for what was spent; without one the best voucher counts."""
        rows = self._books.channels
        due = [rows[purse.channel_id].spent for purse in self._by_credential]
        due += [rows[purse.channel_id].accepted for purse in self._by_request]
        return [
            f"channel {purse.channel_id.hex()[:8]}: {state.settled} settled, {amount} due"
            for purse, state, amount in zip(self._purses, states, due, strict=True)
            if state.settled != amount
        ]

    def _unlike(self, books: Books, states: list[ChannelState]) -> list[str]:
        return [
            f"channel {purse.channel_id.hex()[:8]}: the books say {row}, the contract {state}"
            for purse, state in zip(self._purses, states, strict=True)
            if (row := books.channels[purse.channel_id]).status != state.status.value
            or row.settled != state.settled
        ]

    @property
    def _purses(self) -> list[Purse]:
        return self._by_credential + self._by_request

    async def _states(self) -> list[ChannelState]:
        return await asyncio.to_thread(self._chain.states, self._purses)

    async def _are_finalized(self) -> bool:
        return all(one.status is ChannelStatus.FINALIZED for one in await self._states())

    def _request_closes(self) -> None:
        for purse in self._by_request:
            self._chain.request_close(purse)

    async def _close_by_credential(self, purse: Purse) -> None:
        """Ask until the site says that it is done, whatever became of it meanwhile."""
        line = Line(self._port)
        try:
            async with self._asking:
                await _until(partial(self._has_closed, purse, line))
        finally:
            line.close()

    async def _has_closed(self, purse: Purse, line: Line) -> bool:
        try:
            asked = await line.exchange(head("GET", "/page"))
            (challenge,) = parse_challenges([asked.headers["www-authenticate"]])
            voucher = purse.voucher(self._books.channels[purse.channel_id].spent)
            credential = Credential(challenge, ClosePayload(voucher), purse.source).to_header()
            answer = await line.exchange(head("GET", "/page", Authorization=credential))
        except NoAnswer:
            return False
        return answer.status == 200 or b'"channel-finalized"' in answer.body


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Neither the chain nor the site tells when it is: ask again and again."""
    while True:
        if await is_so():
            return
        await asyncio.sleep(POLL_SECONDS)
