"""One chain for all contract tests; each test's changes are undone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from channelpay.protocol.types import NATIVE, Address
from tests.contracts.world import World, new_world


@pytest.fixture(scope="session")
def shared_world() -> World:
    """The chain with the contract and the test token, and nothing else."""
    return new_world()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The shared chain, as it was before, for one test."""
    with shared_world.rolled_back():
        yield shared_world


@pytest.fixture(params=["eth", "erc20"])
def asset(request: pytest.FixtureRequest, world: World) -> Address:
    """The ``token`` of a channel, of both kinds."""
    return NATIVE if request.param == "eth" else world.token.address
