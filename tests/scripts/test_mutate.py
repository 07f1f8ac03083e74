"""The list of mutants fits the contracts, and no result is better than it looks."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from scripts import mutate
from scripts.mutate import Edit, Mutant, MutationError, Outcome, Result

SOURCE = """contract C {
    function first() {
        require(a);
        require(b);
    }

    function second() {
        require(a);
    }
}
"""
MUTANTS = mutate.parse(mutate.LIST_FILE.read_text(encoding="utf-8"))
ENTRY = {"id": "one", "file": "C.sol", "old": "a", "new": "b", "rule": "A rule."}


def edit(old: str, *, function: str = "") -> Edit:
    return Edit("contracts/C.sol", function, old, "gone")


def listed(*entries: dict[str, str]) -> str:
    """A list as TOML; JSON strings are TOML strings."""
    return "\n".join(
        "[[mutant]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in entry.items())
        for entry in entries
    )


def result(outcome: Outcome, *, equivalent: str = "") -> Result:
    return Result(Mutant("one", "A rule.", (), "", equivalent), outcome, "test_c.py::test_c", 1.0)


# The list


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_every_mutant_fits_the_sources(mutant: Mutant) -> None:
    mutated = mutate.mutated_sources(mutant, mutate.ROOT)

    for path, text in mutated.items():
        assert text != (mutate.ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_the_test_to_try_first_exists(mutant: Mutant) -> None:
    assert mutant.equivalent or mutate.has_test(mutate.ROOT, mutant.test)


def test_no_two_mutants_are_the_same() -> None:
    assert len({mutant.edits for mutant in MUTANTS}) == len(MUTANTS)


def test_every_mutant_is_on_the_page() -> None:
    page = mutate.PAGE_FILE.read_text(encoding="utf-8")

    assert re.findall(r"^\| `([a-z0-9-]+)`", page, re.MULTILINE) == [
        mutant.id for mutant in sorted(MUTANTS, key=lambda mutant: bool(mutant.equivalent))
    ]


def test_a_mutant_has_a_test_or_a_reason() -> None:
    assert mutate.parse(listed(ENTRY | {"test": "test_c.py"}))[0].test == "test_c.py"
    assert mutate.parse(listed(ENTRY | {"equivalent": "So."}))[0].equivalent == "So."
    for entry in (ENTRY, ENTRY | {"test": "test_c.py", "equivalent": "So."}):
        with pytest.raises(MutationError, match="either"):
            mutate.parse(listed(entry))


def test_an_id_names_one_mutant() -> None:
    entry = ENTRY | {"test": "test_c.py"}

    with pytest.raises(MutationError, match="twice: one"):
        mutate.parse(listed(entry, entry))


def test_ids_choose_mutants() -> None:
    one, *others = MUTANTS

    assert mutate.chosen(MUTANTS, [one.id]) == (one,)
    assert mutate.chosen(MUTANTS, []) == (one, *others)
    with pytest.raises(MutationError, match="no such mutant: nonsense"):
        mutate.chosen(MUTANTS, [one.id, "nonsense"])


def test_a_list_that_does_not_fit_is_refused_at_once() -> None:
    fitting = MUTANTS[0]
    renamed = replace(fitting, test="test_open.py::test_of_another_name")
    gone = replace(fitting, test="test_of_another_name.py")
    stale = replace(fitting, edits=(replace(fitting.edits[0], old="no such text"),))

    mutate.check_fit([fitting], mutate.ROOT)
    for one in (renamed, gone, stale):
        with pytest.raises(MutationError, match=r"there is no|0 times"):
            mutate.check_fit([one], mutate.ROOT)


# Replacements


def test_a_fragment_is_replaced_in_its_function_alone() -> None:
    changed = edit("require(a);", function="function second(").apply(SOURCE)

    assert changed == SOURCE[::-1].replace("require(a);"[::-1], "gone"[::-1], 1)[::-1]


@pytest.mark.parametrize(
    "stale",
    [
        edit("require(a);"),
        edit("require(c);"),
        edit("require(b);", function="function second("),
        edit("require(a);", function="function third("),
        edit("require(a);", function="function "),
    ],
)
def test_a_fragment_that_is_not_there_once_is_refused(stale: Edit) -> None:
    with pytest.raises(MutationError, match="times"):
        stale.apply(SOURCE)


def test_edits_of_one_file_add_up(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "C.sol").write_text(SOURCE)
    edits = (edit("require(b);"), edit("require(a);", function="function second("))

    [text] = mutate.mutated_sources(Mutant("one", "A rule.", edits), tmp_path).values()

    assert text.count("gone") == 2


# What is run


@pytest.mark.parametrize(
    ("contracts", "expected"),
    [
        ({"PaymentChannels"}, ["test_open.py", "test_machine.py"]),
        ({"RevenueSplitter", "RevenueSplitterFactory"}, ["test_splitter.py"]),
        (
            {"PaymentChannels", "RevenueSplitter"},
            ["test_open.py", "test_splitter.py", "test_machine.py"],
        ),
    ],
)
def test_after_the_named_test_come_all_on_the_changed_contracts(
    tmp_path: Path, contracts: set[str], expected: list[str]
) -> None:
    tests = tmp_path / mutate.TESTS
    tests.mkdir(parents=True)
    for name in ("machine", "open", "gas", "splitter"):
        (tests / f"test_{name}.py").touch()
    mutant = Mutant("one", "A rule.", (), "test_open.py::test_it")

    tried = list(mutate.rounds(mutant, contracts, tmp_path))

    assert tried == [["test_open.py::test_it"], expected]


# Results


@pytest.mark.parametrize("outcome", Outcome)
def test_only_a_killed_mutant_is_as_expected(outcome: Outcome) -> None:
    assert result(outcome).expected is (outcome is Outcome.KILLED)


@pytest.mark.parametrize("outcome", Outcome)
def test_only_an_equivalent_mutant_survives(outcome: Outcome) -> None:
    assert result(outcome, equivalent="So.").expected is (outcome is Outcome.SURVIVED)


def test_the_page_has_a_line_for_each() -> None:
    page = mutate.page(
        [result(Outcome.SURVIVED, equivalent="Nothing changes."), result(Outcome.KILLED)]
    )

    assert "2 mutants: 1 are killed, 1 change nothing." in page
    assert "| `one` | A rule. | `test_c.py::test_c` |" in page
    assert "| `one` | A rule. | Nothing changes. |" in page
