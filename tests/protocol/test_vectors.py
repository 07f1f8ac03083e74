"""The golden vectors, checked with the library's fast path and with eth-account."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from channelpay.errors import PaymentRefused
from channelpay.protocol.eip712 import (
    VOUCHER_TYPEHASH,
    VoucherHasher,
    VoucherSigner,
    close_authorization_digest,
    domain_separator,
    sign_close_authorization,
)
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address
from channelpay.protocol.wire import (
    Challenge,
    ChallengeIssuer,
    Credential,
    Receipt,
    SessionRequest,
    parse_challenges,
    parse_time,
)
from tests.protocol.vectors import (
    VOUCHERS,
    WIRE,
    channel_of,
    deployment_of,
    description,
    from_hex,
    voucher_of,
)

SCRIPT = Path(__file__).parents[2] / "scripts" / "vectors.py"

each_voucher = pytest.mark.parametrize("vector", VOUCHERS["vouchers"], ids=description)
each_invalid = pytest.mark.parametrize("vector", VOUCHERS["invalid"], ids=description)
each_close_authorization = pytest.mark.parametrize(
    "vector", VOUCHERS["closeAuthorizations"], ids=description
)
each_challenge = pytest.mark.parametrize("vector", WIRE["challenges"], ids=description)
each_credential = pytest.mark.parametrize("vector", WIRE["credentials"], ids=description)
each_receipt = pytest.mark.parametrize("vector", WIRE["receipts"], ids=description)


def test_vectors_are_what_the_script_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_voucher
def test_channel_id_lane_and_epoch(vector: dict[str, Any]) -> None:
    channel = channel_of(vector)
    assert to_hex(channel.id(deployment_of(vector))) == vector["channelId"]
    assert to_hex(channel.lane) == vector["lane"]
    assert channel.epoch == vector["epoch"]
    assert to_hex(channel.signer) == vector["signer"]


@each_voucher
def test_fast_path_hashes_the_voucher(vector: dict[str, Any]) -> None:
    voucher, deployment = voucher_of(vector), deployment_of(vector)
    amount = voucher.cumulative_amount.to_bytes(32, "big")
    struct_hash = keccak256(VOUCHER_TYPEHASH + voucher.channel_id + amount)
    digest = VoucherHasher(deployment).digest(voucher.channel_id, voucher.cumulative_amount)
    assert to_hex(domain_separator(deployment)) == vector["domainSeparator"]
    assert to_hex(struct_hash) == vector["structHash"]
    assert to_hex(digest) == vector["digest"]


@each_voucher
def test_fast_path_signs_and_accepts_the_voucher(vector: dict[str, Any]) -> None:
    voucher, deployment = voucher_of(vector), deployment_of(vector)
    signer = VoucherSigner(deployment, from_hex(vector["privateKey"]))
    assert signer.sign(voucher.channel_id, voucher.cumulative_amount) == voucher
    assert to_hex(signer.address) == vector["signer"]
    VoucherHasher(deployment).check(voucher, signer.address)


@each_voucher
def test_eth_account_recovers_the_signer(vector: dict[str, Any]) -> None:
    voucher = voucher_of(vector)
    domain = {
        "name": "EVM Payment Channel",
        "version": "1",
        "chainId": vector["chainId"],
        "verifyingContract": vector["contract"],
    }
    fields = {"channelId": "bytes32", "cumulativeAmount": "uint128"}
    types = {"Voucher": [{"name": name, "type": kind} for name, kind in fields.items()]}
    message = {
        "channelId": voucher.channel_id,
        "cumulativeAmount": voucher.cumulative_amount,
    }
    signable = encode_typed_data(domain, types, message)
    recovered = Account.recover_message(signable, signature=voucher.signature)
    assert recovered.lower() == vector["signer"]


@each_invalid
def test_invalid_vouchers_are_refused_with_their_code(vector: dict[str, Any]) -> None:
    hasher = VoucherHasher(deployment_of(vector))
    with pytest.raises(PaymentRefused) as refusal:
        hasher.check(voucher_of(vector), Address(from_hex(vector["signer"])))
    assert refusal.value.code == vector["code"]


@each_close_authorization
def test_close_authorization_of_the_payee(vector: dict[str, Any]) -> None:
    deployment, voucher = deployment_of(vector), voucher_of(vector)
    signed = (voucher.channel_id, voucher.cumulative_amount)
    digest = close_authorization_digest(deployment, *signed)
    signature = sign_close_authorization(deployment, from_hex(vector["privateKey"]), *signed)
    assert channel_of(vector).id(deployment) == voucher.channel_id
    assert (to_hex(digest), signature) == (vector["digest"], voucher.signature)
    assert vector["signer"] == vector["channel"]["payee"]


@each_challenge
def test_challenge_header_says_what_the_vector_says(vector: dict[str, Any]) -> None:
    [challenge] = parse_challenges([vector["header"]])
    assert challenge == Challenge(**vector["challenge"])
    assert challenge.to_header() == vector["header"]


@each_challenge
def test_issuer_makes_and_knows_the_challenge(vector: dict[str, Any]) -> None:
    issuer = ChallengeIssuer(from_hex(WIRE["secret"]), WIRE["realm"])
    challenge = Challenge(**vector["challenge"])
    request = SessionRequest.decode(challenge.request)
    expires_at = challenge.expires_at
    assert expires_at is not None
    assert issuer.issue(request, expires_at) == challenge
    assert issuer.check(challenge, expires_at) == request


@each_challenge
def test_request_members(vector: dict[str, Any]) -> None:
    request, members = SessionRequest.decode(vector["challenge"]["request"]), vector["request"]
    deposit = members.get("suggestedDeposit")
    assert str(request.amount) == members["amount"]
    assert to_hex(request.currency) == members["currency"].lower()
    assert to_hex(request.recipient) == members["recipient"].lower()
    assert request.deployment.chain_id == members["methodDetails"]["chainId"]
    assert to_hex(request.deployment.contract) == members["methodDetails"]["escrowContract"].lower()
    assert request.unit_type == members["unitType"]
    assert request.suggested_deposit == (None if deposit is None else int(deposit))
    assert request.description == members.get("description")
    assert request.encode() == vector["challenge"]["request"]


@each_credential
def test_credential_header_says_what_the_vector_says(vector: dict[str, Any]) -> None:
    credential, members = Credential.parse(vector["header"]), vector["members"]
    source = None if credential.source is None else str(credential.source)
    assert credential.challenge.members() == members["challenge"]
    assert credential.payload.members() == members["payload"]
    assert source == members.get("source")
    assert credential.to_header() == vector["header"]


@each_receipt
def test_receipt_header_says_what_the_vector_says(vector: dict[str, Any]) -> None:
    receipt, members = Receipt.parse(vector["header"]), vector["members"]
    transaction_hash = receipt.transaction_hash
    assert to_hex(receipt.channel_id) == members["channelId"] == members["reference"]
    assert receipt.chain_id == members["chainId"]
    assert receipt.challenge_id == members["challengeId"]
    assert str(receipt.accepted) == members["acceptedCumulative"]
    assert str(receipt.spent) == members["spent"]
    assert receipt.timestamp == parse_time(members["timestamp"]).timestamp()
    assert (transaction_hash and to_hex(transaction_hash)) == members.get("txHash")
    assert receipt.to_header() == vector["header"]
