"""Runs contract tests in one copy of the project after another, for `scripts/mutate.py`.

Each line of stdin is a JSON object: `project`, a directory, and `tests`, paths in it. Each line of
stdout answers one: `failed`, the first test that failed or null, or `broken`, why nobody knows.

A fork of this process runs the tests: what takes longest, importing the libraries, is done once.
Nothing of the project is imported before the fork, so a fork has its copy's package and tests.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import signal
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

LIBRARIES = ("coincurve", "eth.vm.forks.prague", "eth_abi", "eth_account", "solcx", "web3")
SECONDS_MAX = 900
"""Ample for all tests on a busy machine; what takes longer is neither killed nor alive."""


class Watcher:
    """A pytest plugin: remembers the first failure, and compiles the mocks once for all copies."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self.failed: str | None = None

    def pytest_sessionstart(self) -> None:
        """See that this copy is tested and no other; let its compiler remember."""
        for name in ("channelpay", "scripts.build_contracts"):
            module = importlib.import_module(name)
            assert Path(str(module.__file__)).is_relative_to(self._project), module.__file__
        build_contracts: Any = importlib.import_module("scripts.build_contracts")
        compile_anew = build_contracts.compile_sources

        def compile_once(sources: object, outputs: object) -> dict[str, Any]:
            question = json.dumps([sources, outputs], sort_keys=True).encode()
            file = self._project.parent / f"{hashlib.sha256(question).hexdigest()}.json"
            if not file.exists():
                part = file.with_suffix(f".{os.getpid()}")
                part.write_text(json.dumps(compile_anew(sources, outputs)), encoding="utf-8")
                part.rename(file)
            answer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return answer

        build_contracts.compile_sources = compile_once

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The name of a test without its parameters, below tests/contracts/."""
        if report.failed and self.failed is None:
            self.failed = report.nodeid.removeprefix("tests/contracts/").partition("[")[0]


def judge(project: Path, tests: list[str]) -> dict[str, str | None]:
    """Run tests in a copy; to be called in a process of its own."""
    os.chdir(project)
    sys.path[:0] = [str(project / "src"), str(project)]
    watcher = Watcher(project)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    code = pytest.main([*options, *tests], plugins=[watcher])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return {"broken": f"pytest stopped: {code!r}"}
    return {"failed": watcher.failed}


def answer(request: dict[str, Any]) -> str:
    """Judge in a fork; the answer's line."""
    project = Path(request["project"])
    answer_file = project / f"answer-{os.getpid()}.json"
    log_file = answer_file.with_suffix(".txt")
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS_MAX)
        with log_file.open("w") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                found = judge(project, request["tests"])
                answer_file.write_text(json.dumps(found), encoding="utf-8")
            except BaseException:  # noqa: BLE001 - nothing may come back from the fork
                traceback.print_exc()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if answer_file.exists():
        line = answer_file.read_text(encoding="utf-8")
        answer_file.unlink()
        if "broken" not in json.loads(line):
            return line
    reason = f"ended by signal {status}" if status else log_file.read_text(encoding="utf-8")
    return json.dumps({"broken": reason[-3000:]})


def main() -> None:
    """Answer until stdin ends."""
    for name in LIBRARIES:
        importlib.import_module(name)
    # The same examples each time; the first that fails is enough.
    settings.register_profile(
        "mutants",
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
    )
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)


if __name__ == "__main__":
    main()
