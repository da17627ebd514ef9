"""How long things took: a histogram fine enough for percentiles, and coarse enough to be drawn.

Ten million durations take no more memory than ten thousand: every bucket is 1 % wider than the one before it, which is
how exact a percentile is.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from protocol.batches import STATUSES

_LOG_STEP = math.log(1.01)
# Where the buckets begin, s.
_SHORTEST = 1e-6
# A picture of durations that are all alike shows at least this range around them.
_NARROWEST = round(math.log(4.0) / _LOG_STEP)


class Durations:
    """How long jobs ran, as a histogram with buckets of 1 % width; a few thousand numbers at most."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.longest = 0.0
        self.shortest = math.inf

    @classmethod
    def of(cls, durations: Sequence[float]) -> Self:
        """Count many durations, s, for a tenth of what each alone takes; below 0 they are none."""
        made, ordered = cls(), sorted(durations)
        if ordered:
            made._buckets.update(_count(ordered))
            made.count = len(ordered)
            made.shortest, made.longest = max(0.0, ordered[0]), max(0.0, ordered[-1])
        return made

    def add_all(self, others: Durations) -> None:
        """Count what others have counted, too."""
        self._buckets.update(others._buckets)
        self.count += others.count
        self.longest = max(self.longest, others.longest)
        self.shortest = min(self.shortest, others.shortest)

    def add(self, duration: float) -> None:
        """Count one duration, s."""
        self._buckets[_bucket(duration)] += 1
        self.count += 1
        self.longest = max(self.longest, duration)
        self.shortest = min(self.shortest, duration)

    def buckets(self) -> Counter[int]:
        """Tell how many there are in each bucket, of which the first begins at 1 us."""
        return self._buckets

    def percentile(self, share: float) -> float:
        """Return the duration, s, within 1 %, that this share of the jobs did not exceed (nearest rank)."""
        rank, seen = max(1, math.ceil(share * self.count)), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(self.longest, max(self.shortest, _SHORTEST * math.exp(bucket * _LOG_STEP)))
        return 0.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a histogram: durations from `low` to `high`, s, and how many there are of each status."""

    low: float
    high: float
    counts: dict[str, int]

    @property
    def count(self) -> int:
        """How many there are in all."""
        return sum(self.counts.values())


class Histogram:
    """Durations by the status that they ended in, to be drawn as stacked bars over a logarithmic scale."""

    def __init__(self) -> None:
        self._by_status: dict[str, Counter[int]] = {status: Counter() for status in STATUSES}
        self.all = Durations()

    def add(self, duration: float, status: str) -> None:
        """Count one duration, s; below 0, as clocks of two machines may have it, it is none."""
        duration = max(0.0, duration)
        self._by_status[status][_bucket(duration)] += 1
        self.all.add(duration)

    def add_all(self, durations: Durations, status: str) -> None:
        """Count many durations that ended in one status."""
        self._by_status[status].update(durations.buckets())
        self.all.add_all(durations)

    def bars(self, most: int = 40) -> list[Bar]:
        """Return bars of equal width on a logarithmic scale, from the shortest duration to the longest."""
        found = [bucket for counts in self._by_status.values() for bucket in counts]
        if not found:
            return []
        low, high = min(found), max(found) + 1
        padding = max(0, _NARROWEST - (high - low)) // 2
        low, high = low - padding, high + padding
        width = max(1, math.ceil((high - low) / most))
        return [self._bar(start, start + width) for start in range(low, high, width)]

    def _bar(self, start: int, stop: int) -> Bar:
        counts = {
            status: sum(buckets[bucket] for bucket in range(start, stop)) for status, buckets in self._by_status.items()
        }
        return Bar(_edge(start), _edge(stop), {status: count for status, count in counts.items() if count})


def _bucket(duration: float) -> int:
    return max(0, round(math.log(max(duration, _SHORTEST) / _SHORTEST) / _LOG_STEP))


def _count(ordered: Sequence[float]) -> Mapping[int, int]:
    """Count sorted durations by their buckets."""
    low, high = _bucket(ordered[0]), _bucket(ordered[-1])
    if high - low >= len(ordered) // 2:
        return Counter(map(_bucket, ordered))
    # Most lie close together, so looking for the edges between them is less work than a logarithm for each.
    edges = [bisect_left(ordered, _edge(bucket)) for bucket in range(low + 1, high + 1)]
    counts = zip(range(low, high + 1), pairwise([0, *edges, len(ordered)]), strict=True)
    return {bucket: stop - start for bucket, (start, stop) in counts if stop > start}


def _edge(bucket: int) -> float:
    return _SHORTEST * math.exp((bucket - 0.5) * _LOG_STEP)


def rate_words(rate: float) -> str:
    """Write a rate, 1/s, for people: `1,240 a second`, `2.5 a second`, `19 a minute`."""
    if not rate:
        return "0 a second"
    unit = "a second" if rate >= 1 else "a minute"
    rate = rate if rate >= 1 else 60 * rate
    return f"{rate:,.0f} {unit}" if rate >= 10 else f"{rate:.1f} {unit}"


def seconds(duration: float) -> str:
    """Write a duration for people: `12 us`, `3.2 ms`, `1.25 s`, `4 min 10 s`, `2 h 5 min`."""
    if 0 < duration < 0.0009995:
        return f"{duration * 1e6:.3g} us"
    if duration < 0.9995:
        return f"{duration * 1000:.3g} ms"
    if duration < 59.995:
        return f"{duration:.2f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
