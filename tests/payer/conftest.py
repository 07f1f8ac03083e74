"""A site and a payer for session tests; both chains for those of transactions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.payer.site import Ground, Site
from tests.support.chains import *  # noqa: F403


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def ground(tmp_path: Path, site: Site) -> Ground:
    return Ground(tmp_path, site)
