"""Looking into headers, and checking who signed a voucher."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.cli.output import Output, facts_table
from channelpay.payee.watchtower import export_line
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
)
from channelpay.protocol.wire import (
    ChallengeIssuer,
    Credential,
    Receipt,
    SessionRequest,
    Source,
    VoucherPayload,
)
from tests.cli.conftest import Run

DEPLOYMENT = Deployment(31337, Address(b"\x11" * 20))
SIGNER = VoucherSigner(DEPLOYMENT, b"\x07" * 32)
VOUCHER = SIGNER.sign(ChannelId(b"\x33" * 32), 5000)
REQUEST = SessionRequest(1000, NATIVE, Address(b"\x22" * 20), DEPLOYMENT)
CHALLENGE = ChallengeIssuer(bytes(32), "content.example").issue(REQUEST, 1_800_000_000)
CREDENTIAL = Credential(CHALLENGE, VoucherPayload(VOUCHER), Source(31337, Address(b"\x55" * 20)))
RECEIPT = Receipt(VOUCHER.channel_id, 31337, CHALLENGE.id, 5000, 4000, 1_800_000_000)
MEMBERS = {
    "channelId": to_hex(VOUCHER.channel_id),
    "cumulativeAmount": "5000",
    "signature": to_hex(VOUCHER.signature),
}
PLACE = ("--chain-id", "31337", "--contract", to_hex(DEPLOYMENT.contract))


@pytest.mark.parametrize("name", ["Authorization: ", ""])
def test_a_credential_is_shown(run: Run, name: str) -> None:
    said = json.loads(run("voucher", "decode", input=name + CREDENTIAL.to_header()).stdout)

    assert said["payload"] == {"action": "voucher", **MEMBERS}
    assert said["challenge"]["request"]["amount"] == "1000"
    assert said["source"] == str(CREDENTIAL.source)


@pytest.mark.parametrize("name", ["WWW-Authenticate: ", ""])
def test_a_challenge_is_shown(run: Run, name: str) -> None:
    said = json.loads(run("voucher", "decode", input=name + CHALLENGE.to_header()).stdout)

    assert [one["realm"] for one in said["challenges"]] == ["content.example"]


@pytest.mark.parametrize("name", ["payment-receipt: ", ""])
def test_a_receipt_is_shown(run: Run, name: str) -> None:
    said = json.loads(run("voucher", "decode", input=name + RECEIPT.to_header()).stdout)

    assert (said["spent"], said["acceptedCumulative"]) == ("4000", "5000")


def test_the_headers_of_an_answer_are_found_among_others(run: Run) -> None:
    lines = ["HTTP/1.1 402 Payment Required", "content-type: application/problem+json"]
    lines += [f"www-authenticate: {CHALLENGE.to_header()}", "date: today", ""]

    assert "challenges" in json.loads(run("voucher", "decode", input="\r\n".join(lines)).stdout)


@pytest.mark.parametrize(
    "text", ["", "HTTP/1.1 200 OK\ndate: today\n", "Payment x", "\xff", "Basic x"]
)
def test_what_is_no_payment_header_is_bad_input(run: Run, text: str) -> None:
    assert run("voucher", "decode", input=text).exit_code == 2


@given(text=st.text(max_size=200))
def test_nothing_makes_decoding_crash(text: str) -> None:
    from click.testing import CliRunner

    from channelpay.cli.root import cli

    done = CliRunner().invoke(cli, ["voucher", "decode"], input=text)

    assert done.exit_code in (0, 2)


def test_the_signer_of_a_voucher_is_named(run: Run) -> None:
    said = json.loads(run("voucher", "verify", *PLACE, input=json.dumps(MEMBERS)).stdout)

    assert said["signer"] == checksum_address(SIGNER.address)


def test_what_decode_writes_is_what_verify_reads(run: Run) -> None:
    decoded = run("voucher", "decode", input=CREDENTIAL.to_header()).stdout

    assert run("voucher", "verify", *PLACE, input=decoded).exit_code == 0


def test_another_signer_than_expected_is_refused(run: Run) -> None:
    options = (*PLACE, "--signer", to_hex(Address(b"\x55" * 20)))

    done = run("voucher", "verify", *options, input=json.dumps(MEMBERS))

    assert done.exit_code == 4


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("signature", to_hex(VOUCHER.signature[:64] + bytes([99])), 4),
        ("signature", "0x12", 2),
        ("cumulativeAmount", 5000, 2),
        ("channelId", "0x12", 2),
    ],
)
def test_a_voucher_that_the_contract_would_refuse_is_refused(
    run: Run, name: str, value: object, code: int
) -> None:
    done = run("voucher", "verify", *PLACE, input=json.dumps({**MEMBERS, name: value}))

    assert done.exit_code == code


def test_what_others_ask_for_beside_the_payment_does_not_matter(run: Run) -> None:
    text = f'WWW-Authenticate: Basic realm="payment "\nWWW-Authenticate: {CHALLENGE.to_header()}\n'

    said = json.loads(run("voucher", "decode", input=text).stdout)

    assert [one["realm"] for one in said["challenges"]] == ["content.example"]


def test_a_hostile_header_moves_no_cursor_and_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = {"[/x]\x1b[2J": "\x1b]0;title\x07[bold]x[/bold] :heart: \u202e"}

    Output(as_json=False).show({}, lambda: facts_table(hostile))

    shown = capsys.readouterr().out
    assert "[/x]\\x1b[2J" in shown
    assert "\\x1b]0;title\\x07[bold]x[/bold] :heart: \\u202e" in shown
    assert not {"\x1b", "\x07", "\u202e"} & {*shown}


CHANNEL = Channel(SIGNER.address, REQUEST.recipient, NATIVE, ZERO_ADDRESS, bytes(32))
EXPORT = export_line(
    ChannelRecord(
        CHANNEL.id(DEPLOYMENT),
        CHANNEL,
        ChannelState(ChannelStatus.OPEN, 5000),
        signature=SIGNER.sign(CHANNEL.id(DEPLOYMENT), 5000).signature,
        accepted=5000,
    ),
    DEPLOYMENT,
)


@pytest.mark.parametrize(
    ("changes", "options", "code"),
    [
        ({}, PLACE, 0),
        ({}, ("--chain-id", "1", *PLACE[2:]), 4),
        ({}, PLACE[:2], 4),
        ({"authorizedSigner": to_hex(b"\x55" * 20)}, PLACE, 2),
        ({"payer": to_hex(b"\x55" * 20)}, PLACE, 2),
        ({"cumulativeAmount": "5001"}, PLACE, 4),
    ],
)
def test_an_export_has_to_fit_its_channel_and_its_place(
    run: Run, changes: dict[str, str], options: tuple[str, ...], code: int
) -> None:
    """Every signature is somebody's, so that finding a signer proves nothing."""
    line = json.dumps(json.loads(EXPORT) | changes)

    assert run("voucher", "verify", *options, input=line).exit_code == code
