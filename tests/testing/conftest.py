"""The fake chain under the tests of the real ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from channelpay.testing import DevChain, fake_chain
from channelpay.testing.furnished import FurnishedChain, furnish
from tests.support.chains import chain, connection, contract, furnished

__all__ = ["chain", "connection", "contract", "furnished", "pristine_chain", "whole_chain"]


@pytest.fixture(scope="session")
def pristine_chain() -> Iterator[DevChain]:
    with fake_chain() as started:
        yield started


@pytest.fixture(scope="session")
def whole_chain() -> Iterator[FurnishedChain]:
    with fake_chain() as started:
        yield furnish(started)
