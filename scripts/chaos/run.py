"""One run: clients pay, everything is killed, the books are audited after each step, and at the end
every channel is closed on chain.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from channelpay.payee.chain_link import ChainLink
from channelpay.payee.follower import begin_books
from channelpay.payee.terms import Terms
from channelpay.protocol.wire import Receipt
from channelpay.store import open_store
from channelpay.testing.accounts import dev_accounts
from scripts.chaos.audit import Auditor, Finding
from scripts.chaos.books import read_books
from scripts.chaos.closing import CLOSE_SECONDS, Closing
from scripts.chaos.crowd import Crowd, Fate, describe
from scripts.chaos.interference import Interference
from scripts.chaos.plan import Step, Trouble, plan
from scripts.chaos.site import PAYEE_ACCOUNT
from scripts.chaos.victim import Victim, victim
from scripts.chaos.world import Chain, Place, place_for, quick_chain

UP_SECONDS = 60.0
"""A site that answers nobody for so long after its start does not come back."""
OUTAGE_SECONDS = 0.3
"""How long a disk stays full, or a database server dead, once clients notice."""
POLL_SECONDS = 0.02
CLOCK_STEP_SECONDS = 600.0
"""Receipts that are closer to a time than this are of that time: clocks jump by hours here."""
OUTAGES = {Trouble.DISK_FULL, Trouble.DATABASE_KILLED}
OTHERS = {
    "sqlite": [Trouble.DISK_FULL, Trouble.CLOCK_JUMPS],
    "postgres": [Trouble.DATABASE_KILLED, Trouble.CLOCK_JUMPS],
}


class Violated(Exception):
    """Something that must hold does not; ``violations`` say what."""

    def __init__(self, violations: tuple[str, ...]) -> None:
        super().__init__(f"{len(violations)} violations")
        self.violations = violations


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything."""

    kills: int
    channels: int
    in_flight: int
    kills_while_closing: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step was and left behind. ``answered`` counts answers by their status."""

    number: int
    steps: int
    step: Step
    finding: Finding
    served: int
    answered: dict[int, int]


@dataclass(frozen=True, slots=True)
class Survived:
    """A run in which everything held. Amounts in wei."""

    store: str
    seconds: float
    troubles: dict[str, int]
    site_kills: int
    errands: dict[str, int]
    answered: dict[int, int]
    finding: Finding
    channels: int
    accepted: int
    spent: int
    settled: int


Report = Callable[[Progress], None]


def run(store: str, size: Size, seed: str, folder: Path, report: Report) -> Survived:
    """Raises :class:`Violated`. The site's log is in ``folder``."""
    interference = Interference(folder)
    with quick_chain() as chain, place_for(store, folder) as place:
        contract = "0x" + chain.contract.deployment.contract.hex()
        environment, log = interference.environment, folder / "site.log"
        _begin_books(chain, place)
        with victim(chain.rpc_url, contract, place.url, environment, log) as site:
            attack = _Attack(store, size, seed, chain, place, site, interference, report)
            return asyncio.run(attack.survive())


def _begin_books(chain: Chain, place: Place) -> None:
    """Before any channel is opened: books that are younger than a channel are in doubt of it."""
    payee = dev_accounts()[PAYEE_ACCOUNT].address
    terms = Terms(chain.contract.deployment, payee, ())
    with closing(open_store(place.url)) as store:
        begin_books(store, ChainLink(chain.contract), terms)


