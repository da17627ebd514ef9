"""The task stream: what each slot of each worker did over time, in a grid whose size does not grow with the batch.

Results do not say which slot a job ran in, and none is needed: jobs that overlapped get lanes of their own. Taking them
in the order in which they ended, each on the lane that has been free for the shortest time, needs no more lanes than
ran at once. No job is remembered, so any batch may be drawn again and again while it runs; a report, which is drawn
once, remembers them all and tells them apart (`producer.pictures.taskstream`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from producer.pictures.taskstream import COLUMNS, spread
from protocol.batches import STATUSES

# Past so many rows, further lanes share those that there are: a grid takes 4.8 kB a row.
_MOST_ROWS = 256
_FIRST_WIDTH = 0.005
# A run that takes no time at all is seen, too, s.
_BRIEFEST = 1e-7
_KINDS = len(STATUSES)
_CELLS = COLUMNS * _KINDS


@dataclass(slots=True)
class Row:
    """One lane: seconds at work for each column and status."""

    worker: str
    cells: array[float] = field(default_factory=lambda: array("f", bytes(4 * _CELLS)))

    def halve(self) -> None:
        """Make two columns one."""
        merged = array("f", bytes(4 * _CELLS))
        for column in range(COLUMNS // 2):
            for kind in range(_KINDS):
                at = 2 * column * _KINDS + kind
                merged[column * _KINDS + kind] = self.cells[at] + self.cells[at + _KINDS]
        self.cells = merged


class Lanes:
    """Rows of a batch's workers.

    Args:
        origin: Where time begins, Unix s.

    Attributes:
        width: A column's, s; it doubles when time has come to the last of COLUMNS.
        end: Of the last job, s from the origin.
    """

    def __init__(self, origin: float) -> None:
        self.origin = origin
        self.width = _FIRST_WIDTH
        self.end = 0.0
        self._rows: list[Row] = []
        self._of_worker: dict[str, list[int]] = {}
        # Worker -> when each of its lanes was last left, and the lane, in order.
        self._left: dict[str, list[tuple[float, int]]] = {}

    def add(self, worker: str, started_at: float, finished_at: float, status: int) -> None:
        """Take note of a run; `status` is its place in STATUSES."""
        start = max(0.0, started_at - self.origin)
        end = max(start, finished_at - self.origin)
        self._add(worker, start, end, end - start, status)

    def add_all(self, worker: str, at: float, starts: Sequence[int], took: Sequence[int], status: int) -> None:
        """Take note of runs on one worker: when each started, us after `at`, and how long it took, us.

        Those that follow each other within a column are laid into one lane together, for a tenth of what each alone
        takes.
        """
        zero = at - self.origin
        first, last, busy, edge = 0.0, -1.0, 0.0, 0.0
        for started, lasted in zip(starts, took, strict=True):
            start = max(0.0, zero + started / 1e6)
            end = start + lasted / 1e6
            if last <= start and end < edge:
                busy += end - start
            else:
                if last >= 0:
                    self._add(worker, first, last, busy, status)
                first, busy = start, end - start
                edge = (int(start / self.width) + 1) * self.width
            last = end
        if last >= 0:
            self._add(worker, first, last, busy, status)

    def _add(self, worker: str, start: float, end: float, busy: float, status: int) -> None:
        self._make_room(end)
        self._fill(self._rows[self._row(worker, start, end)], start, end, busy, status)

    def rows(self) -> list[Row]:
        """Return the rows, those of a worker together, the workers by name."""
        return sorted(self._rows, key=lambda row: row.worker)

    def _row(self, worker: str, start: float, end: float) -> int:
        left = self._left.setdefault(worker, [])
        at = bisect_right(left, (start, _MOST_ROWS)) - 1
        row = left.pop(at)[1] if at >= 0 else self._new_row(worker, len(left))
        insort(left, (end, row))
        return row

    def _new_row(self, worker: str, lane: int) -> int:
        mine = self._of_worker.setdefault(worker, [])
        if len(self._rows) < _MOST_ROWS:
            self._rows.append(Row(worker))
            mine.append(len(self._rows) - 1)
        elif not mine:
            mine.append(len(self._rows) - 1)
        return mine[lane % len(mine)]

    def _make_room(self, end: float) -> None:
        self.end = max(self.end, end)
        while self.end >= self.width * COLUMNS:
            for row in self._rows:
                row.halve()
            self.width *= 2

    def _fill(self, row: Row, start: float, end: float, busy: float, status: int) -> None:
        width, cells = self.width, row.cells
        column = int(start / width)
        if column == int(end / width):
            cells[column * _KINDS + status] += max(busy, _BRIEFEST)
            return
        for column, time in spread(start, end, width, COLUMNS):
            cells[column * _KINDS + status] += time
