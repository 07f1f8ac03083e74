"""The ``Payment`` HTTP authentication scheme, method ``evm``, intent ``session``: the one module
that parses and writes it.

Follows draft-httpauth-payment-00 (challenge, credential, receipt) and draft-evm-session-00
(request, payloads). Reading is strict and bounded; unknown members are ignored, as the drafts ask,
unknown actions are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, Final, Self

from channelpay.errors import (
    ChallengeExpired,
    CredentialTooLarge,
    InputError,
    InvalidChallenge,
    MalformedCredential,
    MethodUnsupported,
)
from channelpay.protocol.carried import (
    HASH,
    CarriedGas,
    authorization_members,
    parse_signed,
    takes_hash,
)
from channelpay.protocol.funding import FundingMethod, SignedAuthorization
from channelpay.protocol.notes import PriceNote
from channelpay.protocol.parse import (
    parse_address,
    parse_amount,
    parse_bytes32,
    parse_chain_id,
    parse_channel_id,
    parse_json_object,
    parse_signature,
    parse_text,
)
from channelpay.protocol.tabs import TabNote
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import (
    ZERO_ADDRESS,
    Address,
    ChannelId,
    Deployment,
    Voucher,
)

SCHEME: Final = "Payment"
METHOD: Final = "evm"
INTENT: Final = "session"
CREDENTIAL_BYTES_MAX: Final = 8192
CHALLENGE_BYTES_MAX: Final = 8192
TEXT_MAX: Final = 2048
IDEMPOTENCY_KEY_MAX: Final = 255

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+\Z")
_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_AUTH_PARAM = re.compile(
    rf"""[ \t]*({_NAME})[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[A-Za-z0-9!#$%&'*+.^_`|~/=:-]+)[ \t]*"""
)
# A scheme may stand alone, or before one token68 instead of parameters.
_SCHEME = re.compile(
    rf"[ \t,]*({_NAME})(?:[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|\Z)|[ \t]+|(?=,|\Z))"
)
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})\Z",
    re.IGNORECASE | re.ASCII,
)
_DID = re.compile(r"did:pkh:eip155:([1-9][0-9]{0,15}):(0x[0-9a-fA-F]{40})\Z")


