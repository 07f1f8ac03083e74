"""Splits of a network's sales: they add up to the unit, whatever was sold, given back and paid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelpay.errors import ConfigError, PayoutDue
from channelpay.protocol.entries import EntryKey, EntryState, undone
from channelpay.protocol.rules import ChannelRecord
from channelpay.protocol.splits import (
    NETWORK,
    WHOLE,
    Agreement,
    HubSettings,
    Share,
    Splitting,
    parse_member_name,
    parts_of,
    share_key,
)
from channelpay.protocol.types import ABSENT, NATIVE, Address, Channel, ChannelId

NAMES = ["anna", "bert", "carl", None]
RECORD = ChannelRecord(
    ChannelId(bytes(32)), Channel(NATIVE, NATIVE, NATIVE, NATIVE, bytes(32)), ABSENT
)

agreements = (
    st.tuples(*[st.integers(0, WHOLE)] * 3)
    .filter(lambda parts: sum(parts) <= WHOLE)
    .map(lambda parts: Agreement(*parts))
)
owners = st.sampled_from(NAMES)


@given(agreements, st.integers(0, 2**96), owners, owners)
def test_the_parts_of_a_sale_add_up_to_its_price(
    agreement: Agreement, price: int, author: str | None, referrer: str | None
) -> None:
    parts = agreement.divide(price, "anna", author, referrer)

    assert sum(part.amount for part in parts) == price
    assert min(part.amount for part in parts) >= 0
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)


def test_what_does_not_divide_is_the_publishers() -> None:
    parts = Agreement(2_000, 500, 300).divide(999, "anna", "bert", "carl")

    assert [(part.role, part.name, part.amount) for part in parts] == [
        ("publisher", "anna", 999 - 199 - 49 - 29),
        ("author", "bert", 199),
        ("referrer", "carl", 49),
        ("network", NETWORK, 29),
    ]


def test_a_part_that_nobody_owns_is_the_publishers() -> None:
    (publisher,) = Agreement(2_000, 500).divide(1_000, "anna", author="anna")

    assert (publisher.name, publisher.amount) == ("anna", 1_000)


@pytest.mark.parametrize("parts", [(-1, 0, 0), (5_000, 5_000, 1), (10_001, 0, 0)])
def test_parts_that_do_not_add_up_are_no_agreement(parts: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError):
        Agreement(*parts)


@pytest.mark.parametrize("name", ["", "Anna", "-a", NETWORK, "a" * 33, "a b", "ä"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        parse_member_name(name)


sales = st.lists(st.tuples(st.integers(1, 10**6), owners, owners, st.booleans()), max_size=12)


@given(agreements, sales)
def test_shares_are_what_the_sales_that_stand_say(
    agreement: Agreement, history: list[tuple[int, str | None, str | None, bool]]
) -> None:
    entries: dict[EntryKey, EntryState] = {}
    expected: dict[str, int] = {}
    for price, author, referrer, is_given_back in history:
        splitting = Splitting(agreement, NATIVE, "anna", author, referrer)
        known = {key: entries[key] for key in splitting.keys if key in entries}
        sale = splitting.sell(price, RECORD, known)
        assert sale.price == price
        assert set(sale.entries) <= set(splitting.keys)
        entries |= sale.entries
        if is_given_back:
            entries |= undone(sale.undo, entries)
            continue
        for part in parts_of(sale.details):
            expected[part.name] = expected.get(part.name, 0) + part.amount

    assert _earned(entries) == {name: one for name, one in expected.items() if one}
    assert sum(expected.values()) == sum(price for price, _, _, is_back in history if not is_back)


def test_no_share_is_owed_more_than_the_cap() -> None:
    splitting = Splitting(Agreement(network=5_000), NATIVE, "anna", cap=100)
    entries = splitting.sell(200, RECORD, {}).entries

    with pytest.raises(PayoutDue):
        splitting.sell(2, RECORD, entries)

    paid = Share.from_state(entries[share_key(NATIVE, "anna")]).begun().ended(100, was_paid=True)
    known = {**entries, share_key(NATIVE, "anna"): paid.to_state()}
    assert splitting.sell(2, RECORD, known).price == 2


def test_a_payout_that_is_under_way_counts_until_it_was_paid() -> None:
    begun = Share(earned=100).begun()

    assert (begun.payable, begun.outstanding) == (0, 100)
    assert begun.ended(100, was_paid=True).outstanding == 0


def test_who_could_not_be_paid_is_owed_it_and_held() -> None:
    skipped = Share(earned=100).begun().ended(100, was_paid=False)

    assert (skipped.outstanding, skipped.payable) == (100, 0)
    assert replace(skipped, held=0).payable == 100


def test_settings_survive_the_books() -> None:
    token = Address(b"\x11" * 20)
    settings = HubSettings(Agreement(1, 2, 3), {NATIVE: 2**90, token: 5}, {token: 1}, 60)

    assert HubSettings.from_state(settings.to_state()) == settings


def _earned(entries: Mapping[EntryKey, EntryState]) -> dict[str, int]:
    shares = {key.name[20:].decode(): Share.from_state(one) for key, one in entries.items()}
    return {name: one.earned for name, one in shares.items() if one.earned}
