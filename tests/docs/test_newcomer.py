"""Somebody new: an empty environment, the built wheel, and the tutorial alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.docs.blocks import DOCS, Block, blocks_of, pages_before
from scripts.docs.follow import check_picture, check_shown, type_block
from scripts.docs.terminal import Done, Terminal, terminal

REPOSITORY = DOCS.parent
WHEELS = REPOSITORY / ".wheels"
"""What the package needs to be built and to run; ``make test`` fills it."""
PAGE = DOCS / "tutorials" / "get-paid.md"
INSTALLS, PAYS = "pip install ", "channelpay pay "
COMMANDS_MAX = 10
SECONDS_MAX = 300
PYTHON = Path(sys.base_prefix) / "bin"
"""Without what the tests run with."""
FROM_WHEELS = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(WHEELS), "PIP_NO_INDEX": "1"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY))
    (built,) = folder.glob("channelpay-*.whl")
    return built


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal where nothing of ours is installed."""
    nothing = {"PYTHONPATH": "", "VIRTUAL_ENV": "", "ETH_ACCOUNT_KDF": "scrypt"}
    with terminal(tmp_path, {**nothing, **FROM_WHEELS}, programs=PYTHON) as opened:
        yield opened


def test_from_an_empty_environment_to_a_paid_page_by_the_tutorial(
    opened: Terminal, wheel: Path
) -> None:
    stands_for = {"CHECKOUT": str(wheel)}
    typed: list[str] = []
    begun, done = time.monotonic(), Done(0, "")

    for block in _until_paid():
        if block.is_file:
            opened.save(str(block.title), block.text)
        elif block.is_typed:
            if any(line.startswith(INSTALLS) for line in block.commands):
                begun, typed = time.monotonic(), []
            typed += block.commands
            done = type_block(opened, block, stands_for)
        elif block.is_picture:
            check_picture(PAGE.parent / block.text, done)
        else:
            check_shown(block, done)

    assert "Worth every wei.\npaid 0.001 ETH" in done.output
    assert typed[0].startswith(INSTALLS)
    assert len(typed) <= COMMANDS_MAX, typed
    assert time.monotonic() - begun < SECONDS_MAX
    environment = opened.current_folder / ".venv"
    assert list(environment.glob("lib/python*/site-packages/channelpay/cli/root.py"))


def test_a_plain_install_pulls_nothing_for_tests_or_contracts(wheel: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    groups = project["dependency-groups"].values()
    chain = project["project"]["optional-dependencies"]["dev"]
    needed = {_name(one) for one in project["project"]["dependencies"]}
    named = [one for group in (*groups, chain) for one in group if isinstance(one, str)]
    others = {_name(one) for one in named} - needed

    pulled = _would_install(str(wheel))

    assert pulled >= needed
    assert others >= {"pytest", "hypothesis", "py-evm", "eth-tester", "eth-ape", "py-solc-x"}
    assert not pulled & others


def _until_paid() -> Iterator[Block]:
    """What the tutorial has a reader do, with the pages that it begins with, until they paid."""
    pays = False
    for page in (*pages_before(PAGE), PAGE):
        for block in blocks_of(page):
            if pays and block.is_typed:
                return
            yield block
            pays = pays or any(line.startswith(PAYS) for line in block.commands)


def _would_install(requirement: str) -> set[str]:
    options = ("--dry-run", "--ignore-installed", "--quiet", "--report", "-")
    report: dict[str, Any] = json.loads(_pip("install", *options, requirement))
    return {_name(one["metadata"]["name"]) for one in report["install"]}


def _name(requirement: str) -> str:
    """The name of a package in the form that names are compared in."""
    (name,) = re.findall(r"^[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip(*arguments: str) -> str:
    """What pip prints, with nothing but the wheels at hand."""
    command = [str(PYTHON / "python3"), "-m", "pip", *arguments]
    done = subprocess.run(
        command, env=os.environ | FROM_WHEELS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