# --- request and challenge -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What a challenge asks for: ``amount`` base units of ``currency`` per unit of service, paid to
    ``recipient``.

    ``currency`` is :data:`~channelpay.protocol.types.NATIVE` for the chain's native currency. A
    voucher above the one before is so by ``min_voucher_delta`` base units at least. ``carried``
    says that the payee sends opens and top-ups of the payer's for it; ``takes_hash``, that the
    payer may send them itself, which we always offer.
    """

    amount: int
    currency: Address
    recipient: Address
    deployment: Deployment
    unit_type: str = "request"
    suggested_deposit: int | None = None
    description: str | None = None
    min_voucher_delta: int = 0
    carried: CarriedGas | None = None
    takes_hash: bool = True

    def encode(self) -> str:
        """JCS (RFC 8785) then base64url without padding, as it stands in the challenge."""
        members: dict[str, Any] = {
            "amount": str(self.amount),
            "currency": checksum_address(self.currency),
            "recipient": checksum_address(self.recipient),
            "unitType": self.unit_type,
            "methodDetails": {
                "chainId": self.deployment.chain_id,
                "escrowContract": checksum_address(self.deployment.contract),
            },
        }
        if self.min_voucher_delta > 0:
            members["methodDetails"]["minVoucherDelta"] = str(self.min_voucher_delta)
        if self.carried is not None:
            members["methodDetails"] |= self.carried.members()
        if self.suggested_deposit is not None:
            members["suggestedDeposit"] = str(self.suggested_deposit)
        if self.description is not None:
            members["description"] = self.description
        return encode_base64url(canonical_json(members).encode())

    @classmethod
    def decode(cls, text: str) -> Self:
        """The reverse of :meth:`encode`, for any server. Raises :class:`InputError`."""
        members = parse_json_object(decode_base64url(text, "request"), "request")
        details = members.get("methodDetails")
        if not isinstance(details, dict):
            raise InputError("request.methodDetails is missing")
        carried, by_hash = CarriedGas.parse(details), takes_hash(details)
        if carried is None and not by_hash:
            raise MethodUnsupported("the payee takes no channel that this payer could open")
        deposit = members.get("suggestedDeposit")
        return cls(
            amount=parse_amount(members.get("amount"), "amount"),
            currency=parse_address(members.get("currency"), "currency"),
            recipient=parse_address(members.get("recipient"), "recipient"),
            deployment=Deployment(
                parse_chain_id(details.get("chainId")),
                parse_address(details.get("escrowContract"), "escrowContract"),
            ),
            unit_type=parse_text(members.get("unitType", "request"), "unitType", 64),
            suggested_deposit=None
            if deposit is None
            else parse_amount(deposit, "suggestedDeposit"),
            description=_optional_text(members, "description"),
            min_voucher_delta=parse_amount(details.get("minVoucherDelta", "0"), "minVoucherDelta"),
            carried=carried,
            takes_hash=by_hash,
        )


@dataclass(frozen=True, slots=True)
class Challenge:
    """One ``WWW-Authenticate: Payment`` challenge. ``request`` stays in its wire form, since the id
    is bound to it.
    """

    id: str
    realm: str
    method: str
    intent: str
    request: str
    expires: str | None = None
    description: str | None = None
    opaque: str | None = None
    digest: str | None = None

    def to_header(self) -> str:
        """The value of a ``WWW-Authenticate`` header."""
        params = ", ".join(f"{name}={_quote(value)}" for name, value in self.members().items())
        return f"{SCHEME} {params}"

    def members(self) -> dict[str, str]:
        """The parameters that are present, as they are echoed in a credential."""
        names = ("id", "realm", "method", "intent", "request", "expires")
        optional = ("description", "opaque", "digest")
        present = {name: getattr(self, name) for name in names + optional}
        return {name: value for name, value in present.items() if value is not None}

    @property
    def expires_at(self) -> float | None:
        """Unix seconds, or None if the challenge does not expire. Raises :class:`InputError` where
        ``expires`` is no time; :func:`parse_challenges` returns no such challenge.
        """
        return None if self.expires is None else parse_time(self.expires).timestamp()

    @classmethod
    def from_members(cls, members: Mapping[str, object]) -> Self:
        """From parsed parameters; unknown ones are ignored. Raises :class:`InputError`."""
        required = ("id", "realm", "method", "intent", "request")
        optional = ("expires", "description", "opaque", "digest")
        values = {
            name: parse_text(members.get(name), name, CHALLENGE_BYTES_MAX) for name in required
        }
        for name in optional:
            if members.get(name) is not None:
                values[name] = parse_text(members[name], name, CHALLENGE_BYTES_MAX, at_least=0)
        return cls(**values)


class ChallengeIssuer:
    """Makes and recognises challenges without keeping any: the id is an HMAC-SHA256 over all that
    was offered.

    ``secret`` is at least 32 random bytes, the same on every worker of the site. ``realm`` is
    printable ASCII, since it stands in a header.
    """

    def __init__(self, secret: bytes, realm: str) -> None:
        if len(secret) < 32:
            raise ValueError("the challenge secret needs at least 32 bytes")
        if not (realm and realm.isascii() and realm.isprintable()):
            raise ValueError("the realm must be printable ASCII")
        self._secret = secret
        self._realm = realm

    def derived(self, purpose: bytes) -> bytes:
        """A secret of 32 bytes for something else, which tells nothing of this one."""
        return hmac.digest(self._secret, b"channelpay " + purpose, hashlib.sha256)

    def issue(self, request: SessionRequest, expires_at: float) -> Challenge:
        """A challenge for ``request`` that ends at ``expires_at`` (Unix seconds)."""
        encoded, expires = request.encode(), format_time(expires_at)
        return Challenge(
            self._bind(encoded, expires), self._realm, METHOD, INTENT, encoded, expires
        )

    def check(self, challenge: Challenge, now: float) -> SessionRequest:
        """The request that we once offered in this challenge.

        Raises :class:`MethodUnsupported`, :class:`InvalidChallenge` (not ours, or changed),
        :class:`ChallengeExpired`.
        """
        if (challenge.method, challenge.intent) != (METHOD, INTENT):
            raise MethodUnsupported(
                f"{challenge.method[:20]}/{challenge.intent[:20]} is not offered"
            )
        expires = challenge.expires or ""
        expected = self._bind(challenge.request, expires, challenge.digest, challenge.opaque)
        genuine = hmac.compare_digest(expected.encode(), challenge.id.encode())
        if not genuine or challenge.realm != self._realm:
            raise InvalidChallenge
        if now > parse_time(expires).timestamp():
            raise ChallengeExpired(f"the challenge expired at {expires}")
        return SessionRequest.decode(challenge.request)

    def _bind(
        self, request: str, expires: str, digest: str | None = None, opaque: str | None = None
    ) -> str:
        slots = (self._realm, METHOD, INTENT, request, expires, digest or "", opaque or "")
        mac = hmac.digest(self._secret, "|".join(slots).encode(), hashlib.sha256)
        return encode_base64url(mac)


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every ``Payment`` challenge in the ``WWW-Authenticate`` headers of a response, in the
    server's order.

    Challenges of other schemes, and those that do not parse, are passed over.
    """
    found = []
    for header in headers:
        for params in _payment_params(header[: 4 * CHALLENGE_BYTES_MAX]):
            with suppress(InputError):
                found.append(_readable_challenge(params))
    return found


