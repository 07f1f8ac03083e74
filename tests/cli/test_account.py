"""``channelpay account``: keys come in and never go out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from channelpay.chain import keystore
from channelpay.chain.connection import connect
from channelpay.cli.output import Output
from channelpay.testing.accounts import MNEMONIC
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import PASSWORD, Run

SECRET = "4a" * 32
FIRST_DEV_ADDRESS = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


def secret_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "secret"
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


def test_a_new_account_opens_with_its_password(run: Run, home: Path) -> None:
    result = run("account", "new", "main")
    assert result.exit_code == 0
    members = json.loads(result.stdout)
    assert keystore.load(home, "main", PASSWORD).address == members["address"]


def test_a_mnemonic_is_imported_from_a_file(run: Run, tmp_path: Path) -> None:
    result = run("account", "import", "dev", "--secret-file", secret_file(tmp_path, MNEMONIC))
    assert json.loads(result.stdout) == {"name": "dev", "address": FIRST_DEV_ADDRESS}


def test_a_key_is_imported_from_standard_input(run: Run, home: Path) -> None:
    assert run("account", "import", "main", input=f"{SECRET}\n").exit_code == 0
    assert keystore.load(home, "main", PASSWORD).key.hex() == SECRET


def test_no_command_prints_the_key(run: Run, tmp_path: Path) -> None:
    results = [
        run("account", "import", "main", "--secret-file", secret_file(tmp_path, SECRET)),
        run("account", "list"),
        run("account", "show", "main"),
        run("account", "import", "main", "--secret-file", secret_file(tmp_path, SECRET)),
        run("account", "import", "other", "--secret-file", secret_file(tmp_path, SECRET + "4")),
    ]
    assert [result.exit_code for result in results] == [0, 0, 0, 2, 2]
    for result in results:
        assert SECRET not in result.output
        assert PASSWORD not in result.output


def test_a_secret_is_not_taken_as_an_argument(run: Run) -> None:
    assert run("account", "import", "main", SECRET).exit_code == 2


@pytest.mark.parametrize("option", ["--secret-file", "--password-file"])
def test_a_file_that_others_may_read_is_refused(run: Run, tmp_path: Path, option: str) -> None:
    path = secret_file(tmp_path, SECRET, 0o644)
    result = run("account", "import", "main", option, path, input=SECRET)
    assert result.exit_code == 2
    assert "chmod 600" in json.loads(result.stderr)["hint"]


def test_the_password_file_goes_before_the_environment(
    run: Run, home: Path, tmp_path: Path
) -> None:
    run("account", "new", "main", "--password-file", secret_file(tmp_path, "from the file"))
    assert keystore.load(home, "main", "from the file").address


def test_without_file_and_environment_the_password_is_asked_twice(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CHANNELPAY_PASSWORD")
    result = run("account", "new", "main", input="asked\nasked\n")
    assert result.exit_code == 0
    assert "asked" not in result.output
    assert keystore.load(home, "main", "asked").address


def test_a_file_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    result = run("account", "new", "main", "--password-file", tmp_path / "none")
    assert (result.exit_code, "none" in result.stderr) == (2, True)


def test_show_needs_a_name_only_if_there_are_several(run: Run) -> None:
    run("account", "new", "one")
    assert json.loads(run("account", "show").stdout)["name"] == "one"
    run("account", "new", "two")
    result = run("account", "show")
    assert result.exit_code == 2
    assert "one, two" in result.stderr
    assert run("account", "show", "three").exit_code == 5


def test_show_asks_the_node_for_the_balance(
    run: Run, tmp_path: Path, dev_chain: FurnishedChain
) -> None:
    account = dev_chain.chain.accounts[5]
    connection = connect(dev_chain.chain.rpc_url)
    key = account.private_key.hex()
    run("account", "import", "dev", "--secret-file", secret_file(tmp_path, key))
    node = ("--rpc", dev_chain.chain.rpc_url)
    ether = json.loads(run("account", "show", *node).stdout)
    assert (ether["balance"], ether["tokenSymbol"]) == (
        str(connection.balance_wei(account.address)),
        "ETH",
    )
    token = json.loads(
        run("account", "show", *node, "--token", "0x" + dev_chain.token.hex()).stdout
    )
    assert (token["balance"], token["tokenSymbol"]) == (str(10**12), dev_chain.token_symbol)


def test_a_person_gets_a_table(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Output, "of_process", classmethod(lambda cls: cls(as_json=False)))
    run("account", "new", "main")
    text = run("account", "list").stdout
    assert "Address" in text
    assert "main" in text
    assert json.loads(run("account", "list", "--json").stdout)[0]["name"] == "main"


def test_the_home_is_private(run: Run, home: Path) -> None:
    run("account", "list")
    assert home.stat().st_mode & 0o777 == 0o700
