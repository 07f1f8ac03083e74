"""What a member's site and its network tell each other: JSON over HTTP, with the member's key as
a bearer token. Amounts are decimal strings of base units, times Unix milliseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from channelpay.errors import (
    ChainBehind,
    ChainReverted,
    ChannelPayError,
    InputError,
    NetworkError,
    PaymentRefused,
    PayoutDue,
    RiskLimitReached,
)
from channelpay.payee.terms import Terms, Token
from channelpay.protocol.parse import (
    parse_address,
    parse_amount,
    parse_chain_id,
    parse_channel_id,
    parse_signature,
    parse_text,
)
from channelpay.protocol.proofs import HEADER as PROOF
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import (
    Address,
    Channel,
    ChannelId,
    ChannelState,
    ChannelStatus,
    Deployment,
)
from channelpay.protocol.wire import (
    CREDENTIAL_BYTES_MAX,
    IDEMPOTENCY_KEY_MAX,
    decode_base64url,
    encode_base64url,
)

BODY_BYTES_MAX = 64 * 1024
"""Of a member's request, whose credential has 16 KiB at most."""
RESOURCE_CHARACTERS_MAX = 2_300
RELEASE_MS = 600_000
"""How long a member may say that it did not deliver: what was sold before is final."""
_PRICES_MAX = 20
_TEXT_MAX = 64
_MAC_BYTES = 16
_ID_BYTES = 8
_NUMBER_BYTES = 8
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_TOKEN_BYTES = 2 * _NUMBER_BYTES + 1 + 32
_TOLD = PaymentRefused | InputError | ChainReverted | RiskLimitReached | ChainBehind | PayoutDue
"""What a member, and through it a reader, is told as it is. The cause of all other trouble may name
what is not for the public.
"""


@dataclass(frozen=True, slots=True)
class SaleRequest:
    """What a member wants to sell. ``credential`` is the reader's ``Authorization`` header and
    ``proof`` its :data:`~channelpay.protocol.proofs.HEADER`; ``prices`` are base units by token;
    without ``charged`` the credential alone is to be checked.
    """

    credential: str
    resource: str
    prices: Mapping[Address, int]
    charged: bool = True
    idempotency_key: str | None = None
    client: str | None = None
    author: str | None = None
    referrer: str | None = None
    proof: str | None = None

    def to_members(self) -> dict[str, Any]:
        return {
            "credential": self.credential,
            "resource": self.resource,
            "prices": {to_hex(token): str(amount) for token, amount in self.prices.items()},
            "charged": self.charged,
            "idempotencyKey": self.idempotency_key,
            "client": self.client,
            "author": self.author,
            "referrer": self.referrer,
            "proof": self.proof,
        }

    @classmethod
    def parse(cls, members: Mapping[str, Any]) -> Self:
        """Raises :class:`~channelpay.errors.InputError`."""
        prices = members.get("prices")
        if not isinstance(prices, dict) or not 1 <= len(prices) <= _PRICES_MAX:
            raise InputError(f"prices must name 1 to {_PRICES_MAX} tokens")
        if type(charged := members.get("charged")) is not bool:
            raise InputError("charged must be true or false")
        return cls(
            parse_text(members.get("credential"), "credential", CREDENTIAL_BYTES_MAX),
            _parse_line(members.get("resource"), "resource", RESOURCE_CHARACTERS_MAX),
            {parse_address(one): parse_amount(amount, "price") for one, amount in prices.items()},
            charged,
            _line_if_any(members, "idempotencyKey", IDEMPOTENCY_KEY_MAX),
            _line_if_any(members, "client", _TEXT_MAX),
            _line_if_any(members, "author", _TEXT_MAX),
            _line_if_any(members, "referrer", _TEXT_MAX),
            _proof_if_any(members),
        )


def _parse_line(value: object, name: str, limit: int) -> str:
    """A text without control characters: PostgreSQL keeps no NUL, and fails what comes with it."""
    text = parse_text(value, name, limit)
    if _CONTROL.search(text):
        raise InputError(f"{name} has a control character")
    return text


def _line_if_any(members: Mapping[str, Any], name: str, limit: int) -> str | None:
    value = members.get(name)
    return None if value is None else _parse_line(value, name, limit)


def _proof_if_any(members: Mapping[str, Any]) -> str | None:
    value = members.get("proof")
    return None if value is None else to_hex(parse_signature(value, PROOF))


@dataclass(frozen=True, slots=True)
class SaleTicket:
    """One request that was served for one payment; the member gives it back where it could not
    deliver. The network signs it for this member, so that nobody gives back another one's sales.
    ``time`` is the payment's: restored books give its number to another one.
    """

    payment_id: int
    attempt: int
    time: int
    channel_id: ChannelId

    def to_text(self, secret: bytes, member: str) -> str:
        body = (
            self.payment_id.to_bytes(_NUMBER_BYTES, "big")
            + self.attempt.to_bytes(1, "big")
            + self.time.to_bytes(_NUMBER_BYTES, "big")
            + self.channel_id
        )
        return encode_base64url(body + _mac(secret, member, body))

    @classmethod
    def parse(cls, text: object, secret: bytes, member: str) -> Self:
        """Raises :class:`~channelpay.errors.InputError` unless it was made for this member."""
        data = decode_base64url(parse_text(text, "sale", 2 * _TOKEN_BYTES), "sale")
        body, shown = data[:_TOKEN_BYTES], data[_TOKEN_BYTES:]
        is_whole = len(body) == _TOKEN_BYTES
        if not hmac.compare_digest(shown, _mac(secret, member, body)) or not is_whole:
            raise InputError("the sale is none of this member's")
        numbers = body[:_NUMBER_BYTES], body[_NUMBER_BYTES + 1 : 2 * _NUMBER_BYTES + 1]
        payment_id, time = (int.from_bytes(one, "big") for one in numbers)
        return cls(payment_id, body[_NUMBER_BYTES], time, ChannelId(body[-32:]))


