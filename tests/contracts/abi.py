"""Contract calls, errors and events by name, from an ABI as the compiler writes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.abi import collapse_if_tuple

from channelpay.protocol.keccak import keccak256


@dataclass(frozen=True, slots=True)
class Event:
    """A decoded log; addresses and hashes as bytes."""

    name: str
    arguments: dict[str, Any]


class Abi:
    """One contract's ABI. Structs are tuples in the order of their fields."""

    def __init__(self, entries: Iterable[dict[str, Any]]) -> None:
        self._functions: dict[str, dict[str, Any]] = {}
        self._errors: dict[bytes, dict[str, Any]] = {}
        self._events: dict[bytes, dict[str, Any]] = {}
        for entry in entries:
            if entry["type"] == "function":
                self._functions[entry["name"]] = entry
            elif entry["type"] == "error":
                self._errors[keccak256(_signature(entry))[:4]] = entry
            elif entry["type"] == "event":
                self._events[keccak256(_signature(entry))] = entry

    @property
    def errors(self) -> set[str]:
        return {entry["name"] for entry in self._errors.values()}

    def encode(self, function: str, *arguments: object) -> bytes:
        """The data of a call."""
        entry = self._functions[function]
        return keccak256(_signature(entry))[:4] + encode(_types(entry["inputs"]), arguments)

    def decode_result(self, function: str, data: bytes) -> Any:
        """What a call returned; the value itself where it is one."""
        values = decode(_types(self._functions[function]["outputs"]), data)
        return _as_bytes(values[0] if len(values) == 1 else values)

    def decode_error(self, data: bytes) -> tuple[str, tuple[Any, ...]]:
        """Name and values of an error; its data in hex where this ABI has no such error."""
        entry = self._errors.get(data[:4])
        if entry is None:
            return data.hex(), ()
        return entry["name"], _as_bytes(decode(_types(entry["inputs"]), data[4:]))

    def decode_event(self, topics: Iterable[bytes], data: bytes) -> Event:
        """The event of a log."""
        selector, *indexed = topics
        entry = self._events[selector]
        plain = iter(decode(_types(i for i in entry["inputs"] if not i["indexed"]), data))
        words = iter(indexed)
        arguments = {
            field["name"]: _as_bytes(
                decode([field["type"]], next(words))[0] if field["indexed"] else next(plain)
            )
            for field in entry["inputs"]
        }
        return Event(entry["name"], arguments)


def _types(fields: Iterable[dict[str, Any]]) -> list[str]:
    return [collapse_if_tuple(field) for field in fields]


def _signature(entry: dict[str, Any]) -> bytes:
    return f"{entry['name']}({','.join(_types(entry['inputs']))})".encode()


def _as_bytes(value: Any) -> Any:
    """``eth_abi`` answers addresses as hex strings; here they are bytes."""
    if isinstance(value, str):
        return bytes.fromhex(value.removeprefix("0x"))
    if isinstance(value, tuple | list):
        return tuple(map(_as_bytes, value))
    return value
