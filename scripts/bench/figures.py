"""What a measurement comes to: ratios with their spread, and tables of figures."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio over the rounds of one run: each round measures both sides, one after the other, so
    that a drift of the machine's speed cancels.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Iterable[float]) -> Self:
        values = sorted(rounds)
        return cls(statistics.median(values), values[0], values[-1])


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio of design.md's list of speeds to reach. ``None`` as ``reach``: it is shown for
    comparison.
    """

    name: str
    ratio: Ratio
    reach: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        if self.reach is None:
            return None
        median = self.ratio.median
        return median <= self.reach if self.at_most else median >= self.reach

    def members(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "name": self.name,
            "median": significant(self.ratio.median),
            "low": significant(self.ratio.low),
            "high": significant(self.ratio.high),
            "reach": self.reach,
            "atMost": self.at_most,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class Table:
    """Figures, each row under the same columns."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def members(self) -> dict[str, object]:
        """As JSON has it."""
        rows = [[_cell(cell) for cell in row] for row in self.rows]
        return {"title": self.title, "note": self.note, "columns": self.columns, "rows": rows}


@dataclass(slots=True)
class Findings:
    """All that one part of the benchmark found."""

    targets: list[Target] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        self.targets += other.targets
        self.tables += other.tables


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def significant(value: float, digits: int = 3) -> float:
    """Rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def _cell(cell: Cell) -> Cell:
    if isinstance(cell, float):
        return significant(cell) if abs(cell) < 1000 else round(cell)
    return cell
