"""The Payment scheme on the wire: what is written is read back, and anything else is refused with
an InputError that repeats little of it.
"""

from __future__ import annotations

import hmac
import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import (
    ChallengeExpired,
    CredentialTooLarge,
    InputError,
    InvalidChallenge,
    MalformedCredential,
    MethodUnsupported,
    PaymentRefused,
)
from channelpay.protocol.types import NATIVE, Address, Deployment
from channelpay.protocol.wire import (
    CREDENTIAL_BYTES_MAX,
    Challenge,
    ChallengeIssuer,
    Credential,
    Receipt,
    SessionRequest,
    Source,
    canonical_json,
    decode_base64url,
    encode_base64url,
    format_time,
    is_payment_header,
    parse_challenges,
    parse_time,
)
from tests.protocol.strategies import (
    challenges,
    credentials,
    header_text,
    receipts,
    requests,
    seconds,
)
from tests.protocol.vectors import WIRE

DETAIL_MAX = 200
NOW = 1_800_000_000
SECRET = bytes(range(32))
ISSUER = ChallengeIssuer(SECRET, "content.example")
REQUEST = SessionRequest(
    1000, NATIVE, Address(b"\x22" * 20), Deployment(31337, Address(b"\x11" * 20))
)
CHALLENGE = ISSUER.issue(REQUEST, NOW)
CREDENTIALS = {vector["description"]: vector for vector in WIRE["credentials"]}
RECEIPT = WIRE["receipts"][1]
OTHER_SCHEMES = [
    "Basic",
    'Basic realm="a, Payment id=\\"1\\", b"',
    "Negotiate YWJj",
    "Negotiate YWI=",
    "Bearer realm=simple, error=invalid_token",
    'Digest qop="auth,auth-int" , nonce = "a\\\\b"',
]


# --- what is written is read back ------------------------------------------------------------


@given(requests)
def test_request_round_trips(request: SessionRequest) -> None:
    assert SessionRequest.decode(request.encode()) == request


@given(credentials)
def test_credential_round_trips(credential: Credential) -> None:
    assert Credential.parse(credential.to_header()) == credential


@given(receipts)
def test_receipt_round_trips(receipt: Receipt) -> None:
    assert Receipt.parse(receipt.to_header()) == receipt


@given(receipts)
def test_a_receipt_is_canonical_json(receipt: Receipt) -> None:
    assert receipt.to_json() == canonical_json(json.loads(receipt.to_json()))


@given(challenges)
def test_challenge_round_trips(challenge: Challenge) -> None:
    assert parse_challenges([challenge.to_header()]) == [challenge]


@given(seconds)
def test_time_round_trips(time: int) -> None:
    assert parse_time(format_time(time)) == datetime.fromtimestamp(time, UTC)


@given(st.binary(min_size=1))
def test_base64url_round_trips(data: bytes) -> None:
    assert decode_base64url(encode_base64url(data), "x") == data


# --- several challenges ----------------------------------------------------------------------


@given(st.lists(challenges | st.sampled_from(OTHER_SCHEMES), max_size=6), st.booleans())
def test_challenges_are_found_among_other_schemes(
    offered: list[Challenge | str], in_one_header: bool
) -> None:
    values = [item if isinstance(item, str) else item.to_header() for item in offered]
    headers = [", ".join(values)] if in_one_header else values
    assert parse_challenges(headers) == [item for item in offered if isinstance(item, Challenge)]


@pytest.mark.parametrize(
    "header",
    [
        'payment ID="a", Realm=b, method=evm, INTENT=session, request=e30',
        'PAYMENT id = "a" ,realm\t=\t"b",method="evm",intent="session",request="e30"',
        ',, Payment id="\\a", realm="b", method="evm", intent="session", request="e30", x="y"',
    ],
)
def test_challenge_is_read_in_every_form_of_rfc_9110(header: str) -> None:
    assert parse_challenges([header]) == [Challenge("a", "b", "evm", "session", "e30")]


