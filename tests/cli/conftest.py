"""A home of one's own for each test, and accounts whose key derivation is quick."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from eth_account import Account

from channelpay.cli.root import cli
from channelpay.testing import embedded_chain
from channelpay.testing.furnished import FurnishedChain, furnish

Run = Callable[..., Result]
PASSWORD = "correct horse"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RPC", "CONTRACT", "ACCOUNT"):
        monkeypatch.delenv(f"CHANNELPAY_{name}", raising=False)
    monkeypatch.setenv("CHANNELPAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CHANNELPAY_PASSWORD", PASSWORD)
    encrypt = Account.encrypt
    monkeypatch.setattr(
        Account, "encrypt", lambda key, password: encrypt(key, password, "pbkdf2", 10)
    )
    return tmp_path / "home"


@pytest.fixture
def run(home: Path) -> Run:
    """``run("account", "list")`` is what the program does."""

    def run_program(*arguments: object, **extra: Any) -> Result:
        return CliRunner().invoke(cli, [str(one) for one in arguments], **extra)

    return run_program


@pytest.fixture(scope="session")
def whole_dev_chain() -> Iterator[FurnishedChain]:
    with embedded_chain() as chain:
        yield furnish(chain)


@pytest.fixture
def dev_chain(whole_dev_chain: FurnishedChain) -> Iterator[FurnishedChain]:
    snapshot = whole_dev_chain.chain.snapshot()
    yield whole_dev_chain
    whole_dev_chain.chain.revert(snapshot)
