"""What all tests share: hypothesis profiles, and which tests belong to which environment."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path

from hypothesis import settings

# Timing says nothing on a shared machine; `make fuzz` picks the second profile.
settings.register_profile("default", deadline=None)
settings.register_profile("fuzz", deadline=None, max_examples=3000)
settings.load_profile("default")

# Who starts the tests in the background may leave this ignored, and every child would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Ape pins other versions of much that the tests use: its tests run in its environment, alone.
APE_TESTS = Path(__file__).parent / "ape"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the tests of the other environment."""
    if collection_path == APE_TESTS.parent:
        return None
    belongs_to_ape = collection_path.is_relative_to(APE_TESTS)
    runs_under_ape = find_spec("ape") is not None
    return True if belongs_to_ape != runs_under_ape else None
