"""No-op jobs from submit to the last result in hand, beside `asyncio.gather` over `wait_for`; and lone jobs.

    python benchmarks/throughput.py [--jobs 10000 100000] [--runs 5] [--workers 2] [--concurrency 256]

Both sides run in turn, so that a machine whose speed drifts favours neither; the ratio is that of each pair.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.harness import HERE, median, percentile, redis_server, report, workers
from benchmarks.jobs import noop
from straggler import Producer

LONE_JOBS = 500


async def by_gather(count: int) -> float:
    """Run no-ops as people do today, in one process."""
    started = time.perf_counter()
    results = await asyncio.gather(*(asyncio.wait_for(noop(number), 300) for number in range(count)))
    took = time.perf_counter() - started
    assert results == list(range(count))
    return took


async def by_straggler(producer: Producer, count: int) -> tuple[float, float]:
    """Submit a batch and take its results as they come; returns the time in all, and that of submit alone."""
    started = time.perf_counter()
    batch = await producer.submit(noop.map(range(count)))
    submitted = time.perf_counter() - started
    total = 0
    number = 0
    async for result in batch.as_completed():
        total += result.unwrap()
        number += 1
    took = time.perf_counter() - started
    assert (number, total) == (count, count * (count - 1) // 2)
    await producer.redis.flushdb()
    await asyncio.sleep(0.2)
    return took, submitted


async def throughput(producer: Producer, count: int, runs: int) -> dict[str, Any]:
    """Measure both sides in turn."""
    await by_straggler(producer, count)
    await by_gather(count)
    ours, gathers, submits = [], [], []
    for _ in range(runs):
        gathers.append(await by_gather(count))
        took, submitted = await by_straggler(producer, count)
        ours.append(took)
        submits.append(submitted)
    return {
        "no-op jobs": f"{count:,}",
        "gather(wait_for) jobs/s": f"{count / median(gathers):,.0f}",
        "straggler jobs/s": f"{count / median(ours):,.0f}",
        "ratio": f"{median([theirs / mine for theirs, mine in zip(gathers, ours, strict=True)]):.2f}",
        "submit alone jobs/s": f"{count / median(submits):,.0f}",
    }


async def bare_round_trips(producer: Producer, count: int) -> list[float]:
    """Time a bare push and blocking pop between two connections of one process."""
    redis, took = producer.redis, []
    for _ in range(count):
        started = time.perf_counter()
        popping = asyncio.ensure_future(redis.blpop(["bare"], timeout=5))  # type: ignore[arg-type]
        await redis.lpush("bare", 1)  # type: ignore[misc]
        await popping
        took.append(time.perf_counter() - started)
    return took


async def lone_jobs(producer: Producer, count: int) -> list[float]:
    """Time single jobs from submit to result, the workers idle."""
    took = []
    for number in range(count):
        started = time.perf_counter()
        batch = await producer.submit([noop.spec(number)])
        async for result in batch.as_completed():
            assert result.unwrap() == number
        took.append(time.perf_counter() - started)
        await asyncio.sleep(0.002)
    return took


async def measure(args: argparse.Namespace) -> None:
    settings = {"workers": args.workers, "concurrency": args.concurrency, "runs": args.runs}
    with redis_server() as url:
        async with workers(url, HERE / "jobs.py", args.workers, args.concurrency), Producer(url) as producer:
            rows = [await throughput(producer, count, args.runs) for count in args.jobs]
            report("No-op jobs, submit to last result in hand (medians)", settings, rows)
            await lone_jobs(producer, 50)
            rows = []
            for name, took in (
                ("bare push and blocking pop", await bare_round_trips(producer, LONE_JOBS)),
                ("one job, submit to result", await lone_jobs(producer, LONE_JOBS)),
            ):
                p50, p99 = (f"{percentile(took, share) * 1000:.2f}" for share in (0.50, 0.99))
                rows.append({"": name, "p50 ms": p50, "p99 ms": p99})
            report(f"A lone job's way, {LONE_JOBS} times", settings, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=256)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
