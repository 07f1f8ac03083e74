"""Amounts in SQLite: 16 bytes, big-endian (:mod:`channelpay.store.schema` says why)."""

from __future__ import annotations


def blob(units: int) -> bytes:
    return units.to_bytes(16, "big")


def amount(value: bytes) -> int:
    return int.from_bytes(value, "big")
