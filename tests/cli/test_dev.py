"""``channelpay dev``: one line for programs, a table for people, and a clean end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from channelpay.chain.connection import connect
from channelpay.chain.contract import Erc20, PaymentChannelsContract
from channelpay.protocol.types import Address, Deployment
from channelpay.testing.rpc_client import rpc_call

PROGRAM = [sys.executable, "-c", "from channelpay.cli.dev import dev; dev()"]


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


def test_a_person_gets_a_table_with_whole_keys_marked_as_public() -> None:
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
    assert "10000 ETH, 1000000 TUSD" in text
    assert "public test keys" in text


def narrow_terminal() -> dict[str, str]:
    return os.environ | {"COLUMNS": "80", "TERM": "xterm"}


def read_until(terminal: int, end: str) -> str:
    text = ""
    while end not in text:
        text += os.read(terminal, 65_536).decode()
    return text


@pytest.mark.parametrize("options", [["--grace-period", "599"], ["--port", "65536"]])
def test_settings_that_cannot_be_are_refused(options: list[str]) -> None:
    done = subprocess.run([*PROGRAM, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert options[0] in done.stderr
