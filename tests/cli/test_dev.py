"""``channelpay dev``: one line for programs, a table for people, and a clean end; and the commands
that steer a chain which runs.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from channelpay.chain import keystore
from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.cli.root import cli
from channelpay.errors import NetworkError
from channelpay.protocol.types import NATIVE, Address, Deployment
from channelpay.testing import anvil_chain, embedded_chain, fake_chain, furnish
from channelpay.testing.channels import ChannelFactory
from channelpay.testing.furnished import FurnishedChain, furnished_at
from channelpay.testing.http_server import serving
from channelpay.testing.rpc_client import rpc_call
from channelpay.testing.status import StatusPage, read_status

PROGRAM = [sys.executable, "-c", "from channelpay.cli import main; main()", "dev"]
SOMEBODY = "0x1111111111111111111111111111111111111111"
ETHER, TOKEN = 10**18, 10**6


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [*PROGRAM, "--port", "0", *options], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def to_bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


@pytest.mark.parametrize("options", [[], ["--anvil"]], ids=["embedded", "anvil"])
def test_the_line_says_what_is_there(options: list[str]) -> None:
    with running(*options, "--grace-period", "600") as (_, members):
        connection = connect(members["rpcUrl"], expected_chain_id=members["chainId"])
        deployment = Deployment(members["chainId"], Address(to_bytes(members["contract"])))
        contract = PaymentChannelsContract(connection, deployment)
        contract.require_genuine()
        assert contract.grace_period_seconds() == members["gracePeriodSeconds"] == 600
        token = Erc20(connection, Address(to_bytes(members["token"])))
        assert token.symbol() == members["tokenSymbol"]
        assert token.decimals() == members["tokenDecimals"]
        assert len(members["accounts"]) == 10
        for account in members["accounts"]:
            address = Address(to_bytes(account["address"]))
            assert connection.balance_wei(address) == int(account["balance"])
            assert token.balance(address) == int(account["tokenBalance"])


@pytest.mark.parametrize(
    ("options", "number"), [([], signal.SIGINT), (["--anvil"], signal.SIGTERM)]
)
def test_a_signal_ends_it_with_exit_code_0_and_no_more_output(
    options: list[str], number: signal.Signals
) -> None:
    with running(*options) as (process, members):
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
        with pytest.raises(Exception, match="no answer"):
            rpc_call(members["rpcUrl"], "eth_chainId")


def test_a_person_gets_tables_of_80_columns_with_whole_keys_marked_as_public() -> None:
    main, side = pty.openpty()
    process = subprocess.Popen([*PROGRAM, "--port", "0"], stdout=side, env=narrow_terminal())
    os.close(side)
    try:
        text = read_until(main, "Ctrl-C")
    finally:
        process.terminate()
        process.wait()
        os.close(main)
    assert "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80" in text
    assert "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" in text
    assert "10000 ETH and 1000000 TUSD" in text
    assert "public test keys" in text
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())) <= 80


def narrow_terminal() -> dict[str, str]:
    return os.environ | {"COLUMNS": "80", "TERM": "xterm"}


def read_until(terminal: int, end: str) -> str:
    read = b""
    while end.encode() not in read:
        read += os.read(terminal, 65_536)
    return read.decode(errors="replace")


@pytest.mark.parametrize("options", [["--grace-period", "599"], ["--port", "65536"]])
def test_settings_that_cannot_be_are_refused(options: list[str]) -> None:
    done = subprocess.run([*PROGRAM, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert options[0] in done.stderr


# --- steering a chain that runs ----------------------------------------------------------------

Steer = Callable[..., Any]


@pytest.fixture(scope="module", params=[embedded_chain, anvil_chain, fake_chain])
def whole(request: pytest.FixtureRequest) -> Iterator[FurnishedChain]:
    with request.param() as chain:
        yield furnish(chain)


@pytest.fixture
def running_chain(whole: FurnishedChain) -> Iterator[FurnishedChain]:
    before = whole.chain.snapshot()
    yield whole
    whole.chain.revert(before)


@pytest.fixture
def steer(running_chain: FurnishedChain) -> Steer:
    """``steer("advance", "1d")`` is the JSON that the command prints."""

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(cli, ["dev", *arguments, "--rpc", running_chain.rpc_url])
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    return run


def problem(*arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(cli, ["dev", *arguments])
    return done.exit_code, json.loads(done.stderr)


def test_advance_moves_the_time_of_the_next_block(
    running_chain: FurnishedChain, steer: Steer
) -> None:
    before = running_chain.chain.latest_block()[1]
    answer = steer("advance", "1d")
    assert answer["advancedSeconds"] == 86_400
    assert 86_400 <= answer["time"] - before < 86_400 + 60
    assert (answer["block"], answer["time"]) == running_chain.chain.latest_block()


def test_revert_goes_back_to_a_snapshot_once(running_chain: FurnishedChain, steer: Steer) -> None:
    kept = steer("snapshot")
    running_chain.chain.mine(3)
    assert steer("revert", kept["snapshot"])["block"] == kept["block"]
    code, told = problem("revert", kept["snapshot"], "--rpc", running_chain.rpc_url)
    assert (code, told["code"]) == (2, "config")


def test_the_faucet_gives_ether_and_tokens_every_time(steer: Steer) -> None:
    steer("faucet", SOMEBODY, "--eth", "5", "--tokens", "1.5")
    answer = steer("faucet", SOMEBODY, "--eth", "0", "--tokens", "0.25")
    assert answer == {
        "address": SOMEBODY,
        "balance": str(5 * ETHER),
        "tokenBalance": str(TOKEN * 7 // 4),
    }


def test_the_faucet_knows_the_accounts_of_the_keystore(
    steer: Steer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNELPAY_HOME", str(tmp_path))
    monkeypatch.setenv("ETH_ACCOUNT_KDF", "pbkdf2")
    address = keystore.create(tmp_path, "alice", "for tests only")

    assert steer("faucet", "alice")["address"] == "0x" + address.hex()
    assert problem("faucet", "bob") == (5, ANY)


def test_status_tells_of_block_time_accounts_and_channels(
    running_chain: FurnishedChain, steer: Steer
) -> None:
    factory = ChannelFactory(running_chain)
    first = factory(3 * ETHER)
    second = factory(7 * TOKEN, token=running_chain.token)
    second.settle(second.sign(2 * TOKEN))
    first.request_close()

    told = steer("status")

    assert (told["block"], told["time"]) == running_chain.chain.latest_block()
    assert told["contract"] == "0x" + running_chain.contract.hex()
    assert told["accounts"][1]["tokenBalance"] == str(10**12 - 7 * TOKEN)
    assert told["channelCount"] == 2
    newest, oldest = told["channels"]
    assert newest["channelId"] == "0x" + second.id.hex()
    assert (newest["status"], newest["settled"]) == ("open", str(2 * TOKEN))
    assert (oldest["status"], oldest["deposit"]) == ("closing", str(3 * ETHER))


def test_a_furnished_chain_is_found_again_by_its_url(running_chain: FurnishedChain) -> None:
    found = furnished_at(running_chain.rpc_url)
    assert (found.deployment, found.token) == (running_chain.deployment, running_chain.token)
    assert (found.token_symbol, found.token_decimals) == ("TUSD", 6)
    assert found.grace_seconds == running_chain.grace_seconds


def test_a_chain_without_the_contract_is_told_so() -> None:
    with fake_chain() as bare:
        code, told = problem("status", "--rpc", bare.rpc_url)
    assert (code, told["code"]) == (2, "config")
    assert "neither" in told["detail"]


class _Node:
    """A node that is none of ours."""

    def answer(self, body: bytes) -> bytes:
        answers = {"web3_clientVersion": "Geth/v1.14", "eth_chainId": "0x7a69"}
        result = answers[json.loads(body)["method"]]
        return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


@pytest.mark.parametrize(
    "command", [["advance", "1d"], ["snapshot"], ["revert", "0x1"], ["faucet", SOMEBODY]]
)
def test_a_node_that_is_no_development_chain_is_left_alone(command: list[str]) -> None:
    with serving(_Node()) as url:
        code, told = problem(*command, "--rpc", url)
    assert code == 2
    assert "no development chain" in told["detail"]


def test_where_nothing_runs_it_is_a_network_error() -> None:
    assert problem("snapshot", "--rpc", "http://127.0.0.1:1")[0] == NetworkError.exit_code


@pytest.mark.parametrize("command", ["advance", "snapshot", "revert", "faucet", "status"])
def test_the_help_of_every_command_has_an_example(command: str) -> None:
    text = CliRunner().invoke(cli, ["dev", command, "--help"]).stdout
    assert f"Example: channelpay dev {command}" in text


# --- the status page ---------------------------------------------------------------------------


def page_at(url: str, **headers: str) -> str:
    with urlopen(Request(url, headers=headers), timeout=20) as response:  # noqa: S310  loopback
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        return str(response.read().decode())


@pytest.mark.parametrize("options", [[], ["--anvil"]], ids=["embedded", "anvil"])
def test_a_browser_finds_the_page_where_the_line_says(options: list[str]) -> None:
    with running(*options) as (_, members):
        page = page_at(members["statusUrl"])
    for text in (members["rpcUrl"], "31337", "Accounts", "No channel was opened yet."):
        assert text in page
    assert "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" in page
    assert members["accounts"][0]["privateKey"] not in page


def test_the_page_shows_the_channels_and_the_time(whole: FurnishedChain) -> None:
    page = StatusPage()
    assert "The chain starts." in page()
    page.show(whole)
    before = whole.chain.snapshot()
    channel = ChannelFactory(whole)(25 * ETHER // 10)
    channel.request_close()
    assert "closing until" in page()
    whole.advance(100_000)
    status, text = read_status(whole), page()
    whole.chain.revert(before)
    assert status.amount(NATIVE, status.channels[0].state.deposit) == "2.5 ETH"
    assert "2.5 ETH" in text
    assert "0x" + channel.id.hex() in text
    assert "closing, can be withdrawn" in text
    assert re.search(r"1 d 3 h \d+ min ahead of this machine", text)


def test_a_chain_that_is_gone_makes_a_page_that_says_so() -> None:
    page = StatusPage()
    with fake_chain() as chain:
        page.show(furnish(chain))
    assert "The chain does not answer" in page()


def test_no_other_host_name_sees_the_page() -> None:
    with serving(None, page=lambda: "secret") as url:
        assert page_at(url) == "secret"
        with pytest.raises(OSError, match="403"):
            page_at(url, Host="rebound.example")
        with pytest.raises(OSError, match="404"):
            page_at(url + "/other")
