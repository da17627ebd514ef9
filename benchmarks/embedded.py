"""The embedded mode, all of it in one process without Redis, beside `asyncio.gather` over `wait_for`.

python -m benchmarks.embedded [--size quick|normal|full]
"""

from __future__ import annotations

import time

from benchmarks.figures import Answer, median, median_ratio
from benchmarks.harness import Effort, in_own_process, main
from benchmarks.jobs import noop
from straggler import embedded


async def by_straggler(count: int) -> float:
    """Run no-op jobs in this process; returns the time from submit to the last result, s."""
    async with embedded() as producer:
        await (await producer.submit(noop.map(range(100)))).results()
        started = time.perf_counter()
        batch = await producer.submit(noop.map(range(count)))
        total = sum([result.unwrap() async for result in batch.as_completed()])
        took = time.perf_counter() - started
    assert total == count * (count - 1) // 2
    return took


async def measure(effort: Effort) -> Answer:
    """Measure both in turn."""
    count = effort.pick(1_000, 10_000, 10_000)
    await by_straggler(1000)
    gathers, ours = [], []
    for _ in range(effort.runs):
        gathers.append(float(await in_own_process("benchmarks.naive", str(count))))
        ours.append(await by_straggler(count))
    figures = {"ratio to gather": median_ratio(gathers, ours), "jobs/s": count / median(ours)}
    rows = [
        {"": "`gather(wait_for)`", "jobs/s": f"{count / median(gathers):,.0f}", "ratio": "1"},
        {"": "embedded", "jobs/s": f"{figures['jobs/s']:,.0f}", "ratio": f"{figures['ratio to gather']:.2f}"},
    ]
    settings = {"no-op jobs": f"{count:,}", "runs": effort.runs}
    return Answer("Embedded: no Redis, one process (medians)", settings, rows, figures)


if __name__ == "__main__":
    main(measure)
