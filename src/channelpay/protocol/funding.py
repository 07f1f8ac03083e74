"""Signed funding: what a payer signs so that somebody else can send its open or top-up, and pay the
gas.

Two kinds, both of draft-evm-session-00: an EIP-3009 authorization of the token, whose nonce is made
from the channel, and a Permit2 transfer, which has the channel as its witness. Either way the
signature is good for one channel and one amount; whoever sends it can change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from coincurve import PublicKey

from channelpay.errors import InvalidSignature
from channelpay.protocol.eip712 import SIGNATURE_BYTES, address_of
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, Channel, ChannelId, Deployment, abi_word

PERMIT2 = Address(bytes.fromhex("000000000022d473030f116ddee9f6b43ac78ba3"))
"""Permit2, at the same address on every chain; the contract knows no other."""
SALT_BYTES = 32

_DOMAIN = "EIP712Domain"
_DOMAIN_FIELDS = "string name,string version,uint256 chainId,address verifyingContract"
_RECEIVE = (
    "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce"
)
_PERMITTED = "address token,uint256 amount"
_TRANSFER = "TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline"
_VS = (27, 28)
_V_OFFSET = 27

Types = dict[str, list[dict[str, str]]]
"""EIP-712 types by name, as wallets take them."""


class FundingMethod(StrEnum):
    """How the money comes; the values are the draft's ``credentialTypes``."""

    EIP3009 = "authorization"
    PERMIT2 = "permit2"


@dataclass(frozen=True, slots=True)
class TokenDomain:
    """The EIP-712 domain of a token with EIP-3009, as the token itself has it."""

    name: str
    version: str
    chain_id: int
    token: Address

    @property
    def separator(self) -> bytes:
        """32 bytes; such a token tells it as ``DOMAIN_SEPARATOR()``."""
        return _separator(self.members())

    def members(self) -> dict[str, Any]:
        """As it stands in typed data."""
        place = {"chainId": self.chain_id, "verifyingContract": to_hex(self.token)}
        return {"name": self.name, "version": self.version, **place}


@dataclass(frozen=True, slots=True)
class TypedMessage:
    """EIP-712 typed data as wallets take it: addresses and hashes are hex strings. The first of its
    ``types`` is that of the message.
    """

    domain: dict[str, Any]
    types: Types
    message: dict[str, Any]

    @property
    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        struct = _hash_struct(next(iter(self.types)), self.message, self.types)
        return keccak256(b"\x19\x01" + _separator(self.domain) + struct)


@dataclass(frozen=True, slots=True)
class TransferAuthorization:
    """EIP-3009's ``ReceiveWithAuthorization``: ``to``, the contract, may take ``amount`` base units
    from ``payer`` after ``valid_after`` and before ``ends_at`` (Unix seconds). ``nonce`` is 32
    bytes.
    """

    payer: Address
    to: Address
    amount: int
    ends_at: int
    nonce: bytes
    valid_after: int = 0

    method: ClassVar[FundingMethod] = FundingMethod.EIP3009

    def digest(self, domain: TokenDomain) -> bytes:
        """The 32 bytes that the payer signs."""
        return self.typed(domain).digest

    def typed(self, domain: TokenDomain) -> TypedMessage:
        """The same for a wallet."""
        message = {
            "from": to_hex(self.payer),
            "to": to_hex(self.to),
            "value": self.amount,
            "validAfter": self.valid_after,
            "validBefore": self.ends_at,
            "nonce": to_hex(self.nonce),
        }
        types = {"ReceiveWithAuthorization": _fields(_RECEIVE)}
        return TypedMessage(domain.members(), types, message)


@dataclass(frozen=True, slots=True)
class OpenWitness:
    """What a Permit2 signature says of the channel that it opens."""

    payee: Address
    salt: bytes
    authorized_signer: Address

    name: ClassVar[str] = "ChannelOpenWitness"
    fields: ClassVar[str] = "address payee,bytes32 salt,address authorizedSigner"

    def members(self) -> dict[str, str]:
        """As it stands in a credential, and in typed data."""
        return {
            "payee": to_hex(self.payee),
            "salt": to_hex(self.salt),
            "authorizedSigner": to_hex(self.authorized_signer),
        }


@dataclass(frozen=True, slots=True)
class TopUpWitness:
    """What a Permit2 signature says of the channel that it adds to."""

    channel_id: ChannelId

    name: ClassVar[str] = "ChannelTopUpWitness"
    fields: ClassVar[str] = "bytes32 channelId"

    def members(self) -> dict[str, str]:
        """As it stands in a credential, and in typed data."""
        return {"channelId": to_hex(self.channel_id)}


@dataclass(frozen=True, slots=True)
class PermitTransfer:
    """Permit2's ``PermitWitnessTransferFrom``: the contract may take ``amount`` base units of
    ``token`` from ``payer`` until ``ends_at`` (Unix seconds), for the channel of ``witness``.
    """

    payer: Address
    token: Address
    amount: int
    ends_at: int
    nonce: int
    witness: OpenWitness | TopUpWitness

    method: ClassVar[FundingMethod] = FundingMethod.PERMIT2

    def digest(self, deployment: Deployment) -> bytes:
        """The 32 bytes that the payer signs."""
        return self.typed(deployment).digest

    def typed(self, deployment: Deployment) -> TypedMessage:
        """The same for a wallet."""
        witness = self.witness
        message = {
            "permitted": {"token": to_hex(self.token), "amount": self.amount},
            "spender": to_hex(deployment.contract),
            "nonce": self.nonce,
            "deadline": self.ends_at,
            "witness": witness.members(),
        }
        types = {
            "PermitWitnessTransferFrom": _fields(f"{_TRANSFER},{witness.name} witness"),
            "TokenPermissions": _fields(_PERMITTED),
            witness.name: _fields(witness.fields),
        }
        chain_id, place = deployment.chain_id, to_hex(PERMIT2)
        domain = {"name": "Permit2", "chainId": chain_id, "verifyingContract": place}
        return TypedMessage(domain, types, message)


