"""Each exit code that ``docs/reference/errors.md`` names is what such a command ends with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from channelpay.cli import contract
from channelpay.cli.output import Output
from channelpay.errors import ChannelPayError
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
COMMANDS = {
    0: ("contract", "address"),
    1: ("contract", "abi"),
    2: ("channel", "open", "nobody", "--deposit", "1"),
    3: ("contract", "verify", "--rpc", "http://127.0.0.1:1"),
    4: ("channel", "open", "PAYEE", "--deposit", "1"),
    5: ("account", "show", "nobody"),
    6: ("channel", "open", "PAYEE", "--deposit", "1000000"),
    10: ("channel", "open", "PAYEE", "--deposit", "1", "--dry-run"),
    130: ("contract", "abi"),
}
RAISED = {1: ChannelPayError("nobody thought of this"), 130: KeyboardInterrupt()}
"""What happens while the command runs."""


def documented() -> set[int]:
    return {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)}


def test_the_documented_codes_are_those_that_are_tried_here() -> None:
    assert documented() == COMMANDS.keys()


@pytest.mark.parametrize("code", COMMANDS)
def test_a_command_ends_with_the_code_and_an_error_names_it(
    run: Run, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    key = to_hex(dev_chain.chain.accounts[1].private_key)
    assert run("account", "import", "reader", input=key).exit_code == 0
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    payee = checksum_address(dev_chain.chain.accounts[3].address)
    if code in RAISED:
        failing = Mock(side_effect=RAISED[code])
        monkeypatch.setitem(contract._ARTIFACTS, contract.PAYMENT_CHANNELS, failing)
    if code == 4:
        monkeypatch.setattr(Output, "has_a_person", True)

    done = run(*(payee if one == "PAYEE" else one for one in COMMANDS[code]), input="n\n")

    assert done.exit_code == code, done.output
    if code not in (0, 10):
        assert json.loads(done.stderr.splitlines()[-1])["exitCode"] == code
        assert done.stdout == ""
