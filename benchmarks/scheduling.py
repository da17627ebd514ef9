"""Whether two workers share one long batch so that both are full all the time, and end within a job of the ideal.

    python -m benchmarks.scheduling [--size quick|normal|full]

Read from the results: each says on which worker its job ran, from when to when. With jobs of 1 s, with jobs of 0.1 to
1.9 s in random order, with plain functions of 0.3 s, which run in two processes of each worker, and with short jobs
before long ones. The ideal is one queue without a cost: a job starts in the first slot that is free.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from benchmarks.figures import Answer, median
from benchmarks.harness import Effort, main, redis_server, workers
from benchmarks.jobs import pause, plain_pause
from straggler import Producer, Result

WORKERS = 2
CONCURRENCY = 50
SLOTS = WORKERS * CONCURRENCY
PROCESSES = 2
NAP = 1.0

Span = tuple[float, float]


class Kind(NamedTuple):
    """A batch to be run.

    Args:
        naps: How long its jobs take, s.
        function: Their function.
        slots: How many of them a worker can run at a time.
    """

    naps: Sequence[float]
    function: Any = pause
    slots: int = CONCURRENCY


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


def shares(results: Sequence[Result[Any]], slots: int = CONCURRENCY) -> tuple[float, float]:
    """Tell how full the emptier worker was while jobs were left to start, and how far apart the workers ended, s.

    The first round of jobs starts as the batch arrives, so what counts begins with its last start.
    """
    by_worker = spans(results)
    assert len(by_worker) == WORKERS
    starts = sorted(begin for jobs in by_worker.values() for begin, _ in jobs)
    start, end = starts[WORKERS * slots - 1], starts[-1]
    ends = [max(stop for _, stop in jobs) for jobs in by_worker.values()]
    return min(filled(jobs, start, end, slots) for jobs in by_worker.values()), max(ends) - min(ends)


def ideal(kind: Kind) -> float:
    """Tell how long a batch takes where each job starts in the first slot that is free, s."""
    free_at = [0.0] * (WORKERS * kind.slots)
    for nap in kind.naps:
        heapq.heapreplace(free_at, free_at[0] + nap)
    return max(free_at)


async def run(producer: Producer, kind: Kind) -> tuple[float, float, float]:
    """Run a batch; returns how long it took, and what `shares` tells of it."""
    started = time.perf_counter()
    batch = await producer.submit(kind.function.map(kind.naps))
    results = await batch.results()
    return (time.perf_counter() - started, *shares(results, kind.slots))


async def measure(effort: Effort) -> Answer:
    """Run all batches a few times, in turn."""
    count = effort.pick(2, 3, 10) * SLOTS
    chance = Random(6)
    batches = {
        f"{NAP:g} s each": Kind([NAP] * count),
        "0.1 to 1.9 s": Kind([chance.uniform(0.1, 1.9) for _ in range(count)]),
        "plain functions of 0.3 s": Kind([0.3] * effort.pick(12, 24, 80), plain_pause, PROCESSES),
        "3,000 of no time, then 1 s each": Kind([0.0] * 3000 + [NAP] * count),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in batches}
    with redis_server() as url:
        settings = {"STRAGGLER_JOB_PROCESSES": str(PROCESSES)}
        async with workers(url, WORKERS, CONCURRENCY, **settings), Producer(url) as producer:
            await (await producer.submit(pause.map([0.1] * SLOTS))).results()
            await (await producer.submit(plain_pause.map([0.1] * 8 * PROCESSES))).results()
            for _ in range(effort.runs):
                for name, kind in batches.items():
                    found[name].append(await run(producer, kind))
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for name, kind in batches.items():
        took, fill, apart = (median(column) for column in zip(*found[name], strict=True))
        over = (took - ideal(kind)) / max(kind.naps)
        rows.append(
            {
                "jobs of": name,
                "the ideal, s": f"{ideal(kind):.2f}",
                "submit to last result, s": f"{took:.2f}",
                "slots filled while jobs were left, emptier worker": f"{fill:.1%}",
                "between the workers' last ends, s": f"{apart:.3f}",
                "time over the ideal, in jobs": f"{over:.3f}",
            }
        )
        # The first row's are the goals': of slow jobs a chunk is one.
        figures = figures or {"filled": fill, "apart s": apart, "over ideal in chunks": over}
    about = {"jobs": count, "workers": WORKERS, "concurrency": CONCURRENCY, "processes": PROCESSES, "runs": effort.runs}
    return Answer("One long batch on two workers (medians)", about, rows, figures)


if __name__ == "__main__":
    main(measure)
