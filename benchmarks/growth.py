"""What grows with a batch, from 1,000 to 1,000,000 jobs: the time a job, the producer's memory, a worker's memory.

    python -m benchmarks.growth [--size quick|normal|full]

Each batch has a producer process of its own: an iterable goes in, `as_completed` comes out, nothing is kept. What a
worker's processes keep over many batches, and of rough jobs, `benchmarks/soak.py` finds.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from benchmarks.figures import Answer, median
from benchmarks.harness import Effort, in_own_process, main, peak, redis_server, resident, workers
from benchmarks.jobs import noop
from benchmarks.soak import processes
from benchmarks.throughput import CONCURRENCY, WORKERS
from straggler import Producer

WARM_UP = 50_000


async def produce(url: str, count: int) -> dict[str, float]:
    """Run one batch; returns how long it took, s, and how much this process grew meanwhile, MiB."""
    async with Producer(url) as producer:
        before = resident(os.getpid())
        started = time.perf_counter()
        batch = await producer.submit(noop.spec(number) for number in range(count))
        total = 0
        async for result in batch.as_completed():
            total += result.unwrap()
        took = time.perf_counter() - started
        await batch.delete()  # the next one finds as much memory in Redis
    assert total == count * (count - 1) // 2
    return {"s": took, "MiB": peak(os.getpid()) - before}


async def worker_memory(producer: Producer) -> float:
    """Tell how much memory the larger of the worker processes takes, MiB."""
    found = [await processes(producer, worker_id) for worker_id in await producer.workers()]
    return max(resident(pids["worker"]) for pids in found)


async def measure(effort: Effort) -> Answer:
    """Measure each size, the small ones more often."""
    sizes = {1_000: effort.runs, 10_000: effort.runs, 100_000: effort.pick(0, 3, 5), 1_000_000: effort.pick(0, 1, 5)}
    rows: list[dict[str, Any]] = []
    points: dict[str, list[list[float]]] = {"µs a job": [], "producer MiB": [], "worker MiB": []}
    with redis_server() as url:
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await in_own_process("benchmarks.growth", "--produce", url, str(WARM_UP))
            start = await worker_memory(producer)
            for size, runs in sizes.items():
                if runs:
                    found = [await _one(url, size) for _ in range(runs)]
                    measured = {
                        "µs a job": median([one["s"] for one in found]) / size * 1e6,
                        "producer MiB": max(one["MiB"] for one in found),
                        "worker MiB": await worker_memory(producer) - start,
                    }
                    rows.append(_row(size, runs, measured))
                    for name, value in measured.items():
                        points[name].append([size, value])
    times = {int(size): value for size, value in points["µs a job"]}
    figures = {
        "largest": float(max(times)),
        "time ratio": times[max(times)] / times[10_000],
        "producer MiB": max(value for _, value in points["producer MiB"]),
        "worker MiB": max(value for _, value in points["worker MiB"]),
    }
    settings = {"workers": WORKERS, "concurrency": CONCURRENCY, "warm-up": f"{WARM_UP:,}"}
    notes = [
        "The producer's growth is its peak over its start; a worker's is since the warm-up, over all sizes so far."
    ]
    return Answer("Growth with the size of a batch (medians)", settings, rows, figures, points, notes)


async def _one(url: str, size: int) -> dict[str, float]:
    found: dict[str, float] = await in_own_process("benchmarks.growth", "--produce", url, str(size))
    await asyncio.sleep(1.2)  # the batch's keys are gone then
    return found


def _row(size: int, runs: int, measured: dict[str, float]) -> dict[str, Any]:
    return {
        "no-op jobs": f"{size:,}",
        "runs": runs,
        "µs a job": f"{measured['µs a job']:.1f}",
        "producer grew by MiB": f"{measured['producer MiB']:.1f}",
        "a worker grew by MiB": f"{measured['worker MiB']:+.1f}",
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--produce"]:
        import json

        print(json.dumps(asyncio.run(produce(sys.argv[2], int(sys.argv[3])))))
    else:
        main(measure)
