"""Passes in the payer's books: which one is shown, which token is kept, and what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from channelpay.errors import InputError, NotFound
from channelpay.payer.buying import pass_named
from channelpay.payer.forget import forget
from channelpay.payer.passes import HeldPass, PassSale, PassState
from channelpay.payer.state import PayerState
from channelpay.protocol.passes import Sealer, Token
from channelpay.protocol.text import to_hex
from channelpay.protocol.types import Address, ChannelId

PAYER = Address(b"\xa0" * 20)
ORIGIN = "https://site.example:443"
UNTIL = 1_900_000_000


def token(pass_id: bytes, serial: int = 1) -> str:
    return Sealer(b"s" * 32).seal(Token(pass_id, 1, serial, 5, 0), "site.example")


def held(number: int = 1, **changes: Any) -> HeldPass:
    pass_id = bytes([number]) * 16
    one = HeldPass(
        pass_id,
        PAYER,
        ORIGIN,
        ChannelId(b"c" * 32),
        "ten",
        "ten pages",
        ("/p/**",),
        100,
        10,
        10,
        0,
        0,
        token(pass_id),
    )
    return replace(one, **changes)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    return tmp_path / "payer.sqlite3"


@pytest.fixture
def state(books: Path) -> Iterator[PayerState]:
    with closing(PayerState(books)) as opened:
        yield opened


def test_the_pass_that_is_shown_covers_the_path_at_its_origin_and_does_not_count_if_possible(
    state: PayerState,
) -> None:
    state.passes.add(held(1))
    state.passes.add(held(2, uses=0, until=UNTIL, paths=("/p/?",)))

    def shown(path: str, origin: str = ORIGIN, payer: Address = PAYER) -> int | None:
        found = state.passes.to_show(payer, origin, path)
        return None if found is None else found.pass_id[0]

    assert (shown("/p/1"), shown("/p/12"), shown("/p/1/2")) == (2, 1, 1)
    assert (shown("/q"), shown("/p")) == (None, None)
    assert shown("/p/1", "https://other.example:443") is None
    assert shown("/p/1", payer=Address(b"\xa1" * 20)) is None
    state.passes.end(held(2).pass_id, "pass-ended")
    assert shown("/p/1") == 1


class Counted(str):
    """A path that counts how often its letters are looked at."""

    __slots__ = ("steps",)

    def __init__(self, _: str) -> None:
        self.steps = 0

    def __iter__(self) -> Iterator[str]:
        for letter in super().__iter__():
            self.steps += 1
            yield letter


def test_whether_a_pass_covers_a_path_is_known_after_one_look_at_each_letter() -> None:
    path = Counted("/" + "a" * 30)

    assert not held(paths=("/" + "**a" * 8 + "b",)).covers(path)
    assert path.steps == len(path)


def test_an_answer_to_an_older_token_does_not_undo_a_newer_one(state: PayerState) -> None:
    first = held()
    state.passes.add(first)
    second, third = (token(first.pass_id, serial) for serial in (2, 3))

    state.passes.record(first, PassState(second, left=9))
    state.passes.record(replace(first, token=second), PassState(third, left=8))
    state.passes.record(first, PassState(second, left=7))

    (kept,) = state.passes.all(PAYER)
    assert (kept.token, kept.left) == (third, 8)


def test_only_passes_that_are_over_are_forgotten(books: Path) -> None:
    with closing(PayerState(books)) as state:
        state.passes.add(held(1))
        state.passes.add(held(2, until=UNTIL, uses=0))
        state.passes.add(held(3, ended="pass-ended"))

    forget(books, UNTIL, UNTIL)

    with closing(PayerState(books)) as state:
        assert [one.pass_id[0] for one in state.passes.all(PAYER)] == [1]
    assert held(3).token.encode() not in books.read_bytes()


@pytest.mark.parametrize(
    ("header", "left", "until"),
    [
        (";left=3", 3, None),
        (f";until={UNTIL}", None, UNTIL),
        ("", None, None),
        (";x=1", None, None),
    ],
)
def test_the_header_of_an_answer_says_what_is_left(
    header: str, left: int | None, until: int | None
) -> None:
    text = token(b"p" * 16)

    state = PassState.parse(text + header)

    assert state == PassState(text, left, until)
    assert state is not None
    assert state.pass_id == b"p" * 16


@pytest.mark.parametrize("header", [None, "", "v2.abc", "v1.", "v1." + "A" * 67 + ";left=x", "é"])
def test_another_header_says_nothing(header: str | None) -> None:
    assert PassState.parse(header) is None


@pytest.mark.parametrize(
    "spoil",
    [
        {"pass": "0x12"},
        {"paths": []},
        {"paths": "/"},
        {"uses": -1},
        {"uses": "3"},
        {"refundUntil": "tomorrow"},
        {"label": "x" * 1000},
    ],
)
def test_an_answer_that_is_no_pass_is_refused(spoil: dict[str, Any]) -> None:
    members = {
        "pass": to_hex(b"p" * 16),
        "plan": "ten",
        "label": "ten",
        "paths": ["/**"],
        "uses": 10,
    }
    state = PassState(token(b"p" * 16), 10)
    sale = PassSale(PAYER, ORIGIN, ChannelId(b"c" * 32), 5, UNTIL)

    assert HeldPass.bought(sale, members, state).left == 10
    with pytest.raises(InputError):
        HeldPass.bought(sale, members | spoil, state)


def test_a_pass_is_named_by_its_plan_while_it_is_good_or_by_its_id() -> None:
    passes = [held(1, ended="pass-ended"), held(2), held(3, plan="day")]

    assert pass_named(passes, "ten").pass_id[0] == 2
    assert pass_named(passes, "0x0101").pass_id[0] == 1
    for name in ("", "0x", "month", "0x0"):
        with pytest.raises(NotFound):
            pass_named(passes, name)