@pytest.mark.parametrize(
    "params",
    [
        'id="", realm="b", method="evm", intent="session", request="e30"',
        'realm="b", method="evm", intent="session", request="e30"',
        'id="a", realm="b", method="evm", intent="session"',
        'id="a", id="a", realm="b", method="evm", intent="session", request="e30"',
        'id="a", realm="b", method="evm", intent="session", request="e30", expires="tomorrow"',
        'id="a, realm="b", method="evm", intent="session", request="e30"',
        'id="a" realm="b" method="evm" intent="session" request="e30"',
        "",
    ],
)
def test_challenge_that_does_not_parse_is_passed_over(params: str) -> None:
    assert parse_challenges([f"Payment {params}"]) == []
    assert parse_challenges([f"Payment {params}", CHALLENGE.to_header()]) == [CHALLENGE]


def test_empty_description_is_kept_for_the_echo() -> None:
    described = replace(CHALLENGE, description="")
    assert parse_challenges([described.to_header()]) == [described]
    assert Credential.parse(header_of(challenge=described.members())).challenge == described


@given(st.lists(st.text() | st.sampled_from(['"', "\\", ",", "=", " ", "Payment", "a=b"])))
def test_no_header_makes_the_challenge_reader_fail(pieces: list[str]) -> None:
    parse_challenges(["".join(pieces), "Payment " + "".join(pieces)])


@pytest.mark.parametrize(
    "header",
    [
        'Payment id="' + "a" * 10**6,
        'Payment id="' + "\\" * 10**6,
        "Payment " + "a" * 10**6,
        "Payment " + "a=" * 10**6,
        "Payment " + "a=b," * 10**6,
        "Payment a" + " " * 10**6 + "b",
        "Payment a=" + " " * 10**6,
        "Payment " + "," * 10**6,
        "Payment " + " ," * 10**6 + "!",
        "a " * 10**6,
        "a," * 10**6,
        "a b, " * 10**6,
        "a b" + "=" * 10**6 + '"',
        'a ="' * 10**6,
    ],
    ids=lambda header: header[:20],
)
def test_hostile_headers_are_read_in_steps_that_grow_with_their_length(header: str) -> None:
    """Only the first 32 KiB are looked at, so a megabyte ends as soon as that does."""
    assert parse_challenges([header]) == []


def test_only_the_first_32_kib_of_a_header_are_read() -> None:
    assert parse_challenges(["," * 30_000 + CHALLENGE.to_header()]) == [CHALLENGE]
    assert parse_challenges(["," * 32_768 + CHALLENGE.to_header()]) == []


# --- whose challenge -------------------------------------------------------------------------


def test_issuer_knows_its_challenge_until_it_expires() -> None:
    assert ISSUER.check(CHALLENGE, NOW) == REQUEST
    with pytest.raises(ChallengeExpired):
        ISSUER.check(CHALLENGE, NOW + 1)


@given(st.sampled_from(["id", "realm", "request", "expires", "opaque", "digest"]), header_text)
def test_changed_challenge_is_refused(name: str, value: str) -> None:
    changed = Challenge.from_members(CHALLENGE.members() | {name: value})
    with pytest.raises(InvalidChallenge):
        ISSUER.check(changed, NOW)


@pytest.mark.parametrize("value", ["\u00e9", "\u4f60" * 43, "\U0001f600", "\0"])
@pytest.mark.parametrize("name", ["id", "realm", "request", "expires", "opaque", "digest"])
def test_challenge_beyond_ascii_is_refused(name: str, value: str) -> None:
    credential = Credential.parse(header_of(challenge=CHALLENGE.members() | {name: value}))
    with pytest.raises(InvalidChallenge):
        ISSUER.check(credential.challenge, NOW)


def test_challenge_without_expiry_is_not_ours() -> None:
    with pytest.raises(InvalidChallenge):
        ISSUER.check(replace(CHALLENGE, expires=None), NOW)


