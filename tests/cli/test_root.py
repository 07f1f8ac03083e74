"""The program's frame: help, lazy imports, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from channelpay.cli import root
from channelpay.cli.output import Output
from channelpay.errors import ChannelNotFound, ChannelPayError, ConfigError, NetworkError
from tests.cli.conftest import Run


def test_help_imports_nothing_heavy() -> None:
    """Neither that of the program nor that of any command: it is there at once."""
    program = """
import sys
from channelpay.cli.root import _COMMANDS, cli

heavy = {
    "anyio", "asyncio", "eth", "eth_account", "httpx2", "prometheus_client", "psycopg", "requests",
    "rich", "segno", "starlette", "urllib3", "uvicorn", "web3",
}
for arguments in ([], *([name] for name in _COMMANDS)):
    try:
        cli([*arguments, "--help"])
    except SystemExit as end:
        assert not end.code
    assert not heavy & set(sys.modules), (arguments, heavy & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_all_commands_are_listed_with_their_help(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("account", "channel", "contract", "dev", "pay", "site"):
        assert f"\n  {name} " in result.output


def test_each_listed_command_is_there() -> None:
    context = click.Context(root.cli)
    for name in root.cli.list_commands(context):
        command = root.cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version").output.startswith("channelpay 0.")


@pytest.mark.parametrize(
    ("module", "extra"), [("starlette", "site"), ("eth", "dev"), ("uvicorn", "site")]
)
def test_a_missing_extra_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")

    monkeypatch.setattr(root, "import_module", missing)
    result = run("dev")
    assert result.exit_code == 2
    assert f"channelpay[{extra}]" in json.loads(result.stderr)["hint"]


def test_a_missing_module_of_our_own_is_a_bug_and_no_hint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'channelpay.x'", name="channelpay.x")

    monkeypatch.setattr(root, "import_module", missing)
    assert isinstance(run("dev").exception, ModuleNotFoundError)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """``channelpay dev`` raises what is put in here."""
    errors: list[BaseException] = []

    @click.command()
    @click.pass_obj
    def dev(output: Output) -> None:
        with output.waiting("Working", after_interrupt="Look at it."):
            raise errors[0]

    monkeypatch.setattr(root._Root, "get_command", lambda *_: dev)
    return errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ChannelPayError("broken"), 1),
        (ConfigError("no node"), 2),
        (NetworkError("node down"), 3),
        (ChannelNotFound("who?"), 4),
    ],
)
def test_an_error_is_one_line_of_json_and_its_exit_code(
    run: Run, failing: list[BaseException], error: ChannelPayError, code: int
) -> None:
    failing.append(error)
    result = run("dev")
    assert (result.exit_code, result.stdout) == (code, "")
    assert json.loads(result.stderr) == error.as_problem() | {"exitCode": code}


def test_a_person_reads_the_error_and_its_hint(
    run: Run, failing: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))
    failing.append(NetworkError("node down", hint="Try later.", txHash="0x12"))
    result = run("dev")
    assert result.stderr == "Error: node down\n  txHash 0x12\nHint: Try later.\n"


def test_an_interruption_is_an_error_like_others_and_says_what_to_do_next(
    run: Run, failing: list[BaseException]
) -> None:
    failing.append(KeyboardInterrupt())
    result = run("dev")
    problem = json.loads(result.stderr)
    assert (result.exit_code, problem["exitCode"], problem["code"]) == (130, 130, "interrupted")
    assert "Look at it." in problem["hint"]


def test_a_wrong_option_is_an_error_like_others(run: Run) -> None:
    result = run("pay", "--nonsense")
    assert result.exit_code == 2
    problem = json.loads(result.stderr)
    assert (problem["code"], problem["hint"]) == ("invalid-input", "See: channelpay pay --help")


def test_the_program_exits_with_the_code(tmp_path: object) -> None:
    environment = os.environ | {"CHANNELPAY_HOME": str(tmp_path), "CHANNELPAY_PASSWORD": "x"}
    done = subprocess.run(
        [sys.executable, "-c", "from channelpay.cli import main; main()", "pay", "https://x/"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 2
    assert "there is no account yet" in done.stderr
    assert "channelpay account new" in done.stderr


def test_a_home_that_is_no_folder_is_said_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CHANNELPAY_HOME", str(tmp_path / "file"))
    result = run("account", "list")
    assert (result.exit_code, "CHANNELPAY_HOME" in result.stderr) == (2, True)


def test_what_is_one_argument_too_many_is_not_repeated(run: Run) -> None:
    secret = "5e" * 32

    done = run("account", "import", "mine", secret)

    assert done.exit_code == 2
    assert secret not in done.output
