"""Whether two workers share one long batch so that both are full all the time, and end within a job of the ideal.

    python -m benchmarks.scheduling [--size quick|normal|full]

Read from the results: each says on which worker its job ran, from when to when. Once with jobs of 1 s, once with jobs
of 0.1 to 1.9 s in random order. The ideal is one queue without a cost: a job starts in the first slot that is free.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any

from benchmarks.figures import Answer, median
from benchmarks.harness import Effort, main, redis_server, workers
from benchmarks.jobs import pause
from straggler import Producer, Result

WORKERS = 2
CONCURRENCY = 50
SLOTS = WORKERS * CONCURRENCY
NAP = 1.0

Span = tuple[float, float]


def spans(results: Sequence[Result[Any]]) -> dict[str, list[Span]]:
    """Sort jobs' starts and ends by worker."""
    found: dict[str, list[Span]] = defaultdict(list)
    for result in results:
        assert result.status == "success"
        assert result.worker
        assert result.started_at
        assert result.finished_at
        found[result.worker].append((result.started_at, result.finished_at))
    return found


def filled(jobs: Sequence[Span], start: float, end: float, slots: int) -> float:
    """Tell which share of a worker's slots had a job, on average between two times."""
    busy = sum(max(0.0, min(stop, end) - max(begin, start)) for begin, stop in jobs)
    return busy / (slots * (end - start))


def shares(results: Sequence[Result[Any]]) -> tuple[float, float]:
    """Tell how full the emptier worker was while jobs were left to start, and how far apart the workers ended, s.

    The first round of jobs starts as the batch arrives, so what counts begins with its last start.
    """
    by_worker = spans(results)
    assert len(by_worker) == WORKERS
    starts = sorted(begin for jobs in by_worker.values() for begin, _ in jobs)
    start, end = starts[SLOTS - 1], starts[-1]
    ends = [max(stop for _, stop in jobs) for jobs in by_worker.values()]
    return min(filled(jobs, start, end, CONCURRENCY) for jobs in by_worker.values()), max(ends) - min(ends)


def ideal(naps: Sequence[float]) -> float:
    """Tell how long a batch takes where each job starts in the first slot that is free, s."""
    free_at = [0.0] * SLOTS
    for nap in naps:
        heapq.heapreplace(free_at, free_at[0] + nap)
    return max(free_at)


async def run(producer: Producer, naps: Sequence[float]) -> tuple[float, float, float]:
    """Run a batch; returns how long it took, and what `shares` tells of it."""
    started = time.perf_counter()
    batch = await producer.submit(pause.map(naps))
    results = await batch.results()
    return (time.perf_counter() - started, *shares(results))


async def measure(effort: Effort) -> Answer:
    """Run both batches a few times, in turn."""
    count = effort.pick(2, 3, 10) * SLOTS
    chance = Random(6)
    batches = {f"{NAP:g} s each": [NAP] * count, "0.1 to 1.9 s": [chance.uniform(0.1, 1.9) for _ in range(count)]}
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in batches}
    with redis_server() as url:
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await (await producer.submit(pause.map([0.1] * SLOTS))).results()
            for _ in range(effort.runs):
                for name, naps in batches.items():
                    found[name].append(await run(producer, naps))
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for name, naps in batches.items():
        took, fill, apart = (median(column) for column in zip(*found[name], strict=True))
        over = (took - ideal(naps)) / NAP
        rows.append(
            {
                "jobs of": name,
                "the ideal, s": f"{ideal(naps):.2f}",
                "submit to last result, s": f"{took:.2f}",
                "slots filled while jobs were left, emptier worker": f"{fill:.1%}",
                "between the workers' last ends, s": f"{apart:.3f}",
                "time over the ideal, in jobs": f"{over:.3f}",
            }
        )
        # The first row's are the goals': of slow jobs a chunk is one.
        figures = figures or {"filled": fill, "apart s": apart, "over ideal in chunks": over}
    settings = {"jobs": count, "workers": WORKERS, "concurrency": CONCURRENCY, "runs": effort.runs}
    return Answer("One long batch on two workers (medians)", settings, rows, figures)


if __name__ == "__main__":
    main(measure)
