"""How signed funding goes over the wire: what a payee offers that carries the gas, and what a payer
answers. Used by :mod:`channelpay.protocol.wire` alone.

``feePayer``, ``credentialTypes`` and the authorizations are those of draft-evm-session-00;
``minCarriedDeposit`` and ``maxCarriedDeposit`` are our own, which other clients ignore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from channelpay.errors import InputError, MethodUnsupported
from channelpay.protocol.funding import (
    PERMIT2,
    Authorization,
    FundingMethod,
    OpenWitness,
    PermitTransfer,
    SignedAuthorization,
    TopUpWitness,
    TransferAuthorization,
)
from channelpay.protocol.parse import (
    parse_address,
    parse_amount,
    parse_bytes,
    parse_bytes32,
    parse_channel_id,
    parse_uint256,
)
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import AMOUNT_MAX

HASH: Final = "hash"
"""The credential type of a payer that sends its own transactions."""
_METHODS = [method.value for method in FundingMethod]
SIGNATURE_BYTES_MIN = 65
SIGNATURE_BYTES_MAX = 1024
"""A contract wallet's signature is longer than a key's."""


@dataclass(frozen=True, slots=True)
class CarriedGas:
    """That the payee sends opens and top-ups, and pays their gas: by these methods, the one that it
    prefers first, and for amounts from ``deposit_min`` to ``deposit_max`` base units. All of the
    amount gets into the channel.
    """

    methods: tuple[FundingMethod, ...]
    deposit_min: int = 1
    deposit_max: int = AMOUNT_MAX

    def members(self) -> dict[str, Any]:
        """What it adds to ``methodDetails``."""
        members: dict[str, Any] = {
            "feePayer": True,
            "credentialTypes": [*self.methods, HASH],
            "minCarriedDeposit": str(self.deposit_min),
        }
        if self.deposit_max < AMOUNT_MAX:
            members["maxCarriedDeposit"] = str(self.deposit_max)
        return members

    def takes(self, amount: int) -> bool:
        """Whether the payee carries the gas of an open or top-up of so much."""
        return self.deposit_min <= amount <= self.deposit_max

    @classmethod
    def parse(cls, details: Mapping[str, Any]) -> Self | None:
        """From ``methodDetails``; None where nothing is carried by a method that is known here.
        Raises :class:`InputError`.
        """
        methods = _methods(details)
        if details.get("feePayer") is not True or not methods:
            return None
        return cls(
            methods,
            parse_amount(details.get("minCarriedDeposit", "1"), "minCarriedDeposit"),
            parse_amount(details.get("maxCarriedDeposit", str(AMOUNT_MAX)), "maxCarriedDeposit"),
        )


def takes_hash(details: Mapping[str, Any]) -> bool:
    """Whether the payee takes channels that the payer opened by a transaction of its own."""
    return HASH in _credential_types(details)


def authorization_members(signed: SignedAuthorization) -> dict[str, Any]:
    """``type``, ``authorization`` and ``signature`` of a payload."""
    authorization = signed.authorization
    return {
        "type": authorization.method.value,
        "authorization": _members(authorization),
        "signature": to_hex(signed.signature),
    }


def parse_signed(payload: Mapping[str, Any], *, opens: bool) -> SignedAuthorization:
    """The authorization in a payload whose type is no hash. Raises :class:`InputError`."""
    members = payload.get("authorization")
    if not isinstance(members, dict):
        raise InputError("payload.authorization must be an object")
    kind = payload.get("type")
    authorization: Authorization
    if kind == FundingMethod.EIP3009.value:
        authorization = _parse_transfer(members)
    elif kind == FundingMethod.PERMIT2.value:
        authorization = _parse_permit(members, opens=opens)
    else:
        raise InputError("payload.type must be hash, authorization or permit2")
    size = (SIGNATURE_BYTES_MIN, SIGNATURE_BYTES_MAX)
    return SignedAuthorization(
        authorization, parse_bytes(payload.get("signature"), "signature", *size)
    )


def _credential_types(details: Mapping[str, Any]) -> Sequence[object]:
    types = details.get("credentialTypes", [HASH])
    if not isinstance(types, list):
        raise MethodUnsupported("credentialTypes must be a list")
    return types


def _methods(details: Mapping[str, Any]) -> tuple[FundingMethod, ...]:
    listed = _credential_types(details)
    known = tuple(FundingMethod(one) for one in listed if one in _METHODS and isinstance(one, str))
    permit2 = details.get("permit2Contract")
    if permit2 is None or parse_address(permit2, "permit2Contract") == PERMIT2:
        return known
    return tuple(method for method in known if method is not FundingMethod.PERMIT2)


def _members(authorization: Authorization) -> dict[str, Any]:
    if isinstance(authorization, TransferAuthorization):
        return {
            "from": to_hex(authorization.payer),
            "to": to_hex(authorization.to),
            "value": str(authorization.amount),
            "validAfter": str(authorization.valid_after),
            "validBefore": str(authorization.ends_at),
            "nonce": to_hex(authorization.nonce),
        }
    return {
        "from": to_hex(authorization.payer),
        "permitted": {"token": to_hex(authorization.token), "amount": str(authorization.amount)},
        "nonce": str(authorization.nonce),
        "deadline": str(authorization.ends_at),
        "witness": authorization.witness.members(),
    }


def _parse_transfer(members: Mapping[str, Any]) -> TransferAuthorization:
    return TransferAuthorization(
        payer=parse_address(members.get("from"), "from"),
        to=parse_address(members.get("to"), "to"),
        amount=parse_amount(members.get("value"), "value"),
        ends_at=parse_uint256(members.get("validBefore"), "validBefore"),
        nonce=parse_bytes32(members.get("nonce"), "nonce"),
        valid_after=parse_uint256(members.get("validAfter"), "validAfter"),
    )


def _parse_permit(members: Mapping[str, Any], *, opens: bool) -> PermitTransfer:
    permitted, witness = members.get("permitted"), members.get("witness")
    if not isinstance(permitted, dict) or not isinstance(witness, dict):
        raise InputError("authorization needs the objects permitted and witness")
    return PermitTransfer(
        payer=parse_address(members.get("from"), "from"),
        token=parse_address(permitted.get("token"), "permitted.token"),
        amount=parse_amount(permitted.get("amount"), "permitted.amount"),
        ends_at=parse_uint256(members.get("deadline"), "deadline"),
        nonce=parse_uint256(members.get("nonce"), "nonce"),
        witness=_parse_open_witness(witness) if opens else _parse_top_up_witness(witness),
    )


def _parse_open_witness(witness: Mapping[str, Any]) -> OpenWitness:
    return OpenWitness(
        parse_address(witness.get("payee"), "witness.payee"),
        parse_bytes32(witness.get("salt"), "witness.salt"),
        parse_address(witness.get("authorizedSigner"), "witness.authorizedSigner"),
    )


def _parse_top_up_witness(witness: Mapping[str, Any]) -> TopUpWitness:
    return TopUpWitness(parse_channel_id(witness.get("channelId"), "witness.channelId"))
