"""The contract through Ape: compiled by its plugin, deployed on its local chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ape
import pytest
from ape.contracts import ContractContainer

from scripts import build_contracts

GRACE_SECONDS = 86_400
SHIPPED_METADATA = {"solidity": {"metadata": build_contracts.SETTINGS["metadata"]}}


def compiled(name: str) -> ContractContainer:
    """One contract as the package ships it: Ape's own settings, but no metadata trailer.

    The trailer is the one setting that ape-config.yaml has no word for.
    """
    source = Path(build_contracts.TARGETS[name])
    contract_types = ape.compilers.compile([source], settings=SHIPPED_METADATA)
    return ContractContainer(next(each for each in contract_types if each.name == name))


@pytest.fixture(scope="session")
def contract_types() -> dict[str, Any]:
    """The two contracts by name."""
    return {name: compiled(name) for name in build_contracts.TARGETS}


@pytest.fixture(scope="session")
def payer(accounts: Any) -> Any:
    return accounts[0]


@pytest.fixture(scope="session")
def payee(accounts: Any) -> Any:
    return accounts[1]


@pytest.fixture(scope="session")
def channels(contract_types: dict[str, Any], accounts: Any) -> Any:
    """PaymentChannels with the canonical grace period of one day."""
    return accounts[9].deploy(contract_types["PaymentChannels"], GRACE_SECONDS)


@pytest.fixture(scope="session")
def token(contract_types: dict[str, Any], accounts: Any, channels: Any, payer: Any) -> Any:
    """A test token of which the payer holds 1000, with `channels` allowed to take them."""
    token = accounts[9].deploy(contract_types["TestToken"])
    token.mint(payer, 1_000_000_000, sender=accounts[9])
    token.approve(channels, 2**256 - 1, sender=payer)
    return token