@pytest.mark.parametrize("changed", [{"method": "tempo"}, {"intent": "charge"}])
def test_other_method_or_intent_is_not_offered(changed: dict[str, str]) -> None:
    with pytest.raises(MethodUnsupported):
        ISSUER.check(replace(CHALLENGE, **changed), NOW)


def test_another_secret_or_realm_makes_another_challenge() -> None:
    for other in (ChallengeIssuer(bytes(32), "content.example"), ChallengeIssuer(SECRET, "other")):
        with pytest.raises(InvalidChallenge):
            other.check(CHALLENGE, NOW)


def test_parts_of_a_challenge_cannot_change_places() -> None:
    """The id binds its slots by position: text cannot move over a separator into the next one."""
    joined = f"{CHALLENGE.request}|{CHALLENGE.expires}"
    moved = replace(CHALLENGE, request=joined, expires="", digest=None)
    with pytest.raises(InvalidChallenge):
        ISSUER.check(moved, NOW)


def test_id_binds_the_seven_slots_of_the_draft_in_their_order() -> None:
    challenge = replace(CHALLENGE, digest="sha-256=:YQ==:", opaque="e30")
    slots = [challenge.realm, "evm", "session", challenge.request, challenge.expires]
    text = "|".join([*map(str, slots), "sha-256=:YQ==:", "e30"])
    mac = hmac.digest(SECRET, text.encode(), "sha256")
    assert ISSUER.check(replace(challenge, id=encode_base64url(mac)), NOW) == REQUEST


@pytest.mark.parametrize("realm", ["", "a\r\nSet-Cookie: b", "caf\u00e9", "a\tb"])
def test_realm_can_stand_in_a_header(realm: str) -> None:
    with pytest.raises(ValueError, match="realm"):
        ChallengeIssuer(SECRET, realm)


def test_secret_is_long() -> None:
    with pytest.raises(ValueError, match="secret"):
        ChallengeIssuer(bytes(31), "content.example")


# --- requests of other servers ---------------------------------------------------------------


def request_with(**changes: object) -> str:
    """The request of the second vector with members changed; None takes one out."""
    members = changed(WIRE["challenges"][1]["request"], changes)
    return encode_base64url(json.dumps(members).encode())


def request_with_details(**changes: object) -> str:
    details = WIRE["challenges"][1]["request"]["methodDetails"]
    return request_with(methodDetails=changed(details, changes))


def changed(members: dict[str, Any], changes: dict[str, object]) -> dict[str, Any]:
    return {name: value for name, value in (members | changes).items() if value is not None}


@pytest.mark.parametrize(
    "text",
    [
        request_with(amount=None),
        request_with(amount=1000),
        request_with(amount="1e3"),
        request_with(amount=str(2**128)),
        request_with(currency=None),
        request_with(currency="0x" + "1" * 39),
        request_with(recipient=None),
        request_with(recipient="usd"),
        request_with(unitType=""),
        request_with(unitType=7),
        request_with(suggestedDeposit=5),
        request_with(description=["a"]),
        request_with(description="a" * 2049),
        request_with(description="\ud800"),
        request_with(methodDetails=None),
        request_with(methodDetails=[]),
        request_with_details(chainId=None),
        request_with_details(chainId="1"),
        request_with_details(chainId=True),
        request_with_details(chainId=1.0),
        request_with_details(chainId=2**53),
        request_with_details(escrowContract=None),
        request_with_details(credentialTypes=["permit2", "authorization"]),
        request_with_details(credentialTypes="hash"),
        "e30=",
        "e",
        "",
        "\u00e9",
    ],
)
def test_request_that_cannot_be_answered_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refusal:
        SessionRequest.decode(text)
    assert len(refusal.value.detail) < DETAIL_MAX


