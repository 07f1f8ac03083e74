"""`python scripts/deploy.py`: one command, one address, nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from channelpay.chain import keystore
from channelpay.chain.connection import checksum
from channelpay.chain.create2 import predicted_address
from channelpay.testing import DevChain, embedded_chain
from scripts.deploy import deploy_over_rpc

PASSWORD = "of a key that everybody knows"


@pytest.fixture(scope="module")
def chain() -> Iterator[DevChain]:
    with embedded_chain() as chain:
        yield chain


@pytest.fixture(scope="module")
def home(chain: DevChain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with the key of the chain's first account, named deployer."""
    home = tmp_path_factory.mktemp("home")
    keystore.import_key(home, "deployer", chain.accounts[0].private_key.hex(), PASSWORD)
    return home


def deploy(chain: DevChain, home: Path, *options: str, password: str = PASSWORD) -> Result:
    password_file = home / "password"
    password_file.write_text(f"{password}\n")
    place = ["--rpc", chain.rpc_url, "--home", str(home)]
    payment = ["--account", "deployer", "--password-file", str(password_file)]
    return CliRunner().invoke(deploy_over_rpc, [*place, *payment, *options])


def test_deploys_to_the_predicted_address_and_only_once(chain: DevChain, home: Path) -> None:
    first, second = deploy(chain, home), deploy(chain, home)

    address = f"address {checksum(predicted_address())}\n"
    assert first.output.startswith(f"{address}deployed by transaction 0x")
    assert second.output == f"{address}already there\n"


def test_another_grace_period_is_another_address(chain: DevChain, home: Path) -> None:
    result = deploy(chain, home, "--grace-seconds", "600")

    assert result.output.startswith(f"address {checksum(predicted_address(600))}\ndeployed")


def test_a_grace_period_under_ten_minutes_is_refused(chain: DevChain, home: Path) -> None:
    result = deploy(chain, home, "--grace-seconds", "599")

    assert result.exit_code == 2
    assert "599 s is too short" in result.output


def test_a_wrong_password_says_so_and_sends_nothing(chain: DevChain, home: Path) -> None:
    result = deploy(chain, home, password="another")

    assert result.exit_code == 2
    assert "the password does not open account deployer" in result.output


def test_an_unreachable_node_is_a_network_error(home: Path) -> None:
    nowhere = DevChain("http://127.0.0.1:9", 1, ())

    assert deploy(nowhere, home).exit_code == 3
