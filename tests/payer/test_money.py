"""Where the money is: every unit of a deposit is in one part, whatever the books hold."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.payer.money import Money, Next, standing_of
from channelpay.payer.records import PayerChannel
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Channel, ChannelStatus
from tests.payer.site import DEPLOYMENT, PAYEE

REQUESTED, GRACE = 1_000_000, 86_400
CHANNEL = Channel(PAYEE, PAYEE, NATIVE, ZERO_ADDRESS, bytes(32))
ENTRY = PayerChannel(
    CHANNEL.id(DEPLOYMENT),
    DEPLOYMENT,
    CHANNEL,
    deposit=100,
    status=ChannelStatus.OPEN,
    settled=10,
    signed=40,
    grace_seconds=GRACE,
)
CLOSING = replace(ENTRY, status=ChannelStatus.CLOSING, close_requested_at=REQUESTED)


@given(
    amounts=st.lists(st.integers(0, 2**96 - 1), min_size=3, max_size=3).map(sorted),
    signed_first=st.booleans(),
    status=st.sampled_from(ChannelStatus),
    seconds=st.integers(-GRACE, 2 * GRACE),
)
def test_the_parts_are_the_whole(
    amounts: list[int], signed_first: bool, status: ChannelStatus, seconds: int
) -> None:
    """What was settled may exceed what the books know to be signed: they may be old."""
    low, high, deposit = amounts
    signed, settled = (low, high) if signed_first else (high, low)
    if status is ChannelStatus.ABSENT:
        signed = settled = 0
    entry = replace(CLOSING, status=status, deposit=deposit, signed=signed, settled=settled)

    money = standing_of(entry, REQUESTED + GRACE + seconds).money

    parts = [getattr(money, field.name) for field in fields(Money)]
    assert sum(parts) == deposit
    assert min(parts) >= 0


@pytest.mark.parametrize(
    ("entry", "now", "money", "following", "at"),
    [
        (ENTRY, 0, Money(10, promised=30, available=60), Next.PAY, None),
        (
            CLOSING,
            REQUESTED + GRACE - 1,
            Money(10, promised=30, in_grace=60),
            Next.WITHDRAW,
            REQUESTED + GRACE,
        ),
        (
            CLOSING,
            REQUESTED + GRACE,
            Money(10, withdrawable=90),
            Next.WITHDRAW,
            REQUESTED + GRACE,
        ),
        (
            replace(ENTRY, status=ChannelStatus.FINALIZED),
            0,
            Money(10, withdrawn=90),
            Next.NOTHING,
            None,
        ),
        (
            replace(ENTRY, status=ChannelStatus.ABSENT, signed=0, settled=0),
            0,
            Money(0, available=100),
            Next.CONFIRM,
            None,
        ),
        (
            replace(ENTRY, in_doubt=True),
            0,
            Money(10, promised=30, available=60),
            Next.ASK,
            None,
        ),
        (
            replace(ENTRY, refused="channel-not-found"),
            0,
            Money(10, promised=30, available=60),
            Next.REQUEST_CLOSE,
            None,
        ),
        (
            replace(ENTRY, unanswered=1, unanswered_since=5),
            0,
            Money(10, promised=30, available=60),
            Next.REQUEST_CLOSE,
            None,
        ),
    ],
)
def test_how_a_channel_stands(
    entry: PayerChannel, now: int, money: Money, following: Next, at: int | None
) -> None:
    standing = standing_of(entry, now)
    assert (standing.money, standing.next, standing.at) == (money, following, at)
