"""Read a paid site over a channel, close it on chain once: by the command line, as users do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from channelpay import ChannelPayAuth, Limits, Payer
from channelpay.errors import BudgetExceeded
from channelpay.protocol.keccak import keccak256
from tests.e2e.world import ETH, Currency, Person, Site, World

Serve = Callable[[Currency], Site]
PAID_PAGES = ("one.md", "two.md", "deep/three.txt")
DEADLINE_SECONDS = 60

ON_ANVIL = pytest.mark.parametrize("whole_chain", ["anvil"], indirect=True, scope="session")
"""For rules that hold whatever the node is; money goes its whole way on both chains."""


def test_every_page_is_paid_with_two_transactions(
    world: World, reader: Person, publisher: Person, serve: Serve, currency: Currency
) -> None:
    people = (reader, publisher)
    before = [world.balance(person, currency) for person in people]
    site, first_block = serve(currency), world.block
    paying = ("--token", currency.option)

    opened = reader.do(
        "channel", "open", site.page("one.md"), "--deposit", currency.deposit, *paying
    ).result
    urls = [site.page(name) for name in PAID_PAGES]
    paid = reader.do("pay", *urls, "--max", currency.price, *paying, "-O", "--json")
    closed = reader.do("channel", "close", opened["channelId"]).result

    total = len(PAID_PAGES) * currency.price_units
    receipts = [json.loads(line) for line in paid.errors.splitlines()]
    assert [int(receipt["cost"]) for receipt in receipts] == [currency.price_units] * len(urls)
    assert reader.file("three.txt") == "the third, as it is\n"
    assert "The first page." in reader.file("one.md")
    hashes = [transaction["hash"] for transaction in world.transactions_since(first_block)]
    assert hashes == [opened["openTxHash"], closed["txHash"]]
    assert int(closed["settled"]) == total
    assert int(closed["refund"]) == currency.deposit_units - total
    after = [world.balance(person, currency) for person in people]
    assert before[0] - after[0] == total + world.fee(opened["openTxHash"], currency)
    assert after[1] - before[1] == total - world.fee(closed["txHash"], currency)


@ON_ANVIL
def test_a_free_page_costs_nothing_and_needs_no_channel(reader: Person, serve: Serve) -> None:
    currency = ETH
    site = serve(currency)

    done = reader.do("pay", site.page("free.md"), "--json")

    assert "For everybody." in done.output
    assert json.loads(done.errors)["cost"] == "0"
    assert reader.do("channel", "list").result == []


@ON_ANVIL
def test_a_price_above_the_limit_is_refused_before_anything_is_signed(
    world: World, reader: Person, serve: Serve
) -> None:
    currency = ETH
    site, first_block = serve(currency), world.block

    refused = reader.run(
        "pay", site.page("one.md"), "--token", currency.option, "--deposit", currency.deposit
    )

    assert refused.code == BudgetExceeded.exit_code
    assert refused.output == ""
    assert reader.do("channel", "list").result == []
    assert world.transactions_since(first_block) == []


def test_a_payer_leaves_without_the_payee(
    world: World, reader: Person, publisher: Person, folder: Path
) -> None:
    currency = ETH
    paying = ("--token", currency.option)
    with publisher.serving(folder, currency) as site:
        opened = reader.do(
            "channel", "open", site.page("one.md"), "--deposit", currency.deposit, *paying
        ).result
        reader.do("pay", site.page("one.md"), "--max", currency.price, *paying)

    requested = reader.do("channel", "close", opened["channelId"], "--request").result
    early = reader.run("channel", "withdraw", opened["channelId"])
    world.chain.increase_time(world.grace_seconds)
    before = world.balance(reader, currency)
    withdrawn = reader.do("channel", "withdraw", opened["channelId"]).result

    assert requested["status"] == "closing"
    assert early.code != 0
    assert "grace" in early.errors.lower()
    got = world.balance(reader, currency) + world.fee(withdrawn["txHash"], currency) - before
    assert got == currency.deposit_units
    assert withdrawn["status"] == "finalized"


def test_a_payee_takes_all_it_is_owed_inside_the_grace_period(
    world: World, reader: Person, publisher: Person, serve: Serve, currency: Currency
) -> None:
    site, paying = serve(currency), ("--token", currency.option)
    opened = reader.do(
        "channel", "open", site.page("one.md"), "--deposit", currency.deposit, *paying
    ).result
    urls = [site.page(name) for name in PAID_PAGES]
    reader.do("pay", *urls, "--max", currency.price, *paying, "-O")
    before = world.balance(publisher, currency)

    reader.do("channel", "close", opened["channelId"], "--request")
    channel = _until_finalized(world, reader, opened)

    total = len(PAID_PAGES) * currency.price_units
    (close,) = world.transactions_since(0)[-1:]
    received = world.balance(publisher, currency) + world.fee(close["hash"], currency) - before
    assert received == total
    assert int(channel["settled"]) == total


@ON_ANVIL
def test_a_channel_that_was_never_used_closes_at_once_with_all_its_deposit(
    world: World, reader: Person, serve: Serve
) -> None:
    site, first_block = serve(ETH), world.block
    opened = reader.do("channel", "open", site.page("one.md"), "--deposit", ETH.deposit).result

    closed = reader.do("channel", "close", opened["channelId"]).result

    assert (int(closed["settled"]), int(closed["refund"])) == (0, ETH.deposit_units)
    assert len(world.transactions_since(first_block)) == 2


@ON_ANVIL
def test_a_program_pays_by_itself_within_its_limits(
    world: World, serve: Serve, currency: Currency, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = serve(currency)
    account = world.chain.accounts[3]
    state = tmp_path_factory.mktemp("payer") / "payer.sqlite3"
    limits = Limits(
        token=currency.token,
        price_max=currency.price_units,
        deposit_max=currency.deposit_units,
        deposit=currency.deposit_units,
    )
    with (
        closing(Payer(account.private_key, world.rpc_url, state, limits=[limits])) as payer,
        httpx2.Client(auth=ChannelPayAuth(payer)) as client,
    ):
        answers = [client.get(site.page(name)) for name in PAID_PAGES * 2]
        (entry,) = payer.channels()
        foreseen = payer.foresee_close(entry.channel_id)
        closed = payer.close_channel(entry.channel_id)

    assert [answer.status_code for answer in answers] == [200] * 6
    assert len(closed.transaction_hash) == 32
    assert world.contract.state(entry.channel).settled == 6 * currency.price_units
    assert foreseen.settled == 6 * currency.price_units


def _until_finalized(world: World, reader: Person, opened: dict[str, str]) -> dict[str, str]:
    """The channel, once the payee's site has closed it."""
    topic = keccak256(b"ChannelClosed(bytes32,address,address,uint256,uint256)")
    topics = [[topic], [bytes.fromhex(opened["channelId"][2:])]]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not world.connection.logs(world.contract.deployment.contract, topics, 0, world.block):
        assert time.monotonic() < deadline, "the payee did not close the channel in time"
        time.sleep(0.05)
    channel: dict[str, str] = reader.do("channel", "show", opened["channelId"]).result
    return channel
