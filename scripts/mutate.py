"""Break one rule of the contracts at a time, and see that the tests notice.

Usage: python -m scripts.mutate [--jobs N] [--write] [id ...]

`scripts/mutants.toml` lists the mutants. Each is compiled into a copy of the project, whose tests
it meets: first the one that is most likely to fail, then, if that passes, all others. A
mutant is *killed* when a test fails and *survives* when all pass; one listed as equivalent has to
survive. The exit code is 1 if a mutant did what it should not.

Prints a table on a terminal and JSON on a pipe; `--write` writes `docs/mutants.md`, which takes the
whole list.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts import build_contracts

ROOT = Path(__file__).resolve().parents[1]
LIST_FILE = ROOT / "scripts" / "mutants.toml"
PAGE_FILE = ROOT / "docs" / "mutants.md"
ARTIFACTS = build_contracts.ARTIFACTS_DIRECTORY.relative_to(ROOT)
TESTS = Path("tests", "contracts")
COPIED = ("contracts", "scripts", "src", "tests", "pyproject.toml")
LINKED = (".solcx", "node_modules")
NO_JUDGES = {"test_artifacts.py", "test_gas.py", "test_invariants_page.py"}
"""They look at files, or at prices, and say nothing of what the contract does."""
GROUP_SIZE = 8
"""Mutants for one run of the compiler."""
FUNCTION_END = re.compile(r"^ {0,4}\}$", re.MULTILINE)

Compiled = dict[str, list[dict[str, Any]]]


class MutationError(Exception):
    """The run says nothing about the tests: a stale list, a mutant that does not compile."""


class Outcome(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Edit:
    """A replacement of `old`, which occurs once in the function that begins with `function`, or in
    the whole file if that is empty.
    """

    path: str
    function: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The source after the replacement."""
        start, end = self._scope(text)
        scope = text[start:end]
        if scope.count(self.old) != 1:
            raise MutationError(f"{self.path}: {scope.count(self.old)} times {self.old!r}")
        return text[:start] + scope.replace(self.old, self.new) + text[end:]

    def _scope(self, text: str) -> tuple[int, int]:
        if not self.function:
            return 0, len(text)
        if text.count(self.function) != 1:
            raise MutationError(f"{self.path}: {text.count(self.function)} times {self.function!r}")
        start = text.index(self.function)
        end = FUNCTION_END.search(text, start)
        return start, end.end() if end else len(text)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule, broken. `test` is the one to try first; `equivalent` says why nothing changes."""

    id: str
    rule: str
    edits: tuple[Edit, ...]
    test: str = ""
    equivalent: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant. `detail` is the test that killed it, or what broke."""

    mutant: Mutant
    outcome: Outcome
    detail: str
    seconds: float

    @property
    def expected(self) -> bool:
        """Whether the mutant did what the list says."""
        wanted = Outcome.SURVIVED if self.mutant.equivalent else Outcome.KILLED
        return self.outcome is wanted


# The list


def parse(text: str) -> tuple[Mutant, ...]:
    """The mutants of a list, in its order."""
    mutants = tuple(_mutant(entry) for entry in tomllib.loads(text)["mutant"])
    ids = [mutant.id for mutant in mutants]
    if twice := {one for one in ids if ids.count(one) > 1}:
        raise MutationError(f"listed twice: {', '.join(sorted(twice))}")
    return mutants


def _mutant(entry: dict[str, Any]) -> Mutant:
    path = f"contracts/{entry['file']}"
    edits = tuple(
        Edit(path, edit.get("in", ""), edit["old"], edit["new"])
        for edit in (entry, *entry.get("also", ()))
    )
    test, equivalent = entry.get("test", ""), entry.get("equivalent", "")
    if bool(test) == bool(equivalent):
        raise MutationError(f"{entry['id']} needs either a test or a reason why it is equivalent")
    return Mutant(entry["id"], entry["rule"], edits, test, equivalent)


def chosen(mutants: Sequence[Mutant], ids: Sequence[str]) -> tuple[Mutant, ...]:
    """The mutants of these ids; all without any."""
    if unknown := set(ids) - {mutant.id for mutant in mutants}:
        raise MutationError(f"no such mutant: {', '.join(sorted(unknown))}")
    return tuple(mutant for mutant in mutants if not ids or mutant.id in ids)


