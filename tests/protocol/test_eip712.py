"""Vouchers are hashed and signed as EIP-712 says, and accepted exactly when the contract does."""

from __future__ import annotations

import pytest
from eth_account import Account
from eth_account.datastructures import SignedMessage
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import (
    InvalidSignature,
    MalleableSignature,
    PaymentRefused,
    SignerMismatch,
    WrongRecoveryId,
)
from channelpay.protocol.eip712 import (
    VoucherChecker,
    VoucherHasher,
    VoucherSigner,
    close_authorization_digest,
    sign_close_authorization,
)
from channelpay.protocol.types import Address, ChannelId, Deployment, Voucher
from tests.protocol.strategies import (
    CURVE_ORDER,
    addresses,
    amounts,
    channel_ids,
    deployments,
    secrets,
)

DEPLOYMENT = Deployment(31337, Address(b"\x11" * 20))
HASHER = VoucherHasher(DEPLOYMENT)
SIGNER = VoucherSigner(DEPLOYMENT, b"\x01" * 32)
CHANNEL_ID = ChannelId(b"\x22" * 32)
GOOD = SIGNER.sign(CHANNEL_ID, 7)
R, S, V = GOOD.signature[:32], GOOD.signature[32:64], GOOD.signature[64:]
TOO_HIGH = [number.to_bytes(32, "big") for number in (CURVE_ORDER, CURVE_ORDER + 1, 2**256 - 1)]


def voucher_with(signature: bytes) -> Voucher:
    return Voucher(GOOD.channel_id, GOOD.cumulative_amount, signature)


def signed_by_eth_account(
    kind: str, deployment: Deployment, channel_id: ChannelId, amount: int, secret: bytes
) -> SignedMessage:
    domain = {
        "name": "EVM Payment Channel",
        "version": "1",
        "chainId": deployment.chain_id,
        "verifyingContract": deployment.contract,
    }
    fields = {"channelId": "bytes32", "cumulativeAmount": "uint128"}
    types = {kind: [{"name": name, "type": type_} for name, type_ in fields.items()]}
    message = {"channelId": channel_id, "cumulativeAmount": amount}
    signed: SignedMessage = Account.sign_message(encode_typed_data(domain, types, message), secret)
    return signed


@given(deployments, channel_ids, amounts, secrets)
def test_signature_is_the_one_of_eth_account(
    deployment: Deployment, channel_id: ChannelId, amount: int, secret: bytes
) -> None:
    signed = signed_by_eth_account("Voucher", deployment, channel_id, amount, secret)

    signer = VoucherSigner(deployment, secret)
    voucher = signer.sign(channel_id, amount)
    assert voucher.signature == bytes(signed.signature)
    assert signer.address == bytes.fromhex(Account.from_key(secret).address[2:])
    assert VoucherHasher(deployment).digest(channel_id, amount) == bytes(signed.message_hash)


@given(deployments, channel_ids, amounts, secrets)
def test_close_authorization_is_the_one_of_eth_account(
    deployment: Deployment, channel_id: ChannelId, amount: int, secret: bytes
) -> None:
    signed = signed_by_eth_account("CloseAuthorization", deployment, channel_id, amount, secret)

    signature = sign_close_authorization(deployment, secret, channel_id, amount)
    assert signature == bytes(signed.signature)
    digest = close_authorization_digest(deployment, channel_id, amount)
    assert digest == bytes(signed.message_hash)
    assert digest != VoucherHasher(deployment).digest(channel_id, amount)


@given(deployments, channel_ids, amounts, secrets)
def test_own_voucher_is_accepted(
    deployment: Deployment, channel_id: ChannelId, amount: int, secret: bytes
) -> None:
    signer = VoucherSigner(deployment, secret)
    VoucherHasher(deployment).check(signer.sign(channel_id, amount), signer.address)


@given(deployments, channel_ids, amounts, addresses)
def test_voucher_binds_chain_contract_channel_and_amount(
    deployment: Deployment, channel_id: ChannelId, amount: int, contract: Address
) -> None:
    digest = VoucherHasher(deployment).digest(channel_id, amount)
    other_chain = Deployment(deployment.chain_id + 1, deployment.contract)
    other_contract = Deployment(deployment.chain_id, Address(bytes([contract[0] ^ 1]) * 20))
    other_id = ChannelId(bytes([channel_id[0] ^ 1]) + channel_id[1:])
    others = {
        VoucherHasher(other_chain).digest(channel_id, amount),
        VoucherHasher(deployment).digest(other_id, amount),
        VoucherHasher(deployment).digest(channel_id, amount ^ 1),
    }
    if other_contract != deployment:
        others.add(VoucherHasher(other_contract).digest(channel_id, amount))
    assert digest not in others


