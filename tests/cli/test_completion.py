"""Shells complete commands and options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "channelpay"


def completed(words: str, count: int) -> list[str]:
    """What the shell would be offered for the last word."""
    asked = {"_CHANNELPAY_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = subprocess.run(
        [PROGRAM], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_and_options_are_completed() -> None:
    assert completed("channelpay vou", 1) == ["voucher"]
    assert "--chain-id" in completed("channelpay voucher verify --c", 3)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_the_shell(shell: str) -> None:
    done = subprocess.run(
        [PROGRAM, "completion", shell], capture_output=True, text=True, check=True
    )

    assert "_CHANNELPAY_COMPLETE" in done.stdout
    if (found := shutil.which(shell)) is not None:
        subprocess.run([found, "-n"], input=done.stdout, text=True, check=True)