def _mac(secret: bytes, member: str, body: bytes) -> bytes:
    return hmac.digest(secret, b"ticket " + member.encode() + b"\0" + body, "sha256")[:_MAC_BYTES]


def sale_id(secret: bytes, payment_id: int, time: int) -> str:
    """The name of a sale for those who share it: it tells nothing of how many others there are.
    Books that were restored from a copy name no other sale like it.
    """
    sale = b"".join(one.to_bytes(_NUMBER_BYTES, "big") for one in (payment_id, time))
    return hmac.digest(secret, b"sale " + sale, hashlib.sha256)[:_ID_BYTES].hex()


# --- terms ---------------------------------------------------------------------------------------


def terms_members(terms: Terms) -> dict[str, Any]:
    return {
        "chainId": terms.deployment.chain_id,
        "contract": to_hex(terms.deployment.contract),
        "payee": to_hex(terms.payee),
        "tokens": [
            {"address": to_hex(one.address), "symbol": one.symbol, "decimals": one.decimals}
            for one in terms.tokens
        ],
        "suggestedDeposits": {
            to_hex(token): str(amount) for token, amount in terms.suggested_deposits.items()
        },
    }


def parse_terms(members: Mapping[str, Any]) -> Terms:
    """Raises :class:`~channelpay.errors.InputError`."""
    try:
        tokens = tuple(_token(one) for one in members["tokens"])
        deposits = {
            parse_address(token): parse_amount(amount, "deposit")
            for token, amount in members["suggestedDeposits"].items()
        }
        place = (members["chainId"], members["contract"], members["payee"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("the terms of the network lack something") from error
    chain_id, contract, payee = place
    deployment = Deployment(parse_chain_id(chain_id), parse_address(contract))
    return Terms(deployment, parse_address(payee), tokens, deposits)


def _token(members: Mapping[str, Any]) -> Token:
    decimals = members["decimals"]
    if type(decimals) is not int or not 0 <= decimals <= 77:
        raise InputError("decimals must be a small whole number")
    return Token(
        parse_address(members["address"]), parse_text(members["symbol"], "symbol", 64), decimals
    )


# --- channels ------------------------------------------------------------------------------------


def record_members(record: ChannelRecord) -> dict[str, Any]:
    """What a member is told of the channel that pays it."""
    channel = record.channel
    return {
        "channelId": to_hex(record.channel_id),
        "payer": to_hex(channel.payer),
        "token": to_hex(channel.token),
        "authorizedSigner": to_hex(channel.authorized_signer),
        "salt": to_hex(channel.salt),
        "deposit": str(record.chain.deposit),
        "settled": str(record.chain.settled),
        "accepted": str(record.accepted),
        "spent": str(record.spent),
    }


def parse_record(members: Mapping[str, Any], payee: Address) -> ChannelRecord:
    """The reverse of :func:`record_members`. Raises :class:`~channelpay.errors.InputError`."""
    channel = Channel(
        parse_address(members.get("payer")),
        payee,
        parse_address(members.get("token")),
        parse_address(members.get("authorizedSigner")),
        bytes(parse_channel_id(members.get("salt"), "salt")),
    )
    deposit, settled = (parse_amount(members.get(name), name) for name in ("deposit", "settled"))
    return ChannelRecord(
        parse_channel_id(members.get("channelId")),
        channel,
        ChannelState(ChannelStatus.OPEN, deposit, settled),
        parse_amount(members.get("accepted"), "accepted"),
        parse_amount(members.get("spent"), "spent"),
    )


# --- errors --------------------------------------------------------------------------------------


def told(error: ChannelPayError) -> ChannelPayError:
    """What a member is told of an error."""
    if isinstance(error, _TOLD):
        return error
    return NetworkError("the payment could not be checked; the fault is the network's")


def error_of(problem: Mapping[str, Any]) -> ChannelPayError:
    """The error that a network answered with; one that a reader is not told becomes a
    :class:`~channelpay.errors.NetworkError`.
    """
    known = {kind.code: kind for kind in _kinds(ChannelPayError) if issubclass(kind, _TOLD)}
    kind = known.get(str(problem.get("code")))
    detail = str(problem.get("detail", ""))
    if kind is None:
        return NetworkError(f"the network said: {detail[:200]}")
    plain = {"type", "title", "status", "detail", "code", "hint"}
    context: dict[str, Any] = {
        name: value
        for name, value in problem.items()
        if name not in plain and isinstance(value, str | int)
    }
    return kind(detail, hint=str(problem.get("hint", kind.hint)), **context)


def _kinds(kind: type[ChannelPayError]) -> Iterator[type[ChannelPayError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _kinds(one)
