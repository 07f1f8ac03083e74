"""The payee's node fails in every way that nodes do: nobody is refused or charged for it, and the
site goes on by itself when it is over.

Site and payers are processes. The payers have a good node of their own; so whatever one of them is
told, the site made of what its node says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from channelpay.chain.connection import connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.chain.events import EventReader
from channelpay.protocol.types import NATIVE, ChannelId
from channelpay.testing import anvil_chain
from channelpay.testing.accounts import dev_accounts
from channelpay.testing.furnished import FurnishedChain, furnish
from scripts.chaos import cast
from scripts.chaos.books import SQLITE, read_books
from scripts.chaos.cast import Actor
from scripts.chaos.interference import Interference
from scripts.chaos.payer import LEAVE, Settings
from scripts.chaos.reckoning import Bill, Diary, bills_of, end_violations, read_diary
from tests.support.rpc_faults import (
    MALFORMED,
    NODE_ERROR,
    RATE_LIMITED,
    AnswerLost,
    Contradicting,
    Down,
    Every,
    Fault,
    FaultyNode,
    Malformed,
    OtherChain,
    Refusing,
    Resetting,
    Slow,
    StaleHead,
    TooManyRequests,
    TransactionsDropped,
    Unavailable,
    faulty_node,
)

DEADLINE_SECONDS = 60
PAYEE_ACCOUNT = 2
REGULAR, NEWCOMER = 3, 4
PRICE = 10**12
DEPOSIT = 10**18
HARMLESS = {"402 payment-expired", "402 too-few-confirmations"}
"""A challenge is old where the site's clock was turned; a node that is a few seconds late looks
like one whose chain has not mined the open yet. In both cases the client goes on by itself.
"""
TRACE_CHARACTERS = 800
SEND = frozenset({"eth_sendRawTransaction"})
HOUR = 3600
UNSEEN_SECONDS = 20 * HOUR
"""Of a grace period of a day less is left than the six hours that a payee wants for its answer."""
SINGLE_FAULTS: dict[str, Fault] = {
    "down": Down(),
    "resetting": Resetting(),
    "HTTP 502": Unavailable(502),
    "HTTP 503": Unavailable(),
    "HTTP 429": TooManyRequests(),
    "rate limit": Refusing(RATE_LIMITED, "limit exceeded"),
    "errors": Refusing(NODE_ERROR, "internal error"),
    "hangs": Slow(),
    **{f"says {kind}": Malformed(body) for kind, body in MALFORMED.items()},
}
"""What one node can do without an answer to go by."""

DOUBLE_FAULTS: dict[str, Callable[[int], Fault]] = {
    "down": lambda _: Down(),
    "HTTP 503": lambda _: Unavailable(),
    "rate limit": lambda _: TooManyRequests(),
    "errors": lambda _: Refusing(NODE_ERROR, "internal error"),
    "every other fails": lambda _: Every(2, Resetting()),
    "hangs": lambda _: Slow(),
    "no JSON": lambda _: Malformed(MALFORMED["no JSON"]),
    "another chain": lambda _: OtherChain(),
    "stale head": StaleHead,
}
"""What one of two nodes can do, given its last block."""
LATE_BLOCKS = 10
"""More than a node may be behind the others."""
LOSING: dict[str, Callable[[], Fault]] = {
    "dropped": TransactionsDropped,
    "answer lost": lambda: AnswerLost(SEND),
    "refused": lambda: Refusing(NODE_ERROR, "transaction pool is full", SEND),
}


class Customer:
    """A payer with books of its own, and what it notes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.actor = cast.payer(settings)

    @property
    def diary(self) -> Diary:
        return read_diary([self.settings.journal])

    def wait_for_pages(self, more: int = 1) -> None:
        before = len(self.diary.pages)
        until(lambda: len(self.diary.pages) >= before + more, self._noted)

    def wait_for_answer(self, answer: str) -> None:
        until(lambda: self.diary.answers[answer] > 0, self._noted)

    def wait_until_close_is_requested(self) -> None:
        until(lambda: self.diary.closed["requested"] > 0, self._noted)

    def leave(self) -> None:
        """Take back what is left; the payee is asked, or it is done on chain."""
        self.actor.tell(LEAVE)

    def wait_until_gone(self) -> None:
        until(lambda: self.actor.code is not None, self._noted)
        assert self.actor.code == 0

    def _noted(self) -> str:
        return str(replace(self.diary, pages=self.diary.pages[-3:]))

    def channels(self) -> set[ChannelId]:
        return {page.channel_id for page in self.diary.pages}


