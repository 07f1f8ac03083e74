"""The tree drawn at the top of errors.py is the tree that there is."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import dataclass
from itertools import pairwise

import pytest

from channelpay import errors
from channelpay.errors import ChainReverted, ChannelPayError

INDENT = 4
_LINE = re.compile(r"(?P<branches>[│ ]*[├└]── )(?P<name>\w+) +(?P<note>\S.*)")


@dataclass(frozen=True)
class Drawn:
    """One line of the drawing; ``exit_code`` and ``status`` are None where it names none."""

    name: str
    parent: str
    exit_code: int | None
    status: int | None


def drawn_classes() -> list[Drawn]:
    path = ["ChannelPayError"]
    drawn = []
    for line in str(errors.__doc__).splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        depth = len(match["branches"]) // INDENT
        del path[depth:]
        drawn.append(
            Drawn(
                match["name"],
                path[-1],
                number_in(r"\bexit (\d)\b", match["note"]),
                number_in(r"\b(\d{3})$", match["note"]),
            )
        )
        path.append(match["name"])
    return drawn


def number_in(pattern: str, text: str) -> int | None:
    match = re.search(pattern, text)
    return int(match[1]) if match else None


def subclasses_of(kind: type[ChannelPayError]) -> list[type[ChannelPayError]]:
    return [kind] + [found for child in kind.__subclasses__() for found in subclasses_of(child)]


TREE = [kind for kind in subclasses_of(ChannelPayError) if kind.__module__ == errors.__name__]
DRAWN = drawn_classes()

each_class = pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
each_line = pytest.mark.parametrize("line", DRAWN, ids=lambda line: line.name)


def test_every_class_is_drawn_once() -> None:
    in_module = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    names = ["ChannelPayError", *(line.name for line in DRAWN)]
    assert sorted(names) == sorted(in_module)


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in TREE]
    assert len(set(codes)) == len(codes)


@each_line
def test_class_is_as_drawn(line: Drawn) -> None:
    kind = getattr(errors, line.name)
    parent = getattr(errors, line.parent)
    assert kind.__bases__ == (parent,)
    assert kind.status == (parent.status if line.status is None else line.status)
    assert kind.exit_code == (parent.exit_code if line.exit_code is None else line.exit_code)


@each_class
def test_code_and_title_are_its_own(kind: type[ChannelPayError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
    assert "code" in vars(kind)
    assert "title" in vars(kind)
    assert kind.problem == "about:blank" or kind.problem.startswith(errors.PROBLEM_BASE)


@each_class
def test_problem_body_says_what_the_class_says(kind: type[ChannelPayError]) -> None:
    problem = kind("what happened", hint="what to do", channelId="0x00").as_problem()
    assert json.loads(json.dumps(problem)) == {
        "type": kind.problem,
        "title": kind.title,
        "status": kind.status,
        "detail": "what happened",
        "code": kind.code,
        "hint": "what to do",
        "channelId": "0x00",
    }


@each_class
def test_error_without_words_speaks_by_its_title(kind: type[ChannelPayError]) -> None:
    error = kind()
    assert str(error) == error.detail == kind.title
    assert error.as_problem().get("hint", "") == kind.hint


def test_revert_carries_the_name_of_the_contract_error() -> None:
    error = ChainReverted(error="AmountNotIncreasing")
    assert (error.error, error.detail) == ("AmountNotIncreasing", "AmountNotIncreasing")


def test_drawing_is_read_to_its_depths() -> None:
    """The reader of the drawing itself: a child stands one level below its parent."""
    parents = {line.name: line.parent for line in DRAWN}
    assert parents["WrongRecoveryId"] == "InvalidSignature"
    assert parents["InvalidSignature"] == "PaymentRefused"
    assert any(first.parent == second.parent for first, second in pairwise(DRAWN))
