"""A batch as a picture over time: a row for each worker slot, each job a span in it, coloured by its result.

Pure: spans in, rows out; who draws them is somebody else's business. Which slot a job had is not recorded, so jobs are
laid into as few slots as their times allow, the lowest free one first. Beyond some number of jobs or slots, cells stand
for many jobs: how much of the time, in how much of the row, went to each kind of result.
"""

from __future__ import annotations

import heapq
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.batches import STATUSES
from protocol.results import Result

MOST_SPANS = 2000
"""More jobs than these are drawn as sums."""

COLUMNS = 240
"""How finely time is told apart where cells are sums."""

CODES = {status: code for code, status in enumerate(STATUSES)}
"""Status -> its place in STATUSES."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of a row.

    Args:
        start: Seconds after the picture's begin.
        end: As above.
        status: What these jobs ended in.
        share: How much of the row's slots they took, 0 to 1.
        jobs: How many ended in it.
        name: The job's, where it is one.
    """

    start: float
    end: float
    status: str
    share: float = 1.0
    jobs: int = 1
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One slot of a worker, or some neighbouring ones, over time."""

    worker: str
    first_slot: int
    slots: int
    cells: list[Cell]


@dataclass(frozen=True, slots=True)
class Picture:
    """The rows, worker by worker; `begin` and `end` are Unix s.

    Args:
        is_exact: Whether each cell is one job.
        jobs: How many jobs it shows.
    """

    begin: float
    end: float
    rows: list[Row]
    is_exact: bool
    jobs: int


class TaskStream:
    """Gather the spans of jobs, some 20 bytes each."""

    def __init__(self) -> None:
        self._workers: dict[str, int] = {}
        self._worker = array("L")
        self._start, self._end = array("d"), array("d")
        self._status = array("B")
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._start)

    def add(self, result: Result[Any]) -> None:
        """Take a job's result; one that never started has no span."""
        if result.started_at is not None and result.finished_at is not None and result.worker is not None:
            name = result.key or f"job {result.index}"
            self.put(result.worker, result.started_at, result.finished_at, result.status, name)

    def put(self, worker: str, start: float, end: float, status: str, name: str) -> None:
        """Take a span; times in Unix s."""
        self._worker.append(self._workers.setdefault(worker, len(self._workers)))
        self._start.append(start)
        self._end.append(max(start, end))
        self._status.append(CODES[status])
        if len(self._names) <= MOST_SPANS:
            self._names.append(name)

    def picture(self, *, columns: int = COLUMNS, rows: int = 40) -> Picture:
        """Lay the spans out.

        Args:
            columns: Cells of one row at most, where they are sums.
            rows: Rows at most, but for one of each worker; more slots share a row then.
        """
        if not len(self):
            return Picture(0.0, 0.0, [], is_exact=True, jobs=0)
        begin, end = min(self._start), max(self._end)
        lanes = {worker: self._lanes(spans) for worker, spans in self._by_worker()}
        wanted = sum(map(len, lanes.values()))
        together = -(-wanted // max(1, rows))
        is_exact = len(self) <= MOST_SPANS and together == 1
        made = []
        for worker, slots in sorted(lanes.items()):
            for first in range(0, len(slots), together):
                some = slots[first : first + together]
                cells = self._spans(some[0], begin) if is_exact else self._sums(some, begin, end, columns)
                made.append(Row(worker, first, len(some), list(cells)))
        return Picture(begin, end, made, is_exact, len(self))

    def _by_worker(self) -> Iterator[tuple[str, list[int]]]:
        found: defaultdict[int, list[int]] = defaultdict(list)
        for span, worker in enumerate(self._worker):
            found[worker].append(span)
        for name, worker in self._workers.items():
            yield name, found[worker]

    def _lanes(self, spans: list[int]) -> list[list[int]]:
        """Lay one worker's spans into as few lanes as can be, none over another."""
        lanes: list[list[int]] = []
        busy: list[tuple[float, int]] = []
        free: list[int] = []
        for span in sorted(spans, key=self._start.__getitem__):
            while busy and busy[0][0] <= self._start[span]:
                heapq.heappush(free, heapq.heappop(busy)[1])
            lane = heapq.heappop(free) if free else len(lanes)
            if lane == len(lanes):
                lanes.append([])
            lanes[lane].append(span)
            heapq.heappush(busy, (self._end[span], lane))
        return lanes

    def _spans(self, lane: Iterable[int], begin: float) -> Iterator[Cell]:
        for span in lane:
            start, end = self._start[span] - begin, self._end[span] - begin
            yield Cell(start, end, STATUSES[self._status[span]], name=self._names[span])

    def _sums(self, lanes: Sequence[Sequence[int]], begin: float, end: float, columns: int) -> Iterator[Cell]:
        """Add up how long each kind of result kept these lanes busy, column by column."""
        width = max((end - begin) / columns, 1e-9)
        busy: defaultdict[tuple[int, int], float] = defaultdict(float)
        jobs: defaultdict[tuple[int, int], int] = defaultdict(int)
        for lane in lanes:
            for span in lane:
                start, stop, status = self._start[span] - begin, self._end[span] - begin, self._status[span]
                jobs[min(columns - 1, int(stop / width)), status] += 1
                for column, time in spread(start, stop, width, columns):
                    busy[column, status] += time
        for (column, status), time in sorted(busy.items()):
            share = min(1.0, time / width / len(lanes))
            yield Cell(column * width, (column + 1) * width, STATUSES[status], share, jobs[column, status])


def spread(start: float, stop: float, width: float, columns: int) -> Iterator[tuple[int, float]]:
    """Say in which columns of a grid a span of time lies, and how long in each; the last takes what is beyond it."""
    last = min(columns - 1, int(stop / width))
    for column in range(min(int(start / width), last), last + 1):
        end = stop if column == last else (column + 1) * width
        yield column, end - max(start, column * width)
