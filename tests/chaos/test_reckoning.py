"""The last account of a soak finds each thing that may not be."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from channelpay.chain.events import (
    ChannelClosed,
    ChannelOpened,
    CloseCancelled,
    CloseRequested,
    EventPlace,
    ToppedUp,
)
from channelpay.protocol.types import NATIVE, ZERO_ADDRESS, Address, Channel, ChannelId
from scripts.chaos.books import Books, ChannelRow, PaymentRow
from scripts.chaos.reckoning import (
    Bill,
    Page,
    bills_of,
    end_violations,
    ledger_violations,
    owed_violations,
    purse_violations,
    read_diary,
)

PAYER, PAYEE = Address(b"\x11" * 20), Address(b"\x22" * 20)
CHANNEL = Channel(PAYER, PAYEE, NATIVE, ZERO_ADDRESS, bytes(32))
ID, OTHER = ChannelId(b"\x33" * 32), ChannelId(b"\x44" * 32)
PLACE = EventPlace(1, bytes(32), bytes(32), 0)
BILL = Bill(CHANNEL, 100, settled=30, refund=70)
ROW = ChannelRow("finalized", deposit=100, settled=30, accepted=30, spent=20)
PAID = PaymentRow(ID, "first", 20, 20, "charged")
PAGE = Page("first", ID, 20)
BEFORE = {(PAYER, NATIVE): 1000, (PAYEE, NATIVE): 500}


def books(row: ChannelRow | None = ROW, payments: list[PaymentRow] | None = None) -> Books:
    return Books({} if row is None else {ID: row}, [PAID] if payments is None else payments)


def test_a_bill_is_what_the_logs_say() -> None:
    opened = ChannelOpened(PLACE, ID, CHANNEL, 60)
    topped_up = ToppedUp(PLACE, ID, PAYER, PAYEE, 40, 100)
    requested = CloseRequested(PLACE, ID, PAYER, PAYEE, 7)
    cancelled = CloseCancelled(PLACE, ID, PAYER, PAYEE)
    closed = ChannelClosed(PLACE, ID, PAYER, PAYEE, 30, 70)

    assert bills_of([opened, topped_up]) == {ID: Bill(CHANNEL, 100)}
    assert bills_of([opened, requested]) == {ID: Bill(CHANNEL, 60, is_closing=True)}
    assert bills_of([opened, requested, cancelled]) == {ID: Bill(CHANNEL, 60)}
    assert bills_of([opened, topped_up, closed]) == {ID: BILL}


def test_what_is_right_has_no_violations() -> None:
    assert list(ledger_violations(books(), [PAGE])) == []
    assert list(end_violations({ID: BILL}, books())) == []
    assert list(owed_violations({ID: BILL}, books())) == []
    after = {(PAYER, NATIVE): 965, (PAYEE, NATIVE): 523}
    assert list(purse_violations([BILL], BEFORE, after, {PAYER: 5, PAYEE: 7})) == []


@pytest.mark.parametrize(
    ("found", "pages"),
    [
        (books(replace(ROW, spent=10)), [PAGE]),
        (books(replace(ROW, accepted=10)), [PAGE]),
        (books(payments=[]), []),
        (books(), [PAGE, replace(PAGE, key="second")]),
        (books(), [replace(PAGE, price=19)]),
        (books(), [replace(PAGE, channel_id=OTHER)]),
        (books(replace(ROW, spent=40, accepted=40), [PAID, PAID]), [PAGE]),
    ],
)
def test_a_page_is_charged_once_and_at_its_price(found: Books, pages: list[Page]) -> None:
    assert len(list(ledger_violations(found, pages))) == 1


@pytest.mark.parametrize(
    ("bill", "row"),
    [
        (replace(BILL, settled=None, refund=None), ROW),
        (replace(BILL, refund=69), ROW),
        (BILL, replace(ROW, settled=29)),
        (BILL, replace(ROW, deposit=101)),
        (BILL, replace(ROW, status="closing")),
        (BILL, replace(ROW, accepted=29)),
        (BILL, replace(ROW, spent=31)),
        (BILL, None),
    ],
)
def test_chain_and_books_say_the_same_in_the_end(bill: Bill, row: ChannelRow | None) -> None:
    assert len(list(end_violations({ID: bill}, books(row)))) == 1


def test_a_channel_that_the_chain_does_not_know_is_found() -> None:
    assert len(list(end_violations({}, books()))) == 1


@pytest.mark.parametrize(
    ("bill", "row", "waits"),
    [
        (Bill(CHANNEL, 100, is_closing=True), replace(ROW, settled=29), True),
        (Bill(CHANNEL, 100), ROW, True),
        (Bill(CHANNEL, 100, is_closing=True), ROW, False),
        (Bill(CHANNEL, 100, is_closing=True), None, False),
    ],
)
def test_the_grace_period_may_end_once_nothing_is_owed(
    bill: Bill, row: ChannelRow | None, waits: bool
) -> None:
    assert bool(list(owed_violations({ID: bill}, books(row)))) is waits


@pytest.mark.parametrize("account", [PAYER, PAYEE])
def test_one_base_unit_that_is_missing_is_found(account: Address) -> None:
    after = {(PAYER, NATIVE): 970, (PAYEE, NATIVE): 530}
    after[account, NATIVE] -= 1

    (violation,) = purse_violations([BILL], BEFORE, after, {})

    assert account.hex() in violation


def test_a_diary_leaves_out_the_line_that_is_being_written(tmp_path: Path) -> None:
    file = tmp_path / "payer.jsonl"
    notes: list[dict[str, Any]] = [
        {"born": 1},
        {"status": 402, "code": "payment-required", "presented": False},
        {"status": 200, "code": "", "presented": True},
        {"served": "first", "price": 20, "channelId": "0x" + ID.hex()},
        {"status": 402, "code": "insufficient-balance", "presented": True},
        {"status": 503, "code": "network", "presented": True},
        {"trouble": "network"},
        {"closed": "0x33"},
    ]
    file.write_text(jsonl(*notes) + '{"served": "sec')

    diary = read_diary([file, tmp_path / "nobody.jsonl"])

    assert diary.pages == [PAGE]
    assert diary.answers.total() == 4
    assert diary.refusals == Counter(["402 insufficient-balance"])
    assert (diary.troubles["network"], diary.closed["closed"], diary.lives) == (1, 1, 1)


def test_the_payee_may_tell_once_of_what_each_death_left_unknown(tmp_path: Path) -> None:
    born = {"born": 1}
    short = {"status": 402, "code": "insufficient-balance", "presented": True}
    (tmp_path / "one").write_text(jsonl(born, short, born, born, short, short, short))
    (tmp_path / "other").write_text(jsonl(born, short))

    diary = read_diary([tmp_path / "one", tmp_path / "other"])

    assert diary.refusals == Counter({"402 insufficient-balance": 3})


def jsonl(*notes: dict[str, Any]) -> str:
    return "".join(json.dumps(note) + "\n" for note in notes)