def _readable_challenge(params: list[tuple[str, str]]) -> Challenge:
    members = dict(params)
    if len(members) != len(params):
        raise InputError("a challenge has the same parameter twice")
    challenge = Challenge.from_members(members)
    if challenge.expires is not None:
        parse_time(challenge.expires)
    return challenge


# --- credentials -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenPayload:
    """``action=open``, ``type=hash``: the payer's own transaction opened the channel; ``voucher``
    is the first one.
    """

    transaction_hash: bytes
    salt: bytes
    authorized_signer: Address
    voucher: Voucher

    def members(self) -> dict[str, Any]:
        members = {"action": "open", "type": "hash", "hash": to_hex(self.transaction_hash)}
        members |= _voucher_members(self.voucher) | {"salt": to_hex(self.salt)}
        if self.authorized_signer != ZERO_ADDRESS:
            members["authorizedSigner"] = to_hex(self.authorized_signer)
        return members


@dataclass(frozen=True, slots=True)
class TopUpPayload:
    """``action=topUp``, ``type=hash``: a transaction added ``additional_deposit`` base units to the
    channel.
    """

    channel_id: ChannelId
    transaction_hash: bytes
    additional_deposit: int

    def members(self) -> dict[str, Any]:
        return {
            "action": "topUp",
            "type": "hash",
            "channelId": to_hex(self.channel_id),
            "hash": to_hex(self.transaction_hash),
            "additionalDeposit": str(self.additional_deposit),
        }


@dataclass(frozen=True, slots=True)
class SignedOpenPayload:
    """``action=open`` with the payer's signed authorization: the payee sends the transaction, and
    then takes ``voucher``, the first one.
    """

    signed: SignedAuthorization
    salt: bytes
    authorized_signer: Address
    voucher: Voucher

    def members(self) -> dict[str, Any]:
        members = {"action": "open"} | _voucher_members(self.voucher) | {"salt": to_hex(self.salt)}
        members["voucherSignature"] = members["signature"]
        if self.authorized_signer != ZERO_ADDRESS:
            members["authorizedSigner"] = to_hex(self.authorized_signer)
        return members | authorization_members(self.signed)


