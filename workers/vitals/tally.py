"""What a process counts of jobs, in a file that it maps: its supervisor reads it while it runs, and after any death.

For each function a row: its name, how many results of each kind, how long jobs ran and waited. Each number is written
by itself, so one is never read half; two that belong together may be read a moment apart.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from protocol.batches import STATUSES

BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
"""Upper bounds of the histograms' buckets, s."""

# Of a row, in cells of 8 bytes: its name, then results by kind, then of each histogram its buckets, the last one
# without a bound, and the sum of its times.
_NAME_CELLS = 32
_TIMES_CELLS = len(BUCKETS) + 2
_CELLS = _NAME_CELLS + len(STATUSES) + 2 * _TIMES_CELLS
# Names come from producers, too: one that makes them up must not fill a disk and a Prometheus.
_MOST_FUNCTIONS = 1000
_OTHERS = "(others)"


class Row(NamedTuple):
    """What was counted of a function: results by kind; of its jobs' run times and waits the buckets, then the sum."""

    function: str
    results: dict[str, int]
    run: list[float]
    wait: list[float]

    @classmethod
    def of(cls, function: str, results: Mapping[str, int]) -> Row:
        """Count results of which no times are known."""
        nothing = [0.0] * _TIMES_CELLS
        return cls(function, {status: results.get(status, 0) for status in STATUSES}, nothing, nothing)


class Tally:
    """Count jobs, in a file of this process's own.

    Args:
        path: Where.
        functions: Those that are told of from the start, with nothing counted.
    """

    def __init__(self, path: Path, functions: Iterable[str] = ()) -> None:
        with path.open("w+b") as file:
            file.truncate(8 * 8 * _CELLS)
            self._memory = mmap.mmap(file.fileno(), 0)
        self._cells: Any = None
        self._map()
        self._row_of: dict[str, int] = {}
        for function in functions:
            self._find(function)

    def add(self, function: str, results: Mapping[str, int], run: list[float], wait: list[float]) -> None:
        """Count results of a function by their kind, and how long its jobs ran and waited, s; the times are sorted."""
        at = self._find(function)
        cells = self._cells
        for place, status in enumerate(STATUSES, at + _NAME_CELLS):
            if status in results:
                cells[place] += results[status]
        place = at + _NAME_CELLS + len(STATUSES)
        for times in (run, wait):
            for bucket, count in _spread(times):
                cells[place + bucket] += count
            place += _TIMES_CELLS
            cells[place - 1] += sum(times)

    def close(self) -> None:
        """Let go of the memory; the file stays."""
        self._unmap()
        self._memory.close()

    def _find(self, function: str) -> int:
        at = self._row_of.get(function)
        return self._make(function) if at is None else at

    def _make(self, function: str) -> int:
        if len(self._row_of) >= _MOST_FUNCTIONS and function != _OTHERS:
            return self._find(_OTHERS)
        at = len(self._row_of) * _CELLS
        if at + _CELLS > len(self._cells):
            self._unmap()
            self._memory.resize(2 * len(self._memory))
            self._map()
        name = function.encode()[: 8 * _NAME_CELLS - 2]
        self._memory[8 * at + 2 : 8 * at + 2 + len(name)] = name
        # The length comes last: until then there is no such row.
        self._memory[8 * at : 8 * at + 2] = len(name).to_bytes(2, "little")
        self._row_of[function] = at
        return at

    def _map(self) -> None:
        self._view = memoryview(self._memory)
        self._cells = self._view.cast("d")

    def _unmap(self) -> None:
        self._cells.release()
        self._view.release()


def read_tally(path: Path) -> Iterator[Row]:
    """Read what a process has counted, or had when it died.

    Raises:
        OSError: If there is no such file.
    """
    with memoryview(path.read_bytes()) as data:
        for start in range(0, len(data) - 8 * _CELLS + 1, 8 * _CELLS):
            length = int.from_bytes(data[start : start + 2], "little")
            if length:
                name = bytes(data[start + 2 : start + 2 + length]).decode(errors="replace")
                numbers = [float(number) for number in data[start + 8 * _NAME_CELLS : start + 8 * _CELLS].cast("d")]
                results = {status: int(numbers[at]) for at, status in enumerate(STATUSES)}
                times = numbers[len(STATUSES) :]
                yield Row(name, results, times[:_TIMES_CELLS], times[_TIMES_CELLS:])


def _spread(times: list[float]) -> Iterator[tuple[int, int]]:
    """Tell how many of these times lie in each bucket; they are sorted in place."""
    times.sort()
    seen, bucket = 0, 0
    while seen < len(times):
        bucket = bisect_left(BUCKETS, times[seen], bucket)
        stop = bisect_right(times, BUCKETS[bucket], seen) if bucket < len(BUCKETS) else len(times)
        yield bucket, stop - seen
        seen = stop