@pytest.mark.parametrize(
    "text",
    [
        request_with(unitType=None, suggestedDeposit=None, description=None),
        request_with(externalId="order 7", unknown=[1.5, None, {"a": True}], description=""),
        request_with_details(credentialTypes=["permit2", "hash"], feePayer=True),
        request_with_details(minVoucherDelta="0", version=2),
    ],
)
def test_request_may_leave_out_the_optional_and_hold_the_unknown(text: str) -> None:
    assert SessionRequest.decode(text).amount == 2**128 - 1


# --- hostile credentials ---------------------------------------------------------------------


def header_of(description: str = "voucher", **changes: object) -> str:
    """The header of a vector with members of the credential changed; None takes one out."""
    members = changed(CREDENTIALS[description]["members"], changes)
    return f"Payment {encode_base64url(json.dumps(members).encode())}"


def header_of_payload(description: str, **changes: object) -> str:
    payload = CREDENTIALS[description]["members"]["payload"]
    return header_of(description, payload=changed(payload, changes))


OPEN, TOP_UP, VOUCHER = "open, session key", "topUp", "voucher"
HASH = CREDENTIALS[OPEN]["members"]["payload"]["hash"]
MALFORMED = {
    "no token": "Payment",
    "empty token": "Payment ",
    "other scheme": "Basic YWJj",
    "padding": header_of() + "=",
    "standard base64": "Payment ab+/",
    "two tokens": "Payment YWJj YWJj",
    "two headers in one": f"{header_of()}, {header_of()}",
    "cut": header_of()[:-7],
    "not JSON": "Payment YWJj",
    "beyond ASCII": "Payment \u00e9",
    "array": "Payment " + encode_base64url(b"[]"),
    "deep": "Payment " + encode_base64url(b"[" * 6000),
    "name twice": "Payment " + encode_base64url(b'{"challenge":{},"challenge":{},"payload":{}}'),
    "NaN": "Payment " + encode_base64url(b'{"challenge":{},"payload":{"a":NaN}}'),
    "no challenge": header_of(challenge=None),
    "challenge is text": header_of(challenge="id"),
    "challenge without id": header_of(challenge=changed(CHALLENGE.members(), {"id": None})),
    "challenge id is a number": header_of(challenge=CHALLENGE.members() | {"id": 7}),
    "lone surrogate in id": header_of(challenge=CHALLENGE.members() | {"id": "\ud800"}),
    "lone surrogate in realm": header_of(challenge=CHALLENGE.members() | {"realm": "a\udfff"}),
    "lone surrogate in opaque": header_of(challenge=CHALLENGE.members() | {"opaque": "\udabc"}),
    "no payload": header_of(payload=None),
    "payload is a list": header_of(payload=[1]),
    "no action": header_of_payload(VOUCHER, action=None),
    "unknown action": header_of_payload(VOUCHER, action="refund"),
    "action in other case": header_of_payload(VOUCHER, action="Voucher"),
    "action is a list": header_of_payload(VOUCHER, action=["voucher"]),
    "no amount": header_of_payload(VOUCHER, cumulativeAmount=None),
    "amount is a number": header_of_payload(VOUCHER, cumulativeAmount=1),
    "amount is a float": header_of_payload(VOUCHER, cumulativeAmount=1.5),
    "amount with leading zero": header_of_payload(VOUCHER, cumulativeAmount="01"),
    "amount with sign": header_of_payload(VOUCHER, cumulativeAmount="-1"),
    "amount in other digits": header_of_payload(VOUCHER, cumulativeAmount="\u0661"),
    "amount of 129 bits": header_of_payload(VOUCHER, cumulativeAmount=str(2**128)),
    "amount of 5000 digits": header_of_payload(VOUCHER, cumulativeAmount="9" * 5000),
    "no channel id": header_of_payload(VOUCHER, channelId=None),
    "upper-case channel id": header_of_payload(VOUCHER, channelId="0x" + "AB" * 32),
    "channel id without 0x": header_of_payload(VOUCHER, channelId="ab" * 33),
    "no signature": header_of_payload(VOUCHER, signature=None),
    "signature of 64 bytes": header_of_payload(VOUCHER, signature="0x" + "ab" * 64),
    "signature is a number": header_of_payload(VOUCHER, signature=10**400),
    "deposit beside the voucher": header_of_payload(VOUCHER, deposit={"action": "topUp"}),
    "source is no did:pkh": header_of(source="did:key:z6Mk"),
    "source is a number": header_of(source=7),
    "source on another kind of chain": header_of(source="did:pkh:solana:1:0x" + "ab" * 20),
    "open without source": header_of(OPEN, source=None),
    "open without type": header_of_payload(OPEN, type=None),
    "open by authorization": header_of_payload(OPEN, type="authorization"),
    "open without hash": header_of_payload(OPEN, hash=None),
    "open without salt": header_of_payload(OPEN, salt=None),
    "open with short salt": header_of_payload(OPEN, salt="0x00"),
    "open with signer of 19 bytes": header_of_payload(OPEN, authorizedSigner="0x" + "ab" * 19),
    "top-up without source": header_of(TOP_UP, source=None),
    "top-up by permit2": header_of_payload(TOP_UP, type="permit2"),
    "top-up without amount": header_of_payload(TOP_UP, additionalDeposit=None),
    "top-up with upper-case hash": header_of_payload(TOP_UP, hash="0x" + HASH[2:].upper()),
}


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_credential_is_refused_with_the_reason(header: str) -> None:
    with pytest.raises(MalformedCredential) as refusal:
        Credential.parse(header)
    assert refusal.value.status == 400
    assert 0 < len(refusal.value.detail) < DETAIL_MAX