@dataclass(frozen=True, slots=True)
class SignedTopUpPayload:
    """``action=topUp`` with the payer's signed authorization, whose amount is what is added.
    ``salt`` (32 bytes) belongs to the nonce of EIP-3009; Permit2 has none.
    """

    channel_id: ChannelId
    signed: SignedAuthorization
    salt: bytes = b""

    def members(self) -> dict[str, Any]:
        members = {
            "action": "topUp",
            "channelId": to_hex(self.channel_id),
            "additionalDeposit": str(self.signed.authorization.amount),
        }
        if self.salt:
            members["salt"] = to_hex(self.salt)
        return members | authorization_members(self.signed)


@dataclass(frozen=True, slots=True)
class VoucherPayload:
    """``action=voucher``: pays for the request it comes with."""

    voucher: Voucher

    def members(self) -> dict[str, Any]:
        return {"action": "voucher"} | _voucher_members(self.voucher)


@dataclass(frozen=True, slots=True)
class ClosePayload:
    """``action=close``: asks the payee to close the channel with this or its best voucher."""

    voucher: Voucher

    def members(self) -> dict[str, Any]:
        return {"action": "close"} | _voucher_members(self.voucher)


Payload = (
    OpenPayload
    | SignedOpenPayload
    | TopUpPayload
    | SignedTopUpPayload
    | VoucherPayload
    | ClosePayload
)


@dataclass(frozen=True, slots=True)
class Source:
    """Who pays, as a ``did:pkh`` in the credential: required with ``type=hash``."""

    chain_id: int
    payer: Address

    def __str__(self) -> str:
        return f"did:pkh:eip155:{self.chain_id}:{to_hex(self.payer)}"

    @classmethod
    def parse(cls, text: object) -> Self:
        match = _DID.match(text) if isinstance(text, str) else None
        if match is None:
            raise InputError("source must be did:pkh:eip155:<chain id>:<address>")
        return cls(int(match[1]), parse_address(match[2]))


@dataclass(frozen=True, slots=True)
class Credential:
    """What an ``Authorization: Payment`` header says. ``source`` is None where the draft makes it
    optional.
    """

    challenge: Challenge
    payload: Payload
    source: Source | None = None

    def to_header(self) -> str:
        """The value of an ``Authorization`` header."""
        members: dict[str, Any] = {
            "challenge": self.challenge.members(),
            "payload": self.payload.members(),
        }
        if self.source is not None:
            members["source"] = str(self.source)
        return f"{SCHEME} {encode_base64url(canonical_json(members).encode())}"

    @classmethod
    def parse(cls, header: str) -> Self:
        """From the value of an ``Authorization`` header.

        Raises :class:`CredentialTooLarge` or :class:`MalformedCredential`; both say what is wrong
        and repeat no input.
        """
        if len(header) > CREDENTIAL_BYTES_MAX:
            raise CredentialTooLarge(f"the header has over {CREDENTIAL_BYTES_MAX} bytes")
        scheme, _, token = header.strip().partition(" ")
        if scheme.lower() != SCHEME.lower():
            raise MalformedCredential("the Authorization scheme is not Payment")
        try:
            return cls._decode(token.strip())
        except InputError as error:
            raise MalformedCredential(error.detail) from error

    @classmethod
    def _decode(cls, token: str) -> Self:
        members = parse_json_object(decode_base64url(token, "credential"), "credential")
        challenge, payload = members.get("challenge"), members.get("payload")
        if not isinstance(challenge, dict) or not isinstance(payload, dict):
            raise InputError("the credential needs the objects challenge and payload")
        text = members.get("source")
        source = None if text is None else Source.parse(text)
        parsed = _parse_payload(payload)
        if source is None and isinstance(parsed, OpenPayload | TopUpPayload):
            raise InputError("source is required with type hash")
        return cls(Challenge.from_members(challenge), parsed, source)


def is_payment_header(header: str) -> bool:
    """Whether an ``Authorization`` value is of our scheme (and not, say, Basic)."""
    return header.lstrip()[: len(SCHEME) + 1].lower() == SCHEME.lower() + " "


