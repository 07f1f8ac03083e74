"""Several nodes of one chain as a provider of web3: the first one that is fit answers.

A node is fit if it serves the right chain, is not behind the others, and does not have to be left
alone after a failure. Every few seconds, when something is asked, all are compared with each other:
what they serve, how far they are, and the hash of a block that both of two have. If they contradict
each other there, nothing is believed until they agree again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar, cast

from web3.providers.base import JSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse

from channelpay.chain.endpoint import (
    Answer,
    Endpoint,
    Failed,
    Head,
    block_in,
    is_about_the_request,
    number_in,
)
from channelpay.errors import NetworkError, NodesDisagree, WrongChain

ANSWER_SECONDS = 15.0
SURVEY_SECONDS = 10.0
"""Between two comparisons of the nodes."""
SURVEY_ANSWER_SECONDS = 4.0
"""A node that takes longer to say where it is counts as failed."""
DOUBT_SECONDS = 1.0
"""Between two comparisons of nodes that contradict each other."""
LAG_BLOCKS_MAX = 5
"""A node so far behind the best is still used. Blocks deeper than that have to be the same at all:
above, two honest nodes may differ for a moment.
"""
LAG_SECONDS_MAX = 60
LIMIT_PATIENCE_SECONDS = 2.0
"""For so long a request waits for nodes that all want to be left alone."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Shown:
    """The last block that was handed out, by which node and when."""

    endpoint: Endpoint
    number: int
    time: float


@dataclass(frozen=True, slots=True)
class _Disagreement:
    """Two nodes, and the block they contradict each other about."""

    endpoints: frozenset[Endpoint]
    number: int

    def as_error(self) -> NodesDisagree:
        names = " and ".join(sorted(one.name for one in self.endpoints))
        return NodesDisagree(f"{names} say different hashes of block {self.number}")