class Town:
    """A site with a node, or several, that fail as they are told; and its payers."""

    def __init__(
        self, folder: Path, furnished: FurnishedChain, nodes: list[FaultyNode], stack: ExitStack
    ) -> None:
        self.folder = folder
        self.furnished = furnished
        self.chain = furnished.chain
        self.nodes = nodes
        self.node = nodes[0]
        self.contract = PaymentChannelsContract(connect(self.chain.rpc_url), furnished.deployment)
        self.clock = Interference(folder)
        self._stack = stack
        self._port = cast.free_port()
        self.site = self._site()
        self.regular = self.customer(REGULAR, "regular")

    def _site(self) -> Actor:
        pages, state = self.folder / "pages", self.folder / "state"
        pages.mkdir()
        (pages / "page.txt").write_text("a page\n")
        options = ["--token", "eth", "--price", "0.000001", "--port", str(self._port)]
        environment = cast.keep_key(self.folder / "home", PAYEE_ACCOUNT) | self.clock.environment
        environment["CHANNELPAY_RPC"] = ",".join(node.url for node in self.nodes)
        command: list[str | Path] = [cast.CHANNELPAY, "site", pages, *options, "--state", state]
        return self._started(Actor("site", command, environment, self.folder / "site.log"))

    def customer(self, account: int, name: str, request_share: float = 0) -> Customer:
        """Somebody who begins to pay now. With a ``request_share`` of 1 he closes on chain."""
        folder = self.folder / name
        folder.mkdir()
        settings = Settings(
            rpc_url=self.chain.rpc_url,
            contract=self.furnished.deployment.contract.hex(),
            account=account,
            token=NATIVE.hex(),
            price=PRICE,
            deposit=DEPOSIT,
            urls=[f"http://127.0.0.1:{self._port}/page.txt"],
            folder=str(folder),
            seed="node faults",
            close_share=0,
            request_share=request_share,
        )
        customer = Customer(settings)
        self._started(customer.actor)
        return customer

    def _started(self, actor: Actor) -> Actor:
        self._stack.callback(actor.kill)
        actor.start()
        return actor

    def bills(self) -> dict[ChannelId, Bill]:
        reader = EventReader(self.contract)
        batches = reader.read(reader.cursor_at(0))
        return bills_of(event for batch in batches for event in batch.events)

    def payee_transactions(self) -> int:
        return self.contract.connection.used_nonces(dev_accounts()[PAYEE_ACCOUNT].address)

    def bugs(self) -> list[str]:
        """The ends of what the site logged of errors that it did not expect."""
        lines = (self.folder / "site.log").read_text().splitlines()
        return [line[-TRACE_CHARACTERS:] for line in lines if "Traceback" in line]

    def check_books(self, customer: Customer) -> None:
        """What a payer who has left got is what was charged, and what the chain paid. The books may
        come to know of the last close a moment later.
        """
        until(lambda: not self._wrong(customer), lambda: str(self._wrong(customer)))

    def _wrong(self, customer: Customer) -> list[str]:
        own, pages = customer.channels(), customer.diary.pages
        books = read_books(f"{SQLITE}{self.folder}/state/books.sqlite3")
        bills = {one: bill for one, bill in self.bills().items() if one in own}
        rows = {one: row for one, row in books.channels.items() if one in own}
        charges = [one.price for one in books.payments if one.is_charged and one.channel_id in own]
        amounts = (
            sum(page.price for page in pages),
            sum(charges),
            sum(bill.settled or 0 for bill in bills.values()),
        )
        differ = [f"got, charged, settled: {amounts}"] if len(set(amounts)) > 1 else []
        return [*end_violations(bills, replace(books, channels=rows)), *differ]

    def say_goodbye(self, customer: Customer) -> None:
        """Somebody leaves, who was never told that his money is not good."""
        assert customer.diary.refusals.keys() <= HARMLESS
        customer.leave()
        customer.wait_until_gone()
        self.check_books(customer)


@contextmanager
def town(folder: Path, nodes: int) -> Iterator[Town]:
    """Has a payer that the site knows; once he has left, nobody lost anything."""
    with ExitStack() as stack:
        chain = stack.enter_context(anvil_chain())
        furnished = furnish(chain)
        faulty = [stack.enter_context(faulty_node(chain.rpc_url)) for _ in range(nodes)]
        built = Town(folder, furnished, faulty, stack)
        built.regular.wait_for_pages()
        yield built
        built.say_goodbye(built.regular)
        assert built.site.code is None
        assert built.bugs() == []


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A site with one node."""
    with town(tmp_path_factory.mktemp("village"), nodes=1) as built:
        yield built


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A site with two nodes."""
    with town(tmp_path_factory.mktemp("city"), nodes=2) as built:
        yield built


