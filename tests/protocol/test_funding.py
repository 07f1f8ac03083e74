"""Signed funding: what is signed, for which channel it is good, and how it goes over the wire."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from channelpay.errors import InputError, InvalidSignature, MalformedCredential, MethodUnsupported
from channelpay.protocol.carried import CarriedGas
from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.funding import (
    Authorization,
    FundingMethod,
    PermitTransfer,
    SignedAuthorization,
    TokenDomain,
    TransferAuthorization,
    TypedMessage,
    is_for_open,
    is_for_top_up,
    open_authorization,
    signer_of,
    top_up_authorization,
)
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import (
    AMOUNT_MAX,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    Deployment,
    Voucher,
)
from channelpay.protocol.wire import (
    ChallengeIssuer,
    Credential,
    SessionRequest,
    SignedOpenPayload,
    SignedTopUpPayload,
    canonical_json,
    decode_base64url,
    encode_base64url,
)

DEPLOYMENT = Deployment(31337, Address(b"\xcc" * 20))
DOMAIN = TokenDomain("Test Dollar", "1", 31337, Address(b"\xdd" * 20))
CHANNEL = Channel(
    Address(b"\x01" * 20), Address(b"\x02" * 20), DOMAIN.token, ZERO_ADDRESS, b"\x03" * 32
)
SALT = b"\x04" * 32
ISSUER = ChallengeIssuer(b"s" * 32, "site")
REQUEST = SessionRequest(
    1, DOMAIN.token, CHANNEL.payee, DEPLOYMENT, carried=CarriedGas((FundingMethod.EIP3009,))
)
addresses = st.binary(min_size=20, max_size=20).map(Address)
words = st.binary(min_size=32, max_size=32)
channels = st.builds(Channel, addresses, addresses, addresses, addresses, words)
amounts = st.integers(1, AMOUNT_MAX)
times = st.integers(0, 2**40)
methods = st.sampled_from(FundingMethod)


@settings(max_examples=25)
@given(methods, channels, amounts, times, st.none() | words)
def test_the_digest_is_that_of_the_typed_data(
    method: FundingMethod, channel: Channel, amount: int, ends_at: int, salt: bytes | None
) -> None:
    authorization = _authorization(method, channel, amount, ends_at, salt)

    digest, typed = _digest_and_typed(authorization, replace(DOMAIN, token=channel.token))

    encoded = encode_typed_data(typed.domain, typed.types, typed.message)
    assert digest == keccak256(b"\x19" + encoded.version + encoded.header + encoded.body)


@settings(max_examples=25)
@given(methods, channels, amounts, times, channels)
def test_an_open_is_good_for_its_own_channel_and_contract_alone(
    method: FundingMethod, channel: Channel, amount: int, ends_at: int, other: Channel
) -> None:
    authorization = open_authorization(method, DEPLOYMENT, channel, amount, ends_at)

    assert is_for_open(authorization, DEPLOYMENT, channel)
    for name in ("payer", "payee", "token", "authorized_signer", "salt"):
        changed = replace(channel, **{name: getattr(other, name)})
        assert is_for_open(authorization, DEPLOYMENT, changed) == (changed == channel)


@settings(max_examples=25)
@given(methods, channels, amounts, times, words, channels)
def test_a_top_up_is_good_for_its_own_channel_alone(
    method: FundingMethod, channel: Channel, amount: int, ends_at: int, salt: bytes, other: Channel
) -> None:
    authorization = top_up_authorization(method, DEPLOYMENT, channel, amount, ends_at, salt)

    assert is_for_top_up(authorization, DEPLOYMENT, channel, salt)
    assert is_for_top_up(authorization, DEPLOYMENT, other, salt) == (other == channel)
    assert not is_for_open(authorization, DEPLOYMENT, channel)


def test_all_that_is_signed_for_one_open_has_one_nonce() -> None:
    """So the contract, the token or Permit2 takes one of them at most."""
    for method in FundingMethod:
        first = open_authorization(method, DEPLOYMENT, CHANNEL, 5, 100)
        second = open_authorization(method, DEPLOYMENT, CHANNEL, 6, 200)

        assert first.nonce == second.nonce


def test_the_amount_is_in_the_nonce_of_a_top_up() -> None:
    salted = [
        top_up_authorization(FundingMethod.EIP3009, DEPLOYMENT, CHANNEL, amount, 100, SALT)
        for amount in (5, 6)
    ]

    assert salted[0].nonce != salted[1].nonce
    assert isinstance(salted[0], TransferAuthorization)
    assert not is_for_top_up(replace(salted[0], amount=6), DEPLOYMENT, CHANNEL, SALT)


def test_the_signer_of_a_digest_is_found() -> None:
    signer = VoucherSigner(DEPLOYMENT, b"\x05" * 32)
    voucher = signer.sign(ChannelId(SALT), 7)
    digest = signer._hasher.digest(ChannelId(SALT), 7)

    assert signer_of(digest, voucher.signature) == signer.address
    for signature in (voucher.signature + b"\x00", voucher.signature[:64] + b"\x00", bytes(65)):
        with pytest.raises(InvalidSignature):
            signer_of(digest, signature)


@settings(max_examples=25)
@given(methods, channels, amounts, times, words, st.binary(min_size=65, max_size=1024))
def test_credentials_come_back_as_they_were(
    method: FundingMethod,
    channel: Channel,
    amount: int,
    ends_at: int,
    salt: bytes,
    signature: bytes,
) -> None:
    channel_id = channel.id(DEPLOYMENT)
    voucher = Voucher(channel_id, 1, bytes(65))
    opening = open_authorization(method, DEPLOYMENT, channel, amount, ends_at)
    adding = top_up_authorization(method, DEPLOYMENT, channel, amount, ends_at, salt)
    shown_salt = salt if method is FundingMethod.EIP3009 else b""
    payloads = (
        SignedOpenPayload(
            SignedAuthorization(opening, signature),
            channel.salt,
            channel.authorized_signer,
            voucher,
        ),
        SignedTopUpPayload(channel_id, SignedAuthorization(adding, signature), shown_salt),
    )

    for payload in payloads:
        credential = Credential(ISSUER.issue(REQUEST, 1e10), payload)
        assert Credential.parse(credential.to_header()) == credential


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "transaction"),
        ("authorization", "0x00"),
        ("authorization.value", 5),
        ("authorization.value", "-5"),
        ("authorization.validBefore", str(2**256)),
        ("authorization.nonce", "0x00"),
        ("authorization.to", None),
        ("signature", "0x" + "00" * 64),
        ("signature", "0x" + "00" * 1025),
        ("signature", "0x" + "0" * 131),
        ("voucherSignature", None),
        ("salt", None),
    ],
)
def test_a_malformed_authorization_is_refused(name: str, value: object) -> None:
    authorization = open_authorization(FundingMethod.EIP3009, DEPLOYMENT, CHANNEL, 5, 100)
    voucher = Voucher(CHANNEL.id(DEPLOYMENT), 1, bytes(65))
    payload = SignedOpenPayload(
        SignedAuthorization(authorization, bytes(65)), CHANNEL.salt, ZERO_ADDRESS, voucher
    )

    with pytest.raises(MalformedCredential):
        Credential.parse(_header_with(payload, name, value))


def test_another_amount_than_the_authorized_one_is_refused() -> None:
    authorization = top_up_authorization(FundingMethod.EIP3009, DEPLOYMENT, CHANNEL, 5, 100, SALT)
    signed = SignedAuthorization(authorization, bytes(65))
    payload = SignedTopUpPayload(CHANNEL.id(DEPLOYMENT), signed, SALT)

    with pytest.raises(MalformedCredential, match="additionalDeposit"):
        Credential.parse(_header_with(payload, "additionalDeposit", "6"))


@settings(max_examples=25)
@given(
    st.lists(methods, min_size=1, unique=True).map(tuple), st.integers(0, 10), st.integers(11, 20)
)
def test_an_offer_comes_back_as_it_was(
    offered: tuple[FundingMethod, ...], least: int, most: int
) -> None:
    request = replace(REQUEST, carried=CarriedGas(offered, least, most))

    assert SessionRequest.decode(request.encode()) == request


def test_what_the_drafts_offer_is_understood() -> None:
    details: dict[str, Any] = {"feePayer": True, "credentialTypes": ["permit2", "authorization"]}

    request = _decoded(details)

    assert request.carried == CarriedGas((FundingMethod.PERMIT2, FundingMethod.EIP3009))
    assert not request.takes_hash


@pytest.mark.parametrize(
    "details",
    [
        {"feePayer": True},
        {"feePayer": False, "credentialTypes": ["hash", "permit2"]},
        {"feePayer": "true", "credentialTypes": ["hash", "permit2"]},
        {"feePayer": True, "credentialTypes": ["hash", "voucher", {}]},
        {
            "feePayer": True,
            "credentialTypes": ["hash", "permit2"],
            "permit2Contract": "0x" + "11" * 20,
        },
    ],
)
def test_what_is_not_offered_is_not_read_into_it(details: dict[str, Any]) -> None:
    request = _decoded(details)

    assert request.carried is None
    assert request.takes_hash


@pytest.mark.parametrize(
    ("details", "error"),
    [
        ({"credentialTypes": ["permit2"]}, MethodUnsupported),
        ({"credentialTypes": "hash"}, MethodUnsupported),
        (
            {"feePayer": True, "credentialTypes": ["permit2"], "minCarriedDeposit": 5},
            InputError,
        ),
    ],
)
def test_an_offer_that_cannot_be_answered_is_refused(
    details: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        _decoded(details)


def _authorization(
    method: FundingMethod, channel: Channel, amount: int, ends_at: int, salt: bytes | None
) -> Authorization:
    facts = (method, DEPLOYMENT, channel, amount, ends_at)
    return open_authorization(*facts) if salt is None else top_up_authorization(*facts, salt)


def _digest_and_typed(
    authorization: Authorization, domain: TokenDomain
) -> tuple[bytes, TypedMessage]:
    if isinstance(authorization, PermitTransfer):
        return authorization.digest(DEPLOYMENT), authorization.typed(DEPLOYMENT)
    return authorization.digest(domain), authorization.typed(domain)


def _header_with(payload: SignedOpenPayload | SignedTopUpPayload, name: str, value: object) -> str:
    """A credential with one member of its payload changed, or left out."""
    members = {
        "challenge": ISSUER.issue(REQUEST, 1e10).members(),
        "payload": payload.members(),
    }
    place = members["payload"]
    *path, last = name.split(".")
    for step in path:
        place = place[step]
    place.pop(last)
    if value is not None:
        place[last] = value
    return f"Payment {encode_base64url(canonical_json(members).encode())}"


def _decoded(details: dict[str, Any]) -> SessionRequest:
    """A challenge's request with these members of ``methodDetails`` more."""
    members = json.loads(decode_base64url(replace(REQUEST, carried=None).encode(), "request"))
    members["methodDetails"] |= details
    return SessionRequest.decode(encode_base64url(canonical_json(members).encode()))
