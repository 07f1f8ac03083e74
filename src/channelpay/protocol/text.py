"""How values are written for people and on the wire: the reverse of
:mod:`channelpay.protocol.parse`.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from channelpay.errors import InputError
from channelpay.protocol.keccak import keccak256
from channelpay.protocol.types import AMOUNT_MAX


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
    number = f"{Decimal(amount).scaleb(-decimals):f}" if decimals else str(amount)
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {symbol}".rstrip()


def parse_human_amount(text: str, decimals: int, field: str = "amount") -> int:
    """Base units from human units: ``parse_human_amount("1.5", 6) == 1_500_000``. Refuses more
    digits than the token has.
    """
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise InputError(f"{field} {text[:40]!r} is not a number") from None
    if not number.is_finite() or number < 0 or abs(number.adjusted()) > 60:
        raise InputError(f"{field} must be zero or more, and of a sensible size")
    scaled = number.scaleb(decimals)
    if scaled != scaled.to_integral_value():
        raise InputError(f"{field} {text} has more than the {decimals} decimals of its token")
    if scaled > AMOUNT_MAX:
        raise InputError(f"{field} {text} is too large")
    return int(scaled)
