"""The site, its database and its machine fail while clients pay, and nobody loses anything: a few
kills of what `make chaos` does some hundred times.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SECONDS_MAX = 240
"""A run takes about 15 s; on a busy machine, more."""


@pytest.mark.parametrize(
    ("store", "outage"), [("sqlite", "disk full"), ("postgres", "database killed")]
)
def test_nobody_loses_anything_when_the_site_is_killed(store: str, outage: str) -> None:
    command = [sys.executable, "-m", "scripts.chaos", "--short", "--store", store, "--seed", "test"]

    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=SECONDS_MAX
    )

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (run,) = report["runs"]
    assert report["violations"] == []
    assert run["site_kills"] >= 5
    assert {outage, "clock jumps"} < run["troubles"].keys()
    assert run["errands"]["served"] > 0
    assert run["spent"] <= run["settled"] <= run["accepted"]
