"""``channelpay payee`` on a real chain, with books that real payments filled."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20
from channelpay.chain.types import Trial
from channelpay.cli.consent import DRY_RUN_PASSED
from channelpay.cli.output import Output
from channelpay.errors import ChainReverted
from channelpay.payee.closer import Closer
from channelpay.payee.policy import Kind
from channelpay.payee.watchtower import parse_line
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelId, ChannelState, ChannelStatus
from channelpay.store import ChainView, open_store
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.cli.person import person
from tests.payee.shop import DEPOSIT, PRICE, OpenChannel, Payer, Shop, opened_shop
from tests.support.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]


class Publisher:
    """Somebody with a site, its books and the key of the account that is paid."""

    def __init__(self, run: Run, node: FurnishedChain, state: Path) -> None:
        self.run = run
        self.state = state
        self.payer = Payer(node)
        self._node = node
        self._connection = connect(node.chain.rpc_url)
        self._account = node.chain.accounts[2]
        key = self._account.private_key.hex()
        assert run("account", "import", "publisher", input=key).exit_code == 0

    @contextmanager
    def site(self) -> Iterator[Shop]:
        with opened_shop(self._node, self.state, self.payer) as shop:
            yield shop

    def do(self, *arguments: object) -> list[Any]:
        """The lines of a command that has to succeed."""
        result = self.run("payee", *arguments)
        assert result.exit_code == 0, result.output
        return lines(result.stdout)

    def plans(self, *arguments: object) -> list[Any]:
        """What a command would do."""
        result = self.run("payee", *arguments, "--dry-run")
        assert result.exit_code == DRY_RUN_PASSED, result.output
        (plans,) = lines(result.stdout)
        return list(plans)

    def listed(self) -> dict[str, dict[str, Any]]:
        return {entry["channelId"]: entry for entry in json.loads(self.run("payee", "list").stdout)}

    @property
    def payee(self) -> str:
        return to_hex(self._account.address)

    def refresh(self, channel: OpenChannel) -> None:
        """Enter what the chain says of a channel, as a follower does."""
        with closing(open_store(f"sqlite:///{self.state / 'books.sqlite3'}")) as store:
            block = self._connection.latest_block().number
            store.update_chain(channel.id, ChainView(self.on_chain(channel), block)).result()

    @property
    def tokens(self) -> int:
        return Erc20(self._connection, self._node.token).balance(self._account.address)

    @property
    def wei(self) -> int:
        return self._connection.balance_wei(self._account.address)

    @property
    def block(self) -> int:
        return self._connection.latest_block().number

    def on_chain(self, channel: OpenChannel) -> ChannelState:
        return self.payer.contract.state(channel.channel)


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def opened(shop: Shop) -> OpenChannel:
    return asyncio.run(shop.opened())


def pay(shop: Shop, channel: OpenChannel, cumulative: int) -> None:
    response = asyncio.run(shop.pay(channel, cumulative))
    assert response.status_code == 200, response.text


@pytest.fixture
def publisher(
    run: Run, home: Path, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> Publisher:
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    state = home / "site"
    state.mkdir(parents=True)
    return Publisher(run, dev_chain, state)


@pytest.fixture
def owed(publisher: Publisher) -> list[OpenChannel]:
    """Two channels that paid for pages, the second for twice as many, of a site that is down."""
    with publisher.site() as shop:
        channels = [opened(shop), opened(shop)]
        for pages, channel in enumerate(channels, start=1):
            for number in range(1, pages + 1):
                pay(shop, channel, number * PRICE)
    return channels


def test_settle_takes_what_is_accepted_beyond_settled_and_the_channel_goes_on(
    publisher: Publisher,
) -> None:
    with publisher.site() as shop:
        channel = opened(shop)
        name = to_hex(channel.id)
        # The second voucher promises more than the page costs: that is taken as well.
        for cumulative, taken in ((PRICE, PRICE), (5 * PRICE, 4 * PRICE)):
            pay(shop, channel, cumulative)
            before = publisher.tokens
            (line,) = publisher.do("settle", name[:12])
            assert (line["channelId"], line["status"]) == (name, "open")
            assert line["amount"] == str(taken)
            assert publisher.tokens - before == taken
            assert publisher.on_chain(channel).settled == cumulative
        pay(shop, channel, 6 * PRICE)
    entry = publisher.listed()[name]
    assert (entry["settled"], entry["unsettled"]) == (str(5 * PRICE), str(PRICE))


def test_a_second_settle_sends_nothing_and_says_so(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    assert len(publisher.do("settle", "--all")) == 2
    before = publisher.block
    result = publisher.run("payee", "settle", "--all")
    assert (result.exit_code, result.stdout) == (0, "")
    skipped = {line["channelId"]: line["skipped"] for line in lines(result.stderr)}
    assert skipped == {to_hex(one.id): "there is nothing to take" for one in owed}
    assert publisher.block == before


def test_close_takes_what_is_promised_and_gives_the_rest_back(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    before = publisher.tokens
    closed = publisher.do("close", "--all")
    assert sorted(int(line["amount"]) for line in closed) == [PRICE, 2 * PRICE]
    assert publisher.tokens - before == 3 * PRICE
    for pages, channel in enumerate(owed, start=1):
        state = publisher.on_chain(channel)
        assert state.status is ChannelStatus.FINALIZED
        assert (state.deposit, state.settled) == (DEPOSIT, pages * PRICE)
    assert {entry["status"] for entry in publisher.listed().values()} == {"finalized"}
    assert publisher.do("close", "--all") == []
    again = publisher.run("payee", "close", to_hex(owed[0].id))
    assert (again.exit_code, again.stdout) == (0, "")
    assert json.loads(again.stderr)["skipped"] == "it is closed already"


def test_a_payer_who_never_returns_costs_the_payee_gas_and_nothing_else(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    tokens, wei = publisher.tokens, publisher.wei
    (line,) = publisher.do("close", to_hex(owed[1].id))
    assert publisher.tokens - tokens == 2 * PRICE
    assert wei - publisher.wei == int(line["feeWei"]) > 0


def test_a_payee_whose_site_is_down_is_paid_in_full_within_the_grace_period(
    publisher: Publisher, owed: list[OpenChannel], dev_chain: FurnishedChain
) -> None:
    channel, payer = owed[1], publisher.payer
    payer.request_close(channel)
    dev_chain.chain.increase_time(dev_chain.grace_seconds // 2)
    before = publisher.tokens
    (line,) = publisher.do("settle", to_hex(channel.id))
    assert (line["status"], line["amount"]) == ("closing", str(2 * PRICE))
    dev_chain.chain.increase_time(dev_chain.grace_seconds // 2)
    token = Erc20(payer.sender.connection, dev_chain.token)
    held = token.balance(payer.sender.address)
    payer.sender.send(payer.contract.withdraw(channel.channel))
    assert token.balance(payer.sender.address) - held == DEPOSIT - 2 * PRICE
    assert publisher.tokens - before == 2 * PRICE


def test_what_the_payer_withdrew_meanwhile_is_found_on_the_chain(
    publisher: Publisher, owed: list[OpenChannel], dev_chain: FurnishedChain
) -> None:
    channel = owed[0]
    publisher.payer.request_close(channel)
    dev_chain.chain.increase_time(dev_chain.grace_seconds)
    publisher.payer.sender.send(publisher.payer.contract.withdraw(channel.channel))
    result = publisher.run("payee", "settle", to_hex(channel.id))
    assert json.loads(result.stderr)["skipped"] == "it is closed already"
    entry = publisher.listed()[to_hex(channel.id)]
    assert (entry["status"], entry["unsettled"]) == ("finalized", "0")


@pytest.mark.parametrize("command", ["settle", "close"])
def test_a_channel_that_fails_does_not_stop_the_others(
    publisher: Publisher, owed: list[OpenChannel], command: str
) -> None:
    first, second = sorted(owed, key=lambda channel: channel.id)
    with closing(sqlite3.connect(publisher.state / "books.sqlite3")) as books, books:
        books.execute(
            "UPDATE channels SET signature = zeroblob(65) WHERE channel_id = ?", [first.id]
        )
    result = publisher.run("payee", command, "--all")
    (problem,) = lines(result.stderr)
    assert (result.exit_code, problem["code"]) == (4, "wrong-recovery-id")
    assert problem["channelId"] == to_hex(first.id)
    with closing(sqlite3.connect(publisher.state / "books.sqlite3")) as books:
        begun = books.execute("SELECT closes_begun FROM channels WHERE channel_id = ?", [first.id])
        assert begun.fetchone() == (0,)
    (line,) = lines(result.stdout)
    assert line["channelId"] == to_hex(second.id)
    assert publisher.on_chain(first).settled == 0
    assert publisher.on_chain(second).settled == int(line["amount"]) > 0


def test_the_books_are_listed_without_a_node_and_without_a_password(
    publisher: Publisher, owed: list[OpenChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHANNELPAY_RPC")
    monkeypatch.delenv("CHANNELPAY_PASSWORD")
    entry = publisher.listed()[to_hex(owed[1].id)]
    amounts = {name: entry[name] for name in ("deposit", "accepted", "spent", "settled")}
    assert amounts == {
        "deposit": str(DEPOSIT),
        "accepted": str(2 * PRICE),
        "spent": str(2 * PRICE),
        "settled": "0",
    }
    assert (entry["unsettled"], entry["status"]) == (str(2 * PRICE), "open")


def test_a_person_gets_amounts_in_units_of_the_token_where_a_node_tells_them(
    publisher: Publisher, owed: list[OpenChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))
    wide = {"COLUMNS": "200"}
    listed = publisher.run("payee", "list", env=wide).stdout
    assert to_hex(owed[0].id)[:10] in listed
    assert "0.02 TUSD" in listed
    without = publisher.run("payee", "list", env=wide | {"CHANNELPAY_RPC": ""}).stdout
    assert f"{2 * PRICE} base units" in without
    settled = publisher.run("payee", "settle", to_hex(owed[1].id), env=wide).stdout
    assert "0.02 TUSD" in settled
    assert " ETH" in settled
    assert to_hex(owed[1].id) in settled


def test_all_leaves_channels_of_another_contract_alone_and_a_named_one_is_an_error(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    foreign = _with_foreign_channel(publisher, owed[0])
    result = publisher.run("payee", "settle", "--all")
    assert (result.exit_code, len(lines(result.stdout))) == (0, 2)
    assert json.loads(result.stderr)["channelId"] == to_hex(foreign)
    named = publisher.run("payee", "settle", to_hex(foreign), to_hex(owed[0].id))
    assert (named.exit_code, "--contract" in json.loads(named.stderr)["hint"]) == (2, True)


def _with_foreign_channel(publisher: Publisher, like: OpenChannel) -> ChannelId:
    deployment = replace(publisher.payer.contract.deployment, chain_id=1)
    channel = replace(like.channel, salt=os.urandom(32))
    record = ChannelRecord(channel.id(deployment), channel, ChannelState(ChannelStatus.OPEN, 5))
    with closing(open_store(f"sqlite:///{publisher.state / 'books.sqlite3'}")) as store:
        store.add_channel(record.channel_id, channel, ChainView(record.chain, 1)).result()
    return record.channel_id


@pytest.mark.parametrize("command", ["settle", "close"])
def test_what_to_take_is_said_in_one_way(
    publisher: Publisher, owed: list[OpenChannel], command: str
) -> None:
    def failed(*arguments: object) -> Result:
        result = publisher.run("payee", command, *arguments)
        assert result.stdout == ""
        return result

    assert failed().exit_code == 2
    assert failed("--all", to_hex(owed[0].id)).exit_code == 2
    assert failed("0x1234").exit_code == 2
    # Before anything is sent: the first one is there.
    assert failed(to_hex(owed[0].id), "0x" + "00" * 32).exit_code == 5
    assert publisher.on_chain(owed[0]).settled == 0


def test_channels_of_one_token_are_settled_in_one_transaction_and_share_its_fee(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    wei = publisher.wei
    taken = publisher.do("settle", "--all")
    assert len({line["txHash"] for line in taken}) == 1
    assert {line["channelId"]: line["amount"] for line in taken} == {
        to_hex(owed[0].id): str(PRICE),
        to_hex(owed[1].id): str(2 * PRICE),
    }
    assert wei - publisher.wei == sum(int(line["feeWei"]) for line in taken)


@pytest.mark.parametrize(("command", "kind"), [("settle", "settle"), ("close", "close")])
def test_a_dry_run_shows_what_it_would_do_and_cost_and_does_nothing(
    publisher: Publisher, owed: list[OpenChannel], command: str, kind: str
) -> None:
    before, wei = publisher.block, publisher.wei
    (plan,) = publisher.plans(command, "--all")
    assert (plan["kind"], plan["reason"], plan["value"]) == (kind, "asked", str(3 * PRICE))
    assert {*plan["channels"]} == {to_hex(one.id) for one in owed}
    assert int(plan["costWei"]) > plan["gas"] > 60_000
    # Tried: the estimate of the policy has a margin.
    assert plan["gas"] < {"settle": 72_000, "close": 85_000}[kind]
    assert (publisher.block, publisher.wei) == (before, wei)
    (line, _) = publisher.do(command, "--all")
    spent = wei - publisher.wei
    assert 3 * spent <= 4 * int(plan["costWei"]) <= 5 * spent
    assert line["txHash"]


def test_status_says_what_is_owed_and_by_when_a_close_has_to_be_answered(
    publisher: Publisher, owed: list[OpenChannel], dev_chain: FurnishedChain
) -> None:
    ((token,), closing_ones, pending, carried) = publisher.do("status")[0].values()
    assert (token["channels"], token["accepted"]) == (2, str(3 * PRICE))
    assert (token["unsettled"], closing_ones, pending + carried) == (str(3 * PRICE), [], [])

    publisher.payer.request_close(owed[0])
    publisher.do("settle", to_hex(owed[1].id))
    publisher.refresh(owed[0])
    (one,) = publisher.do("status")[0]["closing"]
    assert (one["channelId"], one["late"]) == (to_hex(owed[0].id), False)
    requested_at = publisher.on_chain(owed[0]).close_requested_at
    assert one["deadline"] == requested_at + dev_chain.grace_seconds

    dev_chain.chain.increase_time(dev_chain.grace_seconds - 3600)
    late = publisher.run("payee", "status")
    assert (late.exit_code, json.loads(late.stdout)["closing"][0]["late"]) == (1, True)
    without = publisher.run("payee", "status", env={"CHANNELPAY_RPC": ""})
    assert (without.exit_code, json.loads(without.stdout)["closing"][0]["deadline"]) == (0, None)


def test_run_once_does_what_the_policy_says_and_nothing_else(
    publisher: Publisher, owed: list[OpenChannel], dev_chain: FurnishedChain
) -> None:
    publisher.do("run", "--once")
    assert [publisher.on_chain(one).settled for one in owed] == [0, 0]
    token = to_hex(dev_chain.token)
    value = f"{token}=0.02"
    (plan,) = publisher.plans("run", "--settle-value", value)
    assert (plan["reason"], plan["channels"]) == ("value", [to_hex(owed[1].id)])
    publisher.do("run", "--once", "--settle-value", value)
    assert [publisher.on_chain(one).settled for one in owed] == [0, 2 * PRICE]


def test_run_answers_a_close_that_was_requested_while_nobody_looked(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    publisher.payer.request_close(owed[1])
    (plan,) = publisher.plans("run")
    assert (plan["kind"], plan["reason"]) == ("close", "close requested")
    publisher.do("run", "--once")
    state = publisher.on_chain(owed[1])
    assert (state.status, state.settled) == (ChannelStatus.FINALIZED, 2 * PRICE)
    assert publisher.listed()[to_hex(owed[1].id)]["status"] == "finalized"


def test_run_ends_with_the_code_of_what_is_wrong(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    poor = "11" * 32
    assert publisher.run("account", "import", "poor", input=poor).exit_code == 0
    publisher.payer.request_close(owed[1])
    payee = publisher.payee
    result = publisher.run("payee", "run", "--once", "--account", "poor", "--payee", payee)
    assert result.exit_code == 6
    assert "no-gas-money" in result.stderr


def test_somebody_elses_account_can_settle_and_cannot_close(
    publisher: Publisher, owed: list[OpenChannel], dev_chain: FurnishedChain
) -> None:
    key = dev_chain.chain.accounts[5].private_key.hex()
    assert publisher.run("account", "import", "friend", input=key).exit_code == 0
    name = to_hex(owed[0].id)
    refused = publisher.run("payee", "close", name, "--account", "friend")
    assert (refused.exit_code, "payee" in json.loads(refused.stderr)["detail"]) == (2, True)
    (line,) = publisher.do("settle", name, "--account", "friend")
    assert line["amount"] == str(PRICE)


def test_an_export_has_the_best_voucher_of_what_is_owed(
    publisher: Publisher, owed: list[OpenChannel], tmp_path: Path
) -> None:
    publisher.do("settle", to_hex(owed[0].id))
    (said,) = publisher.do("export", tmp_path / "vouchers.jsonl")
    assert said["vouchers"] == 1
    (line,) = lines((tmp_path / "vouchers.jsonl").read_text())
    assert (line["channelId"], line["cumulativeAmount"]) == (to_hex(owed[1].id), str(2 * PRICE))
    exported = parse_line(json.dumps(line).encode())
    assert exported.voucher == owed[1].sign(2 * PRICE)


def test_books_elsewhere_are_named_by_their_url_which_holds_no_password(
    publisher: Publisher, owed: list[OpenChannel], tmp_path: Path
) -> None:
    moved = tmp_path / "moved.sqlite3"
    (publisher.state / "books.sqlite3").rename(moved)
    assert (
        len(json.loads(publisher.run("payee", "list", "--store", f"sqlite:///{moved}").stdout)) == 2
    )
    environment = {"CHANNELPAY_STORE": f"sqlite:///{moved}"}
    assert len(json.loads(publisher.run("payee", "list", env=environment).stdout)) == 2
    secret = "postgresql://site:hidden@127.0.0.1/books"
    refused = publisher.run("payee", "list", "--store", secret)
    assert (refused.exit_code, "hidden" in refused.output) == (2, False)


def test_books_in_postgresql_are_settled_like_others(
    publisher: Publisher, dev_chain: FurnishedChain, postgres_url: str
) -> None:
    with opened_shop(dev_chain, publisher.state, publisher.payer, store=postgres_url) as shop:
        channel = opened(shop)
        pay(shop, channel, PRICE)
    environment = {"CHANNELPAY_STORE": postgres_url}
    status = publisher.run("payee", "status", env=environment)
    assert json.loads(status.stdout)["tokens"][0]["unsettled"] == str(PRICE)
    settled = publisher.run("payee", "settle", "--all", env=environment)
    assert json.loads(settled.stdout)["amount"] == str(PRICE)
    publisher.payer.request_close(channel)
    assert publisher.run("payee", "run", "--once", env=environment).exit_code == 0
    (entry,) = json.loads(publisher.run("payee", "list", env=environment).stdout)
    assert (entry["status"], entry["settled"]) == ("closing", str(PRICE))
    backup = publisher.run("payee", "backup", publisher.state / "copy", env=environment)
    assert (backup.exit_code, "pg_dump" in json.loads(backup.stderr)["hint"]) == (2, True)


def test_without_books_the_folder_is_asked_for(run: Run, home: Path, tmp_path: Path) -> None:
    for command in (["list"], ["settle", "--all"]):
        result = run("payee", *command, "--state", tmp_path / "elsewhere")
        assert (result.exit_code, "--state" in json.loads(result.stderr)["hint"]) == (5, True)
    assert not (tmp_path / "elsewhere").exists()


def test_a_dry_run_leaves_out_what_the_contract_would_refuse_and_says_why(
    publisher: Publisher, owed: list[OpenChannel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the batch that it is in is tried channel by channel."""
    trial = Closer.trial

    def refuse_first(self: Closer, kind: Kind, records: Sequence[ChannelRecord]) -> Trial:
        if owed[0].id in {record.channel_id for record in records}:
            raise ChainReverted("not this one")
        return trial(self, kind, records)

    monkeypatch.setattr(Closer, "trial", refuse_first)
    result = publisher.run("payee", "settle", "--all", "--dry-run")

    assert (result.exit_code, json.loads(result.stderr)["channelId"]) == (6, to_hex(owed[0].id))
    (plan,) = json.loads(result.stdout)
    assert plan["channels"] == [to_hex(owed[1].id)]


def test_a_payee_is_asked_and_sees_what_it_agrees_to(
    publisher: Publisher, owed: list[OpenChannel]
) -> None:
    before = publisher.block
    settling = ("payee", "settle", "--all")
    with person(*settling, environment=os.environ | {"TERM": "xterm-256color"}) as asked:
        asked.reads("Send this transaction? [y/N]")
        asked.types("n\n")
        declined = asked.code(), publisher.block
    with person(*settling, environment=os.environ | {"TERM": "xterm-256color"}) as asked:
        asked.reads("[y/N]")
        asked.types("y\n")
        agreed = asked.code()

    assert (declined, agreed) == ((4, before), 0)
    assert asked.text.count("Sent ") == 1
    assert "and 1 more" in asked.text
    assert [publisher.on_chain(one).settled for one in owed] == [PRICE, 2 * PRICE]
