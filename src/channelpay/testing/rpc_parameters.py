"""Parameters of JSON-RPC calls, parsed once and strictly into values of the chain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from channelpay.testing.execution import GAS_LIMIT, CallMessage

_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]*)")
_DATA = re.compile(r"0x([0-9a-fA-F]{2})*")
_BLOCK_TAGS = frozenset({"latest", "pending", "earliest", "safe", "finalized"})
_FEE_KEYS = frozenset({"gasPrice", "maxFeePerGas", "maxPriorityFeePerGas"})
_IGNORED_KEYS = _FEE_KEYS | {"nonce", "type", "chainId", "accessList"}
_CALL_KEYS = _IGNORED_KEYS | {"from", "to", "data", "input", "value", "gas"}
_QUANTITY_LIMIT = 2**256


class InvalidParameters(Exception):
    """A parameter does not have the form its method demands."""


@dataclass(frozen=True, slots=True)
class BlockReference:
    """A block by number, by hash (32 bytes) or by tag; exactly one of them is set."""

    number: int | None = None
    block_hash: bytes | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class LogFilter:
    """``eth_getLogs``: no addresses means any; a ``None`` in ``topics`` means any topic there."""

    first: BlockReference
    last: BlockReference
    addresses: frozenset[bytes]
    topics: tuple[frozenset[bytes] | None, ...]

    def matches(self, address: bytes, topics: list[bytes]) -> bool:
        if self.addresses and address not in self.addresses:
            return False
        if len(topics) < len(self.topics):
            return False
        wanted = zip(self.topics, topics, strict=False)
        return all(accepted is None or topic in accepted for accepted, topic in wanted)


def quantity(value: object) -> int:
    """A hex quantity without leading zeros; plain JSON integers are taken too, as nodes do."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        value = int(value, 16)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _QUANTITY_LIMIT:
        return value
    raise InvalidParameters(f"not a quantity: {value!r}")


def data(value: object, *, size: int | None = None) -> bytes:
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise InvalidParameters(f"not hex data: {_shortened(value)}")
    parsed = bytes.fromhex(value[2:])
    if size is not None and len(parsed) != size:
        raise InvalidParameters(f"expected {size} bytes, got {len(parsed)}")
    return parsed


def address(value: object) -> bytes:
    return data(value, size=20)


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidParameters(f"not a boolean: {value!r}")
    return value


def block_reference(value: object) -> BlockReference:
    """A tag, a number, or an object with ``blockNumber`` or ``blockHash`` (EIP-1898)."""
    if isinstance(value, str) and value in _BLOCK_TAGS:
        return BlockReference(tag=value)
    if isinstance(value, Mapping):
        if "blockHash" in value:
            return BlockReference(block_hash=data(value["blockHash"], size=32))
        return BlockReference(number=quantity(value.get("blockNumber")))
    return BlockReference(number=quantity(value))


def call_message(value: object) -> CallMessage:
    """The first parameter of ``eth_call`` and ``eth_estimateGas``. Fees are ignored: it is free."""
    fields = _object(value)
    unknown = fields.keys() - _CALL_KEYS
    if unknown:
        raise InvalidParameters(f"unknown members: {', '.join(sorted(unknown))}")
    return CallMessage(
        sender=address(fields["from"]) if "from" in fields else bytes(20),
        to=address(fields["to"]) if "to" in fields else b"",
        data=data(fields.get("input", fields.get("data", "0x"))),
        value=quantity(fields.get("value", 0)),
        gas=min(quantity(fields.get("gas", GAS_LIMIT)), GAS_LIMIT),
    )


def log_filter(value: object) -> LogFilter:
    fields = _object(value)
    if "blockHash" in fields:
        first = last = block_reference({"blockHash": fields["blockHash"]})
    else:
        first = block_reference(fields.get("fromBlock", "latest"))
        last = block_reference(fields.get("toBlock", "latest"))
    topics = fields.get("topics", [])
    if not isinstance(topics, list):
        raise InvalidParameters("topics is not a list")
    return LogFilter(first, last, _addresses(fields.get("address")), tuple(map(_topics, topics)))


def _addresses(value: object) -> frozenset[bytes]:
    values = value if isinstance(value, list) else [value]
    return frozenset(address(item) for item in values if item is not None)


def _topics(value: object) -> frozenset[bytes] | None:
    if value is None:
        return None
    values = value if isinstance(value, list) else [value]
    return frozenset(data(item, size=32) for item in values)


def _object(value: object) -> dict[str, object]:
    """The members of a JSON object that are not null."""
    if not isinstance(value, dict):
        raise InvalidParameters(f"not an object: {_shortened(value)}")
    return {str(key): member for key, member in value.items() if member is not None}


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
