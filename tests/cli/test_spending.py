"""Commands that cost money: what they would do is shown first, a person is asked, and Ctrl-C leaves
nothing that could not be gone on with.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from channelpay.chain.connection import connect
from channelpay.chain.types import Progress
from channelpay.cli.consent import about_ether
from channelpay.cli.output import Output
from channelpay.errors import ChainReverted
from channelpay.payer.wallet import Wallet
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address
from channelpay.testing import fake_chain
from channelpay.testing.fake import FakeDevChain
from channelpay.testing.furnished import FurnishedChain, furnish, give
from tests.cli.conftest import Run
from tests.cli.person import Person, person

ETHER = 10**18
_COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-7]|9[0-7])(?:;[0-9]+)*m")
Start = Callable[..., AbstractContextManager[Person]]


@pytest.fixture(scope="module")
def whole_chain() -> Iterator[FurnishedChain]:
    with fake_chain() as chain:
        yield furnish(chain)


@pytest.fixture
def node(
    whole_chain: FurnishedChain, run: Run, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FurnishedChain]:
    """A chain that is gone on with afterwards as it was, and an account with money."""
    snapshot = whole_chain.chain.snapshot()
    key = to_hex(whole_chain.chain.accounts[1].private_key)
    assert run("account", "import", "reader", input=key).exit_code == 0
    monkeypatch.setenv("CHANNELPAY_RPC", whole_chain.chain.rpc_url)
    yield whole_chain
    whole_chain.chain.revert(snapshot)


@pytest.fixture
def start(node: FurnishedChain, home: Path) -> Start:
    """Has somebody start the program with arguments and in an environment."""

    def started(*arguments: object, **changes: str) -> AbstractContextManager[Person]:
        kept = {"TERM": "xterm-256color"}
        return person(*arguments, environment=os.environ | kept | changes)

    return started


def payee_of(node: FurnishedChain) -> str:
    return checksum_address(node.chain.accounts[3].address)


def opened(run: Run, node: FurnishedChain, *options: object) -> str:
    done = run("channel", "open", payee_of(node), "--deposit", "1", *options)
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)["channelId"])


def requested(run: Run, node: FurnishedChain, *options: object) -> str:
    name = opened(run, node, *options)
    assert run("channel", "close", name, "--request").exit_code == 0
    return name


def height(node: FurnishedChain) -> int:
    return connect(node.chain.rpc_url).latest_block().number


def channels(run: Run) -> Any:
    return json.loads(run("channel", "list").stdout)


# --- dry runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["eth", "TUSD"])
@pytest.mark.parametrize("command", ["open", "top-up", "request", "withdraw"])
def test_a_dry_run_says_gas_cost_and_result_and_sends_nothing(
    run: Run, node: FurnishedChain, command: str, token: str
) -> None:
    named = ("--token", "eth" if token == "eth" else to_hex(node.token))
    name = requested(run, node, *named) if command != "open" else ""
    if command == "withdraw":
        node.chain.increase_time(node.grace_seconds)
    arguments: dict[str, tuple[object, ...]] = {
        "open": ("open", payee_of(node), "--deposit", "1", *named),
        "top-up": ("top-up", name, "0.5"),
        "request": ("close", name, "--request"),
        "withdraw": ("withdraw", name),
    }
    before, known = height(node), channels(run)

    done = run("channel", *arguments[command], "--dry-run")

    told = json.loads(done.stdout)
    assert (done.exit_code, told["dryRun"]) == (10, True), done.output
    assert 20_000 < told["gas"] < 150_000
    assert int(told["costWei"]) > 0
    assert (height(node), channels(run)) == (before, known)


def test_what_a_dry_run_says_is_what_comes_about(run: Run, node: FurnishedChain) -> None:
    name = opened(run, node)

    grown = json.loads(run("channel", "top-up", name, "0.5", "--dry-run").stdout)["result"]
    run("channel", "top-up", name, "0.5")
    ending = json.loads(run("channel", "close", name, "--request", "--dry-run").stdout)["result"]
    run("channel", "close", name, "--request")

    (found,) = channels(run)
    assert grown == {"channelId": name, "status": "open", "deposit": found["deposit"]}
    assert ending["status"] == "closing"
    # The block of the request is younger than the last one before it.
    assert 0 <= found["withdrawableAt"] - ending["withdrawableAt"] <= 60


def test_tokens_that_need_an_approval_take_two_transactions_of_which_one_can_be_tried(
    run: Run, node: FurnishedChain
) -> None:
    key = "17" * 32
    assert run("account", "import", "fresh", input=key).exit_code == 0
    give(node, Address(bytes.fromhex(Account.from_key(key).address[2:])), ETHER, 2_000_000)
    opening = ("channel", "open", payee_of(node), "--token", to_hex(node.token), "--account")

    told = json.loads(run(*opening, "fresh", "--deposit", "1", "--dry-run").stdout)
    run(*opening, "fresh", "--deposit", "1")
    too_much = run(*opening, "fresh", "--deposit", "3", "--dry-run")

    tried = {one["purpose"]: one["tried"] for one in told["transactions"]}
    assert tried == {"approve": True, "open": False}
    assert told["gas"] == sum(one["gas"] for one in told["transactions"])
    assert (too_much.exit_code, too_much.stdout) == (6, "")
    assert "has 1 TUSD and needs 3 TUSD" in json.loads(too_much.stderr)["detail"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("open", "PAYEE", "--deposit", "1000000"), 6, "wei"),
        (("open", "PAYEE", "--deposit", "99999999", "--token", "TOKEN"), 6, ""),
        (("open", "PAYEE", "--deposit", "0"), 2, "more than zero"),
        (("withdraw", "CHANNEL"), 6, "Close"),
        (("close", "CHANNEL"), 2, "where this channel was used"),
        (("close", "CHANNEL", "--url", "http://127.0.0.1:1/"), 3, "no whole answer"),
    ],
)
def test_a_dry_run_of_what_would_fail_says_why(
    run: Run, node: FurnishedChain, arguments: tuple[str, ...], code: int, says: str
) -> None:
    name = opened(run, node)
    words = {"PAYEE": payee_of(node), "TOKEN": to_hex(node.token), "CHANNEL": name}

    done = run("channel", *(words.get(one, one) for one in arguments), "--dry-run")

    assert (done.exit_code, done.stdout) == (code, "")
    assert says in json.loads(done.stderr)["detail"]


def test_a_dry_run_of_all_withdrawals_passes_over_one_that_would_fail(
    run: Run, node: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = requested(run, node), requested(run, node)
    node.chain.increase_time(node.grace_seconds)
    trial = Wallet.trial
    tried: list[object] = []

    def fail_first(self: Wallet, call: Any) -> Any:
        tried.append(call)
        if len(tried) == 1:
            raise ChainReverted("not this one")
        return trial(self, call)

    monkeypatch.setattr(Wallet, "trial", fail_first)
    done = run("channel", "withdraw", "--all", "--dry-run")

    assert (done.exit_code, json.loads(done.stderr)["channelId"]) == (6, first)
    (passed,) = json.loads(done.stdout)["result"]["channels"]
    assert (passed["channelId"], passed["refund"]) == (second, str(ETHER))


# --- questions -----------------------------------------------------------------------------------


def test_a_person_is_asked_and_no_is_no(start: Start, run: Run, node: FurnishedChain) -> None:
    with start("channel", "open", payee_of(node), "--deposit", "1.5") as asked:
        asked.reads("[y/N]")
        asked.types("n\n")
        code = asked.code()

    assert (code, channels(run)) == (4, [])
    for shown in ("1.5 ETH", payee_of(node), "of gas", "nothing was done"):
        assert shown in asked.text


def test_who_agrees_sees_each_step_and_the_result(
    start: Start, run: Run, node: FurnishedChain
) -> None:
    with start("channel", "open", payee_of(node), "--deposit", "1.5") as asked:
        asked.reads("[y/N]")
        asked.types("y\n")
        code = asked.code()

    ((entry,), text) = channels(run), asked.text
    steps = ["Opening the channel", entry["openTxHash"], "Confirmed", entry["channelId"]]
    assert code == 0
    assert [text.index(one) for one in steps] == sorted(text.index(one) for one in steps)
    assert _COLOUR.search(text)


def test_a_program_is_not_asked_and_reads_the_result_alone(
    start: Start, run: Run, node: FurnishedChain
) -> None:
    with start("channel", "open", payee_of(node), "--deposit", "1", "--json") as done:
        assert done.code() == 0

    assert [json.loads(done.text)] == channels(run)


# --- Ctrl-C --------------------------------------------------------------------------------------


@pytest.fixture
def stuck(node: FurnishedChain) -> Iterator[FakeDevChain]:
    """A chain that makes no block while one waits."""
    chain = node.chain
    assert isinstance(chain, FakeDevChain)
    chain.fake.hold_transactions()
    yield chain
    chain.fake.release_transactions()


def test_ctrl_c_while_one_waits_names_the_transaction_and_how_to_go_on(
    start: Start, run: Run, node: FurnishedChain, stuck: FakeDevChain
) -> None:
    with start("channel", "open", payee_of(node), "--deposit", "1", "--yes") as waiting:
        waiting.reads("0 of 1 confirmations")
        code = waiting.interrupts()
    sent = re.search(r"transaction (0x[0-9a-f]{64}) is sent", waiting.text)
    (before,) = channels(run)
    stuck.fake.release_transactions()
    (after,) = channels(run)

    assert (code, sent is not None) == (130, True), waiting.text
    assert "channelpay channel list" in waiting.text
    assert (before["status"], after["status"]) == ("absent", "open")
    assert sent is not None
    assert after["openTxHash"] == sent[1]


def test_ctrl_c_at_the_question_does_nothing(start: Start, run: Run, node: FurnishedChain) -> None:
    with start("channel", "open", payee_of(node), "--deposit", "1") as asked:
        asked.reads("[y/N]")
        code = asked.interrupts()

    assert (code, channels(run)) == (130, [])
    assert "Nothing was done." in asked.text


def test_a_program_that_is_interrupted_reads_the_hash_on_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output(as_json=True)
    with suppress(KeyboardInterrupt), output.waiting("Opening", after_interrupt="Look."):
        output.told(Progress(b"\x07" * 32, 0, 1))
        raise KeyboardInterrupt
    output.interrupted()

    told = json.loads(capsys.readouterr().err)
    assert (told["code"], told["exitCode"]) == ("interrupted", 130)
    assert told["txHash"] == "0x" + "07" * 32
    assert told["hint"].endswith("Look.")


# --- links ---------------------------------------------------------------------------------------


def test_who_said_yes_is_not_asked_and_gets_links_where_the_network_has_an_explorer(
    start: Start, run: Run, home: Path, node: FurnishedChain
) -> None:
    network = f'[networks.mine]\nchain_id = 31337\nrpc = "{node.chain.rpc_url}"\n'
    (home / "config.toml").write_text(
        f'network = "mine"\n{network}explorer = "https://scan.example/"\n'
    )

    opening = ("channel", "open", payee_of(node), "--deposit", "1", "--yes")
    with start(*opening, NO_COLOR="1") as done:
        assert done.code() == 0

    assert "[y/N]" not in done.text
    assert not _COLOUR.search(done.text)
    (entry,) = channels(run)
    link = f"https://scan.example/tx/{entry['openTxHash']}"
    assert entry["explorerUrl"] == link
    assert done.text.count(link) == 2  # while one waits, and in the result
    contract = json.loads(run("contract", "address").stdout)
    assert contract["explorerUrl"] == f"https://scan.example/address/{contract['address']}"


@pytest.mark.parametrize(
    ("amount_wei", "text"),
    [
        (0, "0 ETH"),
        (999, "0.000000000000000999 ETH"),
        (71_430_367_753_416, "0.0000715 ETH"),
        (999_900_000_000_000_000, "1 ETH"),
        (1_000_000_000_000_000_001, "1.01 ETH"),
    ],
)
def test_a_cost_is_rounded_up(amount_wei: int, text: str) -> None:
    assert about_ether(amount_wei) == text
