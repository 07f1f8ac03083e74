"""A soak: for some minutes the payee's nodes fail, the chain reorganises, gas becomes dear, time
jumps and processes are killed, all together and while payers pay. At the end all channels are
closed, and every account has exactly what the books say.

The processes are those that users run: ``channelpay site`` with its workers, ``channelpay payee
run`` and payers with the client of this package. The payee has two nodes, the payers a third: each
is a proxy that fails as it is told, before the same anvil.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from channelpay.chain.connection import Connection, connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.chain.events import EventReader
from channelpay.errors import NetworkError
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import NATIVE, Address, ChannelId
from channelpay.testing.accounts import dev_accounts
from channelpay.testing.devchain import anvil_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from scripts.chaos import cast
from scripts.chaos.books import read_books
from scripts.chaos.cast import Actor
from scripts.chaos.elements import Elements
from scripts.chaos.payer import LEAVE, Settings
from scripts.chaos.reckoning import (
    Bill,
    Diary,
    Purses,
    bills_of,
    end_violations,
    ledger_violations,
    owed_violations,
    purse_violations,
    read_diary,
)
from scripts.chaos.run import Violated
from scripts.chaos.weather import FAULTS, SEND, Event, Trouble, events
from scripts.chaos.world import Place, place_for
from tests.support.rpc_faults import FaultyNode, Slow, faulty_node

PAYEE_ACCOUNT = 2
PAYER_ACCOUNTS = (3, 4, 5, 6)
PAYEE_NODES = 2
WORKERS = 2
PRICES = {"eth": ("0.0001", 10**14), "token": ("0.01", 10**4)}
"""Of a page, as on the command line and in base units."""
SETTLED = {"eth": "0.002", "token": "0.2"}
"""What a channel is settled at: 20 pages."""
DEPOSIT_PAGES = 60
"""What a channel is opened with, and topped up by."""
CLOSE_SHARE = 0.02
"""How likely a payer closes a channel after a page."""
REQUEST_SHARE = 0.5
"""How likely it does so on chain, without asking the payee."""
PAGES = 20
UP_SECONDS = 120.0
"""So long after a trouble somebody is served again, and a program that starts has started."""
LEAVE_SECONDS = 300.0
"""So long it takes at most until every channel is closed."""
POLL_SECONDS = 0.2
REFUSALS = {
    "402 amount-exceeds-deposit",
    "402 too-few-confirmations",
    "402 voucher-public",
    "409 transaction-reverted",
    "410 channel-closing",
    "410 channel-finalized",
    "410 channel-not-found",
}
"""What a payer may be told beside what it has to pay, where the chain took a deposit back or a
close is under way: it waits, presents its deposit again or takes another channel. An open that was
mined may fail when a reorganisation puts it behind others. What a failed request left available may
have been settled since: then the payer proves its key.
"""


@dataclass(frozen=True, slots=True)
class Weathered:
    """A soak in which everything held. Amounts in base units by the token's name. ``restarts`` are
    starts that found no node.
    """

    store: str
    seconds: float
    events: dict[str, int]
    faults: dict[str, int]
    kills: dict[str, int]
    restarts: int
    pages: int
    answers: dict[str, int]
    troubles: dict[str, int]
    channels: int
    ends: dict[str, int]
    transactions: int
    sums: dict[str, dict[str, int]]
    fees_wei: int


Tell = Callable[[str], None]


def soak(store: str, seconds: float, seed: str, folder: Path, tell: Tell) -> Weathered:
    """Raises :class:`~scripts.chaos.run.Violated`. Logs and books are in ``folder``."""
    with ExitStack() as stack:
        chain = stack.enter_context(anvil_chain())
        place = stack.enter_context(place_for(store, folder))
        nodes = [stack.enter_context(faulty_node(chain.rpc_url)) for _ in range(PAYEE_NODES + 1)]
        play = _Play(store, seed, folder, furnish(chain), place, nodes, tell)
        stack.callback(play.end)
        return play.run(seconds)


@dataclass(slots=True)
class _Play:
    """What :func:`soak` does once everything stands."""

    store: str
    seed: str
    folder: Path
    furnished: FurnishedChain
    place: Place
    nodes: list[FaultyNode]
    tell: Tell
    elements: Elements = field(init=False)
    connection: Connection = field(init=False)
    contract: PaymentChannelsContract = field(init=False)
    site: Actor = field(init=False)
    daemon: Actor = field(init=False)
    payers: list[Actor] = field(init=False)
    restarts: int = 0

    def __post_init__(self) -> None:
        rpc_url = self.furnished.chain.rpc_url
        self.connection = connect(rpc_url)
        self.contract = PaymentChannelsContract(self.connection, self.furnished.deployment)
        self.elements = Elements(rpc_url, self.connection.latest_block().number)
        environment = cast.keep_key(self.folder / "home", PAYEE_ACCOUNT) | {
            "CHANNELPAY_RPC": ",".join(node.url for node in self.nodes[:PAYEE_NODES]),
            "CHANNELPAY_STORE": self.place.url,
        }
        port = cast.free_port()
        self.site = Actor("site", self._site_command(port), environment, self.folder / "site.log")
        daemon: list[str | Path] = [cast.CHANNELPAY, "payee", "run", *self._settling()]
        self.daemon = Actor("daemon", daemon, environment, self.folder / "daemon.log")
        self.payers = [cast.payer(self._settings(account, port)) for account in PAYER_ACCOUNTS]

    # --- the cast ----------------------------------------------------------------------------

    def _site_command(self, port: int) -> list[str | Path]:
        pages = self.folder / "pages"
        pages.mkdir()
        for number in range(PAGES):
            (pages / f"{number}.txt").write_text(f"page {number}\n", encoding="ascii")
        token = to_hex(self.furnished.token)
        prices = (f"eth={PRICES['eth'][0]}", f"{token}={PRICES['token'][0]}")
        options = [
            *("--token", "eth", "--token", token),
            *("--price", prices[0], "--price", prices[1]),
            *("--port", str(port), "--workers", str(WORKERS)),
        ]
        return [cast.CHANNELPAY, "site", pages, *options, *self._settling()]

    def _settling(self) -> list[str]:
        """The site settles as well: whoever of the two is there."""
        amounts = (f"eth={SETTLED['eth']}", f"{to_hex(self.furnished.token)}={SETTLED['token']}")
        values = [word for amount in amounts for word in ("--settle-value", amount)]
        return ["--state", str(self.folder / "state"), *values]

    def _settings(self, account: int, port: int) -> Settings:
        kind = "eth" if account % 2 else "token"
        price = PRICES[kind][1]
        return Settings(
            rpc_url=self.nodes[-1].url,
            contract=self.furnished.deployment.contract.hex(),
            account=account,
            token=(NATIVE if kind == "eth" else self.furnished.token).hex(),
            price=price,
            deposit=DEPOSIT_PAGES * price,
            urls=[f"http://127.0.0.1:{port}/{number}.txt" for number in range(PAGES)],
            folder=str(self.folder),
            seed=self.seed,
            close_share=CLOSE_SHARE,
            request_share=REQUEST_SHARE,
        )

    @property
    def _everybody(self) -> list[Actor]:
        return [self.site, self.daemon, *self.payers]

    # --- the play ----------------------------------------------------------------------------

    def run(self, seconds: float) -> Weathered:
        began = time.monotonic()
        before = self._purses()
        self.elements.begin()
        for actor in (self.site, *self.payers):
            actor.start()
        self._wait_for_a_page()
        # The site has made the books.
        self.daemon.start()
        happened: list[Event] = []
        for event in events(self.seed):
            # Each kind comes once, however short the soak is.
            if time.monotonic() - began > seconds and len(happened) >= len(Trouble):
                break
            self._suffer(event)
            happened.append(event)
            diary = self._check()
            passed = time.monotonic() - began
            self.tell(f"{passed:5.0f} s  {len(diary.pages):6} pages  {event}")
        self._leave()
        return self._weathered(time.monotonic() - began, happened, before)

    def end(self) -> None:
        """Nobody is left."""
        for actor in self._everybody:
            actor.kill()

    def _suffer(self, event: Event) -> None:
        with self._trouble(event):
            time.sleep(event.seconds)
        time.sleep(event.calm_seconds)
        self._wait_for_a_page()

    @contextmanager
    def _trouble(self, event: Event) -> Iterator[None]:
        """The trouble begins with the block and is over when it ends."""
        struck = self._nodes_of(event)
        for node in struck:
            node.behave(FAULTS[event.fault](self.elements.head()))
        killed = self._killed_by(event)
        if killed is not None:
            killed.kill()
        if event.trouble is Trouble.WORKER:
            self.site.kill_child(event.number)
        self._move_the_chain(event)
        yield
        for node in struck:
            node.behave()
        if killed is not None:
            killed.start()

    def _nodes_of(self, event: Event) -> list[FaultyNode]:
        if event.trouble is Trouble.ONE_NODE:
            return [self.nodes[event.number % PAYEE_NODES]]
        if event.trouble is Trouble.BOTH_NODES:
            return self.nodes[:PAYEE_NODES]
        return self.nodes[PAYEE_NODES:] if event.trouble is Trouble.PAYERS_NODE else []

    def _killed_by(self, event: Event) -> Actor | None:
        payer = self.payers[event.number % len(self.payers)]
        killed = {Trouble.SITE: self.site, Trouble.DAEMON: self.daemon, Trouble.PAYER: payer}
        return killed.get(event.trouble)

    def _move_the_chain(self, event: Event) -> None:
        if event.trouble is Trouble.REORG:
            self._reorganise(event)
        elif event.trouble is Trouble.BASE_FEE:
            self.elements.raise_base_fee()
        elif event.trouble is Trouble.TIME:
            self.elements.jump(event.amount)

    def _reorganise(self, event: Event) -> None:
        """What is sent meanwhile waits: anvil would hold it back for good, since it does not notice
        that the nonces before it are used again.
        """
        for node in self.nodes:
            node.behave(Slow(methods=SEND))
        payee = dev_accounts()[PAYEE_ACCOUNT].address
        self.elements.reorganise(event.amount, [payee] if event.loses else [])
        for node in self.nodes:
            node.behave()

    # --- the end -----------------------------------------------------------------------------

    def _leave(self) -> None:
        """All payers take their money back: what is in dispute at the end of the grace period."""
        self.tell("the payers leave")
        for payer in self.payers:
            payer.tell(LEAVE)
        _until(lambda: not self._owed(), self._owed, LEAVE_SECONDS)
        self.elements.jump(self.furnished.grace_seconds)
        _until(self._have_left, "payers have not got their money back", LEAVE_SECONDS)
        _until(lambda: not self._differences(), self._differences, LEAVE_SECONDS)
        for actor in (self.daemon, self.site):
            code = actor.end()
            if code not in (0, -15):
                raise Violated((f"the {actor.name} ended with code {code}",))

    def _owed(self) -> list[str]:
        return list(owed_violations(self._bills(), read_books(self.place.url)))

    def _have_left(self) -> bool:
        codes = [payer.code for payer in self.payers]
        wrong = [
            f"{payer.name} ended with code {code}"
            for payer, code in zip(self.payers, codes, strict=True)
            if code not in (None, 0)
        ]
        if wrong:
            raise Violated(tuple(wrong))
        return all(code == 0 for code in codes)

    def _differences(self) -> list[str]:
        return list(end_violations(self._bills(), read_books(self.place.url)))

    def _weathered(self, seconds: float, happened: list[Event], before: Purses) -> Weathered:
        bills, diary, books = self._bills(), self._check(), read_books(self.place.url)
        accounts = [dev_accounts()[number] for number in (PAYEE_ACCOUNT, *PAYER_ACCOUNTS)]
        fees_wei = {one.address: self.elements.fees_wei(one.address) for one in accounts}
        wrong = list(purse_violations(bills.values(), before, self._purses(), fees_wei))
        if wrong:
            raise Violated(tuple(wrong))
        names = {NATIVE: "eth", self.furnished.token: self.furnished.token_symbol}
        sums: dict[str, Counter[str]] = {name: Counter() for name in names.values()}
        for channel_id, bill in bills.items():
            row = books.channels.get(channel_id)
            sums[names[bill.channel.token]].update(
                deposit=bill.deposit,
                settled=bill.settled or 0,
                refund=bill.refund or 0,
                accepted=row.accepted if row else 0,
                spent=row.spent if row else 0,
            )
        payee = dev_accounts()[PAYEE_ACCOUNT].address
        return Weathered(
            store=self.store,
            seconds=round(seconds, 1),
            events=_counted(event.trouble for event in happened),
            faults=_counted(event.fault for event in happened if event.fault),
            kills={actor.name: actor.kills for actor in self._everybody},
            restarts=self.restarts,
            pages=len(diary.pages),
            answers=_counted(diary.answers.elements()),
            troubles=_counted(diary.troubles.elements()),
            channels=len(bills),
            ends=_counted(diary.closed.elements()),
            transactions=self.connection.used_nonces(payee),
            sums={name: dict(amounts) for name, amounts in sums.items()},
            fees_wei=fees_wei[payee],
        )

    # --- what must hold ----------------------------------------------------------------------

    def _wait_for_a_page(self) -> None:
        """Somebody is served again."""
        before = len(self._diary().pages)

        def is_served() -> bool:
            self._supervise()
            return len(self._diary().pages) > before

        _until(
            is_served,
            f"nobody is served within {UP_SECONDS:.0f} s",
            UP_SECONDS,
        )

    def _supervise(self) -> None:
        """Whoever finds no node at its start says so and ends: as a service manager would, start it
        again. Nobody else ends by itself.
        """
        for actor in (self.site, self.daemon):
            if actor.code == NetworkError.exit_code:
                actor.start()
                self.restarts += 1

    def _check(self) -> Diary:
        self._supervise()
        diary = self._diary()
        wrong = list(ledger_violations(read_books(self.place.url), diary.pages))
        wrong += [f"a payer was told {one}" for one in diary.refusals if one not in REFUSALS]
        wrong += [
            f"the {actor.name} ended by itself with code {actor.code}"
            for actor in self._everybody
            if actor.code not in (None, 0)
        ]
        if wrong:
            raise Violated(tuple(wrong))
        return diary

    def _diary(self) -> Diary:
        return read_diary(self.folder / f"payer-{number}.jsonl" for number in PAYER_ACCOUNTS)

    def _bills(self) -> dict[ChannelId, Bill]:
        reader = EventReader(self.contract)
        start = reader.cursor_at(self.elements.genesis)
        return bills_of(event for batch in reader.read(start) for event in batch.events)

    def _purses(self) -> dict[tuple[Address, Address], int]:
        accounts = [dev_accounts()[number].address for number in (PAYEE_ACCOUNT, *PAYER_ACCOUNTS)]
        token = Erc20(self.connection, self.furnished.token)
        purses = {}
        for account in [*accounts, self.furnished.deployment.contract]:
            purses[account, NATIVE] = self.connection.balance_wei(account)
            purses[account, self.furnished.token] = token.balance(account)
        return purses


def _counted(names: Iterator[str] | Counter[str]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, names)).items()))


def _until(
    is_so: Callable[[], bool], complaint: str | Callable[[], list[str]], seconds: float
) -> None:
    """Neither the chain nor the programs tell when it is: ask again and again."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise Violated((complaint,) if isinstance(complaint, str) else tuple(complaint()))
        time.sleep(POLL_SECONDS)