@dataclass(slots=True)
class _Attack:
    """What :func:`run` does once everything stands."""

    store: str
    size: Size
    seed: str
    chain: Chain
    place: Place
    site: Victim
    interference: Interference
    report: Report
    site_kills: int = 0
    cuts: int = 0
    crowd: Crowd = field(init=False)
    auditor: Auditor = field(init=False)
    troubles: dict[Trouble, Callable[[Step], Awaitable[None]]] = field(init=False)

    def __post_init__(self) -> None:
        purses = [self.chain.open(number, self.seed) for number in range(self.size.channels)]
        self.crowd = Crowd(self.site.port, purses, self.size.in_flight, self.seed)
        self.auditor = Auditor(purses, self.size.in_flight, self.store == "sqlite")
        self.troubles = {
            Trouble.KILL_AT_WORK: self._work,
            Trouble.KILL_AT_START: self._begin_to_start,
            Trouble.DISK_FULL: self._fill_disk,
            Trouble.DATABASE_KILLED: self._kill_database,
            Trouble.CLOCK_JUMPS: self._turn_clock,
        }

    async def survive(self) -> Survived:
        began = time.monotonic()
        steps = plan(self.seed, self.size.kills, OTHERS[self.store])
        self.site.start()
        self.crowd.begin()
        try:
            for number, step in enumerate(steps, 1):
                finding = await self._take(step)
                answered = dict(self.crowd.answers)
                served = self.crowd.served
                self.report(Progress(number, len(steps), step, finding, served, answered))
            await self.crowd.go_home()
        finally:
            self.crowd.cancel()
        self._audit()
        finding = await self._pay_once_more()
        settled = await self._close()
        seconds = time.monotonic() - began
        return self._survived(Counter(step.trouble for step in steps), finding, settled, seconds)

    # --- steps -------------------------------------------------------------------------------

    async def _take(self, step: Step) -> Finding:
        await self.troubles[step.trouble](step)
        if step.kills:
            self._kill()
        await self._mend(step)
        if step.trouble in OUTAGES and not step.kills:
            await self._make_good()
        finding = self._audit() if step.autopsy else None
        if step.kills:
            self.site.start()
        if finding is None:
            await self._up()
            finding = self._audit()
        return finding

    async def _mend(self, step: Step) -> None:
        """What was broken beside the site works again."""
        self.interference.free_disk()
        if step.trouble is Trouble.DATABASE_KILLED and self.place.server is not None:
            await asyncio.to_thread(self.place.server.start)

    async def _make_good(self) -> None:
        """A site that lives on gives back what it could not give back while the books could not be
        written.
        """
        await self._up()
        over = (Fate.FAILED, Fate.GIVEN_UP)
        noted = [one for one in self.crowd.errands if one.failed_in_outage]
        failed = {one.key: one for one in noted if one.fate in over and not one.lost}

        def charged() -> list[str]:
            rows = read_books(self.place.url).payments
            return [
                describe(failed[row.key]) for row in rows if row.is_charged and row.key in failed
            ]

        await _until(lambda: not charged(), lambda: f"charged after an outage: {charged()}")
        for errand in noted:
            errand.failed_in_outage = False

    async def _work(self, step: Step) -> None:
        await self._up()
        await asyncio.sleep(step.seconds)

    async def _begin_to_start(self, step: Step) -> None:
        """The site was started by the step before."""
        await asyncio.sleep(step.seconds)

    async def _fill_disk(self, step: Step) -> None:
        await self._work(step)
        self.interference.fill_disk()
        await self._outage()

    async def _kill_database(self, step: Step) -> None:
        await self._work(step)
        assert self.place.server is not None
        self.place.server.kill()
        await self._outage()

    async def _turn_clock(self, step: Step) -> None:
        """Until the receipts tell the new time."""
        await self._work(step)
        self.interference.set_clock(step.clock_offset_seconds)
        await _until(
            lambda: any(self._is_of_now(purse.receipt) for purse in self.crowd.purses),
            lambda: "no receipt tells the new time",
        )

    def _is_of_now(self, receipt: Receipt | None) -> bool:
        now = time.time() + self.interference.clock_offset_seconds
        return receipt is not None and abs(receipt.timestamp - now) < CLOCK_STEP_SECONDS

    async def _outage(self) -> None:
        """Long enough that clients notice. What is not made good of the one before is not to be
        given back any more: the site was killed.
        """
        for errand in self.crowd.errands:
            errand.lost += errand.failed_in_outage
            errand.failed_in_outage = False
        self.cuts += 1
        self.crowd.outage = True
        before = self.crowd.answers[503]
        await _until(
            lambda: self.crowd.answers[503] > before or bool(self.crowd.faults),
            lambda: "the outage is not noticed",
        )
        await asyncio.sleep(OUTAGE_SECONDS)

    # --- the end -----------------------------------------------------------------------------

    async def _pay_once_more(self) -> Finding:
        """No channel is stuck, and nothing is on its way any more."""
        bought = await asyncio.gather(*(self.crowd.buy(purse) for purse in self.crowd.purses))
        stuck = [f"not served: {describe(one)}" for one in bought if one.fate is not Fate.SERVED]
        self._raise(stuck)
        return self._audit()

    async def _close(self) -> int:
        """What the contract paid out for all channels."""
        rng = random.Random(f"{self.seed} closing")  # noqa: S311  not a secret
        closing = Closing(self.chain, self.crowd, read_books(self.place.url))
        under_way = asyncio.create_task(closing.close())
        try:
            for _ in range(self.size.kills_while_closing):
                await asyncio.sleep(rng.uniform(0.05, 0.8))
                self._kill()
                self.site.start()
            await under_way
        except TimeoutError:
            raise Violated((f"channels are not closed within {CLOSE_SECONDS:.0f} s",)) from None
        finally:
            under_way.cancel()
        self._raise(await closing.differences(self.place.url))
        return closing.settled

    def _survived(
        self, troubles: Counter[Trouble], finding: Finding, settled: int, seconds: float
    ) -> Survived:
        channels = read_books(self.place.url).channels.values()
        return Survived(
            store=self.store,
            seconds=round(seconds, 1),
            troubles={str(trouble): count for trouble, count in sorted(troubles.items())},
            site_kills=self.site_kills,
            errands=dict(Counter(str(errand.fate) for errand in self.crowd.errands)),
            answered=dict(sorted(self.crowd.answers.items())),
            finding=finding,
            channels=len(channels),
            accepted=sum(channel.accepted for channel in channels),
            spent=sum(channel.spent for channel in channels),
            settled=settled,
        )

    # --- what must hold ----------------------------------------------------------------------

    def _kill(self) -> None:
        self.site_kills += 1
        self.cuts += 1
        fault = self.site.kill()
        if fault is not None:
            raise Violated((fault,))

    async def _up(self) -> None:
        try:
            await self.crowd.hear(UP_SECONDS)
        except TimeoutError:
            raise Violated((f"the site serves nobody within {UP_SECONDS:.0f} s",)) from None
        self._raise(self.crowd.faults)
        self.crowd.outage = False

    def _audit(self) -> Finding:
        self._raise(self.crowd.faults)
        books = read_books(self.place.url)
        finding = self.auditor.audit(books, self.crowd.errands, self.cuts)
        self._raise(finding.violations)
        return finding

    def _raise(self, violations: Sequence[str]) -> None:
        if violations:
            raise Violated(tuple(violations))


async def _until(condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
    deadline = time.monotonic() + UP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Violated((complaint(),))
        await asyncio.sleep(POLL_SECONDS)
