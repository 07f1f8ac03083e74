"""What the public strategies draw is what they say."""

from __future__ import annotations

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from channelpay.errors import SignerMismatch
from channelpay.protocol.eip712 import VoucherHasher
from channelpay.protocol.types import (
    AMOUNT_MAX,
    DEPOSIT_MAX,
    ZERO_ADDRESS,
    Address,
    ChannelState,
    ChannelStatus,
    Deployment,
    Voucher,
)
from channelpay.testing import strategies
from channelpay.testing.strategies import SignedVoucher

HERE = Deployment(31337, Address(b"\x07" * 20))


@given(strategies.signed_vouchers())
def test_a_signed_voucher_is_good_for_its_channel_and_no_other_amount(
    signed: SignedVoucher,
) -> None:
    hasher, voucher = VoucherHasher(signed.deployment), signed.voucher
    hasher.check(voucher, signed.channel.signer)
    assert voucher.channel_id == signed.channel.id(signed.deployment)
    other = Voucher(voucher.channel_id, voucher.cumulative_amount ^ 1, voucher.signature)
    with pytest.raises(SignerMismatch):
        hasher.check(other, signed.channel.signer)


@pytest.mark.parametrize("by_payer", [True, False])
def test_vouchers_are_signed_by_payers_and_by_authorized_signers(*, by_payer: bool) -> None:
    def is_wanted(signed: SignedVoucher) -> bool:
        return (signed.channel.authorized_signer == ZERO_ADDRESS) == by_payer

    find(strategies.signed_vouchers(), is_wanted)


@given(
    strategies.signed_vouchers(
        deployment=st.just(HERE), token=st.just(ZERO_ADDRESS), amount=st.integers(1, 9)
    )
)
def test_what_a_test_fixes_stays_fixed(signed: SignedVoucher) -> None:
    assert (signed.deployment, signed.channel.token) == (HERE, ZERO_ADDRESS)
    assert 1 <= signed.voucher.cumulative_amount <= 9


@given(strategies.signed_vouchers())
def test_a_key_never_shows(signed: SignedVoucher) -> None:
    assert signed.secret.hex() not in repr(signed)
    assert repr(signed.secret) not in repr(signed)


@given(strategies.channel_states())
def test_a_channels_state_is_one_that_the_contract_can_hold(state: ChannelState) -> None:
    assert 0 <= state.settled <= state.deposit <= DEPOSIT_MAX
    assert (state.close_requested_at > 0) == (state.status is ChannelStatus.CLOSING)
    assert (state.deposit > 0) == (state.status is not ChannelStatus.ABSENT)


@pytest.mark.parametrize("edge", [0, 1, DEPOSIT_MAX, DEPOSIT_MAX + 1, AMOUNT_MAX])
def test_amounts_find_every_edge(edge: int) -> None:
    assert find(strategies.amounts(), lambda amount: amount == edge) == edge


@given(strategies.amounts(1000))
def test_amounts_stay_under_their_limit(amount: int) -> None:
    assert 0 <= amount <= 1000
