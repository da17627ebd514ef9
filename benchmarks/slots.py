"""How well slots are filled: 10,000 jobs of 20 ms on 200 slots, beside the ideal and what asyncio alone makes of it.

    python -m benchmarks.slots [--size quick|normal|full]

The ideal is jobs x 20 ms / slots: no slot is ever without a job.
"""

from __future__ import annotations

import asyncio
import time

from benchmarks.figures import Answer, median
from benchmarks.harness import Effort, in_own_process, main, redis_server, workers
from benchmarks.jobs import pause
from benchmarks.naps import NAP
from straggler import Producer

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


async def by_asyncio(way: str, count: int) -> float:
    """Run the same by asyncio alone, in as many processes; returns how long the slower one took, s."""
    words = (way, str(count // WORKERS), str(CONCURRENCY))
    took: list[float] = await asyncio.gather(*(in_own_process("benchmarks.naps", *words) for _ in range(WORKERS)))
    return max(took)


async def measure(effort: Effort) -> Answer:
    """Measure both in turn."""
    count = effort.pick(1_000, 10_000, 10_000)
    ideal = count * NAP / SLOTS
    with redis_server() as url:
        async with workers(url, WORKERS, CONCURRENCY), Producer(url) as producer:
            await by_straggler(producer, 1000)
            ours, plain, bare = [], [], []
            for _ in range(effort.runs):
                ours.append(await by_straggler(producer, count))
                plain.append(await by_asyncio("semaphore", count))
                bare.append(await by_asyncio("loop", count))
    rows = [
        {"": name, "s": f"{took:.3f}", "of the ideal": f"{ideal / took:.1%}"}
        for name, took in (
            ("the ideal", ideal),
            (f"straggler, {WORKERS} workers of {CONCURRENCY} slots", median(ours)),
            (f"`gather`, `wait_for`, a semaphore of {CONCURRENCY}; in each of {WORKERS} processes", median(plain)),
            (f"{CONCURRENCY} tasks in which `asyncio.sleep` follows `asyncio.sleep`; likewise", median(bare)),
        )
    ]
    figures = {
        "share of ideal": ideal / median(ours),
        "share of ideal, semaphore": ideal / median(plain),
        "share of ideal, bare asyncio": ideal / median(bare),
    }
    settings = {"jobs": f"{count:,}", "of ms": round(NAP * 1000), "slots": SLOTS, "runs": effort.runs}
    return Answer("Jobs that wait, on 200 slots (medians)", settings, rows, figures)


if __name__ == "__main__":
    main(measure)
