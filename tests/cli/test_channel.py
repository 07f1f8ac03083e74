"""``channelpay channel`` on a real chain: what a person types, from open to withdraw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from channelpay.chain.sender import Sender
from channelpay.cli import channel
from channelpay.cli.output import Output
from channelpay.errors import ChainReverted, NotFound
from channelpay.payer.closing import Closed
from channelpay.payer.wallet import Wallet
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import ChannelId
from channelpay.testing.accounts import MNEMONIC
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.payer.site import Ground, Site

ETHER = 10**18


@pytest.fixture
def node(
    run: Run, dev_chain: FurnishedChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FurnishedChain:
    """An imported account and the settings that name the chain."""
    (tmp_path / "secret").write_text(MNEMONIC)
    (tmp_path / "secret").chmod(0o600)
    assert run("account", "import", "dev", "--secret-file", tmp_path / "secret").exit_code == 0
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    return dev_chain


def payee_of(node: FurnishedChain) -> str:
    return checksum_address(node.chain.accounts[3].address)


def opened(run: Run, node: FurnishedChain, *options: object) -> dict[str, Any]:
    result = run("channel", "open", payee_of(node), *options)
    assert result.exit_code == 0, result.output
    members: dict[str, Any] = json.loads(result.stdout)
    return members


def test_open_list_show(run: Run, node: FurnishedChain) -> None:
    members = opened(run, node, "--deposit", "1.5")
    assert (members["deposit"], members["status"]) == (str(3 * ETHER // 2), "open")
    assert (members["payee"], members["chainId"]) == (payee_of(node), 31337)
    assert json.loads(run("channel", "list").stdout) == [members]
    assert json.loads(run("channel", "show", members["channelId"][:10]).stdout) == members


def test_amounts_are_in_units_of_the_token(run: Run, node: FurnishedChain) -> None:
    token = to_hex(node.token)
    members = opened(run, node, "--deposit", "1.5", "--token", token)
    assert members["deposit"] == "1500000"
    grown = json.loads(run("channel", "top-up", members["channelId"], "0.25").stdout)
    assert grown["deposit"] == "1750000"
    too_fine = run("channel", "top-up", members["channelId"], "0.0000001")
    assert too_fine.exit_code == 2


def test_the_books_are_listed_without_a_node_and_without_a_password(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = opened(run, node, "--deposit", "1")
    monkeypatch.delenv("CHANNELPAY_RPC")
    monkeypatch.delenv("CHANNELPAY_PASSWORD")
    assert json.loads(run("channel", "list").stdout) == [members]


def test_an_exit_without_the_payee(run: Run, node: FurnishedChain) -> None:
    channel_id = opened(run, node, "--deposit", "1")["channelId"]
    requested = json.loads(run("channel", "close", channel_id, "--request").stdout)
    assert requested["status"] == "closing"
    early = run("channel", "withdraw", channel_id)
    assert (early.exit_code, json.loads(early.stderr)["code"]) == (6, "transaction-reverted")
    shown = json.loads(run("channel", "show", channel_id).stdout)
    assert shown["withdrawableAt"] == requested["withdrawableAt"]
    node.chain.increase_time(node.grace_seconds)
    done = json.loads(run("channel", "withdraw", channel_id).stdout)
    assert (done["status"], done["refund"], done["settled"]) == ("finalized", str(ETHER), "0")


def test_each_unit_of_money_is_somewhere_and_what_is_next_has_a_time(
    run: Run, node: FurnishedChain
) -> None:
    channel_id = opened(run, node, "--deposit", "1")["channelId"]

    def listed() -> Any:
        (channel,) = json.loads(run("channel", "list").stdout)
        return channel

    assert listed()["money"]["available"] == str(ETHER)
    assert (listed()["next"]["action"], listed()["next"]["at"]) == ("pay", None)
    run("channel", "close", channel_id, "--request")
    closing = listed()
    assert closing["money"]["inGrace"] == str(ETHER)
    assert closing["withdrawableAt"] == closing["closeRequestedAt"] + node.grace_seconds
    assert (closing["next"]["action"], closing["next"]["at"]) == (
        "withdraw",
        closing["withdrawableAt"],
    )
    node.chain.increase_time(node.grace_seconds)
    assert listed()["money"]["withdrawable"] == str(ETHER)
    assert run("channel", "withdraw", "--all").exit_code == 0
    assert listed()["money"]["withdrawn"] == str(ETHER)
    assert listed()["next"] == {"action": "nothing", "at": None, "text": ""}


def test_the_grace_period_is_known_without_a_node(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel_id = opened(run, node, "--deposit", "1")["channelId"]
    requested = json.loads(run("channel", "close", channel_id, "--request").stdout)
    monkeypatch.delenv("CHANNELPAY_RPC")
    (channel,) = json.loads(run("channel", "list").stdout)
    assert channel["withdrawableAt"] == requested["withdrawableAt"]


def test_all_that_can_be_is_withdrawn_though_one_fails(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [opened(run, node, "--deposit", "1")["channelId"] for _ in range(4)]
    for channel_id in ids[:3]:
        run("channel", "close", channel_id, "--request")
    node.chain.increase_time(node.grace_seconds)
    late = run("channel", "close", ids[3], "--request")
    assert late.exit_code == 0
    withdraw = Wallet.withdraw

    def fail_first(self: Wallet, channel_id: ChannelId) -> bytes:
        if to_hex(channel_id) == ids[0]:
            raise ChainReverted("not this one")
        return withdraw(self, channel_id)

    monkeypatch.setattr(Wallet, "withdraw", fail_first)
    result = run("channel", "withdraw", "--all")

    assert result.exit_code == ChainReverted.exit_code
    assert json.loads(result.stderr)["channelId"] == ids[0]
    done = [json.loads(line)["channelId"] for line in result.stdout.splitlines()]
    assert done == ids[1:3]
    channels = json.loads(run("channel", "list").stdout)
    statuses = {channel["channelId"]: channel["status"] for channel in channels}
    assert [statuses[one] for one in ids] == ["closing", "finalized", "finalized", "closing"]


def test_nothing_to_withdraw_is_fine_and_a_choice_is_needed(run: Run, node: FurnishedChain) -> None:
    none = run("channel", "withdraw", "--all")
    assert (none.exit_code, json.loads(none.stderr)) == (0, {"withdrawable": 0})
    assert run("channel", "withdraw").exit_code == 2
    assert run("channel", "withdraw", "0x12345678", "--all").exit_code == 2


def test_a_close_needs_to_know_where(run: Run, node: FurnishedChain) -> None:
    channel_id = opened(run, node, "--deposit", "1")["channelId"]
    result = run("channel", "close", channel_id)
    assert result.exit_code == 2
    assert "--url" in json.loads(result.stderr)["hint"]


def test_a_site_that_does_not_answer_is_a_network_error(run: Run, node: FurnishedChain) -> None:
    channel_id = opened(run, node, "--deposit", "1")["channelId"]
    result = run("channel", "close", channel_id, "--url", "http://127.0.0.1:1/")
    assert result.exit_code == 3
    result = run("channel", "open", "http://127.0.0.1:1/", "--deposit", "1")
    assert result.exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "0x1234"], 2),
        (["show", "0x123456"], 5),
        (["open", "nobody", "--deposit", "1"], 2),
        (["open", "0x" + "11" * 20, "--deposit", "much"], 2),
        (["open", "0x" + "11" * 20, "--deposit", "1000000"], 6),
        (["open", "0x" + "11" * 20, "--deposit", "1", "--contract", "0x" + "22" * 20], 5),
        (["open", "0x" + "11" * 20, "--deposit", "1", "--rpc", "http://127.0.0.1:1"], 3),
    ],
)
def test_what_cannot_be_is_an_error_with_its_code(
    run: Run, node: FurnishedChain, arguments: list[str], code: int
) -> None:
    result = run("channel", *arguments)
    assert result.exit_code == code, result.output
    assert json.loads(result.stderr)["detail"]
    assert json.loads(run("channel", "list").stdout) == []


def test_without_a_node_a_transaction_says_what_is_missing(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHANNELPAY_RPC")
    result = run("channel", "open", payee_of(node), "--deposit", "1")
    assert (result.exit_code, "--rpc" in result.stderr) == (2, True)


def test_a_channel_is_named_by_digits_that_are_its_own(tmp_path: Path) -> None:
    ground = Ground(tmp_path, Site())
    entries = [
        replace(ground.open(), channel_id=ChannelId(bytes.fromhex(f"abcdef{n:02x}")))
        for n in (1, 2)
    ]
    state = SimpleNamespace(channels=lambda payer: entries)
    found = channel._find(state, ground.payer, "0xABCDEF02")  # type: ignore[arg-type]
    assert found is entries[1]
    with pytest.raises(NotFound, match="several channels begin"):
        channel._find(state, ground.payer, "abcdef")  # type: ignore[arg-type]


def interrupted(*_: object) -> None:
    """What Ctrl-C does while the program waits."""
    raise KeyboardInterrupt


def test_ctrl_c_while_a_transaction_is_under_way_says_what_to_run_which_finds_it(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Sender, "wait", interrupted)
        result = run("channel", "open", payee_of(node), "--deposit", "1")
    assert result.exit_code == 130
    assert "channelpay channel list" in result.stderr
    (entry,) = json.loads(run("channel", "list").stdout)
    assert (entry["status"], entry["deposit"]) == ("open", str(ETHER))


def test_a_person_gets_tables_with_symbols_and_whole_ids(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = opened(run, node, "--deposit", "1.5")
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))
    listed = run("channel", "list", env={"COLUMNS": "200"}).stdout
    assert members["channelId"][:10] in listed
    assert "1.5 ETH" in listed
    assert "available" in listed
    shown = run("channel", "show", members["channelId"], env={"COLUMNS": "60"}).stdout
    whole = "".join(line.split("│")[2].strip() for line in shown.splitlines() if "│" in line)
    assert members["channelId"] in whole
    assert "1.5 ETH" in shown


def test_a_node_of_another_chain_than_the_networks_gets_no_transaction(
    run: Run, node: FurnishedChain
) -> None:
    result = run("--network", "base", "channel", "open", payee_of(node), "--deposit", "1")

    assert result.exit_code == 3
    assert "8453" in result.stderr
    assert "--network" in json.loads(result.stderr.splitlines()[-1])["hint"]
    assert json.loads(run("channel", "list").stdout) == []


def test_a_payees_word_is_no_refund(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel_id = opened(run, node, "--deposit", "1")["channelId"]
    claimed = Closed(SimpleNamespace(), b"\x07" * 32)  # type: ignore[arg-type]
    monkeypatch.setattr("channelpay.payer.httpx.run_bare", lambda *_: claimed)
    monkeypatch.setattr("channelpay.payer.wallet.CLOSE_SEEN_SECONDS", 0.1)

    result = run("channel", "close", channel_id, "--url", "http://127.0.0.1:1/page")

    assert (result.exit_code, result.stdout) == (3, "")
    problem = json.loads(result.stderr)
    assert (problem["code"], problem["txHash"]) == ("not-confirmed", "0x" + "07" * 32)
    assert "--request" in problem["hint"]


@pytest.mark.parametrize("command", ["list", "show"])
def test_the_books_are_shown_where_the_node_fails(
    run: Run, node: FurnishedChain, command: str
) -> None:
    """Also where the node is that of the settings file, which no option takes away."""
    members = opened(run, node, "--deposit", "1")
    name = [] if command == "list" else [members["channelId"]]

    result = run("channel", command, *name, "--rpc", "http://127.0.0.1:1")

    assert json.loads(result.stdout) == ([members] if command == "list" else members)
    assert result.exit_code == 3
    assert "the books" in json.loads(result.stderr)["hint"]
