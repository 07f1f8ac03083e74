"""What is signed by hand and what programs sign are one count."""

from __future__ import annotations

import pytest

from channelpay.errors import AmountExceedsDeposit, ConfigError, InputError
from channelpay.protocol.eip712 import VoucherSigner
from tests.payer.site import DEPLOYMENT, KEY, Ground, signing

SIGN = signing(VoucherSigner(DEPLOYMENT, KEY))


def test_programs_use_what_was_signed_by_hand_before_they_sign_more(ground: Ground) -> None:
    channel_id = ground.open().channel_id
    by_hand = ground.state.sign_by_hand(channel_id, 50, SIGN)

    first = ground.state.reserve(channel_id, 7, SIGN)
    assert first.voucher == by_hand
    second = ground.state.reserve(channel_id, 44, SIGN)
    assert second.voucher.cumulative_amount == 51


def test_a_payee_that_was_paid_by_hand_is_believed(ground: Ground) -> None:
    """Else the books would take the same money for their own."""
    channel_id = ground.open().channel_id
    ground.state.sign_by_hand(channel_id, 50, SIGN)

    assert ground.state.adopt_spent(channel_id, 50).spent == 50
    assert ground.state.reserve(channel_id, 7, SIGN).voucher.cumulative_amount == 57


def test_a_hand_signs_no_less_than_what_is_promised_to_requests_under_way(ground: Ground) -> None:
    channel_id = ground.open().channel_id
    ground.state.reserve(channel_id, 7, SIGN)

    with pytest.raises(InputError, match="7 base units are signed already"):
        ground.state.sign_by_hand(channel_id, 6, SIGN)


def test_what_is_refused_leaves_the_books_as_they_were(ground: Ground) -> None:
    entry = ground.open()
    with pytest.raises(AmountExceedsDeposit):
        ground.state.sign_by_hand(entry.channel_id, entry.deposit + 1, SIGN)
    ground.state.mark_in_doubt()
    with pytest.raises(ConfigError, match="more may have been signed"):
        ground.state.sign_by_hand(entry.channel_id, 5, SIGN)

    assert ground.state.channel(entry.channel_id).signed == 0