class Endpoints(JSONBaseProvider):
    """The nodes at ``urls``, best first. ``clock`` gives seconds.

    Raises :class:`ConfigError` for what is not a URL.
    """

    def __init__(
        self,
        urls: Sequence[str],
        expected_chain_id: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._endpoints = [Endpoint(number, url, clock) for number, url in enumerate(urls, 1)]
        self._expected = expected_chain_id
        self._clock = clock
        self._survey_lock = Lock()
        self._survey_at: float | None = None
        self._disagreement: _Disagreement | None = None
        self._shown: _Shown | None = None

    def chain_id(self) -> int:
        """The chain that all are held to: the expected one, else that of the first that answers.

        Raises :class:`NetworkError` if none answers, :class:`WrongChain` if none serves it.
        """
        self._survey_if_due()
        for endpoint in self._endpoints:
            if endpoint.chain_id is not None and endpoint.chain_id == self._expected:
                return endpoint.chain_id
        raise self._nobody()

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Raises :class:`NetworkError` if no node answers, and :class:`NodesDisagree`."""
        body = self.encode_rpc_request(method, params)
        self._survey_if_due()
        if method == "eth_sendRawTransaction":
            return cast(RPCResponse, self._told_to_all(body))
        if self._disagreement is not None:
            raise self._disagreement.as_error()
        endpoint, answer = self._asked_in_turn(body)
        if method == "eth_getBlockByNumber" and params[0] == "latest":
            self._remember_shown(endpoint, answer)
        return cast(RPCResponse, answer)

    # --- asking ------------------------------------------------------------------------------

    def _asked_in_turn(self, body: bytes) -> tuple[Endpoint, Answer]:
        """The answer of the first node that is fit. An error that may be the node's own is the
        answer only if nobody has a better one.
        """
        refused: tuple[Endpoint, Answer] | None = None
        for endpoint in self._to_ask():
            try:
                self._require_fit(endpoint)
                answer = endpoint.ask(body, ANSWER_SECONDS)
            except Failed as failure:
                endpoint.note(str(failure))
                continue
            if is_about_the_request(answer):
                endpoint.note(None)
                return endpoint, answer
            refused = refused or (endpoint, answer)
        if refused is None:
            raise self._nobody()
        return refused

    def _told_to_all(self, body: bytes) -> Answer:
        """What a node says that takes it, else what the first one says that refuses it."""

        def told(endpoint: Endpoint) -> Answer | None:
            try:
                self._require_chain(endpoint)
                return endpoint.ask(body, ANSWER_SECONDS)
            except Failed as failure:
                endpoint.note(str(failure))
                return None

        answers = [one for one in _beside_each_other(told, self._to_ask()) if one is not None]
        if not answers:
            raise self._nobody()
        return min(answers, key=lambda answer: "error" in answer)

    def _to_ask(self) -> list[Endpoint]:
        """Those that need not be left alone; if all do, the one that is back first."""
        ready = [one for one in self._endpoints if not one.is_paused]
        if ready:
            return ready
        first = min(self._endpoints, key=lambda one: (one.is_limited, one.paused_until))
        seconds = first.paused_until - self._clock()
        if first.is_limited and seconds > LIMIT_PATIENCE_SECONDS:
            return []
        if first.is_limited:
            time.sleep(max(0.0, seconds))
        return [first]

    def _require_fit(self, endpoint: Endpoint) -> None:
        """Raise :class:`Failed` for a node whose answers would be wrong or old."""
        self._require_chain(endpoint)
        if endpoint.is_behind:
            raise Failed("is behind the others")
        if self._is_behind_shown(endpoint):
            self._examine(endpoint)
            if self._is_behind_shown(endpoint):
                raise Failed("is behind what another node has shown")

    def _require_chain(self, endpoint: Endpoint) -> None:
        if endpoint.chain_id is None:
            self._examine(endpoint)
        if endpoint.chain_id != self._expected:
            raise Failed(f"serves chain {endpoint.chain_id}, not chain {self._expected}")

    def _is_behind_shown(self, endpoint: Endpoint) -> bool:
        """Whether the last block that was handed out may be unknown to it: going back there would
        look like a reorganisation. After a while the chain itself must have gone back.
        """
        shown = self._shown
        if shown is None or shown.endpoint is endpoint:
            return False
        if self._clock() - shown.time > LAG_SECONDS_MAX:
            return False
        return endpoint.head is None or endpoint.head.number < shown.number

    def _remember_shown(self, endpoint: Endpoint, answer: Answer) -> None:
        with suppress(Failed):
            endpoint.head, _ = block_in(answer)
            self._shown = _Shown(endpoint, endpoint.head.number, self._clock())

    def _nobody(self) -> NetworkError:
        """Why there is no answer."""
        why = "; ".join(f"{one.name} {one.trouble}" for one in self._endpoints)
        if all(one.chain_id not in {None, self._expected} for one in self._endpoints):
            return WrongChain(why)
        if all(one.is_paused and one.is_limited for one in self._endpoints):
            return NetworkError(
                why,
                hint="Try again in a minute; more nodes, or a plan with more requests, help.",
            )
        return NetworkError(why)

    # --- comparing ---------------------------------------------------------------------------

    def _survey_if_due(self) -> None:
        """One thread compares; the others go on with what is known, once something is."""
        due_at = self._survey_at
        if due_at is not None and self._clock() < due_at:
            return
        if not self._survey_lock.acquire(blocking=due_at is None):
            return
        try:
            if self._survey_at == due_at:
                self._survey()
        finally:
            self._survey_lock.release()

    def _survey(self) -> None:
        asked = self._to_ask()
        _beside_each_other(self._examined, asked)
        if self._expected is None:
            known = (one.chain_id for one in asked if one.chain_id is not None)
            self._expected = next(known, None)
        present = [one for one in asked if self._is_present(one)]
        if len(self._endpoints) > 1:
            self._compare(present)
        if self._expected is not None:
            in_doubt = self._disagreement is not None
            self._survey_at = self._clock() + (DOUBT_SECONDS if in_doubt else SURVEY_SECONDS)

    def _examined(self, endpoint: Endpoint) -> None:
        try:
            self._examine(endpoint)
        except Failed as failure:
            endpoint.chain_id = None
            endpoint.note(str(failure))

    def _examine(self, endpoint: Endpoint) -> None:
        """Ask what it serves and, if there are others to compare with, how far it is."""
        endpoint.chain_id = number_in(self._said(endpoint, "eth_chainId"))
        if len(self._endpoints) > 1:
            endpoint.head, _ = block_in(self._said(endpoint, *_block_request("latest")))

    def _is_present(self, endpoint: Endpoint) -> bool:
        try:
            self._require_chain(endpoint)
        except Failed as failure:
            endpoint.note(str(failure))
            return False
        return True

    def _compare(self, present: Sequence[Endpoint]) -> None:
        heads = {one: one.head for one in present if one.head is not None}
        if not heads:
            return
        best = max(heads, key=lambda one: heads[one].number)
        for endpoint, head in heads.items():
            endpoint.is_behind = _is_behind(head, heads[best])
        compared = {best}
        for endpoint in heads.keys() - {best}:
            number = max(0, heads[endpoint].number - LAG_BLOCKS_MAX)
            hashes = {self._hash(one, number) for one in (endpoint, best)}
            if len(hashes) > 1 and None not in hashes:
                self._disagreement = _Disagreement(frozenset({endpoint, best}), number)
                return
            if None not in hashes:
                compared.add(endpoint)
        # A node that cannot be asked does not agree.
        if self._disagreement is not None and self._disagreement.endpoints <= compared:
            self._disagreement = None

    def _hash(self, endpoint: Endpoint, number: int) -> bytes | None:
        try:
            return block_in(self._said(endpoint, *_block_request(hex(number))))[1]
        except Failed as failure:
            endpoint.note(str(failure))
            return None

    def _said(self, endpoint: Endpoint, method: str, *params: Any) -> Answer:
        body = self.encode_rpc_request(RPCEndpoint(method), params)
        return endpoint.ask(body, SURVEY_ANSWER_SECONDS)


def _block_request(block: str) -> tuple[str, str, bool]:
    return "eth_getBlockByNumber", block, False


def _is_behind(head: Head, best: Head) -> bool:
    lag_seconds = best.timestamp - head.timestamp
    return best.number - head.number > LAG_BLOCKS_MAX or lag_seconds > LAG_SECONDS_MAX


def _beside_each_other(work: Callable[[Endpoint], T], endpoints: Sequence[Endpoint]) -> list[T]:
    """``work`` for all of them at the same time; a slow one keeps none of the others waiting."""
    if len(endpoints) < 2:
        return [work(one) for one in endpoints]
    with ThreadPoolExecutor(len(endpoints)) as pool:
        return list(pool.map(work, endpoints))
