"""The doctor finds what is wrong, and says what to do about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from channelpay.testing.furnished import FurnishedChain
from channelpay.testing.rpc_client import rpc_call
from tests.cli.conftest import Run


def found(run: Run, *options: object, code: int = 0) -> dict[str, dict[str, Any]]:
    done = run(*options, "doctor")
    assert done.exit_code == code, done.output
    return {one["check"]: one for one in json.loads(done.stdout)}


def test_an_empty_home_has_no_problem_but_things_to_do(run: Run) -> None:
    findings = found(run)

    assert {one["level"] for one in findings.values()} == {"ok", "warning"}
    for check in ("settings", "accounts", "node"):
        assert findings[check]["level"] == "warning"
        assert findings[check]["hint"]


def test_all_is_well_where_all_is_well(
    run: Run, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    account(run, dev_chain)
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    monkeypatch.setenv("CHANNELPAY_CONTRACT", "0x" + dev_chain.deployment.contract.hex())

    findings = found(run, "--network", "local")

    assert {one["level"] for one in findings.values()} == {"ok"}, findings
    expected = {"settings", "home", "account rich", "node", "clock", "contract", "balance of rich"}
    assert findings.keys() >= expected


def account(run: Run, dev_chain: FurnishedChain) -> None:
    key = dev_chain.chain.accounts[0].private_key.hex()
    assert run("account", "import", "rich", input=f"{key}\n").exit_code == 0


def test_a_file_that_others_may_use_is_a_problem(run: Run, home: Path) -> None:
    assert run("account", "new", "mine").exit_code == 0
    (key_file,) = (home / "keystore").glob("*.json")
    key_file.chmod(0o644)

    finding = found(run, code=1)["account mine"]

    assert finding["level"] == "problem"
    assert finding["hint"].endswith(f"chmod 600 {key_file}")


def test_damaged_books_are_a_problem(run: Run, home: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "payer.sqlite3").write_bytes(b"no database " * 1000)
    (home / "payer.sqlite3").chmod(0o600)

    assert "recover payer" in found(run, code=1)["books"]["hint"]


def test_a_node_of_another_chain_is_a_problem(
    run: Run, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)

    finding = found(run, "--network", "base", code=1)["node"]

    assert "31337" in finding["detail"]
    assert "8453" in finding["detail"]


def test_a_contract_that_is_another_is_a_problem(
    run: Run, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    monkeypatch.setenv("CHANNELPAY_CONTRACT", "0x" + dev_chain.token.hex())

    assert found(run, code=1)["contract"]["level"] == "problem"


def test_a_node_that_is_behind_is_worth_a_look(
    run: Run, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = dev_chain.chain.rpc_url
    rpc_call(url, "evm_increaseTime", 86_400)
    rpc_call(url, "evm_mine")
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    monkeypatch.setenv("CHANNELPAY_CONTRACT", "0x" + dev_chain.deployment.contract.hex())

    assert "in the future" in found(run)["clock"]["detail"]


def test_a_home_may_be_named_from_here(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHANNELPAY_HOME", "here")
    assert run("account", "new", "mine").exit_code == 0
    assert run("channel", "list").exit_code == 0

    assert found(run)["books"]["level"] == "ok"


@pytest.mark.parametrize("harm", ["others may use it", "it is damaged"])
def test_a_bad_key_file_hides_no_other_finding(
    run: Run, home: Path, dev_chain: FurnishedChain, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    account(run, dev_chain)
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    (key_file,) = (home / "keystore").glob("*.json")
    if harm == "it is damaged":
        key_file.write_text("{")
    else:
        key_file.chmod(0o644)

    findings = found(run, code=1)

    assert findings["node"]["level"] == "ok"
    assert "problem" in {one["level"] for name, one in findings.items() if "account" in name}