def _parse_payload(payload: dict[str, Any]) -> Payload:
    action = payload.get("action")
    if "deposit" in payload:  # ignored, it would let a voucher in without the money it came with
        raise InputError("payload.deposit is not supported; top the channel up first")
    if action == "voucher":
        return VoucherPayload(_parse_voucher(payload))
    if action == "close":
        return ClosePayload(_parse_voucher(payload))
    if action not in ("open", "topUp"):
        raise InputError("payload.action must be open, topUp, voucher or close")
    by_hash = payload.get("type") == HASH
    if action == "topUp":
        return _parse_top_up(payload) if by_hash else _parse_signed_top_up(payload)
    return _parse_open(payload) if by_hash else _parse_signed_open(payload)


def _parse_top_up(payload: dict[str, Any]) -> TopUpPayload:
    return TopUpPayload(
        parse_channel_id(payload.get("channelId")),
        parse_bytes32(payload.get("hash"), "hash"),
        parse_amount(payload.get("additionalDeposit"), "additionalDeposit"),
    )


def _parse_signed_top_up(payload: dict[str, Any]) -> SignedTopUpPayload:
    signed = parse_signed(payload, opens=False)
    amount = parse_amount(payload.get("additionalDeposit"), "additionalDeposit")
    if amount != signed.authorization.amount:
        raise InputError("additionalDeposit is not the amount of the authorization")
    by_nonce = signed.authorization.method is FundingMethod.EIP3009
    salt = parse_bytes32(payload.get("salt"), "salt") if by_nonce else b""
    return SignedTopUpPayload(parse_channel_id(payload.get("channelId")), signed, salt)


def _parse_open(payload: dict[str, Any]) -> OpenPayload:
    return OpenPayload(
        parse_bytes32(payload.get("hash"), "hash"),
        parse_bytes32(payload.get("salt"), "salt"),
        _parse_signer(payload),
        _parse_voucher(payload),
    )


def _parse_signed_open(payload: dict[str, Any]) -> SignedOpenPayload:
    return SignedOpenPayload(
        parse_signed(payload, opens=True),
        parse_bytes32(payload.get("salt"), "salt"),
        _parse_signer(payload),
        _parse_voucher(payload, "voucherSignature"),
    )


def _parse_signer(payload: dict[str, Any]) -> Address:
    signer = payload.get("authorizedSigner")
    return ZERO_ADDRESS if signer is None else parse_address(signer, "authorizedSigner")


def _parse_voucher(payload: dict[str, Any], signature: str = "signature") -> Voucher:
    return Voucher(
        parse_channel_id(payload.get("channelId")),
        parse_amount(payload.get("cumulativeAmount"), "cumulativeAmount"),
        parse_signature(payload.get(signature), signature),
    )


def _voucher_members(voucher: Voucher) -> dict[str, str]:
    return {
        "channelId": to_hex(voucher.channel_id),
        "cumulativeAmount": str(voucher.cumulative_amount),
        "signature": to_hex(voucher.signature),
    }


