"""Whether two workers share one long batch so that both are full all the time, to within a chunk.

    python -m benchmarks.scheduling [--size quick|normal|full]

Read from the results: each says on which worker its job ran, from when to when.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import Answer, median
from benchmarks.harness import Effort, main, redis_server, workers
from benchmarks.jobs import pause
from straggler import Producer, Result

WORKERS = 2
CONCURRENCY = 50
SLOTS = WORKERS * CONCURRENCY
NAP = 0.5

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


async def measure(effort: Effort) -> Answer:
    """Run the batch a few times."""
    rounds = effort.pick(3, 8, 30)
    count = rounds * SLOTS
    ideal = rounds * NAP
    took, fills, apart = [], [], []
    with redis_server() as url:
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await (await producer.submit(pause.map([NAP] * SLOTS))).results()
            for _ in range(effort.runs):
                started = time.perf_counter()
                batch = await producer.submit(pause.map([NAP] * count))
                results = await batch.results()
                took.append(time.perf_counter() - started)
                fill, difference = shares(results)
                fills.append(fill)
                apart.append(difference)
    # A chunk's jobs run beside one another, so the time of a chunk is that of one job.
    figures = {"filled": median(fills), "apart s": median(apart), "over ideal in chunks": (median(took) - ideal) / NAP}
    rows = [
        {"": "the ideal, s", "median": f"{ideal:.2f}"},
        {"": "submit to last result, s", "median": f"{median(took):.2f}"},
        {"": "of the ideal", "median": f"{ideal / median(took):.1%}"},
        {"": "slots filled while jobs were left, emptier worker", "median": f"{figures['filled']:.1%}"},
        {"": "between the workers' last ends, s", "median": f"{figures['apart s']:.3f}"},
        {"": "time over the ideal, in times of a chunk", "median": f"{figures['over ideal in chunks']:.2f}"},
    ]
    settings = {"jobs": count, "of s": NAP, "workers": WORKERS, "concurrency": CONCURRENCY}
    settings["runs"] = effort.runs
    return Answer("One long batch on two workers", settings, rows, figures)


if __name__ == "__main__":
    main(measure)
