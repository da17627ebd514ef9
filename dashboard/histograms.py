"""Times counted in buckets that each are 2 % wider than the one before, so that seconds and microseconds both show."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple, Self

from protocol.batches import STATUSES

_SHORTEST = 1e-6
_SCALE = 1 / math.log(1.02)
# Ten bars a decade are what a person can tell apart.
_BUCKETS_A_BAR = _SCALE * math.log(10) / 10


class Bar(NamedTuple):
    """The times between two bounds, s: a count for each status."""

    start: float
    end: float
    counts: list[int]

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts)


class Histogram:
    """Times by status."""

    def __init__(self) -> None:
        # bucket * number of statuses + status -> count
        self._cells: Counter[int] = Counter()
        self.count = 0
        self.longest = 0.0

    def add(self, duration: float, status: int) -> None:
        """Count one time, s; `status` is its place in STATUSES."""
        bucket = int(math.log(duration / _SHORTEST) * _SCALE) if duration > _SHORTEST else 0
        self._cells[bucket * len(STATUSES) + status] += 1
        self.count += 1
        self.longest = max(self.longest, duration)

    def __add__(self, other: Histogram) -> Self:
        both = type(self)()
        both._cells = self._cells + other._cells
        both.count = self.count + other.count
        both.longest = max(self.longest, other.longest)
        return both

    def percentile(self, share: float) -> float:
        """Return the time, s, within 2 %, that this share of them did not exceed; 0 if there are none."""
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for cell in sorted(self._cells):
            seen += self._cells[cell]
            if seen >= rank:
                return min(self.longest, _bound(cell // len(STATUSES) + 0.5))
        return 0.0

    def bars(self) -> list[Bar]:
        """Draw it together in bars, from the first that has any to the last."""
        counts: dict[int, list[int]] = {}
        for cell, count in self._cells.items():
            bucket, status = divmod(cell, len(STATUSES))
            counts.setdefault(int(bucket / _BUCKETS_A_BAR), [0] * len(STATUSES))[status] += count
        if not counts:
            return []
        empty = [0] * len(STATUSES)
        return [
            Bar(_bound(number * _BUCKETS_A_BAR), _bound((number + 1) * _BUCKETS_A_BAR), counts.get(number, empty))
            for number in range(min(counts), max(counts) + 1)
        ]


def _bound(bucket: float) -> float:
    return _SHORTEST * math.exp(bucket / _SCALE)
