"""Run the zoo: all misbehaving jobs, several times each, in one batch with many ordinary ones; judge the results."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from straggler import JobSpec, Producer
from tests.commands import unmeasured
from tests.timeouts.rows import GRACE, LIMIT, ROWS, Row, outcome
from tests.timeouts.zoo import ordinary

ROOT = Path(__file__).parent.parent.parent
# Until all results are there, s.
LONGEST = 120.0
TIMES = 4
ORDINARY = 1000
# The promise: recorded at most this long after limit and grace, s.
BOUND = 0.25


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the runs of one row ended in.

    Args:
        row: The row.
        outcomes: How often each.
        over: Seconds over the limit until the result, the worst.
        beyond: Seconds beyond what is promised, the worst; at most 0 where the promise was kept.
    """

    row: Row
    outcomes: Counter[str]
    over: float
    beyond: float

    def is_right(self, margin: float = 0.0) -> bool:
        """Whether all is as it must be, with a margin of time, s."""
        return set(self.outcomes) <= self.row.allowed and self.beyond <= margin


def specs(rows: Iterable[Row], ordinary_ones: int, of_crashes: int = TIMES, seed: int = 3) -> list[JobSpec[Any]]:
    """Shuffle several of each row and the ordinary ones; of those that end their process, `of_crashes`."""
    made: list[JobSpec[Any]] = []
    for row in rows:
        # What is to end by itself may take its time; the others have the batch's timeout.
        own = row.job.spec(key=row.name) if row.status == "timeout" else row.job.spec(key=row.name, timeout=30)
        made += [own] * (of_crashes if row.needs else TIMES)
    made += [ordinary.spec(number, key="ordinary", timeout=30) for number in range(ordinary_ones)]
    random.Random(seed).shuffle(made)
    return made


async def run(producer: Producer, jobs: Sequence[JobSpec[Any]]) -> list[Any]:
    """Run the jobs; returns their results, of which there is exactly one each."""
    batch = await producer.submit(jobs, timeout=LIMIT, grace=GRACE, name="zoo")
    results: list[Any] = []
    try:
        async with asyncio.timeout(LONGEST):
            async for result in batch.as_completed():
                results.append(result)  # noqa: PERF401  # what has come is told if not all do
    except TimeoutError:
        missing = Counter(jobs[index].key for index in set(range(len(jobs))) - {result.index for result in results})
        raise AssertionError(f"no result after {LONGEST} s: {dict(missing)}") from None
    assert sorted(result.index for result in results) == list(range(len(jobs)))
    status = await batch.status()
    assert status.done == status.total == len(jobs)
    return results


def judge(results: Sequence[Any], rows: Iterable[Row]) -> list[Verdict]:
    """Compare the results of all rows with what they must be."""
    blockers = [result for result in results if result.key in ROWS and ROWS[result.key].blocks]
    return [_judge(row, [result for result in results if result.key == row.name], blockers) for row in rows]


def _judge(row: Row, results: Sequence[Any], blockers: Sequence[Any]) -> Verdict:
    over = max(result.duration or 0.0 for result in results) - LIMIT
    # What its neighbours have taken from it is known only if they were recorded, before their process ended.
    timed = [result for result in results if row.expected != "timeout killed" or not row.blocks]
    timed = [result for result in timed if result.status == "timeout"]
    beyond = max(((r.duration or 0.0) - LIMIT - GRACE - BOUND - stalls(r, blockers) for r in timed), default=0.0)
    return Verdict(row, Counter(map(outcome, results)), over, beyond)


def stalls(result: Any, blockers: Sequence[Any]) -> float:
    """Tell for how long others held the loop while this one ran, s: its clocks move by that."""
    total, seen = 0.0, result.started_at or 0.0
    for other in sorted(blockers, key=lambda other: other.started_at or 0.0):
        if other.worker == result.worker and other.index != result.index and other.started_at is not None:
            begin, end = max(seen, other.started_at), min(result.finished_at, other.finished_at)
            total += max(0.0, end - begin)
            seen = max(seen, end)
    return total


def bad_ones(results: Iterable[Any]) -> list[Any]:
    """Return the ordinary jobs' results that are not as they must be."""
    return [result for result in results if result.key == "ordinary" and result.status != "success"]


@contextlib.contextmanager
def workers(url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start two supervised worker processes, as users do; yields the supervisor."""
    words = [sys.executable, "-m", "straggler.cli", "worker", "--processes", "2", "--concurrency", "20"]
    words += ["--jobs", "tests.timeouts.zoo"]
    # Coverage would save its data in the middle of an `os._exit`.
    environment = {**unmeasured(), "STRAGGLER_REDIS_URL": url, "STRAGGLER_SHUTDOWN_WAIT": "1"}
    with log.open("w") as output, subprocess.Popen(words, cwd=ROOT, env=environment, stderr=output) as supervisor:
        try:
            yield supervisor
        finally:
            supervisor.terminate()
            supervisor.wait(timeout=60)  # whatever threads, tasks and children the jobs have left
