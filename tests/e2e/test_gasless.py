"""Somebody who has a stablecoin and no ether reads a paid site, by the command line alone."""

from __future__ import annotations

import json
import secrets
from contextlib import closing
from pathlib import Path

from channelpay.store import SqliteStore
from channelpay.testing.accounts import account_of
from channelpay.testing.furnished import FurnishedChain, give
from tests.e2e.world import ETH, TUSD, Person, World


def test_a_reader_without_ether_reads_and_gets_the_rest_back(
    world: World, furnished: FurnishedChain, publisher: Person, folder: Path
) -> None:
    currency = TUSD(furnished.token)
    saver = _saver(world, furnished, currency.deposit_units)
    paying = ("--token", currency.option, "--max", currency.price, "--deposit", currency.deposit)

    with publisher.serving(folder, currency, "--carry-gas", "0.1", "--carry-deposit", "1") as site:
        urls = [site.page("one.md"), site.page("two.md")]
        seen = saver.run("pay", urls[0], *paying, "--dry-run", "--json")
        paid = saver.do("pay", *urls, *paying, "--json")
        receipts = [json.loads(line) for line in paid.errors.splitlines()]
        channel = receipts[0]["channelId"]
        give(furnished, saver.address, 0, currency.deposit_units)
        grown = saver.do("channel", "top-up", channel, currency.deposit, "--gasless").result
        again = saver.do("pay", urls[0], "--token", currency.option, "--max", currency.price)
        closed = saver.do("channel", "close", channel).result
        status = publisher.do("payee", "status", "--json").result

    assert [int(receipt["cost"]) for receipt in receipts] == [currency.price_units] * 2
    assert world.balance(saver, ETH) == 0
    assert (seen.code, seen.result["open"], seen.result["gas"]) == (10, "10000000", 0)
    assert int(grown["deposit"]) == 2 * currency.deposit_units
    assert "The first page." in again.output
    assert world.balance(saver, currency) == 2 * currency.deposit_units - 3 * currency.price_units
    assert int(closed["settled"]) == 3 * currency.price_units
    with closing(SqliteStore(publisher.home / "site" / "books.sqlite3")) as store:
        close, added, carried = store.transactions()
    assert (carried.purpose.split()[:2], close.purpose.split()[0]) == (["carry", "open"], "close")
    assert added.purpose.split()[0] == "carry"
    assert carried.fee_wei
    fees_wei = [int(one["feeWei"]) for one in status["carried"]]
    assert sorted(fees_wei) == sorted([carried.fee_wei, added.fee_wei or 0])


def _saver(world: World, furnished: FurnishedChain, tokens: int) -> Person:
    account = account_of(secrets.token_bytes(32))
    give(furnished, account.address, 0, tokens)
    saver = Person(world, "saver", account.address)
    saver.keep("saver", account.private_key)
    return saver
