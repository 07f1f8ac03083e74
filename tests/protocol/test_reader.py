"""The fast way to read a credential gives what the careful one gives, for every header."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import ChallengeExpired, ChannelPayError, InvalidChallenge
from channelpay.protocol.reader import KEY_CHARS, OFFERS_MAX, CredentialReader, Reading
from channelpay.protocol.types import NATIVE, Address, ChannelId, Deployment, Voucher
from channelpay.protocol.wire import (
    SCHEME,
    ChallengeIssuer,
    Credential,
    SessionRequest,
    Source,
    VoucherPayload,
    decode_base64url,
    encode_base64url,
)
from tests.protocol.strategies import credentials, vouchers

NOW = 1_800_000_000
ISSUER = ChallengeIssuer(bytes(range(32)), "content.example")
REQUEST = SessionRequest(
    1000, NATIVE, Address(b"\x22" * 20), Deployment(31337, Address(b"\x11" * 20))
)
CHALLENGE = ISSUER.issue(REQUEST, NOW + 300)
VOUCHER = Voucher(ChannelId(b"\x33" * 32), 5000, b"\x44" * 65)
CREDENTIAL = Credential(CHALLENGE, VoucherPayload(VOUCHER), Source(31337, Address(b"\x55" * 20)))
HEADER = CREDENTIAL.to_header()


def carefully(header: str, now: float = NOW) -> Reading | type[ChannelPayError]:
    """What the general parser says."""
    try:
        one = Credential.parse(header)
        return Reading(one.challenge, ISSUER.check(one.challenge, now), one.payload, one.source)
    except ChannelPayError as error:
        return type(error)


def read(reader: CredentialReader, header: str, now: float = NOW) -> object:
    """What the reader says."""
    try:
        return reader.read(header, now)
    except ChannelPayError as error:
        return type(error)


def warm() -> CredentialReader:
    """A reader that has seen the challenge."""
    reader = CredentialReader(ISSUER)
    assert reader.read(HEADER, NOW) == carefully(HEADER)
    return reader


def with_text(change: object) -> str:
    """The header with another JSON text."""
    assert callable(change)
    text = decode_base64url(HEADER[len(SCHEME) + 1 :], "credential").decode()
    return f"{SCHEME} {encode_base64url(change(text).encode())}"


@given(voucher=vouchers, source=st.none() | st.just(CREDENTIAL.source))
def test_every_voucher_is_read_alike(voucher: Voucher, source: Source | None) -> None:
    header = Credential(CHALLENGE, VoucherPayload(voucher), source).to_header()

    assert read(warm(), header) == carefully(header)


@given(credential=credentials)
def test_every_payload_is_read_alike(credential: Credential) -> None:
    header = replace(credential, challenge=CHALLENGE).to_header()

    assert read(warm(), header) == carefully(header)


@given(position=st.integers(0, len(HEADER)), cut=st.integers(0, 3), inserted=st.text(max_size=3))
def test_every_changed_header_is_read_alike(position: int, cut: int, inserted: str) -> None:
    header = HEADER[:position] + inserted + HEADER[position + cut :]

    assert read(warm(), header) == carefully(header)


@given(position=st.integers(0, 900), cut=st.integers(0, 3), inserted=st.text(max_size=3))
def test_every_changed_text_is_read_alike(position: int, cut: int, inserted: str) -> None:
    header = with_text(lambda text: text[:position] + inserted + text[position + cut :])

    assert read(warm(), header) == carefully(header)


@pytest.mark.parametrize(
    "more",
    [
        ',"source":"did:pkh:eip155:1:0x' + "66" * 20 + '"',
        ',"challenge":{}',
        ',"payload":{}',
        ',"extra":1',
        "}",
        " ",
    ],
)
def test_what_stands_behind_the_payload_is_not_passed_over(more: str) -> None:
    header = with_text(lambda text: text[:-1] + more + "}")

    assert read(warm(), header) == carefully(header)


@pytest.mark.parametrize("spaces", [2, 3, 4, 5])
def test_a_header_with_more_spaces_is_not_remembered(spaces: int) -> None:
    """Its groups of base64 lie elsewhere."""
    reader = CredentialReader(ISSUER)
    reader.read(HEADER.replace(" ", " " * spaces), NOW)

    assert not reader._offers
    assert read(reader, HEADER) == carefully(HEADER)


def test_an_amount_above_128_bits_is_refused() -> None:
    header = with_text(lambda text: text.replace('"5000"', f'"{2**128}"'))

    assert read(warm(), header) == carefully(header)
    assert isinstance(carefully(header), type)


def test_a_remembered_challenge_expires() -> None:
    reader = warm()

    with pytest.raises(ChallengeExpired):
        reader.read(HEADER, NOW + 301)


def test_a_challenge_of_another_issuer_is_not_remembered() -> None:
    reader = CredentialReader(ChallengeIssuer(bytes(32), "content.example"))

    for _ in range(2):
        with pytest.raises(InvalidChallenge):
            reader.read(HEADER, NOW)


def test_a_challenge_that_begins_alike_is_not_taken_for_the_remembered_one() -> None:
    """A long description comes before the id, so both have the same key."""
    described = [
        replace(ISSUER.issue(replace(REQUEST, amount=amount), NOW + 300), description="d" * 300)
        for amount in (1, 2)
    ]
    headers = [Credential(one, VoucherPayload(VOUCHER)).to_header() for one in described]
    assert headers[0][:KEY_CHARS] == headers[1][:KEY_CHARS]
    reader = CredentialReader(ISSUER)

    for header in [*headers, *headers]:
        assert reader.read(header, NOW) == carefully(header)


def test_the_memory_is_bounded() -> None:
    reader = CredentialReader(ISSUER)
    for number in range(OFFERS_MAX + 10):
        challenge = ISSUER.issue(replace(REQUEST, amount=number), NOW + 300)
        reader.read(Credential(challenge, VoucherPayload(VOUCHER)).to_header(), NOW)

    assert len(reader._offers) == OFFERS_MAX


def test_a_payload_hidden_in_the_challenge_is_not_mistaken_for_the_payload() -> None:
    members = {
        "challenge": CHALLENGE.members() | {"payload": {"action": "voucher"}},
        "payload": VoucherPayload(VOUCHER).members(),
    }
    text = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    header = f"{SCHEME} {encode_base64url(text)}"
    reader = CredentialReader(ISSUER)

    for _ in range(2):
        assert reader.read(header, NOW) == carefully(header)
    assert not reader._offers
