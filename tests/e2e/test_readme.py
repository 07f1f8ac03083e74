"""The README's snippets do what it says, in its order, on the chain that it starts."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import REPOSITORY, Workplace, url_in

README = (REPOSITORY / "README.md").read_text()
CHAIN_URL, SITE_URL = "http://127.0.0.1:8545", "http://127.0.0.1:8402"
ARTICLE = "# One\n\nWorth a thousandth of an ether.\n"
FIRST_CHANNEL = "$(channelpay channel list | grep -o '0x[0-9a-f]\\{64\\}' | head -n 1)"


def blocks(heading: str, language: str) -> list[str]:
    """The snippets of one language under a heading of the README."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What the README's own chain says of itself; on a free port."""
    command = blocks("Install", "sh")[1].split()
    folder = tmp_path_factory.mktemp("dev")
    with Workplace(folder, {}).serving(*command, "--port", "0") as line:
        yield json.loads(line)


@pytest.fixture
def workplace(dev: Any, tmp_path: Path) -> Workplace:
    (tmp_path / "public" / "articles").mkdir(parents=True)
    (tmp_path / "public" / "articles" / "one.md").write_text(ARTICLE)
    variables = {
        "CHANNELPAY_HOME": str(tmp_path / "home"),
        "CHANNELPAY_PASSWORD": "for tests only",
        "ETH_ACCOUNT_KDF": "pbkdf2",  # key files that are cheap to open: each command does
        "READER_KEY": dev["accounts"][1]["privateKey"],
        "PUBLISHER_KEY": dev["accounts"][2]["privateKey"],
    }
    return Workplace(tmp_path, variables)


@pytest.mark.parametrize("heading", ["Pay, in ten lines", "Get paid, in ten lines"])
def test_ten_lines_are_ten_lines(heading: str) -> None:
    (snippet,) = blocks(heading, "python")

    assert len([line for line in snippet.splitlines() if line]) <= 10


def test_the_python_snippets_pay_each_other(dev: Any, workplace: Workplace) -> None:
    (pay,) = blocks("Pay, in ten lines", "python")
    (get_paid,) = blocks("Get paid, in ten lines", "python")
    (workplace.folder / "shop.py").write_text(get_paid.replace(CHAIN_URL, dev["rpcUrl"]))

    with workplace.serving("uvicorn", "shop:app", "--port", "0") as line:
        pay = pay.replace(CHAIN_URL, dev["rpcUrl"]).replace(SITE_URL, url_in(line))
        done = workplace.run("python", "-c", pay)

    assert done.stdout == ARTICLE + "\n"
    assert (workplace.folder / "payer.sqlite3").exists()


def test_the_commands_pay_each_other(dev: Any, workplace: Workplace) -> None:
    (pay,) = blocks("Pay, in ten lines", "sh")
    (get_paid,) = blocks("Get paid, in ten lines", "sh")
    get_paid = get_paid.replace(CHAIN_URL, dev["rpcUrl"]).rstrip() + " --port 0"
    pay = re.sub(r"\bCHANNEL\b", FIRST_CHANNEL, pay.replace(CHAIN_URL, dev["rpcUrl"]))

    keys = [workplace.variables[name] + "\n" for name in ("PUBLISHER_KEY", "READER_KEY")]
    with workplace.serving("bash", "-ec", get_paid, typed=keys[0]) as line:
        script = pay.replace(SITE_URL, url_in(line))
        done = workplace.run("bash", "-ec", script, typed=keys[1])

    assert "Worth a thousandth of an ether." in done.stdout
    closed = json.loads(done.stdout[done.stdout.rindex("\n{") :])
    assert (closed["status"], closed["settled"]) == ("finalized", str(10**15))
    assert closed["refund"] == str(19 * 10**15)


STREAM_BEFORE = """
import os
from eth_account import Account
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route
from channelpay import Payee, PaymentMiddleware, PriceRule

async def model(prompt):
    for number in range(30):
        yield f"{prompt.decode()}word{number}"
"""
STREAM_AFTER = """
payee = Payee.create(
    rpc="{rpc}", token="eth", store="sqlite:///books.sqlite3",
    account=Account.from_key(os.environ["PUBLISHER_KEY"]),
    prices=[PriceRule("/answer", "0.0001", unit="token")])
app = PaymentMiddleware(Starlette(routes=[Route("/answer", answer)]), payee)
"""


def test_the_stream_is_charged_as_it_goes(dev: Any, workplace: Workplace) -> None:
    (snippet,) = blocks("Charge as you go", "python")
    program = STREAM_BEFORE + snippet + STREAM_AFTER.format(rpc=dev["rpcUrl"])
    (workplace.folder / "stream.py").write_text(program)
    keys = workplace.variables["READER_KEY"] + "\n"
    with workplace.serving("uvicorn", "stream:app", "--port", "0") as line:
        script = f"""
        export CHANNELPAY_RPC={dev["rpcUrl"]} CHANNELPAY_ACCOUNT=reader
        channelpay account import reader
        channelpay pay --max 0.0001 --max-cost 0.003 --deposit 0.02 {url_in(line)}/answer
        channelpay channel list
        """
        done = workplace.run("bash", "-ec", script, typed=keys)

    assert "data: word29" in done.stdout
    assert str(30 * 10**14) in done.stdout


def test_the_extras_to_install_exist() -> None:
    (extras,) = re.findall(r"pip install '\.\[(.*?)\]'", README)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]

    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
