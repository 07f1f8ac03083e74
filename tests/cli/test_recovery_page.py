"""The commands of docs/recovery.md, in their order, on a real chain: each does what it says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from functools import reduce
from pathlib import Path

import pytest

from channelpay.protocol.text import checksum_address
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run
from tests.cli.test_recover import node  # noqa: F401  a fixture

PAGE = (Path(__file__).parents[2] / "docs" / "recovery.md").read_text()
LOST = {
    "Payer: the books are gone": "payer.sqlite3",
    "Payee: the books are gone": "site/books.sqlite3",
}
"""What the reader of a section has lost before it."""


def sections() -> list[tuple[str, list[str]]]:
    found = []
    for section in PAGE.split("\n## ")[1:]:
        blocks = re.findall(r"^```sh\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
        commands = [line for block in blocks for line in block.splitlines()]
        if commands:
            found.append((section.partition("\n")[0], commands))
    return found


def perform(run: Run, command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "channelpay":
        result = run(*arguments)
        assert result.exit_code == 0, f"{command}: {result.stderr}"
    else:
        subprocess.run(command, shell=True, check=True)  # noqa: S602  the page is ours


@pytest.mark.usefixtures("node")
def test_every_command_of_the_page_does_its_work(
    run: Run, dev_chain: FurnishedChain, home: Path, tmp_path: Path
) -> None:
    payee = checksum_address(dev_chain.chain.accounts[3].address)
    channel = json.loads(run("channel", "open", payee, "--deposit", "1").stdout)["channelId"]
    (tmp_path / "backup").mkdir()
    meant = {
        "/mnt/backup": str(tmp_path / "backup"),
        "~/.channelpay": str(home),
        "CHANNEL ": f"{channel} ",
        "YOUR_ADDRESS": payee,
        "21000000": "1",
        "postgresql://site@db.example/books": f"sqlite:///{home}/site/books.sqlite3",
    }
    perform(run, f"channelpay recover payee --payee {payee}")
    performed = []
    for heading, commands in sections():
        if heading in LOST:
            (home / LOST[heading]).unlink()
        for command in commands:
            performed.append(reduce(lambda text, name: text.replace(*name), meant.items(), command))
            perform(run, performed[-1])

    assert len(performed) == 17
    (listed,) = json.loads(run("channel", "list").stdout)
    assert (listed["channelId"], listed["status"]) == (channel, "closing")
    (record,) = json.loads(run("payee", "list").stdout)
    assert record["channelId"] == channel
