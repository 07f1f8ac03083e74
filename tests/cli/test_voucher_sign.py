"""``channelpay voucher sign``: within the books, so that nothing is signed below or above."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channelpay.chain.connection import connect
from channelpay.chain.contract import PaymentChannelsContract
from channelpay.payer.state import PayerState
from channelpay.protocol.parse import parse_channel_id, parse_signature
from channelpay.protocol.text import checksum_address
from channelpay.protocol.types import ChannelState, ChannelStatus
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.support.chains import sender_of

ETHER = 10**18


class Signing:
    """An account with a channel of one ether, and the command."""

    def __init__(self, run: Run, furnished: FurnishedChain, state: PayerState) -> None:
        self.run = run
        self.state = state
        self.furnished = furnished
        contract = "0x" + furnished.contract.hex()
        self.node = ("--rpc", furnished.rpc_url, "--contract", contract)
        self.place = ("--chain-id", str(furnished.deployment.chain_id), "--contract", contract)
        run("account", "import", "main", input=furnished.accounts[1].private_key.hex())
        payee = checksum_address(furnished.accounts[2].address)
        opened = run("channel", "open", payee, "--deposit", "1", "--yes", *self.node)
        self.channel: str = json.loads(opened.stdout)["channelId"]

    def sign(self, amount: str, *options: str, code: int = 0) -> dict[str, Any]:
        """What it says, which is an error for another code than 0 and 10. The node is not asked."""
        contract = self.node[2:]
        result = self.run("voucher", "sign", self.channel, amount, *options, *contract)
        assert result.exit_code == code, result.output
        said: dict[str, Any] = json.loads(result.stdout or result.stderr)
        return said


@pytest.fixture
def signing(run: Run, home: Path, dev_chain: FurnishedChain) -> Iterator[Signing]:
    state = PayerState(home / "payer.sqlite3")
    yield Signing(run, dev_chain, state)
    state.close()


def test_a_voucher_signed_by_hand_is_one_that_the_contract_takes(signing: Signing) -> None:
    said = signing.sign("0.25")

    checked = signing.run("voucher", "verify", *signing.place, input=json.dumps(said))
    assert checked.exit_code == 0
    amount, signature = int(said["cumulativeAmount"]), parse_signature(said["signature"])
    connection = connect(signing.furnished.rpc_url)
    contract = PaymentChannelsContract(connection, signing.furnished.deployment)
    channel = signing.state.channel(parse_channel_id(signing.channel)).channel
    anyone = sender_of(connection, signing.furnished.accounts[3])
    anyone.send(contract.settle(channel, amount, signature))
    assert contract.state(channel).settled == ETHER // 4


def test_the_books_keep_what_was_signed_by_hand(signing: Signing) -> None:
    """So nothing is signed below it, and the same amount gives the same voucher."""
    first = signing.sign("0.25")

    assert signing.sign("0.25") == first
    assert "already" in signing.sign("0.2", code=2)["detail"]
    assert signing.sign("0.3")["cumulativeAmount"] == str(3 * ETHER // 10)


def test_more_than_the_deposit_is_never_signed(signing: Signing) -> None:
    assert signing.sign("1.000000000000000001", code=4)["code"] == "amount-exceeds-deposit"
    assert signing.sign("1.1", "--dry-run", code=4)["code"] == "amount-exceeds-deposit"
    assert signing.sign("1")["cumulativeAmount"] == str(ETHER)


def test_a_dry_run_signs_nothing(signing: Signing) -> None:
    said = signing.sign("0.25", "--dry-run", code=10)

    assert (said["result"]["signed"], "signature" in str(said)) == ("0", False)
    assert signing.sign("0.1")["cumulativeAmount"] == str(ETHER // 10)


def test_a_channel_that_is_over_gets_no_voucher(signing: Signing) -> None:
    ended = ChannelState(ChannelStatus.FINALIZED, ETHER)
    signing.state.record_chain_state(parse_channel_id(signing.channel), ended)

    assert "finalized" in signing.sign("0.25", code=2)["detail"]
