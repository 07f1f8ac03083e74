"""The golden vectors of tests/vectors/, read into the project's types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from channelpay.protocol.types import Address, Channel, ChannelId, Deployment, Voucher

VECTORS = Path(__file__).parent.parent / "vectors"


def _read(name: str) -> dict[str, Any]:
    vectors: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return vectors


VOUCHERS = _read("vouchers.json")
WIRE = _read("wire.json")


def description(vector: dict[str, Any]) -> str:
    """The name of a vector's test."""
    return str(vector["description"])


def from_hex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def deployment_of(vector: dict[str, Any]) -> Deployment:
    return Deployment(vector["chainId"], Address(from_hex(vector["contract"])))


def channel_of(vector: dict[str, Any]) -> Channel:
    members = {name: from_hex(value) for name, value in vector["channel"].items()}
    return Channel(
        payer=Address(members["payer"]),
        payee=Address(members["payee"]),
        token=Address(members["token"]),
        authorized_signer=Address(members["authorizedSigner"]),
        salt=members["salt"],
    )


def voucher_of(vector: dict[str, Any]) -> Voucher:
    return Voucher(
        ChannelId(from_hex(vector["channelId"])),
        int(vector["cumulativeAmount"]),
        from_hex(vector["signature"]),
    )
