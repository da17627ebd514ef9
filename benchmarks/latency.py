"""One job, submit to result in hand, on an idle worker, beside a bare round trip between two asyncio processes.

    python -m benchmarks.latency [--size quick|normal|full]

The bare trip is the least that any queue on Redis can do: a push that another process takes by a blocking pop, and the
same way back. Both are measured in turn, a few at a time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.echo import PING, PONG
from benchmarks.figures import Answer, median, median_ratio, percentile
from benchmarks.harness import HERE, Effort, end, main, redis_server, start, workers
from benchmarks.jobs import noop
from straggler import Producer

CONCURRENCY = 100
WARM_UP = 50
# A pause before each, s, so that the worker is idle, and asleep in its blocking pop, when the job comes.
_PAUSE = 0.002


async def lone_job(producer: Producer) -> float:
    """Submit one job; returns the time until its result is in hand, s."""
    started = time.perf_counter()
    batch = await producer.submit([noop.spec(1)])
    took = 0.0
    async for result in batch.as_completed():
        took = time.perf_counter() - started
        assert result.unwrap() == 1
    return took


async def bare_trip(producer: Producer) -> float:
    """Push, and pop the answer; returns the time, s."""
    started = time.perf_counter()
    await producer.redis.lpush(PING, 1)  # type: ignore[misc]  # redis-py says it may be no awaitable
    assert await producer.redis.blpop([PONG], timeout=5)  # type: ignore[misc]  # as above
    return time.perf_counter() - started


async def several(one: Callable[[Producer], Awaitable[float]], producer: Producer, count: int) -> list[float]:
    """Measure one after the other, with pauses."""
    times = []
    for _ in range(count):
        await asyncio.sleep(_PAUSE)
        times.append(await one(producer))
    return times


async def measure(effort: Effort) -> Answer:
    """Measure both in turn."""
    count = effort.pick(20, 200, 500)
    with redis_server() as url:
        words = [sys.executable, "-m", "benchmarks.echo", url]
        echo = start(words, cwd=HERE.parent)
        try:
            async with workers(url, 1, CONCURRENCY), Producer(url) as producer:
                await several(bare_trip, producer, WARM_UP)
                await several(lone_job, producer, WARM_UP)
                rounds = [
                    (await several(bare_trip, producer, count), await several(lone_job, producer, count))
                    for _ in range(effort.runs)
                ]
        finally:
            echo.kill()
            end(echo)
    return _answer([bare for bare, _ in rounds], [ours for _, ours in rounds], effort)


def _answer(bare: list[list[float]], ours: list[list[float]], effort: Effort) -> Answer:
    rows = [
        {
            "": name,
            "p50 ms": f"{median([percentile(times, 0.50) for times in rounds]) * 1000:.2f}",
            "p99 ms": f"{median([percentile(times, 0.99) for times in rounds]) * 1000:.2f}",
        }
        for name, rounds in (("bare push and blocking pop, there and back", bare), ("one job, submit to result", ours))
    ]
    p50s = [percentile(times, 0.50) for times in ours]
    p99s = [percentile(times, 0.99) for times in ours]
    figures = {
        "p50 ms": median(p50s) * 1000,
        "p99 ms": median(p99s) * 1000,
        "bare p50 ms": median([percentile(times, 0.50) for times in bare]) * 1000,
        "p50 to bare": median_ratio(p50s, [percentile(times, 0.50) for times in bare]),
        "p99 to p50": median_ratio(p99s, p50s),
    }
    rows.append({"": "ratio", "p50 ms": f"{figures['p50 to bare']:.2f}", "p99 ms": ""})
    settings = {"rounds": effort.runs, "of each a round": len(ours[0]), "workers": 1, "concurrency": CONCURRENCY}
    return Answer("A lone job's way on an idle worker (medians of the rounds)", settings, rows, figures)


if __name__ == "__main__":
    main(measure)