def check_fit(mutants: Iterable[Mutant], project: Path) -> None:
    """See that the list fits a project, before anything takes long."""
    for mutant in mutants:
        mutated_sources(mutant, project)
        if mutant.test and not has_test(project, mutant.test):
            raise MutationError(f"{mutant.id}: there is no {mutant.test}")


def has_test(project: Path, test: str) -> bool:
    """Whether a test exists: a file below `tests/contracts/`, or `file::function`."""
    file, _, function = test.partition("::")
    if file not in test_files(project):
        return False
    text = (project / TESTS / file).read_text(encoding="utf-8")
    return not function or f"def {function}(" in text


# Copies of the project


def copy_project(target: Path, source: Path = ROOT) -> None:
    """Copy what the contract tests need. Files keep their times: Python's bytecode stays good."""
    target.mkdir()
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            shutil.copy2(source / name, target / name)
    for name in LINKED:
        (target / name).symlink_to(ROOT / name)


def mutated_sources(mutant: Mutant, project: Path) -> dict[str, str]:
    """The sources that a mutant changes, by path."""
    sources: dict[str, str] = {}
    for edit in mutant.edits:
        text = sources.get(edit.path) or (project / edit.path).read_text(encoding="utf-8")
        sources[edit.path] = edit.apply(text)
    return sources


def compile_mutants(mutants: Sequence[Mutant], project: Path) -> Compiled:
    """The artifacts that each mutant changes, by its id, from one run of the compiler: it takes
    longer to start than to compile. Unlike in the package's own build, a warning is none of our
    concern: a guard that is gone leaves an unused variable.
    """
    artifacts = [_read_artifact(file) for file in sorted((project / ARTIFACTS).glob("*.json"))]
    sources: dict[str, str] = {}
    concerned: Compiled = {}
    for mutant in mutants:
        mutated = mutated_sources(mutant, project)
        concerned[mutant.id] = [one for one in artifacts if mutated.keys() & one["sources"].keys()]
        for path in {path for one in concerned[mutant.id] for path in one["sources"]}:
            text = mutated.get(path) or (project / path).read_text(encoding="utf-8")
            sources[f"{mutant.id}/{path}"] = text
    outputs = {
        f"{id_}/{one['sourceName']}": build_contracts.CODE_OUTPUTS
        for id_, changed in concerned.items()
        for one in changed
    }
    contracts = build_contracts.run_compiler(sources, outputs)["contracts"]
    return {
        id_: [one | _code(contracts[f"{id_}/{one['sourceName']}"], one) for one in changed]
        for id_, changed in concerned.items()
    }


def _read_artifact(file: Path) -> dict[str, Any]:
    artifact: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return artifact


