"""How values are written for people and on the wire: the reverse of
:mod:`channelpay.protocol.parse`.
"""

from __future__ import annotations

import re

from channelpay.errors import InputError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import AMOUNT_MAX

_HUMAN_AMOUNT = re.compile(r"([0-9]{1,80})(?:\.([0-9]{1,80}))?\Z")


def to_hex(data: bytes) -> str:
    """``0x`` and lower-case digits."""
    return "0x" + data.hex()


def checksum_address(address: bytes) -> str:
    """An address in the mixed case of EIP-55, for display."""
    digits = address.hex()
    mask = keccak256(digits.encode()).hex()
    cased = (d.upper() if int(m, 16) > 7 else d for d, m in zip(digits, mask, strict=False))
    return "0x" + "".join(cased)


def format_amount(amount: int, decimals: int, symbol: str = "") -> str:
    """Base units in human units without loss: ``format_amount(1_500_000, 6, "TUSD") == "1.5
    TUSD"``.
    """
    whole, base = divmod(abs(amount), 10**decimals)
    fraction = str(base).rjust(decimals, "0").rstrip("0")
    number = f"{'-' if amount < 0 else ''}{whole}{'.' if fraction else ''}{fraction}"
    return f"{number} {symbol}".rstrip()


def parse_human_amount(text: str, decimals: int, field: str = "amount") -> int:
    """Base units from human units: ``parse_human_amount("1.5", 6) == 1_500_000``. Refuses signs,
    exponents, and more digits than the token has.
    """
    match = _HUMAN_AMOUNT.match(text)
    if match is None:
        raise InputError(f"{field} {text[:40]!r} is not a plain decimal number, say 1.5")
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    if len(fraction) > decimals:
        raise InputError(f"{field} {text[:40]} has more than the {decimals} decimals of its token")
    amount = int(whole + fraction.ljust(decimals, "0"))
    if amount > AMOUNT_MAX:
        raise InputError(f"{field} {text[:40]} is too large")
    return amount
