"""The audit finds each thing that may not be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from channelpay.protocol.eip712 import VoucherSigner
from channelpay.protocol.types import (
    NATIVE,
    ZERO_ADDRESS,
    Address,
    Channel,
    ChannelId,
    Deployment,
)
from channelpay.protocol.wire import Source
from scripts.chaos.audit import Auditor, Finding
from scripts.chaos.books import Books, ChannelRow, PaymentRow
from scripts.chaos.crowd import Errand, Fate, Purse

IN_FLIGHT = 2
SIGNER = VoucherSigner(Deployment(1, Address(b"\x11" * 20)), b"\x07" * 32)
CHANNEL = Channel(SIGNER.address, Address(b"\x22" * 20), NATIVE, ZERO_ADDRESS, bytes(32))
ID = ChannelId(b"\x33" * 32)
PURSE = Purse(CHANNEL, ID, SIGNER, Source(1, SIGNER.address), b"", committed=30, signed=30)
SERVED = Errand(PURSE, "/page", "served", 10, 10, Fate.SERVED)
GIVEN_UP = Errand(PURSE, "/page", "given up", 10, 20, Fate.GIVEN_UP, lost=1)
FAILED = Errand(PURSE, "/broken", "failed", 10, 30, Fate.FAILED)
ERRANDS = [SERVED, GIVEN_UP, FAILED]
ROWS = [
    PaymentRow(ID, "served", 10, 10, "charged"),
    PaymentRow(ID, "given up", 20, 10, "charged"),
    PaymentRow(ID, "failed", 30, 10, "released"),
]
CHEAP = replace(ROWS[0], price=9)
DEAR = replace(ROWS[1], price=11)
UNRELEASED = replace(ROWS[2], outcome="charged")
ROW = ChannelRow("open", deposit=100, settled=0, accepted=30, spent=20)


def books(row: ChannelRow = ROW, rows: list[PaymentRow] = ROWS) -> Books:
    return Books({ID: row}, rows)


def audit(
    found: Books, errands: list[Errand] = ERRANDS, *, kills: int = 1, clear: bool = True
) -> Finding:
    return Auditor([PURSE], IN_FLIGHT, clear).audit(found, errands, kills)


def test_books_that_are_right_have_no_violations() -> None:
    assert audit(books()) == Finding((), charged=2, released=1, on_their_way=0, lost=1)


def test_what_is_under_way_may_be_charged() -> None:
    errands = [SERVED, replace(GIVEN_UP, fate=Fate.UNDER_WAY, lost=0), FAILED]

    assert audit(books(), errands) == Finding((), 2, 1, on_their_way=1, lost=0)


@pytest.mark.parametrize(
    ("violation", "found"),
    [
        ("accepted=19", books(replace(ROW, accepted=19))),
        ("accepted=101", books(replace(ROW, accepted=101))),
        ("the payer signed 30", books(replace(ROW, accepted=31))),
        ("spent 30, charged 20", books(replace(ROW, spent=30))),
        ("served, and charged []", books(replace(ROW, spent=10), ROWS[1:])),
        ("served, and charged [9]", books(replace(ROW, spent=19), [CHEAP, ROWS[1]])),
        ("charged 2 times", books(replace(ROW, spent=30), [ROWS[0], *ROWS])),
        ("nobody asked for it", books(rows=[ROWS[0], replace(ROWS[1], key="another")])),
        ("with another voucher", books(rows=[replace(ROWS[0], cumulative=20), ROWS[1]])),
        ("charged too much", books(replace(ROW, spent=21), [ROWS[0], DEAR])),
        ("certainly not served", books(replace(ROW, spent=30), [*ROWS[:2], UNRELEASED])),
    ],
)
def test_what_may_not_be_is_found(violation: str, found: Books) -> None:
    violations = audit(found).violations

    assert any(violation in one for one in violations), violations


def test_a_client_that_was_told_503_alone_is_not_charged_where_commits_are_clear() -> None:
    errands = [SERVED, replace(GIVEN_UP, lost=0, unavailable=1), FAILED]

    assert "certainly not served" in audit(books(), errands).violations[0]
    assert audit(books(), errands, clear=False).violations == ()


def test_no_more_is_lost_than_was_under_way_when_something_was_killed() -> None:
    assert audit(books(), kills=0).violations == (
        "1 charges without a served request after 0 kills",
    )


def test_what_was_committed_once_is_there_for_ever() -> None:
    auditor = Auditor([PURSE], IN_FLIGHT, commits_are_clear=True)
    auditor.audit(books(), ERRANDS, 1)

    later = books(replace(ROW, accepted=29, spent=20), ROWS[:2])
    violations = auditor.audit(later, ERRANDS, 1).violations

    assert "3 payments became 2" in violations[0]
    assert "accepted 30 became" in violations[1]
