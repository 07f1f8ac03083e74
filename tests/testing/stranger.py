"""A project of its own whose tests use the plugin, as a stranger's do."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

PLUGIN = "channelpay.testing.plugin"
IS_INSTALLED = any(one.value == PLUGIN for one in entry_points(group="pytest11"))
PLUGIN_OPTIONS = () if IS_INSTALLED else ("-p", PLUGIN)


def run_pytest(folder: Path, *options: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as a test module in a project of its own."""
    (folder / "test_stranger.py").write_text(code)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PLUGIN_OPTIONS]
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def passed(done: subprocess.CompletedProcess[str], count: int) -> bool:
    assert done.returncode == 0, done.stdout + done.stderr
    return f"{count} passed" in done.stdout