@pytest.mark.parametrize("size", [CREDENTIAL_BYTES_MAX + 1, 10**6])
def test_large_credential_is_refused_unread(size: int) -> None:
    with pytest.raises(CredentialTooLarge):
        Credential.parse("Payment ".ljust(size, "A"))


def test_credential_of_4096_bytes_is_read() -> None:
    """What the draft asks of every server."""
    challenge = CHALLENGE.members() | {"description": "a" * 2500}
    header = header_of(challenge=challenge)
    assert 4096 <= len(header) <= CREDENTIAL_BYTES_MAX
    assert Credential.parse(header).challenge.description == "a" * 2500


def test_unknown_members_are_ignored() -> None:
    challenge = CREDENTIALS[VOUCHER]["members"]["challenge"] | {"new": "a"}
    plain = Credential.parse(CREDENTIALS[VOUCHER]["header"])
    assert Credential.parse(header_of(challenge=challenge, extra=[1.5])) == plain
    assert Credential.parse(header_of_payload(VOUCHER, type="hash", memo=None)) == plain


@given(credentials, st.data())
def test_changed_byte_of_a_credential_is_read_or_refused(
    credential: Credential, data: st.DataObject
) -> None:
    text = bytearray(decode_base64url(credential.to_header().partition(" ")[2], "x"))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_or_refused(f"Payment {encode_base64url(bytes(text))}")


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    token = encode_base64url(b"{" + text.encode("utf-8", "surrogatepass"))
    for header in (text, f"Payment {text}", f"Payment {token}"):
        with pytest.raises(InputError):
            Credential.parse(header)


def read_or_refused(header: str) -> None:
    """Parse it and, as a payee does, look whose challenge it is."""
    with suppress(InputError, PaymentRefused):
        ISSUER.check(Credential.parse(header).challenge, NOW)


@pytest.mark.parametrize("header", ["Payment a", "payment a", "  PAYMENT a"])
def test_payment_header_is_recognised(header: str) -> None:
    assert is_payment_header(header)


@pytest.mark.parametrize("header", ["", "Payment", "Payments a", "Basic a", "Bearer Payment a"])
def test_header_of_another_scheme_is_left_alone(header: str) -> None:
    assert not is_payment_header(header)


