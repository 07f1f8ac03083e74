"""Calls, errors and events of a contract by its ABI, for contracts that are played in Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import collapse_if_tuple

from channelpay.chain.artifacts import Artifact
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import Address
from channelpay.testing.execution import ExecutionReverted

_SELECTOR_BYTES = 4


@dataclass(frozen=True, slots=True)
class Event:
    """One event log; topics are 32 bytes each."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Function:
    """``signature`` is canonical, such as ``mint(address,uint256)``."""

    signature: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    is_payable: bool
    is_view: bool

    def arguments(self, data: bytes) -> tuple[Any, ...]:
        """Decoded, with addresses as bytes. Malformed data is a plain revert."""
        try:
            return tuple(map(_as_bytes, decode(self.inputs, data)))
        except DecodingError:
            raise ExecutionReverted(b"") from None

    def result(self, value: object) -> bytes:
        """The return data of one value, or of none."""
        return encode(self.outputs, [value]) if self.outputs else b""


class Abi:
    """What a contract's ABI says."""

    def __init__(self, artifact: Artifact) -> None:
        entries = artifact.abi
        functions = [_function(entry) for entry in entries if entry["type"] == "function"]
        self._functions = {_selector(one.signature): one for one in functions}
        self._errors = {entry["name"]: entry for entry in entries if entry["type"] == "error"}
        self._events = {entry["name"]: entry for entry in entries if entry["type"] == "event"}

    def function(self, data: bytes) -> Function:
        """The function that a call names. Raises :class:`ExecutionReverted` for any other."""
        found = self._functions.get(data[:_SELECTOR_BYTES])
        if found is None:
            raise ExecutionReverted(b"")
        return found

    def arguments(self, function: Function, data: bytes) -> tuple[Any, ...]:
        return function.arguments(data[_SELECTOR_BYTES:])

    def error(self, name: str, *values: object) -> ExecutionReverted:
        """A revert with an error of the contract."""
        types = _types(self._errors[name]["inputs"])
        selector = _selector(f"{name}({','.join(types)})")
        return ExecutionReverted(selector + encode(types, values))

    def event(self, address: Address, name: str, *values: object) -> Event:
        """An event; ``values`` in the order of its declaration."""
        inputs = self._events[name]["inputs"]
        types = _types(inputs)
        rows = list(zip(inputs, types, values, strict=True))
        indexed = [encode([kind], [value]) for item, kind, value in rows if item["indexed"]]
        plain = [(kind, value) for item, kind, value in rows if not item["indexed"]]
        data = encode([kind for kind, _ in plain], [value for _, value in plain])
        topic = keccak256(f"{name}({','.join(types)})".encode())
        return Event(address, (topic, *indexed), data)


def _function(entry: dict[str, Any]) -> Function:
    inputs, mutability = _types(entry["inputs"]), entry["stateMutability"]
    return Function(
        f"{entry['name']}({','.join(inputs)})",
        tuple(inputs),
        tuple(_types(entry["outputs"])),
        is_payable=mutability == "payable",
        is_view=mutability in ("view", "pure"),
    )


def _types(items: Sequence[Any]) -> list[str]:
    return [collapse_if_tuple(item) for item in items]


def _selector(signature: str) -> bytes:
    return keccak256(signature.encode())[:_SELECTOR_BYTES]


def _as_bytes(value: Any) -> Any:
    """What eth-abi decodes to hex text is an address."""
    if isinstance(value, str) and value.startswith("0x"):
        return Address(bytes.fromhex(value[2:]))
    if isinstance(value, tuple | list):
        return tuple(map(_as_bytes, value))
    return value
