"""`make hub-many` on a small scale, with books in either store: three sites, a kill, and everything
agrees to the wei.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from channelpay.testing import anvil_chain
from channelpay.testing.furnished import furnish
from scripts.hub_many import SITES, run
from tests.support.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]


@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_what_a_killed_network_pays_is_what_its_readers_were_charged(
    tmp_path: Path, request: pytest.FixtureRequest, name: str
) -> None:
    store = request.getfixturevalue("postgres_url") if name == "postgres" else None
    with anvil_chain() as chain:
        measured = run(furnish(chain), tmp_path, readers=4, sales=72, kills=1, every=1, store=store)

    assert measured.sales == 72
    assert measured.given_back == 8
    opens, gas = measured.gas["opens"]
    assert (opens, measured.rounds > 0) == (4, True)
    # What a channel for each site would have taken for its opens alone.
    assert measured.gas_per_sale * measured.sales < (len(SITES) + 3) * gas
