"""What goes wrong in a soak, in which order and for how long: drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.support.rpc_faults import (
    MALFORMED,
    NODE_ERROR,
    RATE_LIMITED,
    AnswerLost,
    Contradicting,
    Down,
    Every,
    Fault,
    Malformed,
    OtherChain,
    Refusing,
    Resetting,
    Slow,
    StaleHead,
    TooManyRequests,
    TransactionsDropped,
    Unavailable,
)

JUMPS_SECONDS_MAX = 16 * 3600
"""All jumps of the clock together: a close that is requested has to be answered inside the grace
period of a day, whatever else goes wrong.
"""
JUMP_SECONDS_MAX = 2 * 3600
CONTRADICTED_BLOCKS = 30
"""How deep a node that contradicts the others does so."""
SEND = frozenset({"eth_sendRawTransaction"})
READ = frozenset({"eth_call", "eth_getLogs", "eth_getBlockByNumber"})


class Trouble(StrEnum):
    """A kind of event."""

    ONE_NODE = "one of the payee's nodes"
    BOTH_NODES = "both nodes of the payee"
    PAYERS_NODE = "the payers' node"
    REORG = "reorganisation"
    BASE_FEE = "base fee times ten"
    TIME = "time jumps"
    WORKER = "worker killed"
    SITE = "site killed"
    DAEMON = "daemon killed"
    PAYER = "payer killed"


_NODES = {Trouble.ONE_NODE, Trouble.BOTH_NODES, Trouble.PAYERS_NODE}
_WEIGHTS = {
    Trouble.ONE_NODE: 6,
    Trouble.BOTH_NODES: 3,
    Trouble.PAYERS_NODE: 3,
    Trouble.REORG: 5,
    Trouble.BASE_FEE: 3,
    Trouble.TIME: 2,
    Trouble.WORKER: 3,
    Trouble.SITE: 3,
    Trouble.DAEMON: 4,
    Trouble.PAYER: 4,
}
_DEPTHS = [1, 1, 1, 2, 3, 5, 5, 20]

FAULTS: dict[str, Callable[[int], Fault]] = {
    "down": lambda _: Down(),
    "resetting": lambda _: Resetting(),
    "HTTP 503": lambda _: Unavailable(),
    "HTTP 429": lambda _: TooManyRequests(),
    "rate limit": lambda _: Refusing(RATE_LIMITED, "limit exceeded"),
    "errors": lambda _: Refusing(NODE_ERROR, "internal error", READ),
    "every third fails": lambda _: Every(3, Unavailable()),
    "slow": lambda _: Slow(0.5),
    "hangs": lambda _: Slow(),
    "no JSON": lambda _: Malformed(MALFORMED["no JSON"]),
    "null": lambda _: Malformed(MALFORMED["null"], READ),
    "other chain": lambda _: OtherChain(),
    "stale": lambda head: StaleHead(max(0, head - 3)),
    "contradicting": lambda head: Contradicting(max(0, head - CONTRADICTED_BLOCKS)),
    "answers lost": lambda _: AnswerLost(SEND),
    "sends refused": lambda _: Refusing(NODE_ERROR, "transaction pool is full", SEND),
    "transactions dropped": lambda _: TransactionsDropped(),
}
"""By name; each is made with the number of the last block."""


@dataclass(frozen=True, slots=True)
class Event:
    """One trouble for ``seconds``, and the good time after it. ``fault`` is how nodes fail,
    ``amount`` the depth of a reorganisation or the seconds of a jump, ``number`` says which of
    several nodes, workers or payers. The payee's last transactions are lost in a reorganisation if
    ``loses``, as those of nobody else are.
    """

    trouble: Trouble
    seconds: float
    calm_seconds: float
    fault: str = ""
    amount: int = 0
    number: int = 0
    loses: bool = False

    def __str__(self) -> str:
        facts = [self.fault, str(self.amount or ""), "payee's are lost" if self.loses else ""]
        told = ", ".join(fact for fact in facts if fact)
        return f"{self.trouble}{f' ({told})' if told else ''}"


def events(seed: str) -> Iterator[Event]:
    """Without an end. Each kind comes once before any comes again as chance has it, so that also a
    short run has them all.
    """
    rng = random.Random(f"{seed} weather")  # noqa: S311  not a secret
    jumps_seconds = JUMPS_SECONDS_MAX
    for trouble in _troubles(rng):
        event = _event(trouble, rng)
        if trouble is Trouble.TIME:
            if event.amount > jumps_seconds:
                continue
            jumps_seconds -= event.amount
        yield event


def _troubles(rng: random.Random) -> Iterator[Trouble]:
    first = list(Trouble)
    rng.shuffle(first)
    yield from first
    while True:
        yield from rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()), k=1)


def _event(trouble: Trouble, rng: random.Random) -> Event:
    seconds, calm, number = rng.uniform(0.5, 8), rng.uniform(0, 3), rng.randrange(64)
    if trouble in _NODES:
        return Event(trouble, seconds, calm, fault=rng.choice(_faults_of(trouble)), number=number)
    if trouble is Trouble.REORG:
        return Event(trouble, 0, calm, amount=rng.choice(_DEPTHS), loses=rng.random() < 0.3)
    if trouble is Trouble.TIME:
        return Event(trouble, 0, calm, amount=rng.randrange(60, JUMP_SECONDS_MAX))
    if trouble is Trouble.BASE_FEE:
        return Event(trouble, 0, calm)
    return Event(trouble, rng.uniform(0, 2), calm, number=number)


def _faults_of(trouble: Trouble) -> list[str]:
    """A payer has one node, and nobody who sends again what that one loses."""
    lost = {"transactions dropped"} if trouble is Trouble.PAYERS_NODE else set()
    return [name for name in FAULTS if name not in lost]
