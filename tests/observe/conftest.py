"""A development chain and a payer for the tests that watch a whole payee."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from channelpay.testing import embedded_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from tests.payee.shop import Payer


@pytest.fixture(scope="session")
def furnished() -> Iterator[FurnishedChain]:
    with embedded_chain() as chain:
        yield furnish(chain)


@pytest.fixture(scope="session")
def payer(furnished: FurnishedChain) -> Payer:
    return Payer(furnished)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
