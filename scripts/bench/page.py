"""The text of `docs/benchmarks.md`, from `docs/benchmarks.json` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_HEAD = """\
# Benchmarks

Written by `make bench` from [benchmarks.json](benchmarks.json), where every number below is.

What is compared was measured in the same run, in rounds: each round measures every side once, one
after the other, and a ratio is the median over the rounds of the ratio within a round, so that a
drift of the machine's speed cancels. The lowest and the highest round stand beside it.

- "Raw" is libsecp256k1 called from C with everything prepared.
- "Hello" is the same small application on the same server (uvicorn with h11, one process) without a
  price. A paid request has a voucher of its own, signed beforehand, and is answered when its charge
  is on the disk; the generator checks that every answer is a 200 with a receipt.
- The load generator is one thread of a process of its own, with prepared requests over connections
  that are kept. It shares the machine's cores with the servers, and so does PostgreSQL: the columns
  of CPU time say what each of them takes of a request, and with that, what the cores allow.
- "+1 ms per sync" is the same disk with a library ahead of libc that sleeps a millisecond before
  each `fsync` and `fdatasync`, for SQLite and PostgreSQL alike.
- PostgreSQL is a server of the benchmark's own on this machine, over a socket, with `fsync` on.
- Books of many channels are filled by one statement of the database, and measured through the
  store.
"""


def page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [_HEAD, _machine(results), "## Speed to reach\n", _targets(results["targets"])]
    for table in results["tables"]:
        parts += [f"## {table['title']}\n", f"{table['note']}\n", _table(**_body(table))]
    return "\n".join(parts)


def _machine(results: Mapping[str, Any]) -> str:
    machine, load = results["machine"], results["loadAverage"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Measured on {results['date']}: {machine['cores']} cores ({machine['processor']}), "
        f"{machine['system']}; load average {load['before']} before and {load['after']} after. "
        f"{versions}.\n"
    )


def _targets(targets: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        [one["name"], one["median"], f"{one['low']} to {one['high']}", _reach(one), _met(one)]
        for one in targets
    ]
    return _table(("", "ratio", "rounds", "to reach", ""), rows)


def _reach(target: Mapping[str, Any]) -> str:
    if target["reach"] is None:
        return ""
    return f"{'≤' if target['atMost'] else '≥'} {target['reach']}"


def _met(target: Mapping[str, Any]) -> str:
    return {True: "met", False: "missed", None: ""}[target["met"]]


def _body(table: Mapping[str, Any]) -> dict[str, Any]:
    return {"columns": table["columns"], "rows": table["rows"]}


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; what follows a text column is aligned to the right."""
    lines = [_line(columns), _line(["---", *["---:"] * (len(columns) - 1)])]
    return "\n".join([*lines, *(_line(map(_text, row)) for row in rows)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)
