"""Books that are lost, or come from an old backup, on either side: nothing is paid twice, nothing
is served for nothing, and a payer whose payee is gone gets its deposit back. By the command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.world import ETH, Person, Site, World

WEEK_SECONDS = 7 * 86_400
OPENED = ("--deposit", ETH.deposit)


class Couple:
    """A reader with one channel to a publisher, whose site stops and starts."""

    def __init__(self, world: World, reader: Person, publisher: Person, folder: Path) -> None:
        self.world, self.reader, self.publisher = world, reader, publisher
        self._folder = folder
        self._running = ExitStack()
        self.site = self.start()
        opened = reader.do("channel", "open", self.site.page("one.md"), *OPENED).result
        self.channel_id: str = opened["channelId"]

    def start(self) -> Site:
        self.site = self._running.enter_context(self.publisher.serving(self._folder, ETH))
        return self.site

    def stop(self) -> None:
        self._running.close()

    def pay(self) -> int:
        """Read a page; what it cost."""
        paid = self.reader.do("pay", self.site.page("one.md"), "--max", ETH.price, "--json")
        assert "The first page." in paid.output
        return int(json.loads(paid.errors.splitlines()[-1])["cost"])

    def channel(self) -> dict[str, Any]:
        (channel,) = self.reader.do("channel", "list").result
        found: dict[str, Any] = channel
        return found

    def taken(self) -> dict[str, Any]:
        (record,) = self.publisher.do("payee", "list").result
        found: dict[str, Any] = record
        return found

    def closed(self) -> dict[str, int]:
        """What came of a close, and what both have by it beyond their gas."""
        url = ("--url", self.site.page("one.md"))
        closed = self.reader.do("channel", "close", self.channel_id, *url).result
        return {"settled": int(closed["settled"]), "refund": int(closed["refund"])}


@pytest.fixture
def couple(world: World, reader: Person, publisher: Person, folder: Path) -> Iterator[Couple]:
    couple = Couple(world, reader, publisher, folder)
    yield couple
    couple.stop()


def lose(books: Path) -> None:
    """With the files that SQLite keeps beside them."""
    for file in books.parent.glob(books.name + "*"):
        file.unlink()


def restore_payer(couple: Couple) -> None:
    lose(couple.reader.home / "payer.sqlite3")
    couple.reader.do("recover", "payer", "--backup", "week-old.sqlite3")


def lose_payer(couple: Couple) -> None:
    lose(couple.reader.home / "payer.sqlite3")
    couple.reader.do("recover", "payer")


def restore_payee(couple: Couple) -> None:
    couple.stop()
    lose(couple.publisher.home / "site" / "books.sqlite3")
    couple.publisher.do("recover", "payee", "--backup", "week-old.sqlite3")
    couple.start()


def lose_payee(couple: Couple) -> None:
    couple.stop()
    lose(couple.publisher.home / "site" / "books.sqlite3")
    couple.publisher.do("recover", "payee")
    couple.start()


@pytest.mark.parametrize(
    "accident", [restore_payer, lose_payer, restore_payee, lose_payee], ids=lambda one: one.__name__
)
def test_after_an_accident_both_go_on_where_they_were(
    couple: Couple, accident: Callable[[Couple], None]
) -> None:
    couple.pay()
    couple.reader.do("backup", "week-old.sqlite3")
    couple.publisher.do("payee", "backup", "week-old.sqlite3")
    couple.world.chain.increase_time(WEEK_SECONDS)
    for _ in range(2):
        couple.pay()
    assert int(couple.channel()["signed"]) == 3 * ETH.price_units

    accident(couple)

    assert [couple.pay() for _ in range(2)] == [ETH.price_units] * 2
    channel, taken = couple.channel(), couple.taken()
    total = 5 * ETH.price_units
    assert (int(channel["signed"]), int(channel["spent"])) == (total, total)
    assert (int(taken["accepted"]), int(taken["spent"])) == (total, total)
    assert couple.closed() == {"settled": total, "refund": ETH.deposit_units - total}


def test_both_restored_at_once_lose_what_both_forgot_and_no_more(couple: Couple) -> None:
    couple.pay()
    couple.reader.do("backup", "week-old.sqlite3")
    couple.publisher.do("payee", "backup", "week-old.sqlite3")
    couple.pay()
    restore_payer(couple)
    restore_payee(couple)

    couple.pay()

    total = 2 * ETH.price_units
    assert (int(couple.channel()["signed"]), int(couple.taken()["spent"])) == (total, total)


def test_a_close_with_old_books_pays_what_was_spent(couple: Couple) -> None:
    couple.pay()
    couple.reader.do("backup", "week-old.sqlite3")
    couple.pay()
    restore_payer(couple)

    assert couple.closed()["settled"] == 2 * ETH.price_units


def test_a_payer_whose_payee_is_gone_gets_its_deposit_back(couple: Couple) -> None:
    world, reader = couple.world, couple.reader
    couple.pay()
    couple.stop()

    failed = reader.run("pay", couple.site.page("one.md"), "--max", ETH.price, "--json")
    assert failed.code == 3
    assert f"channelpay channel close {couple.channel_id} --request" in failed.problem["hint"]
    silent = couple.channel()
    assert silent["next"]["action"] == "request-close"
    assert silent["unansweredSince"] is not None

    reader.do("channel", "close", couple.channel_id, "--request")
    waiting = couple.channel()
    assert waiting["next"] == waiting["next"] | {
        "action": "withdraw",
        "at": waiting["withdrawableAt"],
    }
    assert int(waiting["money"]["inGrace"]) == ETH.deposit_units - int(waiting["signed"])
    assert reader.do("channel", "withdraw", "--all").output == ""

    world.chain.increase_time(world.grace_seconds)
    assert couple.channel()["money"]["withdrawable"] == str(ETH.deposit_units)
    before = world.balance(reader, ETH)
    withdrawn = reader.do("channel", "withdraw", "--all").result
    got = world.balance(reader, ETH) + world.fee(withdrawn["txHash"], ETH) - before
    assert got == ETH.deposit_units
    after = couple.channel()
    assert (after["money"]["withdrawn"], after["next"]["action"]) == (str(got), "nothing")