def _code(contracts: dict[str, Any], artifact: dict[str, Any]) -> dict[str, Any]:
    contract = contracts[artifact["contractName"]]
    deployed = contract["evm"]["deployedBytecode"]
    return {
        "abi": contract["abi"],
        "bytecode": "0x" + contract["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + deployed["object"],
        "immutableReferences": deployed["immutableReferences"],
    }


# Tests in a copy


class Judge:
    """A process that runs tests in copies of the project."""

    def __init__(self, stage: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, stage / "scripts" / "mutate_judge.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=stage.parent,
            text=True,
        )

    def first_failure(self, project: Path, tests: Sequence[str]) -> str | None:
        """The first test that fails in a copy; None if all pass."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"project": str(project), "tests": [str(TESTS / test) for test in tests]}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        if "broken" in answer:
            raise MutationError(answer["broken"])
        failed: str | None = answer["failed"]
        return failed

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def rounds(mutant: Mutant, contracts: set[str], project: Path) -> Iterator[list[str]]:
    """What to run, one after another: the named test, then all files on the changed contracts."""
    if mutant.test:
        yield [mutant.test]
    yield [name for name in test_files(project) if concerns(name, contracts)]


def test_files(project: Path) -> list[str]:
    """The test files that judge what contracts do; random walks, which take longest, at the end."""
    names = {file.name for file in (project / TESTS).glob("test_*.py")} - NO_JUDGES
    return sorted(names, key=lambda name: ("machine" in name, name))


def concerns(test_file: str, contracts: set[str]) -> bool:
    """Whether a test file is about one of these contracts."""
    if test_file.startswith("test_splitter"):
        return any(name.startswith("RevenueSplitter") for name in contracts)
    if test_file == "test_payouts.py":
        return "Payouts" in contracts
    return "PaymentChannels" in contracts


# The run


class Bench:
    """A directory with the project as it is, its stage, and for a while a copy for each mutant."""

    def __init__(self, directory: Path, jobs: int) -> None:
        self._directory = directory
        self._stage = directory / "stage"
        copy_project(self._stage)
        build = [sys.executable, "scripts/build_contracts.py"]
        subprocess.run(build, cwd=self._stage, check=True, stdout=sys.stderr)
        self._judges: SimpleQueue[Judge] = SimpleQueue()
        for _ in range(jobs):
            self._judges.put(Judge(self._stage))

    def close(self) -> None:
        """End the judges, all of which are free by now."""
        while not self._judges.empty():
            self._judges.get().close()

    def check(self, pool: Executor) -> None:
        """See that all tests pass without a mutant; those that take longest come first."""
        files = reversed(test_files(self._stage))
        for failed in pool.map(self._first_failure, files):
            if failed:
                raise MutationError(f"without any mutant, {failed} fails")

    def _first_failure(self, test_file: str) -> str | None:
        with self._judge() as judge:
            return judge.first_failure(self._stage, [test_file])

    def compile(self, mutants: Sequence[Mutant]) -> Compiled:
        """The changed artifacts of each mutant, by its id; nothing if one of them does not compile:
        then each is compiled on its own.
        """
        try:
            return compile_mutants(mutants, self._stage)
        except (MutationError, build_contracts.BuildError):
            return {}

    def meet(self, mutant: Mutant, compiled: Future[Compiled]) -> Result:
        """Let the tests judge a mutant."""
        artifacts = compiled.result().get(mutant.id)
        start = time.monotonic()
        project = self._directory / mutant.id
        try:
            artifacts = artifacts or compile_mutants([mutant], self._stage)[mutant.id]
            copy_project(project, self._stage)
            for one in artifacts:
                file = project / ARTIFACTS / f"{one['contractName']}.json"
                file.write_text(json.dumps(one), encoding="utf-8")
            contracts = {one["contractName"] for one in artifacts}
            outcome, detail = self._judged(mutant, contracts, project)
        except (MutationError, build_contracts.BuildError) as error:
            outcome, detail = Outcome.BROKEN, str(error).strip()
        shutil.rmtree(project, ignore_errors=True)
        return Result(mutant, outcome, detail, time.monotonic() - start)

    def _judged(self, mutant: Mutant, contracts: set[str], project: Path) -> tuple[Outcome, str]:
        with self._judge() as judge:
            for tests in rounds(mutant, contracts, project):
                if failed := judge.first_failure(project, tests):
                    return Outcome.KILLED, failed
        return Outcome.SURVIVED, ""

    @contextmanager
    def _judge(self) -> Iterator[Judge]:
        judge = self._judges.get()
        try:
            yield judge
        finally:
            self._judges.put(judge)


def run(mutants: Sequence[Mutant], jobs: int) -> Iterator[Result]:
    """All results, in the order in which they come."""
    with (
        TemporaryDirectory(prefix="mutants-") as name,
        closing(Bench(Path(name), jobs)) as bench,
        ThreadPoolExecutor(jobs) as pool,
    ):
        bench.check(pool)
        for result in as_completed(schedule(mutants, bench, pool)):
            yield result.result()


def schedule(mutants: Sequence[Mutant], bench: Bench, pool: Executor) -> list[Future[Result]]:
    """Queue all work: each group is compiled while the one before is judged."""
    groups = [mutants[i : i + GROUP_SIZE] for i in range(0, len(mutants), GROUP_SIZE)]
    compiled = [pool.submit(bench.compile, groups[0])]
    pending = []
    for group, following in zip_longest(groups, groups[1:]):
        if following:
            compiled.append(pool.submit(bench.compile, following))
        pending += [pool.submit(bench.meet, mutant, compiled[0]) for mutant in group]
        compiled = compiled[1:]
    return pending


def report_progress(results: Iterable[Result], total: int) -> Iterator[Result]:
    """Pass the results on, one line to stderr for each."""
    for number, result in enumerate(results, 1):
        mark = " " if result.expected else "!"
        print(
            f"{mark} {number:3}/{total} {result.outcome:8} {result.seconds:4.0f} s "
            f"{result.mutant.id}: {result.detail or result.mutant.equivalent or 'nobody noticed'}",
            file=sys.stderr,
            flush=True,
        )
        yield result


# Reports


def as_json(results: Sequence[Result]) -> str:
    """All results for another program."""
    rows = [
        {
            "id": result.mutant.id,
            "rule": result.mutant.rule,
            "outcome": result.outcome,
            "detail": result.detail,
            "equivalent": result.mutant.equivalent,
            "expected": result.expected,
            "seconds": round(result.seconds, 1),
        }
        for result in results
    ]
    return json.dumps(rows, indent=2)


def as_table(results: Sequence[Result]) -> Table:
    """All results for a reader."""
    table = Table("mutant", "rule", "outcome", "by")
    for result in results:
        style = None if result.expected else "bold red"
        reason = result.detail or result.mutant.equivalent
        table.add_row(result.mutant.id, result.mutant.rule, result.outcome, reason, style=style)
    return table


def page(results: Sequence[Result]) -> str:
    """The text of `docs/mutants.md`, of results that are all as expected."""
    killed = [result for result in results if not result.mutant.equivalent]
    equivalent = [result for result in results if result.mutant.equivalent]
    return f"""# Mutants of the contracts

Written by `make mutants`. Each line is a copy of the contracts in which one rule is broken, and the
test that notices; `scripts/mutants.toml` has the changes themselves. Paths are relative to
`tests/contracts/`.

{len(results)} mutants: {len(killed)} are killed, {len(equivalent)} change nothing.

## Killed

| mutant | the rule that it breaks | killed by |
|---|---|---|
{_lines(killed)}{_unchanged(equivalent)}"""


def _unchanged(results: Sequence[Result]) -> str:
    if not results:
        return ""
    return f"""
## Change nothing

All tests pass on these, as they have to.

| mutant | the rule that it seems to break | why nothing changes |
|---|---|---|
{_lines(results)}"""


def _lines(results: Iterable[Result]) -> str:
    return "".join(
        f"| `{result.mutant.id}` | {result.mutant.rule} | "
        + (result.mutant.equivalent or f"`{result.detail}`")
        + " |\n"
        for result in results
    )


def summary(results: Sequence[Result], seconds: float) -> str:
    """One line: how many there were of each kind."""
    counts = {one: sum(result.outcome is one for result in results) for one in Outcome}
    surprises = sum(not result.expected for result in results)
    numbers = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f"{len(results)} mutants: {numbers}; {surprises} unexpected; {seconds / 60:.1f} minutes"


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Break one rule of the contracts at a time.")
    parser.add_argument("ids", nargs="*", metavar="id", help="only these mutants")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time (default: 2)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE_FILE.name}")
    arguments = parser.parse_args()
    if arguments.write and arguments.ids:
        parser.error("--write takes the whole list")
    return arguments


def main() -> int:
    """Run, then report."""
    arguments = read_arguments()
    start = time.monotonic()
    try:
        mutants = chosen(parse(LIST_FILE.read_text(encoding="utf-8")), arguments.ids)
        check_fit(mutants, ROOT)
        arrived = report_progress(run(mutants, arguments.jobs), len(mutants))
        results = sorted(arrived, key=lambda result: mutants.index(result.mutant))
    except MutationError as error:
        sys.exit(str(error))
    console = Console()
    console.print(as_table(results)) if console.is_terminal else print(as_json(results))
    print(summary(results, time.monotonic() - start), file=sys.stderr)
    if not all(result.expected for result in results):
        return 1
    if arguments.write:
        PAGE_FILE.write_text(page(results), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
