"""How values are written for people: without loss, and read back as they were."""

from __future__ import annotations

from contextlib import suppress

import pytest
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import InputError
from channelpay.protocol.text import checksum_address, format_amount, parse_human_amount
from channelpay.protocol.types import AMOUNT_MAX
from tests.protocol.strategies import addresses, amounts

decimals_of_tokens = st.integers(0, 36)


@given(addresses)
def test_checksum_is_the_one_of_eip_55(address: bytes) -> None:
    assert checksum_address(address) == to_checksum_address(address)


@given(amounts, decimals_of_tokens)
def test_human_amount_round_trips(amount: int, decimals: int) -> None:
    assert parse_human_amount(format_amount(amount, decimals), decimals) == amount


@pytest.mark.parametrize(
    ("amount", "decimals", "written"),
    [
        (0, 0, "0 TUSD"),
        (0, 6, "0 TUSD"),
        (1, 6, "0.000001 TUSD"),
        (1_500_000, 6, "1.5 TUSD"),
        (10, 0, "10 TUSD"),
        (100 * 10**18, 18, "100 TUSD"),
        (-1_500_000, 6, "-1.5 TUSD"),
        (2**96 - 1, 18, "79228162514.264337593543950335 TUSD"),
        (AMOUNT_MAX, 18, "340282366920938463463.374607431768211455 TUSD"),
    ],
)
def test_amount_is_written_in_full_and_no_longer(amount: int, decimals: int, written: str) -> None:
    assert format_amount(amount, decimals, "TUSD") == written
    assert format_amount(amount, decimals) == written.removesuffix(" TUSD")


@pytest.mark.parametrize(
    ("text", "decimals", "amount"),
    [
        ("1.50", 1, 15),
        ("007", 0, 7),
        ("1.000", 0, 1),
        (str(AMOUNT_MAX), 0, AMOUNT_MAX),
        ("79228162514.264337593543950335", 18, 2**96 - 1),
    ],
)
def test_human_amount_is_read_to_the_base_unit(text: str, decimals: int, amount: int) -> None:
    assert parse_human_amount(text, decimals) == amount


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-1", "+1", "1e3", "NaN", "sNaN", "Infinity", "1_000", "1,5", "0x10", "1.", "."),
        *("1.5 ", "1\n", "\u0661", "\uff11", "one", "1.2.3", str(AMOUNT_MAX + 1), "9" * 80),
        *("0.0000001", "1." + "0" * 70 + "1", "1" * 100_000, "1." + "0" * 100_000, "\ud800"),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_human_amount_is_a_plain_decimal_number(text: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_human_amount(text, 6, "deposit")
    assert len(refusal.value.detail) < 200


@given(st.text())
def test_human_amount_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        assert 0 <= parse_human_amount(text, 6) <= AMOUNT_MAX
