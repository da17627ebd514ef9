"""No-op jobs from the first submit to the last result in hand, beside `asyncio.gather` over `wait_for`; submit alone.

    python -m benchmarks.throughput [--size quick|normal|full]

Both sides run in turn; the ratio is the median of the pairs'. gather has a process of its own, as a script would be.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.figures import Answer, median, median_ratio
from benchmarks.harness import Effort, in_own_process, main, redis_server, workers
from benchmarks.jobs import noop
from straggler import Producer

WORKERS = 2
# With 32 slots no-op jobs went at 0.7 of the speed, with 128 and 256 at the same.
CONCURRENCY = 64
WARM_UP = 20_000


async def end_to_end(producer: Producer, count: int) -> float:
    """Run a batch and forget it; returns how long it took to its last result, s."""
    took = await run_batch(producer, count)
    await forget(producer)
    return took


async def run_batch(producer: Producer, count: int) -> float:
    """Submit a batch and take its results as they come; returns how long it took, s."""
    started = time.perf_counter()
    batch = await producer.submit(noop.map(range(count)))
    number = total = 0
    async for result in batch.as_completed():
        total += result.unwrap()
        number += 1
    took = time.perf_counter() - started
    assert (number, total) == (count, count * (count - 1) // 2)
    return took


async def submit_alone(producer: Producer, count: int) -> float:
    """Submit a batch with no worker there; returns how long it took, s."""
    started = time.perf_counter()
    await producer.submit(noop.map(range(count)))
    took = time.perf_counter() - started
    await forget(producer)
    return took


async def forget(producer: Producer) -> None:
    """Let the next run find Redis as this one did, but for the workers, and its freed memory not in its way."""
    for key in await producer.redis.keys("*batch:*"):
        await producer.redis.unlink(key)
    await asyncio.sleep(0.2)


async def beside_gather(producer: Producer, count: int, runs: int) -> tuple[list[float], list[float]]:
    """Measure both sides in turn; returns the times of gather and ours."""
    gathers, ours = [], []
    for _ in range(runs):
        gathers.append(float(await in_own_process("benchmarks.naive", str(count))))
        ours.append(await end_to_end(producer, count))
    return gathers, ours


async def measure(effort: Effort) -> Answer:
    """Measure all sizes."""
    sizes = effort.pick([2_000], [10_000, 100_000], [10_000, 100_000])
    rows: list[dict[str, Any]] = []
    with redis_server() as url:
        async with Producer(url) as producer:
            await submit_alone(producer, WARM_UP)
            alone = {size: [await submit_alone(producer, size) for _ in range(effort.runs)] for size in sizes}
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await end_to_end(producer, WARM_UP)
            for size in sizes:
                gathers, ours = await beside_gather(producer, size, effort.runs)
                figures = {
                    "ratio to gather": median_ratio(gathers, ours),
                    "jobs/s": size / median(ours),
                    "gather jobs/s": size / median(gathers),
                    "submit jobs/s": size / median(alone[size]),
                    "submit ratio": median(ours) / median(alone[size]),
                }
                rows.append(_row(size, figures))
    settings = {"workers": WORKERS, "concurrency": CONCURRENCY, "runs": effort.runs, "jobs": sizes[-1]}
    notes = ["`submit` alone is measured while no worker runs: it is what the producer can do."]
    return Answer("No-op jobs, first submit to last result in hand (medians)", settings, rows, figures, notes=notes)


def _row(size: int, figures: dict[str, float]) -> dict[str, Any]:
    return {
        "no-op jobs": f"{size:,}",
        "`gather(wait_for)` jobs/s": f"{figures['gather jobs/s']:,.0f}",
        "straggler jobs/s": f"{figures['jobs/s']:,.0f}",
        "ratio": f"{figures['ratio to gather']:.2f}",
        "`submit` alone jobs/s": f"{figures['submit jobs/s']:,.0f}",
        "over end to end": f"{figures['submit ratio']:.1f}",
    }


if __name__ == "__main__":
    main(measure)
