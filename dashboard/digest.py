"""What is known of a batch from its results: counted as they are read, so that every page is drawn from memory.

A digest grows with the kinds of endings, functions and workers, each of which is capped, and by some 20 bytes a
result (`dashboard.index`), capped too. Values, keys and arguments stay in Redis.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from heapq import heappush, heapreplace
from typing import Any

from dashboard.fingerprints import Fingerprint, fingerprint
from dashboard.index import Index
from dashboard.lanes import Lanes
from producer.pictures.durations import Durations, Histogram
from producer.pictures.taskstream import CODES
from protocol.batches import STATUSES
from protocol.facts import Facts, Successes
from protocol.results import FailureResult, Result

# Kinds of endings beyond this many are told by their error's type alone, beyond twice as many by their status.
_MOST_GROUPS = 200
_MOST_FUNCTIONS = 50
_SLOWEST = 10


@dataclass(slots=True)
class Group:
    """Results that ended the same way, and one of them as a sample.

    Args:
        fingerprint: What they have in common.
        sample: The first of them.
    """

    fingerprint: Fingerprint
    sample: Result[Any]
    count: int = 0
    rows: array[int] = field(default_factory=lambda: array("I"))

    @property
    def traceback(self) -> str:
        """The sample's traceback, if it has one."""
        return self.sample.traceback if isinstance(self.sample, FailureResult) else ""


class Digest:
    """Count results as they come.

    Args:
        origin: When the batch was created, Unix s.
        index: Where it remembers which result stands where.
    """

    def __init__(self, origin: float, index: Index | None = None) -> None:
        self.index = index if index is not None else Index()
        self.lanes = Lanes(origin)
        self.waits = Histogram()
        self.counts: Counter[str] = Counter()
        self.rows_of = {status: array("I") for status in STATUSES}
        self.runs = Histogram()
        self._runs_of: dict[str, Durations] = {}
        self._groups: dict[Fingerprint, Group] = {}
        self._slowest: list[tuple[float, int]] = []

    def add_entry(self, entry: str, facts: Facts) -> None:
        """Count the results of one entry of the stream, whose id this is."""
        self.index.begin_entry(entry)
        for successes in facts.successes:
            self._add_successes(successes)
        for offset, result in facts.others:
            self._add(offset, result)

    @property
    def count(self) -> int:
        """How many results were counted."""
        return self.counts.total()

    def groups(self, *statuses: str) -> list[Group]:
        """Return the ways in which results of these statuses ended, most frequent first; none named: all of them."""
        found = [group for group in self._groups.values() if group.fingerprint.status in (statuses or STATUSES)]
        return sorted(found, key=lambda group: -group.count)

    def group(self, group_id: str) -> Group | None:
        """Find a group by its fingerprint's id."""
        return next((group for group in self._groups.values() if group.fingerprint.id == group_id), None)

    def runs_of(self, function: str) -> Durations:
        """Return how long a function's jobs ran; those of rare functions are told together, where there are many."""
        return self._runs_of.get(function) or self._runs_of.get("") or Durations()

    def slowest(self) -> list[int]:
        """Return the rows of the longest runs, the longest first."""
        return [row for _, row in sorted(self._slowest, reverse=True)]

    def _add_successes(self, successes: Successes) -> None:
        columns, offsets, keys = successes
        started, took = columns.started, columns.took
        self.counts["success"] += len(took)
        rows = self.index.extend(offsets, columns.indexes, keys, succeeded=True)
        self.rows_of["success"].extend(rows)
        if columns.enqueued_at is not None:
            waited = round(columns.enqueued_at * 1e6) - columns.at
            self.waits.add_all(Durations.of([(start - waited) / 1e6 for start in started]), "success")
        runs = Durations.of([duration / 1e6 for duration in took])
        self.runs.add_all(runs, "success")
        self._runs_of_function(columns.function).add_all(runs)
        self.lanes.add_all(columns.worker or "", columns.at / 1e6, started, took, CODES["success"])
        if len(self._slowest) < _SLOWEST or max(took) / 1e6 > self._slowest[0][0]:
            for row, duration in zip(rows, took, strict=False):
                self._note_slow(duration / 1e6, row)

    def _add(self, offset: int, result: Result[Any]) -> None:
        self.counts[result.status] += 1
        rows = self.index.extend((offset,), (result.index,), (result.key,), succeeded=False)
        self._add_to_group(result, rows)
        self.rows_of[result.status].extend(rows)
        if result.started_at is not None:
            self._add_times(result, result.started_at, rows)

    def _add_times(self, result: Result[Any], started_at: float, rows: range) -> None:
        if result.enqueued_at is not None:
            self.waits.add(started_at - result.enqueued_at, result.status)
        if result.finished_at is None:
            return
        duration = max(0.0, result.finished_at - started_at)
        self.runs.add(duration, result.status)
        self._runs_of_function(result.function).add(duration)
        self.lanes.add(result.worker or "", started_at, result.finished_at, CODES[result.status])
        for row in rows:
            self._note_slow(duration, row)

    def _note_slow(self, duration: float, row: int) -> None:
        if len(self._slowest) < _SLOWEST:
            heappush(self._slowest, (duration, row))
        elif duration > self._slowest[0][0]:
            heapreplace(self._slowest, (duration, row))

    def _runs_of_function(self, function: str) -> Durations:
        found = self._runs_of.get(function)
        if found is None:
            name = function if len(self._runs_of) < _MOST_FUNCTIONS else ""
            found = self._runs_of.setdefault(name, Durations())
        return found

    def _add_to_group(self, result: Result[Any], rows: range) -> None:
        mark = fingerprint(result)
        if mark not in self._groups and len(self._groups) >= _MOST_GROUPS:
            mark = mark._replace(pattern="(various messages)")
            if mark not in self._groups and len(self._groups) >= 2 * _MOST_GROUPS:
                mark = Fingerprint(mark.status, "(various)")
        group = self._groups.get(mark)
        if group is None:
            group = self._groups[mark] = Group(mark, result)
        group.count += 1
        group.rows.extend(rows)