def test_source_compares_by_value() -> None:
    address = "0xABcdABcdABcdABcdABcdABcdABcdABcdABcdABcd"
    source = Source.parse(f"did:pkh:eip155:196:{address}")
    assert source == Source(196, Address(bytes.fromhex("abcd" * 10)))
    assert str(source) == f"did:pkh:eip155:196:{address.lower()}"


# --- hostile receipts and times --------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failed"},
        {"status": None},
        {"method": "tempo"},
        {"intent": "charge"},
        {"channelId": None},
        {"chainId": "31337"},
        {"challengeId": ""},
        {"challengeId": "\ud800"},
        {"acceptedCumulative": 7},
        {"spent": None},
        {"spent": "-1"},
        {"timestamp": None},
        {"timestamp": 1_800_000_000},
        {"timestamp": "yesterday"},
        {"txHash": "0x"},
    ],
)
def test_receipt_that_does_not_say_what_was_paid_is_refused(changes: dict[str, object]) -> None:
    members = changed(RECEIPT["members"], changes)
    with pytest.raises(InputError) as refusal:
        Receipt.parse(encode_base64url(json.dumps(members).encode()))
    assert len(refusal.value.detail) < DETAIL_MAX


@pytest.mark.parametrize(
    "price",
    [
        "0.01",
        {"list": "2", "amount": "1"},
        {"list": "2", "amount": 1, "why": []},
        {"list": "2", "amount": "1", "why": ["sale"]},
        {"list": "2", "amount": "1", "why": [{"label": "sale", "delta": "--1"}]},
        {"list": "2", "amount": "1", "why": [{"label": "s", "delta": "-1"}] * 21},
        {"list": "2", "amount": "1", "why": [{"label": "s" * 81, "delta": "-1"}]},
    ],
)
def test_a_receipt_may_mean_something_else_by_price(price: object) -> None:
    members = json.loads(decode_base64url(RECEIPT["header"], "receipt")) | {"price": price}

    assert Receipt.parse(encode_base64url(json.dumps(members).encode())).price is None


def test_receipt_may_hold_units_and_confirmations() -> None:
    members = RECEIPT["members"] | {"units": 1.5, "confirmations": 3}
    parsed = Receipt.parse(encode_base64url(json.dumps(members).encode()))
    assert parsed == Receipt.parse(RECEIPT["header"])


@pytest.mark.parametrize("header", ["", "=", "a" * (CREDENTIAL_BYTES_MAX + 1), "\u00e9", "e30"])
def test_receipt_that_does_not_parse_is_refused(header: str) -> None:
    with pytest.raises(InputError):
        Receipt.parse(header)


@pytest.mark.parametrize(
    ("text", "unix"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31t13:00:00.250+01:00", 1769860800),
        ("2026-01-31T00:00:00.999999999-12:00", 1769860800),
    ],
)
def test_time_is_read_with_its_offset(text: str, unix: int) -> None:
    assert parse_time(text).timestamp() == unix


@pytest.mark.parametrize(
    "text",
    [
        *(None, 0, "", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00:00Z"),
        *("20260131T120000Z", "2026-W05-6T12:00:00Z", "2026-01-31T12:00Z", "2026-02-30T12:00:00Z"),
        *("2026-01-31T12:00:60Z", "2026-01-31T12:00:00+24:00", "2026-01-31T12:00:00Z\n"),
        *("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00Z"),
        *("\u0662026-01-31T12:00:00Z", "2026-01-31T12:00:00." + "1" * 5000 + "Z", "\ud800"),
    ],
)
def test_time_is_of_rfc_3339_and_in_the_calendar(text: object) -> None:
    with pytest.raises(InputError):
        parse_time(text)


@given(st.datetimes(timezones=st.just(UTC)) | st.just(datetime.max.replace(tzinfo=UTC)))
def test_every_time_that_can_be_read_can_be_written(time: datetime) -> None:
    written = format_time(parse_time(time.isoformat()).timestamp())
    assert parse_time(written) == time.replace(microsecond=0)
