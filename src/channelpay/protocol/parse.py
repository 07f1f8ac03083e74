"""Strict readers for values from outside. Everything that enters the library as text passes here
once.

Each returns a checked value or raises :class:`InputError`, whose text names the field and never
repeats more than a short piece of what came in.
"""

from __future__ import annotations

import json
import re
from typing import Any, Never

from channelpay.errors import InputError
from channelpay.protocol.types import AMOUNT_MAX, Address, ChannelId

JSON_BRACKETS_MAX = 256
"""Bounds the nesting of JSON from outside, since the standard library's parser recurses: where a
program has raised Python's recursion limit (py-evm does), the C stack would overflow.
"""

_HEX = re.compile(r"0x[0-9a-fA-F]*\Z")
_LOWER_HEX = re.compile(r"0x[0-9a-f]*\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,38})\Z", re.ASCII)
_LONG_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,77})\Z", re.ASCII)
_UINT256_MAX = 2**256 - 1


def parse_address(text: object, field: str = "address") -> Address:
    """20 bytes from ``0x`` and 40 hex digits, in any case (compared by value, never by string)."""
    return Address(_parse_hex(text, 20, field, _HEX))


def parse_channel_id(text: object, field: str = "channelId") -> ChannelId:
    """32 bytes from ``0x`` and 64 lower-case hex digits."""
    return ChannelId(_parse_hex(text, 32, field, _LOWER_HEX))


def parse_bytes32(text: object, field: str) -> bytes:
    """32 bytes (a hash or a salt) from ``0x`` and 64 lower-case hex digits."""
    return _parse_hex(text, 32, field, _LOWER_HEX)


def parse_signature(text: object, field: str = "signature") -> bytes:
    """65 bytes ``r || s || v`` from ``0x`` and 130 lower-case hex digits."""
    return _parse_hex(text, 65, field, _LOWER_HEX)


def parse_amount(text: object, field: str) -> int:
    """0 to 2**128 - 1 from a canonical decimal string: no sign, no leading zero, no exponent."""
    if not isinstance(text, str) or not _DECIMAL.match(text):
        raise InputError(f"{field} must be a decimal string without sign or leading zeros")
    amount = int(text)
    if amount > AMOUNT_MAX:
        raise InputError(f"{field} is above 2**128 - 1")
    return amount


def parse_uint256(text: object, field: str) -> int:
    """0 to 2**256 - 1 from a canonical decimal string: a nonce, or the end of a validity."""
    if not isinstance(text, str) or not _LONG_DECIMAL.match(text):
        raise InputError(f"{field} must be a decimal string without sign or leading zeros")
    number = int(text)
    if number > _UINT256_MAX:
        raise InputError(f"{field} is above 2**256 - 1")
    return number


def parse_bytes(text: object, field: str, at_least: int, limit: int) -> bytes:
    """So many bytes from ``0x`` and lower-case hex digits."""
    size = len(text) // 2 - 1 if isinstance(text, str) else 0
    if not at_least <= size <= limit:
        raise InputError(f"{field} must be 0x and hex digits of {at_least} to {limit} bytes")
    return _parse_hex(text, size, field, _LOWER_HEX)


def parse_chain_id(value: object, field: str = "chainId") -> int:
    """A positive JSON number that fits 53 bits."""
    if type(value) is not int or not 0 < value < 2**53:
        raise InputError(f"{field} must be a positive whole number")
    return value


def parse_text(value: object, field: str, limit: int, *, at_least: int = 1) -> str:
    """A string of ``at_least`` to ``limit`` characters, free of lone surrogates."""
    if not isinstance(value, str) or not at_least <= len(value) <= limit:
        raise InputError(f"{field} must be a string of {at_least} to {limit} characters")
    if _SURROGATE.search(value):  # JSON can escape one; UTF-8 cannot hold it
        raise InputError(f"{field} has a lone surrogate")
    return value


def parse_json_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object (RFC 8259) in UTF-8, without duplicate names, NaN or infinities."""
    if data.count(b"{") + data.count(b"[") > JSON_BRACKETS_MAX:
        raise InputError(f"{what} has too many objects and arrays")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique_names, parse_constant=_refuse_constant
        )
    except ValueError as error:
        raise InputError(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise InputError(f"{what} is not a JSON object")
    return value


def _parse_hex(text: object, size: int, field: str, pattern: re.Pattern[str]) -> bytes:
    if not isinstance(text, str) or len(text) != 2 + 2 * size or not pattern.match(text):
        raise InputError(f"{field} must be 0x and {2 * size} hex digits")
    return bytes.fromhex(text[2:])


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InputError("a JSON object has the same name twice")
    return members


def _refuse_constant(literal: str) -> Never:
    raise InputError(f"{literal} is not JSON")