@pytest.mark.parametrize(
    ("signature", "error"),
    [
        (b"", InvalidSignature),
        (R + S, InvalidSignature),
        (R + S + V + b"\0", InvalidSignature),
        (bytes(32) + S + V, InvalidSignature),
        (R + bytes(32) + V, InvalidSignature),
        (bytes(64) + V, InvalidSignature),
        *((r + S + V, InvalidSignature) for r in TOO_HIGH),
        *((R + s + V, MalleableSignature) for s in TOO_HIGH),
        (R + (CURVE_ORDER // 2 + 1).to_bytes(32, "big") + V, MalleableSignature),
        *((R + S + bytes([v]), WrongRecoveryId) for v in (0, 1, 2, 26, 29, 255)),
        (R + S + bytes([55 - V[0]]), WrongRecoveryId),
    ],
)
def test_signature_in_another_form_is_refused_with_its_code(
    signature: bytes, error: type[InvalidSignature]
) -> None:
    with pytest.raises(InvalidSignature) as refusal:
        HASHER.check(voucher_with(signature), SIGNER.address)
    assert type(refusal.value) is error


def test_high_s_twin_of_a_good_signature_is_refused() -> None:
    s = (CURVE_ORDER - int.from_bytes(S, "big")).to_bytes(32, "big")
    with pytest.raises(MalleableSignature):
        HASHER.check(voucher_with(R + s + bytes([55 - V[0]])), SIGNER.address)


def test_half_of_the_order_is_low_enough() -> None:
    """The contract's bound is inclusive; the signature is no longer this signer's, that is all."""
    half = (CURVE_ORDER // 2).to_bytes(32, "big")
    with pytest.raises(SignerMismatch):
        HASHER.check(voucher_with(R + half + V), SIGNER.address)


@given(secrets)
def test_another_signer_is_a_mismatch(secret: bytes) -> None:
    stranger = VoucherSigner(DEPLOYMENT, secret)
    if stranger.address != SIGNER.address:
        with pytest.raises(SignerMismatch):
            HASHER.check(stranger.sign(CHANNEL_ID, 7), SIGNER.address)


@given(st.binary(min_size=65, max_size=65), channel_ids, amounts)
def test_random_signature_is_refused(signature: bytes, channel_id: ChannelId, amount: int) -> None:
    with pytest.raises(PaymentRefused):
        HASHER.check(Voucher(channel_id, amount, signature), SIGNER.address)


def test_nobody_signs_for_the_zero_address() -> None:
    with pytest.raises(PaymentRefused):
        HASHER.check(voucher_with(bytes(65)), Address(bytes(20)))


def test_signer_does_not_print_its_key() -> None:
    assert "01" * 32 not in repr(SIGNER) + str(vars(SIGNER))


@given(secret=secrets, channel_id=channel_ids, amount=amounts)
def test_a_checker_takes_what_the_signer_signed(
    secret: bytes, channel_id: ChannelId, amount: int
) -> None:
    signer, checker = VoucherSigner(DEPLOYMENT, secret), VoucherChecker(HASHER)

    for cumulative in (0, amount, amount):
        checker.check(signer.sign(channel_id, cumulative), signer.address)


@given(change=st.integers(0, 64), bits=st.integers(1, 255), amount=amounts)
def test_a_checker_that_knows_the_key_refuses_what_the_strict_check_refuses(
    change: int, bits: int, amount: int
) -> None:
    checker, genuine = VoucherChecker(HASHER), SIGNER.sign(CHANNEL_ID, amount)
    checker.check(genuine, SIGNER.address)
    changed = bytearray(genuine.signature)
    changed[change] ^= bits
    voucher = Voucher(CHANNEL_ID, amount, bytes(changed))
    if HASHER.with_other_v(genuine) == voucher:
        return

    with pytest.raises(PaymentRefused) as strict:
        HASHER.check(voucher, SIGNER.address)
    with pytest.raises(type(strict.value)):
        checker.check(voucher, SIGNER.address)


def test_a_checker_binds_channel_amount_and_signer() -> None:
    checker, other = VoucherChecker(HASHER), VoucherSigner(DEPLOYMENT, b"\x02" * 32)
    checker.check(GOOD, SIGNER.address)
    checker.check(other.sign(CHANNEL_ID, 7), other.address)

    for voucher, signer in (
        (Voucher(CHANNEL_ID, 8, GOOD.signature), SIGNER.address),
        (Voucher(ChannelId(b"\x99" * 32), 7, GOOD.signature), SIGNER.address),
        (GOOD, other.address),
    ):
        with pytest.raises(SignerMismatch):
            checker.check(voucher, signer)


def test_a_checker_refuses_a_high_s_of_a_key_that_it_knows() -> None:
    checker = VoucherChecker(HASHER)
    checker.check(GOOD, SIGNER.address)
    s = CURVE_ORDER - int.from_bytes(GOOD.signature[32:64], "big")
    v = bytes([55 - GOOD.signature[64]])
    high = Voucher(CHANNEL_ID, 7, GOOD.signature[:32] + s.to_bytes(32, "big") + v)

    with pytest.raises(MalleableSignature):
        checker.check(high, SIGNER.address)


@given(amount=amounts)
def test_the_wrong_v_is_put_right_before_it_is_settled(amount: int) -> None:
    genuine = SIGNER.sign(CHANNEL_ID, amount)
    flipped = HASHER.with_other_v(genuine)

    assert HASHER.with_right_v(genuine, SIGNER.address) == genuine
    assert HASHER.with_right_v(flipped, SIGNER.address) == genuine
    with pytest.raises(SignerMismatch):
        HASHER.with_right_v(Voucher(CHANNEL_ID, amount ^ 1, flipped.signature), SIGNER.address)


def test_the_first_voucher_of_a_signer_is_checked_strictly() -> None:
    with pytest.raises(WrongRecoveryId):
        VoucherChecker(HASHER).check(HASHER.with_other_v(GOOD), SIGNER.address)


def test_the_keys_that_a_checker_keeps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("channelpay.protocol.eip712.KEYS_MAX", 2)
    checker = VoucherChecker(HASHER)
    signers = [VoucherSigner(DEPLOYMENT, bytes([number]) * 32) for number in range(1, 5)]
    for signer in [*signers, *signers]:
        checker.check(signer.sign(CHANNEL_ID, 1), signer.address)

    assert len(checker._keys) == 2