Authorization = TransferAuthorization | PermitTransfer


@dataclass(frozen=True, slots=True)
class SignedAuthorization:
    """An authorization with its signature: 65 bytes of an account's key, or whatever a contract
    wallet takes for its own.
    """

    authorization: Authorization
    signature: bytes


def open_authorization(
    method: FundingMethod, deployment: Deployment, channel: Channel, deposit: int, ends_at: int
) -> Authorization:
    """What the payer of ``channel`` signs to have it opened with ``deposit`` base units.

    Its nonce comes from the channel, so of all that are ever signed for one channel, one counts.
    """
    nonce = channel.authorization_nonce
    if method is FundingMethod.EIP3009:
        return TransferAuthorization(channel.payer, deployment.contract, deposit, ends_at, nonce)
    witness = OpenWitness(channel.payee, channel.salt, channel.authorized_signer)
    number = int.from_bytes(nonce, "big")
    return PermitTransfer(channel.payer, channel.token, deposit, ends_at, number, witness)


def top_up_authorization(
    method: FundingMethod,
    deployment: Deployment,
    channel: Channel,
    amount: int,
    ends_at: int,
    salt: bytes,
) -> Authorization:
    """What the payer of ``channel`` signs to have ``amount`` base units added to it; ``salt`` (32
    bytes) tells one top-up from another.
    """
    channel_id = channel.id(deployment)
    if method is FundingMethod.EIP3009:
        nonce = top_up_nonce(channel_id, amount, channel.payer, salt)
        return TransferAuthorization(channel.payer, deployment.contract, amount, ends_at, nonce)
    number, witness = int.from_bytes(salt, "big"), TopUpWitness(channel_id)
    return PermitTransfer(channel.payer, channel.token, amount, ends_at, number, witness)


def top_up_nonce(channel_id: ChannelId, amount: int, payer: Address, salt: bytes) -> bytes:
    """The nonce (32 bytes) of an EIP-3009 authorization that adds so much to this channel and no
    other (draft-evm-session-00, ``topUpWithAuthorization``).
    """
    return keccak256(channel_id + _uint(amount) + abi_word(payer) + salt)


def is_for_open(authorization: Authorization, deployment: Deployment, channel: Channel) -> bool:
    """Whether the contract would take it for the open of ``channel``, as far as it names one."""
    if authorization.payer != channel.payer:
        return False
    if isinstance(authorization, TransferAuthorization):
        asked = (authorization.to, authorization.nonce)
        return asked == (deployment.contract, channel.authorization_nonce)
    witness = OpenWitness(channel.payee, channel.salt, channel.authorized_signer)
    return (authorization.token, authorization.witness) == (channel.token, witness)


def is_for_top_up(
    authorization: Authorization, deployment: Deployment, channel: Channel, salt: bytes
) -> bool:
    """Whether the contract would take it for a top-up of ``channel``, as far as it names one. The
    money may be another's than the channel's payer.
    """
    channel_id = channel.id(deployment)
    if isinstance(authorization, TransferAuthorization):
        nonce = top_up_nonce(channel_id, authorization.amount, authorization.payer, salt)
        return (authorization.to, authorization.nonce) == (deployment.contract, nonce)
    asked = (authorization.token, authorization.witness)
    return asked == (channel.token, TopUpWitness(channel_id))


def signer_of(digest: bytes, signature: bytes) -> Address:
    """The address whose key made a signature of 65 bytes over a digest of 32.

    Raises :class:`InvalidSignature`; a contract wallet's own kind of signature does that as well.
    """
    if len(signature) != SIGNATURE_BYTES or signature[64] not in _VS:
        raise InvalidSignature("a key's signature has 65 bytes, the last of them 27 or 28")
    recoverable = signature[:64] + bytes([signature[64] - _V_OFFSET])
    try:
        key = PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
    except Exception as error:  # coincurve raises bare Exception and ValueError alike
        raise InvalidSignature("no key can have made this signature") from error
    return address_of(key.format(compressed=False)[1:])


def _separator(domain: Mapping[str, Any]) -> bytes:
    """Of a domain with some of the fields that there are."""
    fields = [one for one in _fields(_DOMAIN_FIELDS) if one["name"] in domain]
    return _hash_struct(_DOMAIN, domain, {_DOMAIN: fields})


def _hash_struct(name: str, values: Mapping[str, Any], types: Types) -> bytes:
    """EIP-712's ``hashStruct``, where a type names others that name none."""
    others = sorted({field["type"] for field in types[name]} & types.keys())
    description = "".join(_written(one, types) for one in (name, *others))
    words = (_word(field["type"], values[field["name"]], types) for field in types[name])
    return keccak256(keccak256(description.encode()) + b"".join(words))


def _written(name: str, types: Types) -> str:
    fields = ",".join(f"{field['type']} {field['name']}" for field in types[name])
    return f"{name}({fields})"


def _word(kind: str, value: Any, types: Types) -> bytes:
    """One member, in 32 bytes."""
    if kind in types:
        return _hash_struct(kind, value, types)
    if kind == "string":
        return keccak256(value.encode())
    if kind == "uint256":
        return _uint(value)
    return bytes.fromhex(value.removeprefix("0x")).rjust(32, b"\0")


def _uint(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _fields(text: str) -> list[dict[str, str]]:
    pairs = (field.split() for field in text.split(","))
    return [{"name": name, "type": kind} for kind, name in pairs]
