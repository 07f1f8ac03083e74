"""One development chain for all tests of the payee; each test has its own shop and channels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from channelpay.testing import embedded_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from tests.payee.shop import Payer, Shop, opened_shop


@pytest.fixture(scope="session")
def furnished() -> Iterator[FurnishedChain]:
    with embedded_chain() as chain:
        yield furnish(chain)


@pytest.fixture(scope="session")
def payer(furnished: FurnishedChain) -> Payer:
    return Payer(furnished)


@pytest.fixture
def shop(furnished: FurnishedChain, payer: Payer, tmp_path: Path) -> Iterator[Shop]:
    with opened_shop(furnished, tmp_path, payer) as opened:
        yield opened


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
