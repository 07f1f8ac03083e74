"""``channelpay watch`` on a real chain, from the vouchers that a payee exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from channelpay.cli.consent import DRY_RUN_PASSED
from channelpay.cli.watch import watch
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import ChannelStatus
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.cli.test_payee import Publisher, opened, pay
from tests.payee.shop import PRICE, OpenChannel


class Friend:
    """Somebody with gas money and the exported vouchers of a publisher."""

    def __init__(self, run: Run, publisher: Publisher, export: Path, key: str) -> None:
        self.run = run
        self.publisher = publisher
        self.export = export
        assert run("account", "import", "friend", input=key).exit_code == 0

    def publish(self) -> None:
        result = self.run("payee", "export", self.export)
        assert result.exit_code == 0, result.output

    def watch(self, *more: object) -> Result:
        return self.run("watch", self.export, "--account", "friend", *more)


@pytest.fixture
def publisher(
    run: Run, home: Path, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> Publisher:
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    monkeypatch.setenv("CHANNELPAY_CONTRACT", to_hex(dev_chain.deployment.contract))
    state = home / "site"
    state.mkdir(parents=True)
    return Publisher(run, dev_chain, state)


@pytest.fixture
def owed(publisher: Publisher) -> OpenChannel:
    with publisher.site() as shop:
        channel = opened(shop)
        pay(shop, channel, PRICE)
        pay(shop, channel, 2 * PRICE)
    return channel


@pytest.fixture
def friend(
    run: Run, publisher: Publisher, owed: OpenChannel, dev_chain: FurnishedChain, tmp_path: Path
) -> Friend:
    key = dev_chain.chain.accounts[5].private_key.hex()
    made = Friend(run, publisher, tmp_path / "vouchers.jsonl", key)
    made.publish()
    return made


def plans(result: Result) -> Any:
    assert result.exit_code == DRY_RUN_PASSED, result.output
    return json.loads(result.stdout)


def test_the_first_part_of_the_grace_period_is_left_to_the_payee(
    friend: Friend, owed: OpenChannel, dev_chain: FurnishedChain
) -> None:
    friend.publisher.payer.request_close(owed)
    assert plans(friend.watch("--dry-run")) == []
    (plan,) = plans(friend.watch("--dry-run", "--wait", "0"))
    assert (plan["kind"], plan["reason"]) == ("settle", "close requested")
    dev_chain.chain.increase_time(dev_chain.grace_seconds // 4)
    assert len(plans(friend.watch("--dry-run"))) == 1


def test_a_close_request_is_answered_by_settling_and_the_money_is_the_payees(
    friend: Friend, owed: OpenChannel
) -> None:
    publisher = friend.publisher
    publisher.payer.request_close(owed)
    before = publisher.tokens
    result = friend.watch("--once", "--wait", "0")
    assert result.exit_code == 0, result.output
    state = publisher.on_chain(owed)
    assert (state.status, state.settled) == (ChannelStatus.CLOSING, 2 * PRICE)
    assert publisher.tokens - before == 2 * PRICE


def test_a_channel_that_nobody_wants_closed_is_left_alone(
    friend: Friend, owed: OpenChannel
) -> None:
    assert friend.watch("--once").exit_code == 0
    assert friend.publisher.on_chain(owed).settled == 0


def test_bad_lines_are_said_and_the_good_ones_are_used(friend: Friend, owed: OpenChannel) -> None:
    friend.export.write_text("nonsense\n" + friend.export.read_text())
    friend.publisher.payer.request_close(owed)
    result = friend.watch("--once", "--wait", "0")
    assert result.exit_code == 0, result.output
    assert "bad-export" in result.stderr
    assert friend.publisher.on_chain(owed).settled == 2 * PRICE


def test_vouchers_of_nobody_are_an_error_with_a_way_out(friend: Friend) -> None:
    friend.export.write_text("")
    empty = friend.watch("--once")
    assert (empty.exit_code, "--payee" in json.loads(empty.stderr)["hint"]) == (5, True)
    friend.export.unlink()
    gone = friend.watch("--once")
    assert (gone.exit_code, "export" in json.loads(gone.stderr)["hint"]) == (5, True)


def test_the_help_has_an_example() -> None:
    assert (watch.epilog or "").startswith("Example: channelpay watch ")
    assert watch.help
