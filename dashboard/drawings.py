"""Geometry for the templates' SVG: numbers and class names only, so nothing of a job's can get into a drawing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dashboard.lanes import Lanes, Row
from dashboard.words import LABELS
from producer.pictures.durations import Histogram
from producer.pictures.taskstream import COLUMNS
from protocol.batches import STATUSES, BatchStatus

_KINDS = len(STATUSES)
_MOST_ROWS = 96
# What did not succeed is drawn where it took this share of a cell's time: at 1 % of 100,000 jobs it shall be seen.
_SEEN_FROM = 0.05
_SHADES = 4
# The narrowest part of a bar, of 1,000, so that one failure of a million is seen.
_NARROWEST = 3.0


class Part(NamedTuple):
    """A piece of a stacked bar, which is 1,000 wide."""

    name: str
    jobs: int
    x: float
    width: float


class HistogramBar(NamedTuple):
    """One bar of a histogram, from the bottom up: pieces as (status, y, height), 0 to 100."""

    start: float
    end: float
    jobs: int
    pieces: list[tuple[str, float, float]]


class Stream(NamedTuple):
    """A task stream: for each (status, shade) the outline of all its cells; the rows' workers as (name, y, height)."""

    columns: int
    rows: int
    seconds: float
    outlines: dict[tuple[str, int], str]
    workers: list[tuple[str, int, int]]
    lanes: int


def stack(status: BatchStatus) -> list[Part]:
    """Draw a batch's jobs as one bar, done first."""
    counts = {name: getattr(status, name) for name in (*STATUSES, "running", "queued")}
    present = {name: count for name, count in counts.items() if count}
    total = sum(present.values())
    widths = {name: max(_NARROWEST, 1000 * count / total) for name, count in present.items()}
    scale, x, parts = 1000 / (sum(widths.values()) or 1), 0.0, []
    for name, count in present.items():
        width = widths[name] * scale
        parts.append(Part(name, count, round(x, 2), round(width, 2)))
        x += width
    return parts


def describe(status: BatchStatus) -> str:
    """Say in words what `stack` draws."""
    told = [f"{part.jobs:,} {LABELS[part.name]}" for part in stack(status)]
    return f"{status.total:,} jobs: {', '.join(told)}" if told else "no jobs yet"


def histogram(times: Histogram) -> list[HistogramBar]:
    """Draw times in bars, the fullest 100 high."""
    bars = times.bars()
    highest = max((bar.count for bar in bars), default=1)
    return [HistogramBar(bar.low, bar.high, bar.count, _pieces(bar.counts, highest)) for bar in bars]


def _pieces(counts: Mapping[str, int], highest: int) -> list[tuple[str, float, float]]:
    y, pieces = 100.0, []
    for status, count in counts.items():
        height = max(1.0, 100 * count / max(1, highest))
        y -= height
        pieces.append((status, round(y, 2), round(height, 2)))
    return pieces


def stream(lanes: Lanes) -> Stream:
    """Draw lanes as a grid of at most 96 rows; neighbours of one worker are drawn as one where there are more."""
    rows = lanes.rows()
    fold = -(-len(rows) // _MOST_ROWS) if rows else 1
    folded = _fold(rows, fold)
    columns = min(COLUMNS, int(lanes.end / lanes.width) + 1)
    outlines: dict[tuple[str, int], list[str]] = defaultdict(list)
    for y, (_, cells, lanes_here) in enumerate(folded):
        for mark, x, width in _runs(cells, columns, lanes.width * lanes_here):
            outlines[mark].append(f"M{x} {y}h{width}v.86h-{width}z")
    drawn = {mark: "".join(cells) for mark, cells in sorted(outlines.items())}
    return Stream(columns, len(folded), columns * lanes.width, drawn, _spans(folded), len(rows))


_Folded = tuple[str, Sequence[float], int]


def _fold(rows: Sequence[Row], fold: int) -> list[_Folded]:
    of_worker: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_worker[row.worker].append(row)
    return [
        (worker, [sum(cell) for cell in zip(*(row.cells for row in group), strict=True)], len(group))
        for worker, mine in of_worker.items()
        for group in (mine[at : at + fold] for at in range(0, len(mine), fold))
    ]


def _runs(cells: Sequence[float], columns: int, width: float) -> list[tuple[tuple[str, int], int, int]]:
    """Put cells of one look that stand side by side together: look, first column, how many."""
    runs: list[tuple[tuple[str, int], int, int]] = []
    for column in range(columns):
        mark = _look(cells[column * _KINDS : (column + 1) * _KINDS], width)
        if mark is None:
            continue
        if runs and runs[-1][0] == mark and runs[-1][1] + runs[-1][2] == column:
            runs[-1] = (mark, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((mark, column, 1))
    return runs


def _look(busy: Sequence[float], width: float) -> tuple[str, int] | None:
    """Tell a cell's status and how dark it is; None if nothing ran."""
    total = sum(busy)
    if total <= 0:
        return None
    place = max(range(1, _KINDS), key=lambda kind: busy[kind])
    if busy[place] < _SEEN_FROM * total:
        place = 0
    return STATUSES[place], min(_SHADES, 1 + int(_SHADES * total / width))


def _spans(folded: Sequence[_Folded]) -> list[tuple[str, int, int]]:
    spans: list[tuple[str, int, int]] = []
    for y, (worker, _, _) in enumerate(folded):
        if spans and spans[-1][0] == worker:
            spans[-1] = (worker, spans[-1][1], spans[-1][2] + 1)
        else:
            spans.append((worker, y, 1))
    return spans