# --- receipts --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Receipt:
    """The ``Payment-Receipt`` of a paid answer. ``timestamp`` is Unix seconds; amounts are
    cumulative base units. ``price`` says why it cost what it did, where incentives apply, and
    ``tab`` what is owed, where there are tabs.
    """

    channel_id: ChannelId
    chain_id: int
    challenge_id: str
    accepted: int
    spent: int
    timestamp: float
    transaction_hash: bytes | None = None
    price: PriceNote | None = None
    tab: TabNote | None = None

    def to_header(self) -> str:
        """The value of a ``Payment-Receipt`` header."""
        return encode_base64url(self.to_json().encode())

    def to_json(self) -> str:
        """What the header encodes, in one line: canonical JSON (RFC 8785), written out since every
        paid answer needs it.
        """
        channel_id = to_hex(self.channel_id)
        sent = self.transaction_hash
        balance, price = ("", "") if self.price is None else self.price.to_json()
        tab = "" if self.tab is None else self.tab.to_json()
        return (
            f'{{"acceptedCumulative":"{self.accepted}",{balance}"chainId":{self.chain_id},'
            f'"challengeId":{encode_basestring(self.challenge_id)},"channelId":"{channel_id}",'
            f'"intent":"{INTENT}","method":"{METHOD}",{price}"reference":"{channel_id}",'
            f'"spent":"{self.spent}","status":"success",{tab}'
            f'"timestamp":"{format_time(self.timestamp)}"'
            + ("}" if sent is None else f',"txHash":"{to_hex(sent)}"}}')
        )

    @classmethod
    def parse(cls, header: str) -> Self:
        """From the value of a ``Payment-Receipt`` header. Raises :class:`InputError`."""
        return cls._of(limited_object(header, "receipt", CREDENTIAL_BYTES_MAX))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of :meth:`to_json`, for any server. Raises :class:`InputError`."""
        return cls._of(limited_object(text.encode(), "receipt", CREDENTIAL_BYTES_MAX))

    @classmethod
    def _of(cls, members: Mapping[str, Any]) -> Self:
        kind = (members.get("method"), members.get("intent"), members.get("status"))
        if kind != (METHOD, INTENT, "success"):
            raise InputError("the receipt is not one of a successful evm session payment")
        transaction_hash = members.get("txHash")
        return cls(
            channel_id=parse_channel_id(members.get("channelId")),
            chain_id=parse_chain_id(members.get("chainId")),
            challenge_id=parse_text(members.get("challengeId"), "challengeId", TEXT_MAX),
            accepted=parse_amount(members.get("acceptedCumulative"), "acceptedCumulative"),
            spent=parse_amount(members.get("spent"), "spent"),
            timestamp=parse_time(members.get("timestamp")).timestamp(),
            transaction_hash=(
                None if transaction_hash is None else parse_bytes32(transaction_hash, "txHash")
            ),
            price=PriceNote.parse(members),
            tab=TabNote.parse(members),
        )


# --- encodings -------------------------------------------------------------------------------


def encode_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_base64url(text: str, what: str) -> bytes:
    """The reverse of :func:`encode_base64url`. Padding and any other character are refused."""
    if not _BASE64URL.match(text):
        raise InputError(f"{what} is not base64url without padding")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise InputError(f"{what} is not base64url without padding") from error


def limited_object(data: str | bytes, what: str, limit: int) -> dict[str, Any]:
    """A JSON object of ``limit`` bytes at most; as text it is a header's, in base64url. Raises
    :class:`InputError`.
    """
    if len(data) > limit:
        raise InputError(f"the {what} is too large")
    raw = decode_base64url(data.strip(), what) if isinstance(data, str) else data
    return parse_json_object(raw, what)


def format_time(seconds: float) -> str:
    """Unix seconds as an RFC 3339 time in UTC, to the second."""
    return _format_second(int(seconds))


@lru_cache(maxsize=64)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: object) -> datetime:
    """An RFC 3339 time, in UTC and down to the second. Raises :class:`InputError`."""
    try:
        if not isinstance(text, str) or not _RFC3339.match(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError) as error:
        raise InputError("a time must be in the form 2026-01-31T12:00:00Z") from error


def canonical_json(members: Mapping[str, Any]) -> str:
    """JCS for what we write: strings, whole numbers below 2**53 and objects with ASCII names."""
    return _CANONICAL.encode(members)


def _optional_text(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    return None if value is None else parse_text(value, name, TEXT_MAX, at_least=0)


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _payment_params(header: str) -> list[list[tuple[str, str]]]:
    """The parameters of each ``Payment`` challenge in one header value, which may hold several of
    several schemes.
    """
    found = []
    position = 0
    while match := _SCHEME.match(header, position):
        position, params = _read_params(header, match.end())
        if match[1].lower() == SCHEME.lower():
            found.append(params)
    return found


def _read_params(header: str, position: int) -> tuple[int, list[tuple[str, str]]]:
    params: list[tuple[str, str]] = []
    while match := _AUTH_PARAM.match(header, position):
        name, value = match[1].lower(), match[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        params.append((name, value))
        position = match.end()
        if not header.startswith(",", position):
            break
        position += 1
    return position, params
