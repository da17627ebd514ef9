"""Figures and tables: medians and percentiles, what one question's answer holds, and Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Answer:
    """What one benchmark has found.

    Args:
        title: The question, in a few words.
        settings: By what it was measured: sizes, workers, runs.
        rows: The table for people; all rows have the same columns.
        figures: The numbers that the goals and the plots ask for, by name.
        series: Points for plots, by the name of their line.
        notes: What a reader must know beside the table.
    """

    title: str
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    figures: dict[str, float]
    series: dict[str, list[list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Write it down for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Answer:
        """Read what `to_dict` wrote."""
        return cls(**data)

    def markdown(self) -> str:
        """Write it down for people."""
        said = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        parts = [f"## {self.title}", said[:1].upper() + said[1:] + ".", table(self.rows), *self.notes]
        return "\n\n".join(part for part in parts if part) + "\n"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write rows as a Markdown table; a bar inside a cell is escaped."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def median(values: Sequence[float]) -> float:
    """Tell the middle of several measurements."""
    return statistics.median(values)


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Tell the median of the pairs' ratios: pairs run one after the other, so a machine that drifts favours neither."""
    return median([top / bottom for top, bottom in zip(over, under, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """Tell the value that `share` of the measurements do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def thinned(points: Sequence[list[float]], most: int = 200) -> list[list[float]]:
    """Keep at most so many points of a line, its first and last among them."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[round(number * step)] for number in range(most)]