@pytest.fixture
def node(village: Town) -> Iterator[FaultyNode]:
    """The village's only one, which is well after the test."""
    (node,) = village.nodes
    yield node
    node.behave()


def until(condition: Callable[[], bool], complaint: Callable[[], str]) -> None:
    """Other processes do not tell: ask again and again."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.05)


# --- one node ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", SINGLE_FAULTS)
def test_whom_the_site_knows_is_served_and_an_open_waits_for_the_node(
    village: Town, node: FaultyNode, fault: str
) -> None:
    node.behave(SINGLE_FAULTS[fault])
    newcomer = village.customer(NEWCOMER, fault)
    newcomer.wait_for_answer("503 network")
    village.regular.wait_for_pages(3)
    assert not newcomer.diary.pages

    node.behave()

    newcomer.wait_for_pages()
    village.say_goodbye(newcomer)


def test_a_node_that_is_stuck_is_no_fault_of_the_payer(tmp_path: Path) -> None:
    """By the site's clock its last block is an hour old. The real chain is an hour further."""
    with town(tmp_path, nodes=1) as village:
        (node,) = village.nodes
        node.behave(StaleHead(node.head()))
        village.clock.set_clock(HOUR)
        village.chain.increase_time(HOUR)
        newcomer = village.customer(NEWCOMER, "newcomer")
        newcomer.wait_for_answer("503 chain-behind")
        village.regular.wait_for_pages(3)
        assert not newcomer.diary.pages

        node.behave()

        newcomer.wait_for_pages()
        village.say_goodbye(newcomer)


def test_nothing_is_sold_where_a_close_could_have_been_requested_for_too_long(
    tmp_path: Path,
) -> None:
    """Nor is it refused: everybody is asked to wait."""
    with town(tmp_path, nodes=1) as village:
        (node,) = village.nodes
        node.behave(Down())
        village.clock.set_clock(UNSEEN_SECONDS)
        village.regular.wait_for_answer("503 chain-behind")
        village.chain.increase_time(UNSEEN_SECONDS)

        node.behave()

        village.regular.wait_for_pages(3)


# --- two nodes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", DOUBLE_FAULTS)
def test_the_second_node_is_asked_where_the_first_one_is_of_no_use(city: Town, fault: str) -> None:
    faulty = city.nodes[0]
    with faulty.behaving(DOUBLE_FAULTS[fault](faulty.head())):
        city.chain.mine(LATE_BLOCKS)
        newcomer = city.customer(NEWCOMER, fault)
        newcomer.wait_for_pages(3)
        city.regular.wait_for_pages()
        city.say_goodbye(newcomer)


def test_nothing_is_believed_of_nodes_that_contradict_each_other(tmp_path: Path) -> None:
    with town(tmp_path, nodes=2) as city:
        city.chain.mine(LATE_BLOCKS)
        faulty = city.nodes[1]
        with faulty.behaving(Contradicting()):
            # The hash of an old block is asked for when the nodes are compared.
            faulty.wait_until_asked("eth_getBlockByNumber", times=2)
            newcomer = city.customer(NEWCOMER, "contradicting")
            newcomer.wait_for_answer("503 network")
            city.regular.wait_for_pages(3)
            assert not newcomer.diary.pages

        newcomer.wait_for_pages()
        city.say_goodbye(newcomer)


# --- what a fault must not hide ------------------------------------------------------------------


def test_a_close_that_was_requested_unseen_is_answered_once_the_node_is_back(
    village: Town, node: FaultyNode
) -> None:
    newcomer = village.customer(NEWCOMER, "unseen", request_share=1)
    newcomer.wait_for_pages(3)
    with node.behaving(Down()):
        newcomer.leave()
        newcomer.wait_until_close_is_requested()
        assert any(bill.is_closing for bill in village.bills().values())

    newcomer.wait_until_gone()
    village.check_books(newcomer)


@pytest.mark.parametrize("fault", ["dropped", "answer lost", "refused"])
def test_what_the_node_loses_is_sent_again_and_taken_once(
    village: Town, node: FaultyNode, fault: str
) -> None:
    newcomer = village.customer(NEWCOMER, fault)
    newcomer.wait_for_pages(3)
    sent = village.payee_transactions()
    node.behave(LOSING[fault]())
    newcomer.leave()
    node.wait_until_asked("eth_sendRawTransaction")

    node.behave()

    newcomer.wait_until_gone()
    village.check_books(newcomer)
    assert village.payee_transactions() == sent + 1
