"""Keccak-256, picked once: tiny-keccak (0.5 µs for 32 bytes), else pycryptodome (5.5 µs).

eth-account brings pycryptodome, so the second is always there, also where tiny-keccak has no wheel.
"""

from __future__ import annotations

from collections.abc import Callable

keccak256: Callable[[bytes], bytes]

try:
    import tiny_keccak
except ImportError:
    from Crypto.Hash import keccak

    def _with_pycryptodome(data: bytes) -> bytes:
        return keccak.new(digest_bits=256, data=data).digest()

    keccak256 = _with_pycryptodome
else:
    keccak256 = tiny_keccak.keccak256
