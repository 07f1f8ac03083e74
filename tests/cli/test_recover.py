"""``channelpay backup`` and ``channelpay recover``: what a person types after a loss."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from channelpay.protocol.text import checksum_address
from channelpay.store import open_store
from channelpay.testing.accounts import MNEMONIC
from channelpay.testing.furnished import FurnishedChain
from tests.cli.conftest import Run


@pytest.fixture
def node(
    run: Run, dev_chain: FurnishedChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> FurnishedChain:
    (tmp_path / "secret").write_text(MNEMONIC)
    (tmp_path / "secret").chmod(0o600)
    assert run("account", "import", "dev", "--secret-file", tmp_path / "secret").exit_code == 0
    monkeypatch.setenv("CHANNELPAY_RPC", dev_chain.chain.rpc_url)
    return dev_chain


def payee_of(node: FurnishedChain) -> str:
    return checksum_address(node.chain.accounts[3].address)


def done(run: Run, *arguments: object) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout)


def opened(run: Run, node: FurnishedChain) -> dict[str, Any]:
    members: dict[str, Any] = done(run, "channel", "open", payee_of(node), "--deposit", "1")
    return members


def test_a_payer_that_lost_its_books_finds_its_channels(
    run: Run, node: FurnishedChain, home: Path
) -> None:
    members = opened(run, node)
    (home / "payer.sqlite3").unlink()

    found = done(run, "recover", "payer", "--from-block", 1)

    assert found == {"found": [members["channelId"]], "known": 0, "marked": 0}
    (listed,) = done(run, "channel", "list")
    assert (listed["deposit"], listed["inDoubt"]) == (members["deposit"], True)
    assert listed["next"]["action"] == "ask"
    assert done(run, "recover", "payer")["known"] == 1


def test_a_backup_is_private_complete_and_marked_and_never_goes_over_a_file(
    run: Run, node: FurnishedChain, home: Path, tmp_path: Path
) -> None:
    members = opened(run, node)
    copy = tmp_path / "copy.sqlite3"

    assert done(run, "backup", copy) == {"backup": str(copy), "bytes": copy.stat().st_size}

    assert copy.stat().st_mode & 0o777 == 0o600
    again = run("backup", copy)
    over = run("recover", "payer", "--backup", copy)
    assert (again.exit_code, over.exit_code) == (2, 2)
    assert json.loads(over.stderr)["code"] == "invalid-input"
    assert not done(run, "channel", "list")[0]["inDoubt"]

    (home / "payer.sqlite3").unlink()
    second = opened(run, node)
    (home / "payer.sqlite3").unlink()
    recovered = done(run, "recover", "payer", "--backup", copy)
    assert recovered == {"found": [second["channelId"]], "known": 1, "marked": 0}
    listed = done(run, "channel", "list")
    assert {one["channelId"] for one in listed} == {members["channelId"], second["channelId"]}
    assert all(one["inDoubt"] for one in listed)


def test_a_restore_beside_what_is_left_of_other_books_is_refused(
    run: Run, node: FurnishedChain, home: Path, tmp_path: Path
) -> None:
    opened(run, node)
    done(run, "backup", tmp_path / "copy.sqlite3")
    (home / "payer.sqlite3").rename(home / "old.sqlite3")
    (home / "payer.sqlite3-wal").write_bytes(b"frames of other books")

    refused = run("recover", "payer", "--backup", tmp_path / "copy.sqlite3")

    assert refused.exit_code == 2
    assert "payer.sqlite3-wal" in json.loads(refused.stderr)["detail"]


def test_a_payer_says_that_its_books_are_a_snapshot(run: Run, node: FurnishedChain) -> None:
    opened(run, node)
    assert done(run, "recover", "payer", "--restored")["marked"] == 1
    assert done(run, "channel", "list")[0]["inDoubt"]


def test_without_books_there_is_nothing_to_back_up(run: Run, home: Path, tmp_path: Path) -> None:
    result = run("backup", tmp_path / "copy.sqlite3")
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (5, "not-found")


def test_a_site_that_lost_its_books_finds_its_channels(
    run: Run, node: FurnishedChain, tmp_path: Path
) -> None:
    members = opened(run, node)
    state = tmp_path / "site"
    asked = ("recover", "payee", "--payee", payee_of(node), "--state", state)

    assert done(run, *asked) == {"found": [members["channelId"]], "known": 0, "marked": 0}
    assert done(run, *asked, "--restored") == {"found": [], "known": 1, "marked": 1}
    with closing(open_store(f"sqlite:///{state / 'books.sqlite3'}")) as store:
        (record,) = store.records()
    assert record.in_doubt


def test_a_deposit_that_is_found_counts_from_the_confirmations_of_the_settings_on(
    run: Run, node: FurnishedChain, home: Path, tmp_path: Path
) -> None:
    members, state = opened(run, node), tmp_path / "site"
    chain = f'chain_id = {node.deployment.chain_id}\nrpc = "{node.chain.rpc_url}"\n'
    contract = f'contract = "{checksum_address(node.contract)}"\n'
    settings = f'network = "mine"\n[networks.mine]\n{chain}{contract}confirmations = 3\n'
    (home / "config.toml").write_text(settings)

    def deposit() -> int:
        done(run, "recover", "payee", "--payee", payee_of(node), "--state", state)
        with closing(open_store(f"sqlite:///{state / 'books.sqlite3'}")) as store:
            (record,) = store.records()
        return record.chain.deposit

    assert deposit() == 0
    node.chain.mine(2)
    assert deposit() == int(members["deposit"])


def test_a_sites_backup_is_put_back_and_never_over_other_books(
    run: Run, node: FurnishedChain, tmp_path: Path
) -> None:
    opened(run, node)
    state, copy = tmp_path / "site", tmp_path / "copy.sqlite3"
    asked = ("recover", "payee", "--payee", payee_of(node), "--state", state)
    done(run, *asked)
    done(run, "payee", "backup", copy, "--state", state)

    assert run(*asked, "--backup", copy).exit_code == 2
    (state / "books.sqlite3").unlink()
    assert done(run, *asked, "--backup", copy)["known"] == 1
    wrong = run(*asked, "--backup", copy, "--store", "postgresql://nobody@127.0.0.1:1/none")
    assert (wrong.exit_code, "--restored" in json.loads(wrong.stderr)["hint"]) == (2, True)
