"""What holds for every command, whatever it does."""

from __future__ import annotations

import json
import shlex

import click
import pytest

from channelpay.cli.root import cli
from tests.cli.conftest import Run
from tests.docs.test_references import COMMANDS

SPENDING = {
    "channel close",
    "channel open",
    "channel top-up",
    "channel withdraw",
    "contract deploy",
    "hub payout",
    "payee close",
    "payee settle",
}
"""What costs money each time that it does what it is there for."""
PRINTS_NO_RESULT = {"completion"}
"""A shell reads what it prints."""
LEAVES = [name for name, one in COMMANDS.items() if not isinstance(one, click.Group)]


def options_of(name: str) -> set[str]:
    return {flag for one in COMMANDS[name].params for flag in one.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_says_what_it_does_and_has_an_example(run: Run, name: str) -> None:
    done = run(*name.split(), "--help")
    command = COMMANDS[name]

    assert done.exit_code == 0
    assert command.help
    if not isinstance(command, click.Group):
        assert "channelpay" in str(command.epilog)
        assert "Example" in done.stdout


@pytest.mark.parametrize("name", LEAVES)
def test_its_result_can_be_had_as_json(name: str) -> None:
    assert ("--json" in options_of(name)) == (name not in PRINTS_NO_RESULT)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_it_does_not_have_is_one_line_of_json_with_a_code_and_a_hint(
    run: Run, name: str
) -> None:
    done = run(*name.split(), "--nonsense")

    problem = json.loads(done.stderr)
    assert (done.exit_code, problem["exitCode"], problem["code"]) == (2, 2, "invalid-input")
    assert f"channelpay {name} --help" in problem["hint"]


@pytest.mark.parametrize("name", sorted(SPENDING))
def test_what_costs_money_can_be_tried_first_and_agreed_to_before(name: str) -> None:
    assert {"--dry-run", "--yes"} <= options_of(name)


def test_a_terminal_gets_json_where_it_is_asked_for_also_when_nothing_else_is_understood(
    run: Run,
) -> None:
    """The error comes before the options are read."""
    command = shlex.split("channel list --json --nonsense")

    assert json.loads(run(*command).stderr)["exitCode"] == 2
    assert isinstance(cli, click.Group)
