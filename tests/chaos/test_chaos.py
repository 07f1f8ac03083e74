"""Everything fails while people pay, and nobody loses anything: a few kills, and a minute of the
soak, of what `make chaos` does some hundred times, and for ten minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.chaos.weather import Trouble

REPOSITORY = Path(__file__).parents[2]
SECONDS_MAX = 240
"""A run takes about 15 s; on a busy machine, more."""
SOAK_SECONDS_MAX = 600


def report_of(*arguments: str, seconds: float) -> Any:
    """What a run says that has to succeed."""
    command = [sys.executable, "-m", "scripts.chaos", "--short", "--seed", "test", *arguments]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=seconds
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["violations"] == []
    return report


@pytest.mark.parametrize(
    ("store", "outage"), [("sqlite", "disk full"), ("postgres", "database killed")]
)
def test_nobody_loses_anything_when_the_site_is_killed(store: str, outage: str) -> None:
    (run,) = report_of("kills", "--store", store, seconds=SECONDS_MAX)["runs"]

    assert run["site_kills"] >= 5
    assert {outage, "clock jumps"} < run["troubles"].keys()
    assert run["errands"]["served"] > 0
    assert run["spent"] <= run["settled"] <= run["accepted"]


def test_all_accounts_have_what_the_books_say_after_a_soak() -> None:
    (soak,) = report_of("soak", seconds=SOAK_SECONDS_MAX)["soaks"]

    assert soak["events"].keys() == {str(trouble) for trouble in Trouble}
    assert soak["pages"] > 0
    for amounts in soak["sums"].values():
        assert 0 < amounts["spent"] <= amounts["settled"] <= amounts["accepted"]
        assert amounts["settled"] + amounts["refund"] == amounts["deposit"]
