"""Receipts that prove a payment to others: signed by the payee, checked with nothing but the file.

Pure. A signed receipt is EIP-712 data in the domain of the contract's vouchers::

    PaymentReceipt(bytes32 channelId,uint256 paymentId,uint128 amount,uint128 spent,
                   string resource,uint64 time)

It comes with the description of its channel, whose hash the channel's id is: so the id names the
payee, and only the payee's key can have signed. A payee whose site runs without that key lets
another one sign, until a moment that it signs itself::

    ReceiptKey(address key,uint64 validUntil)

Amounts are base units of the channel's token; ``time`` is Unix milliseconds, ``validUntil`` Unix
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from channelpay.errors import InputError, InvalidSignature, ReceiptNotValid
from channelpay.protocol.eip712 import domain_separator, sign_digest
from channelpay.protocol.funding import signer_of
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.parse import (
    parse_address,
    parse_amount,
    parse_bytes32,
    parse_chain_id,
    parse_channel_id,
    parse_signature,
    parse_text,
)
from channelpay.protocol.text import checksum_address, to_hex
from channelpay.protocol.types import Address, Channel, ChannelId, Deployment, abi_word
from channelpay.protocol.wire import canonical_json, encode_base64url, limited_object

ASKING_HEADER = "Accept-Payment-Receipt"
"""With the value :data:`SIGNED`, a request asks for such a receipt beside the plain one."""
SIGNED = "signed"
HEADER = "Payment-Receipt-Signed"
"""The answer's header: the receipt's JSON in base64url."""
PLACE = "receipt/"
"""With the id of a channel, where its receipts are asked for later, below that of passes."""
RECEIPT_CHARACTERS_MAX = 16_384
RESOURCE_MAX = 2_200
"""A method and URL, and the hash of a body."""
_NUMBER_MAX = 2**64 - 1

_RECEIPT_TYPEHASH = keccak256(
    b"PaymentReceipt(bytes32 channelId,uint256 paymentId,uint128 amount,uint128 spent,"
    b"string resource,uint64 time)"
)
_KEY_TYPEHASH = keccak256(b"ReceiptKey(address key,uint64 validUntil)")


@dataclass(frozen=True, slots=True)
class ReceiptKey:
    """A key that signs receipts in the payee's name: its ``address``, until when (Unix seconds),
    and the payee's ``signature`` of both.
    """

    address: Address
    valid_until: int
    signature: bytes

    @classmethod
    def made(
        cls, deployment: Deployment, payee_secret: bytes, address: Address, valid_until: int
    ) -> Self:
        digest = _key_digest(deployment, address, valid_until)
        return cls(address, valid_until, sign_digest(payee_secret, digest))

    def payee(self, deployment: Deployment) -> Address:
        """Whose name it signs in. Raises :class:`InvalidSignature`."""
        return signer_of(_key_digest(deployment, self.address, self.valid_until), self.signature)

    def members(self) -> dict[str, Any]:
        return {
            "address": to_hex(self.address),
            "validUntil": str(self.valid_until),
            "signature": to_hex(self.signature),
        }

    @classmethod
    def parse(cls, members: object) -> Self:
        """The reverse of :meth:`members`. Raises :class:`InputError`."""
        if not isinstance(members, dict):
            raise InputError("key must be an object")
        return cls(
            parse_address(members.get("address"), "key.address"),
            _parse_number(members.get("validUntil"), "key.validUntil"),
            parse_signature(members.get("signature"), "key.signature"),
        )


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """One payment: ``amount`` was charged for ``resource`` at ``time``, and ``spent`` is what the
    channel had paid in all when it was signed. ``payment_id`` tells it apart from others there.
    """

    deployment: Deployment
    channel: Channel
    payment_id: int
    amount: int
    spent: int
    resource: str
    time: int
    signature: bytes = b""
    key: ReceiptKey | None = None

    @property
    def channel_id(self) -> ChannelId:
        return self.channel.id(self.deployment)

    @property
    def digest(self) -> bytes:
        """The 32 bytes that are signed."""
        numbers = (self.payment_id, self.amount, self.spent)
        words = b"".join(number.to_bytes(32, "big") for number in numbers)
        resource = keccak256(self.resource.encode())
        struct = self.channel_id + words + resource + self.time.to_bytes(32, "big")
        return _typed(self.deployment, keccak256(_RECEIPT_TYPEHASH + struct))

    def check(self) -> None:
        """Raises :class:`ReceiptNotValid` unless the payee of the channel signed it, or a key that
        the payee authorised for that time.
        """
        try:
            signer = signer_of(self.digest, self.signature)
            payee = signer if self.key is None else self.key.payee(self.deployment)
        except InvalidSignature as error:
            raise ReceiptNotValid(error.detail) from error
        if payee != self.channel.payee:
            raise ReceiptNotValid(
                f"signed for {checksum_address(payee)}; the payee of the channel is"
                f" {checksum_address(self.channel.payee)}"
            )
        if self.key is not None and self.key.address != signer:
            raise ReceiptNotValid("it is not by the key that the payee authorised")
        if self.key is not None and self.time > self.key.valid_until * 1000:
            raise ReceiptNotValid("it is from a time after the end of its key")

    def to_json(self) -> str:
        """Canonical JSON."""
        channel = self.channel
        members: dict[str, Any] = {
            "chainId": self.deployment.chain_id,
            "contract": to_hex(self.deployment.contract),
            "channelId": to_hex(self.channel_id),
            "payer": to_hex(channel.payer),
            "payee": to_hex(channel.payee),
            "token": to_hex(channel.token),
            "authorizedSigner": to_hex(channel.authorized_signer),
            "salt": to_hex(channel.salt),
            "paymentId": str(self.payment_id),
            "amount": str(self.amount),
            "spent": str(self.spent),
            "resource": self.resource,
            "time": str(self.time),
            "signature": to_hex(self.signature),
        }
        if self.key is not None:
            members["key"] = self.key.members()
        return canonical_json(members)

    def to_header(self) -> str:
        return encode_base64url(self.to_json().encode())

    @classmethod
    def from_header(cls, header: str) -> Self:
        """Raises :class:`InputError`."""
        return cls._read(header)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """The reverse of :meth:`to_json`; it is not checked. Raises :class:`InputError`."""
        return cls._read(text)

    @classmethod
    def _read(cls, data: str | bytes) -> Self:
        members = limited_object(data, "signed receipt", RECEIPT_CHARACTERS_MAX)
        made = cls._of(members)
        if parse_channel_id(members.get("channelId")) != made.channel_id:
            raise InputError("channelId is not that of the described channel")
        return made

    @classmethod
    def _of(cls, members: Mapping[str, Any]) -> Self:
        def address(name: str) -> Address:
            return parse_address(members.get(name), name)

        chain_id = parse_chain_id(members.get("chainId"))
        salt = parse_bytes32(members.get("salt"), "salt")
        parties = (address("payer"), address("payee"), address("token"))
        key = members.get("key")
        return cls(
            Deployment(chain_id, address("contract")),
            Channel(*parties, address("authorizedSigner"), salt),
            _parse_number(members.get("paymentId"), "paymentId"),
            parse_amount(members.get("amount"), "amount"),
            parse_amount(members.get("spent"), "spent"),
            parse_text(members.get("resource"), "resource", RESOURCE_MAX),
            _parse_number(members.get("time"), "time"),
            parse_signature(members.get("signature")),
            None if key is None else ReceiptKey.parse(key),
        )


class ReceiptSigner:
    """Signs receipts with the payee's key (32 bytes), or with one that the payee authorised. The
    key is never printed.
    """

    def __init__(self, secret: bytes, key: ReceiptKey | None = None) -> None:
        self._secret = secret
        self.key = key

    def sign(self, receipt: SignedReceipt) -> SignedReceipt:
        """The receipt with a signature; its own, if it had one, does not count."""
        signed = sign_digest(self._secret, receipt.digest)
        return replace(receipt, signature=signed, key=self.key)

    def __repr__(self) -> str:
        return "ReceiptSigner()"


def receipt_place(channel_id: ChannelId, key: str) -> ChannelId:
    """What whoever asks proves itself for, as :mod:`channelpay.protocol.proofs` does: the receipt
    of what the channel bought with the Idempotency-Key ``key``, and nothing else.
    """
    return ChannelId(keccak256(b"channelpay receipt proof" + channel_id + key.encode()))


def _key_digest(deployment: Deployment, address: Address, valid_until: int) -> bytes:
    struct = _KEY_TYPEHASH + abi_word(address) + valid_until.to_bytes(32, "big")
    return _typed(deployment, keccak256(struct))


def _typed(deployment: Deployment, struct_hash: bytes) -> bytes:
    return keccak256(b"\x19\x01" + domain_separator(deployment) + struct_hash)


def _parse_number(text: object, field: str) -> int:
    number = parse_amount(text, field)
    if number > _NUMBER_MAX:
        raise InputError(f"{field} is above 2**64 - 1")
    return number
