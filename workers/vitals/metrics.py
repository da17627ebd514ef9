"""What a worker process counts, for its supervisor to serve: jobs, their times, leases, how full it is.

Counted in plain numbers each time that a group of results has been written, so it costs a job a fraction of a
microsecond, and nothing where nobody asks for it. Twice a second all of it is written to a file; what a killed process
counted in its last half second is not told.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import sub
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from protocol.clock import RedisClock
from workers.recorder import Group

BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)  # fmt: skip
"""Upper bounds of the histograms' buckets, s."""

_INTERVAL = 0.5
# What is asked of a row, and where it stands (see `workers.ending.rows`): read so, a long value costs nothing.
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_ROW = re.compile(
    rb'\{"index":\d+,"status":"\w+"(?:,"attempt":\d+)?(?:,"function":(%b))?(?:,"key":%b)?'
    rb'(?:,"started_at":([0-9.eE+-]+))?,"finished_at":([0-9.eE+-]+)' % (_TEXT, _TEXT)
)


class Times(BaseModel):
    """A histogram: how many lie in each bucket, the last one without a bound, and their sum, s."""

    counts: list[int] = [0] * (len(BUCKETS) + 1)
    total: float = 0.0

    def add(self, times: list[float]) -> None:
        """Count times, s; they are sorted in place."""
        times.sort()
        counts, seen, bucket = self.counts, 0, 0
        while seen < len(times):
            bucket = bisect_left(BUCKETS, times[seen], bucket)
            stop = bisect_right(times, BUCKETS[bucket], seen) if bucket < len(BUCKETS) else len(times)
            counts[bucket] += stop - seen
            seen = stop
        self.total += sum(times)

    def merge(self, other: Times) -> None:
        """Add what another has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class Counts(BaseModel):
    """All that a process has counted since its start, how it is now, and of which batches it holds chunks."""

    jobs: dict[str, dict[str, int]] = {}
    run: dict[str, Times] = {}
    wait: dict[str, Times] = {}
    leases_renewed: int = 0
    leases_lost: int = 0
    redis_retries: int = 0
    now: dict[str, float] = {}
    batches: list[str] = []

    def count(self, function: str, statuses: Mapping[str, int]) -> None:
        """Count results of a function."""
        found = self.jobs.setdefault(function, {})
        for status, number in statuses.items():
            found[status] = found.get(status, 0) + number

    def merge(self, other: Counts) -> None:
        """Add what another process has counted; how it is now is left out."""
        for function, statuses in other.jobs.items():
            self.count(function, statuses)
        for ours, theirs in ((self.run, other.run), (self.wait, other.wait)):
            for function, times in theirs.items():
                ours.setdefault(function, Times()).merge(times)
        self.leases_renewed += other.leases_renewed
        self.leases_lost += other.leases_lost
        self.redis_retries += other.redis_retries


class Metrics:
    """Count for one process, and write it down.

    Args:
        folder: Where: a file of this process's own.
        clock: Redis' clock.
        observe: Brings `Counts` up to date with what others count.
    """

    def __init__(self, folder: Path, clock: RedisClock, observe: Callable[[Counts], None]) -> None:
        self.counts = Counts()
        self._path = folder / f"{os.getpid()}.json"
        self._clock = clock
        self._observe = observe
        self._task: asyncio.Task[None] | None = None
        # Held as long as this process lives, however it ends.
        self._life = (folder / f"{os.getpid()}.alive").open("w")
        fcntl.flock(self._life, fcntl.LOCK_EX)

    def start(self) -> None:
        """Start to write."""
        self._task = asyncio.create_task(self._write_for_ever(), name="straggler-metrics")

    async def stop(self) -> None:
        """Write what has been counted last."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.write()
        self._life.close()

    def count(self, groups: Sequence[Group]) -> None:
        """Count results that have been written."""
        for group in groups:
            common = from_json(group.common)
            if len(group.rows[0]) == 3:
                self._count_rows(common, group.rows)
            else:
                self._count_successes(common, group.rows)

    def write(self) -> None:
        """Write down what has been counted; a full disk is nobody's business here."""
        self._observe(self.counts)
        fresh = self._path.with_suffix(".new")
        with suppress(OSError):
            fresh.write_text(self.counts.model_dump_json())
            fresh.replace(self._path)

    def _count_successes(self, common: dict[str, Any], rows: Sequence[Any]) -> None:
        ahead = self._clock.at(0.0) - common["enqueued_at"]
        # No step of Python's for each job: this is half of what counting costs.
        _, _, _, started, ended = zip(*rows, strict=True)
        run, wait = list(map(sub, ended, started)), list(map(ahead.__add__, started))
        self._add(common["function"], {"success": len(rows)}, run, wait)

    def _count_rows(self, common: dict[str, Any], rows: Sequence[Any]) -> None:
        usual: str = common["function"]
        found: defaultdict[str, tuple[list[str], list[float], list[float]]] = defaultdict(lambda: ([], [], []))
        for _, status, text in rows:
            match = _ROW.match(text)
            # Nobody writes a row that does not match; it would count by its status alone.
            function, started, finished = match.groups() if match else (None, None, None)
            statuses, run, wait = found[usual if function is None else from_json(function)]
            statuses.append(status)
            if started is not None and finished is not None:
                began = float(started)
                run.append(float(finished) - began)
                wait.append(began - common["enqueued_at"])
        for function, (statuses, run, wait) in found.items():
            self._add(function, Counter(statuses), run, wait)

    def _add(self, function: str, statuses: Mapping[str, int], run: list[float], wait: list[float]) -> None:
        counts = self.counts
        counts.count(function, statuses)
        for found, times in ((counts.run, run), (counts.wait, wait)):
            if function not in found:
                found[function] = Times()
            found[function].add(times)

    async def _write_for_ever(self) -> None:
        while True:
            self.write()
            await asyncio.sleep(_INTERVAL)
