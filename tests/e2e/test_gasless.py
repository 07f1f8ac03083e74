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
        paid = saver.do("pay", *urls, *paying, "--json")
        receipts = [json.loads(line) for line in paid.errors.splitlines()]
        closed = saver.do("channel", "close", receipts[0]["channelId"]).result
        status = publisher.do("payee", "status", "--json").result

    assert [int(receipt["cost"]) for receipt in receipts] == [currency.price_units] * 2
    assert world.balance(saver, ETH) == 0
    assert world.balance(saver, currency) == currency.deposit_units - 2 * currency.price_units
    assert int(closed["settled"]) == 2 * currency.price_units
    with closing(SqliteStore(publisher.home / "site" / "books.sqlite3")) as store:
        close, carried = store.transactions()
    assert (carried.purpose.split()[:2], close.purpose.split()[0]) == (["carry", "open"], "close")
    assert carried.fee_wei
    assert status["carried"][0]["feeWei"] == str(carried.fee_wei)


def _saver(world: World, furnished: FurnishedChain, tokens: int) -> Person:
    account = account_of(secrets.token_bytes(32))
    give(furnished, account.address, 0, tokens)
    saver = Person(world, "saver", account.address)
    saver.keep("saver", account.private_key)
    return saver
