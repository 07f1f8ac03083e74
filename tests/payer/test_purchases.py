"""A purchase that was begun has the same key until it is over."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from channelpay.payer.purchases import KEY_SECONDS_MAX, purchase_of

PAYER = b"\x01" * 20
URL = "https://site.example/page"


def key_of(folder: Path, url: str = URL, *, is_over: bool = False) -> str:
    with purchase_of(folder, PAYER, url) as purchase:
        purchase.is_over = is_over
        return purchase.key


def test_a_purchase_that_is_not_over_is_continued_and_one_that_is_begins_anew(
    tmp_path: Path,
) -> None:
    first = key_of(tmp_path)
    assert key_of(tmp_path) == first
    assert key_of(tmp_path, is_over=True) == first
    assert list(tmp_path.iterdir()) == [], "nothing is kept of it"
    assert key_of(tmp_path) != first


def test_an_error_leaves_the_purchase_to_be_continued(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), purchase_of(tmp_path, PAYER, URL) as purchase:
        raise KeyboardInterrupt
    assert key_of(tmp_path) == purchase.key


def test_others_buy_for_themselves(tmp_path: Path) -> None:
    with purchase_of(tmp_path, PAYER, URL) as ours, purchase_of(tmp_path, PAYER, URL) as beside:
        beside.is_over = True
    assert ours.key != beside.key
    assert key_of(tmp_path) == ours.key
    assert key_of(tmp_path, URL + "?other") != ours.key


@pytest.mark.parametrize("damage", ["old", "malformed", "in the future"])
def test_a_key_that_is_of_no_use_any_more_is_replaced(tmp_path: Path, damage: str) -> None:
    first = key_of(tmp_path)
    (place,) = tmp_path.iterdir()
    if damage == "malformed":
        place.write_bytes(b"\xff" * 100)
    else:
        moment = time.time() + (-KEY_SECONDS_MAX - 1 if damage == "old" else 1000)
        os.utime(place, (moment, moment))
    second = key_of(tmp_path)
    assert second != first
    assert key_of(tmp_path) == second


def test_an_old_purchase_leaves_no_trace_once_anything_else_is_bought(tmp_path: Path) -> None:
    key_of(tmp_path)
    (place,) = tmp_path.iterdir()
    moment = time.time() - KEY_SECONDS_MAX - 1
    os.utime(place, (moment, moment))
    key_of(tmp_path, URL + "?other", is_over=True)
    assert list(tmp_path.iterdir()) == []


def test_a_place_says_neither_where_nor_what_was_bought(tmp_path: Path) -> None:
    key = key_of(tmp_path)
    (place,) = tmp_path.iterdir()
    assert (place.stat().st_mode & 0o777, place.read_text()) == (0o600, key)
    assert "site" not in place.name
