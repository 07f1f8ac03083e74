"""Amounts in SQLite: 16 bytes, big-endian (:mod:`channelpay.store.schema` says why); vouchers in a
row, in each database: 16 bytes of amount and 65 of signature each.
"""

from __future__ import annotations

from collections.abc import Iterable

_VOUCHER_BYTES = 16 + 65


def blob(units: int) -> bytes:
    return units.to_bytes(16, "big")


def amount(value: bytes) -> int:
    return int.from_bytes(value, "big")


def vouchers_blob(vouchers: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(blob(units) + signature for units, signature in vouchers)


def vouchers(value: bytes) -> tuple[tuple[int, bytes], ...]:
    starts = range(0, len(value), _VOUCHER_BYTES)
    rows = (value[start : start + _VOUCHER_BYTES] for start in starts)
    return tuple((amount(row[:16]), row[16:]) for row in rows)
