"""Reading the credentials of paid requests: most of them in one look.

A client echoes the same challenge with every voucher, so all but the end of a credential is the
same bytes again and again. The reader remembers the beginnings whose challenge was ours and
compares; what stands behind is a voucher in the one form that RFC 8785 gives it, or the credential
is read as a whole, by :class:`~channelpay.protocol.wire.Credential`. Both ways give the same
values: a remembered beginning and a canonical end make a JSON object with exactly these members.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, unhexlify
from typing import NamedTuple

from channelpay.errors import ChallengeExpired, InputError
from channelpay.protocol.parse import parse_json_object
from channelpay.protocol.types import AMOUNT_MAX, Address, ChannelId, Voucher
from channelpay.protocol.wire import (
    CREDENTIAL_BYTES_MAX,
    SCHEME,
    Challenge,
    ChallengeIssuer,
    Credential,
    Payload,
    SessionRequest,
    Source,
    VoucherPayload,
    decode_base64url,
)

OFFERS_MAX = 1_024
"""Beginnings kept, each at most 6 kB; the oldest makes room for a new one."""

SOURCES_MAX = 10_000
"""Payers kept, about 0.3 kB each."""

KEY_CHARS = 256
"""What offers are looked up by: it holds the challenge's id unless a long description comes first,
which costs time and nothing else.
"""
_START = SCHEME + " "
_SEPARATOR = b'"payload":'
# Characters of the standard alphabet alone would pass otherwise.
_STANDARD_ALPHABET = bytes.maketrans(b"-_+/=", b"+/   ")
_CANONICAL_END = re.compile(
    rb'\{"action":"voucher","channelId":"0x([0-9a-f]{64})",'
    rb'"cumulativeAmount":"(0|[1-9][0-9]{0,38})","signature":"0x([0-9a-f]{130})"\}'
    rb'(,"source":"did:pkh:eip155:[1-9][0-9]{0,15}:0x[0-9a-fA-F]{40}")?\}\Z'
)
_SOURCE_START = b',"source":"did:pkh:eip155:'
# One character more than whole groups is no base64, whatever is added.
_PADDING = (b"", b"", b"==", b"=")


class Reading(NamedTuple):
    """What a credential says, and ``request``: what we once offered in its challenge."""

    challenge: Challenge
    request: SessionRequest
    payload: Payload
    source: Source | None


class _Offer(NamedTuple):
    """A credential's beginning: ``text`` as it stands in the header, in whole groups of base64, and
    ``rest``, the bytes up to the payload that make no whole group any more.
    """

    text: str
    rest: bytes
    challenge: Challenge
    request: SessionRequest
    expires_at: float


class CredentialReader:
    """Reads ``Authorization: Payment`` headers whose challenges come from ``issuer``. For one
    thread.
    """

    def __init__(self, issuer: ChallengeIssuer) -> None:
        self._issuer = issuer
        self._offers: dict[str, _Offer] = {}
        self._sources: dict[bytes, Source] = {}

    def read(self, header: str, now: float) -> Reading:
        """What the header says at ``now`` (Unix seconds).

        Raises what :meth:`Credential.parse` and :meth:`ChallengeIssuer.check` raise.
        """
        offer = self._offers.get(header[:KEY_CHARS])
        end = None if offer is None else _end_behind(offer, header)
        if offer is None or end is None:
            return self._read_whole(header, now)
        if now > offer.expires_at:
            raise ChallengeExpired(f"the challenge expired at {offer.challenge.expires}")
        voucher, source = end
        return Reading(
            offer.challenge, offer.request, VoucherPayload(voucher), self._source(source)
        )

    def _source(self, text: bytes | None) -> Source | None:
        """A payer's source, as it stands at the end of all its credentials."""
        if text is None:
            return None
        source = self._sources.get(text)
        if source is None:
            if len(self._sources) >= SOURCES_MAX:
                self._sources.clear()
            chain_id, _, payer = text[len(_SOURCE_START) : -1].partition(b":0x")
            source = self._sources[text] = Source(int(chain_id), Address(unhexlify(payer)))
        return source

    def _read_whole(self, header: str, now: float) -> Reading:
        credential = Credential.parse(header)
        challenge = credential.challenge
        request = self._issuer.check(challenge, now)
        beginning = _beginning(header)
        if challenge.expires_at is not None and _says_only(beginning, challenge):
            if len(self._offers) >= OFFERS_MAX:
                del self._offers[next(iter(self._offers))]
            whole = len(beginning) // 3
            text = header[: len(_START) + 4 * whole]
            rest = beginning[3 * whole :] + _SEPARATOR
            offer = _Offer(text, rest, challenge, request, challenge.expires_at)
            self._offers[header[:KEY_CHARS]] = offer
        return Reading(challenge, request, credential.payload, credential.source)


def _end_behind(offer: _Offer, header: str) -> tuple[Voucher, bytes | None] | None:
    """The voucher and the text of the source in the canonical end of a credential that begins like
    the offer; None for any other form.
    """
    if len(header) > CREDENTIAL_BYTES_MAX or not header.startswith(offer.text):
        return None
    try:
        end = header[len(offer.text) :].encode("ascii").translate(_STANDARD_ALPHABET)
        text = a2b_base64(end + _PADDING[len(end) % 4], strict_mode=True)
    except ValueError:
        return None
    found = _CANONICAL_END.match(text, len(offer.rest)) if text.startswith(offer.rest) else None
    if found is None:
        return None
    channel_id, digits, signature, source = found.groups()
    amount = int(digits)
    if amount > AMOUNT_MAX:
        return None
    return Voucher(ChannelId(unhexlify(channel_id)), amount, unhexlify(signature)), source


def _beginning(header: str) -> bytes:
    """A credential's JSON up to the payload's name; empty if more than one space is before it."""
    token = header[len(_START) :]
    if not header.startswith(_START) or token != token.strip():
        return b""
    return decode_base64url(token, "credential").partition(_SEPARATOR)[0]


def _says_only(beginning: bytes, challenge: Challenge) -> bool:
    """Whether the beginning of a credential is exactly its challenge and a comma."""
    if not beginning.endswith(b","):
        return False
    try:
        members = parse_json_object(beginning[:-1] + b"}", "credential")
    except InputError:
        return False
    return [*members] == ["challenge"] and Challenge.from_members(members["challenge"]) == challenge
