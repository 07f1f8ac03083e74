"""Every example of ``docs/testing.md`` passes, in a pytest process of its own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from channelpay.cli.root import cli
from channelpay.testing import fake_chain, furnish, plugin
from tests.testing.stranger import passed, run_pytest

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

SHOP = '''
"""The application that the page's reader brings."""

async def app(scope, receive, send):
    if scope["type"] == "http":
        name = scope["path"].rpartition("/")[2]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": f"Article {name}".encode()})
'''


def count_tests(example: str) -> int:
    return len(re.findall(r"^def test_", example, re.MULTILINE))


@pytest.mark.parametrize("example", [one for one in EXAMPLES if count_tests(one)])
def test_every_example_passes(tmp_path: Path, example: str) -> None:
    (tmp_path / "myshop.py").write_text(SHOP)
    assert passed(run_pytest(tmp_path, code=example), count_tests(example))


def test_the_example_of_other_prices_is_used_by_the_site(tmp_path: Path) -> None:
    (prices,) = (one for one in EXAMPLES if "def channelpay_prices" in one)
    asking = """
import httpx2

def test_it(paid_site):
    site = paid_site()
    statuses = [httpx2.get(site.page(path)).status_code for path in ("/articles/one", "/about")]
    assert statuses == [402, 200]
"""
    assert passed(run_pytest(tmp_path, "--channelpay-chain", "fake", code=prices + asking), 1)


def test_the_ten_lines_are_ten_lines() -> None:
    assert len([line for line in EXAMPLES[0].splitlines() if line.strip()]) <= 10


def test_the_table_names_every_fixture_of_the_plugin() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    fixtures = {
        name
        for name, value in vars(plugin).items()
        if type(value).__name__ == "FixtureFunctionDefinition"
        or hasattr(value, "_pytestfixturefunction")
    }
    assert rows - set(plugin.CHAINS) == fixtures - {"channelpay_whole_chain"}
    assert set(plugin.CHAINS) <= rows


def test_the_commands_steer_a_chain() -> None:
    with fake_chain() as chain:
        furnish(chain)
        for line in COMMANDS.splitlines():
            program, *arguments = shlex.split(line)
            done = CliRunner().invoke(cli, [*arguments, "--rpc", chain.rpc_url])
            assert (program, done.exit_code) == ("channelpay", 0), done.stderr
