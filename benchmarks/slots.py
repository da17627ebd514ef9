"""How well slots are filled: 10,000 jobs of 20 ms on 200 slots, beside the ideal and a semaphore in one process.

    python -m benchmarks.slots [--size quick|normal|full]

The ideal is jobs x 20 ms / slots: no slot is ever without a job.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.figures import Answer, median
from benchmarks.harness import Effort, main, redis_server, workers
from benchmarks.jobs import pause
from straggler import Producer

NAP = 0.02
WORKERS = 2
CONCURRENCY = 100
SLOTS = WORKERS * CONCURRENCY


async def by_straggler(producer: Producer, count: int) -> float:
    """Run one batch; returns its time from submit to the last result, s."""
    started = time.perf_counter()
    batch = await producer.submit(pause.map([NAP] * count))
    done = sum([result.status == "success" async for result in batch.as_completed()])
    took = time.perf_counter() - started
    assert done == count
    return took


async def by_semaphore(count: int) -> float:
    """Run the same in this process, as many at a time."""
    slots = asyncio.Semaphore(SLOTS)

    async def one() -> None:
        async with slots:
            await asyncio.wait_for(asyncio.sleep(NAP), 300)

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return time.perf_counter() - started


async def measure(effort: Effort) -> Answer:
    """Measure both in turn."""
    count = effort.pick(1_000, 10_000, 10_000)
    ideal = count * NAP / SLOTS
    with redis_server() as url:
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await by_straggler(producer, 1000)
            ours, plain = [], []
            for _ in range(effort.runs):
                ours.append(await by_straggler(producer, count))
                plain.append(await by_semaphore(count))
    rows = [
        {"": name, "s": f"{took:.3f}", "of the ideal": f"{ideal / took:.1%}"}
        for name, took in (
            ("the ideal", ideal),
            (f"straggler, {WORKERS} workers of {CONCURRENCY} slots", median(ours)),
            (f"`gather`, `wait_for` and a semaphore of {SLOTS} in one process", median(plain)),
        )
    ]
    figures = {"share of ideal": ideal / median(ours), "share of ideal, semaphore": ideal / median(plain)}
    settings = {"jobs": f"{count:,}", "of ms": round(NAP * 1000), "slots": SLOTS, "runs": effort.runs}
    return Answer("Jobs that wait, on 200 slots (medians)", settings, rows, figures)


if __name__ == "__main__":
    main(measure)
