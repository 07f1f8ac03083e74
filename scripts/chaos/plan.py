"""What goes wrong, in which order and when: drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

KILLS_PER_TROUBLE = 20
"""Of each other kind of trouble there is one for so many kills, and at least one."""
HOUR = 3600


class Trouble(StrEnum):
    """A kind of step."""

    KILL_AT_WORK = "kill at work"
    KILL_AT_START = "kill at start"
    DISK_FULL = "disk full"
    DATABASE_KILLED = "database killed"
    CLOCK_JUMPS = "clock jumps"


@dataclass(frozen=True, slots=True)
class Step:
    """One trouble after ``seconds``: of work, or since the site was started. The site is killed in
    it if ``kills``. ``autopsy``: the books are audited before anything is started again, and not
    while the site works already. ``clock_offset_seconds`` is how far off the clock is then.
    """

    trouble: Trouble
    seconds: float
    kills: bool = True
    autopsy: bool = False
    clock_offset_seconds: int = 0


def plan(seed: str, kills: int, others: list[Trouble]) -> list[Step]:
    """``kills`` times the site alone is killed; the ``others`` happen in between."""
    rng = random.Random(f"{seed} plan")  # noqa: S311  not a secret
    count = max(1, kills // KILLS_PER_TROUBLE)
    troubles = [trouble for trouble in others for _ in range(count)]
    troubles += [_kind_of_kill(rng) for _ in range(kills)]
    rng.shuffle(troubles)
    offsets = _clock_offsets(rng)
    steps = [_step(trouble, rng, offsets) for trouble in troubles]
    return [_audited_in_time(*pair) for pair in zip(steps, [*steps[1:], None], strict=True)]


def _kind_of_kill(rng: random.Random) -> Trouble:
    return rng.choice([Trouble.KILL_AT_WORK] * 3 + [Trouble.KILL_AT_START])


def _step(trouble: Trouble, rng: random.Random, offsets: Iterator[int]) -> Step:
    if trouble is Trouble.KILL_AT_START:
        return Step(trouble, rng.uniform(0, 0.25), autopsy=True)
    seconds = rng.uniform(0, 0.8)
    if trouble is Trouble.KILL_AT_WORK:
        return Step(trouble, seconds, autopsy=rng.random() < 0.5)
    if trouble is Trouble.CLOCK_JUMPS:
        return Step(trouble, seconds, kills=False, clock_offset_seconds=next(offsets))
    return Step(trouble, seconds, kills=rng.random() < 0.5)


def _clock_offsets(rng: random.Random) -> Iterator[int]:
    """Each an hour or two ahead of the one before, or behind."""
    offset = 0
    while True:
        offset = rng.choice([one for one in (-HOUR, 0, HOUR) if one != offset])
        yield offset


def _audited_in_time(step: Step, following: Step | None) -> Step:
    """To wait for a site that works would spoil a kill that comes right after its start."""
    if following is None or following.trouble is not Trouble.KILL_AT_START:
        return step
    return Step(step.trouble, step.seconds, step.kills, True, step.clock_offset_seconds)
